"""The rows that an epoch visits, their order, and their way to the device.

The order of an epoch is a function of the key and the epoch alone, drawn on the host, so that a run
can be taken up anywhere and data that stream visit the same rows as data that reside. An epoch is
cut into segments of some steps; a compiled program runs one segment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.data.memory import free_host_memory
from jaxclf.mapped_files import check_unchanged
from jaxclf.objectives import Batch
from jaxclf.sparse_rows import is_sparse, rows_of_steps, to_csr
from jaxclf.stored_rows import StoredRows

_STEPS_PER_SEGMENT = 64
_SEGMENT_BYTES = 64 * 2**20


class Plan(NamedTuple):
    """The cut of an epoch of ``num_rows`` rows into segments and steps."""

    num_rows: int
    batch_size: int
    """Rows of one step; the last step of an epoch has what is left."""
    steps: int
    """Steps of a segment; the last segment of an epoch is filled up with empty steps."""
    segments: int
    """Segments of an epoch."""


class Segment(NamedTuple):
    """The rows that one call of the compiled program takes."""

    data: Batch
    """The rows on the device: all rows, or only the rows of this segment. Sparse features are those
    of each step, from :func:`jaxclf.sparse_rows.rows_of_steps`."""
    rows: np.ndarray
    """The rows of each step, ``(steps, batch_size)`` int32 indices into ``data``."""
    counts: np.ndarray
    """The number of real rows of each step, ``(steps,)`` int32; 0 for an empty step."""


def make_plan(data: Batch, batch_size: int, num_rows: int | None = None) -> Plan:
    """The plan of an epoch in segments of equal length.

    A segment has at most 64 steps, and 64 MiB of features or one step.

    ``num_rows`` is given where ``data`` are only some of the rows.
    """
    num_rows = len(data.features) if num_rows is None else num_rows
    total = math.ceil(num_rows / batch_size)
    step_bytes = batch_size * _row_bytes(data.features)
    longest = max(1, min(_STEPS_PER_SEGMENT, _SEGMENT_BYTES // max(1, step_bytes)))
    segments = math.ceil(total / longest)
    return Plan(num_rows, batch_size, math.ceil(total / segments), segments)


def _row_bytes(features) -> float:
    if is_sparse(features) or isinstance(features, StoredRows):  # a number and its place
        return features.size * (features.dtype.itemsize + 4) / len(features)
    return features[:1].nbytes


def epoch_order(key, epoch: int, num_rows: int) -> np.ndarray:
    """A permutation ``(num_rows,)`` int32 of the rows, drawn from the key and the epoch."""
    entropy = np.asarray(jax.random.key_data(jax.random.fold_in(key, epoch)))
    order = np.random.default_rng([int(word) for word in entropy.ravel()]).permutation(num_rows)
    return order.astype(np.int32)


def _cut(plan: Plan, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``(segments, steps, batch_size)`` and counts ``(segments, steps)``."""
    steps = plan.segments * plan.steps
    # Places without a real row repeat rows of the epoch, with a weight of zero.
    rows = np.resize(order, steps * plan.batch_size)
    starts = np.arange(steps) * plan.batch_size
    counts = np.clip(plan.num_rows - starts, 0, plan.batch_size).astype(np.int32)
    shape = plan.segments, plan.steps
    return rows.reshape(*shape, plan.batch_size), counts.reshape(shape)


def resident_segments(
    data: Batch, plan: Plan, order: np.ndarray, first: int = 0
) -> Iterator[Segment]:
    """The segments of an epoch over rows that are all on the device, from number ``first``.

    The host gathers the rows of each step where features are sparse, also from files.
    """
    rows, counts = _cut(plan, order)
    matrix = to_csr(data.features) if is_sparse(data.features) else None
    matrix = data.features if isinstance(data.features, StoredRows) else matrix
    for i in range(first, plan.segments):
        own = data
        if matrix is not None:
            own = data._replace(features=rows_of_steps(matrix, rows[i]))
        yield Segment(own, rows[i], counts[i])


def streamed_segments(
    data: Batch, plan: Plan, order: np.ndarray, first: int = 0
) -> Iterator[Segment]:
    """The segments of an epoch over host arrays or memory maps, from number ``first``.

    Grain reads them ahead. Only the rows of a few segments are in memory at a time.
    """
    import grain

    rows, counts = _cut(plan, order)

    class _Segments:
        def __len__(self):
            return plan.segments - first

        def __getitem__(self, i):
            # Rows are sorted, so that a file is read from front to back; the places say where each
            # row went.
            wanted, places = np.unique(rows[first + i], return_inverse=True)
            jax.tree.map(check_unchanged, data)
            taken = jax.tree.map(lambda x: np.asarray(x[wanted]), data)
            _check_finite(taken.features, wanted)
            missing = rows[first + i].size - len(wanted)
            if missing:
                pad = lambda x: np.concatenate([x, np.repeat(x[:1], missing, axis=0)])  # noqa: E731
                taken = jax.tree.map(pad, taken)
            return taken, places.reshape(plan.steps, -1).astype(np.int32), counts[first + i]

    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
    source = grain.MapDataset.source(_Segments())
    for taken, places, counts_here in source.to_iter_dataset(options):
        yield Segment(jax.tree.map(jnp.asarray, taken), places, counts_here)


def _check_finite(features: np.ndarray, rows: np.ndarray) -> None:
    if features.dtype.kind in "iub":
        return
    finite = np.isfinite(features).reshape(len(features), -1).all(1)
    if not finite.all():
        raise ValueError(f"features must be finite, row {rows[np.argmin(finite)]} is not")


def must_stream(data: Batch, device: jax.Device) -> bool:
    """Whether ``data`` lies on the host and takes more than half of the device's free memory."""
    if isinstance(data.features, jax.Array):
        return False
    return sum(x.nbytes for x in jax.tree.leaves(data)) > free_memory(device) / 2


def free_memory(device: jax.Device) -> float:
    """The bytes that are free on a device by its own count; for a CPU, those of the host."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return free_host_memory()
