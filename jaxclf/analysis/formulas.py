"""Real formulas in a normal form in which equal formulas look equal.

A formula is a polynomial with rational coefficients in *atoms*: the logits, the numbers of the
label, and functions of other formulas, such as exp or the absolute value. Every formula is a real
number wherever the logits are. :data:`NO_NUMBER` stands for what is not known to be a real number.

The normal form knows the identities that make the spellings of one loss equal. Exponentials are
monomials, so that their products are exponentials of sums. Maxima become absolute values, and
``log(exp a + exp b)`` becomes ``(a + b) / 2 + L((a - b) / 2)`` with ``L(x) = log(exp x + exp -x)``,
which is even, so that absolute values inside it vanish. A part that all terms of a log-sum-exp
share is taken out of it, so that a shift by the maximum cancels. The identities keep derivatives
too: the absolute value has JAX's derivative 0 where a maximum has the mean of both slopes.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple


class NoNumber:
    """A number that may be undefined or infinite, or that is not understood at all."""


NO_NUMBER = NoNumber()


class Span(NamedTuple):
    """Bounds that hold for all logits and labels; ``None`` where there is no bound."""

    low: Fraction | None = None
    high: Fraction | None = None
    above: bool = False
    """Whether ``low`` is never reached."""
    below: bool = False

    @property
    def sign(self) -> int:
        """2 or -2 if the span is positive or negative, 1 or -1 if it may be zero too, else 0."""
        if self.low is not None and self.low >= 0:
            return 2 if self.low > 0 or self.above else 1
        if self.high is not None and self.high <= 0:
            return -2 if self.high < 0 or self.below else -1
        return 0


ANY = Span()


class Atom:
    """A factor of a formula; equal atoms are the same object within one :class:`Atoms`."""

    __slots__ = ("args", "index", "kind", "of_label", "span")

    def __init__(self, index: int, kind: str, args: tuple, of_label: bool, span: Span):
        self.index, self.kind, self.args = index, kind, args
        self.of_label, self.span = of_label, span


class Formula:
    """``Σ coefficient · Π atom^power``; the keys of ``terms`` are tuples of ``(atom, power)``."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: dict):
        self.terms = terms
        self._hash = None

    def __hash__(self):
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __eq__(self, other):
        return self is other or (isinstance(other, Formula) and self.terms == other.terms)

    @property
    def of_label(self) -> bool:
        """Whether the formula does not depend on the logits."""
        return all(atom.of_label for monomial in self.terms for atom, _ in monomial)

    @property
    def number(self) -> Fraction | None:
        """The value of the formula if it is a constant, else ``None``."""
        if not self.terms:
            return Fraction(0)
        return self.terms.get((), None) if len(self.terms) == 1 else None


def constant(value) -> Formula:
    value = Fraction(value)
    return Formula({(): value} if value else {})


ZERO, ONE = constant(0), constant(1)


def is_polynomial(a: Formula) -> bool:
    """Whether the logits enter a formula without functions of them."""
    return all(t.of_label or t.kind == "logit" for monomial in a.terms for t, _ in monomial)


def degree(monomial: tuple) -> int:
    """The degree of a monomial in all factors that depend on the logits."""
    return sum(power for atom, power in monomial if not atom.of_label)


def is_affine(a: Formula) -> bool:
    """Whether a formula is affine in the logits for every label."""
    return is_polynomial(a) and all(degree(monomial) <= 1 for monomial in a.terms)


def total(parts: Iterable[Formula]) -> Formula:
    """The sum of formulas."""
    terms: dict = {}
    for part in parts:
        for monomial, value in part.terms.items():
            terms[monomial] = terms[monomial] + value if monomial in terms else value
    return Formula({monomial: value for monomial, value in terms.items() if value})


def scaled(a: Formula, factor) -> Formula:
    factor = Fraction(factor)
    if factor == 1:
        return a
    return Formula({m: factor * value for m, value in a.terms.items()} if factor else {})


def minus(a: Formula, b: Formula) -> Formula:
    return total((a, scaled(b, -1)))


def split_label(monomial: tuple) -> tuple[tuple, tuple]:
    """The factors of a monomial that depend on the label alone, and the other factors."""
    label = tuple(x for x in monomial if x[0].of_label)
    return label, tuple(x for x in monomial if not x[0].of_label)


def by_logits(a: Formula) -> dict[tuple, Formula]:
    """The monomials in the logits, each with its coefficient, which is a formula of the label."""
    found: dict = {}
    for monomial, value in a.terms.items():
        label, rest = split_label(monomial)
        found.setdefault(rest, {})[label] = value
    return {rest: Formula(terms) for rest, terms in found.items()}


def span(a: Formula) -> Span:
    """Bounds on a formula by interval arithmetic, and for ``c |u| + t u + k`` by ``|t| <= |c|``."""
    low, high, above, below = Fraction(0), Fraction(0), False, False
    for monomial, value in a.terms.items():
        term = _span_of_product(monomial, value)
        low = None if low is None or term.low is None else low + term.low
        high = None if high is None or term.high is None else high + term.high
        above, below = above or term.above, below or term.below
    if low is None and (more := _at_least(a)) is not None:
        low, above = more, False
    if high is None and (more := _at_least(scaled(a, -1))) is not None:
        high, below = -more, False
    return Span(low, high, above, below)


def _span_of_product(monomial: tuple, value: Fraction) -> Span:
    found = None
    for atom, power in monomial:
        one = atom.span
        if power % 2 == 0:
            one, power = _even(one), power // 2
        for _ in range(power):
            found = one if found is None else _times(found, one)
    if found is None:
        return Span(value, value)
    return _scaled_span(found, value)


def _scaled_span(a: Span, value) -> Span:
    low, high = (None if end is None else value * end for end in (a.low, a.high))
    return Span(low, high, a.above, a.below) if value > 0 else Span(high, low, a.below, a.above)


def _even(a: Span) -> Span:
    """The bounds of a square."""
    if a.sign < 0:
        a = _scaled_span(a, -1)
    if a.sign > 0:
        return Span(a.low**2, None if a.high is None else a.high**2, a.above, a.below)
    both = a.low is not None and a.high is not None
    return Span(Fraction(0), max(a.low**2, a.high**2) if both else None)


def _times(a: Span, b: Span) -> Span:
    strict = abs(a.sign * b.sign) == 4
    if None not in (a.low, a.high, b.low, b.high):
        ends = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
        return Span(min(ends), max(ends), strict and min(ends) == 0, strict and max(ends) == 0)
    if a.sign * b.sign > 0:
        return Span(Fraction(0), None, strict)
    if a.sign * b.sign < 0:
        return Span(None, Fraction(0), False, strict)
    return Span()


def _at_least(a: Formula) -> Fraction | None:
    """A lower bound of ``c |u| + t u + k`` with ``c >= |t|``, or ``None`` for other formulas."""
    for monomial, c in a.terms.items():
        if len(monomial) == 1 and monomial[0][0].kind == "abs" and monomial[0][1] == 1 and c > 0:
            inside = monomial[0][0].args[0]
            rest = minus(a, Formula({monomial: c}))
            lead = next(m for m in inside.terms if m)
            t = rest.terms.get(lead, Fraction(0)) / inside.terms[lead]
            k = minus(rest, scaled(inside, t)).number
            if k is not None and abs(t) <= c:
                return k
    return None
