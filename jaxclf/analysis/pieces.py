"""Polynomials in pieces of one variable t, with rational breaks, and whether they are convex.

Such a function is convex if its pieces are, if they meet, and if its slope does not fall where they
meet. JAX must also return a slope between the two there. It returns their mean where an absolute
value or a maximum has its kink, and one of both where a condition decides. Nothing is known of the
slope or the value at a point that has kinks of two kinds, or a kink of a function that has a kink
there already. Such a function is not taken for convex.

Source: Boyd and Vandenberghe, Convex Optimization (2004), section 3.1.3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from jaxclf.analysis.real_roots import slope, trimmed, value_at

_MOST_PIECES = 64
HIGHEST_DEGREE = 12

Polynomial = tuple[Fraction, ...]


class Pieces(NamedTuple):
    """A continuous or discontinuous function of t."""

    breaks: tuple[Fraction, ...]
    polynomials: tuple[Polynomial, ...]
    """The polynomial of each piece; there is one more than there are breaks."""
    kinks: tuple[frozenset[str], ...]
    """The slopes that JAX may return at each break: ``mean``, ``left``, ``right`` or ``other``."""


def polynomial(p: Polynomial) -> Pieces:
    return Pieces((), (p,), ())


def _scaled(a: Pieces, factor: Fraction) -> Pieces:
    return a._replace(polynomials=tuple(tuple(factor * c for c in p) for p in a.polynomials))


def combined(a: Pieces, b: Pieces, operation: Callable) -> Pieces | None:
    breaks = tuple(sorted({*a.breaks, *b.breaks}))
    a, b = _refined(a, breaks), _refined(b, breaks)
    polynomials = tuple(operation(p, q) for p, q in zip(a.polynomials, b.polynomials, strict=True))
    if len(breaks) > _MOST_PIECES or max(map(len, polynomials)) > HIGHEST_DEGREE + 1:
        return None
    kinks = tuple(x | y for x, y in zip(a.kinks, b.kinks, strict=True))
    return Pieces(breaks, polynomials, kinks)


def plus(p: Polynomial, q: Polynomial) -> Polynomial:
    return tuple(x + y for x, y in itertools.zip_longest(p, q, fillvalue=Fraction(0)))


def times(p: Polynomial, q: Polynomial) -> Polynomial:
    result = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, x in enumerate(p):
        for j, y in enumerate(q):
            result[i + j] += x * y
    return tuple(trimmed(result))


def largest(rows: list[Pieces | None]) -> Pieces | None:
    """The maximum of two functions, ``max(a, b) = (a + b + |a - b|) / 2``, else ``None``.

    JAX's slopes at ties are the same for both sides of the formula.
    """
    if len(rows) != 2 or None in rows:
        return None
    a, b = rows
    difference = combined(a, _scaled(b, Fraction(-1)), plus)
    distance = None if difference is None else absolute(difference)
    both = combined(a, b, plus)
    if distance is None or both is None:
        return None
    found = combined(both, distance, plus)
    return None if found is None else _scaled(found, Fraction(1, 2))


def absolute(a: Pieces) -> Pieces | None:
    signs = _signs(a)
    if signs is None:
        return None
    split, pieces = signs
    polynomials = tuple(
        tuple(-c for c in p) if sign < 0 else p
        for p, sign in zip(split.polynomials, pieces, strict=True)
    )
    kinks = []
    for at, left, right, kink in zip(
        split.breaks, split.polynomials, split.polynomials[1:], split.kinks, strict=False
    ):
        zero = value_at(list(left), at) == 0 or value_at(list(right), at) == 0
        kinks.append(frozenset({"other" if kink else "mean"}) if zero else kink)
    return Pieces(split.breaks, polynomials, tuple(kinks))


def selected(inside: Pieces, yes: Pieces, no: Pieces) -> Pieces | None:
    """``yes`` where ``inside`` is positive, else ``no``."""
    signs = _signs(inside)
    if signs is None:
        return None
    split, pieces = signs
    breaks = tuple(sorted({*split.breaks, *yes.breaks, *no.breaks}))
    split, yes, no = (_refined(x, breaks) for x in (split, yes, no))
    pieces = _signs_of(split)
    if pieces is None or len(breaks) > _MOST_PIECES:
        return None
    polynomials = tuple(
        y if sign > 0 else n
        for y, n, sign in zip(yes.polynomials, no.polynomials, pieces, strict=True)
    )
    kinks = []
    for i, at in enumerate(breaks):
        sides = {value_at(list(p), at) for p in split.polynomials[i : i + 2]}
        if len(sides) > 1 or not split.kinks[i] <= {"mean"}:
            kinks.append(frozenset({"other"}))  # the tested formula may jump
            continue
        positive = sides.pop() > 0
        chosen = (yes if positive else no).kinks[i]
        before, after = pieces[i] > 0, pieces[i + 1] > 0
        if before == after == positive:
            kinks.append(chosen)
        elif before != after and not chosen:
            kinks.append(frozenset({"left" if before == positive else "right"}))
        else:
            kinks.append(frozenset({"other"}))
    return Pieces(breaks, polynomials, tuple(kinks))


def is_convex(a: Pieces) -> bool:
    ends = (None, *a.breaks, None)
    for p, low, high in zip(a.polynomials, ends, ends[1:], strict=False):
        if not _is_never_negative(slope(slope(list(p))), low, high):
            return False
    for at, left, right, kinks in zip(
        a.breaks, a.polynomials, a.polynomials[1:], a.kinks, strict=False
    ):
        left, right = list(left), list(right)
        if value_at(left, at) != value_at(right, at):
            return False
        if value_at(slope(left), at) > value_at(slope(right), at):
            return False
        if len(kinks) > 1 or "other" in kinks:  # the value at the point may be neither limit
            return False
    return True


def _is_never_negative(q: list[Fraction], low: Fraction | None, high: Fraction | None) -> bool:
    """Whether a polynomial is never negative between two numbers.

    This is decided for degrees of at most 1, and for sums of terms that are never negative there.
    Any other polynomial gives ``False``.
    """
    q = trimmed(q)
    if len(q) > 2:
        if all(c >= 0 and (i % 2 == 0 or c == 0) for i, c in enumerate(q)):
            return True
        on_one_side = (low is not None and low >= 0) or (high is not None and high <= 0)
        sign = 1 if low is not None and low >= 0 else -1
        return on_one_side and all(c * sign**i >= 0 for i, c in enumerate(q))
    steep = q[1] if len(q) == 2 else 0
    if (low is None and steep > 0) or (high is None and steep < 0):
        return False
    ends = [value_at(q, end) for end in (low, high) if end is not None]
    return min(ends, default=q[0]) >= 0


def _signs(a: Pieces) -> tuple[Pieces, list[int]] | None:
    """The function with breaks at its roots, and its sign in every piece."""
    roots = set()
    ends = (None, *a.breaks, None)
    for p, low, high in zip(a.polynomials, ends, ends[1:], strict=False):
        found = _rational_roots(p)
        if found is None:
            return None
        roots |= {x for x in found if (low is None or x > low) and (high is None or x < high)}
    split = _refined(a, tuple(sorted({*a.breaks, *roots})))
    signs = _signs_of(split)
    return None if signs is None or len(split.breaks) > _MOST_PIECES else (split, signs)


def _signs_of(a: Pieces) -> list[int] | None:
    """The sign of a function in every piece; no piece may have a root inside."""
    ends = (None, *a.breaks, None)
    signs = []
    for p, low, high in zip(a.polynomials, ends, ends[1:], strict=False):
        if low is None or high is None:
            inside = Fraction(0) if low is high is None else (high - 1 if low is None else low + 1)
        else:
            inside = (low + high) / 2
        value = value_at(list(p), inside)
        signs.append((value > 0) - (value < 0))
    return signs


def _rational_roots(p: Polynomial) -> list[Fraction] | None:
    """All real roots, or ``None`` where they may not be rational; zero counts as without roots."""
    q = trimmed(list(p))
    if len(q) == 1:
        return []
    if len(q) == 2:
        return [-q[0] / q[1]]
    if len(q) > 3:
        return None
    c, b, a = q
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return []
    root = _exact_root(discriminant)
    return None if root is None else [(-b - root) / (2 * a), (-b + root) / (2 * a)]


def _exact_root(x: Fraction) -> Fraction | None:
    top, bottom = math.isqrt(x.numerator), math.isqrt(x.denominator)
    exact = top**2 == x.numerator and bottom**2 == x.denominator
    return Fraction(top, bottom) if exact else None


def _refined(a: Pieces, breaks: tuple[Fraction, ...]) -> Pieces:
    """The same function with more breaks."""
    polynomials, kinks = [], []
    at = 0
    for x in breaks:
        polynomials.append(a.polynomials[at])
        if at < len(a.breaks) and a.breaks[at] == x:
            kinks.append(a.kinks[at])
            at += 1
        else:
            kinks.append(frozenset())
    polynomials.append(a.polynomials[at])
    return Pieces(breaks, tuple(polynomials), tuple(kinks))
