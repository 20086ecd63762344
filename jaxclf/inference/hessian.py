"""The Hessian of the mean loss of a linear model, and its inverse, on the host.

The parameters of a logit follow each other in a row of numbers, the intercept last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import get_blas_funcs, get_lapack_funcs

from jaxclf.facts import facts_of
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.sharing import to_host

FEW = 1024
"""With more parameters the host's products make the Hessian: they take half of the multiplications
of the program that serves fewer."""
_ROWS_AT_ONCE = 8192
"""The rows whose products are summed in the products' dtype; sums of them are float64."""
_NEGLIGIBLE = 1e-24
"""Rows whose weight is so much smaller than the largest are left out: float32 would take long over
the products of such numbers."""
_LEFT_OUT = 1e-9
"""The same of a Hessian of float32 products, whose error is measured. On MNIST 57 % of the rows of
a pair of classes are left, and the others have less than 1e-6 of the weight."""
_SINGULAR = 1e-13
"""A pivot of the Hessian, scaled to a diagonal of one, below which a column counts as dependent on
others. Rounding leaves about 1e-16 times the number of columns."""
_PRODUCTS = 5
"""The steps of the power method that measures the error of an inverse."""
_ONE_THREAD = 64
"""OpenBLAS inverts the smallest matrix by several threads, which wait 30 ms for each other where
the cores are busy. Solving takes so many columns about as long, on one thread."""
_SQUARE = 1024
"""The rows of the parts of a matrix that are transposed at once."""


def derivatives(
    loss: Callable, rows: Rows, v: Affine, dtype=np.float64
) -> tuple[float, Affine, np.ndarray]:
    """The mean loss, its gradient and its Hessian at a point, in float64 on the host.

    The point is float64, and 64-bit mode is turned on here. With more than :data:`FEW` parameters
    the products that make the Hessian may be float32.
    """
    few = sum(x.size for x in jax.tree.leaves(v)) <= FEW
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        risk, gradient, curved = to_host(_derivatives(loss, few, like=(rows, v))(rows, v))
    if few:
        return risk, gradient, curved
    intercept, cancels = v.intercept is not None, facts_of(loss).ignores_shifts
    negligible = _LEFT_OUT if dtype == np.float32 else _NEGLIGIBLE
    return risk, gradient, curvature_of(rows, curved, intercept, cancels, dtype, negligible)


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


def curvature_of(
    rows: Rows,
    matrices: np.ndarray,
    intercept: bool,
    cancels: bool,
    dtype=np.float64,
    negligible: float = _NEGLIGIBLE,
) -> np.ndarray:
    """``Σ ωᵢ Mᵢ ⊗ x̃ᵢ x̃ᵢᵀ`` of symmetric ``(K, K)`` matrices of the rows, in float64.

    Args:
      rows: the rows.
      matrices: ``(n, K, K)``.
      intercept: whether a feature of one comes last.
      cancels: whether the columns of each matrix sum to zero, which saves the K diagonal blocks.
      dtype: the dtype of the products of ``_ROWS_AT_ONCE`` rows.
      negligible: the share of the largest weight below which a row is left out.
    """
    n, K = matrices.shape[:2]
    width = rows.features.shape[1] + intercept
    found = np.zeros((K, width, K, width))
    shares = np.asarray(rows.weights)
    pairs = list(zip(*np.triu_indices(K, int(cancels)), strict=True))
    for first in range(0, n, _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        x = np.asarray(rows.features[part]).astype(dtype)
        x = np.c_[x, np.ones(len(x), dtype)] if intercept else x
        for k, j in pairs:
            found[k, :, j] += _weighted_gram(x, shares[part] * matrices[part, k, j], negligible)
    for k, j in pairs:
        found[j, :, k] = mirrored(found[k, :, j])
    if cancels:
        for k in range(K):
            found[k, :, k] = -sum(found[k, :, j] for j in range(K) if j != k)
    return found.reshape(K * width, K * width)


def _weighted_gram(x: np.ndarray, weights: np.ndarray, negligible: float) -> np.ndarray:
    """The lower half of ``Xᵀ diag(w) X``, by products of a matrix with itself."""
    sizes = np.abs(weights)
    kept = sizes >= negligible * sizes.max()
    half = x[kept]
    half *= np.sqrt(sizes[kept]).astype(x.dtype)[:, None]
    (multiply,) = get_blas_funcs(("syrk",), (half,))
    below = weights[kept] < 0
    if below.any() and not below.all():
        found = multiply(-1.0, half[below].T, lower=1)
        return multiply(1.0, half[~below].T, beta=1.0, c=found, lower=1, overwrite_c=1)
    return multiply(-1.0 if below.any() else 1.0, half.T, lower=1)


def mirrored(matrix: np.ndarray) -> np.ndarray:
    """A matrix whose upper half becomes the lower one."""
    for first in range(0, len(matrix), _SQUARE):
        part, rest = slice(first, first + _SQUARE), slice(first + _SQUARE, None)
        matrix[part, part] = np.tril(matrix[part, part]) + np.tril(matrix[part, part], -1).T
        matrix[part, rest] = matrix[rest, part].T
    return matrix


def error_of(
    loss: Callable, rows: Rows, v: Affine, ridge: np.ndarray, inverse: np.ndarray
) -> float:
    """An estimate of the largest share by which a variance by an inverse is off.

    With A the Hessian and B the inverse it is the largest eigenvalue of ``B A - I``, by the power
    method with float64 products.
    """
    K, lengths = len(v.weights), []
    x = np.random.default_rng(0).standard_normal(len(inverse))
    shared = unseen_columns(ridge, K) & facts_of(loss).ignores_shifts
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        run = _product(loss, like=(rows, v))
        for _ in range(_PRODUCTS):
            # The inverse has a curvature along shifts that A has not.
            x = (x.reshape(K, -1) - shared * x.reshape(K, -1).mean(0)).ravel()
            product = stacked(to_host(run(rows, v, unflattened(x, v)))).ravel() + ridge * x
            lengths.append(np.sqrt(max(x @ product, 0.0)) or 1.0)
            x = (inverse @ product - x) / lengths[-1]
    return max(lengths[1:])


@programs_by_shape
def _product(loss: Callable) -> Callable:
    def product(rows: Rows, v: Affine, direction: Affine):
        maps = lp.curvature(loss, lp.logits(rows.features, v), rows.labels)
        return lp.hessian_product(rows.features, maps, rows.weights, direction)

    return jax.jit(product)


def inverse_of(
    hessian: np.ndarray, v: Affine, ridge: np.ndarray, *, ignores_shifts: bool
) -> np.ndarray | None:
    """The inverse of the Hessian with the ridge, ``None`` if it is singular; see :class:`Fit`."""
    num_logits = len(v.weights)
    width = len(ridge) // num_logits
    matrix = hessian.copy()
    matrix[np.diag_indices_from(matrix)] += ridge
    if ignores_shifts:
        # What the loss does not see, and the penalty neither, gets the mean curvature of its kind.
        unseen = np.diagonal(hessian).reshape(num_logits, width).mean(0) / num_logits
        of_parameter = matrix.reshape(num_logits, width, num_logits, width)
        for j in np.flatnonzero(unseen_columns(ridge, num_logits)):
            of_parameter[:, j, :, j] += unseen[j]
    return inverse_of_positive(matrix)


def inverse_of_positive(matrix: np.ndarray) -> np.ndarray | None:
    """The inverse of a positive matrix, which is written to; ``None`` for a singular one."""
    root = np.sqrt(np.diagonal(matrix))
    if not (root > 0).all():
        return None
    matrix /= root[:, None]
    matrix /= root[None]
    potrf, potri, potrs = get_lapack_funcs(("potrf", "potri", "potrs"), (matrix,))
    # The transpose of a symmetric matrix is itself, in the order of LAPACK.
    factor, failed = potrf(matrix.T, lower=1, overwrite_a=1)
    if failed or np.diagonal(factor).min() ** 2 < _SINGULAR * len(factor):
        return None
    if len(factor) <= _ONE_THREAD:
        inverse, _ = potrs(factor, np.eye(len(factor)), lower=1)
        inverse = (inverse + inverse.T) / 2
    else:
        inverse, _ = potri(factor, lower=1, overwrite_c=1)
        mirrored(inverse)
    inverse /= root[:, None]
    inverse /= root[None]
    return inverse


def ridge_of(v: Affine, l2: Any) -> np.ndarray:
    """The penalty's curvature of each parameter, with 0 for intercepts, ``(P,)``.

    Args:
      v: the parameters.
      l2: the strength of all weights, of each column or of each weight.
    """
    none = None if v.intercept is None else np.zeros(len(v.weights))
    return stacked(Affine(np.broadcast_to(l2, v.weights.shape), none)).ravel()


def unseen_columns(ridge: np.ndarray, num_logits: int) -> np.ndarray:
    """Whether the penalty does not see a shift of all logits' parameters of a column."""
    return (ridge.reshape(num_logits, -1) == 0).all(0)


def stacked(v: Affine) -> np.ndarray:
    """Parameters as ``(K, d + 1)`` with the intercept last, or ``(K, d)`` without one."""
    return np.asarray(v.weights) if v.intercept is None else np.c_[v.weights, v.intercept]


def unflattened(theta: np.ndarray, like: Affine) -> Affine:
    """Parameters from :func:`stacked` ones in a row, with an intercept if ``like`` has one."""
    return lp.unstacked(theta.reshape(len(like.weights), -1), like)
