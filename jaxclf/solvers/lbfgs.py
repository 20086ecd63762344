"""L-BFGS in the metric of a problem: only gradients, for any smooth objective.

Sources: Liu and Nocedal, On the limited memory BFGS method for large scale optimization, Math.
Program. 45 (1989); Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.solvers.iteration import Iteration, Outcome, Stop
from jaxclf.solvers.linear_problem import add_scaled, dot
from jaxclf.solvers.problem import Problem

_PAIRS = 10
_FLATNESS = 0.5


class _Pair(NamedTuple):
    """A step s and the change of the gradient y along it."""

    s: Any
    y: Any
    curvature: jax.Array
    """``⟨s, y⟩ > 0``."""


@jax.jit
def _pair(old_params, new_params, old_gradient, new_gradient) -> _Pair:
    s, y = (
        jax.tree.map(jnp.subtract, new, old)
        for new, old in ((new_params, old_params), (new_gradient, old_gradient))
    )
    return _Pair(s, y, dot(s, y))


@partial(jax.jit, static_argnames="precondition")
def _direction(precondition: Callable, metric, pairs: tuple[_Pair, ...], g):
    """``-B g``, the latest pair first, and its slope."""
    shares = []
    q = g
    for s, y, curvature in pairs:
        share = dot(s, q) / curvature
        shares.append(share)
        q = add_scaled(q, -share, y)
    r = precondition(metric, q)
    if pairs:
        # The metric's scale along the latest step.
        s, y, curvature = pairs[0]
        scale = curvature / dot(y, precondition(metric, y))
        r = jax.tree.map(lambda x: x * scale.astype(x.dtype), r)
    for (s, y, curvature), share in zip(pairs[::-1], shares[::-1], strict=True):
        r = add_scaled(r, share - dot(y, r) / curvature, s)
    d = jax.tree.map(jnp.negative, r)
    return d, dot(g, d)


def lbfgs(
    problem: Problem,
    params,
    *,
    stop: Stop,
) -> Outcome:
    """Minimises a problem, to about ``stop.tol`` of its minimum where it is convex.

    Args:
      problem: smooth and bounded below.
      params: the start.
      stop: where ``½ gᵀ B g``, B the inverse Hessian that the pairs give, is at most ``tol``.
    """
    readings, point = problem.readings, problem.start(params)
    iteration, tol = Iteration(point, stop), stop.tol
    metric, read = problem.model(point, problem.num_rows, None, False)
    iteration.passes += readings.start + read
    pairs, reached = (), False
    before = None

    while True:
        g, largest = point.gradient, point.largest
        if status := iteration.arrive(point, float(largest), reached=reached):
            return iteration.end(status)

        if before is not None:
            pair = _pair(before.params, point.params, before.gradient, g)
            if float(pair.curvature) > 0:
                pairs = (pair, *pairs)[:_PAIRS]
        while True:
            d, slope = _direction(problem.precondition, metric, pairs, g)
            slope = float(slope)
            if not np.isfinite(slope):
                return iteration.end("nonfinite")
            # Without pairs the scale of the direction is unknown, unless a metric gives it.
            scaled = bool(pairs) or metric is not None
            promised = -slope / 2 if scaled else np.inf
            if 0 <= promised <= problem.noise * abs(float(point.value)):
                return iteration.end("converged" if promised <= tol else "precision_floor")
            if slope < 0:
                first = 1.0 if scaled else min(1.0, 1 / float(largest))
                moved = problem.move(point, d, slope, _FLATNESS, first)
                iteration.passes += readings.ray + readings.trial * int(moved.trials)
                if float(moved.length) > 0:
                    break
            if not pairs:
                return iteration.end("precision_floor")
            pairs = ()  # once more along the gradient
        reached = promised <= tol
        before, point = point, moved.point
