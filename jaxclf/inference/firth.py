"""Firth's logistic regression, which has finite coefficients also where classes are separated.

The log-likelihood gets Jeffreys' prior as a penalty, with ``I = X̃ᵀ diag(wᵢ πᵢ (1 - πᵢ)) X̃``:

    ℓ*(θ) = ℓ(θ) + ½ log det I(θ)
    U*(θ) = Σ (wᵢ (yᵢ - πᵢ) + hᵢ (½ - πᵢ)) x̃ᵢ

where hᵢ is the leverage of row i, the diagonal of the weighted hat matrix. The penalty takes away
the bias of first order, and is large where probabilities are near 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from jaxclf import checks
from jaxclf.inference.profile import end_of
from jaxclf.inference.table import Inference, column_names
from jaxclf.losses import bernoulli_nll
from jaxclf.models.linear import LinearParams
from jaxclf.objectives import Batch, check_rows, with_checked_labels
from jaxclf.sparse_rows import check_dense

_MOST_STEPS = 200
_SETTLED = 1e-12
"""The rise of ℓ* that the last step promises. Newton's step from there ends at rounding."""
_LONGEST = 5.0
"""The most by which a step moves the logit of a row."""
_SINGULAR = 1e-12


class FirthFit(NamedTuple):
    """A fit by Firth's penalised likelihood."""

    params: LinearParams
    """The maximum of the penalised likelihood, float64 on the host."""
    inference: Inference
    """Estimates and Wald errors; p-values and intervals by the profile of the penalised likelihood.
    """
    log_likelihood: float
    """The penalised log-likelihood ℓ* at the maximum."""
    scaled_score: float
    """``√(U*ᵀ I⁻¹ U*)``, the distance to the maximum in standard errors. ℓ* is not concave
    everywhere, so that there is no certificate."""


class _Point(NamedTuple):
    """A point of the penalised likelihood; ``value`` is ``-ℓ*``."""

    theta: np.ndarray
    value: float
    score: np.ndarray
    inverse: np.ndarray
    """The inverse of the information."""
    slope: float = 0.0
    along: Any = 0.0
    steps: int = 0


class FirthMaximum(NamedTuple):
    """The maximum of the penalised likelihood, without intervals."""

    theta: np.ndarray
    """The coefficients, the intercept last, in float64."""
    scale: np.ndarray
    """The root mean square of each column."""
    point: _Point
    """The maximum for columns over their scale."""
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]
    """The scaled features, labels and weights."""
    log_likelihood: float
    scaled_score: float
    """See :class:`FirthFit`."""


def firth(
    params: LinearParams,
    batch: Batch,
    *,
    level: float = 0.95,
    feature_names: Sequence[str] | None = None,
) -> FirthFit:
    """Logistic regression of two classes by Firth's penalised likelihood.

    Intervals and p-values come from the profile of ℓ*, as Wald's are poor where the likelihood is
    skew. The determinant of the profile is that of the whole information. Standard errors are roots
    of the diagonal of I⁻¹; programs that put ``1 + hᵢ`` into the weights of I have smaller ones.

    Args:
      params: the start, with weights ``(d,)``, and an intercept or ``None``.
      batch: the rows, with labels in [0, 1]. Weights count equal rows.
      level: the probability of the intervals, in (0, 1).
      feature_names: the names of the d columns.

    Raises:
      ValueError: shapes or values that do not fit; columns that depend on each other.
      RuntimeError: a maximum or an end of an interval that was not found.

    Example:
      >>> import numpy as np
      >>> from jaxclf import make_batch
      >>> from jaxclf.models import linear
      >>> separated = make_batch(np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 1, 1]))
      >>> fit = firth(linear.LinearParams(np.zeros(1), np.zeros(())), separated)
      >>> print(fit.params.weights.round(3), fit.inference.upper.round(3)[0] > 2)
      [1.129] True

    Source: Firth, Bias reduction of maximum likelihood estimates, Biometrika 80 (1993); Heinze and
    Schemper, A solution to the problem of separation in logistic regression, Stat. Med. 21 (2002).
    """
    checks.check_number("level", level, above=0, at_most=1 - 1e-12)
    found = firth_maximum(params, batch)
    rows, best, scale = found.rows, found.point, found.scale
    intercept = params.intercept is not None
    error = np.sqrt(np.diagonal(best.inverse))
    lower, upper, p_value = np.array(
        [_profile(rows, best, j, error[j], level) for j in range(len(scale))]
    ).T
    estimate, covariance = found.theta, best.inverse / np.outer(scale, scale)
    columns = column_names(feature_names, len(scale) - intercept)
    names = (*columns, *["intercept"] * intercept)
    inference = Inference(
        names=names,
        intercepts=np.arange(len(names)) == len(params.weights),
        estimate=estimate,
        standard_error=error / scale,
        z=best.theta / error,
        p_value=p_value,
        lower=lower / scale,
        upper=upper / scale,
        covariance=covariance,
        kind="of Firth's fit; p and interval by the profile of the penalised likelihood",
        level=level,
        total=float(rows[2].sum()),
        gap_bound=np.inf,
    )
    weights = estimate[:-1] if intercept else estimate
    fitted = LinearParams(weights, estimate[-1] if intercept else None)
    return FirthFit(fitted, inference, found.log_likelihood, found.scaled_score)


def firth_maximum(params: LinearParams, batch: Batch) -> FirthMaximum:
    """The maximum of the penalised likelihood; arguments and errors are those of :func:`firth`."""
    checks.check_shape("params.weights", params.weights, (None,))
    check_dense("firth", batch.features)
    checks.check_features(batch.features)
    checks.check_shape("features", batch.features, (None, len(params.weights)))
    check_rows(batch)
    batch = with_checked_labels(batch, bernoulli_nll, 1)
    x, y = np.asarray(batch.features, np.float64), np.asarray(batch.labels, np.float64)
    w = np.ones(len(y)) if batch.weights is None else np.asarray(batch.weights, np.float64)
    checks.check_weights(w, num_rows=len(y))
    offset = np.zeros(len(y))
    if batch.offset is not None:
        checks.check_offset(batch.offset, num_rows=len(y))
        checks.check_shape("offset", batch.offset, (len(y),))
        offset = np.asarray(batch.offset, np.float64)
    used = w > 0
    x, y, w, offset = x[used], y[used], w[used], offset[used]
    intercept = params.intercept is not None
    theta = np.asarray(params.weights, np.float64)
    if intercept:
        x, theta = np.c_[x, np.ones(len(x))], np.append(theta, float(params.intercept))
    # Jeffreys' prior does not change with the units of the columns.
    scale = np.sqrt(w @ x**2 / w.sum())
    scaled = x / np.where(scale > 0, scale, 1)
    if np.linalg.eigvalsh(scaled.T @ (w[:, None] * scaled))[0] < _SINGULAR * w.sum():
        raise ValueError(
            "columns of the features depend on each other or on the intercept: leave some out"
        )
    rows = scaled, y, w, offset
    best = _maximum(rows, theta * scale, np.ones(len(theta), bool))
    return FirthMaximum(
        best.theta / scale,
        scale,
        best,
        rows,
        float(np.log(scale).sum() - best.value),
        float(np.sqrt(best.score @ best.inverse @ best.score)),
    )


def _at(rows, theta: np.ndarray) -> _Point:
    x, y, w, offset = rows
    z = x @ theta + offset
    p, q = special.expit(z), special.expit(-z)
    curvature = w * p * q
    information = x.T @ (curvature[:, None] * x)
    sign, log_det = np.linalg.slogdet(information)
    if sign <= 0:
        return _Point(theta, np.inf, np.zeros_like(theta), np.zeros_like(information))
    inverse = np.linalg.inv(information)
    leverage = curvature * np.sum(x @ inverse * x, 1)
    score = x.T @ (w * (y * q - (1 - y) * p) + leverage * (q - p) / 2)
    likelihood = w @ (y * special.log_expit(z) + (1 - y) * special.log_expit(-z))
    return _Point(theta, float(-likelihood - log_det / 2), score, inverse)


def _hessian(rows, point: _Point) -> np.ndarray:
    """The Hessian of ``-ℓ*``, column by column.

    With D the curvatures ``wᵢ πᵢ (1 - πᵢ)`` and along a direction e in which D changes by D′, the
    quantities ``mᵢ = x̃ᵢᵀ I⁻¹ x̃ᵢ`` change by ``-x̃ᵢᵀ I⁻¹ X̃ᵀ D′ X̃ I⁻¹ x̃ᵢ``.
    """
    x, _, w, offset = rows
    z = x @ point.theta + offset
    p, q = special.expit(z), special.expit(-z)
    curvature, s = w * p * q, x @ point.inverse
    m = np.sum(s * x, 1)
    columns = []
    for along in x.T:
        changed = curvature * (q - p) * along
        moved = changed * m - curvature * np.sum(s @ (x.T @ (changed[:, None] * x)) * s, 1)
        slopes = moved * (q - p) / 2 - curvature * (1 + m * p * q) * along
        columns.append(-x.T @ slopes)
    found = np.stack(columns, 1)
    return (found + found.T) / 2


def _maximum(rows, theta: np.ndarray, free: np.ndarray) -> _Point:
    """The maximum of ℓ* over the free coefficients, by Newton's method with shorter steps.

    Where ℓ* is not concave, the information takes the place of its Hessian.
    """
    point = _at(rows, theta)
    if not np.isfinite(point.value):
        point = _at(rows, np.where(free, 0.0, theta))
    if not free.any():
        return point
    for count in range(1, _MOST_STEPS + 1):
        block = np.ix_(free, free)
        try:
            root = np.linalg.cholesky(_hessian(rows, point)[block])
        except np.linalg.LinAlgError:
            root = _root_of_information(point, block)
        step = np.zeros_like(theta)
        step[free] = np.linalg.solve(root.T, np.linalg.solve(root, point.score[free]))
        promised = float(step @ point.score)
        length = min(1.0, _LONGEST / max(np.abs(rows[0] @ step).max(), 1e-300))
        noise = _SETTLED * (1 + abs(point.value))
        while True:
            tried = _at(rows, point.theta + length * step)
            if tried.value <= point.value - 1e-4 * length * promised + noise or length < 1e-10:
                break
            length /= 2
        point = tried
        if promised <= _SETTLED:
            return point._replace(steps=count)
    raise RuntimeError(f"the maximum was not found in {_MOST_STEPS} steps")


def _root_of_information(point: _Point, block) -> np.ndarray:
    try:
        return np.linalg.cholesky(np.linalg.inv(point.inverse)[block])
    except np.linalg.LinAlgError:
        raise ValueError(
            "the information is singular to rounding on the way to the maximum: are the weights of "
            "the rows far from one?"
        ) from None


def _profile(rows, best: _Point, j: int, error: float, level: float) -> tuple[float, float, float]:
    """The ends of a coefficient's interval, and the p-value of zero."""
    free = np.arange(len(best.theta)) != j

    def held(t: float, near: np.ndarray) -> _Point:
        point = _maximum(rows, np.where(free, near, t), free)
        along = point.inverse[:, j] / point.inverse[j, j]
        return point._replace(slope=float(-point.score[j]), along=along)

    start = best._replace(along=best.inverse[:, j] / best.inverse[j, j])
    quantile = float(special.chdtri(1, 1 - level))
    estimate = float(best.theta[j])
    lower, upper = (
        end_of(held, start, estimate, sign * error, quantile, 2.0)[0] for sign in (-1, 1)
    )
    at_zero = held(0.0, best.theta - estimate * start.along)
    deviance = max(2 * (at_zero.value - best.value), 0.0)
    return lower, upper, float(special.chdtrc(1, deviance))
