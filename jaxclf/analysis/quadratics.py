"""Decides exactly whether quadratic formulas are convex, and whether they are sums of squares.

Source: Golub and Van Loan, Matrix Computations (2013), section 4.2: elimination without pivoting
ends with no negative pivot exactly where a symmetric matrix is positive semidefinite, if a row
whose pivot is zero is zero.
"""

from __future__ import annotations

from fractions import Fraction

from jaxclf.analysis.formulas import Formula, is_polynomial

_MOST_STEPS = 8_000
"""The most steps of an elimination in rational numbers. They are enough for dense matrices of 28
rows, which take about 0.3 s."""

Matrix = dict[object, dict[object, Fraction]]


def is_positive_semidefinite(rows: Matrix) -> bool:
    """Whether a sparse symmetric matrix is positive semidefinite.

    The result is ``False`` too if the elimination takes too long.
    """
    rows = {i: {j: x for j, x in row.items() if x} for i, row in rows.items()}
    steps = 0
    while rows:
        i = min(rows, key=lambda key: len(rows[key]))  # fills in the least
        row = rows.pop(i)
        pivot = row.pop(i, Fraction(0))
        if pivot < 0 or (pivot == 0 and row):
            return False
        for j, x in row.items():
            rows[j].pop(i, None)
            for k, y in row.items():
                rows[j][k] = rows[j].get(k, Fraction(0)) - x * y / pivot
                if not rows[j][k]:
                    del rows[j][k]
        steps += len(row) ** 2 + len(rows)
        if steps > _MOST_STEPS:
            return False
    return True


def matrix(quadratic: dict[tuple, Fraction]) -> Matrix | None:
    """The matrix of ``Σ c x y``, from monomials of degree two; ``()`` is a variable that is 1."""
    rows: Matrix = {}
    for monomial, value in quadratic.items():
        factors = [atom for atom, power in monomial for _ in range(power)]
        if len(factors) > 2:
            return None
        i, j = [*factors, *[()] * (2 - len(factors))]
        for key in (i, j):
            rows.setdefault(key, {})
        if i == j:
            rows[i][i] = rows[i].get(i, Fraction(0)) + value
        else:
            rows[i][j] = rows[j][i] = value / 2
    return rows


def is_sum_of_squares(a: Formula) -> bool:
    """Whether a formula is ``‖A x + b‖² + c²``, where x is the logits and the label's numbers."""
    if not is_polynomial(a):
        return False
    # An indicator is its own square.
    terms = {
        ((m[0][0], 2),) if len(m) == 1 and m[0][0].kind == "test" else m: c
        for m, c in a.terms.items()
    }
    rows = matrix(terms)
    return rows is not None and is_positive_semidefinite(rows)
