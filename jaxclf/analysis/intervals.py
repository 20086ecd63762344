"""Evaluates a function over intervals; the result holds every exact value.

The jaxpr of the function is its formula, which is evaluated over intervals whose ends are rounded
outwards.

Source: Moore, Kearfott and Cloud, Introduction to Interval Analysis (2009), chapters 2 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from mpmath import iv, mp

from jaxclf.analysis.jaxpr_walk import Constant, walk

_DIGITS = 40


def enclosure(closed, at):
    """An interval that holds the function on all of a box, or ``None`` if a primitive is unknown.

    Args:
      closed: the jaxpr of the function, from :func:`jaxclf.analysis.jaxpr_walk.traced`.
      at: a float64 array of points, or an object array of intervals of mpmath.
    """
    at = np.asarray(at)
    boxes = np.empty(at.shape, object)
    for place in np.ndindex(at.shape):
        boxes[place] = iv.mpf(at[place] if at.dtype == object else float(at[place]))
    with precision():
        return _interval(walk(closed, boxes, _RULES, lambda name: None)[()])


@contextmanager
def precision() -> Iterator[None]:
    """Sets 40 digits for intervals and, so that their ends are exact, more for numbers."""
    before = iv.dps
    iv.dps = _DIGITS
    try:
        with mp.workdps(2 * _DIGITS):
            yield
    finally:
        iv.dps = before


def _interval(x):
    if isinstance(x, Constant):
        value = float(x.value)
        return iv.mpf(value) if np.isfinite(value) else None
    return x


def _rule(operation: Callable) -> Callable:
    def rule(*entries, **params):
        intervals = [_interval(entry) for entry in entries]
        return None if any(x is None for x in intervals) else operation(*intervals, **params)

    return rule


def _compared(decide: Callable) -> Callable:
    """The rule of a comparison; it is a constant where all ends of the intervals agree on it."""

    def rule(a, b, **_):
        # Finite numbers compare with infinities and NaN too.
        ends = [
            (float(x.value),) * 2 if isinstance(x, Constant) else (mp.mpf(x.a), mp.mpf(x.b))
            for x in (a, b)
            if x is not None
        ]
        if len(ends) < 2:
            return None
        found = {decide(ends[0][i], ends[1][j]) for i in (0, 1) for j in (0, 1)}
        overlap = ends[0][0] <= ends[1][1] and ends[1][0] <= ends[0][1]
        points = ends[0][0] == ends[0][1] and ends[1][0] == ends[1][1]
        return Constant(found.pop()) if len(found) == 1 and (points or not overlap) else None

    return rule


def _largest(a, b, **_):
    return iv.mpf([max(mp.mpf(a.a), mp.mpf(b.a)), max(mp.mpf(a.b), mp.mpf(b.b))])


def _smallest(a, b, **_):
    return iv.mpf([min(mp.mpf(a.a), mp.mpf(b.a)), min(mp.mpf(a.b), mp.mpf(b.b))])


_RULES = {
    "add": _rule(lambda a, b, **_: a + b),
    "add_any": _rule(lambda a, b, **_: a + b),
    "sub": _rule(lambda a, b, **_: a - b),
    "neg": _rule(lambda a, **_: -a),
    "mul": _rule(lambda a, b, **_: a * b),
    "div": _rule(lambda a, b, **_: None if 0 in b else a / b),
    "abs": _rule(lambda a, **_: abs(a)),
    "exp": _rule(lambda a, **_: iv.exp(a)),
    "log": _rule(lambda a, **_: iv.log(a) if a.a > 0 else None),
    "log1p": _rule(lambda a, **_: iv.log(1 + a) if a.a > -1 else None),
    "expm1": _rule(lambda a, **_: iv.exp(a) - 1),
    "sqrt": _rule(lambda a, **_: iv.sqrt(a) if a.a >= 0 else None),
    "square": _rule(lambda a, **_: a**2),
    "integer_pow": _rule(lambda a, *, y, **_: None if y < 0 and 0 in a else a**y),
    "logistic": _rule(lambda a, **_: 1 / (1 + iv.exp(-a))),
    "tanh": _rule(lambda a, **_: 1 - 2 / (iv.exp(2 * a) + 1)),
    "max": _rule(_largest),
    "min": _rule(_smallest),
    "eq": _compared(lambda a, b: a == b),
    "ne": _compared(lambda a, b: a != b),
    "lt": _compared(lambda a, b: a < b),
    "le": _compared(lambda a, b: a <= b),
    "gt": _compared(lambda a, b: a > b),
    "ge": _compared(lambda a, b: a >= b),
    "not": lambda a, **_: None,
    "stop_gradient": _rule(lambda a, **_: a),  # the value, not the derivative
    "is_finite": lambda a, **_: None if a is None else Constant(True),
}
