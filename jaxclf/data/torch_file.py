"""Tensors that ``torch.save`` wrote, read without torch and without running what is in the file.

Such a file is a zip archive. ``data.pkl`` is a pickle, in which a tensor is the name of its storage
with an offset, a shape and strides; ``data/0``, ``data/1``, … are the numbers of the storages, and
``byteorder`` says how they are written. Only the opcodes and the names that tensors need are known
here, so that a pickle of anything else is refused before it does something.
Source: Serialization semantics, in the notes of PyTorch's documentation.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxclf.data.arrays import Parts, features_in, layout_of, parts_of, used
from jaxclf.messages import shortened

_DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(jnp.bfloat16),
    "bool": np.dtype(bool),
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}")
       for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
"""The dtypes of the storages; an untyped one counts bytes."""
_OPCODES = {
    "PROTO", "FRAME", "MARK", "STOP", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE",
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "DICT", "LIST", "TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BINPERSID",
}  # fmt: skip
"""The opcodes of a pickle that tensors in containers need: none of them sets an attribute."""
_LARGEST_PICKLE = 2**26
"""The most bytes of ``data.pkl``: a million labels in text take less."""
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of a file of the format before torch 1.6."""
_ADVICE = "save the tensors alone, as torch.save({'features': x, 'labels': y}, FILE)"


class _Storage(NamedTuple):
    """Numbers in the archive."""

    key: str
    dtype: np.dtype
    length: int


class _Tensor(NamedTuple):
    """A tensor whose place in its storage has been checked."""

    storage: _Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Refused(Exception):
    """The pickle is whole, but holds more than tensors."""


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
    return parts_of(path, arrays, layout)


def read_torch_features(path: Path | str) -> np.ndarray:
    """The features alone; also those of a file that holds one tensor.

    Raises:
      ValueError: a file as :func:`read_torch` refuses, or one without features.
      OSError: a file that cannot be read.
    """
    with _opened(path) as (archive, root):
        found = _unpickled(archive, root)
        held = {"features": found} if isinstance(found, _Tensor) else _held(path, found)
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
    except _Refused as error:
        raise ValueError(f"{path}: {error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError,
            RuntimeError) as error:  # fmt: skip
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
        what = "one tensor" if isinstance(found, _Tensor) else f"a {type(found).__name__}"
        raise ValueError(
            f"{path}: expected a dictionary of tensors or the two tensors (features, labels), it "
            f"holds {what}"
        )
    return {name: value for name, value in named.items() if _is_array(value)}


def _is_array(value: Any) -> bool:
    if isinstance(value, _Tensor):
        return True
    flat = isinstance(value, list | tuple) and len(value) > 0
    return flat and (
        all(isinstance(x, str) for x in value) or all(isinstance(x, int | float) for x in value)
    )


def _unpickled(archive: zipfile.ZipFile, root: str) -> Any:
    info = archive.getinfo(f"{root}data.pkl")
    if info.file_size > _LARGEST_PICKLE:
        raise _Refused(
            f"its pickle has {info.file_size} bytes, of which most are no tensors: {_ADVICE}"
        )
    content = archive.read(info)
    try:
        _check_opcodes(content)
        return _TensorUnpickler(io.BytesIO(content)).load()
    except _Refused:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise zipfile.BadZipFile(f"damaged pickle, {error}") from None


def _check_opcodes(content: bytes) -> None:
    """Raises for opcodes of other objects than containers, and for a memo larger than the file."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL":
            _known(*str(argument).split(" ", 1))
        if opcode.name not in _OPCODES:
            build = opcode.name == "BUILD"
            what = f"the opcode {opcode.name},"
            what = "an object with attributes, such as a state_dict," if build else what
            raise _Refused(f"it holds {what} and only plain tensors are read: {_ADVICE}")
        if opcode.name.endswith("BINPUT") and argument > len(content):
            raise pickle.UnpicklingError("an entry of its memo lies outside")


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler to which only tensors have names."""

    def find_class(self, module: str, name: str) -> Any:
        return _known(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError("an identifier that is no storage")
        _, dtype, key, _, length = pid
        if not (isinstance(dtype, np.dtype) and isinstance(key, str) and _are_counts(length)):
            raise pickle.UnpicklingError("a storage without a type, a name or a length")
        return _Storage(key, dtype, length)


def _known(module: str, name: str) -> Any:
    """What a global of the pickle stands for; nothing can be set on it."""
    place = f"{module}.{name}"
    if place in _CALLS:
        return _CALLS[place]
    if module == "torch" and name in _DTYPES:
        return _DTYPES[name]
    if module in ("torch", "torch.storage") and name in _STORAGES:
        return _DTYPES[_STORAGES[name]]
    raise _Refused(f"it holds {shortened(place)}, and only plain tensors are read: {_ADVICE}")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """A tensor of the dtype of its storage: ``torch._utils._rebuild_tensor_v2``."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _checked(storage, storage.dtype, offset, shape, strides, rest[2:])


def _tensor_of_bytes(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """A tensor that says its own dtype: ``torch._utils._rebuild_tensor_v3``."""
    if not isinstance(storage, _Storage) or len(rest) < 3 or not isinstance(rest[2], np.dtype):
        raise pickle.UnpicklingError("a tensor without a storage or a dtype")
    return _checked(storage, rest[2], offset, shape, strides, rest[3:])


def _checked(storage, dtype, offset, shape, strides, more: tuple) -> _Tensor:
    """A tensor, all of whose elements lie in its storage, none of them twice as a whole."""
    shape, strides = _as_tuple(shape), _as_tuple(strides)
    if not _are_counts(offset, *shape, *strides) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a shape that is no counts")
    if any(isinstance(given, dict) and any(given.values()) for given in more):
        raise _Refused(f"it holds a tensor that is conjugated or negated lazily: {_ADVICE}")
    held = storage.length * storage.dtype.itemsize // dtype.itemsize
    count = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if count > held or (count and last >= held):
        raise _Refused(
            f"a tensor of shape {shortened(shape)} does not fit its storage of {held} numbers"
        )
    return _Tensor(storage, dtype, offset, shape, strides)


def _parameter(tensor: Any, *rest: Any) -> _Tensor:
    """The tensor of a parameter: ``torch._utils._rebuild_parameter``."""
    if not isinstance(tensor, _Tensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return tensor


def _device(*names: Any) -> tuple:
    return names


_CALLS: dict[str, Callable] = {
    "collections.OrderedDict": dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_bytes,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": tuple,
    "torch.device": _device,
}
"""The functions that a pickle may call."""


def _as_tuple(given: Any) -> tuple:
    return tuple(given) if isinstance(given, tuple | list) else (None,)


def _are_counts(*given: Any) -> bool:
    return all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in given)


def _array(archive: zipfile.ZipFile, root: str, value: Any) -> np.ndarray:
    """The numbers of a tensor, row by row, in the machine's byte order; or a list as an array."""
    if not isinstance(value, _Tensor):
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
        raise _Refused(f"a tensor has the shape {shortened(value.shape)}") from None
    return np.ascontiguousarray(view)
