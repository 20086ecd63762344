"""Convexity by the rules of composition, on the formula of any loss.

Sums, maxima and non-negative multiples keep convexity; a convex function that does not decrease, of
a convex one, is convex. Quadratic parts are convex where their matrix is positive semidefinite. The
remaining terms of one variable are convex where their pieces are
(:mod:`jaxclf.analysis.piecewise`). A formula may be convex although the rules do not prove it.

Source: Grant, Boyd and Ye, Disciplined convex programming, in Global Optimization (2006).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxclf.analysis.atoms import Atoms, single
from jaxclf.analysis.formula_arrays import array_rules, known_calls
from jaxclf.analysis.formula_rules import entry_rules, lifted
from jaxclf.analysis.formulas import (
    NO_NUMBER,
    Atom,
    Formula,
    by_logits,
    degree,
    is_affine,
    scaled,
    span,
)
from jaxclf.analysis.jaxpr_walk import traced, walk
from jaxclf.analysis.piecewise import is_convex_in_pieces
from jaxclf.analysis.quadratics import is_positive_semidefinite, is_sum_of_squares, matrix

_FLIPPED = {"convex": "concave", "concave": "convex"}


class Term(NamedTuple):
    """A formula as a function of the logits, for every label."""

    shape: str
    """``affine``, ``convex``, ``concave`` or ``unknown``."""
    reasons: frozenset[str] = frozenset()
    """The reasons that convexity rests on."""


_UNKNOWN = Term("unknown")


def disciplined(loss: Callable, label, num_logits: int | None) -> Term:
    """The shape that the rules prove for ``loss(·, label)``.

    Args:
      loss: ``(logits, label) -> ()``.
      label: the label of one example.
      num_logits: K, or ``None`` for a loss of one logit ``()``.
    """
    shape = () if num_logits is None else (num_logits,)
    closed = traced(lambda z: loss(z, label), shape)
    return curvature_of(closed, shape, (), derivatives=False)


def curvature_of(closed, shape: tuple, labels: tuple[Callable, ...], *, derivatives: bool) -> Term:
    """The shape that the rules prove for a jaxpr as a function of its first argument.

    Args:
      closed: the jaxpr, from :func:`jaxclf.analysis.jaxpr_walk.traced`.
      shape: the shape of the logits.
      labels: a function ``atoms -> object array`` for every other argument.
      derivatives: whether the derivative must also be the one that JAX computes.
    """
    atoms = Atoms()
    logits = np.empty(shape, object)
    for place in np.ndindex(shape):
        logits[place] = single(atoms.atom("logit", place, False))
    result = walk(
        closed,
        [logits, *(make(atoms) for make in labels)],
        entry_rules(atoms, derivatives=derivatives),
        lambda name: NO_NUMBER,
        known_calls(atoms, derivatives=derivatives),
        array_rules(atoms, derivatives=derivatives),
    )[()]
    found = lifted(result)
    return _UNKNOWN if found is NO_NUMBER else Curvatures(atoms).of(found)


class Curvatures:
    """The shapes of the formulas of one proof."""

    def __init__(self, atoms: Atoms):
        self._atoms = atoms
        self._known: dict[Formula, Term] = {}

    def of(self, a: Formula) -> Term:
        """The shape of a formula."""
        if a not in self._known:
            found = self._of(a)
            if found.shape == "unknown":
                pieces = self._upwards(scaled(a, -1))
                found = Term("concave", pieces) if pieces is not None else found
            self._known[a] = found
        return self._known[a]

    def _of(self, a: Formula) -> Term:
        if is_affine(a):
            return Term("affine")
        reasons = self._upwards(a)
        return _UNKNOWN if reasons is None else Term("convex", reasons)

    def _upwards(self, a: Formula) -> frozenset[str] | None:
        """The reasons why a formula is convex, or ``None`` without a proof."""
        coefficients = {m: c for m, c in by_logits(a).items() if degree(m) > 0}
        bent = {m: c for m, c in coefficients.items() if not _is_logit(m)}
        squares = {m: c for m, c in bent.items() if _is_product_of_logits(m)}
        reasons, doubts, settled = set(), {}, {}
        for m, c in bent.items():
            if m in squares:
                continue
            why = self._term(m, c)
            if why is None:
                doubts[m] = c
            else:
                settled[m] = c
                reasons |= why
        if doubts:
            found = is_convex_in_pieces(doubts, settled, squares, self._atoms)
            if found is None:
                return None
            reasons.add("its pieces of one variable are convex and meet with slopes that rise")
            squares = found
        if squares:
            if not _is_semidefinite(squares):
                return None
            reasons.add("a quadratic with a positive semidefinite matrix is convex")
        return frozenset(reasons)

    def _term(self, monomial: tuple, coefficient: Formula) -> frozenset[str] | None:
        """The reasons why ``coefficient · monomial`` is convex, or ``None`` without a proof."""
        if len(monomial) != 1 or monomial[0][1] != 1:
            return None
        sign = span(coefficient).sign
        found = self._atom(monomial[0][0])
        wanted = {1: "convex", -1: "concave", 0: ""}[(sign > 0) - (sign < 0)]
        return found.reasons if found.shape == wanted else None

    def _atom(self, atom: Atom) -> Term:
        rule = _RULES.get(atom.kind)
        return _UNKNOWN if rule is None else rule(self, atom)

    def _all(self, formulas, shapes: tuple[str, ...]) -> frozenset[str] | None:
        terms = [self.of(x) for x in formulas]
        if not all(term.shape in shapes for term in terms):
            return None
        return frozenset().union(*(term.reasons for term in terms))


_UP, _DOWN = ("affine", "convex"), ("affine", "concave")


def _increasing(formula: str) -> Callable:
    reason = f"{formula} is convex and increasing, so of a convex function it is convex"

    def rule(curvatures: Curvatures, atom: Atom) -> Term:
        reasons = curvatures._all(atom.args[:1], _UP)
        return _UNKNOWN if reasons is None else Term("convex", reasons | {reason})

    return rule


def _log_sum_exp(curvatures: Curvatures, atom: Atom) -> Term:
    reasons = curvatures._all((f for _, f in atom.args[0]), _UP)
    reason = "log Σ exp is convex and increasing, so of convex functions it is convex"
    return _UNKNOWN if reasons is None else Term("convex", reasons | {reason})


def _maximum(curvatures: Curvatures, atom: Atom) -> Term:
    reasons = curvatures._all(atom.args, _UP)
    reason = "a maximum of convex functions is convex"
    return _UNKNOWN if reasons is None else Term("convex", reasons | {reason})


def _even(curvatures: Curvatures, a: Formula, formula: str) -> Term:
    """The shape of a convex even function of a; it grows with the absolute value of a."""
    term, sign = curvatures.of(a), span(a).sign
    fine = term.shape == "affine" or (term.shape == "convex" and sign > 0)
    fine = fine or (term.shape == "concave" and sign < 0)
    reason = f"{formula} is convex and even, so of an affine function it is convex"
    if term.shape != "affine":
        reason = f"{formula} is convex and even, so of a convex one of one sign it is convex"
    return Term("convex", term.reasons | {reason}) if fine else _UNKNOWN


def _power(curvatures: Curvatures, atom: Atom) -> Term:
    a, exponent = atom.args
    term, sign = curvatures.of(a), span(a).sign
    if exponent >= 1 and exponent.denominator == 1 and exponent % 2 == 0:
        return _even(curvatures, a, "an even power")
    if exponent >= 1 and sign > 0 and term.shape in _UP:
        reason = "a power of at least 1 of a convex function that is never negative is convex"
        return Term("convex", term.reasons | {reason})
    if 0 < exponent < 1 and sign > 0 and term.shape in _DOWN:
        return Term("concave", term.reasons)
    if exponent < 0 and sign == 2 and term.shape in _DOWN:
        reason = "a negative power of a concave function that is positive is convex"
        return Term("convex", term.reasons | {reason})
    return _UNKNOWN


def _root(curvatures: Curvatures, atom: Atom) -> Term:
    [a] = atom.args
    if is_sum_of_squares(a):
        return Term("convex", frozenset({"a norm of an affine function is convex"}))
    term = curvatures.of(a)
    return Term("concave", term.reasons) if term.shape in _DOWN else _UNKNOWN


def _log(curvatures: Curvatures, atom: Atom) -> Term:
    term = curvatures.of(atom.args[0])
    return Term("concave", term.reasons) if term.shape in _DOWN else _UNKNOWN


def _log_normal_cdf(curvatures: Curvatures, atom: Atom) -> Term:
    term = curvatures.of(atom.args[0])
    if term.shape not in _DOWN:
        return _UNKNOWN
    reason = "-log Φ of the normal distribution is convex and decreasing"
    return Term("concave", term.reasons | {reason})


_RULES = {
    "exp": _increasing("exp"),
    "relu": _increasing("max(·, 0)"),
    "logsumexp": _log_sum_exp,
    "max": _maximum,
    "abs": lambda curvatures, atom: _even(curvatures, atom.args[0], "the absolute value"),
    "L": lambda curvatures, atom: _even(curvatures, atom.args[0], "log(exp x + exp -x)"),
    "power": _power,
    "root": _root,
    "log": _log,
    "log_ndtr": _log_normal_cdf,
}


def _is_logit(monomial: tuple) -> bool:
    return len(monomial) == 1 and monomial[0][0].kind == "logit" and monomial[0][1] == 1


def _is_product_of_logits(monomial: tuple) -> bool:
    return degree(monomial) == 2 and all(x.kind == "logit" for x, _ in monomial)


def _is_semidefinite(squares: dict[tuple, Formula]) -> bool:
    """Whether a quadratic in the logits has a positive semidefinite matrix for every label."""
    numbers = {m: c.number for m, c in squares.items()}
    if None not in numbers.values():
        return is_positive_semidefinite(matrix(numbers))
    return all(len(m) == 1 and span(c).sign > 0 for m, c in squares.items())
