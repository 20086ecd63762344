"""Curvature of losses of one logit that are polynomials in s = σ(z), exactly.

A loss made of z, σ(±z) and log(1 + exp(±z)) by sums and products is a polynomial in z, s and
p = log(1 + exp z) with rational coefficients. Because ``s′ = s - s²``, ``p′ = s`` and ``z′ = 1``,
every derivative is such a polynomial too. Where the second derivative holds s alone, its signs on
(0, 1) follow from its real roots. Sturm's theorem counts the roots and bisection isolates them, in
rational arithmetic throughout.

Source: Basu, Pollack and Roy, Algorithms in Real Algebraic Geometry (2006), section 2.2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxclf import activations
from jaxclf.analysis.jaxpr_walk import Constant, traced, walk
from jaxclf.analysis.real_roots import roots_in_unit_interval, slope, trimmed, value_at


class Ring(NamedTuple):
    """A polynomial ``Σ c s^i z^j p^k``; ``terms`` maps ``(i, j, k)`` to c."""

    terms: dict[tuple[int, int, int], Fraction]


class Piece(NamedTuple):
    """An interval of the logit on which the curvature has one sign."""

    low: float
    high: float
    sign: int


class Exact(NamedTuple):
    """The curvature of a loss of one logit, ``q(σ(z))``."""

    coefficients: tuple[Fraction, ...]
    """The coefficients of q, from the constant on."""
    pieces: tuple[Piece, ...]
    """The pieces of the line, which they cover; their ends are exact but for rounding."""
    lowest: float
    """The infimum of the curvature over all logits, rounded downwards."""
    highest: float
    """The supremum of the curvature over all logits, rounded upwards."""
    lowest_at: float
    """The logit where the curvature is lowest; infinite if the infimum is only approached."""


def exact_curvature(loss: Callable, label) -> Exact | None:
    """The second derivative of ``loss(·, label)``, or ``None`` if it is no polynomial in σ(z).

    Args:
      loss: ``(logit, label) -> ()``.
      label: the label of one example.
    """
    logit = np.empty((), object)
    logit[()] = _monomial(0, 1, 0)
    closed = traced(lambda z: loss(z, label), ())
    found = walk(closed, logit, _RULES, lambda name: None, _CALLS)[()]
    found = _ring(found)
    if found is None:
        return None
    second = _derivative(_derivative(found)).terms
    if any(j or k for _, j, k in second):
        return None
    degree = max((i for i, *_ in second), default=0)
    q = trimmed([second.get((i, 0, 0), Fraction(0)) for i in range(degree + 1)])
    lowest, highest, where = _extremes(q)
    return Exact(tuple(q), _pieces(q), lowest, highest, _logit(where))


def _pieces(q: list[Fraction]) -> tuple[Piece, ...]:
    zero, one = Fraction(0), Fraction(1)
    brackets = [(zero, zero), *roots_in_unit_interval(q), (one, one)]
    pieces = []
    for left, right in itertools.pairwise(brackets):
        # The point lies between the brackets, whose own ends are no roots.
        value = value_at(q, (left[1] + right[0]) / 2)
        sign = (value > 0) - (value < 0)
        low, high = sum(left) / 2, sum(right) / 2
        if pieces and pieces[-1].sign == sign:  # a root that it only touches
            pieces[-1] = pieces[-1]._replace(high=_logit(high))
        else:
            pieces.append(Piece(_logit(low), _logit(high), sign))
    return tuple(pieces)


def _extremes(q: list[Fraction]) -> tuple[float, float, Fraction]:
    """Bounds on q over [0, 1] that are tight but for rounding, and where it is lowest."""
    ends = [(Fraction(0), Fraction(0)), (Fraction(1), Fraction(1))]
    steepest = sum((abs(i * c) for i, c in enumerate(q)), Fraction(0))
    lows, highs = [], []
    for a, b in [*ends, *roots_in_unit_interval(slope(q))]:
        value, room = value_at(q, (a + b) / 2), steepest * (b - a)
        lows.append((value - room, (a + b) / 2))
        highs.append(value + room)
    (low, where), high = min(lows), max(highs)
    lowest, highest = float(low), float(high)
    lowest = lowest if Fraction(lowest) <= low else math.nextafter(lowest, -math.inf)
    highest = highest if Fraction(highest) >= high else math.nextafter(highest, math.inf)
    return lowest, highest, where


def _logit(s: Fraction) -> float:
    if s in (0, 1):
        return -math.inf if s == 0 else math.inf
    return math.log(s / (1 - s))


def _ring(x) -> Ring | None:
    if isinstance(x, Constant):
        value = float(x.value)
        return Ring({(0, 0, 0): Fraction(value)} if value else {}) if math.isfinite(value) else None
    return x


def _monomial(i: int, j: int, k: int) -> Ring:
    return Ring({(i, j, k): Fraction(1)})


def _rule(operation: Callable) -> Callable:
    """The rule of an operation on ring elements; it gives ``None`` if an entry is no element."""

    def rule(*entries, **params):
        elements = [_ring(entry) for entry in entries]
        return None if None in elements else operation(*elements, **params)

    return rule


def _add(a: Ring, b: Ring, **_) -> Ring:
    total = {key: a.terms.get(key, 0) + b.terms.get(key, 0) for key in a.terms | b.terms}
    return Ring({key: value for key, value in total.items() if value})


def _scaled(a: Ring, factor: Fraction) -> Ring:
    return Ring({key: factor * value for key, value in a.terms.items()})


def _times(a, b, **_) -> Ring | None:
    """A product, which is zero wherever one side is, whatever is known of the other."""
    a, b = _ring(a), _ring(b)
    if Ring({}) in (a, b):
        return Ring({})
    return None if a is None or b is None else _multiply(a, b)


def _multiply(a: Ring, b: Ring) -> Ring:
    product = Ring({})
    for left, x in a.terms.items():
        shifted = {
            tuple(m + n for m, n in zip(left, right, strict=True)): x * y
            for right, y in b.terms.items()
        }
        product = _add(product, Ring(shifted))
    return product


def _divide(a: Ring, b: Ring, **_) -> Ring | None:
    return _scaled(a, 1 / b.terms[0, 0, 0]) if set(b.terms) == {(0, 0, 0)} else None


def _power(a: Ring, *, y: int, **_) -> Ring | None:
    if y < 0:
        return None
    result = _monomial(0, 0, 0)
    for _ in range(y):
        result = _multiply(result, a)
    return result


def _sigmoid(a: Ring, **_) -> Ring | None:
    if a == _monomial(0, 1, 0):
        return _monomial(1, 0, 0)
    if a == _scaled(_monomial(0, 1, 0), Fraction(-1)):
        return Ring({(0, 0, 0): Fraction(1), (1, 0, 0): Fraction(-1)})
    return None


def _softplus(a: Ring, **_) -> Ring | None:
    if a == _monomial(0, 1, 0):
        return _monomial(0, 0, 1)
    if a == _scaled(_monomial(0, 1, 0), Fraction(-1)):
        return Ring({(0, 0, 1): Fraction(1), (0, 1, 0): Fraction(-1)})
    return None


def _over_entries(rule: Callable) -> Callable:
    def over(array: np.ndarray) -> np.ndarray:
        result = np.empty(array.shape, object)
        for place in np.ndindex(array.shape):
            result[place] = rule(array[place])
        return result

    return over


_RULES = {
    "add": _rule(_add),
    "add_any": _rule(_add),
    "sub": _rule(lambda a, b, **_: _add(a, _scaled(b, Fraction(-1)))),
    "neg": _rule(lambda a, **_: _scaled(a, Fraction(-1))),
    "mul": _times,
    "div": _rule(_divide),
    "integer_pow": _rule(_power),
    "square": _rule(lambda a, **_: _multiply(a, a)),
    "logistic": _rule(_sigmoid),
    "stop_gradient": _rule(lambda a, **_: a),  # the value, not the derivative
}


def _log_add_exp(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """``log(exp a + exp b)`` where one is the constant zero."""
    for zero, other in ((b, a), (a, b)):
        if all(isinstance(x, Constant) and x.value == 0 for x in zero.flat):
            return _over_entries(_rule(_softplus))(other)
    return None


_CALLS = ((activations._softplus, _over_entries(_rule(_softplus))), (jnp.logaddexp, _log_add_exp))


def _derivative(a: Ring) -> Ring:
    total = Ring({})
    for (i, j, k), c in a.terms.items():
        parts = {}
        if i:  # s′ = s - s²
            parts |= {(i, j, k): c * i, (i + 1, j, k): -c * i}
        total = _add(total, Ring(parts))
        if j:
            total = _add(total, Ring({(i, j - 1, k): c * j}))
        if k:  # p′ = s
            total = _add(total, Ring({(i + 1, j, k - 1): c * k}))
    return total
