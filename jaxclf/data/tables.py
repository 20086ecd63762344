"""Datasets in files of one's own: NumPy archives and comma-separated text."""

from __future__ import annotations

import csv
import zipfile
import zlib
from pathlib import Path

import numpy as np

_LAYOUTS = (
    {"all": ("features", "labels")},
    {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
)


def read_npz(path: Path | str) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict]:
    """Features and labels of an ``.npz`` archive; nothing in it is ever unpickled.

    Args:
      path: an archive with arrays ``features`` and ``labels``, or ``x_train``, ``y_train``,
        ``x_test``, ``y_test``; and, if it likes, ``class_names`` and ``feature_names``.

    Returns:
      ``{part: (features, labels)}`` with the part ``all`` or the parts ``train`` and ``test``, and
      ``{"class_names": …, "feature_names": …}`` where given.

    Raises:
      ValueError: not such an archive, damaged, or counts that do not match.
    """
    arrays = _read_arrays(Path(path))
    for layout in _LAYOUTS:
        if all(key in arrays for keys in layout.values() for key in keys):
            break
    else:
        raise ValueError(
            f"{path}: expected arrays features and labels, or x_train, y_train, x_test and y_test; "
            f"it holds {', '.join(sorted(arrays)) or 'nothing'}"
        )
    parts = {}
    for part, (features, labels) in layout.items():
        x, y = arrays[features], arrays[labels]
        if x.ndim < 2 or y.ndim < 1 or len(x) != len(y):
            raise ValueError(f"{path}: {features} {x.shape} and {labels} {y.shape} do not match")
        parts[part] = x, y
    names = {k: arrays[k].astype(str) for k in ("class_names", "feature_names") if k in arrays}
    return parts, names


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays, name = {}, "the archive"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an archive of arrays with names")
            for name in archive.files:
                arrays[name] = archive[name]
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: cannot read {name}: {error}") from None
    return arrays


def read_csv(path: Path | str, label: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Features and labels of a table of numbers with a header row.

    Args:
      path: UTF-8 text; fields may be quoted.
      label: name of the label column; every other column is a number.

    Returns:
      ``(n, d)`` float64 features, ``(n,)`` labels as text, and the names of the features.

    Raises:
      ValueError: no such column, or a row that is short, long or not finite numbers; the message
        names row and column, where the header is row 1.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            rows = list(csv.reader(file, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not comma-separated UTF-8 text: {error}") from None
    if len(rows) < 2:
        raise ValueError(f"{path}: expected a header row and at least one row of data")
    header = [name.strip() for name in rows[0]]
    if header.count(label) != 1:
        raise ValueError(
            f"{path}: expected one column {label!r} with the labels; it has {', '.join(header)}"
        )
    if len(header) < 2:
        raise ValueError(f"{path}: no column beside {label!r} to learn from")
    at = header.index(label)
    body = [row for row in rows[1:] if row]
    for number, row in enumerate(rows[1:], 2):
        if row and len(row) != len(header):
            raise ValueError(f"{path}: row {number} has {len(row)} fields, not {len(header)}")
    text = np.array(body, dtype=str)
    labels = np.char.strip(text[:, at])
    columns = np.delete(text, at, axis=1)
    names = tuple(header[:at] + header[at + 1 :])
    try:
        features = columns.astype(np.float64)
    except ValueError:
        features = None
    if features is None or not np.isfinite(features).all():
        _refuse_cell(path, [i for i, row in enumerate(rows[1:], 2) if row], columns, names)
    return features, labels, names


def _refuse_cell(path, row_numbers, columns, names) -> None:
    for number, row in zip(row_numbers, columns, strict=True):
        for name, cell in zip(names, row, strict=True):
            try:
                finite = np.isfinite(np.float64(cell))
            except ValueError:
                finite = False
            if not finite:
                raise ValueError(
                    f"{path}: row {number}, column {name!r}: expected a finite number, "
                    f"got {str(cell)!r}"
                )


def classes_of(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as class numbers 0 … K-1 and the names of the classes.

    Text and integers are classes, in sorted order (numbers as numbers); numbers with a fraction are
    regression targets, float32, with no classes.
    """
    if labels.dtype.kind == "U":
        try:
            labels = labels.astype(np.float64)
        except ValueError:
            pass
        else:
            if not np.isfinite(labels).all():
                raise ValueError("labels must be finite")
    if labels.dtype.kind == "f" and np.array_equal(labels, np.round(labels)):
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "f":
        return labels.astype(np.float32), ()
    values, numbers = np.unique(labels, return_inverse=True)
    return numbers.astype(np.int32), tuple(str(value) for value in values)
