"""Formulas that are polynomials in pieces of one variable.

The variable t is a formula that is affine in the logits, such as ``z - y`` of a logit and a label.
"""

from __future__ import annotations

from fractions import Fraction

from jaxclf.analysis.atoms import Atoms
from jaxclf.analysis.formulas import Atom, Formula, is_affine, minus, scaled
from jaxclf.analysis.pieces import (
    HIGHEST_DEGREE,
    Pieces,
    Polynomial,
    absolute,
    combined,
    is_convex,
    largest,
    plus,
    polynomial,
    selected,
    times,
)

_MOST_TERMS = 16
"""The most terms that the variable may have."""


def is_convex_in_pieces(
    doubts: dict[tuple, Formula],
    settled: dict[tuple, Formula],
    squares: dict[tuple, Formula],
    atoms: Atoms,
) -> dict[tuple, Formula] | None:
    """The squares that are left if the doubtful terms are convex together with others, or ``None``.

    Args:
      doubts: monomials with their coefficients, all of which must be used.
      settled: monomials that are convex by themselves, and may be used.
      squares: products of logits, which may be used.
      atoms: the atoms of the proof.
    """
    doubts, settled, squares = dict(doubts), dict(settled), dict(squares)
    while doubts:
        variable = _variable(next(iter(doubts)))
        if variable is None:
            return None
        parts = []
        for terms in (doubts, settled):
            for monomial in list(terms):
                found = _pieces_of_term(monomial, terms[monomial], variable, atoms)
                if found is not None:
                    parts.append(found)
                    del terms[monomial]
                elif terms is doubts and not parts:
                    return None  # the term that the variable is taken from
        whole = parts[0]
        for part in parts[1:]:
            whole = None if whole is None else combined(whole, part, plus)
        if whole is None:
            return None
        if is_convex(whole):
            continue
        factor, squares = _without_square(squares, variable, atoms)
        bent = polynomial((Fraction(0), Fraction(0), factor))
        if not factor or not is_convex(combined(whole, bent, plus)):
            return None
    return squares


def _variable(monomial: tuple) -> Formula | None:
    """The first argument in a monomial that is affine in the logits, without its constant."""
    for atom, _ in monomial:
        for a in _arguments(atom):
            if is_affine(a):
                if a.of_label:
                    continue
                if len(a.terms) > _MOST_TERMS:
                    return None
                return Formula({m: c for m, c in a.terms.items() if m})
            for m in a.terms:
                found = _variable(m)
                if found is not None:
                    return found
    return None


def _arguments(atom: Atom) -> list[Formula]:
    found = []
    for x in atom.args:
        if isinstance(x, Formula):
            found.append(x)
        elif isinstance(x, Atom):
            found += _arguments(x)
    return found


def _without_square(squares: dict, variable: Formula, atoms: Atoms) -> tuple[Fraction, dict]:
    """The factor c, and the squares without ``c t²`` up to an affine function."""
    of_variable = {
        m: c
        for m, c in atoms.times(variable, variable).terms.items()
        if sum(power for x, power in m if not x.of_label) == 2
    }
    found = [squares[m] for m in of_variable if m in squares]
    if len(found) < len(of_variable) or None in [c.number for c in found]:
        return Fraction(0), squares
    factors = {c.number / of_variable[m] for m, c in squares.items() if m in of_variable}
    if len(factors) > 1:
        return Fraction(0), squares
    return factors.pop(), {m: c for m, c in squares.items() if m not in of_variable}


def _pieces_of_term(monomial: tuple, coefficient: Formula, variable, atoms) -> Pieces | None:
    if coefficient.number is None:
        return None
    return _pieces(Formula({monomial: coefficient.number}), variable, atoms)


def _pieces(a: Formula, variable: Formula, atoms: Atoms) -> Pieces | None:
    """A formula as a function of t in pieces, or ``None`` if it is no such function."""
    rational = {m: c for m, c in a.terms.items() if not _has_functions(m)}
    found = _as_polynomial(Formula(rational), variable, atoms)
    if found is None:
        return None
    result = polynomial(found)
    for monomial, value in a.terms.items():
        if monomial in rational:
            continue
        product = polynomial((value,))
        for atom, power in monomial:
            factor = _function(atom, variable, atoms)
            for _ in range(power):
                if factor is None or product is None:
                    return None
                product = combined(product, factor, times)
        result = None if product is None else combined(result, product, plus)
        if result is None:
            return None
    return result


def _has_functions(monomial: tuple) -> bool:
    return any(not x.of_label and x.kind != "logit" for x, _ in monomial)


def _as_polynomial(a: Formula, variable: Formula, atoms: Atoms) -> Polynomial | None:
    """The coefficients of a formula ``Σ c_i t^i`` of degree at most two, or ``None``."""
    lead = next(m for m in variable.terms if any(not x.of_label for x, _ in m))
    coefficients = [Fraction(0)] * 3
    twice = atoms.times(variable, variable)
    [square] = atoms.times(Formula({lead: Fraction(1)}), Formula({lead: Fraction(1)})).terms
    coefficients[2] = a.terms.get(square, Fraction(0)) / twice.terms[square]
    a = minus(a, scaled(twice, coefficients[2]))
    coefficients[1] = a.terms.get(lead, Fraction(0)) / variable.terms[lead]
    a = minus(a, scaled(variable, coefficients[1]))
    if a.number is None:
        return None
    coefficients[0] = a.number
    return tuple(coefficients)


def _function(atom: Atom, variable: Formula, atoms: Atoms) -> Pieces | None:
    if atom.kind == "abs":
        inside = _pieces(atom.args[0], variable, atoms)
        return None if inside is None else absolute(inside)
    if atom.kind == "power":
        a, exponent = atom.args
        inside = _pieces(a, variable, atoms)
        if inside is None or exponent.denominator != 1 or not 0 < exponent <= HIGHEST_DEGREE:
            return None
        result = inside
        for _ in range(int(exponent) - 1):
            result = None if result is None else combined(result, inside, times)
        return result
    if atom.kind == "max":
        return largest([_pieces(a, variable, atoms) for a in atom.args])
    if atom.kind == "product":
        factors = [_pieces(a, variable, atoms) for a in atom.args]
        return None if None in factors else combined(*factors, times)
    if atom.kind == "select":
        test, *branches = atom.args
        if test.args[0] != ">":
            return None
        rows = [_pieces(a, variable, atoms) for a in (test.args[1], *branches)]
        return None if None in rows else selected(*rows)
    return None
