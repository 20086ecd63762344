"""Truncated Newton for sparse features and one logit, with the kernels of SciPy on a CPU.

The kernel of JAX for sparse products works on vectors of eight columns, of which one logit uses
one: for data of 70 000 to 1.5 million numbers SciPy takes a fifth of its time. So this solver runs
on the host, in float64. The loss alone is compiled: its values, slopes and curvatures of all rows
come from one call. A step solves ``∇²F d = -∇F`` by conjugate gradients with the diagonal of the
Hessian as metric, or with the Hessian of some rows at an earlier point where that is cheap to form,
and searches along d.

Source: Nocedal and Wright, Numerical Optimization (2006), section 7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.preconditioner import kind_of_sparse
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.programs import programs_by_shape
from jaxclf.solvers.oracle import Point
from jaxclf.solvers.result import Iteration, Outcome, Stop
from jaxclf.sparse_rows import to_csr, transposed_csr

MOST_NUMBERS = 2**23
"""The most numbers for which this solver runs: its copies in float64 take 24 bytes a number."""
_ACCURACY = 0.2
"""The accuracy of each solve, in the norm of the metric."""
_MOST_PRODUCTS = 200
_GRAM_ROWS, _FEWEST_ROWS = 32, 1500
"""Rows for each feature, and at least, that this Hessian is made of."""
_DENSE_NUMBERS = 2**21
"""The numbers of a block of rows that is made dense for it."""
_MANY = 4
"""After a solve of more products than this the Hessian is formed anew."""
_RIDGES = (1e-5, 1e-3, 1e-1)
"""The shares of its diagonal that the Hessian gets as a ridge, until it has a factor."""
_ENOUGH = 1e-4
"""The share of the slope by which a step must lower the objective."""
_SHORTEST = 1e-6
_LEFT, _LONGEST = 0.2, 4.0
"""Where a step of length one leaves more than this share of the slope, a longer one is tried, at
most so long: far from the minimum the curvature of a log loss falls along the step."""
_MARGIN = 0.5
"""The share of the tolerance to which the bound by the gradient is brought."""


@np.errstate(over="ignore", invalid="ignore")  # a step that is no number is handed over
def newton_on_host(
    loss: Callable, rows: Rows, l2, start: Affine, *, stop: Stop
) -> tuple[Outcome, bool]:
    """Minimises the mean loss plus ``l2/2 ‖w‖²`` of one logit, with 64-bit mode on.

    Args:
      loss: a loss that takes ``(1,)`` logits, convex and twice differentiable.
      rows: sparse rows on a CPU, whose weights sum to one.
      l2: the strength λ > 0, one for all weights or ``(1, d)``.
      start: parameters in the dtype of the outcome.
      stop: the end. At the last point ``‖∇F‖² / (2 λ)`` is at most half of ``tol``.

    Returns:
      The outcome, and whether it is final. Where there is no curvature, or no step is good, another
      solver has to go on from its point.
    """
    run = risk_of_logits(loss, like=rows.labels)
    narrow = to_csr(rows.features)
    matrix, transposed = map(_wide, (narrow, transposed_csr(rows.features)))
    weights, (n, d) = np.asarray(rows.weights, np.float64), matrix.shape
    ridge = np.broadcast_to(np.ravel(np.asarray(l2, np.float64)), d)
    strengths = np.append(ridge, ridge.min()) if start.intercept is not None else ridge
    intercept, dtype = start.intercept is not None, start.weights.dtype

    def logits(v):
        z = matrix @ v[:d]
        return z + v[d] if intercept else z

    def back(r, v):
        g = transposed @ r + ridge * v[:d]
        return np.append(g, r.sum()) if intercept else g

    def objective(v, z):
        risk, slopes, curvature = map(np.asarray, run(z, rows.labels, weights))
        return float(risk) + 0.5 * float(ridge @ v[:d] ** 2), slopes, curvature

    def point(v, value) -> Point:
        w, b = v[None, :d].astype(dtype), v[d:].astype(dtype) if intercept else None
        return Point(Affine(w, b), value)

    v = np.concatenate([x.ravel() for x in jax.tree.leaves(start)]).astype(np.float64)
    z = logits(v)
    value, slopes, curvature = objective(v, z)
    iteration = Iteration(point(v, value), stop)
    by_columns = kind_of_sparse((n, d), matrix.nnz, 1) == "columns"
    squares = None if by_columns else _of_data(transposed, transposed.data**2)
    metric, count = None, 0
    while True:
        g = back(slopes, v)
        iteration.passes += 1
        reached = np.sum(g**2 / strengths) / 2 <= _MARGIN * stop.tol
        if status := iteration.arrive(point(v, value), np.abs(g).max(), reached=reached):
            return iteration.end(status), True
        if not by_columns:
            metric = _diagonal_metric(squares, curvature, ridge, intercept)
        elif metric is None or count > _MANY:
            metric = _gram_metric(narrow, curvature, ridge, intercept)

        def product(p, c=curvature):
            return back(c * logits(p), p)

        direction, count = _conjugate_gradients(product, metric, -g)
        iteration.passes += count
        slope = float(g @ direction)
        hidden = -slope <= np.finfo(np.float64).eps * abs(value)
        if not slope < 0 or hidden:
            return iteration.end("precision_floor"), False
        dz, length = logits(direction), 1.0
        while True:
            near = v + length * direction
            found = objective(near, z + length * dz)
            if found[0] <= value + _ENOUGH * length * slope or length < _SHORTEST:
                break
            length /= 2
        if length < _SHORTEST:
            return iteration.end("precision_floor"), False
        rise = float(found[1] @ dz + (ridge * near[:d]) @ direction[:d])
        if length == 1 and rise < _LEFT * slope:
            longer = min(slope / (slope - rise), _LONGEST)
            beyond = v + longer * direction
            further = objective(beyond, z + longer * dz)
            if further[0] < found[0]:
                near, length, found = beyond, longer, further
        v, z, (value, slopes, curvature) = near, z + length * dz, found


def _wide(matrix: Any) -> Any:
    """The matrix in float64, with the places of the given one."""
    return _of_data(matrix, matrix.data.astype(np.float64))


def _of_data(matrix: Any, data: np.ndarray) -> Any:
    return type(matrix)((data, matrix.indices, matrix.indptr), shape=matrix.shape)


@programs_by_shape
def risk_of_logits(loss: Callable) -> Callable:
    """``(z (n,), labels, weights) -> (risk, slopes, curvatures)`` of a loss of one logit: the mean
    loss, and the weighted first and second derivatives of each row."""

    @jax.jit
    def of_rows(z, labels, weights):
        z = z[:, None]
        values, slopes = lp.losses_and_slopes(loss, z, labels)
        curvature = lp.curvatures(loss, z, labels)
        return jnp.sum(weights * values), weights * slopes[:, 0], weights * curvature[:, 0]

    return of_rows


def _conjugate_gradients(product: Callable, metric: Callable, b) -> tuple[np.ndarray, int]:
    """A rough solution of ``H d = b``, and the number of products; zero without curvature."""
    d, r = np.zeros_like(b), b.copy()
    z = metric(r)
    p, rz = z, float(r @ z)
    limit, count = _ACCURACY**2 * rz, 0
    while count < _MOST_PRODUCTS and rz > limit:
        q = product(p)
        count += 1
        along = float(p @ q)
        if not along > 0:
            break
        d += (rz / along) * p
        r -= (rz / along) * q
        z = metric(r)
        rz, before = float(r @ z), rz
        p = z + (rz / before) * p
    return d, count


def _diagonal_metric(squares, curvature, ridge, intercept: bool) -> Callable:
    diagonal = squares @ curvature + ridge
    if intercept:
        diagonal = np.append(diagonal, max(curvature.sum(), diagonal.min()))
    return lambda r: r / diagonal


def _gram_metric(matrix, curvature, ridge, intercept: bool) -> Callable:
    """The inverse of the Hessian at one point, made of some rows."""
    from scipy.linalg import cho_factor, cho_solve

    n, d = matrix.shape
    places = np.arange(0, n, max(1, n // max(_GRAM_ROWS * d, _FEWEST_ROWS)))
    used = (curvature[places] * (n / len(places))).astype(matrix.dtype)
    gram = np.diag(np.append(ridge, 0.0) if intercept else ridge)
    size = max(1, _DENSE_NUMBERS // d)
    for first in range(0, len(places), size):
        block = matrix[places[first : first + size]].toarray()
        block = np.c_[block, np.ones(len(block), block.dtype)] if intercept else block
        gram += (block * used[first : first + size, None]).T @ block
    diagonal = np.maximum(np.diag(gram), _RIDGES[0] * np.mean(np.diag(gram)))
    for more in _RIDGES:
        with suppress(np.linalg.LinAlgError):
            factor = cho_factor(gram + np.diag(more * diagonal), lower=True)
            return lambda r: cho_solve(factor, r, check_finite=False)
    return lambda r: r / diagonal
