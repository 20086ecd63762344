"""Files in the sparse text of svmlight and libsvm: a label and ``column:number`` pairs a line."""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.messages import shortened
from jaxclf.sparse_rows import is_smaller

_OPENERS = {".gz": gzip.open, ".bz2": bz2.open}
_MOST_COLUMNS = 2**31 - 1
READ_ERRORS = (ValueError, OverflowError, EOFError, zlib.error, gzip.BadGzipFile)
"""What scikit-learn raises for a file with a fault."""


def read_svmlight(path: Path) -> tuple[Any, np.ndarray]:
    """The features ``(n, d)`` and the labels ``(n,)`` of a file, also of one in gzip or bzip2.

    Columns count from 1, or from 0 if a line has a column 0. What follows ``#`` in a line is left
    out, and so is a pair ``qid:number``.

    Returns:
      Features as a :class:`scipy.sparse.csr_array` of float64, or an array where few numbers are
      zero, so that it takes no more memory than two copies of the others with their places.

    Raises:
      ValueError: a damaged file, or a line that is none; the message has its number.
      OSError: a file that cannot be read.
    """
    from scipy.sparse import csr_array
    from sklearn.datasets import load_svmlight_file

    try:
        features, labels = load_svmlight_file(str(path), dtype=np.float64)
    except READ_ERRORS as error:
        raise ValueError(f"{path}: {fault_of(path) or shortened(str(error))}") from None
    if not (features.nnz and np.isfinite(features.data).all()):
        raise ValueError(f"{path}: {fault_of(path) or 'no line has a number'}")
    n, d = features.shape
    if not is_smaller(features):
        return features.toarray(), labels
    # Some of scikit-learn's solvers refuse places of 64 bits.
    dtype = np.int32 if features.nnz <= _MOST_COLUMNS else np.int64
    places, starts = features.indices.astype(dtype), features.indptr.astype(dtype)
    return csr_array((features.data, places, starts), shape=(n, d)), labels


def open_text(path: Path) -> Any:
    """The file in bytes, unpacked where its name ends in ``.gz`` or ``.bz2``."""
    return _OPENERS.get(path.suffix.lower(), open)(path, "rb")


def fault_of(path: Path) -> str:
    """What is wrong with the first line that cannot be read; empty if there is none."""
    number = 0
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, 1):
                words = line.partition(b"#")[0].decode("utf-8", "replace").split()
                if words and (fault := _fault_of(words)):
                    return f"line {number}: {fault}"
    except (EOFError, OSError, zlib.error) as error:
        return f"after line {number}: {shortened(str(error))}"
    return ""


def _fault_of(words: list[str]) -> str:
    label, *pairs = words
    if not _is_finite(label):
        return f"expected a number as label, got {shortened(label)}"
    last = -1
    for pair in pairs:
        column, colon, number = pair.partition(":")
        if column == "qid":
            continue
        if not (colon and column.isascii() and column.isdecimal() and _is_finite(number)):
            return f"expected COLUMN:NUMBER, got {shortened(pair)}"
        if int(column) > _MOST_COLUMNS:
            return f"column {shortened(column)} is above {_MOST_COLUMNS}"
        if int(column) <= last:
            return f"columns must rise, got {column} after {last}"
        last = int(column)
    return ""


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
