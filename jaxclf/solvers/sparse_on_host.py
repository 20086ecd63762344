"""The parts of a step of proximal Newton for sparse features and one logit, by SciPy on a CPU.

The kernels of JAX for sparse products work on vectors of columns, of which one logit uses one, and
fill dense blocks for a Hessian. SciPy's go over the numbers that are stored. So everything that
reads rows runs on the host, in float64. The loss alone is compiled: its values, slopes and
curvatures of all rows come from one call.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.coordinate_descent import Minimum, Quadratic
from jaxclf.linear_algebra.problem import Affine
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.solvers.newton_on_host import risk_of_logits
from jaxclf.solvers.oracle import Point
from jaxclf.solvers.proximal_newton import Pieces, Slope
from jaxclf.solvers.steps import SHARE_OF_PROMISE, SHORTEST
from jaxclf.sparse_rows import to_csr, transposed_csr

_DENSE = 0.1
"""The share of numbers other than zero from which a product of dense columns takes less time."""


def pieces_on_host(oracle: LinearOracle, l1: Any, lower_bound: float) -> Pieces:
    """The pieces for sparse rows on a CPU, in float64; see :class:`~jaxclf.solvers.proximal_newton.
    Pieces`."""
    rows, run = oracle.rows, risk_of_logits(oracle.loss, like=oracle.rows.labels)
    features: Any = rows.features
    matrix, transposed = to_csr(features), transposed_csr(features)
    for part in (matrix, transposed):
        part.data = part.data.astype(np.float64)
    d, weights = matrix.shape[1], np.asarray(rows.weights, np.float64)
    l1, l2 = (np.broadcast_to(np.asarray(x, np.float64), (1, d)) for x in (l1, oracle.l2))

    def at(v: Affine, z) -> Point:
        risk, slopes, curvature = map(np.asarray, run(z, rows.labels, weights))
        value = float(risk) + float(lp.penalty_terms(v.weights, l1, l2).sum())
        return Point(v, value, kept=(z, float(risk), slopes, curvature))

    def start(v: Affine) -> Point:
        v = jax.tree.map(lambda x: np.asarray(x, np.float64), v)
        z = matrix @ v.weights[0]
        return at(v, z if v.intercept is None else z + v.intercept)

    def slope(point: Point) -> Slope:
        v, (_, risk, slopes, _) = point.params, point.kept
        w, bare = v.weights, (transposed @ slopes)[None]
        smooth, used = bare + l2 * w, w != 0
        steepness = np.where(used, abs(smooth + l1 * np.sign(w)), np.maximum(abs(smooth) - l1, 0))
        largest, total = float(steepness.max()), None
        if v.intercept is not None:
            total = slopes.sum(keepdims=True)
            largest = max(largest, abs(float(total[0])))
        wanted = int(np.count_nonzero(used | (steepness > 0)))
        gap = _gap(w, bare, risk, l1, l2, lower_bound)
        counts = int(used.sum()), wanted
        return Slope(Affine(smooth, total), steepness, largest, used, *counts, gap)

    def model(sample: LinearOracle, point: Point, slope: Slope, size: int):
        """The model of the weights that are used or want to move; rows without any fill it up."""
        v, (*_, curvature) = point.params, point.kept
        ahead = 1 + slope.largest if slope.most_used < size else 0.0
        order = slope.steepness[0] + ahead * slope.used[0]
        columns = np.flatnonzero(order)
        if len(columns) > size:
            columns = columns[np.argpartition(-order[columns], size - 1)[:size]]
        part, many = transposed[columns], len(columns)
        intercept = () if v.intercept is None else (size,)
        places = np.append(np.arange(many), intercept).astype(int)

        def over_set(x, of_intercept, filling: float) -> np.ndarray:
            found = np.full(size + len(intercept), filling)
            found[places] = np.append(x[0, columns], of_intercept)
            return found

        gram = _gram(part, curvature)
        hessian = np.eye(size + len(intercept)) * (np.trace(gram) / many if many else 1)
        hessian[:many, :many] = gram
        if intercept:
            hessian[size, :many] = hessian[:many, size] = part @ curvature
            hessian[size, size] = curvature.sum()
        b, total = (() if x is None else x for x in (v.intercept, slope.smooth.intercept))
        w, g = over_set(v.weights, b, 0.0), over_set(slope.smooth.weights, total, 0.0)
        penalty, ridge = (
            over_set(x, np.zeros(len(intercept)), y) for x, y in ((l1, 1.0), (l2, 0.0))
        )
        far = np.full(len(w), np.inf)
        hessian[np.diag_indices_from(hessian)] += ridge
        return Quadratic(hessian, w, g, penalty, ridge, -far, far), (columns, part)

    def move(point: Point, chosen: tuple, solved: Minimum) -> tuple[Point, float, float]:
        (columns, part), v, change = chosen, point.params, np.asarray(solved.change)
        z, _, _, curvature = point.kept
        d_weights, promised = np.zeros_like(v.weights), float(solved.predicted_decrease)
        d_weights[0, columns] = change[: len(columns)]
        dz, b = part.T @ change[: len(columns)], None
        if v.intercept is not None:
            b = change[-1:]
            dz = dz + b
        noise, length = np.finfo(np.float64).eps * abs(point.value), 1.0
        while True:
            near = Affine(
                v.weights + length * d_weights, b if b is None else v.intercept + length * b
            )
            new = at(near, z + length * dz)
            enough = point.value - SHARE_OF_PROMISE * length * promised + noise
            if new.value <= enough or length <= SHORTEST:
                curved = float(curvature @ dz**2 + (l2 * d_weights**2).sum())
                return new, length, curved
            length /= 2

    return Pieces(start, slope, model, move)


def _gap(w, g, risk: float, l1, l2, lower_bound: float) -> float:
    """:func:`~jaxclf.certificates.duality.gap_but_for_rounding` of arrays on the host."""
    size, penalty, product, bound = abs(g), lp.penalty_terms(w, l1, l2), w * g, np.inf
    if (l2 > 0).all():
        bound = (penalty + product + np.maximum(size - l1, 0) ** 2 / (2 * l2)).sum()
    if (l1 > 0).all():
        c = 1 / max(1.0, (size / l1).max())
        above = (1 - c) * (risk - lower_bound) if c < 1 else 0.0
        bound = min(bound, above + (penalty + c * product).sum())
    return max(float(bound), 0.0)


def _gram(part, curvature: np.ndarray) -> np.ndarray:
    """``Σ cᵢ xᵢ xᵢᵀ`` over the columns that are the rows of ``part``."""
    if part.nnz > _DENSE * np.prod(part.shape):
        dense = part.toarray()
        return (dense * curvature) @ dense.T
    scaled = part.copy()
    scaled.data *= curvature[part.indices]
    return (scaled @ part.T).toarray()
