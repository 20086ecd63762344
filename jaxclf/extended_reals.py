"""Arithmetic with infinities as in measure theory: 0 · ∞ = 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxclf.checks import at_least_float32, check_same_shape


def times(weight, value) -> jax.Array:
    """``weight * value`` with 0 · ∞ = 0, so that a value without weight costs nothing.

    Only the infinite value is replaced, so the derivative in the weight stays the value, and NaN
    stays NaN.
    """
    return weight * where_weighted(weight, value)


def where_weighted(weight, value) -> jax.Array:
    """The value, or 0 in place of an infinite value of weight 0.

    This is the derivative of :func:`times` in the weight.
    """
    return jnp.where((weight == 0) & jnp.isinf(value), 0, value)


def weighted_mean(values, weights=None) -> jax.Array:
    """``Σ wᵢ vᵢ / Σ wᵢ`` over the first axis, in float32 or wider; the plain mean without weights.

    Args:
      values: ``(n,)``.
      weights: ``(n,)`` or ``None``.
    """
    values = at_least_float32(values)
    if weights is None:
        return jnp.mean(values)
    check_same_shape("values", values, "weights", weights)
    weights = at_least_float32(weights)
    # A row of no weight may have an infinite loss.
    return jnp.sum(times(weights, values)) / jnp.sum(weights)
