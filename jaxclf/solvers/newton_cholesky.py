"""Newton's method with the exact Hessian, for few parameters: many steps in one compiled program.

A step of a small problem takes less time than it takes to ask for it, so the program goes on by
itself and hands back what it passed.

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
from jaxclf.solvers.iteration import Iteration, Outcome, Stop
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.preconditioner import factored
from jaxclf.solvers.problem import Point, linear_programs

MOST_PARAMETERS = 256
_FLATNESS = 0.1
_AT_ONCE = 8
_CHEAP = 2**26
"""Multiplications of a Hessian up to which steps are made many at once: about a millisecond."""


class _Stepped(NamedTuple):
    """After some steps."""

    point: Point
    gradient: Affine
    largest: Any
    """Largest absolute entry of the gradient."""
    values: Any
    """``(8,)``, of the points that were reached, in their order."""
    largests: Any
    count: Any
    """How many were."""
    promised: Any
    """``½ gᵀ H⁻¹ g`` of the last step that was tried."""
    reached: Any
    """It was at most the tolerance, and was made."""
    stuck: Any
    """It was not made: rounding hides it, or no length is good."""


class _Programs(NamedTuple):
    """The compiled pieces for one loss."""

    start: Callable
    steps: Callable


@lru_cache(maxsize=64)
def _programs(loss: Callable) -> _Programs:
    run = linear_programs(loss)

    @jax.jit
    def start(rows: Rows, v: Affine, l2) -> _Stepped:
        point, none = run.start(rows, v, l2), jnp.zeros(_AT_ONCE)
        no = jnp.asarray(False)
        g, largest = run.gradient(rows, point, l2)
        return _Stepped(point, g, largest, none, none, jnp.asarray(0), jnp.asarray(0.0), no, no)

    def direction(rows: Rows, point: Point, g: Affine, l2) -> Affine:
        v, intercept = point.params, point.params.intercept is not None
        hessian = lp.dense_hessian(loss, rows, point.logits, None, intercept=intercept)
        penalised = jnp.full_like(v.weights, l2)
        stacked = g.weights
        if intercept:
            penalised = jnp.pad(penalised, ((0, 0), (0, 1)))
            stacked = jnp.c_[g.weights, g.intercept]
        solve = factored(hessian + jnp.diag(penalised.ravel()))
        d = -solve(stacked.ravel()).reshape(stacked.shape)
        return Affine(d[:, :-1], d[:, -1]) if intercept else Affine(d, None)

    @jax.jit
    def steps(rows: Rows, stepped: _Stepped, l2, tol, gradient_tol, most) -> _Stepped:
        """At most ``most`` further ones."""
        noise = float(jnp.finfo(rows.weights.dtype).eps)

        def step(s: _Stepped) -> _Stepped:
            d = direction(rows, s.point, s.gradient, l2)
            slope = lp.dot(s.gradient, d)
            promised = -slope / 2
            moved = run.move(rows, l2, s.point, d, slope, _FLATNESS, 1.0)
            stuck = ~(promised > noise * jnp.abs(s.point.value)) | (moved.length == 0)
            point = jax.tree.map(lambda new, old: jnp.where(stuck, old, new), moved.point, s.point)
            g, largest = run.gradient(rows, point, l2)
            return _Stepped(
                point,
                g,
                largest,
                s.values.at[s.count].set(point.value),
                s.largests.at[s.count].set(largest),
                s.count + ~stuck,
                promised,
                ~stuck & (promised <= tol),
                stuck,
            )

        def unfinished(s: _Stepped):
            going = jnp.isfinite(s.largest) & (s.largest > gradient_tol)
            return (s.count < most) & going & ~s.reached & ~s.stuck

        return jax.lax.while_loop(unfinished, step, stepped._replace(count=jnp.asarray(0)))

    return _Programs(start, steps)


def newton_cholesky(
    loss: Callable,
    rows: Rows,
    start: Affine,
    l2: float,
    *,
    stop: Stop,
) -> Outcome:
    """Minimises ``Σ ωᵢ ℓ(W xᵢ + b, yᵢ) + l2/2 ‖W‖²``, with 64-bit mode on for its scalars.

    Args:
      loss: ``(logits (K,), label) -> ()``, twice differentiable, convex.
      rows: the data; weights sum to one.
      start: parameters in the dtype to compute in.
      l2: λ.
      stop: the last step is that from a point with ``½ gᵀ H⁻¹ g`` at most ``tol``. Of the points
        of small problems, one in eight is handed back to be watched.
    """
    run = _programs(loss)
    cheap = len(rows.features) * sum(map(jnp.size, jax.tree.leaves(start))) ** 2 <= _CHEAP
    stepped = run.start(rows, start, l2)
    iteration = Iteration(stepped.point, stop)
    iteration.passes += 1.0
    if status := iteration.arrive(stepped.point, float(stepped.largest), reached=False):
        return iteration.end(status)
    while True:
        most = min(_AT_ONCE if cheap else 1, stop.max_steps + 1 - len(iteration.trace))
        stepped = run.steps(rows, stepped, l2, stop.tol, stop.gradient_tol, most)
        values, largests, count, promised, reached, stuck = jax.device_get(stepped[3:])
        for i in range(count - 1):
            iteration.passes += 1.5  # the Hessian, the logits of the step, the gradient after it
            iteration.pass_by(float(values[i]), float(largests[i]))
        if count:
            iteration.passes += 1.5
            if status := iteration.arrive(
                stepped.point, float(stepped.largest), reached=bool(reached)
            ):
                return iteration.end(status)
        if not np.isfinite(promised):
            return iteration.end("nonfinite")
        if stuck:
            return iteration.end("converged" if promised <= stop.tol else "precision_floor")
