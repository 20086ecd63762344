"""The Hessian of the mean loss of a linear model, and its inverse, in float64 on the host.

The parameters of a logit follow each other in a row of numbers, the intercept last.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import get_lapack_funcs

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.sharing import to_host

_FEW = 1024
"""With more parameters the host's products make the Hessian: they take half of the multiplications
of the program that serves fewer."""
_ROWS_AT_ONCE = 8192
_SINGULAR = 1e-13
"""A pivot of the Hessian, scaled to a diagonal of one, below which a column counts as dependent on
others. Rounding leaves about 1e-16 times the number of columns."""


def derivatives(loss: Callable, rows: Rows, v: Affine) -> tuple[float, Affine, np.ndarray]:
    """The mean loss, its gradient and its Hessian at a point, in float64 on the host.

    The point is float64, and 64-bit mode is turned on here.
    """
    few = sum(x.size for x in jax.tree.leaves(v)) <= _FEW
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        risk, gradient, curved = to_host(_derivatives(loss, few, like=(rows, v))(rows, v))
    if few:
        return risk, gradient, curved
    return risk, gradient, _hessian(rows, curved, intercept=v.intercept is not None)


@programs_by_shape
def _derivatives(loss: Callable, few: bool) -> Callable:
    def at(rows: Rows, v: Affine):
        z, intercept = lp.logits(rows.features, v), v.intercept is not None
        risk = jnp.sum(rows.weights * lp.losses(loss, z, rows.labels))
        residuals = lp.slopes(loss, z, rows.labels, rows.weights)
        gradient = lp.transpose_product(rows.features, residuals, intercept=intercept)
        if few:
            return risk, gradient, lp.dense_hessian(loss, rows, z, None, intercept=intercept)
        return risk, gradient, lp.logit_hessians(loss, z, rows.labels)

    return jax.jit(at)


def _hessian(rows: Rows, curvatures: np.ndarray, *, intercept: bool) -> np.ndarray:
    """``Σ ωᵢ ℓ″ᵢ ⊗ x̃ᵢ x̃ᵢᵀ``, each pair of logits once, by the host's products."""
    n, K = curvatures.shape[:2]
    width = rows.features.shape[1] + intercept
    found = np.zeros((K, width, K, width))
    shares = np.asarray(rows.weights)
    for first in range(0, n, _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        x = np.asarray(rows.features[part]).astype(np.float64)
        x = np.c_[x, np.ones(len(x))] if intercept else x
        for k, j in zip(*np.triu_indices(K), strict=True):
            found[k, :, j] += _weighted_gram(x, shares[part] * curvatures[part, k, j])
    for k, j in zip(*np.triu_indices(K, 1), strict=True):
        found[j, :, k] = found[k, :, j].T
    return found.reshape(K * width, K * width)


def _weighted_gram(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``Xᵀ diag(w) X``. With weights of one sign it is a product of a matrix with itself, of which
    BLAS makes only half."""
    if weights.min() < 0 < weights.max():
        return x.T @ (weights[:, None] * x)
    half = np.sqrt(np.abs(weights))[:, None] * x
    return half.T @ half if weights.max() > 0 else -(half.T @ half)


def inverse_of(
    hessian: np.ndarray, v: Affine, l2: float, *, ignores_shifts: bool
) -> np.ndarray | None:
    """The inverse of the Hessian with the ridge, ``None`` if it is singular; see :class:`Fit`."""
    num_logits = len(v.weights)
    ridge = ridge_of(v, l2)
    width = len(ridge)
    matrix = hessian.copy()
    matrix[np.diag_indices_from(matrix)] += np.tile(ridge, num_logits)
    if ignores_shifts:
        # What the loss does not see, and the penalty neither, gets the mean curvature of its kind.
        unseen = np.diagonal(hessian).reshape(num_logits, width).mean(0) / num_logits
        of_parameter = matrix.reshape(num_logits, width, num_logits, width)
        for j in np.flatnonzero(ridge == 0):
            of_parameter[:, j, :, j] += unseen[j]
    return inverse_of_positive(matrix)


def inverse_of_positive(matrix: np.ndarray) -> np.ndarray | None:
    """The inverse of a positive matrix, which is written to; ``None`` for a singular one."""
    root = np.sqrt(np.diagonal(matrix))
    if not (root > 0).all():
        return None
    matrix /= root[:, None]
    matrix /= root[None]
    potrf, potri = get_lapack_funcs(("potrf", "potri"), (matrix,))
    factor, failed = potrf(matrix, lower=1, overwrite_a=1)
    if failed or np.diagonal(factor).min() ** 2 < _SINGULAR * len(factor):
        return None
    inverse, _ = potri(factor, lower=1, overwrite_c=1)
    above = np.triu_indices(len(inverse), 1)
    inverse[above] = inverse.T[above]
    inverse /= root[:, None]
    inverse /= root[None]
    return inverse


def ridge_of(v: Affine, l2: float) -> np.ndarray:
    """The penalty's curvature of the parameters of one logit, with 0 for its intercept."""
    d = v.weights.shape[1]
    return np.append(np.full(d, l2), 0.0) if v.intercept is not None else np.full(d, l2)


def stacked(v: Affine) -> np.ndarray:
    """Parameters as ``(K, d + 1)`` with the intercept last, or ``(K, d)`` without one."""
    return np.asarray(v.weights) if v.intercept is None else np.c_[v.weights, v.intercept]


def unflattened(theta: np.ndarray, like: Affine) -> Affine:
    """Parameters from :func:`stacked` ones in a row, with an intercept if ``like`` has one."""
    return lp.unstacked(theta.reshape(len(like.weights), -1), like)
