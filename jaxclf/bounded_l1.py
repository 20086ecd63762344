"""L1 beside bounds on the weights: ``l1 |w|`` where ``lower ≤ w ≤ upper``, infinite elsewhere.

It is convex, and takes the place of the strength of L1 in a :class:`~jaxclf.penalties.Penalty`. A
strength alone is the case whose bounds are infinite. A weight that is fixed has equal bounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class BoundedL1(NamedTuple):
    """The part of a penalty that is not smooth, where weights have bounds."""

    l1: Any
    """The strength of ``‖W‖₁``: one for all weights, ``(1, d)`` or ``(K, d)``."""
    lower: Any
    """The least value of each weight, ``(K, d)``, which may be ``-∞``."""
    upper: Any
    """The largest value of each weight, ``(K, d)``, which may be ``∞``."""

    def __float__(self) -> float:
        """A bound is stronger than any strength of L1."""
        return np.inf


def as_bounded(l1: Any) -> BoundedL1:
    """The strength with its bounds, which are infinite where it has none."""
    return l1 if isinstance(l1, BoundedL1) else BoundedL1(l1, -np.inf, np.inf)


def subgradients(l1: Any, w) -> tuple[jax.Array, jax.Array]:
    """The least and the largest subgradient of the penalty in each weight, which lies within its
    bounds. They are equal where the penalty is smooth."""
    strength, lower, upper = as_bounded(l1)
    slope = strength * jnp.sign(w)
    least, most = jnp.where(w == 0, -strength, slope), jnp.where(w == 0, strength, slope)
    return jnp.where(w <= lower, -jnp.inf, least), jnp.where(w >= upper, jnp.inf, most)


def within(l1: Any, w, slack: Any = 0.0) -> Any:
    """The weights, of which those beyond a bound, or closer to it than the slack, are at it."""
    if not isinstance(l1, BoundedL1):
        return w
    w = jnp.where(w <= l1.lower + slack, l1.lower, w)
    return jnp.where(w >= l1.upper - slack, l1.upper, w).astype(w.dtype)


def conjugate_point(l1: Any, l2, u) -> jax.Array:
    """The weight at which ``u w - l1 |w| - l2/2 w²`` is largest within the bounds.

    It is infinite where there is none: without a ridge, for ``|u| > l1`` on a side without a bound.
    """
    strength, lower, upper = as_bounded(l1)
    soft = jnp.sign(u) * jnp.maximum(jnp.abs(u) - strength, 0)
    straight = jnp.where(soft == 0, 0, jnp.copysign(jnp.inf, soft))
    found = jnp.where(l2 > 0, soft / jnp.where(l2 > 0, l2, 1), straight)
    return jnp.clip(found, lower, upper)
