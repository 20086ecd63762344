"""Functions of one variable that are polynomials in pieces, and whether they are convex, exactly.

The variable t is a formula that is affine in the logits, such as ``z - y`` of a logit and a label.
A function of t is convex if its pieces are, if they meet, and if its slope does not fall where they
meet. JAX must also return a slope between the two there. It returns their mean where an absolute
value or a maximum has its kink, and one of both where a condition decides: if one point has kinks
of two kinds, or a kink of what has one already, nothing is said.

Source: Boyd and Vandenberghe, Convex Optimization (2004), section 3.1.3.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import NamedTuple

from jaxclf.analysis.atoms import Atoms
from jaxclf.analysis.formulas import Atom, Formula, is_affine, minus, scaled
from jaxclf.analysis.real_roots import slope, trimmed, value_at

_MOST_PIECES = 64
_MOST_TERMS = 16
"""Of the variable."""
_HIGHEST_DEGREE = 12

Polynomial = tuple[Fraction, ...]


class Pieces(NamedTuple):
    """A continuous or discontinuous function of t."""

    breaks: tuple[Fraction, ...]
    polynomials: tuple[Polynomial, ...]
    """One more than breaks."""
    kinks: tuple[frozenset[str], ...]
    """For every break which slopes JAX may return: ``mean``, ``left``, ``right`` or ``other``."""


def is_convex_in_pieces(
    doubts: dict[tuple, Formula],
    settled: dict[tuple, Formula],
    squares: dict[tuple, Formula],
    atoms: Atoms,
) -> dict[tuple, Formula] | None:
    """The squares that are left if terms are convex together with others, or ``None``.

    Args:
      doubts: monomials with their coefficients, all of which must be used.
      settled: those that are convex by themselves, and may be used.
      squares: products of logits, which may be used.
      atoms: of the proof.
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
                    return None  # the one that the variable is of
        factor = _multiple_of_square(squares, variable, atoms)
        if factor is not None:
            parts.append(_polynomial((Fraction(0), Fraction(0), factor)))
            squares = {}
        whole = parts[0]
        for part in parts[1:]:
            whole = _combined(whole, part, _plus)
            if whole is None:
                return None
        if not _is_convex(whole):
            return None
    return squares


def _is_convex(a: Pieces) -> bool:
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
    """Of polynomials of degree at most 1, and of sums of even powers; else ``False``."""
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


def _variable(monomial: tuple) -> Formula | None:
    """The first argument that is affine in the logits, without its constant."""
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


def _multiple_of_square(squares: dict, variable: Formula, atoms: Atoms) -> Fraction | None:
    """c if the squares are those of ``c t²``, which differs from them by an affine function."""
    of_variable = {
        m: c
        for m, c in atoms.times(variable, variable).terms.items()
        if sum(power for x, power in m if not x.of_label) == 2
    }
    if not squares or set(of_variable) != set(squares):
        return None
    factors = {None if c.number is None else c.number / of_variable[m] for m, c in squares.items()}
    return factors.pop() if len(factors) == 1 else None


def _pieces_of_term(monomial: tuple, coefficient: Formula, variable, atoms) -> Pieces | None:
    if coefficient.number is None:
        return None
    return _pieces(Formula({monomial: coefficient.number}), variable, atoms)


def _pieces(a: Formula, variable: Formula, atoms: Atoms) -> Pieces | None:
    """A formula as a function of t, or ``None`` if it is none in pieces."""
    rational = {m: c for m, c in a.terms.items() if not _has_functions(m)}
    found = _as_polynomial(Formula(rational), variable, atoms)
    if found is None:
        return None
    result = _polynomial(found)
    for monomial, value in a.terms.items():
        if monomial in rational:
            continue
        product = _polynomial((value,))
        for atom, power in monomial:
            factor = _function(atom, variable, atoms)
            for _ in range(power):
                if factor is None or product is None:
                    return None
                product = _combined(product, factor, _times)
        result = None if product is None else _combined(result, product, _plus)
        if result is None:
            return None
    return result


def _has_functions(monomial: tuple) -> bool:
    return any(not x.of_label and x.kind != "logit" for x, _ in monomial)


def _as_polynomial(a: Formula, variable: Formula, atoms: Atoms) -> Polynomial | None:
    """The coefficients of ``Σ c_i t^i``, of degree at most two."""
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
        return None if inside is None else _absolute(inside)
    if atom.kind == "power":
        a, exponent = atom.args
        inside = _pieces(a, variable, atoms)
        if inside is None or exponent.denominator != 1 or not 0 < exponent <= _HIGHEST_DEGREE:
            return None
        result = inside
        for _ in range(int(exponent) - 1):
            result = None if result is None else _combined(result, inside, _times)
        return result
    if atom.kind == "max":
        return _largest([_pieces(a, variable, atoms) for a in atom.args])
    if atom.kind == "product":
        factors = [_pieces(a, variable, atoms) for a in atom.args]
        return None if None in factors else _combined(*factors, _times)
    if atom.kind == "select":
        return _selected(*atom.args, variable, atoms)
    return None


def _largest(rows: list[Pieces | None]) -> Pieces | None:
    """``max(a, b) = (a + b + |a - b|) / 2``, of two; JAX's slopes at ties are the same ones."""
    if len(rows) != 2 or None in rows:
        return None
    a, b = rows
    difference = _combined(a, _scaled(b, Fraction(-1)), _plus)
    distance = None if difference is None else _absolute(difference)
    both = _combined(a, b, _plus)
    if distance is None or both is None:
        return None
    found = _combined(both, distance, _plus)
    return None if found is None else _scaled(found, Fraction(1, 2))


def _absolute(a: Pieces) -> Pieces | None:
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


def _selected(test: Atom, yes: Formula, no: Formula, variable, atoms) -> Pieces | None:
    """``yes`` where a formula is positive, else ``no``."""
    if test.args[0] != ">":
        return None
    inside = _pieces(test.args[1], variable, atoms)
    branches = [_pieces(x, variable, atoms) for x in (yes, no)]
    signs = None if inside is None else _signs(inside)
    if signs is None or None in branches:
        return None
    split, pieces = signs
    yes, no = branches
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


def _signs(a: Pieces) -> tuple[Pieces, list[int]] | None:
    """It with breaks at its roots, and its sign in every piece."""
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
    """The sign in every piece, none of which has a root inside."""
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
    """All real roots, or ``None`` where they may not be rational; of zero, none."""
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


def _polynomial(p: Polynomial) -> Pieces:
    return Pieces((), (p,), ())


def _scaled(a: Pieces, factor: Fraction) -> Pieces:
    return a._replace(polynomials=tuple(tuple(factor * c for c in p) for p in a.polynomials))


def _refined(a: Pieces, breaks: tuple[Fraction, ...]) -> Pieces:
    """With more breaks."""
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


def _combined(a: Pieces, b: Pieces, operation) -> Pieces | None:
    breaks = tuple(sorted({*a.breaks, *b.breaks}))
    a, b = _refined(a, breaks), _refined(b, breaks)
    polynomials = tuple(operation(p, q) for p, q in zip(a.polynomials, b.polynomials, strict=True))
    if len(breaks) > _MOST_PIECES or max(map(len, polynomials)) > _HIGHEST_DEGREE + 1:
        return None
    kinks = tuple(x | y for x, y in zip(a.kinks, b.kinks, strict=True))
    return Pieces(breaks, polynomials, kinks)


def _plus(p: Polynomial, q: Polynomial) -> Polynomial:
    return tuple(x + y for x, y in itertools.zip_longest(p, q, fillvalue=Fraction(0)))


def _times(p: Polynomial, q: Polynomial) -> Polynomial:
    result = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, x in enumerate(p):
        for j, y in enumerate(q):
            result[i + j] += x * y
    return tuple(trimmed(result))
