"""Sparse rows in parts of as many rows each, one part for each device of a mesh.

The arrays of all parts are one after another, with the same room each, so that a device holds the
compressed rows and columns of its own part. Rows in chunks are read into such room.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxclf.sparse_rows import Compressed, SparseRows
from jaxclf.stored_rows import check_numbers


def room_for_parts(
    new: Callable, parts: int, shape: tuple[int, int], most: int, dtype: Any, total: int
) -> SparseRows:
    """Room on the host for parts of sparse rows.

    Args:
      new: ``(size, dtype) -> array``, which makes the arrays.
      parts: the parts that are held here.
      shape: the rows and columns of a part.
      most: the most numbers of a part.
      dtype: the dtype of the numbers.
      total: the rows of all parts, also of those that other processes hold.
    """

    def compressed(lines: int) -> Compressed:
        sizes = (most, dtype), (most, np.int32), (lines + 1, np.int32)
        return Compressed(*(new(parts * size, kind) for size, kind in sizes))

    return SparseRows(compressed(shape[0]), compressed(shape[1]), (total, shape[1]))


def fill_part(room: SparseRows, i: int, rows: int, starts: np.ndarray, read: Callable) -> None:
    """Reads part ``i`` into its room, and transposes it.

    Args:
      room: the result of :func:`room_for_parts`.
      i: the number of the part.
      rows: the rows of a part; those that are missing are empty.
      starts: the first number of each row that is there, and the end of the last row.
      read: ``(first number, end, values, places)``, which copies numbers into arrays.

    Raises:
      ValueError: columns that do not rise within a row, or are not there; numbers that are not
        finite.
    """
    from scipy.sparse import csr_array

    d = room.shape[1]
    parts = len(room.by_row.starts) // (rows + 1)
    by_row, by_column = (_slice(part, i, parts) for part in (room.by_row, room.by_column))
    count = int(starts[-1]) - int(starts[0])
    by_row.starts[: len(starts)] = starts - starts[0]
    by_row.starts[len(starts) :] = count
    values, places = by_row.values[:count], by_row.places[:count]
    read(int(starts[0]), int(starts[-1]), values, places)
    check_numbers(values, places, by_row.starts, d)
    columns = csr_array((values, places, by_row.starts), shape=(rows, d)).tocsc()
    by_column.values[:count], by_column.places[:count] = columns.data, columns.indices
    by_column.starts[:] = columns.indptr


def _slice(part: Any, i: int, parts: int) -> Compressed:
    return Compressed(*(x.reshape(parts, -1)[i] for x in part))
