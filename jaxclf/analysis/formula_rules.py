"""The formula of a jaxpr: the rules of primitives for entries that are formulas."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxclf.analysis.atoms import Atoms, single, turned
from jaxclf.analysis.formulas import (
    ANY,
    NO_NUMBER,
    ONE,
    Atom,
    Formula,
    Span,
    constant,
    minus,
    scaled,
    span,
    total,
)
from jaxclf.analysis.jaxpr_walk import Constant


class Truth(NamedTuple):
    """A condition that neither the range of the label nor a sign decides."""

    atom: Atom
    holds: bool
    """False for the negation of the condition."""


def lifted(entry) -> Formula | object:
    """The formula of an entry, or ``NO_NUMBER`` if the entry is no number."""
    if isinstance(entry, Constant):
        value = np.asarray(entry.value)
        if value.dtype == bool or not np.isfinite(float(value)):
            return NO_NUMBER
        integer = np.issubdtype(value.dtype, np.integer)
        return constant(int(value) if integer else Fraction(float(value)))
    return entry if isinstance(entry, Formula) else NO_NUMBER


def entry_rules(atoms: Atoms, *, derivatives: bool) -> dict[str, Callable]:
    """The rules for single entries that :func:`jaxclf.analysis.jaxpr_walk.walk` takes.

    Args:
      atoms: the atoms of the proof.
      derivatives: whether a number with a stopped gradient is not understood; otherwise it is the
        number itself.
    """

    def opaque(name: str, bounds: Span = ANY) -> Callable:
        return lambda a: atoms.function(name, a, span=bounds)

    unit = Span(Fraction(-1), Fraction(1))
    number = {
        "add": lambda a, b: total((a, b)),
        "add_any": lambda a, b: total((a, b)),
        "sub": minus,
        "neg": lambda a: scaled(a, -1),
        "mul": atoms.times,
        "div": lambda a, b: _quotient(atoms, a, b),
        "abs": atoms.absolute,
        "square": atoms.square,
        "exp": atoms.exp,
        "expm1": lambda a: minus(atoms.exp(a), ONE),
        "log": atoms.log,
        "log1p": lambda a: atoms.log(total((a, ONE))),
        "logistic": atoms.logistic,
        "tanh": lambda a: minus(scaled(atoms.logistic(scaled(a, 2)), 2), ONE),
        "cosh": lambda a: _hyperbolic(atoms, a, total),
        "sinh": lambda a: _hyperbolic(atoms, a, lambda pair: minus(*pair)),
        "sin": opaque("sin", unit),
        "cos": opaque("cos", unit),
        "erf": opaque("erf", unit),
        "erfc": opaque("erfc"),
        "atan": opaque("atan"),
        "asinh": opaque("asinh"),
        "floor": opaque("floor"),
        "ceil": opaque("ceil"),
        "sign": lambda a: _sign(atoms, a),
    }  # fmt: skip
    rules = {name: _for_entries(atoms, rule, exact=name != "div") for name, rule in number.items()}

    def extreme(name: str) -> Callable:
        larger = name == "max"

        def rule(a, b, **params):
            absent = -math.inf if larger else math.inf
            for x, y in ((a, b), (b, a)):
                if isinstance(x, Constant) and x.value == absent:
                    return y
            return _for_entries(atoms, lambda x, y: largest(atoms, [x, y], larger))(a, b, **params)

        return rule

    def power(a, b=None, *, y=None, **params):
        if isinstance(a, Constant) and float(a.value) > 0:
            base = atoms.log(lifted(a)) if np.isfinite(float(a.value)) else NO_NUMBER
            return _for_entries(atoms, lambda f, x: atoms.exp(atoms.times(f, x)))(base, b, **params)
        if b is not None:
            y = b.value if isinstance(b, Constant) else math.nan
        if not math.isfinite(y):
            return NO_NUMBER
        exponent = Fraction(float(y))
        return _for_entries(atoms, lambda x: atoms.power(x, exponent))(a, **params)

    def root(a, *, exponent=1, **params):
        def of(x):
            found = atoms.root(x)
            if exponent > 0 or found is NO_NUMBER:
                return found
            return atoms.power(found, Fraction(-1))

        return _for_entries(atoms, of)(a, **params)

    def stopped(a, **_):
        if not derivatives or isinstance(a, Constant) or not isinstance(a, Formula):
            return a
        return a if a.of_label else atoms.function("stopped", a)

    return (
        rules
        | {
            "max": extreme("max"),
            "min": extreme("min"),
            "pow": power,
            "integer_pow": power,
            "sqrt": root,
            "rsqrt": lambda a, **params: root(a, exponent=-1, **params),
            "stop_gradient": stopped,
            "is_finite": lambda a, **_: Constant(True) if isinstance(a, Formula) else NO_NUMBER,
            "select_n": lambda *entries, **params: _select(atoms, *entries, **params),
            "convert_element_type": _convert,
            "and": lambda a, b, **_: _both(atoms, a, b),
            "or": lambda a, b, **_: _negated(_both(atoms, _negated(a), _negated(b))),
            "not": lambda a, **_: _negated(a),
        }
        | {name: _compared(atoms, name) for name in _DECIDED}
    )


def _for_entries(atoms: Atoms, rule: Callable, exact: bool = True) -> Callable:
    """A rule for entries, made of a rule for formulas.

    ``exact`` says whether the rule is the same for integers.
    """

    def of(*entries, aval=None, **_):
        numbers = [lifted(entry) for entry in entries]
        if any(x is NO_NUMBER for x in numbers) or not atoms.may_go_on(numbers):
            return NO_NUMBER
        found = rule(*numbers)
        if aval is None or jnp.issubdtype(aval.dtype, jnp.floating):
            return found
        return fits_integer(found, aval.dtype) if exact else NO_NUMBER

    return of


def fits_integer(a, dtype):
    """Returns an integer if it certainly fits its dtype, else ``NO_NUMBER``: others wrap around."""
    if a is NO_NUMBER or not jnp.issubdtype(dtype, jnp.integer):
        return NO_NUMBER
    found, limits = span(a), jnp.iinfo(dtype)
    fits = found.low is not None and found.high is not None
    fits = fits and found.low >= int(limits.min) and found.high <= int(limits.max)
    return a if fits else NO_NUMBER


def _quotient(atoms: Atoms, a: Formula, b: Formula):
    if a == b and abs(span(b).sign) == 2:
        return ONE
    inverse = NO_NUMBER if b.number == 0 else atoms.inverse(b)
    return inverse if inverse is NO_NUMBER else atoms.times(a, inverse)


def _sign(atoms: Atoms, a: Formula) -> Formula:
    sign = span(a).sign
    if abs(sign) == 2 or a.number == 0:
        return constant((sign > 1) - (sign < -1))
    return atoms.function("sign", a, span=Span(Fraction(-1), Fraction(1)))


def _hyperbolic(atoms: Atoms, a: Formula, joined: Callable) -> Formula:
    return scaled(joined((atoms.exp(a), atoms.exp(scaled(a, -1)))), Fraction(1, 2))


def largest(atoms: Atoms, numbers: list[Formula], larger: bool = True) -> Formula:
    if larger:
        return atoms.largest(numbers)
    return scaled(atoms.largest([scaled(x, -1) for x in numbers]), -1)


def _convert(a, *, new_dtype, **_):
    if isinstance(a, Truth):
        if jnp.issubdtype(new_dtype, jnp.bool_):
            return a
        indicator = single(a.atom)
        return indicator if a.holds else minus(ONE, indicator)
    if not isinstance(a, Formula) or jnp.issubdtype(new_dtype, jnp.floating):
        return a
    return fits_integer(a, new_dtype) if _is_whole(a) else NO_NUMBER


def _is_whole(a: Formula) -> bool:
    """Whether a formula is an integer for every label."""
    return all(
        value.denominator == 1 and all(x.kind in ("class", "test") and x.of_label for x, _ in m)
        for m, value in a.terms.items()
    )


def _select(atoms: Atoms, which, no, yes=NO_NUMBER, *others, **_):
    if others or not isinstance(which, Truth):
        return NO_NUMBER
    if all(isinstance(x, Constant | Truth) for x in (no, yes)) and _is_bool(no) and _is_bool(yes):
        return _either(atoms, which, no, yes)
    no, yes = lifted(no), lifted(yes)
    if NO_NUMBER in (no, yes):
        return NO_NUMBER
    if no == yes:
        return yes
    if not which.holds:
        no, yes = yes, no
    if which.atom.of_label:
        return total((no, atoms.times(single(which.atom), minus(yes, no))))
    spans = span(no), span(yes)
    low = None if None in (x := [s.low for s in spans]) else min(x)
    high = None if None in (x := [s.high for s in spans]) else max(x)
    above = any(s.low == low and not s.above for s in spans)
    below = any(s.high == high and not s.below for s in spans)
    bounds = Span(low, high, low is not None and not above, high is not None and not below)
    return atoms.function("select", which.atom, yes, no, span=bounds)


def _is_bool(x) -> bool:
    return isinstance(x, Truth) or np.asarray(x.value).dtype == bool


def _either(atoms: Atoms, which: Truth, no, yes):
    first = _both(atoms, which, yes)
    second = _both(atoms, _negated(which), no)
    return _negated(_both(atoms, _negated(first), _negated(second)))


def _negated(a):
    if isinstance(a, Constant):
        return Constant(not bool(a.value))
    return a._replace(holds=not a.holds) if isinstance(a, Truth) else NO_NUMBER


def _both(atoms: Atoms, a, b):
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Constant):
            return y if bool(x.value) else Constant(False)
    if a is NO_NUMBER or b is NO_NUMBER:
        return NO_NUMBER
    if a == b:
        return a
    of_label = a.atom.of_label and b.atom.of_label
    bounds = Span(Fraction(0), Fraction(1))
    return Truth(atoms.atom("test", ("and", a, b), of_label, bounds), True)


_DECIDED = {"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
            "gt": operator.gt, "ge": operator.ge}  # fmt: skip


def _compared(atoms: Atoms, name: str) -> Callable:
    def rule(a, b, **_):
        for side, x, y in ((0, a, b), (1, b, a)):
            if isinstance(x, Constant) and isinstance(y, Formula):
                value = float(x.value)
                if not math.isfinite(value):  # every formula is a finite number
                    pair = (value, 0.0) if side == 0 else (0.0, value)
                    return Constant(_DECIDED[name](*pair))
        x, y = lifted(a), lifted(b)
        if NO_NUMBER in (x, y):
            return NO_NUMBER
        if name in ("eq", "ne"):
            found = truth_of_zero(atoms, minus(x, y))
        elif name in ("gt", "le"):
            found = _is_positive(atoms, minus(x, y))
        else:
            found = _is_positive(atoms, minus(y, x))
        return found if name in ("eq", "gt", "lt") else _negated(found)

    return rule


def truth_of_zero(atoms: Atoms, a: Formula):
    if a.number is not None or abs(span(a).sign) == 2:
        return Constant(a.number == 0)
    a = turned(a)
    return Truth(atoms.atom("test", ("=", a), a.of_label, Span(Fraction(0), Fraction(1))), True)


def _is_positive(atoms: Atoms, a: Formula):
    if a.number is not None:
        return Constant(a.number > 0)
    sign = span(a).sign
    if sign == 2 or sign < 0:
        return Constant(sign == 2)
    return Truth(atoms.atom("test", (">", a), a.of_label, Span(Fraction(0), Fraction(1))), True)
