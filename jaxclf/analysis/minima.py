"""All stationary points of a function of one variable, by a search that cannot miss one.

A box on which the enclosure of the slope excludes zero has no stationary point. A box on which the
enclosure of the curvature excludes zero has at most one, and the signs of the slope at the ends
tell whether it has one. Any other box is cut in two.

Source: Moore, Kearfott and Cloud, Introduction to Interval Analysis (2009), chapter 8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from mpmath import iv

from jaxclf.analysis.intervals import enclosure
from jaxclf.analysis.jaxpr_walk import traced

_CUT = 0.4931  # not a half: cuts should not fall on the roots of symmetric functions
_MOST_BOXES = 100_000
_ANYTHING = iv.mpf(["-inf", "inf"])
"""The enclosure on a box that is too wide to decide a comparison, or to divide by."""


class Stationary(NamedTuple):
    """A bracket of a stationary point."""

    low: float
    high: float
    kind: str
    """``minimum`` or ``maximum``, the kind of the only stationary point in the bracket; or
    ``undecided`` if slope and curvature may both be zero: the bracket then has any number of
    stationary points, or none."""


def stationary_points(
    function: Callable, low: float, high: float, *, width: float = 1e-9
) -> tuple[Stationary, ...]:
    """Every stationary point between two numbers, in ascending order.

    Args:
      function: ``() -> ()``, twice differentiable, of primitives that
        :mod:`jaxclf.analysis.intervals` knows.
      low, high: the ends; the slope must not be zero there.
      width: the width of the smallest box. A box below it that is not decided is reported as
        ``undecided``.

    Raises:
      ValueError: ends out of order, or a function with a primitive that is not known.
      RuntimeError: too many boxes.
    """
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    slope = traced(jax.grad(function), ())
    bend = traced(jax.grad(jax.grad(function)), ())

    def over(closed, a: float, b: float):
        found = enclosure(closed, np.array(iv.mpf([a, b]), object))
        return _ANYTHING if found is None else found

    def sign(x: float) -> int:
        found = over(slope, x, x)
        return int(found.a > 0) - int(found.b < 0)

    def narrowed(a: float, b: float, at_a: int) -> tuple[float, float]:
        while b - a > width:
            middle = a + _CUT * (b - a)
            here = sign(middle)
            if here == 0:  # as near as intervals can tell
                break
            a, b = (middle, b) if here == at_a else (a, middle)
        return a, b

    inside = np.array(low + _CUT * (high - low))
    if None in (enclosure(slope, inside), enclosure(bend, inside)):
        raise ValueError("the function has a primitive that intervals do not know")
    found, boxes, count = [], [(low, high)], 0
    while boxes:
        a, b = boxes.pop()
        count += 1
        if count > _MOST_BOXES:
            raise RuntimeError(f"more than {_MOST_BOXES} boxes: give a larger width")
        if 0 not in over(slope, a, b):
            continue
        curvature = over(bend, a, b)
        ends = () if 0 in curvature else (sign(a), sign(b))
        if ends and 0 not in ends:
            if ends[0] != ends[1]:
                kind = "minimum" if curvature.a > 0 else "maximum"
                found.append(Stationary(*narrowed(a, b, ends[0]), kind))
        elif b - a < width:
            found.append(Stationary(a, b, "undecided"))
        else:
            middle = a + _CUT * (b - a)
            boxes += [(a, middle), (middle, b)]
    return tuple(sorted(found))
