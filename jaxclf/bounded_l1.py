"""L1 beside bounds on the weights: ``l1 |w|`` where ``lower ≤ w ≤ upper``, infinite elsewhere.

It is convex. A strength alone, which is what users give, is the case whose bounds are infinite, see
:func:`jaxclf.penalties.not_smooth`. A weight that is fixed has equal bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

UNIT = 2.0**-53
"""The unit roundoff of float64."""


class BoundedL1(NamedTuple):
    """The part of a penalty that is not smooth, where features have no groups."""

    l1: Any
    """The strength of ``‖W‖₁``: one for all weights, ``(d,)``, ``(1, d)`` or ``(K, d)``."""
    lower: Any = -np.inf
    """The least value of each weight, ``()`` or ``(K, d)``, which may be ``-∞``."""
    upper: Any = np.inf
    """The largest value of each weight, ``()`` or ``(K, d)``, which may be ``∞``."""

    @property
    def has_bounds(self) -> bool:
        return not (np.isinf(self.lower).all() and np.isinf(self.upper).all())

    @property
    def is_smooth(self) -> bool:
        return not np.any(self.l1) and not self.has_bounds

    def free(self, l2) -> Any:
        """Whether each weight has no penalty, beside a ridge ``l2/2 w²``."""
        return (np.asarray(self.l1) == 0) & (np.asarray(l2) == 0)

    def total(self, l2) -> float:
        """The largest finite sum of a weight's strengths."""
        sums = np.asarray(self.l1, np.float64) + np.asarray(l2, np.float64)
        return float(np.max(np.where(np.isinf(sums), 0, sums)))

    def in_units(self, scale, strengths: Callable) -> BoundedL1:
        """The penalty of the weights over a scale, of which ``strengths`` makes the strengths."""
        with np.errstate(over="ignore"):
            ends = (x / scale if np.ndim(x) else x for x in self[1:])
            return BoundedL1(strengths(self.l1), *ends)

    def terms(self, w) -> Any:
        """The part of each weight, which lies within its bounds, in the penalty."""
        return self.l1 * abs(w)

    def subgradients(self, w) -> tuple[jax.Array, jax.Array]:
        """The least and the largest subgradient in each weight, which lies within its bounds. They
        are equal where the penalty is smooth."""
        slope = self.l1 * jnp.sign(w)
        least, most = jnp.where(w == 0, -self.l1, slope), jnp.where(w == 0, self.l1, slope)
        least = jnp.where(w <= self.lower, -jnp.inf, least)
        return least, jnp.where(w >= self.upper, jnp.inf, most)

    def smallest_subgradient(self, w, g) -> jax.Array:
        """The smallest subgradient of ``f + penalty``, where f has the gradient g at w."""
        least, most = self.subgradients(w)
        return jnp.maximum(g + least, 0) + jnp.minimum(g + most, 0)

    def proximal_map(self, w, step) -> jax.Array:
        """``argmin_u  penalty(u) + (u - w)² / (2 step)``: soft-threshold, then go to the bounds."""
        threshold = jnp.asarray(step * self.l1, w.dtype)
        soft = jnp.sign(w) * jnp.maximum(jnp.abs(w) - threshold, 0)
        soft = jnp.where(threshold > 0, soft, w)  # whose derivative at zero is one
        return jnp.clip(soft, self.lower, self.upper).astype(w.dtype)

    def within(self, w, slack) -> Any:
        """The weights, of which those beyond a bound, or closer to it than the slack, are at it."""
        w = jnp.where(w <= self.lower + slack, self.lower, w)
        return jnp.where(w >= self.upper - slack, self.upper, w).astype(w.dtype)

    def conjugate_point(self, l2, u) -> jax.Array:
        """The weight at which ``u w - l1 |w| - l2/2 w²`` is largest within the bounds.

        It is infinite where there is none: without a ridge, for ``|u| > l1`` on a side without a
        bound.
        """
        soft = jnp.sign(u) * jnp.maximum(jnp.abs(u) - self.l1, 0)
        straight = jnp.where(soft == 0, 0, jnp.copysign(jnp.inf, soft))
        found = jnp.where(l2 > 0, soft / jnp.where(l2 > 0, l2, 1), straight)
        return jnp.clip(found, self.lower, self.upper)

    def dual_sums(self, w, g, error, l2) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """``Σ h(w) + h*(-g) + w g`` for h the penalty and ``l2/2 w²``, with every g off by its
        error, rounded upwards; and the same sum for c g, with a number c in [0, 1] at which it is
        finite."""
        tiny, units = jnp.finfo(g.dtype).tiny, 8 * UNIT
        limited = (self.l1 > 0) | (l2 == 0)
        below, beyond = (jnp.isinf(end) & limited for end in (self.lower, self.upper))
        c = 1.0
        for side, reach in ((below, error + g), (beyond, error - g)):
            too_far = side & (reach > self.l1)
            c = jnp.minimum(c, jnp.min(jnp.where(too_far, self.l1 / jnp.maximum(reach, tiny), 1)))
        c = jnp.where(c < 1, c * (1 - units), 1)

        def total(c, limit):
            """The sum for c g, where ``|u|`` is at most the limit on sides that l1 alone limits."""
            least, most = jnp.where(below, -limit, -jnp.inf), jnp.where(beyond, limit, jnp.inf)

            def of_end(t):
                v = self.conjugate_point(l2, jnp.clip(-t, least, most))
                sloped, size = t + l2 * (w + v) / 2, jnp.abs(t) + l2 * jnp.abs(w + v) / 2
                absolute = self.l1 * (jnp.abs(w) - jnp.abs(v))
                found = (w - v) * sloped + absolute
                found = found + units * (jnp.abs(w - v) * size + jnp.abs(absolute))
                return jnp.where(jnp.isfinite(v), found, jnp.inf)

            terms = jnp.maximum(of_end(c * (g - error)), of_end(c * (g + error)))
            return jnp.sum(jnp.maximum(terms, 0)) * (1 + w.size * UNIT)

        return total(1, jnp.inf), (total(c, self.l1), c)
