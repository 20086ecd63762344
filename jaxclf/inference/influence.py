"""What one row does to a fit: derivatives with respect to its weight, and the fit without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxclf import checks
from jaxclf.inference.fitted import (
    Fit,
    curvatures_of,
    designed,
    fit_of,
    in_users_units,
    users_params,
)
from jaxclf.inference.hessian import stacked
from jaxclf.linear_algebra import problem as lp
from jaxclf.objectives import Batch, Objective, make_objective
from jaxclf.penalties import Penalty
from jaxclf.solvers.inputs import as_affine, params_like

_NUMBERS_AT_ONCE = 2**23
"""The most numbers of a product with the inverse that are held at once: 64 MiB."""
_ALONE = 1e-10
"""A row leaves so little of the curvature along a parameter where no other row has any."""


def influence(
    objective: Objective, params: Any, batch: Batch, of: Callable | None = None
) -> np.ndarray:
    """The exact derivative of the fit, or of a number of it, with respect to each row's weight.

    With W the sum of the weights, A the Hessian of the objective, gᵢ the gradient of the loss of
    row i and ḡ their weighted mean,

        dθ/dwᵢ = -A⁻¹ (gᵢ - ḡ) / W.

    A row is taken out by a step of ``-wᵢ``, to first order; :func:`leave_one_out` is closer.

    Args:
      objective: an objective of :func:`jaxclf.make_objective` with the logits of
        :func:`jaxclf.models.linear.logits`, and with an L2 penalty or none.
      params: a fit, or a start.
      batch: the rows, in memory.
      of: a function ``params -> ()`` of float64 parameters in the form of ``params``, such as the
        loss on other rows. By default the parameters themselves.

    Returns:
      ``(n,)``; without ``of`` ``(n, K (d + 1))``, of the logits' parameters one after the other,
      the intercept last. For a softmax they are those of centred parameters.

    Raises:
      TypeError, ValueError: as :func:`jaxclf.inference.infer`.

    Example:
      >>> import numpy as np
      >>> from jaxclf import losses, make_batch, make_objective, penalties
      >>> from jaxclf.models import linear
      >>> batch = make_batch(np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 0, 1]))
      >>> objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(0.1))
      >>> start = linear.LinearParams(np.zeros(1), np.zeros(()))
      >>> slopes = influence(objective, start, batch, of=lambda p: p.weights[0])
      >>> print(int(slopes.argmin()), "lowers the weight most")
      4 lowers the weight most

    Source: Koh and Liang, Understanding black-box predictions via influence functions, ICML 2017.
    """
    return influence_of(fit_of(objective, params, batch), params, of)


def influence_of(fit: Fit, params: Any, of: Callable | None) -> np.ndarray:
    """The derivatives of :func:`influence` at an optimum; ``params`` give the form alone."""
    right = in_users_units(fit, fit.inverse)
    if of is not None:
        with jax.enable_x64(True):
            point = params_like(_wide(params), users_params(fit))
            gradient = jax.grad(of)(jax.tree.map(jax.numpy.asarray, point))
            gradient = stacked(as_affine(gradient)).ravel()
        right = (gradient @ right)[None]
    x = designed(fit)
    parts = right.reshape(len(right), len(fit.params.weights), -1)
    # gᵢ is the slopes of row i times its features, so that no (n, P) gradients are made.
    size = max(1, _NUMBERS_AT_ONCE // right.size)
    found = np.concatenate([
        np.einsum("nk,mkd,nd->nm", fit.slopes[i : i + size], parts, x[i : i + size], optimize=True)
        for i in range(0, len(x), size)
    ])  # fmt: skip
    mean = fit.weights @ found / fit.total
    found = -(found - mean) / fit.total
    return found if of is None else found[:, 0]


def leave_one_out(
    objective: Objective, params: Any, batch: Batch, *, refits: int = 0
) -> np.ndarray:
    """The logits of each row by the fit without it, approximately and without a refit.

    With ``A = ωᵢ (x̃ᵢ ⊗ I)ᵀ (∇²F)⁻¹ (x̃ᵢ ⊗ I)``, ``(K, K)``, and ℓ′, ℓ″ of row i they are

        zᵢ + A (I - ℓ″ A)⁻¹ ℓ′,

    a step of Newton's method for the objective without the row, which is exact for squared error.
    The other rows keep their ω, so that a penalty keeps its strength beside each of them.

    Nearly all of the error is in the few rows whose logits move most. ``refits`` says how many of
    them are refitted, each to a certified optimum.

    The other arguments and the errors are those of :func:`influence`.

    Args:
      refits: the number of rows that are refitted.

    Returns:
      ``(n, K)``, or ``(n,)`` for one logit; NaN for a row without which columns depend on each
      other.

    Source: Rad and Maleki, A scalable estimate of the out-of-sample prediction error via
    approximate leave-one-out cross-validation, J. R. Stat. Soc. B 82 (2020).
    """
    checks.check_integer("refits", np.array(refits))
    checks.check_number("refits", refits, at_least=0)
    fit = fit_of(objective, params, batch)
    shares = fit.weights / fit.total
    curvatures = curvatures_of(fit)
    A = shares[:, None, None] * row_covariances(fit, fit.inverse)
    left = np.eye(fit.logits.shape[1]) - curvatures @ A
    # Without a row that a parameter has to itself there is no fit.
    alone = np.linalg.svd(left, compute_uv=False)[:, -1] < _ALONE
    left[alone] = np.nan
    change = (A @ np.linalg.solve(left, fit.slopes[..., None]))[..., 0]
    found = lp.at_offset(fit.logits, fit.rows.labels) + change
    # Of K logits only their differences mean something.
    order = np.argsort(-np.ptp(np.c_[change, np.zeros(len(change))], 1))
    for i in order[~alone[order]][:refits]:
        found[i] = _refitted(objective, fit, params, batch, i)
    return found[:, 0] if np.ndim(params.weights) == 1 else found


def _refitted(objective: Objective, fit: Fit, params: Any, batch: Batch, row: int) -> np.ndarray:
    """The logits of a row by the certified fit to the others, with the penalty that they had."""
    weights = fit.weights.copy()
    weights[row] = 0
    if not weights.any():
        raise ValueError(f"row {row} is the only one with a weight: no fit is left without it")
    l2 = np.asarray(objective.strengths.l2) * (fit.total / weights.sum())
    others = make_objective(objective.logits_fn, objective.loss, Penalty(l2=l2))
    with jax.enable_x64(True):  # the start is in float64
        start = params_like(_wide(params), users_params(fit))
    try:
        refit = fit_of(others, start, batch._replace(weights=weights))
    except ValueError as error:
        raise ValueError(f"there is no fit without row {row}: {error}") from error
    return lp.at_offset(refit.logits, refit.rows.labels)[row]


def row_covariances(fit: Fit, matrix: np.ndarray) -> np.ndarray:
    """``(x̃ᵢ ⊗ I)ᵀ M (x̃ᵢ ⊗ I)`` of each row, ``(n, K, K)``."""
    return covariances_of_logits(designed(fit), matrix, len(fit.params.weights))


def covariances_of_logits(x: np.ndarray, matrix: np.ndarray, num_logits: int) -> np.ndarray:
    """The covariance of the logits of rows ``(n, D)``, from that of the parameters."""
    parts = matrix.reshape(num_logits, x.shape[1], num_logits, x.shape[1])
    found = np.empty((len(x), num_logits, num_logits))
    for k, j in zip(*np.triu_indices(num_logits), strict=True):
        found[:, k, j] = found[:, j, k] = np.sum(x @ parts[k, :, j] * x, 1)
    return found


def _wide(params: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)
