"""Sparse rows on the host, in memory or in files, that are read as they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxclf.messages import shortened

_MOST_COLUMNS = 2**31 - 1


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Sparse features ``(n, d)`` in compressed rows, arrays of the host or memory maps.

    :func:`jaxclf.minimize` and :func:`jaxclf.fit` read them a block of rows at a time where they
    are larger than memory. They are the ``data``, ``indices`` and ``indptr`` of a
    :class:`scipy.sparse.csr_array`; every block is checked as it is read.
    """

    values: Any
    """The numbers, one row after another, ``(nnz,)`` float32 or float64."""
    places: Any
    """The column of each number, ``(nnz,)`` int32, rising within a row."""
    starts: Any
    """The first number of each row, and the count of all, ``(n + 1,)`` integers."""
    num_columns: int
    """d."""
    ndim: ClassVar = 2

    def __post_init__(self):
        if self.values.dtype not in (np.float32, np.float64):
            raise TypeError(f"values must be float32 or float64, got {self.values.dtype}")
        if self.places.dtype != np.int32:
            raise TypeError(f"places must be int32, got {self.places.dtype}")
        if self.starts.dtype.kind not in "iu":
            raise TypeError(f"starts must be integers, got {self.starts.dtype}")
        counts = {"values": np.shape(self.values), "places": np.shape(self.places)}
        size = int(self.starts[-1]) if len(self.starts) else -1
        if len(self.starts) < 2 or self.starts[0] != 0 or set(counts.values()) != {(size,)}:
            given = ", ".join(f"{name} {shape}" for name, shape in counts.items())
            raise ValueError(
                f"starts must begin at 0 and end at the count of values and places; got {given} "
                f"and starts {np.shape(self.starts)} that end at {size}"
            )
        if not 1 <= self.num_columns <= _MOST_COLUMNS:
            raise ValueError(
                f"num_columns must be 1 … {_MOST_COLUMNS}, got {shortened(self.num_columns)}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.starts) - 1, self.num_columns

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.values.dtype)

    @property
    def size(self) -> int:
        """The number of stored numbers."""
        return len(self.values)

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.places.nbytes + self.starts.nbytes

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, rows: slice | np.ndarray) -> Any:
        """Some rows, or a range of rows, as a :class:`scipy.sparse.csr_array` in new memory.

        Raises:
          ValueError: places that do not rise within a row, or are outside of the columns; numbers
            that are not finite.
        """
        from scipy.sparse import csr_array

        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            rows = np.arange(first, last, step)
        starts = self.starts
        counts = (starts[rows + 1] - starts[rows]).astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(counts)])
        adjacent = len(rows) > 0 and (np.diff(rows) == 1).all()
        if adjacent:
            where = slice(int(starts[rows[0]]), int(starts[rows[-1] + 1]))
        else:
            shift = np.repeat(starts[rows].astype(np.int64) - ends[:-1], counts)
            where = np.arange(ends[-1]) + shift
        values, places = np.array(self.values[where]), np.array(self.places[where])
        check_numbers(values, places, ends, self.num_columns)
        ends = ends.astype(np.int32) if ends[-1] <= _MOST_COLUMNS else ends
        return csr_array((values, places, ends), shape=(len(rows), self.num_columns))


def check_in_memory(what: str, features: Any) -> None:
    """Raises TypeError where something that holds the rows is given stored ones."""
    if isinstance(features, StoredRows):
        raise TypeError(f"{what} takes rows in memory, which make_batch reads from stored ones")


def check_numbers(
    values: np.ndarray, places: np.ndarray, starts: np.ndarray, num_columns: int
) -> None:
    """Raises ValueError unless numbers are finite, and the columns of every row rise and are there.

    A kernel would read and write outside of its arrays for a column that is not there, and numbers
    at the same place would be squared one by one.
    """
    if not len(places):
        return
    if places.min() < 0 or places.max() >= num_columns:
        outside = places.min() if places.min() < 0 else places.max()
        raise ValueError(f"stored rows have a number in column {outside} of {num_columns}")
    if not (finite := np.isfinite(values)).all():
        k = int(np.argmin(finite))
        raise ValueError(f"stored rows must be finite, got {values[k]} in column {places[k]}")
    falls = np.flatnonzero(places[1:] <= places[:-1]) + 1
    inner = falls[~np.isin(falls, starts)]
    if len(inner):
        raise ValueError(
            "the columns of stored rows must rise within a row, got "
            f"{places[inner[0]]} after {places[inner[0] - 1]}"
        )
