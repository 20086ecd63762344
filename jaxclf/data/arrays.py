"""Datasets in arrays with names: an archive of NumPy, a folder of files, or a pair of files."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import jax.numpy as jnp
import numpy as np

from jaxclf.data.memory import check_fits
from jaxclf.messages import listed, shortened

_FEATURES = ("features", "x", "embeddings", "data", "arr_0")
"""The names of an array of features, in small or capital letters; the first one found is taken."""
_LABELS = ("labels", "label", "y", "targets", "target", "arr_1")
_NAMES = ("class_names", "feature_names")
_PARTS = ("train", "test")

Parts = dict[str, tuple[np.ndarray, np.ndarray]]
"""Features and labels of the part ``all``, or of the parts ``train`` and ``test``."""


def read_npz(path: Path | str) -> tuple[Parts, dict]:
    """Features and labels of an ``.npz`` archive; nothing in it is ever unpickled.

    Args:
      path: an archive with arrays ``features`` and ``labels``, or with other usual names for them:
        ``X`` and ``y``, ``embeddings``, ``data`` and ``target``, ``arr_0`` and ``arr_1``; or with
        the same for two parts: ``x_train``, ``y_train``, ``x_test``, ``y_test``. ``class_names``
        and ``feature_names`` may be there too.

    Returns:
      ``{part: (features, labels)}`` with the part ``all`` or the parts ``train`` and ``test``, and
      ``{"class_names": …, "feature_names": …}`` where given.

    Raises:
      ValueError: not such an archive, damaged, counts that do not match, or arrays that do not fit
        into the free memory.
    """
    arrays, files, name = {}, [], "the file"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an archive of arrays with names")
            files = archive.files
            layout = layout_of(path, files)
            size = 0
            for name in used(layout, files):
                size += _promised(archive, name)
            check_fits(path, size)
            for name in used(layout, files):
                arrays[name] = archive[name]
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, MemoryError) as error:
        if str(error).startswith(str(path)):
            raise
        reason = "not an archive of NumPy" if not files else error
        raise ValueError(f"{path}: cannot read {name}: {reason}") from None
    return parts_of(path, arrays, layout, files)


def read_npy(path: Path | str) -> tuple[Parts, dict]:
    """The arrays of :func:`read_npz` as files ``NAME.npy``, mapped into memory.

    Args:
      path: the folder with these files; or the file of the features, beside which the labels have
        the same name but for the word: ``X.npy`` and ``y.npy``, ``cats_features.npy`` and
        ``cats_labels.npy``. Of ``x_train.npy`` the other part, ``x_test.npy`` and ``y_test.npy``,
        is read too. A file of any other name is taken for the features beside ``labels.npy``.

    Raises:
      ValueError: a folder without these files, a file without labels, or a damaged file.
      OSError: a file that cannot be read.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    files = {file.stem: file for file in sorted(folder.glob("*.npy"))}
    if path.is_dir():
        layout = layout_of(path, files)
    else:
        files[path.stem] = path
        layout = _layout_beside(path, files)
    arrays = {name: open_npy(files[name]) for name in used(layout, files)}
    return parts_of(path, arrays, layout, files if path.is_dir() else arrays)


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The shape of the array of a ``.npy`` file, whether it is stored by column, and its dtype.

    Raises:
      ValueError: no such file, or a shape with a number below zero.
    """
    try:
        version = np.lib.format.read_magic(file)
        first = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, by_column, dtype = read(file)
    except Exception as error:  # a header is an expression of Python, which fails in many ways
        raise ValueError(f"its header cannot be read: {shortened(error)}") from None
    if min(shape, default=0) < 0:
        raise ValueError(f"its header tells the shape {shortened(shape)}")
    return shape, by_column, dtype


def _promised(archive: np.lib.npyio.NpzFile, name: str) -> int:
    """The bytes of an array by its own header, which the archive must have."""
    assert archive.zip is not None
    names = archive.zip.namelist()
    entry = archive.zip.getinfo(f"{name}.npy" if f"{name}.npy" in names else name)
    if names.count(entry.filename) > 1:
        raise ValueError(f"two parts have the name {name}")
    with archive.zip.open(entry) as file:
        shape, _, dtype = read_header(cast(BinaryIO, file))
        size = dtype.itemsize * math.prod(shape)
        # The size that the archive tells bounds what is read of it, whatever is packed there.
        if not dtype.hasobject and file.tell() + size != entry.file_size:
            raise ValueError(f"its header promises {size} bytes, not what the archive holds")
    return size


def open_npy(path: Path) -> np.ndarray:
    """The array of a file, mapped into memory.

    Raises:
      ValueError: a damaged file, or one that holds no plain array.
      OSError: a file that cannot be read.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as one array: {error}") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: an archive of arrays, not one array: give npz:FILE")
    return array


def features_in(names: Iterable[str]) -> str | None:
    """The usual name of features among the names of arrays, where labels are not needed."""
    given = _plain(names)
    return next((given[name] for name in _FEATURES if name in given), None)


def layout_of(path: Path | str, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The names of the features and labels of each part.

    Raises:
      ValueError: names among which there are none of both.
    """
    given = _plain(names)
    if pair := _pair(given, "{}"):
        return {"all": pair}
    for pattern in ("{}_train", "train_{}"):
        if layout := _by_parts(given, pattern):
            return layout
    raise ValueError(
        f"{path}: expected arrays features and labels, or x_train, y_train, x_test and y_test; it "
        f"holds {listed(sorted(names), quoted=False) or 'nothing'}"
    )


def used(layout: Mapping[str, tuple[str, str]], names: Iterable[str]) -> list[str]:
    """The names of the arrays that a layout needs, and of those with names."""
    pairs = [name for pair in layout.values() for name in pair]
    return pairs + [name for name in _NAMES if name in names]


def parts_of(
    path: Path | str,
    arrays: Mapping[str, np.ndarray],
    layout: Mapping[str, tuple[str, str]],
    held: Iterable[str],
) -> tuple[Parts, dict]:
    """The arrays of each part, checked, and the names that lie beside them.

    Args:
      path: the file, for messages.
      arrays: the arrays by name.
      layout: what :func:`layout_of` returns.
      held: the names of all arrays of the file; those that are not read are told as ``unused``.
    """
    parts = {}
    for name, array in arrays.items():
        _check_characters(path, name, array)
    for part, (features, labels) in layout.items():
        x, y = _native(arrays[features]), _native(arrays[labels])
        if x.dtype.kind not in "iubf" and not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{path}: {features} must be real numbers, got dtype {x.dtype}")
        if y.dtype.kind == "V" and jnp.issubdtype(y.dtype, jnp.floating):
            y = y.astype(np.float32)  # bfloat16, which NumPy's own functions do not know
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if x.ndim < 2 or y.ndim not in (1, 2) or len(x) != len(y):
            raise ValueError(f"{path}: {features} {x.shape} and {labels} {y.shape} do not match")
        parts[part] = x, y
    names = {name: arrays[name].astype(str) for name in _NAMES if name in arrays}
    return parts, names | {"unused": [name for name in held if name not in arrays]}


def _check_characters(path: Path | str, name: str, array: np.ndarray) -> None:
    """Refuses texts of numbers that are no characters, which NumPy takes and fails at later."""
    if array.dtype.kind == "U":
        try:
            array.astype(array.dtype.newbyteorder("<")).tobytes().decode("utf-32-le")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: {name} holds texts of what are no characters") from None


def _native(array: np.ndarray) -> np.ndarray:
    """The numbers in the order of bytes that JAX takes, and of at most 64 bits."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    if array.dtype.kind in "iuf" and not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array


def _layout_beside(path: Path, stems: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The layout that begins with one file of features."""
    (own,) = _plain([path.stem])
    given = _plain(stems) | {own: path.stem}
    words = f"_{own}_"
    patterns = [words.replace(f"_{x}_", "_{}_", 1)[1:-1] for x in _FEATURES if f"_{x}_" in words]
    for pattern in patterns:
        # The file itself is taken, also where another usual name of features lies beside it.
        beside = {key: name for key, name in given.items() if key == own or not _fits(key, pattern)}
        if layout := _by_parts(beside, pattern):
            return layout
    labels = next((given[name] for name in _LABELS if name in given), None)
    if own in _LABELS or labels is None:
        found = listed([f"{name}.npy" for name in stems if name != path.stem], quoted=False)
        raise ValueError(
            f"{path}: expected features with labels beside them, such as X.npy and y.npy; beside "
            f"it there is {found or 'no other array'}"
        )
    return {"all": (path.stem, labels)}


def _fits(key: str, pattern: str) -> bool:
    return any(key == pattern.replace("{}", name) for name in _FEATURES)


def _by_parts(given: Mapping[str, str], pattern: str) -> dict[str, tuple[str, str]]:
    """The pair of names of a pattern, and the pair for the other part if there is one."""
    first, words = _pair(given, pattern), pattern.split("_")
    if first is None:
        return {}
    for part, other in (_PARTS, _PARTS[::-1]):
        second = _pair(given, "_".join(other if word == part else word for word in words))
        if part in words and second is not None:
            pairs = {part: first, other: second}
            return {name: pairs[name] for name in _PARTS}
    return {"all": first}


def _pair(given: Mapping[str, str], pattern: str) -> tuple[str, str] | None:
    features, labels = (
        next(
            (given[name] for name in (pattern.replace("{}", x) for x in usual) if name in given),
            None,
        )
        for usual in (_FEATURES, _LABELS)
    )
    return (features, labels) if features and labels else None


def _plain(names: Iterable[str]) -> dict[str, str]:
    """Names by how they are compared: in small letters, with underscores between the words."""
    return {name.lower().replace("-", "_"): name for name in names}
