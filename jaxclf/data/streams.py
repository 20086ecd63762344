"""Features of a file, some thousand rows at a time: in bounded memory, and without labels."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple, cast

import jax.numpy as jnp
import numpy as np

from jaxclf.data.arrays import features_in, open_npy, read_header
from jaxclf.data.images import image_chunks
from jaxclf.data.kinds import check_there, kind_of
from jaxclf.data.safetensors_file import safetensors_chunks
from jaxclf.data.table_encoding import check_first_row, encode, names_by_plan, note_of_absent
from jaxclf.data.table_plan import TablePlan, plan_of_numbers
from jaxclf.data.tables import TABLES, open_table
from jaxclf.data.torch_file import read_torch_features
from jaxclf.mapped_files import check_unchanged

ROWS_AT_ONCE = 4096


class FeatureChunks(NamedTuple):
    """The features of a file, read as they are asked for."""

    arrays: Iterator[np.ndarray]
    """Arrays of at most 4096 rows; those of tables are float64."""
    notes: tuple[str, ...] = ()
    """What there is to say of the file, a sentence each."""
    unread: Mapping[str, str] = MappingProxyType({})
    """The first cell of each column that is no number and counts as missing, of the rows that were
    read."""
    names: tuple[str, ...] = ()
    """The names of the columns of arrays, if the file has them."""


def feature_chunks(
    source: str, plan: TablePlan | None = None, image_shape: Sequence[int] | None = None
) -> FeatureChunks | None:
    """The rows of a file, or the images in a folder; ``None`` for any other source.

    Args:
      source: a table; ``npy:FILE``, one array ``(n, ...)``, which is mapped into memory; an array
        of features in ``npz:FILE``, ``safetensors:FILE`` or ``pt:FILE``; or ``images:FOLDER`` with
        the images in the folder itself, in the order of their names.
      plan: the plan by which a table is encoded. Without it all columns are numbers.
      image_shape: the shape of one image, as :func:`jaxclf.data.load_dataset` takes it.

    Raises:
      ValueError: a file that is damaged or has no such columns, when it is read.
      OSError: a file that cannot be read.
    """
    kind, rest = kind_of(source)
    check_there(kind, rest)
    path = Path(rest).expanduser()
    if kind in TABLES:
        return _table_chunks(kind, path, plan)
    if kind == "npy" and not path.is_dir():
        return FeatureChunks(_npy_chunks(path))
    if kind == "npz" and (name := _features_in(path)):
        return FeatureChunks(_npz_chunks(path, name), names=_names_in(path))
    if kind == "safetensors":
        return FeatureChunks(_checked(path, safetensors_chunks(path, ROWS_AT_ONCE)))
    if kind == "pt":
        return FeatureChunks(_checked(path, _cut(read_torch_features(path))))
    if kind == "images" and (found := image_chunks(path, ROWS_AT_ONCE, image_shape)):
        return FeatureChunks(*found)
    return None


def _table_chunks(kind: str, path: Path, plan: TablePlan | None) -> FeatureChunks:
    header = "auto" if plan is None else ("yes" if plan.has_header else "no")
    opened = open_table(kind, path, header)
    plan = plan or plan_of_numbers(opened.names)
    names = names_by_plan(plan, opened.names, path)
    notes = (*opened.notes, *note_of_absent(plan, names))
    unread = {}

    def encoded() -> Iterator[np.ndarray]:
        first = 1 + opened.has_header
        for chunk in opened.chunks:
            for at in range(0, len(chunk), ROWS_AT_ONCE):
                part = chunk.slice(at, ROWS_AT_ONCE).rename_columns(list(names))
                if first == 1 and not opened.has_header:
                    check_first_row(plan, part, path)
                rows = np.arange(first, first + len(part))
                features, found = encode(plan, part, path, rows)
                unread.update(found | unread)
                yield features
                first += len(part)

    return FeatureChunks(encoded(), notes, unread)


def _npy_chunks(path: Path) -> Iterator[np.ndarray]:
    array = open_npy(path)
    _check(path, array.shape, array.dtype)
    for first in range(0, len(array), ROWS_AT_ONCE):
        check_unchanged(array)
        yield np.array(array[first : first + ROWS_AT_ONCE], array.dtype.newbyteorder("="))


def _cut(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[first : first + ROWS_AT_ONCE] for first in range(0, len(array), ROWS_AT_ONCE))


def _checked(path: Path, chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for chunk in chunks:
        _check(path, chunk.shape, chunk.dtype)
        yield chunk


def _features_in(path: Path) -> str | None:
    """The name of the file with the features in an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = features_in(n.removesuffix(".npy") for n in archive.namelist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not an archive of arrays: {error}") from None
    return f"{found}.npy" if found else None


def _names_in(path: Path) -> tuple[str, ...]:
    """The names of the columns in an archive, if it has them."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return tuple(map(str, archive["feature_names"])) if "feature_names" in archive else ()
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot read feature_names: {error}") from None


def _npz_chunks(path: Path, name: str) -> Iterator[np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            shape, by_column, dtype = read_header(cast(BinaryIO, file))
            _check(path, shape, dtype)
            if by_column:  # the rows are not in one piece: the array is read as a whole
                with np.load(path, allow_pickle=False) as whole:
                    yield from _cut(whole[name.removesuffix(".npy")])
                return
            row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
            for first in range(0, shape[0], ROWS_AT_ONCE):
                count = min(ROWS_AT_ONCE, shape[0] - first)
                content = file.read(count * row_bytes)
                if len(content) < count * row_bytes:
                    raise ValueError(f"features end in row {first + len(content) // row_bytes}")
                rows = np.frombuffer(content, dtype).reshape(count, *shape[1:])
                yield rows.astype(dtype.newbyteorder("="), copy=False)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot read features: {error}") from None


def _check(path: Path, shape: tuple, dtype: np.dtype) -> None:
    real = dtype.kind in "iubf" or jnp.issubdtype(dtype, jnp.floating)
    if not real or len(shape) < 2 or 0 in shape:
        raise ValueError(f"{path}: features must be numbers (rows, columns), got {dtype} {shape}")
