"""A linear model over rows that are not held in memory, or whose logits are not: solved, certified.

The solvers are those of rows in memory; only the problem they see is another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxclf.data.batches import free_memory
from jaxclf.objectives import Batch, Objective
from jaxclf.scaling.chunks import chunked, sum_chunks
from jaxclf.scaling.sharing import everywhere, share_outputs, share_rows
from jaxclf.solvers.certificate import Certificate
from jaxclf.solvers.inputs import NEVER_ZERO, as_affine, normalised_weights, underlying
from jaxclf.solvers.iteration import Outcome, Stop
from jaxclf.solvers.lbfgs import lbfgs
from jaxclf.solvers.linear_problem import Rows
from jaxclf.solvers.newton_cg import FIRST_SHARE, newton_cg
from jaxclf.solvers.separation import separated_in_chunks
from jaxclf.solvers.streamed_certificate import certify_in_chunks
from jaxclf.solvers.streamed_problem import most_rows, streamed_problem, streamed_programs

_SHARE_FOR_DATA = 0.5
"""Of free memory: features and logits that take more are not held."""
_SHARE_FOR_SAMPLE = 0.25
_ARRAYS_OF_LOGITS = 6
"""That the solvers hold at once of rows in memory."""


def fits_in_memory(batch: Batch, num_logits: int) -> bool:
    """Whether features that are on the host, and the logits, take no more than half of what is free
    on the default device."""
    held = 4 * _ARRAYS_OF_LOGITS * num_logits * len(batch.labels)
    if not isinstance(batch.features, jax.Array):
        held += batch.features.size * batch.features.dtype.itemsize
    return held <= _SHARE_FOR_DATA * free_memory(_device())


def _device() -> jax.Device:
    """The default one; of a mesh all are alike."""
    return jax.config.jax_default_device or jax.local_devices()[0]


def solve_in_chunks(
    objective: Objective,
    loss: Callable,
    params: Any,
    batch: Batch,
    solver: str,
    *,
    stop: Stop,
    rng: np.random.Generator,
    mesh: Mesh | None,
) -> tuple[Outcome, Certificate | None, str]:
    """Solves a linear model with L2 and certifies it, where there is a finite point to certify.

    Args:
      objective: without L1.
      loss: of the objective, taking ``(K,)`` logits.
      params: the start.
      batch: the rows; those of this process.
      solver: ``newton_cg`` or ``lbfgs``.
      stop: when to end.
      rng: for samples.
      mesh: in use, or ``None``.

    Returns:
      Where the solver stopped, the certificate, and in words how it was solved.
    """
    start = share_outputs(as_affine(params), mesh)
    l2 = 0.0 if objective.penalty is None else float(objective.penalty.l2)
    source = chunked(_rows(batch, mesh), mesh)
    n, dtype = len(source.rows.features), start.weights.dtype
    memory = _SHARE_FOR_SAMPLE * free_memory(_device())
    most = most_rows(source, len(start.weights), memory)
    problem = streamed_problem(loss, source, l2, rng, dtype=dtype, most_rows=most or n)
    run, known = streamed_programs(loss), underlying(objective.loss)

    def watch(step, point) -> str | None:
        stop.watch(step, point)
        if l2 > 0 or known not in NEVER_ZERO:
            return None
        risk = lambda v: sum_chunks(run.risk, source, v)[0]  # noqa: E731
        separated = separated_in_chunks(source, run.margins, risk, point)
        return "no_finite_minimiser" if separated else None

    own = stop._replace(watch=watch)
    if solver == "lbfgs":
        outcome = lbfgs(problem, start, stop=own)
    else:
        first = min(max(1, n // FIRST_SHARE), most) if most else n
        outcome = newton_cg(problem, start, stop=own, first_size=first)
    how = f"; rows read in {source.count} chunks"
    if most and solver == "newton_cg":
        how += ", Hessians of sampled rows"
    if outcome.status in ("nonfinite", "no_finite_minimiser"):
        return outcome, None, how
    return outcome, certify_in_chunks(objective, loss, outcome.point.params, source), how


def _rows(batch: Batch, mesh: Mesh | None) -> Rows:
    """With float64 weights that sum to one over the rows of all processes."""
    features = batch.features
    if isinstance(features, jax.Array):
        batch = batch if mesh is None else share_rows(batch, mesh)
        return Rows(batch.features, jnp.asarray(batch.labels), normalised_weights(batch))
    n = len(batch.labels)
    weights = np.ones(n) if batch.weights is None else np.asarray(batch.weights, np.float64)
    total = weights.sum() if mesh is None else everywhere(weights.sum()).sum()
    features = features if hasattr(features, "dtype") else np.asarray(features)
    return Rows(features, np.asarray(batch.labels), weights / total)
