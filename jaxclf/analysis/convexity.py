"""Tests of convexity by sampling: they can refute it, never prove it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class MidpointTest(NamedTuple):
    """Jensen's inequality at the middle of segments; every array is ``(segments,)``."""

    excess: jax.Array
    """``f((a+b)/2) - (f(a) + f(b)) / 2``, which refutes convexity if it is positive."""
    tolerance: jax.Array
    """The excess that rounding can produce in a mean of non-negative losses."""

    @property
    def violations(self) -> jax.Array:
        return self.excess > self.tolerance


def midpoint_test(function: Callable, starts, ends, *, batch_size: int = 32) -> MidpointTest:
    """Tests ``f((a+b)/2) <= (f(a) + f(b)) / 2`` on many segments.

    The tolerance is ``1024 ε (|f(a)| + |f(b)|)`` with ε the spacing of floats at 1. It is enough
    for a mean of non-negative terms, where a sum over n rows is off by about ``ε log2(n)`` and each
    term by a few ε. A function that subtracts large numbers inside can exceed it by rounding alone.

    Args:
      function: ``params -> ()``.
      starts, ends: pytrees of points, stacked along a first axis of length ``segments``.
      batch_size: segments evaluated at once; bounds the memory.

    Source: Boyd and Vandenberghe, Convex Optimization (2004), section 3.1.1.
    """

    def one(segment):
        start, end = segment
        middle = jax.tree.map(lambda a, b: (a + b) / 2, start, end)
        at_start, at_end = function(start), function(end)
        epsilon = jnp.finfo(at_start.dtype).eps
        excess = function(middle) - (at_start + at_end) / 2
        return MidpointTest(excess, 1024 * epsilon * (jnp.abs(at_start) + jnp.abs(at_end)))

    return jax.lax.map(one, (starts, ends), batch_size=batch_size)
