"""Newton's method with the exact Hessian, for few parameters: one compiled program a step.

Source: Boyd and Vandenberghe, Convex Optimization (2004), section 9.5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.iteration import Iteration, Outcome, Watch
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.preconditioner import factored
from jaxclf.solvers.problem import Point, linear_programs

MOST_PARAMETERS = 256
_FLATNESS = 0.1


class _Stepped(NamedTuple):
    largest: Any
    """Largest absolute entry of the gradient before the step."""
    promised: Any
    """``½ gᵀ H⁻¹ g``."""
    length: Any
    point: Point


@lru_cache(maxsize=64)
def _make_step(loss: Callable) -> Callable:
    run = linear_programs(loss)

    @jax.jit
    def step(rows: Rows, point: Point, l2) -> _Stepped:
        v, _, z = point
        intercept = v.intercept is not None
        g, largest = run.gradient(rows, point, l2)
        hessian = lp.dense_hessian(loss, rows, z, None, intercept=intercept)
        penalised = jnp.full_like(v.weights, l2)
        stacked = g.weights
        if intercept:
            penalised = jnp.pad(penalised, ((0, 0), (0, 1)))
            stacked = jnp.c_[g.weights, g.intercept]
        solve = factored(hessian + jnp.diag(penalised.ravel()))
        d = -solve(stacked.ravel()).reshape(stacked.shape)
        d = Affine(d[:, :-1], d[:, -1]) if intercept else Affine(d, None)
        slope = lp.dot(g, d)
        moved = run.move(rows, l2, point, d, slope, _FLATNESS, 1.0)
        return _Stepped(largest, -slope / 2, moved.length, moved.point)

    return step


def newton_cholesky(
    loss: Callable,
    rows: Rows,
    start: Affine,
    l2: float,
    *,
    tol: float,
    max_steps: int,
    watch: Watch,
) -> Outcome:
    """Minimises ``Σ ωᵢ ℓ(W xᵢ + b, yᵢ) + l2/2 ‖W‖²``, with 64-bit mode on for its scalars.

    Args:
      loss: ``(logits (K,), label) -> ()``, twice differentiable, convex.
      rows: the data; weights sum to one.
      start: parameters in the dtype to compute in.
      l2: λ.
      tol: the last step is that from a point with ``½ gᵀ H⁻¹ g`` at most this.
      max_steps: how many at most.
      watch: called before every step; may end the iteration by returning a status.
    """
    run, step = linear_programs(loss), _make_step(loss)
    noise = float(jnp.finfo(start.weights.dtype).eps)
    point, reached = run.start(rows, start, l2), False
    iteration = Iteration(point, watch, max_steps)
    iteration.passes += 0.5
    while True:
        if reached or len(iteration.trace) == max_steps:
            _, largest = run.gradient(rows, point, l2)
            iteration.passes += 0.5
        else:
            stepped = step(rows, point, l2)
            largest, promised, length = (float(x) for x in jax.device_get(stepped[:3]))
            iteration.passes += 1.5  # gradient and Hessian, then the logits of the step
        if status := iteration.arrive(point, float(largest), reached=reached):
            return iteration.end(status)
        if not np.isfinite(promised):
            return iteration.end("nonfinite")
        if promised <= noise * abs(float(point.value)) or length == 0:
            return iteration.end("converged" if promised <= tol else "precision_floor")
        reached, point = promised <= tol, stepped.point
