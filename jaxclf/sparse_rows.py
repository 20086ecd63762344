"""Rows of sparse features: the numbers other than zero, in the order of rows and of columns.

A solver reads sparse features as it reads dense ones, by ``X Wᵀ`` and ``R X``. Both products go
over compressed rows, of X and of its transpose, because such a product adds up one row at a time
and scatters nothing. Both are memory for the numbers of X twice, and nothing is made dense.

On two CPU cores, for 11 314 × 130 107 text-like features with 1.5 million numbers and W of 20
columns in float32, a product takes 5 to 6 ms. JAX's kernel is that fast for columns that fill a
vector, so W is padded: without that a product takes 12 to 17 ms, and one column 24 ms in place of
3.6 ms. Gathers with sums over sorted segments take 44 to 50 ms, padded gathers in buckets 39 to
58 ms, JAX's BCOO 54 to 57 ms, and SciPy in a callback, on one core, 8 to 14 ms. For one column
such a callback takes 1.7 to 2.3 ms, but it fails in float64 where 64-bit mode is on in the calling
thread alone. Pieces of a row that are gathered and summed up are 0.8 to 1.4 times as fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.stored_rows import StoredRows

_VECTOR_BYTES = 32
"""The bytes of a row of W that JAX's kernel takes at once."""
_MOST_NUMBERS = 2**31 - 1
"""The most numbers other than zero, as their places have 32 bits."""
_EXACT_IN_FLOAT32 = 2**24


class Compressed(NamedTuple):
    """The numbers of a matrix, one row after another."""

    values: Any
    """The numbers, ``(nnz,)``."""
    places: Any
    """The column of each number, ``(nnz,)`` int32, rising within a row."""
    starts: Any
    """The first number of each row, and the count of all, ``(rows + 1,)`` int32."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["by_row", "by_column"],
    meta_fields=["shape"],
)
@dataclass(frozen=True)
class SparseRows:
    """Features ``(n, d)`` of floating dtype, of which the numbers other than zero are stored.

    It is a pytree of arrays. ``X @ W`` and ``R @ X`` are dense, and may be traced and
    differentiated.
    """

    by_row: Compressed
    """The numbers of X."""
    by_column: Compressed | None
    """The numbers of Xᵀ; ``None`` for the rows of a minibatch, which are read once."""
    shape: tuple[int, int]
    """The rows and columns. Where a mesh shares the rows out, the arrays of the parts are one after
    another, and the shape is that of all parts."""
    ndim: ClassVar = 2
    __array_ufunc__: ClassVar = None  # NumPy leaves ``R @ X`` to this class

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.by_row.values.dtype)

    @property
    def size(self) -> int:
        """The number of stored numbers, with those that fill up their arrays."""
        return self.by_row.values.size

    def __len__(self) -> int:
        return self.shape[0]

    def __matmul__(self, w) -> jax.Array:
        """``X W`` for W ``(d,)`` or ``(d, K)``."""
        if self.by_column is None:
            return _gathered_product(self.by_row, w)
        return _product(self.by_row, self.shape, w)

    def __rmatmul__(self, r) -> jax.Array:
        """``R X`` for R ``(n,)`` or ``(K, n)``."""
        n, d = self.shape
        return _product(self.by_column, (d, n), r.T).T

    def astype(self, dtype) -> SparseRows:
        return of_numbers(lambda x: x.astype(dtype), self)

    def sum(self, axis: int) -> jax.Array:
        """The sum of each row, where ``axis`` is 1, or of each column."""
        ones = np.ones(self.shape[axis], self.dtype)
        return self @ ones if axis == 1 else ones @ self


def is_sparse(x: Any) -> bool:
    """Whether features are :class:`SparseRows`."""
    return isinstance(x, SparseRows)


def part_in_program(x: Any) -> Any:
    """The rows of one device, in a program that sees the arrays of that device alone."""
    if isinstance(x, DenseBlocks):
        return DenseBlocks(part_in_program(x.rows))
    return replace(x, shape=(len(x.by_row.starts) - 1, x.shape[1])) if is_sparse(x) else x


def parts_of(x: SparseRows) -> list[SparseRows]:
    """The parts that a mesh shares out, one after another, on the host."""
    n, d = x.shape
    parts = len(x.by_row.starts) - n
    if parts == 1:
        return [x]
    cut = [np.asarray(y).reshape(parts, -1) for y in jax.tree.leaves((x.by_row, x.by_column))]
    return [
        SparseRows(Compressed(*each[:3]), Compressed(*each[3:]), (n // parts, d))
        for each in zip(*cut, strict=True)
    ]


def of_numbers(function: Callable, x: Any) -> Any:
    """A function of each number of features; those that are not stored stay zero."""
    if not is_sparse(x):
        return function(x)
    by_row, by_column = (
        part and part._replace(values=function(part.values)) for part in (x.by_row, x.by_column)
    )
    return SparseRows(by_row, by_column, x.shape)


class DenseBlocks(NamedTuple):
    """Sparse rows whose blocks are made dense where a sum over rows takes a block at a time."""

    rows: SparseRows

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype:
        return self.rows.dtype

    def __len__(self) -> int:
        return len(self.rows)


class Numbers(NamedTuple):
    """Some stored numbers and their places; what fills up the arrays is zero."""

    values: jax.Array
    rows: jax.Array
    columns: jax.Array
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def dense_rows(self, first, size: int) -> jax.Array:
        """``(size, d)`` dense rows from row ``first``, by a look at all numbers."""
        d = self.shape[1]
        there = (self.rows >= first) & (self.rows < first + size)
        flat = jnp.where(there, (self.rows - first) * d + self.columns, size * d)
        dense = jnp.zeros(size * d, self.values.dtype).at[flat].add(self.values, mode="drop")
        return dense.reshape(size, d)


def columns_of_numbers(x: SparseRows) -> tuple[Any, jax.Array]:
    """The column of each stored number, in the order of rows and in the order of columns."""
    starts = x.by_column.starts.reshape(-1, x.shape[1] + 1)  # of each part
    room = len(x.by_column.values) // len(starts)

    def of_part(starts):
        return jnp.repeat(jnp.arange(x.shape[1]), jnp.diff(starts), total_repeat_length=room)

    return x.by_row.places, jax.vmap(of_part)(starts).ravel()


def numbers_of(x: SparseRows) -> Numbers:
    """All stored numbers."""
    values, places, starts = x.by_row
    rows = jnp.repeat(jnp.arange(len(x)), jnp.diff(starts), total_repeat_length=len(values))
    values = jnp.where(jnp.arange(len(values)) < starts[-1], values, 0)
    return Numbers(values, rows, places, x.shape)


def numbers_in(x: SparseRows, columns: jax.Array, most: int) -> Numbers:
    """The stored numbers of some columns ``(m,)``, at most ``most``; column j is ``columns[j]``."""
    values, places, starts = x.by_column
    first = starts[columns]
    counts = starts[columns + 1] - first
    ends = jnp.cumsum(counts)
    owner = jnp.repeat(jnp.arange(len(columns)), counts, total_repeat_length=most)
    k = jnp.arange(most)
    at = jnp.minimum(first[owner] + k - (ends - counts)[owner], len(values) - 1)
    values = jnp.where(k < ends[-1], values[at], 0)
    return Numbers(values, places[at], owner, (len(x), len(columns)))


def _product(part: Compressed, shape: tuple[int, int], w) -> jax.Array:
    if w.ndim == 1:
        return _product(part, shape, w[:, None])[:, 0]
    dtype = jnp.promote_types(part.values.dtype, w.dtype)
    part, width = part._replace(values=part.values.astype(dtype)), w.shape[1]
    wide = jnp.pad(w.astype(dtype), ((0, 0), (0, -width % (_VECTOR_BYTES // dtype.itemsize))))
    from jax.experimental.sparse import BCSR  # it takes a tenth of a second to import

    matrix = BCSR(part, shape=shape, indices_sorted=True, unique_indices=True)
    return (matrix @ wide)[:, :width]


def _gathered_product(part: Compressed, w) -> jax.Array:
    """The product of a few rows. Its derivative adds to the columns of Wᵀ that they have."""
    values, places, starts = part
    num_rows = len(starts) - 1
    rows = jnp.repeat(jnp.arange(num_rows), jnp.diff(starts), total_repeat_length=len(values))
    columns = w.T[..., places]  # a model keeps Wᵀ, so that nothing is copied for it
    terms = columns * jnp.broadcast_to(values, columns.shape)
    return jax.ops.segment_sum(terms.T, rows, num_rows, indices_are_sorted=True)


def is_sparse_input(values: Any) -> bool:
    """Whether values are a sparse matrix or array of SciPy or of JAX, :class:`SparseRows`, or
    :class:`~jaxclf.stored_rows.StoredRows`."""
    ours = isinstance(values, SparseRows | StoredRows)
    return ours or hasattr(values, "tocsr") or _is_of_jax(values)


def check_dense(what: str, values: Any) -> None:
    """Raises TypeError where something that takes dense features alone is given sparse ones."""
    if is_sparse_input(values):
        raise TypeError(f"{what} takes dense features: .toarray() makes sparse ones dense")


def is_smaller(matrix: Any) -> bool:
    """Whether two copies of the numbers of a SciPy matrix, with places of 32 bits, take less memory
    than a dense array."""
    size = matrix.dtype.itemsize
    return 2 * matrix.nnz * (size + 4) < matrix.shape[0] * matrix.shape[1] * size


def _is_of_jax(values: Any) -> bool:
    return type(values).__module__.startswith("jax.experimental.sparse")


def read_sparse(name: str, values: Any) -> SparseRows:
    """A sparse matrix or array of SciPy or of JAX as :class:`SparseRows`, on the device.

    Numbers at the same place are added up, and zeros are left out. float64 becomes float32 while
    JAX's 64-bit mode is off. Integers and booleans become float32 where it holds all of them.

    Args:
      name: the name of the argument, for messages.
      values: ``(n, d)``.

    Raises:
      ValueError: an empty matrix, a place outside of it, or a number that is not finite.
      TypeError: complex numbers, or a matrix of JAX with dense or batch axes.
    """
    if is_sparse(values):
        return values
    return from_csr(canonical(name, values))


def canonical(name: str, values: Any) -> Any:
    """The numbers of :func:`read_sparse` as a :class:`scipy.sparse.csr_array`, in new memory."""
    from scipy.sparse import csr_array

    if is_sparse(values):
        return to_csr(values)
    values = values[:] if isinstance(values, StoredRows) else values
    shape = tuple(map(int, values.shape))
    if len(shape) != 2:
        raise ValueError(f"{name} must have shape (rows, columns), got {shape}")
    if min(shape) <= 0:
        raise ValueError(f"{name} must not be empty, got shape {shape}")
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got dtype {values.dtype}")
    values = _of_jax(name, values) if _is_of_jax(values) else values
    if values.nnz > _MOST_NUMBERS:
        raise ValueError(f"{name} holds {values.nnz} numbers, more than {_MOST_NUMBERS}")
    if values.format == "coo":
        _check_places(name, shape, values.coords)
    elif values.format in ("csr", "csc", "bsr"):
        try:
            values.check_format(full_check=True)
        except ValueError as error:
            raise ValueError(f"{name} is no matrix of its shape {shape}: {error}") from None
    given = np.dtype(values.dtype)
    matrix = csr_array(values.astype(given if given == np.float32 else np.float64))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if not (finite := np.isfinite(matrix.data)).all():
        k = int(np.argmin(finite))
        where = int(np.searchsorted(matrix.indptr, k, "right")) - 1, int(matrix.indices[k])
        raise ValueError(f"{name} must be finite, got {matrix.data[k]} at {where}")
    matrix.data = _held(name, matrix.data, given)
    return matrix


def _of_jax(name: str, values: Any) -> Any:
    """A matrix of JAX as one of SciPy, without the zeros that fill up its arrays."""
    from scipy.sparse import coo_array

    values = values.to_bcoo() if hasattr(values, "indptr") else values
    if getattr(values, "n_batch", 1) or getattr(values, "n_dense", 1):
        raise TypeError(f"{name} must be a BCOO or a BCSR without batch and dense axes")
    numbers, places = np.asarray(values.data), np.asarray(values.indices)
    stored = numbers != 0
    places = tuple(places[stored].T)
    _check_places(name, values.shape, places)
    return coo_array((numbers[stored], places), shape=values.shape)


def _check_places(name: str, shape: tuple[int, ...], places: tuple[np.ndarray, ...]) -> None:
    for kind, size, place in zip(("row", "column"), shape, places, strict=True):
        if place.size and not (place.min() >= 0 and place.max() < size):
            outside = place.min() if place.min() < 0 else place.max()
            raise ValueError(f"{name} has a number in {kind} {outside}, but its shape is {shape}")


def _held(name: str, numbers: np.ndarray, given: np.dtype) -> np.ndarray:
    """The numbers in a floating dtype that JAX holds."""
    wide = jax.config.jax_enable_x64 and numbers.dtype == np.float64
    if wide and given.kind == "f":
        return numbers
    if wide and np.abs(numbers).max(initial=0) > _EXACT_IN_FLOAT32:
        return numbers
    with np.errstate(over="ignore"):
        narrow = numbers.astype(np.float32)
    if (lost := ~np.isfinite(narrow)).any():
        raise ValueError(
            f"{name} holds {numbers[lost][0]:g}, which float32 cannot hold: work under "
            "`with jax.enable_x64(True)`"
        )
    return narrow


def from_csr(matrix: Any, *, room: int = 0) -> SparseRows:
    """The rows of a :class:`scipy.sparse.csr_array` whose places rise, on the device.

    A device that is the host may use the memory of the matrix. The arrays have room for as many
    numbers at least, so that few programs are compiled.
    """
    both = _compressed(matrix, room), _compressed(matrix.T.tocsr(), room)
    by_row, by_column = jax.device_put(both)
    return SparseRows(by_row, by_column, matrix.shape)


def rows_of_steps(matrix: Any, rows: np.ndarray) -> SparseRows:
    """The rows of each step, ``(steps, B)`` numbers of rows of a :class:`scipy.sparse.csr_array`.

    Every array of the result has a leading axis of steps. They have room for the step with the most
    numbers, rounded up, so that few programs are compiled.
    """
    steps, size = rows.shape
    taken = matrix[rows.ravel()]
    starts = taken.indptr[np.arange(steps)[:, None] * size + np.arange(size + 1)]
    first = starts[:, 0]
    counts = starts[:, -1] - first
    unit = max(64, 2 ** (int(counts.max()).bit_length() - 4))
    room = max(unit, -(-int(counts.max()) // unit) * unit)
    values, places = np.zeros((steps, room), taken.dtype), np.zeros((steps, room), np.int32)
    for step, (start, count) in enumerate(zip(first, counts, strict=True)):
        values[step, :count] = taken.data[start : start + count]
        places[step, :count] = taken.indices[start : start + count]
    by_row = Compressed(values, places, (starts - first[:, None]).astype(np.int32))
    return SparseRows(by_row, None, (size, matrix.shape[1]))


def _compressed(matrix: Any, room: int) -> Compressed:
    places, starts = (x.astype(np.int32, copy=False) for x in (matrix.indices, matrix.indptr))
    if (free := room - matrix.nnz) <= 0:
        return Compressed(matrix.data, places, starts)
    return Compressed(np.pad(matrix.data, (0, free)), np.pad(places, (0, free)), starts)


def to_csr(features: SparseRows) -> Any:
    """The rows as a :class:`scipy.sparse.csr_array`, in the memory of the device if it can be."""
    from scipy.sparse import csr_array, vstack

    parts = parts_of(features)
    if len(parts) > 1:
        return vstack([to_csr(part) for part in parts], "csr")
    values, places, starts = map(np.asarray, features.by_row)
    return csr_array((values[: starts[-1]], places[: starts[-1]], starts), shape=features.shape)


def transposed_csr(features: SparseRows) -> Any:
    """The transpose of the rows as a :class:`scipy.sparse.csr_array`."""
    n, d = features.shape
    return to_csr(SparseRows(features.by_column, features.by_row, (d, n)))


def stacked_rows(a: SparseRows, b: SparseRows) -> SparseRows:
    """The rows of both, one after another."""
    from scipy.sparse import vstack

    return from_csr(vstack([to_csr(a), to_csr(b)], "csr"))
