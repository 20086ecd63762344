"""Newton's method with the exact Hessian, for few parameters: one compiled program a step.

Source: Boyd and Vandenberghe, Convex Optimization (2004), section 9.5.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.newton_cg import Outcome
from jaxclf.solvers.preconditioner import factored
from jaxclf.solvers.problem import Point, linear_programs
from jaxclf.solvers.result import Step

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
    watch: Callable[[Step, Point], str | None],
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
    began, step = time.perf_counter(), _make_step(loss)
    noise = float(jnp.finfo(start.weights.dtype).eps)
    run = linear_programs(loss)
    point, passes, trace, reached = run.start(rows, start, l2), 0.5, [], False
    good = point
    while True:
        if reached or len(trace) == max_steps:
            value, largest = (float(x) for x in (point.value, run.gradient(rows, point, l2)[1]))
            passes += 0.5
        else:
            stepped = step(rows, point, l2)
            numbers = jax.device_get((point.value, *stepped[:3]))
            value, largest, promised, length = (float(x) for x in numbers)
            passes += 1.5  # gradient and Hessian, then the logits of the step
        trace.append(Step(value, largest, time.perf_counter() - began, passes))

        def outcome(status: str) -> Outcome:
            return Outcome(good, status, passes, tuple(trace))  # noqa: B023

        if not (np.isfinite(value) and np.isfinite(largest)):
            return outcome("nonfinite")
        good = point
        if ended := watch(trace[-1], point):
            return outcome(ended)
        if reached or largest == 0:
            return outcome("converged")
        if len(trace) > max_steps:
            return outcome("max_steps")
        if not np.isfinite(promised):
            return outcome("nonfinite")
        if promised <= noise * abs(value) or length == 0:
            return outcome("converged" if promised <= tol else "precision_floor")
        reached, point = promised <= tol, stepped.point
