"""Solves linear models whose rows are read in chunks, as they, or their logits, do not fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxclf.data.batches import free_memory
from jaxclf.linear_algebra.columns import Columns, in_units
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.objectives import Batch
from jaxclf.scaling.chunks import Chunked, bytes_of_row, chunked, is_on_device
from jaxclf.scaling.devices import default_device
from jaxclf.scaling.sharing import all_gather, own_parts, share_rows
from jaxclf.solvers.chunked_oracle import ARRAYS_OF_LOGITS, ChunkedOracle, most_rows
from jaxclf.solvers.in_memory import rows_in_memory, strengths_in, until_separated
from jaxclf.solvers.inputs import labels_of
from jaxclf.solvers.lbfgs import lbfgs
from jaxclf.solvers.newton_cg import FIRST_SHARE, newton_cg
from jaxclf.solvers.result import Outcome, Stop

_SHARE_FOR_DATA = 0.5
"""Features and logits that take more than this share of free memory are not held."""
_SHARE_FOR_SAMPLE = 0.25
_SMALL = 2**24
"""The bytes of rows and logits that are held without a look at the memory."""


def fits_in_memory(batch: Batch, num_logits: int, mesh: Mesh | None) -> bool:
    """Whether rows that are on the host, and the logits, take at most half of the free memory.

    The memory is that of this process's devices, which share the rows.
    """
    device, labels = default_device(), np.shape(batch.labels)
    held = 4 * ARRAYS_OF_LOGITS * num_logits * labels[0]
    if not is_on_device(batch.features):
        features = batch.features
        features = features if hasattr(features, "dtype") else np.asarray(features)
        held += bytes_of_row(features) * labels[0] + 4 * np.prod(labels)
        held += 4 * np.size(batch.offset) if batch.offset is not None else 0
    if held <= _SMALL:
        return True
    # Devices that do not count their own memory share the memory of the host.
    parts = own_parts(mesh) if device.memory_stats() else 1
    return held / parts <= _SHARE_FOR_DATA * free_memory(device)


def rows_in_chunks(batch: Batch, columns: Columns | None, mesh: Mesh | None) -> Chunked:
    """Rows with float64 weights that sum to one over the rows of all processes."""
    features = batch.features
    if is_on_device(features):
        batch = batch if mesh is None else share_rows(batch, mesh)
        return chunked(rows_in_memory(batch, columns), mesh)
    n = len(batch.labels)
    weights = np.ones(n) if batch.weights is None else np.asarray(batch.weights, np.float64)
    largest = weights.max() if mesh is None else all_gather(weights.max()).max()
    weights = weights / largest  # their sum may be beyond float64
    total = weights.sum() if mesh is None else all_gather(weights.sum()).sum()
    features = features if hasattr(features, "dtype") else np.asarray(features)
    rows = Rows(features, jax.tree.map(np.asarray, labels_of(batch)), weights / total)
    return chunked(rows, mesh, None if columns is None else partial(_adapted, columns))


def _adapted(columns: Columns, rows: Rows) -> Rows:
    return rows._replace(features=in_units(columns, rows.features))


def solver_in_chunks(
    loss: Callable,
    source: Chunked,
    num_logits: int,
    l2: Any,
    solver: str | Callable,
    rng,
    may_run_away: bool,
) -> tuple[Callable, str]:
    """The function that solves rows in chunks, and a description of its method in words."""
    n, host = len(source.rows.weights), jax.local_devices(backend="cpu")[0]
    memory = _SHARE_FOR_SAMPLE * min(free_memory(default_device()), free_memory(host))
    most = most_rows(source, num_logits, memory)
    how = f"; rows read in {source.count} chunks"
    if is_on_device(source.rows.features):
        how = "; logits are not kept"
    if most and solver == "newton_cg":
        how += ", Hessians of sampled rows"

    def solve(start: Affine, stop: Stop) -> Outcome:
        dtype = start.weights.dtype
        oracle = ChunkedOracle(loss, source, strengths_in(l2, dtype), dtype, most or n)
        if may_run_away:
            stop = until_separated(stop, loss, source)
        if callable(solver) or solver == "lbfgs":
            chosen = solver if callable(solver) else lbfgs
            return chosen(oracle, start, stop=stop, rng=rng)
        first = min(max(1, n // FIRST_SHARE), most) if most else n
        return newton_cg(oracle, start, stop=stop, first_size=first, rng=rng)

    return solve, how
