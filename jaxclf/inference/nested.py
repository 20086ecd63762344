"""Tests of a model against the smaller one that lacks some columns.

With L the log-likelihood, U its gradient at the smaller model's optimum, I the information there, θ
the dropped coefficients at the larger model's optimum and V their covariance:

    likelihood ratio   2 (L - L₀)
    Wald               θᵀ V⁻¹ θ
    score              Uᵀ I⁻¹ U

Each is χ² under the smaller model, with as many degrees of freedom as coefficients are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import special

from jaxclf import checks
from jaxclf.inference.covariance import (
    check_covariance,
    class_contrasts,
    contrasted,
    covariance_of,
)
from jaxclf.inference.fitted import Fit, fit_of, users_params
from jaxclf.inference.hessian import derivatives, inverse_of, ridge_of, stacked
from jaxclf.linear_algebra.columns import columns_of, in_units, params_in_units
from jaxclf.objectives import Batch, Objective, make_objective
from jaxclf.penalties import l2
from jaxclf.scaling.sharing import on_device, to_host
from jaxclf.sparse_rows import check_dense


class ChiSquareTest(NamedTuple):
    """A statistic and its p-value."""

    statistic: float
    degrees_of_freedom: int
    p_value: float


def likelihood_ratio_test(
    objective: Objective, params: Any, batch: Batch, dropped: Sequence[int]
) -> ChiSquareTest:
    """Likelihood-ratio test of a model against the one without some columns of the features.

    The statistic is ``2 W (F₀ - F)``, with W the sum of the weights and F and F₀ the certified
    minima of the mean loss. For K classes a column has K - 1 coefficients.

    Args:
      objective: an objective without a penalty, whose loss is a negative log-likelihood in nats.
      params: a fit of the larger model, or a start.
      batch: the rows of the larger model. Weights count equal rows.
      dropped: the numbers of the columns that the smaller model lacks.

    Raises:
      TypeError, ValueError: as :func:`jaxclf.inference.infer`; a penalty; columns that do not
        exist.

    Example:
      >>> import numpy as np
      >>> from jaxclf import losses, make_batch, make_objective
      >>> from jaxclf.models import linear
      >>> x = np.array([[0, 1], [1, 0], [2, 1], [3, 1], [4, 0], [5, 0], [6, 1], [7, 0]])
      >>> batch = make_batch(x, np.array([0, 0, 1, 0, 1, 0, 1, 1]))
      >>> objective = make_objective(linear.logits, losses.bernoulli_nll)
      >>> start = linear.LinearParams(np.zeros(2), np.zeros(()))
      >>> found = likelihood_ratio_test(objective, start, batch, dropped=[1])
      >>> print(found.degrees_of_freedom, round(found.statistic, 3), round(found.p_value, 3))
      1 0.428 0.513

    Source: Wilks, The large-sample distribution of the likelihood ratio for testing composite
    hypotheses, Ann. Math. Stat. 9 (1938).
    """
    fit = unpenalised_fit(objective, params, batch)
    check_covariance("model", None, fit, "frequency")
    smaller, count = _smaller(objective, params, batch, dropped, fit)
    return _test(2 * fit.total * (smaller.value - fit.value), count)


def wald_test(
    objective: Objective,
    params: Any,
    batch: Batch,
    dropped: Sequence[int],
    *,
    covariance: str = "model",
    clusters=None,
    weights: str | None = None,
) -> ChiSquareTest:
    """Wald test that the coefficients of some columns are zero, ``θᵀ V⁻¹ θ``.

    It needs the larger model alone, and a sandwich may be its covariance. The other arguments and
    the errors are those of :func:`jaxclf.inference.infer` and :func:`likelihood_ratio_test`.

    Source: Wald, Tests of statistical hypotheses concerning several parameters when the number of
    observations is large, Trans. Am. Math. Soc. 54 (1943).
    """
    fit = unpenalised_fit(objective, params, batch, weights)
    check_covariance(covariance, clusters, fit, weights)
    kept = _kept(fit, dropped)
    contrasts = class_contrasts(fit, 0)
    matrix = covariance_of(fit, contrasts, covariance, clusters, weights)
    width = stacked(fit.params).shape[1]
    chosen = np.setdiff1d(np.arange(width), [*kept, *range(fit.params.weights.shape[1], width)])
    places = (np.arange(len(contrasts))[:, None] * width + chosen).ravel()
    theta = contrasted(contrasts, stacked(fit.params).ravel())[places]
    block = matrix[np.ix_(places, places)]
    return _test(float(theta @ np.linalg.solve(block, theta)), len(places))


def score_test(
    objective: Objective, params: Any, batch: Batch, dropped: Sequence[int]
) -> ChiSquareTest:
    """Score test (Rao's, or of Lagrange multipliers) of the same hypothesis, ``Uᵀ I⁻¹ U``.

    It needs the smaller model's optimum alone, so that the larger model may have none. The
    arguments and the errors are those of :func:`likelihood_ratio_test`.

    Source: Rao, Large sample tests of statistical hypotheses concerning several parameters, Proc.
    Camb. Phil. Soc. 44 (1948).
    """
    _check_unpenalised(objective)
    columns = _columns(dropped, np.shape(params.weights)[-1])
    fit, kept = _without(objective, params, batch, columns)
    check_covariance("model", None, fit, "frequency")
    smaller = users_params(fit)
    weights = np.zeros((len(smaller.weights), np.shape(params.weights)[-1]))
    weights[:, kept] = smaller.weights[:, : len(kept)]
    units = columns_of(batch.features, shifted=smaller.intercept is not None)
    with jax.enable_x64(True):
        rows = fit.rows._replace(features=to_host(in_units(units, on_device(batch.features))))
    point = params_in_units(units, smaller._replace(weights=weights))
    _, slope, hessian = derivatives(fit.loss, rows, point)
    inverse = inverse_of(hessian, point, ridge_of(point, 0.0), ignores_shifts=fit.ignores_shifts)
    if inverse is None:
        raise ValueError("columns depend on each other or on the intercept: leave some out")
    gradient = stacked(slope).ravel()
    count = len(columns) * (len(weights) - fit.ignores_shifts)
    return _test(fit.total * float(gradient @ inverse @ gradient), count)


def unpenalised_fit(
    objective: Objective, params: Any, batch: Batch, weights: str | None = "frequency"
) -> Fit:
    """The certified optimum, or an error where there is a penalty."""
    _check_unpenalised(objective)
    return fit_of(objective, params, batch, weights)


def _check_unpenalised(objective: Objective) -> None:
    if isinstance(objective, Objective) and any(
        np.any(np.asarray(x) > 0) for x in objective.strengths
    ):
        raise ValueError(
            f"the objective has the penalty {objective.penalty}: likelihoods are compared without "
            "one"
        )


def _smaller(objective, params, batch, dropped, fit: Fit) -> tuple[Fit, int]:
    kept = _kept(fit, dropped)
    num_logits, d = fit.params.weights.shape
    smaller, _ = _without(objective, params, batch, np.setdiff1d(np.arange(d), kept))
    return smaller, (d - len(kept)) * (num_logits - fit.ignores_shifts)


def _kept(fit: Fit, dropped: Sequence[int]) -> np.ndarray:
    d = fit.params.weights.shape[1]
    return np.setdiff1d(np.arange(d), _columns(dropped, d))


def _columns(dropped: Sequence[int], d: int) -> np.ndarray:
    columns = np.unique(np.asarray(dropped))
    checks.check_integer("dropped", columns)
    if len(columns) == 0 or columns[0] < 0 or columns[-1] >= d:
        raise ValueError(f"dropped must be columns 0 … {d - 1}, one or more, got {list(dropped)}")
    return columns


def _without(objective, params, batch: Batch, dropped) -> tuple[Fit, np.ndarray]:
    """The certified optimum without some columns, and the columns that are left."""
    check_dense("inference", batch.features)
    kept = np.setdiff1d(np.arange(np.shape(params.weights)[-1]), dropped)
    features, weights = np.asarray(batch.features)[:, kept], np.asarray(params.weights)[..., kept]
    if len(kept) == 0:
        # A column of zeros says nothing, and the penalty keeps its weight at zero.
        features = np.zeros((len(features), 1), np.float32)
        weights = np.zeros((*weights.shape[:-1], 1), weights.dtype)
        objective = make_objective(objective.logits_fn, objective.loss, l2(1.0))
    few = params._replace(weights=weights)
    return fit_of(objective, few, batch._replace(features=features), "frequency"), kept


def _test(statistic: float, count: int) -> ChiSquareTest:
    return ChiSquareTest(statistic, count, float(special.chdtrc(count, max(statistic, 0.0))))
