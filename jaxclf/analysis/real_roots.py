"""Real roots of polynomials with rational coefficients, exactly.

A polynomial is the list of its coefficients, from the constant on.

Source: Basu, Pollack and Roy, Algorithms in Real Algebraic Geometry (2006), section 2.2.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

_WIDTH = Fraction(1, 2**60)
"""The width of the brackets of roots, relative to their distance from 0 and from 1."""


def trimmed(q: list[Fraction]) -> list[Fraction]:
    """The coefficients without leading zeros."""
    while len(q) > 1 and q[-1] == 0:
        q = q[:-1]
    return q


def value_at(q: list[Fraction], x: Fraction) -> Fraction:
    """The value of a polynomial at x, by Horner's scheme."""
    value = Fraction(0)
    for c in reversed(q):
        value = value * x + c
    return value


def slope(q: list[Fraction]) -> list[Fraction]:
    """The derivative of a polynomial."""
    return [i * c for i, c in enumerate(q)][1:] or [Fraction(0)]


def _remainder(a: list[Fraction], b: list[Fraction]) -> list[Fraction]:
    a = list(a)
    while len(a) >= len(b) and any(a):
        factor, shift = a[-1] / b[-1], len(a) - len(b)
        for i, c in enumerate(b):
            a[shift + i] -= factor * c
        a = trimmed(a[:-1] or [Fraction(0)])
    return a


def roots_in_unit_interval(q: list[Fraction]) -> list[tuple[Fraction, Fraction]]:
    """Brackets of the distinct roots of q inside (0, 1), in their order."""
    q = trimmed(list(q))
    while len(q) > 1 and q[0] == 0:  # a factor s
        q = q[1:]
    while len(q) > 1 and sum(q) == 0:  # a factor 1 - s
        q = list(itertools.accumulate(q))[:-1]
    if len(q) < 2:
        return []
    # Sturm's sequence counts distinct roots, also multiple ones, where neither end is a root.
    sequence = [q, slope(q)]
    while len(sequence[-1]) > 1 or sequence[-1][0] != 0:
        rest = [-c for c in _remainder(sequence[-2], sequence[-1])]
        if not any(rest):
            break
        sequence.append(rest)

    def changes(x: Fraction) -> int:
        values = [value for value in (value_at(one, x) for one in sequence) if value]
        return sum((a < 0) != (b < 0) for a, b in itertools.pairwise(values))

    def cut(low: Fraction, high: Fraction) -> Fraction:
        """A point near the middle that is no root."""
        share = Fraction(1, 2)
        while value_at(q, low + share * (high - low)) == 0:
            share *= Fraction(15, 16)
        return low + share * (high - low)

    found, open_ = [], [(Fraction(0), Fraction(1))]
    while open_:
        low, high = open_.pop()
        count = changes(low) - changes(high)
        if count == 0:
            continue
        if count == 1 and high - low <= _WIDTH * min(low, 1 - high):
            found.append((low, high))
            continue
        middle = cut(low, high)
        open_ += [(low, middle), (middle, high)]
    return sorted(found)
