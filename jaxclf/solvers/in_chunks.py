"""A linear model over rows that are not held in memory, or whose logits are not: solved, certified.

The solvers are those of rows in memory; only the problem they see is another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxclf.data.batches import free_memory
from jaxclf.objectives import Batch
from jaxclf.penalties import Penalty
from jaxclf.scaling.chunks import chunked, sum_chunks
from jaxclf.scaling.mesh import OUTPUTS
from jaxclf.scaling.sharing import everywhere, on_device, own_parts, share_outputs, share_rows
from jaxclf.solvers.certificate import Certificate
from jaxclf.solvers.certified import Solvable, Solved, certified
from jaxclf.solvers.columns import (
    Columns,
    columns_of,
    in_units,
    params_in_units,
    penalty_in_units,
)
from jaxclf.solvers.duality import Known
from jaxclf.solvers.inputs import as_affine, normalised_weights
from jaxclf.solvers.iteration import Outcome, Stop
from jaxclf.solvers.lbfgs import lbfgs
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.newton_cg import FIRST_SHARE, newton_cg
from jaxclf.solvers.separation import separated_in_chunks
from jaxclf.solvers.start import better_start
from jaxclf.solvers.streamed_certificate import certify_in_chunks
from jaxclf.solvers.streamed_problem import most_rows, streamed_problem, streamed_programs

_SHARE_FOR_DATA = 0.5
"""Of free memory: features and logits that take more are not held."""
_SHARE_FOR_SAMPLE = 0.25
_ARRAYS_OF_LOGITS = 6
"""That the solvers hold at once of rows in memory."""


def fits_in_memory(batch: Batch, num_logits: int, mesh: Mesh | None) -> bool:
    """Whether rows that are on the host, and the logits, take no more than half of what is free on
    the devices that share them, those of this process."""
    device, labels = _device(), np.shape(batch.labels)
    held = 4 * _ARRAYS_OF_LOGITS * num_logits * labels[0]
    if not isinstance(batch.features, jax.Array):
        features = batch.features
        features = features if hasattr(features, "dtype") else np.asarray(features)
        held += features.size * features.dtype.itemsize + 4 * np.prod(labels)
    # The devices of a host that has no count of its own share its memory.
    parts = own_parts(mesh) if device.memory_stats() else 1
    return held / parts <= _SHARE_FOR_DATA * free_memory(device)


def _device() -> jax.Device:
    """The default one; of a mesh all are alike."""
    default = jax.config.jax_default_device
    if default is None or isinstance(default, str):
        return jax.local_devices(backend=default)[0]
    return default


def solve_in_chunks(
    loss: Callable,
    known: Known,
    penalty: Penalty,
    params: Any,
    batch: Batch,
    solver: str,
    *,
    stop: Stop,
    rng: np.random.Generator,
    mesh: Mesh | None,
) -> tuple[Solved, str]:
    """Solves a linear model with L2 and certifies it, where there is a finite point to certify.

    Args:
      loss: taking ``(K,)`` logits.
      known: of it.
      penalty: without L1.
      params: the start.
      batch: the rows; those of this process.
      solver: ``newton_cg`` or ``lbfgs``.
      stop: when to end.
      rng: for samples.
      mesh: in use, or ``None``.

    Returns:
      What was found, and in words how it was solved.
    """
    if mesh is not None and mesh.shape.get(OUTPUTS, 1) > 1 and jax.process_count() > 1:
        raise ValueError(
            "rows in chunks, or logits that do not fit, need a mesh without outputs where several "
            "processes run"
        )
    of_many = mesh is not None
    shifted = params.intercept is not None
    columns = columns_of(batch.features, shifted=shifted, of_many=of_many)
    adapted = None if columns is None else partial(_adapted, columns)
    rows = _rows(batch, mesh)
    if columns is not None and isinstance(rows.features, jax.Array):
        rows = _adapted(columns, rows)
    source = chunked(rows, mesh, adapted)
    returned = as_affine(params)
    l2 = penalty_in_units(columns, penalty).l2
    run = streamed_programs(loss, like=source.rows)

    def risk(v):
        return sum_chunks(run.risk, source, v)[0]

    start = better_start(
        loss, params_in_units(columns, returned), source.rows.labels, 0.0, l2, risk
    )
    start = share_outputs(start, mesh)
    n = len(source.rows.features)
    host = jax.local_devices(backend="cpu")[0]
    memory = _SHARE_FOR_SAMPLE * min(free_memory(_device()), free_memory(host))
    most = most_rows(source, len(start.weights), memory)

    def solve(start: Affine, stop: Stop) -> Outcome:
        dtype, told = np.dtype(start.weights.dtype), stop.watch
        problem = streamed_problem(loss, source, l2, rng, dtype=dtype, most_rows=most or n)

        def watch(step, point) -> str | None:
            status = told(step, point)
            if np.max(l2) > 0 or known.attains_minimum:
                return status
            separated = separated_in_chunks(source, run.margins, risk, point)
            return "no_finite_minimiser" if separated else status

        own = stop._replace(watch=watch)
        if solver == "lbfgs":
            return lbfgs(problem, start, stop=own)
        first = min(max(1, n // FIRST_SHARE), most) if most else n
        return newton_cg(problem, start, stop=own, first_size=first)

    def certify(point: Affine, narrow: bool) -> tuple[Certificate, int]:
        strengths = Penalty(l1=0.0, l2=l2)
        return certify_in_chunks(loss, known, strengths, point, source, narrow=narrow)

    def added(point: Affine, intercept) -> float:
        return float(risk(point._replace(intercept=intercept))) - float(risk(point))

    def sensitivity(point: Affine) -> float:
        return float(sum_chunks(run.sensitivity, source, point)[0])

    how = f"; rows read in {source.count} chunks"
    if isinstance(source.rows.features, jax.Array):
        how = "; logits are not kept"
    if most and solver == "newton_cg":
        how += ", Hessians of sampled rows"
    problem = Solvable(
        solve, certify, lambda found: found, False, added, sensitivity, known.convex, columns
    )
    return certified(problem, start, stop, returned.weights.dtype), how


def _adapted(columns: Columns, rows: Rows) -> Rows:
    return rows._replace(features=in_units(columns, rows.features))


def _rows(batch: Batch, mesh: Mesh | None) -> Rows:
    """With float64 weights that sum to one over the rows of all processes."""
    features = batch.features
    if isinstance(features, jax.Array):
        batch = batch if mesh is None else share_rows(batch, mesh)
        return Rows(*map(on_device, (batch.features, batch.labels, normalised_weights(batch))))
    n = len(batch.labels)
    weights = np.ones(n) if batch.weights is None else np.asarray(batch.weights, np.float64)
    total = weights.sum() if mesh is None else everywhere(weights.sum()).sum()
    features = features if hasattr(features, "dtype") else np.asarray(features)
    return Rows(features, np.asarray(batch.labels), weights / total)
