"""The minimum of a linear model with a group lasso in 80-bit floats, to judge bounds by.

On the weights that are not zero the objective is smooth, so that Newton's method finds its minimum
there. Groups and weights enter where the gradient says that the objective falls, and leave where it
is lower without them.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from experiments.benchmarks.exact import WIDE, Point, Problem, value_of

_LAST = WIDE(1e-18)
"""A share of the objective by which rounding in 80 bits may be off."""


def minimise(problem: Problem, starts: list[Point], *, steps: int = 40) -> Point:
    """The best point from several starts."""
    found = [_descend(problem, start, steps) for start in starts]
    return min(found, key=lambda v: value_of(problem, v))


def _descend(problem: Problem, v: Point, steps: int) -> Point:
    for _ in range(steps):
        before = value_of(problem, v)
        for move in (_enter, _newton, _leave):
            v = move(problem, v)
        if before - value_of(problem, v) <= _LAST * abs(before):
            break
    return v


def _lower(problem: Problem, v: Point, direction: Point, *, halvings: int = 40) -> Point:
    """The first point along a direction, halved as often as needed, that is lower."""
    best, length = value_of(problem, v), WIDE(1)
    for _ in range(halvings):
        there = _moved(v, direction, length)
        # A weight that the L1 penalty sees does not change its sign in one step.
        crosses = (problem.l1 > 0) & (there.weights * v.weights < 0)
        there = there._replace(weights=np.where(crosses, WIDE(0), there.weights))
        if value_of(problem, there) < best:
            return there
        length = length / 2
    return v


def _moved(v: Point, direction: Point, length) -> Point:
    return Point(*(start + length * part for start, part in zip(v, direction, strict=True)))


def _gradient(problem: Problem, v: Point) -> Point:
    """The gradient without L1 and groups."""
    z = problem.features @ v.weights.T + v.intercept + problem.offset
    slopes = problem.weights[:, None] * problem.loss(z, problem.targets)[1]
    return Point(slopes.T @ problem.features + problem.l2 * v.weights, slopes.sum(0))


def _hessian(problem: Problem, v: Point) -> np.ndarray:
    """The Hessian without L1 and groups in float64, each logit's intercept last."""
    x = np.c_[problem.features, np.ones(len(problem.features))].astype(float)
    z = problem.features @ v.weights.T + v.intercept + problem.offset
    curvatures = problem.loss(z, problem.targets)[2]().astype(float)
    curvatures *= problem.weights.astype(float)[:, None, None]
    found = np.einsum("nkl,na,nb->kalb", curvatures, x, x, optimize=True)
    l2 = np.append(np.broadcast_to(problem.l2, v.weights.shape[1:]), 0).astype(float)
    return found.reshape(2 * (len(l2) * len(v.weights),)) + np.diag(np.tile(l2, len(v.weights)))


def _enter(problem: Problem, v: Point) -> Point:
    """Each group, and each weight of a group, that lowers the objective takes a step from zero."""
    for columns, strength in problem.groups:
        g, w = _gradient(problem, v).weights[:, columns], v.weights[:, columns]
        fall = -np.sign(g) * np.maximum(np.abs(g) - problem.l1, 0) * (w == 0)
        length = np.sqrt((fall**2).sum())
        left = length if w.any() else length - strength
        if left > 0:
            there = Point(np.zeros_like(v.weights), np.zeros_like(v.intercept))
            there.weights[:, columns] = fall / length
            # The step goes to the minimum of the quadratic along it.
            near = _gradient(problem, _moved(v, there, WIDE(1e-6)))
            bend = ((near.weights[:, columns] - g) * there.weights[:, columns]).sum() / WIDE(1e-6)
            there.weights[:] *= left / max(bend, WIDE(1e-300))
            v = _lower(problem, v, there, halvings=120)
    return v


def _newton(problem: Problem, v: Point) -> Point:
    """A step of Newton's method of the weights that are not zero."""
    hessian, gradient = _hessian(problem, v), _gradient(problem, v)
    g = np.c_[gradient.weights + problem.l1 * np.sign(v.weights), gradient.intercept]
    places = np.arange(g.size).reshape(g.shape)
    for columns, strength in problem.groups:
        w = v.weights[:, columns]
        if (norm := np.sqrt((w**2).sum())) > 0:
            g[:, columns] += strength * w / norm
            at, unit = places[:, columns].ravel(), (w / norm).ravel().astype(float)
            curved = np.eye(len(at)) - np.outer(unit, unit)
            hessian[np.ix_(at, at)] += float(strength / norm) * curved
    moves = np.c_[v.weights != 0, np.full(len(g), problem.intercept)].ravel()
    matrix, free = hessian[np.ix_(moves, moves)], g.ravel()[moves]
    scale = np.sqrt(np.maximum(np.diagonal(matrix), 1e-300))
    matrix = matrix / scale / scale[:, None] + 1e-13 * np.eye(len(matrix))
    step = np.zeros(g.size, WIDE)
    step[moves] = -scipy.linalg.solve(matrix, free / scale, assume_a="sym") / scale
    step = step.reshape(g.shape)
    return _lower(problem, v, Point(step[:, :-1], step[:, -1]))


def _leave(problem: Problem, v: Point) -> Point:
    """Each group, and each weight that an L1 penalty sees, becomes zero where that is lower."""
    parts = [(slice(None), columns) for columns, _ in problem.groups]
    if problem.l1 > 0:
        parts += [(k, j) for k, j in zip(*np.nonzero(v.weights), strict=True)]
    for part in parts:
        without = v._replace(weights=v.weights.copy())
        without.weights[part] = 0
        if v.weights[part].any() and value_of(problem, without) < value_of(problem, v):
            v = without
    return v
