"""Tensors that ``torch.save`` wrote, read without torch and without running what is in the file.

Such a file is a zip archive. ``data.pkl`` is a pickle, in which a tensor is the name of its storage
with an offset, a shape and strides; ``data/0``, ``data/1``, … are the numbers of the storages, and
``byteorder`` says how they are written.
Source: Serialization semantics, in the notes of PyTorch's documentation.
"""

from __future__ import annotations

import errno
import pickle
import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.data.arrays import Parts, features_in, layout_of, parts_of, used
from jaxclf.data.torch_pickle import ADVICE, Refused, Tensor, unpickled
from jaxclf.messages import shortened

_LARGEST_PICKLE = 2**26
"""The most bytes of ``data.pkl``: a million labels in text take less."""
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of a file of the format before torch 1.6."""
_DAMAGE = (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError,
           RuntimeError, OverflowError, UnicodeDecodeError, OSError)  # fmt: skip
"""The errors that zipfile and pickle raise for damaged archives."""


def read_torch(path: Path | str) -> tuple[Parts, dict]:
    """Features and labels of a file of ``torch.save``.

    Args:
      path: a file with a dictionary of tensors, under the names that
        :func:`jaxclf.data.arrays.read_npz` takes, or with the two tensors ``(features, labels)``.
        In place of a tensor of labels or names there may be a list of texts or of numbers.

    Raises:
      ValueError: a file that holds anything but tensors, texts and numbers in dictionaries, lists
        and tuples; a tensor that its storage does not hold; or a damaged file.
      OSError: a file that cannot be read.
    """
    with _opened(path) as (archive, root):
        held = _held(path, _unpickled(archive, root))
        layout = layout_of(path, held)
        arrays = {name: _array(archive, root, held[name]) for name in used(layout, held)}
    return parts_of(path, arrays, layout, held)


def read_torch_features(path: Path | str) -> np.ndarray:
    """The features alone; also those of a file that holds one tensor.

    Raises:
      ValueError: a file as :func:`read_torch` refuses, or one without features.
      OSError: a file that cannot be read.
    """
    with _opened(path) as (archive, root):
        found = _unpickled(archive, root)
        held = {"features": found} if isinstance(found, Tensor) else _held(path, found)
        name = features_in(held)
        if name is None:
            raise ValueError(f"{path}: expected a tensor with the name features")
        return _array(archive, root, held[name])


@contextmanager
def _opened(path: Path | str):
    """The archive and the folder in it; what goes wrong inside becomes one sentence."""
    with open(path, "rb") as file:
        old = file.read(len(_OLD_FORMAT)) == _OLD_FORMAT
    if old:
        raise ValueError(f"{path}: the format of torch before 1.6: load it and save it again")
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if f"/{name}".endswith("/data.pkl")]
            if len(pickles) != 1:
                raise zipfile.BadZipFile("the archive has no data.pkl")
            yield archive, pickles[0].removesuffix("data.pkl")
    except Refused as error:
        raise ValueError(f"{path}: {error}") from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(
            f"{path}: cannot be read as a file of torch.save: {shortened(error)}"
        ) from None


def _held(path: Path | str, found: Any) -> dict[str, Any]:
    """The tensors and the flat lists by their names."""
    if isinstance(found, dict):
        named = {name: value for name, value in found.items() if isinstance(name, str)}
    elif isinstance(found, tuple | list) and len(found) == 2:
        named = dict(zip(("features", "labels"), found, strict=True))
    else:
        what = "one tensor" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(
            f"{path}: expected a dictionary of tensors or the two tensors (features, labels), it "
            f"holds {what}"
        )
    return {name: value for name, value in named.items() if _is_array(value)}


def _is_array(value: Any) -> bool:
    if isinstance(value, Tensor):
        return True
    flat = isinstance(value, list | tuple) and len(value) > 0
    return flat and (
        all(isinstance(x, str) for x in value) or all(isinstance(x, int | float) for x in value)
    )


def _unpickled(archive: zipfile.ZipFile, root: str) -> Any:
    info = archive.getinfo(f"{root}data.pkl")
    if info.file_size > _LARGEST_PICKLE:
        raise Refused(
            f"its pickle has {info.file_size} bytes, of which most are no tensors: {ADVICE}"
        )
    return unpickled(archive.read(info))


def _array(archive: zipfile.ZipFile, root: str, value: Any) -> np.ndarray:
    """The numbers of a tensor, row by row, in the machine's byte order; or a list as an array."""
    if not isinstance(value, Tensor):
        return np.array(value)
    storage, dtype = value.storage, value.dtype
    info = archive.getinfo(f"{root}data/{storage.key}")
    needed = storage.length * storage.dtype.itemsize
    if info.file_size != needed:
        raise zipfile.BadZipFile(
            f"storage {shortened(storage.key)} has {info.file_size} bytes, not {needed}"
        )
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in archive.namelist() else b""
    raw = np.dtype(f"u{dtype.itemsize}").newbyteorder(">" if order.strip() == b"big" else "<")
    numbers = np.frombuffer(archive.read(info)[: needed // dtype.itemsize * dtype.itemsize], raw)
    numbers = numbers.astype(raw.newbyteorder("="), copy=False)
    numbers = numbers != 0 if dtype.kind == "b" else numbers.view(dtype)
    try:
        view = np.lib.stride_tricks.as_strided(
            numbers[value.offset :], value.shape, [n * dtype.itemsize for n in value.strides]
        )
    except (ValueError, OverflowError):  # an empty tensor of an absurd shape, or too many axes
        raise Refused(f"a tensor has the shape {shortened(value.shape)}") from None
    return np.ascontiguousarray(view)
