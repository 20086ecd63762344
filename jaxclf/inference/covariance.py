"""Covariances of the coefficients of a fit, and of contrasts of classes.

With W the sum of the weights, ω the weights over W, H the Hessian of the mean loss, A the one of
the objective (H with the ridge) and gᵢ the gradient of the loss of row i, all at the optimum:

    model        A⁻¹ H A⁻¹ / W                       (H⁻¹ / W without a penalty)
    posterior    A⁻¹ / W
    sandwich     A⁻¹ (Σ mᵢ gᵢ gᵢᵀ) A⁻¹               mᵢ = ωᵢ² of sampling weights
    cluster      A⁻¹ (Σ_c s_c s_cᵀ) A⁻¹              s_c = Σ_{i in c} ωᵢ gᵢ

A row of frequency weight f stands for f rows, so that its mᵢ is ``f / W²``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import get_blas_funcs

from jaxclf import checks, losses
from jaxclf.facts import unwrapped
from jaxclf.inference.fitted import Fit, curvatures_of, designed
from jaxclf.inference.hessian import curvature_of, mirrored

KINDS = ("model", "posterior", "sandwich", "cluster")
WEIGHTS = ("frequency", "sampling")
_NO_LIKELIHOOD = (
    losses.squared_error,
    losses.onehot_squared_error,
    losses.squared_hinge,
    losses.hinge,
    losses.multiclass_hinge,
)
_NUMBERS_AT_ONCE = 2**24
"""The most numbers of the gradients of clusters that are held at once: 128 MiB."""

_NOTHING = 1e-11
"""A sandwich so much smaller than the terms of its sum is what rounding left. The inverse of
float32 products on MNIST leaves up to 1e-12."""
_CANCELS = 1e-6
"""The least share of the posterior's variance that a difference gives. Where float32 products made
the Hessian of MNIST, the difference is off by up to 1e-10 of the posterior's."""
_ROWS_AT_ONCE = 1024
"""The rows of a covariance that one product makes, of which those above it are left out."""


def is_no_likelihood(loss: Callable) -> bool:
    """Whether a loss is known to be no negative log-likelihood in nats."""
    return unwrapped(loss)[0] in _NO_LIKELIHOOD


def check_covariance(covariance: str, clusters, fit: Fit, weights: str | None) -> None:
    """Raises ValueError where a covariance does not fit the weights or the loss, or clusters the
    rows."""
    checks.check_option("covariance", covariance, KINDS)
    if covariance in ("model", "posterior") and is_no_likelihood(fit.given_loss):
        raise ValueError(
            f"{unwrapped(fit.given_loss)[0].__name__} is no negative log-likelihood in nats, which "
            "errors by the model and tests need: use covariance='sandwich', or another loss"
        )
    if (clusters is not None) != (covariance == "cluster"):
        raise ValueError("clusters are given with covariance='cluster', and only with it")
    if clusters is not None:
        checks.check_shape("clusters", np.asarray(clusters), (len(fit.weights),))
        if any(name is None or name != name for name in np.asarray(clusters).tolist()):
            raise ValueError("clusters must be names or numbers of all rows, some are missing")
        if len(np.unique(np.asarray(clusters)[fit.weights > 0])) < 2:
            raise ValueError("clusters must be at least two")
    if weights is None and (fit.weights != 1).any():
        raise ValueError(
            "the rows have weights: say weights='frequency' where they count equal rows, or "
            "weights='sampling' where a row stands for so many of a population"
        )
    if weights is not None:
        checks.check_option("weights", weights, WEIGHTS)
    if weights == "frequency" and (fit.weights != np.round(fit.weights)).any():
        raise ValueError("frequency weights count rows, so they must be whole numbers")
    if weights == "sampling" and covariance in ("model", "posterior"):
        raise ValueError(
            f"covariance={covariance!r} takes rows as independent draws of equal worth, which "
            "sampling weights are not: use covariance='sandwich' or 'cluster'"
        )


def covariance_of(
    fit: Fit, contrasts: np.ndarray, covariance: str, clusters=None, weights: str | None = None
) -> np.ndarray:
    """The covariance ``(mD, mD)`` of contrasts of the logits' parameters, in the units of the fit.

    Args:
      fit: the optimum.
      contrasts: ``(m, K)``; row c makes the parameters ``Σ_k contrasts[c, k] θ_k`` of D numbers.
      covariance: one of :data:`KINDS`.
      clusters: the cluster of each row, ``(n,)``, for ``cluster``.
      weights: the kind of the weights, see :data:`WEIGHTS`.
    """
    left = contrasted(contrasts, fit.inverse)
    if covariance in ("sandwich", "cluster"):
        return _sandwich(left, _meat(fit, clusters, weights))
    found = contrasts @ left.reshape(len(left), contrasts.shape[1], -1)
    found = found.reshape(len(left), -1) / fit.total
    if covariance == "model" and fit.ridge.any():
        return _frequentist(fit, left, found)
    return mirrored(found)


def _sandwich(left: np.ndarray, meat: np.ndarray) -> np.ndarray:
    """``left @ meat @ left.T``, by products of float64, whatever made the Hessian.

    Float32 would lose the variance of a column that few rows have among larger numbers.
    """
    half, found = left @ meat, np.zeros((len(left), len(left)))
    for first in range(0, len(left), _ROWS_AT_ONCE):
        part, above = slice(first, first + _ROWS_AT_ONCE), slice(0, first + _ROWS_AT_ONCE)
        found[part, above] = half[part] @ left[above].T
    found = mirrored(found)
    nothing = np.diagonal(found) < _NOTHING * np.einsum("ij,ij,j->i", left, left, meat.diagonal())
    found[nothing], found[:, nothing] = 0, 0
    return found


def _frequentist(fit: Fit, left: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """``A⁻¹ H A⁻¹ / W`` as ``A⁻¹ / W - A⁻¹ ridge A⁻¹ / W``; both arguments are written to.

    Where little is left of the difference, it is made of a product with the Hessian.
    """
    of_ridge = np.einsum("ij,ij,j->i", left, left, fit.ridge / fit.total)
    few = np.flatnonzero(np.diagonal(posterior) - of_ridge < _CANCELS * np.diagonal(posterior))
    exact = left @ _hessian_products(fit, left[few]).T / fit.total
    left *= np.sqrt(fit.ridge / fit.total)
    # The transpose of a symmetric matrix is itself, in the order of BLAS.
    (multiply,) = get_blas_funcs(("syrk",), (left,))
    found = multiply(-1.0, left.T, beta=1.0, c=posterior.T, trans=1, lower=1, overwrite_c=1)
    found = mirrored(found)
    found[:, few], found[few] = exact, exact.T
    return found


def _hessian_products(fit: Fit, directions: np.ndarray) -> np.ndarray:
    """The products of the Hessian of the mean loss with directions ``(m, P)``."""
    K = len(fit.params.weights)
    found = np.zeros((len(directions), K, len(fit.inverse) // K))
    # The product with a direction of columns of zeros alone is zero.
    columns = np.append(fit.rows.features.any(0), [True] * (fit.params.intercept is not None))
    some = np.flatnonzero((directions.reshape(found.shape) * columns).any((1, 2)))
    if not some.size:
        return found.reshape(directions.shape)
    parts = directions.reshape(found.shape)[some]
    curvatures = curvatures_of(fit) * np.asarray(fit.rows.weights)[:, None, None]
    most = max(1, _NUMBERS_AT_ONCE // (len(some) * K))
    for first in range(0, len(curvatures), most):
        rows = slice(first, first + most)
        x = designed(fit, rows)
        z = np.tensordot(x, parts, (1, 2))
        found[some] += np.tensordot(np.einsum("nkj,nmj->mkn", curvatures[rows], z), x, 1)
    return found.reshape(directions.shape)


def contrasted(contrasts: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Contrasts of the first axis, ``(K D, …) -> (m D, …)``."""
    num_logits = contrasts.shape[1]
    parts = matrix.reshape(num_logits, -1)
    return (contrasts @ parts).reshape(-1, *matrix.shape[1:])


def class_contrasts(fit: Fit, reference: int | None) -> np.ndarray:
    """The contrasts ``(m, K)`` of a fit: to a reference class, or to the mean of all classes.

    A loss that sees every logit, such as that of one logit, has the logits themselves.
    """
    num_logits = len(fit.params.weights)
    if not fit.ignores_shifts:
        return np.eye(num_logits)
    if reference is None:
        return np.eye(num_logits) - 1 / num_logits
    checks.check_integer("reference", np.array(reference))
    if reference not in range(num_logits):
        raise ValueError(f"reference must be a class 0 … {num_logits - 1}, got {reference}")
    contrasts = np.eye(num_logits)
    contrasts[:, reference] -= 1
    return np.delete(contrasts, reference, 0)


def _sum_of_gradients(fit: Fit, rows: np.ndarray) -> np.ndarray:
    """``Σ wᵢ gᵢ`` over some rows, ``(P,)``."""
    return ((fit.slopes[rows] * fit.weights[rows, None]).T @ designed(fit, rows)).ravel()


def _meat(fit: Fit, clusters, weights: str | None) -> np.ndarray:
    shares, size = fit.weights / fit.total, len(fit.inverse)
    if clusters is None:
        each = fit.weights / fit.total**2 if weights == "frequency" else shares**2
        squares = fit.slopes[:, :, None] * fit.slopes[:, None]
        rows, intercept = fit.rows._replace(weights=each), fit.params.intercept is not None
        return curvature_of(rows, squares, intercept, fit.ignores_shifts)
    _, numbers = np.unique(np.asarray(clusters), return_inverse=True)
    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])
    found, most = np.zeros((size, size)), max(1, _NUMBERS_AT_ONCE // size)
    for first in range(0, len(members), most):
        sums = np.stack([_sum_of_gradients(fit, m) for m in members[first : first + most]])
        found += sums.T @ sums
    return found / fit.total**2
