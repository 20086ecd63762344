"""L-BFGS in the metric of an oracle; it needs only gradients, of any smooth objective.

Sources: Liu and Nocedal, On the limited memory BFGS method for large scale optimization, Math.
Program. 45 (1989); Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from jaxclf.linear_algebra.problem import add_scaled, dot
from jaxclf.programs import jit_by_shape
from jaxclf.solvers.oracle import Point, move, steepest_descent
from jaxclf.solvers.result import Iteration, Outcome, Stop

_PAIRS = 10
_WOLFE_C2 = 0.5
_PATIENCE = 5
"""The solver waits for the bound as long as the gradient halves within so many steps."""


class _Pairs(NamedTuple):
    """The latest steps s, newest first, and the changes of the gradient y along them. A place that
    is empty has curvature 0, so that any number of pairs has the same programs."""

    s: Any
    """The steps, ``(10, size)``."""
    y: Any
    curvature: Any
    """The curvatures ``⟨s, y⟩ > 0``, ``(10,)``."""


def _no_pairs(params) -> _Pairs:
    leaves = jax.tree.leaves(params)
    room = np.zeros((_PAIRS, sum(np.size(x) for x in leaves)), jnp.result_type(*leaves))
    return _Pairs(room, room, np.zeros(_PAIRS, jnp.result_type(float)))


@jit_by_shape
def _remembered(pairs: _Pairs, before: Point, point: Point) -> tuple[_Pairs, jax.Array]:
    """The pairs with the pair of the latest step in front, and the curvature of that pair."""
    s, y = (
        ravel_pytree(new)[0] - ravel_pytree(old)[0]
        for new, old in ((point.params, before.params), (point.gradient, before.gradient))
    )
    latest = _Pairs(s, y, dot(s, y))
    shifted = jax.tree.map(
        lambda one, all_: jnp.concatenate([one.astype(all_.dtype)[None], all_[:-1]]), latest, pairs
    )
    return shifted, latest.curvature


@jit_by_shape
def _direction(metric: Partial | None, pairs: _Pairs, g):
    """The direction ``-B g``, and the slope along it."""
    flat, restore = ravel_pytree(g)

    def apply(x):
        return x if metric is None else ravel_pytree(metric(restore(x)))[0]

    def share(x, by, curvature):
        used = curvature > 0
        return jnp.where(used, dot(x, by) / jnp.where(used, curvature, 1), 0)

    def back(q, pair: _Pairs):
        part = share(pair.s, q, pair.curvature)
        return add_scaled(q, -part, pair.y), part

    def forth(r, pair_and_part):
        pair, part = pair_and_part
        return add_scaled(r, part - share(pair.y, r, pair.curvature), pair.s), None

    q, parts = jax.lax.scan(back, flat, pairs)
    # The metric is scaled to fit the latest step; without a step its scale stays.
    y, curvature = pairs.y[0], pairs.curvature[0]
    scale = jnp.where(curvature > 0, curvature / dot(y, apply(y)), 1)
    r = apply(q) * scale.astype(q.dtype)
    r, _ = jax.lax.scan(forth, r, (pairs, parts), reverse=True)
    return restore(-r), -dot(flat, r)


def lbfgs(
    oracle: Any,
    params: Any,
    *,
    stop: Stop,
    rng: np.random.Generator,
) -> Outcome:
    """Minimises an objective, to about ``stop.tol`` of its minimum where it is convex.

    Args:
      oracle: an oracle as in :mod:`jaxclf.solvers.oracle`, smooth and bounded below.
      params: the start.
      stop: the end, where ``½ gᵀ B g`` is at most ``tol``, with B the inverse Hessian that the
        pairs give. As long as steps still halve the gradient, the bound that the gradient gives
        must be at most ``tol`` too.
      rng: the generator that draws the rows of the metric.
    """
    passes, point = oracle.passes, oracle.evaluate(params)
    iteration, tol = Iteration(point, stop), stop.tol
    model, read = oracle.model(point, oracle.num_rows, None, 0, rng)
    metric = model.metric
    iteration.passes += passes.start + read
    nothing = _no_pairs(point.params)
    pairs, has_pairs, predicted_decrease, before = nothing, False, np.inf, None
    steepest, patience, is_flat = np.inf, _PATIENCE, False

    while True:
        value, largest, bound = map(
            float, jax.device_get((point.value, point.largest, point.gap_bound))
        )
        if largest < steepest / 2:
            steepest, patience = largest, _PATIENCE
        # The bound that the gradient gives may be far above the gap, and falls with the gradient.
        uncertain, patience = tol < bound < np.inf and patience > 0, patience - 1
        reached = predicted_decrease <= tol and not uncertain
        if status := iteration.arrive(point._replace(value=value), largest, reached=reached):
            return iteration.end(status)

        if before is not None:
            with_latest, curvature = _remembered(pairs, before, point)
            if float(curvature) > 0:
                pairs, has_pairs = with_latest, True
        while True:
            d, slope = _direction(metric, pairs, point.gradient)
            slope = float(slope)
            if not np.isfinite(slope):
                if metric is None:
                    return iteration.end("nonfinite")
                # There is no curvature where there is a slope.
                metric, pairs, has_pairs, is_flat = None, nothing, False, True
                continue
            # Without pairs the scale of the direction is unknown, unless a metric gives it.
            scaled = has_pairs or metric is not None
            predicted_decrease = -slope / 2 if scaled else np.inf
            if 0 <= predicted_decrease <= oracle.noise * abs(value) and not uncertain:
                return iteration.end(
                    "converged" if predicted_decrease <= tol else "precision_floor"
                )
            if slope < 0:
                if scaled:
                    first = 1.0
                elif is_flat:
                    *_, first = steepest_descent(oracle, point)
                else:
                    first = min(1.0, 1 / largest)
                moved = move(oracle, point, d, slope, _WOLFE_C2, first)
                iteration.passes += passes.ray + passes.trial * int(moved.trials)
                if float(moved.length) > 0:
                    break
            if not has_pairs:
                return iteration.end("precision_floor")
            pairs, has_pairs = nothing, False  # once more along the gradient
        before, point = point, moved.point
