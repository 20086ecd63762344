"""Arithmetic with infinities as in measure theory: 0 · ∞ = 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def times(weight, value) -> jax.Array:
    """``weight * value`` with 0 · ∞ = 0: what has no weight costs nothing, however large.

    Only the infinite value is replaced, so the derivative in the weight stays the value, and NaN
    stays NaN.
    """
    return weight * jnp.where((weight == 0) & jnp.isinf(value), 0, value)
