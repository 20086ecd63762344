"""L-BFGS in the metric of a problem: only gradients, for any smooth objective.

Sources: Liu and Nocedal, On the limited memory BFGS method for large scale optimization, Math.
Program. 45 (1989); Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.solvers.linear_problem import add_scaled, dot
from jaxclf.solvers.newton_cg import Outcome
from jaxclf.solvers.problem import Point, Problem
from jaxclf.solvers.result import Step

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
    tol: float,
    max_steps: int,
    watch: Callable[[Step, Point], str | None],
) -> Outcome:
    """Minimises a problem, to about ``tol`` of its minimum where it is convex.

    Args:
      problem: smooth and bounded below.
      params: the start.
      tol: stop where ``½ gᵀ B g``, B the inverse Hessian that the pairs give, is at most this.
      max_steps: how many at most.
      watch: called before every step; may end the iteration by returning a status.
    """
    began, readings = time.perf_counter(), problem.readings
    point = good = problem.start(params)
    metric, read = problem.model(point, problem.num_rows, None)
    passes, trace, pairs, reached = readings.gradient + read, [], (), False
    before, g_before = None, None

    while True:
        g, largest = problem.gradient(point)
        value, largest = float(point.value), float(largest)
        passes += readings.gradient
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

        if before is not None:
            pair = _pair(before.params, point.params, g_before, g)
            if float(pair.curvature) > 0:
                pairs = (pair, *pairs)[:_PAIRS]
        while True:
            d, slope = _direction(problem.precondition, metric, pairs, g)
            slope = float(slope)
            if not np.isfinite(slope):
                return outcome("nonfinite")
            # Without pairs the scale of the direction is unknown, unless a metric gives it.
            scaled = bool(pairs) or metric is not None
            promised = -slope / 2 if scaled else np.inf
            if 0 <= promised <= problem.noise * abs(value):
                return outcome("converged" if promised <= tol else "precision_floor")
            if slope < 0:
                first = 1.0 if scaled else min(1.0, 1 / largest)
                moved = problem.move(point, d, slope, _FLATNESS, first)
                passes += readings.ray + readings.trial * int(moved.trials)
                if float(moved.length) > 0:
                    break
            if not pairs:
                return outcome("precision_floor")
            pairs = ()  # once more along the gradient
        reached = promised <= tol
        before, g_before, point = point, g, moved.point
