"""Datasets in files of one's own: NumPy archives and comma-separated text."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import jax.numpy as jnp
import numpy as np

_LAYOUTS = (
    {"all": ("features", "labels")},
    {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
)


def read_npz(path: Path | str) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict]:
    """Features and labels of an ``.npz`` archive; nothing in it is ever unpickled.

    Args:
      path: an archive with arrays ``features`` and ``labels``, or ``x_train``, ``y_train``,
        ``x_test``, ``y_test``. ``class_names`` and ``feature_names`` may be there too.

    Returns:
      ``{part: (features, labels)}`` with the part ``all`` or the parts ``train`` and ``test``, and
      ``{"class_names": …, "feature_names": …}`` where given.

    Raises:
      ValueError: not such an archive, damaged, or counts that do not match.
    """
    return _parts_of(path, _read_arrays(Path(path)))


def read_npy_folder(folder: Path | str) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict]:
    """The arrays of :func:`read_npz` as files ``NAME.npy``, mapped into memory.

    Raises:
      ValueError: a folder without these files, or a damaged file.
    """
    folder, arrays = Path(folder), {}
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder with features.npy and labels.npy")
    for path in sorted(folder.glob("*.npy")):
        try:
            arrays[path.stem] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path}: cannot be read as one array: {error}") from None
    return _parts_of(folder, arrays)


def _parts_of(path: Path | str, arrays: dict[str, np.ndarray]) -> tuple[dict, dict]:
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
        if x.dtype.kind not in "iubf" and not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{path}: {features} must be real numbers, got dtype {x.dtype}")
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
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
    if not rows:
        raise ValueError(f"{path}: expected a header row")
    header = [name.strip() for name in rows[0]]
    if header.count(label) != 1:
        raise ValueError(
            f"{path}: expected one column {label!r} with the labels; it has {', '.join(header)}"
        )
    if len(header) < 2:
        raise ValueError(f"{path}: no column beside {label!r} to learn from")
    check_names(path, header)
    at = header.index(label)
    names = tuple(header[:at] + header[at + 1 :])
    features, labels = [], []
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(f"{path}: row {number} has {len(row)} fields, not {len(header)}")
        labels.append(row.pop(at).strip())
        if not labels[-1]:
            raise ValueError(f"{path}: row {number} has no label")
        features.append([number_in(path, number, *pair) for pair in zip(names, row, strict=True)])
    if not features:
        raise ValueError(f"{path}: expected at least one row of data under the header")
    return np.array(features), np.array(labels), names


def check_names(path, header: list[str]) -> None:
    """Raises ValueError for a header in which two columns have one name."""
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: columns must have different names, {repeated[0]!r} is repeated")


def number_in(path, row: int, column: str, text: str) -> float:
    """The number in a field; a ValueError names the row and column of a field without a number."""
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    # A number larger than float32 can hold is as good as infinite; Python reads 1_0 as ten.
    if "_" in text or not abs(value) <= float(np.finfo(np.float32).max):
        raise ValueError(
            f"{path}: row {row}, column {column!r}: expected a finite number, got {text!r}"
        )
    return value


def classes_of(labels: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as class numbers 0 … K-1 and the names of the classes.

    Text and whole numbers are classes, in sorted order (numbers as numbers); numbers with a
    fraction are regression targets, float32, with no classes.

    Args:
      labels: ``(n,)``.
      where: the file, for messages.

    Raises:
      ValueError: labels that are neither text nor finite numbers.
    """
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8")
    if labels.dtype.kind == "U":
        labels = _numbers_if_all_are(labels)
    if labels.dtype.kind not in "iubfU":
        raise ValueError(f"{where}: labels must be text or numbers, got dtype {labels.dtype}")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            row = int(np.argmin(np.isfinite(labels)))
            raise ValueError(f"{where}: labels must be finite, got {labels[row]} in row {row}")
        if not np.array_equal(labels, np.round(labels)) or np.abs(labels).max() > 2**53:
            return labels.astype(np.float32), ()
        labels = labels.astype(np.int64)
    values, numbers = np.unique(labels, return_inverse=True)
    return numbers.astype(np.int32), tuple(str(value) for value in values)


def _numbers_if_all_are(labels: np.ndarray) -> np.ndarray:
    """Labels as numbers if every text is written as a number is; 007 and 1_0 stay text."""
    texts = labels.tolist()
    try:
        if all(text == str(int(text)) for text in texts):
            return labels.astype(np.int64)
    except (ValueError, OverflowError):
        pass
    try:
        values = labels.astype(np.float64)
    except ValueError:
        return labels
    return values if (values != np.round(values)).any() else labels
