"""Linear models in 80-bit floats and in 50 digits, written from the formulas, to judge bounds by.

Columns are centred at numbers that are exact, and the intercept is moved with them by rational
arithmetic, so that features far from zero cost no digits.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import mpmath
import numpy as np
import scipy.linalg

WIDE = np.longdouble


class Problem(NamedTuple):
    """``Σ ωᵢ ℓ(W xᵢ + b + oᵢ, yᵢ) + l1 ‖W‖₁ + l2/2 ‖W‖² + Σ_g v_g ‖W[:, J_g]‖`` of the numbers
    that were given.

    The strengths are those of all weights, ``(d,)`` or ``(K, d)``, and so are the bounds.
    """

    features: np.ndarray
    """The features less their centres, ``(n, d)`` in 80 bits."""
    centre: np.ndarray
    targets: np.ndarray
    """The targets, ``(n, K)``."""
    weights: np.ndarray
    """The weights ω, ``(n,)``."""
    loss: Callable
    """``(logits (n, K), targets) -> values (n,), slopes (n, K), a function that gives the
    curvatures (n, K, K)``. A line search needs no curvatures, and float64 is enough for them."""
    l1: Any
    l2: Any
    intercept: bool
    offset: Any = 0.0
    """The offset, ``(n, K)``, or 0."""
    lower: Any = -np.inf
    upper: Any = np.inf
    groups: Any = ()
    """Pairs of the columns J_g of a group and its strength v_g."""


class Point(NamedTuple):
    """W and the intercept of the centred columns."""

    weights: np.ndarray
    intercept: np.ndarray


def make_problem(
    features, targets, weights, loss, l1, l2, *, intercept: bool, offset=None,
    bounds=(-np.inf, np.inf), groups=(),
) -> Problem:  # fmt: skip
    """A problem in 80 bits from arrays as they are in memory."""
    x = np.asarray(features).astype(WIDE)
    centre = np.median(np.asarray(features, np.float64), 0) * intercept
    centre = centre.astype(np.asarray(features).dtype).astype(WIDE)
    weights = np.asarray(weights, np.float64).astype(WIDE)
    targets = np.asarray(targets).astype(WIDE).reshape(len(x), -1)
    # The library gets the strengths in float64.
    l1, l2 = (np.asarray(strength, np.float64).astype(WIDE) for strength in (l1, l2))
    # A column of zeros with a penalty stands for one that is fixed at zero.
    fixed = np.isinf(l2)
    x = np.where(fixed.all(0) if fixed.ndim == 2 else fixed, centre, x)
    l1, l2 = (np.where(fixed, WIDE(1), strength) for strength in (l1, l2))
    offset = 0.0 if offset is None else np.asarray(offset).astype(WIDE).reshape(len(x), -1)
    shares = weights / weights.sum()
    bounds = (np.asarray(bound, np.float64).astype(WIDE) for bound in bounds)
    return Problem(
        x - centre, centre, targets, shares, loss, l1, l2, intercept, offset, *bounds, groups
    )


def point_of(problem: Problem, weights, intercept) -> Point:
    """The parameters in the problem's coordinates."""
    w = np.atleast_2d(np.asarray(weights, np.float64))
    if intercept is None:
        return Point(w.astype(WIDE), np.zeros(len(w), WIDE))
    b = np.atleast_1d(np.asarray(intercept, np.float64))
    centre = [Fraction(float(m)) for m in problem.centre]
    totals = []
    for row, start in zip(w, b, strict=True):
        products = (Fraction(float(x)) * m for x, m in zip(row, centre, strict=True) if m)
        totals.append(Fraction(float(start)) + sum(products, Fraction(0)))
    # A softmax ignores what all logits have in common, which may cost 80 bits their digits.
    common = sum(totals) / len(totals) if problem.loss is softmax else Fraction(0)
    moved = []
    for total in totals:
        high = float(total - common)
        moved.append(WIDE(high) + WIDE(float(total - common - Fraction(high))))
    return Point(w.astype(WIDE), np.array(moved, WIDE))


def value_of(problem: Problem, v: Point) -> WIDE:
    """The objective at a point."""
    w = v.weights
    penalty = (problem.l1 * np.abs(w)).sum() + (problem.l2 * (w * w)).sum() / 2
    penalty += sum(v * np.sqrt((w[:, columns] ** 2).sum()) for columns, v in problem.groups)
    z = problem.features @ w.T + v.intercept + problem.offset
    return (problem.weights * problem.loss(z, problem.targets)[0]).sum() + penalty


def rounding_of(problem: Problem, v: Point, params, eps: float, *, cancels: bool = False) -> float:
    """The effect that relative changes by ``eps`` of the logits' terms may have on the objective.

    Where logits cancel in the formula of the loss, the effect of such changes of the logits counts.
    """
    z = problem.features @ v.weights.T + v.intercept + problem.offset
    values, slopes, _ = problem.loss(z, problem.targets)
    w, b = (np.abs(np.asarray(0.0 if x is None else x, np.float64)) for x in params)
    terms = np.abs(problem.features + problem.centre) @ np.atleast_2d(w).T + np.atleast_1d(b)
    terms = terms + np.abs(problem.offset)
    moved = (problem.weights[:, None] * np.abs(slopes) * terms).sum()
    if cancels:
        moved += (problem.weights[:, None] * np.abs(z)).sum()
    return float(eps * (moved + (problem.weights * np.abs(values)).sum()))


def minimise(problem: Problem, starts: list[Point], *, steps: int = 100) -> Point:
    """The best point of Newton's method from several starts, to the last digits of 80 bits.

    A start beyond a bound is moved to it.
    """
    starts = [v._replace(weights=np.clip(v.weights, problem.lower, problem.upper)) for v in starts]
    found = [_newton(problem, start, steps) for start in starts]
    return min(found, key=lambda v: value_of(problem, v))


def _newton(problem: Problem, v: Point, steps: int) -> Point:
    n, d = problem.features.shape
    num_logits = len(v.weights)
    scale = np.sqrt((problem.weights[:, None] * problem.features**2).sum(0))
    scale = np.where(scale > 0, scale, 1)
    x = np.concatenate([problem.features / scale, np.full((n, 1), WIDE(problem.intercept))], 1)
    u = np.concatenate([v.weights * scale, v.intercept[:, None]], 1)
    l1, l2 = (
        np.pad(np.broadcast_to(strength, (num_logits, d)), ((0, 0), (0, 1)))
        for strength in (problem.l1 / scale, problem.l2 / scale**2)
    )
    lower, upper = (
        np.pad(np.broadcast_to(end * scale, (num_logits, d)), ((0, 0), (0, 1)), constant_values=x)
        for end, x in ((problem.lower, -np.inf), (problem.upper, np.inf))
    )

    def value(u):
        values = problem.loss(x @ u.T + problem.offset, problem.targets)[0]
        return (problem.weights * values).sum() + (l1 * np.abs(u) + l2 * u * u / 2).sum()

    best = value(u)
    for _ in range(steps):
        _, slopes, curvatures = problem.loss(x @ u.T + problem.offset, problem.targets)
        g = (problem.weights[:, None] * slopes).T @ x + l2 * u
        hessian = np.einsum(
            "n,nkl,na,nb->kalb", *(a.astype(float) for a in (problem.weights, curvatures(), x, x)),
            optimize=True,
        ).reshape(u.size, u.size)  # fmt: skip
        hessian += np.diag(l2.ravel().astype(float))
        ends = lower.ravel(), upper.ravel()
        d = _direction(hessian, g.ravel(), u.ravel(), l1.ravel(), *ends).reshape(u.shape)
        length, moved = WIDE(1), False
        while length > 1e-12 and not moved:
            there = value(np.clip(u + length * d, lower, upper))
            moved = there < best
            length = length if moved else length / 2
        if not moved:
            break
        small = best - there <= WIDE(1e-19) * abs(best)
        u, best = np.clip(u + length * d, lower, upper), there
        if small:
            break
    weights = np.clip(u[:, :-1] / scale, problem.lower, problem.upper)
    return Point(weights, u[:, -1] * problem.intercept)


def _direction(hessian, g, u, l1, lower, upper):
    """The direction to the minimum of quadratic and L1 penalty within the bounds; only the gradient
    is exact."""
    ridge = 1e-14 * np.trace(hessian) / len(hessian)
    matrix = hessian + (ridge + 1e-300) * np.eye(len(hessian))
    free = np.isinf(lower).all() and np.isinf(upper).all()
    if free and not l1.any():
        # NumPy's driver fails on some matrices whose eigenvalues repeat hundreds of times.
        values, vectors = scipy.linalg.eigh(matrix, driver="ev")
        inverse = 1 / np.maximum(values, 1e-15 * values[-1] + 1e-300)
        return -(vectors * inverse) @ (vectors.T @ g)
    # A direction need not be exact: coordinate descent in float64, over the weights that may move.
    start, r = u.astype(float), g.astype(float)
    new, strengths, diagonal = start.copy(), l1.astype(float), np.diagonal(matrix)
    least, most = lower.astype(float), upper.astype(float)
    for _ in range(300):
        furthest = 0.0
        for i in np.flatnonzero((new != 0) | (np.abs(r) > strengths) | (least > 0) | (most < 0)):
            target = new[i] - r[i] / diagonal[i]
            shrunk = np.sign(target) * max(abs(target) - strengths[i] / diagonal[i], 0.0)
            shrunk = min(max(shrunk, least[i]), most[i])
            change = shrunk - new[i]
            if change:
                r += change * matrix[i]
                new[i] = shrunk
                furthest = max(furthest, abs(change))
        if furthest <= max(1e-8 * np.abs(new - start).max(), 1e-16 * np.abs(new).max()):
            break
    return new - u


def softplus(z):
    """``log(1 + exp z)``."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def bernoulli(z, t):
    """Independent log losses, summed over the logits."""
    p, q = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))
    values = ((1 - t) * softplus(z) + t * softplus(-z)).sum(1)
    return values, (1 - t) * p - t * q, lambda: _diagonal(p * q)


def softmax(z, t):
    """Cross-entropy of targets ``(n, K)``."""
    top = z.max(1, keepdims=True)
    log_p = z - top - np.log(np.exp(z - top).sum(1, keepdims=True))
    p, total = np.exp(log_p), t.sum(1, keepdims=True)

    def curvatures():
        q = p.astype(float)
        return total[..., None].astype(float) * (_diagonal(q) - q[:, :, None] * q[:, None])

    return -(t * log_p).sum(1), total * p - t, curvatures


def squared(z, t):
    """Squared errors, summed over the logits."""
    return ((z - t) ** 2).sum(1), 2 * (z - t), lambda: _diagonal(2 * np.ones_like(z))


def squared_hinge(z, t):
    """``max(0, 1 - t z)²``."""
    left = np.maximum(0, 1 - t * z)
    return (left**2).sum(1), -2 * t * left, lambda: _diagonal(2.0 * (left > 0))


def huber(z, t):
    """``r²/2`` of a residual r, and ``|r| - ½`` where r is larger than one."""
    r = z - t
    inside = np.abs(r) < 1
    values = np.where(inside, r * r / 2, np.abs(r) - WIDE(0.5))
    return values.sum(1), np.clip(r, -1, 1), lambda: _diagonal(1.0 * inside)


def logistic_margin(z, t):
    """``log(1 + exp(-t z))``."""
    return bernoulli(z, (t + 1) / 2)


def _diagonal(x):
    return x[:, :, None] * np.eye(x.shape[1])[None]


def exactly(problem: Problem, v: Point) -> mpmath.mpf:
    """The objective of a log loss with 50 digits."""
    with mpmath.workdps(50):
        number = lambda x: mpmath.mpf(float(x)) + mpmath.mpf(float(x - WIDE(float(x))))  # noqa: E731
        w = [[number(x) for x in row] for row in v.weights]
        b = [number(x) for x in v.intercept]
        total = mpmath.mpf(0)
        offsets = problem.offset + np.zeros((len(problem.features), len(w)), WIDE)
        columns = problem.features, offsets, problem.targets, problem.weights
        for x, o, t, weight in zip(*columns, strict=True):
            x, o = ([number(value) for value in values] for values in (x, o))
            z = [mpmath.fdot(row, x) + c + e for row, c, e in zip(w, b, o, strict=True)]
            t = [number(value) for value in t]
            if problem.loss is softmax:
                top = mpmath.log(mpmath.fsum(mpmath.exp(value) for value in z))
                loss = mpmath.fsum(a * (top - c) for a, c in zip(t, z, strict=True))
            else:
                loss = mpmath.fsum(
                    (1 - a) * mpmath.log1p(mpmath.exp(c)) + a * mpmath.log1p(mpmath.exp(-c))
                    for a, c in zip(t, z, strict=True)
                )
            total += number(weight) * loss
        flat = [x for row in w for x in row]
        l1, l2 = (
            [number(x) for x in np.broadcast_to(strength, v.weights.shape).ravel()]
            for strength in (problem.l1, problem.l2)
        )
        total += mpmath.fdot(l2, [x * x for x in flat]) / 2
        for columns, strength in problem.groups:
            squares = (row[j] ** 2 for row in w for j in columns)
            total += number(strength) * mpmath.sqrt(mpmath.fsum(squares))
        return total + mpmath.fdot(l1, map(abs, flat))
