"""Functions of formulas, brought into their normal form; see :mod:`jaxclf.analysis.formulas`.

Every method returns a formula that equals the function wherever the logits are real and the label
is in its range, or ``NO_NUMBER`` where it is not known to be a real number there.
"""

from __future__ import annotations

from fractions import Fraction

from jaxclf.analysis.formulas import (
    ANY,
    NO_NUMBER,
    ONE,
    ZERO,
    Atom,
    Formula,
    Span,
    constant,
    is_affine,
    minus,
    scaled,
    span,
    total,
)
from jaxclf.analysis.quadratics import is_sum_of_squares

_MOST_TERMS = 1024
"""Products of more terms are not multiplied out."""
_MOST_SQUARED = 16
"""Squares of more terms are not multiplied out: a square is known to be convex as it is."""
_NOT_NEGATIVE, _POSITIVE = Span(Fraction(0)), Span(Fraction(0), above=True)
_LOG_2 = Fraction(69, 100)  # log 2 = 0.6931… is the minimum of L
_MOST_WORK = 200_000
"""The most terms that the operations of one proof may read, which takes about 1 s."""


class Atoms:
    """The atoms of one proof; equal atoms are one object."""

    def __init__(self):
        self._known: dict[tuple, Atom] = {}
        self._spent = 0
        self._logs: dict[Formula, Formula | None] = {}

    def may_go_on(self, formulas: list[Formula]) -> bool:
        """Whether there is time for one more operation on these formulas."""
        self._spent += sum(len(x.terms) for x in formulas)
        return self._spent <= _MOST_WORK

    def atom(self, kind: str, args: tuple, of_label: bool, span: Span = ANY) -> Atom:
        key = (kind, args)
        if key not in self._known:
            self._known[key] = Atom(len(self._known), kind, args, of_label, span)
        return self._known[key]

    def function(self, kind: str, *args, span: Span = ANY) -> Formula:
        """The formula of one atom, which is a function of formulas and of other parameters."""
        formulas = [x for x in args if isinstance(x, Formula)]
        nested = [pair for x in args if isinstance(x, tuple) for pair in x]
        formulas += [x for pair in nested for x in pair if isinstance(x, Formula)]
        atoms = [x for x in args if isinstance(x, Atom)]
        of_label = all(x.of_label for x in (*formulas, *atoms))
        return single(self.atom(kind, args, of_label, span))

    def times(self, a: Formula, b: Formula) -> Formula:
        for x, y in ((a, b), (b, a)):
            if x.number is not None:
                return scaled(y, x.number)
        if a == b:
            return self.square(a)
        small = len(a.terms) * len(b.terms) <= _MOST_TERMS
        apart = a.of_label or b.of_label or (is_affine(a) and is_affine(b))
        if small and (apart or (_has_only_exponentials(a) and _has_only_exponentials(b))):
            return self._product(a, b)
        sign = span(a).sign * span(b).sign
        bounds = _signed(sign, abs(sign) == 4)
        first, second = sorted((a, b), key=_order)
        return self.function("product", first, second, span=bounds)

    def _product(self, a: Formula, b: Formula) -> Formula:
        terms: dict = {}
        for m, x in a.terms.items():
            for n, y in b.terms.items():
                monomial, value = self._monomials(m, n) if m and n else (m or n, 1)
                value = x * y if value == 1 else value * x * y
                terms[monomial] = terms[monomial] + value if monomial in terms else value
        return Formula({monomial: value for monomial, value in terms.items() if value})

    def _monomials(self, m: tuple, n: tuple) -> tuple[tuple, Fraction | int]:
        """The product of two monomials, as a monomial and a factor.

        Exponentials become one exponential, and an indicator is its own square.
        """
        powers: dict = {}
        exponents = []
        for atom, power in (*m, *n):
            if atom.kind == "exp":
                exponents.append(scaled(atom.args[0], power))
            else:
                powers[atom] = 1 if atom.kind == "test" else powers.get(atom, 0) + power
        if exponents:
            [(rest, value)] = self.exp(total(exponents)).terms.items()
            for atom, power in rest:
                powers[atom] = powers.get(atom, 0) + power
        else:
            value = 1
        return tuple(sorted(powers.items(), key=lambda x: x[0].index)), value

    def square(self, a: Formula) -> Formula:
        if is_affine(a) and len(a.terms) <= _MOST_SQUARED:
            return self._product(a, a)
        if _has_only_exponentials(a) and len(a.terms) == 1:
            return self._product(a, a)
        if (inside := _multiple_of(a, "abs")) is not None:
            return self.square(inside)
        return self.power(a, Fraction(2))

    def power(self, a: Formula, exponent: Fraction) -> Formula | object:
        """``a^exponent``, or ``NO_NUMBER`` where it may be no real number."""
        if exponent == 0:
            return ONE
        if exponent == 1:
            return a
        whole, sign = exponent.denominator == 1, span(a).sign
        if _is_exponential(a):
            return self.exp(scaled(self._log_of_one(a), exponent))
        even = whole and exponent % 2 == 0
        if exponent < 0 and (log := self.log_of_exponentials(a)) is not None:
            return self.exp(scaled(log, exponent))
        if exponent < 0 and (abs(sign) != 2 if whole else sign != 2):
            return NO_NUMBER
        if exponent > 0 and not whole and sign < 1:
            return NO_NUMBER
        if exponent == 2 and is_affine(a) and len(a.terms) <= _MOST_SQUARED:
            return self._product(a, a)
        if even and (inside := _multiple_of(a, "abs")) is not None:
            return self.power(inside, exponent)
        if even:
            a = turned(a)
            bounds = _POSITIVE if abs(sign) == 2 else _NOT_NEGATIVE
        else:
            bounds = _signed(sign, abs(sign) == 2)
        return self.function("power", a, exponent, span=bounds)

    def root(self, a: Formula) -> Formula | object:
        sign = span(a).sign
        if _is_exponential(a):
            return self.power(a, Fraction(1, 2))
        if sign < 1 and not is_sum_of_squares(a):
            return NO_NUMBER
        return self.function("root", a, span=_POSITIVE if sign == 2 else _NOT_NEGATIVE)

    def absolute(self, a: Formula) -> Formula:
        if a.number is not None:
            return constant(abs(a.number))
        sign = span(a).sign
        if abs(sign) == 2 or (sign and a.of_label):
            return a if sign > 0 else scaled(a, -1)
        return self.function("abs", turned(a), span=_NOT_NEGATIVE)

    def maximum(self, a: Formula, b: Formula) -> Formula:
        difference = minus(a, b)
        if is_affine(difference):
            return scaled(total((a, b, self.absolute(difference))), Fraction(1, 2))
        if abs(span(difference).sign) == 2:
            return a if span(difference).sign > 0 else b
        return self.largest([a, b])

    def largest(self, entries: list[Formula]) -> Formula:
        """The maximum of several formulas; JAX spreads its derivative evenly over ties."""
        if len(entries) == 1:
            return entries[0]
        if len(entries) == 2 and is_affine(minus(*entries)):
            return self.maximum(*entries)
        spans = [span(x) for x in entries]
        lows = [x.low for x in spans if x.low is not None]
        highs = [x.high for x in spans]
        low = max(lows) if lows else None
        above = any(x.low == low and x.above for x in spans) if lows else False
        high = None if None in highs else max(highs)
        return self.function("max", *sorted(entries, key=_order), span=Span(low, high, above))

    def exp(self, a: Formula) -> Formula:
        return ONE if not a.terms else self.function("exp", a, span=_POSITIVE)

    def even_log(self, a: Formula) -> Formula:
        """``L(a) = log(exp a + exp -a)``, which is even, so that ``L(|u|) = L(u)``."""
        if (inside := _multiple_of(a, "abs")) is not None:
            a = inside
        return self.function("L", turned(a), span=Span(_LOG_2))

    def logistic(self, a: Formula) -> Formula:
        half = scaled(a, Fraction(1, 2))
        return self.exp(minus(half, self.even_log(half)))

    def log(self, a: Formula) -> Formula | object:
        if (found := self.log_of_exponentials(a)) is not None:
            return found
        if span(a).sign != 2:
            return NO_NUMBER
        return self.function("log", a)

    def log_of_exponentials(self, a: Formula) -> Formula | None:
        """The log of ``a = Σ w exp f`` with weights w of the label, or ``None`` for other sums."""
        if a not in self._logs:
            self._logs[a] = self._log_of_exponentials(self._complement(a))
        return self._logs[a]

    def _log_of_exponentials(self, a: Formula) -> Formula | None:
        weights: dict[Formula, dict] = {}
        for monomial, value in a.terms.items():
            exponents = [x for x in monomial if x[0].kind == "exp"]
            rest = tuple(x for x in monomial if x[0].kind != "exp")
            if not all(x[0].of_label for x in rest):
                return None
            exponent = exponents[0][0].args[0] if exponents else ZERO
            weights.setdefault(exponent, {})[rest] = value
        terms = [(Formula(w), f) for f, w in weights.items()]
        signs = [span(w).sign for w, _ in terms]
        if not signs or min(signs) < 1 or max(signs) < 2:
            return None
        if len(terms) == 1:
            return total((terms[0][1], self._log_weight(terms[0][0])))
        if len(terms) == 2 and terms[0][0] == terms[1][0]:
            (weight, f), (_, g) = terms
            middle = scaled(total((f, g)), Fraction(1, 2))
            spread = self.even_log(scaled(minus(f, g), Fraction(1, 2)))
            return total((self._log_weight(weight), middle, spread))
        shared = _functions(terms[0][1])
        if any(_functions(f) != shared for _, f in terms):
            shared = ZERO
        terms = [(w, minus(f, shared)) for w, f in terms]
        key = tuple(sorted(terms, key=lambda x: (_order(x[1]), _order(x[0]))))
        return total((shared, self.function("logsumexp", key)))

    def _log_weight(self, weight: Formula) -> Formula:
        return ZERO if weight == ONE else self.function("log", weight)

    def _log_of_one(self, a: Formula) -> Formula:
        [(monomial, value)] = a.terms.items()
        return total((monomial[0][0].args[0], self._log_weight(constant(value))))

    def _complement(self, a: Formula) -> Formula:
        """Returns ``c - c σ(2 x)`` as ``c σ(-2 x)``, and any other formula as it is.

        The atoms hold ``σ(2 x)`` as ``exp(x - L(x))``.
        """
        number = a.terms.get((), None)
        if number is None or len(a.terms) != 2:
            return a
        [(monomial, value)] = [item for item in a.terms.items() if item[0]]
        if value != -number or len(monomial) != 1 or monomial[0][0].kind != "exp":
            return a
        exponent = monomial[0][0].args[0]
        spreads = [(m, c) for m, c in exponent.terms.items() if m and m[0][0].kind == "L"]
        if len(spreads) != 1 or spreads[0][1] != -1 or len(spreads[0][0]) != 1:
            return a
        spread = Formula({spreads[0][0]: Fraction(1)})
        x = total((exponent, spread))
        if self.even_log(x) != spread:
            return a
        return scaled(self.exp(minus(scaled(x, -1), spread)), number)

    def relu(self, a: Formula) -> Formula:
        """``max(a, 0)`` with derivative 0 at zero."""
        sign = span(a).sign
        if a.number is not None or abs(sign) == 2:
            return a if sign > 0 else ZERO
        return self.function("relu", a, span=_NOT_NEGATIVE)

    def log_normal_cdf(self, a: Formula) -> Formula:
        return self.function("log_ndtr", a, span=Span(None, Fraction(0), False, True))

    def inverse(self, a: Formula) -> Formula | object:
        return self.power(a, Fraction(-1)) if a.number is None else constant(1 / a.number)


def single(atom: Atom) -> Formula:
    return Formula({((atom, 1),): Fraction(1)})


def _signed(sign: int, strict: bool) -> Span:
    if sign == 0:
        return Span()
    return Span(Fraction(0), None, strict) if sign > 0 else Span(None, Fraction(0), False, strict)


def _order(a: Formula) -> tuple:
    """A key that puts formulas in a total order, by the age of their atoms."""
    return tuple(
        sorted((tuple((x.index, power) for x, power in m), value) for m, value in a.terms.items())
    )


def turned(a: Formula) -> Formula:
    """Returns ``a`` or ``-a``; the result is the same for both."""
    first = min((m for m in a.terms if m), key=lambda m: [(x.index, power) for x, power in m],
                default=())  # fmt: skip
    return a if not a.terms or a.terms[first] > 0 else scaled(a, -1)


def _has_only_exponentials(a: Formula) -> bool:
    return all(x.of_label or x.kind == "exp" for m in a.terms for x, _ in m)


def _is_exponential(a: Formula) -> bool:
    """Whether a formula is ``c exp f`` with a positive number c."""
    if len(a.terms) != 1:
        return False
    [(monomial, value)] = a.terms.items()
    return value > 0 and len(monomial) == 1 and monomial[0][0].kind == "exp"


def _multiple_of(a: Formula, kind: str) -> Formula | None:
    """Returns ``c x`` if a is c times the atom ``kind(x)``, else ``None``."""
    if len(a.terms) != 1:
        return None
    [(monomial, value)] = a.terms.items()
    if len(monomial) != 1 or monomial[0][0].kind != kind or monomial[0][1] != 1:
        return None
    return scaled(monomial[0][0].args[0], value)


def _functions(a: Formula) -> Formula:
    """The terms of a formula that are not affine in the logits."""
    return Formula({m: c for m, c in a.terms.items()
                    if not is_affine(Formula({m: c}))})  # fmt: skip
