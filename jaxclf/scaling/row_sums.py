"""Sums over rows; each device takes its own rows, a block at a time.

A product with the features and its transpose share one reading while the block is in the cache,
and uint8 or float16 features are widened a block at a time, never as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxclf.scaling import mesh
from jaxclf.scaling.devices import on_accelerator
from jaxclf.sparse_rows import DenseBlocks, Numbers, is_sparse, numbers_of, part_in_program

_BLOCK_NUMBERS = 2**20
"""The numbers of a block of rows: 4 MiB in float32, which stay in the cache between products."""
_BLOCK_NUMBERS_OF_ACCELERATORS = 2**26
"""The numbers of a block of rows on an accelerator. On a GPU a block costs some twenty calls of
kernels, 0.1 ms. Blocks of 256 MiB take longer than that, and leave room for their results."""
_BLOCK_NUMBERS_OF_SPARSE = 2**21
"""The numbers of a block of sparse rows that is made dense, for which all stored numbers are looked
at."""
_FEWEST_ROWS = 256
"""The fewest rows of a block whose results per row are wide: a matrix of so many classes is read
once for each block."""


def sum_rows(function: Callable, features, *per_row, held: int = 1) -> Any:
    """The sum of ``function(block of features, blocks of per_row…)`` over the rows of all devices.

    The last of ``per_row`` must enter linearly, because it is zero for rows that another block
    counts. ``held`` is the number of numbers that the function makes of a row, if they are more
    than its features.
    """

    def function_alone(*block):
        return function(*block), None

    return sum_and_map_rows(function_alone, features, *per_row, held=held)[0]


def sum_and_map_rows(function: Callable, features, *per_row, held: int = 1) -> tuple[Any, Any]:
    """The sum of :func:`sum_rows`, and one result ``(rows, …)`` per row, of one function.

    The result per row must not depend on the last of ``per_row``.
    """
    if mesh.in_use_along(mesh.ROWS) == 1:
        return _over_own_rows(function, features, per_row, held)
    shared, whole = PartitionSpec(mesh.ROWS), PartitionSpec()
    options = {"axis_names": {mesh.ROWS}, "check_vma": False}

    @partial(jax.shard_map, in_specs=shared, out_specs=(whole, shared), **options)
    def over_all(features, *per_row):
        sums, each = _over_own_rows(function, part_in_program(features), per_row, held)
        return jax.lax.psum(sums, mesh.ROWS), each

    return over_all(features, *per_row)


def sum_own_rows(function: Callable, features, *per_row) -> Any:
    """The sum of :func:`sum_rows` over the rows of one device, for use inside of a block."""
    return _over_own_rows(lambda *block: (function(*block), None), features, per_row, 1)[0]


def map_rows(function: Callable, features) -> jax.Array:
    """``function`` of the rows, block by block; each device takes its own rows."""
    return sum_and_map_rows(lambda x: (None, function(x)), features)[1]


def _over_own_rows(function: Callable, features, per_row: tuple, held: int) -> tuple[Any, Any]:
    if is_sparse(features):  # they are one block, whose products run over compressed rows
        return function(features, *per_row)
    features = numbers_of(features.rows) if isinstance(features, DenseBlocks) else features
    starts, repeated, size = _blocks(features, held)
    num_rows = len(features)

    def block(start, repeat):
        *others, last = _slice((features, *per_row), start, size)
        if not per_row:
            return function(last)
        fresh = (jnp.arange(size) >= repeat).reshape(-1, *[1] * (last.ndim - 1))
        return function(*others, jnp.where(fresh, last, 0))

    if len(starts) == 1:
        return block(starts[0], repeated[0])

    def step(carry, at):
        total, all_rows = carry
        sums, rows = block(*at)
        all_rows = jax.tree.map(
            lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, at[0], 0), all_rows, rows
        )
        return (jax.tree.map(jnp.add, total, sums), all_rows), None

    # The scan takes the first block too, so that the function is compiled once.
    sums, mapped = jax.eval_shape(block, starts[0], repeated[0])
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), sums)
    room = jax.tree.map(lambda x: jnp.zeros((num_rows, *x.shape[1:]), x.dtype), mapped)
    return jax.lax.scan(step, (total, room), (starts, repeated))[0]


def depth(features, held: int = 1) -> int:
    """The most additions that a term of :func:`sum_rows` goes through, whatever their order."""
    if is_sparse(features):
        return len(features)
    size = _block_size(features, held)
    return size + -(-len(features) // size)


def _block_size(features, held: int) -> int:
    n, d = features.shape
    numbers = _BLOCK_NUMBERS_OF_ACCELERATORS if on_accelerator() else _BLOCK_NUMBERS
    if isinstance(features, DenseBlocks | Numbers):
        numbers = _BLOCK_NUMBERS_OF_SPARSE
    return max(1, min(n, numbers // d, max(_FEWEST_ROWS, numbers // held)))


def _blocks(features, held: int):
    """The starts of the blocks, the rows of each that the block before counts, and the size.

    The last block is moved back to be whole, so no block is copied or padded.
    """
    n, size = len(features), _block_size(features, held)
    starts = jnp.minimum(jnp.arange(-(-n // size)) * size, n - size)
    return starts, jnp.arange(-(-n // size)) * size - starts, size


def _slice(rows: tuple, start, size: int) -> tuple:
    def cut(x):
        if isinstance(x, Numbers):
            return x.dense_rows(start, size)
        return jax.lax.dynamic_slice_in_dim(x, start, size)

    return jax.tree.map(cut, rows, is_leaf=lambda x: isinstance(x, Numbers))
