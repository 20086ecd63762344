"""Jensen's inequality in interval arithmetic: three points that prove a loss is not convex."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mpmath import mp

from jaxclf.analysis.intervals import enclosure, precision
from jaxclf.analysis.jaxpr_walk import traced


class Jensen(NamedTuple):
    """``f((a + b)/2) > (f(a) + f(b))/2``, which no convex f allows."""

    a: np.ndarray
    """The first point: float64 logits ``()`` or ``(K,)``."""
    b: np.ndarray
    excess: float
    """A lower bound on the left side of the inequality less the right side."""


def refutes(loss: Callable, label, a, b) -> Jensen | None:
    """The triple of two points and their middle if it proves that the loss is not convex.

    Args:
      loss: ``(logits, label) -> ()``.
      label: the label of one example.
      a, b: float64 logits, ``()`` or ``(K,)``; their middle must be exact in float64.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    middle = (a + b) / 2
    if not np.array_equal(2 * middle - a, b):
        raise ValueError("the middle of a and b is not exact in float64: round them first")
    with precision():
        closed = traced(lambda z: loss(z, label), a.shape)
        at = [enclosure(closed, z) for z in (a, b, middle)]
        if None in at:
            return None
        excess = at[2] - (at[0] + at[1]) / 2
        low = float(mp.mpf(excess.a))
    # The last rounding, to float64, is made downwards.
    low = np.nextafter(low, -np.inf)
    return Jensen(a, b, float(low)) if low > 0 else None
