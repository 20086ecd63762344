"""The points and the steps of a linear model's objective with a penalty that is not smooth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.penalties import not_smooth
from jaxclf.solvers.oracle import Point

SHARE_OF_PROMISE = 0.1
"""The share of the promised decrease by which a step must lower the objective."""
SHORTEST = 1e-6


def point_at(loss: Callable, rows: Rows, v: Affine, l1: Any, l2: Any) -> Point:
    """The point, with its value in float64 and its logits."""
    return _point(loss, rows, v, lp.logits(rows.features, v), l1, l2)


def _point(loss: Callable, rows: Rows, v: Affine, z, l1: Any, l2: Any) -> Point:
    risk = jnp.sum((rows.weights * lp.losses(loss, z, rows.labels)).astype(jnp.float64))
    penalty = jnp.sum(lp.penalty_terms(v.weights.astype(jnp.float64), l1, l2))
    return Point(v, risk + penalty, kept=z)


def step_along(
    loss: Callable, rows: Rows, point: Point, d: Affine, promised, l1: Any, l2: Any
) -> tuple[Point, jax.Array, jax.Array]:
    """The point along a direction, at a length of one, halved until enough is gained.

    Args:
      loss, rows: the data.
      point: the point of :func:`point_at` or of a step.
      d: the direction.
      promised: the amount by which a model promises that the objective falls at length one.
      l1, l2: the penalty; of groups l1 has their norms.

    Returns:
      The new point, the length, at most ``SHORTEST`` where no length was good, and the curvature
      ``dᵀ H d`` of the smooth part at the old point.
    """
    v, value, z = point.params, point.value, point.kept
    dz = lp.logits(rows.features, d)
    noise = float(jnp.finfo(z.dtype).eps) * jnp.abs(value)
    curvature = lp.curvature_along(loss, z, *rows[1:], dz) + jnp.sum(l2 * d.weights**2)

    def at(length) -> Point:
        new, near = lp.add_scaled(v, length, d), z + length.astype(z.dtype) * dz
        # Rounding must not keep a weight from the bound at which it ends.
        rounding = float(jnp.finfo(z.dtype).eps) * (jnp.abs(v.weights) + jnp.abs(d.weights))
        new = new._replace(weights=not_smooth(l1).within(new.weights, rounding))
        return _point(loss, rows, new, near, l1, l2)

    def poor(state):
        length, new = state
        enough = value - SHARE_OF_PROMISE * length * promised + noise
        return ~(new.value <= enough) & (length > SHORTEST)

    def shorter(state):
        length = 0.5 * state[0]
        return length, at(length)

    one = jnp.ones((), jnp.float64)
    length, new = jax.lax.while_loop(poor, shorter, (one, at(one)))
    return new, length, curvature
