"""Features of a file, some thousand rows at a time: in bounded memory, and without labels."""

from __future__ import annotations

import csv
import itertools
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxclf.data.tables import check_names, number_in

ROWS_AT_ONCE = 4096


def feature_chunks(
    source: str, wanted: Sequence[str] = (), label: str = "label"
) -> Iterator[np.ndarray] | None:
    """The rows of ``csv:FILE``, ``npy:FILE`` or ``npz:FILE``; ``None`` for any other source.

    Args:
      source: comma-separated text with a header; one array ``(n, ...)`` in a file, which is mapped
        into memory; or an archive with an array ``features``, row by row.
      wanted: the columns to take from text, in this order; other columns are passed over. Without
        names all columns are taken but the label.
      label: the name of the label column.

    Returns:
      Arrays ``(at most 4096, ...)``; those from text are float32.

    Raises:
      ValueError: a file that is damaged or has no such columns, when it is read.
      OSError: a file that cannot be read.
    """
    kind, _, rest = source.partition(":")
    path = Path(rest).expanduser()
    if kind == "csv":
        return _csv_chunks(path, tuple(wanted), label)
    if kind == "npy" and not path.is_dir():
        return _npy_chunks(path)
    if kind == "npz" and _has_features(path):
        return _npz_chunks(path)
    return None


def _csv_chunks(path: Path, wanted: tuple[str, ...], label: str) -> Iterator[np.ndarray]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(lines, [])]
            columns = wanted or tuple(name for name in header if name != label)
            missing = [name for name in columns if name not in header]
            if missing or not columns:
                raise ValueError(
                    f"{path}: expected a column {missing[0] if missing else 'of numbers'!r}; it "
                    f"has {', '.join(header) or 'no header'}"
                )
            check_names(path, [name for name in header if name in columns])
            places = [header.index(name) for name in columns]
            numbered = ((i, row) for i, row in enumerate(lines, 2) if row)
            while chunk := list(itertools.islice(numbered, ROWS_AT_ONCE)):
                for i, row in chunk:
                    if len(row) != len(header):
                        raise ValueError(
                            f"{path}: row {i} has {len(row)} fields, not {len(header)}"
                        )
                yield np.array(
                    [[number_in(path, i, header[j], row[j]) for j in places] for i, row in chunk],
                    np.float32,
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not comma-separated UTF-8 text: {error}") from None


def _npy_chunks(path: Path) -> Iterator[np.ndarray]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read as one array: {error}") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: an archive of arrays, not one array: give npz:FILE")
    _check(path, array.shape, array.dtype)
    for first in range(0, len(array), ROWS_AT_ONCE):
        yield np.array(array[first : first + ROWS_AT_ONCE], array.dtype.newbyteorder("="))


def _has_features(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "features.npy" in archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not an archive of arrays: {error}") from None


def _npz_chunks(path: Path) -> Iterator[np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open("features.npy") as file:
            version = np.lib.format.read_magic(file)
            older = version == (1, 0)
            read = np.lib.format.read_array_header_1_0 if older else (
                np.lib.format.read_array_header_2_0
            )  # fmt: skip
            shape, by_column, dtype = read(file)
            _check(path, shape, dtype)
            if by_column:
                raise ValueError("features are stored column by column: save them row by row")
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
    if dtype.kind not in "iubf" or len(shape) < 2 or 0 in shape:
        raise ValueError(f"{path}: features must be numbers (rows, columns), got {dtype} {shape}")
