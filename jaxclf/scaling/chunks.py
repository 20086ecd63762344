"""Reads rows that are too many for the device's memory in chunks, while earlier ones are worked on.

A thread reads each chunk into host memory that later chunks use again. A CPU computes from that
memory, without another copy.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxclf.mapped_files import check_unchanged
from jaxclf.scaling.sharing import all_gather, local_rows, own_parts, placed
from jaxclf.scaling.sparse_parts import fill_part, room_for_parts
from jaxclf.sparse_rows import DenseBlocks, SparseRows, is_sparse
from jaxclf.stored_rows import StoredRows

_CHUNK_BYTES = 32 * 2**20
_AHEAD = 2
"""The number of chunks that are read ahead."""
_ALIGNMENT = 64
"""The alignment in bytes with which XLA takes host memory as it is."""


class Chunked(NamedTuple):
    """Rows to be read in chunks, all of one size.

    The last chunk is moved back to be whole; rows that another chunk counts have weight zero in it.
    Each of several processes has its own rows, and as many chunks as any other.
    """

    rows: Any
    """A NamedTuple of arrays with a leading axis of rows, on the host (memory maps, sparse
    :class:`~jaxclf.stored_rows.StoredRows`, or anything with a shape, a dtype and slices) or on the
    device, where there is one chunk; the field ``weights`` is a NumPy array or on the device."""
    size: int
    """The number of rows of a chunk in this process."""
    count: int
    mesh: Mesh | None
    """The mesh over which the rows of each chunk are shared out."""
    rooms: tuple
    """Host memory that the chunks are read into, one after another."""
    adapted: Callable | None = None
    """A function ``rows -> rows`` on the device, which every chunk that was read goes through."""


def chunked(rows: Any, mesh: Mesh | None = None, adapted: Callable | None = None) -> Chunked:
    """The rows in chunks of at most 32 MiB; rows on the device are one chunk.

    Raises:
      ValueError: a process with fewer rows than it has devices in the mesh.
    """
    num_rows, own = len(rows.features), own_parts(mesh)
    if is_on_device(rows.features):
        return Chunked(rows, num_rows, 1, mesh, ())
    counts = all_gather(num_rows) if mesh is not None else np.array([num_rows])
    if counts.min() < own:
        raise ValueError(f"{own} devices of a process need as many rows, one has {counts.min()}")
    row_bytes = max(1, sum(map(bytes_of_row, jax.tree.leaves(rows))))
    size = max(own, min(int(counts.min()), _CHUNK_BYTES // row_bytes))
    size -= size % own
    count = -(-int(counts.max()) // size)
    source = Chunked(rows, size, count, mesh, (), adapted)
    rooms = tuple(_room_for_chunk(source) for _ in range(min(count, _AHEAD + 1)))
    return source._replace(rooms=rooms)


def is_on_device(features: Any) -> bool:
    """Whether features, dense or sparse, are on a device."""
    return isinstance(features, jax.Array | SparseRows | DenseBlocks)


def bytes_of_row(x: Any) -> int:
    """The bytes of a row, of sparse rows on average."""
    if is_sparse(x) or isinstance(x, StoredRows):
        return 2 * x.size * (x.dtype.itemsize + 4) // len(x)
    return x.dtype.itemsize * int(np.prod(x.shape[1:]))


def _room_for_chunk(source: Chunked) -> Any:
    parts = own_parts(source.mesh)

    def room(x):
        if not isinstance(x, StoredRows):
            return room_for(source.size, x)
        rows = source.size // parts
        firsts = np.array([first for first, _ in _starts(source)])
        firsts = firsts[:, None] + rows * np.arange(parts)
        most = max(1, int(np.max(x.starts[firsts + rows] - x.starts[firsts])))
        most = most if source.mesh is None else int(all_gather(most).max())
        shape, total = (rows, x.num_columns), source.size * jax.process_count()
        total = source.size if source.mesh is None else total
        return room_for_parts(_zeros, parts, shape, most, x.dtype, total)

    return jax.tree.map(room, source.rows)


def _zeros(size: int, dtype: Any) -> np.ndarray:
    room = room_for(size, np.empty(0, dtype))
    room[:] = 0
    return room


def _starts(source: Chunked) -> list[tuple[int, int]]:
    """The first row of each chunk, and the number of its rows that another chunk counts."""
    last = len(source.rows.features) - source.size
    firsts = [min(i * source.size, last) for i in range(source.count)]
    return [(first, min(i * source.size - first, source.size)) for i, first in enumerate(firsts)]


def _chunks(source: Chunked) -> Iterator[tuple[int, Any]]:
    """First rows and chunks on the device; each is valid until the next one is asked for."""
    if is_on_device(source.rows.features):
        yield 0, source.rows
        return
    place = partial(placed, mesh=source.mesh)

    def read(i: int, start: int, repeated: int):
        jax.tree.map(_check_unchanged, source.rows)
        room, stop = source.rooms[i % len(source.rooms)], start + source.size
        jax.tree.map(lambda copy, to: copy(start, stop, to), copies, room)
        room.weights[:repeated] = 0
        return room

    with ExitStack() as stack:
        jax.tree.map(_check_unchanged, source.rows)
        copies = jax.tree.map(lambda x: _copier(x, stack, source.mesh), source.rows)
        reader = stack.enter_context(ThreadPoolExecutor(1))
        starts = _starts(source)
        waiting = [(i, *start) for i, start in enumerate(starts)]
        ahead = deque(reader.submit(read, *one) for one in waiting[:_AHEAD])
        for i, (start, _) in enumerate(starts):
            room = ahead.popleft().result()
            # The chunk before this one is done, so its room may be filled.
            if i + _AHEAD < len(waiting):
                ahead.append(reader.submit(read, *waiting[i + _AHEAD]))
            rows = jax.tree.map(place, room)
            yield start, rows if source.adapted is None else source.adapted(rows)
        jax.tree.map(_check_unchanged, source.rows)


def _check_unchanged(x: Any) -> None:
    for array in (x.values, x.places, x.starts) if isinstance(x, StoredRows) else (x,):
        check_unchanged(array)


def _sparse_copier(x: StoredRows, stack: ExitStack, mesh: Mesh | None) -> Callable:
    """A function like that of :func:`_copier`, into room for the parts of a mesh."""
    parts = own_parts(mesh)
    of_values, of_places = (_copier(array, stack, mesh) for array in (x.values, x.places))

    def read(first: int, end: int, values, places) -> None:
        of_values(first, end, values)
        of_places(first, end, places)

    def copy(start: int, stop: int, room: SparseRows) -> None:
        rows = (stop - start) // parts
        for i, first in enumerate(range(start, stop, rows)):
            fill_part(room, i, rows, np.asarray(x.starts[first : first + rows + 1]), read)

    return copy


def _copier(array: Any, stack: ExitStack, mesh: Mesh | None) -> Callable:
    """A function ``(first row, row after the last, room)`` that copies rows of a host array.

    Rows of a file that is mapped into memory are read from the file, where they are next to each
    other. This is as fast as the file, and its pages do not stay with the process.
    """

    if isinstance(array, StoredRows):
        return _sparse_copier(array, stack, mesh)

    def copy(start: int, stop: int, room: np.ndarray) -> None:
        np.copyto(room, array[start:stop])

    path = getattr(array, "filename", None)
    if not isinstance(array, np.memmap) or path is None or array.mode == "c":
        return copy
    if not array.flags.c_contiguous or not os.path.exists(path):
        return copy
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    first = whole.offset + array.ctypes.data - whole.ctypes.data
    row_bytes = array.itemsize * int(np.prod(array.shape[1:]))
    file = stack.enter_context(open(path, "rb", buffering=0))  # noqa: SIM115
    for row in {0, len(array) // 2, len(array) - 1}:
        file.seek(first + row * row_bytes)
        if file.read(row_bytes) != array[row].tobytes():
            return copy  # another file has its name now

    def read(start: int, stop: int, room: np.ndarray) -> None:
        left = memoryview(room.reshape(-1).view(np.uint8))
        file.seek(first + start * row_bytes)
        while len(left):
            count = file.readinto(left)
            if not count:
                raise OSError(errno.EIO, f"it ends before row {stop}", str(path))
            left = left[count:]

    return read


def sum_chunks(function: Callable, source: Chunked, *arguments) -> tuple[Any, Any]:
    """``function(rows, *arguments) -> (sums, one result per row)`` over all chunks.

    Returns:
      The sums added up, and the results of this process's rows as host arrays. The results must not
      depend on the weights, which are zero for rows that another chunk counts.
    """
    total, rooms = None, None
    for start, rows in _chunks(source):
        sums, each = function(rows, *arguments)
        total = sums if total is None else _add(total, sums)
        if rooms is None:
            count = len(local_rows(source.rows.weights))
            rooms = jax.tree.map(partial(room_for, count), each)
        jax.block_until_ready((total, each))
        for room, x in zip(jax.tree.leaves(rooms), jax.tree.leaves(each), strict=True):
            own = local_rows(x)
            room[start : start + len(own)] = own
    return total, rooms


def python_while_loop(condition: Callable, body: Callable, state):
    """``jax.lax.while_loop`` for a body that reads chunks."""
    while condition(state):
        state = body(state)
    return state


def python_cond(condition, if_true: Callable, if_false: Callable, *operands):
    """``jax.lax.cond`` for branches that read chunks."""
    return if_true(*operands) if condition else if_false(*operands)


@jax.jit
def _add(a, b):
    return jax.tree.map(jnp.add, a, b)


def room_for(size: int, like) -> np.ndarray:
    """Host memory for ``size`` rows like these; a device that is the host takes it as it is."""
    shape, dtype = (size, *like.shape[1:]), np.dtype(like.dtype)
    wanted = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(wanted + _ALIGNMENT, np.uint8)
    skipped = -raw.ctypes.data % _ALIGNMENT
    return raw[skipped : skipped + wanted].view(dtype).reshape(shape)
