"""The certified optimum that inference rests on, in float64, with its curvature.

Statistics asks for more digits than training does. The optimum is therefore sought again in float64
from the given parameters, and steps of Newton's method with the whole Hessian bring it to rounding.
Its certificate then says whether inference may start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import get_lapack_funcs

from jaxclf.certificates.certificate import certify
from jaxclf.certificates.local_bound import local_bound
from jaxclf.facts import facts_of
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.models.linear import is_linear
from jaxclf.objectives import Batch, Objective
from jaxclf.penalties import Penalty
from jaxclf.programs import programs_by_shape
from jaxclf.promotion import standard_promotion
from jaxclf.scaling.sharing import on_device, to_host
from jaxclf.solvers.inputs import (
    as_affine,
    checked_batch,
    known_loss,
    normalised_weights,
    of_logits,
)
from jaxclf.solvers.minimize import minimize

_TOL = 1e-9
"""The gap that is asked of the solver, times the number of rows. A gap of ``ε² / 2`` divided by the
number of rows moves a coefficient by ε of its standard errors."""
_REACHED = 1e-6
"""The largest certified gap, times the number of rows, with which inference starts."""
_SETTLED = 1e-13
"""The squared Newton decrement, times the number of rows, from which on another Hessian changes
nothing."""
_STEPS = 5
_FEW = 1024
"""With more parameters the host's products make the Hessian: they take half of the multiplications
of the program that serves fewer."""
_ROWS_AT_ONCE = 8192
_SINGULAR = 1e-13
"""A pivot of the Hessian, scaled to a diagonal of one, below which a column counts as dependent on
others. Rounding leaves about 1e-16 times the number of columns."""


class Fit(NamedTuple):
    """A certified optimum of a linear model; all arrays are float64 and on the host."""

    params: Affine
    """The parameters as matrices, ``(K, d)`` and ``(K,)`` or ``None``."""
    logits: np.ndarray
    """The logits of the rows, ``(n, K)``."""
    slopes: np.ndarray
    """``ℓ′(zᵢ, yᵢ)`` of the rows, ``(n, K)``, without weights."""
    hessian: np.ndarray
    """The Hessian of the mean loss, without the penalty, ``(P, P)``. The parameters of a logit
    follow each other, its intercept last."""
    inverse: np.ndarray
    """The inverse of the Hessian with the penalty. One shift of all logits, which a softmax does
    not see, is given a curvature first; no contrast of classes feels it."""
    rows: Rows
    """The rows; their weights sum to one."""
    weights: np.ndarray
    """The weights of the rows as they were given, ``(n,)``; ones where none were."""
    loss: Callable
    """The loss as a function of ``(K,)`` logits."""
    l2: float
    value: float
    """The objective."""
    gap_bound: float
    """A bound on the objective less its minimum."""
    ignores_shifts: bool
    """Whether the loss does not see one shift of all logits."""
    self_concordance: float | None
    """See :class:`jaxclf.facts.Facts`."""

    @property
    def total(self) -> float:
        """The sum of the weights."""
        return float(self.weights.sum())


@standard_promotion
def fit_of(objective: Objective, params: Any, batch: Batch) -> Fit:
    """The certified optimum of a linear model.

    Args:
      objective: an objective of :func:`jaxclf.make_objective` with the logits of
        :func:`jaxclf.models.linear.logits`, and an L2 penalty or none.
      params: the parameters from which the optimum is sought.
      batch: the rows, in memory.

    Raises:
      TypeError: an objective that is no linear model.
      ValueError: an L1 penalty; no finite minimiser; columns that depend on each other; an optimum
        that is not certified. The sentence says which.
    """
    if not isinstance(objective, Objective) or not is_linear(objective.logits_fn):
        raise TypeError(
            "inference needs an objective of make_objective with the logits of models.linear.logits"
        )
    if float(objective.strengths.l1) > 0:
        raise ValueError(
            f"an L1 penalty of {float(objective.strengths.l1):g} leaves no smooth likelihood: "
            "inference takes an L2 penalty or none"
        )
    batch = checked_batch(objective, batch, params)
    n = len(batch.labels)
    weights = np.ones(n) if batch.weights is None else np.asarray(batch.weights, np.float64)
    total = weights.sum()
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        result = minimize(objective, wide, batch, tol=_TOL / total)
        _check_status(result.status)
        loss, l2 = of_logits(objective.loss, params), float(objective.strengths.l2)
        known, _ = known_loss(objective, params, batch)
        features, labels, normalised = on_device(
            (batch.features, batch.labels, normalised_weights(batch))
        )
        rows = Rows(features, labels, normalised)
        v, hessian, inverse = _polished(loss, rows, as_affine(result.params), l2, total)
        penalty = Penalty(0.0, l2)
        found, _ = certify(loss, known, penalty, on_device(v), rows, narrow=False)
        bound = float(found.gap_bound)
        if not bound * total <= _REACHED and known.self_concordance is not None and known.convex:
            local = local_bound(loss, known, penalty, found.affine, rows)
            bound = float(np.fmin(local + float(found.value_error), bound))
        if not bound * total <= _REACHED:
            why = result.reason or f"the solver ended with {result.status}"
            raise ValueError(
                f"the optimum is not certain: the bound on the gap is {bound:.3g}, and inference "
                f"from {total:g} rows needs {_REACHED / total:.3g} ({why})"
            )
        z, slopes = _rows_at(loss, like=(rows, found.affine))(rows, found.affine)
    return Fit(
        params=jax.tree.map(np.asarray, found.affine),
        logits=np.asarray(z),
        slopes=np.asarray(slopes),
        hessian=hessian,
        inverse=inverse,
        rows=to_host(rows),
        weights=weights,
        loss=loss,
        l2=l2,
        value=float(found.value),
        gap_bound=bound,
        ignores_shifts=facts_of(objective.loss).ignores_shifts,
        self_concordance=known.self_concordance,
    )


def _check_status(status: str) -> None:
    if status == "no_finite_minimiser":
        raise ValueError(
            "there is no finite maximum of the likelihood: the classes are separated, so that "
            "larger coefficients are always better; an L2 penalty or jaxclf.inference.firth has one"
        )
    if status == "nonfinite":
        raise ValueError("the objective became infinite on the way to the optimum: scale features")


def _polished(
    loss: Callable, rows: Rows, v: Affine, l2: float, total: float
) -> tuple[Affine, np.ndarray, np.ndarray]:
    """The point after steps of Newton's method, the Hessian, and its inverse with the ridge."""
    left = _STEPS
    while True:
        _, gradient, hessian = derivatives(loss, rows, v)
        inverse = inverse_of(hessian, v, l2, ignores_shifts=facts_of(loss).ignores_shifts)
        if inverse is None:
            raise ValueError(_singular(rows, v))
        g = (
            stacked(gradient).ravel()
            + np.tile(ridge_of(v, l2), len(v.weights)) * stacked(v).ravel()
        )
        step = inverse @ g
        v = unflattened(stacked(v).ravel() - step, v)
        left -= 1
        if left == 0 or total * float(g @ step) <= _SETTLED:
            return v, hessian, inverse


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
            found[k, :, j] += x.T @ ((shares[part] * curvatures[part, k, j])[:, None] * x)
    for k, j in zip(*np.triu_indices(K, 1), strict=True):
        found[j, :, k] = found[k, :, j].T
    return found.reshape(K * width, K * width)


@programs_by_shape
def _rows_at(loss: Callable) -> Callable:
    def at(rows: Rows, v: Affine):
        z = lp.logits(rows.features, v)
        return z, jax.vmap(jax.grad(loss))(z, rows.labels)

    return jax.jit(at)


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
    return _inverse(matrix)


def _inverse(matrix: np.ndarray) -> np.ndarray | None:
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


def _singular(rows: Rows, v: Affine) -> str:
    """The reason for a singular Hessian."""
    moments = lp.gram(rows.features, rows.weights, intercept=v.intercept is not None)
    if _inverse(np.array(moments)) is None:
        return (
            "columns of the features depend on each other or on the intercept, so that their "
            "coefficients have no error: leave some out, or add an L2 penalty"
        )
    return (
        "the likelihood is flat where the solver ended: the classes may be separated, so that "
        "larger coefficients are always better; an L2 penalty or jaxclf.inference.firth has a "
        "finite maximum"
    )


def ridge_of(v: Affine, l2: float) -> np.ndarray:
    """The penalty's curvature of the parameters of one logit, with 0 for its intercept."""
    d = v.weights.shape[1]
    return np.append(np.full(d, l2), 0.0) if v.intercept is not None else np.full(d, l2)


def designed(fit: Fit, rows: slice = slice(None)) -> np.ndarray:
    """Features ``(n, d)`` in float64, with a column of ones last for an intercept."""
    x = np.asarray(fit.rows.features[rows], np.float64)
    return np.c_[x, np.ones(len(x))] if fit.params.intercept is not None else x


def stacked(v: Affine) -> np.ndarray:
    """Parameters as ``(K, d + 1)`` with the intercept last, or ``(K, d)`` without one."""
    return np.asarray(v.weights) if v.intercept is None else np.c_[v.weights, v.intercept]


def unflattened(theta: np.ndarray, like: Affine) -> Affine:
    """Parameters from :func:`stacked` ones in a row, with an intercept if ``like`` has one."""
    return lp.unstacked(theta.reshape(len(like.weights), -1), like)
