"""Intervals by the profile of the likelihood, each end of which is certified.

The profile of a coefficient is the largest log-likelihood with the coefficient held. The interval
has the values whose profile lies less than half a χ² quantile below the maximum. It needs no normal
approximation of the estimate, which is poor where the likelihood is skew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from jaxclf import checks
from jaxclf.certificates.local_bound import growth
from jaxclf.inference.covariance import check_covariance, class_contrasts
from jaxclf.inference.fitted import Fit, designed, in_users_units
from jaxclf.inference.hessian import derivatives, inverse_of, stacked, unflattened
from jaxclf.inference.nested import unpenalised_fit
from jaxclf.objectives import Batch, Objective

_MOST_STEPS = 60
_SETTLED = 1e-18
"""The squared Newton decrement, times the number of rows, at which a point is settled."""
_DEVIANCE = 1e-9
"""How close the deviance of an end comes to the quantile. Rounding leaves about 1e-12."""


class ProfileInterval(NamedTuple):
    """The interval of one coefficient."""

    estimate: float
    lower: float
    upper: float
    level: float
    deviance_error: float
    """A bound on how far the deviance at either end is from the quantile, from the certified gaps
    of the optimum and of the profile. Rounding is not in it."""


class _Held(NamedTuple):
    """The best point with a coefficient held."""

    theta: np.ndarray
    value: float
    slope: float
    """The slope of the profile of the mean loss."""
    along: np.ndarray
    """How the point moves with the coefficient."""
    gap_bound: float


def profile_interval(
    objective: Objective,
    params: Any,
    batch: Batch,
    coefficient: int,
    *,
    reference: int = 0,
    level: float = 0.95,
) -> ProfileInterval:
    """The profile-likelihood interval of a coefficient.

    Its ends solve ``2 W (F_t - F) = q`` with F the minimum of the mean loss, F_t the minimum with
    the coefficient held at t, W the sum of the weights and q the quantile of χ² with one degree of
    freedom.

    Args:
      objective: an objective without a penalty, whose loss is a negative log-likelihood in nats.
      params: a fit, or a start.
      batch: the rows. Weights count equal rows.
      coefficient: the number of the coefficient in the order of :func:`jaxclf.inference.infer`:
        the columns, then the intercept, and for K classes one contrast after the other.
      reference: the class that the others are contrasted to.
      level: the probability of the interval, in (0, 1).

    Raises:
      TypeError, ValueError: as :func:`jaxclf.inference.infer`; a penalty; a coefficient that does
        not exist.
      RuntimeError: an end that was not found.

    Example:
      >>> import numpy as np
      >>> from jaxclf import losses, make_batch, make_objective
      >>> from jaxclf.models import linear
      >>> x = np.arange(8.0)[:, None]
      >>> batch = make_batch(x, np.array([0, 0, 1, 0, 1, 0, 1, 1]))
      >>> objective = make_objective(linear.logits, losses.bernoulli_nll)
      >>> start = linear.LinearParams(np.zeros(1), np.zeros(()))
      >>> found = profile_interval(objective, start, batch, 0)
      >>> print(round(found.lower, 3), round(found.upper, 3))
      -0.108 1.762

    Source: Venzon and Moolgavkar, A method for computing profile-likelihood-based confidence
    intervals, Applied Statistics 37 (1988).
    """
    checks.check_number("level", level, above=0, at_most=1 - 1e-12)
    fit = unpenalised_fit(objective, params, batch)
    check_covariance("model", None, fit, "frequency")
    contrasts = class_contrasts(fit, reference)
    width = stacked(fit.params).shape[1]
    checks.check_integer("coefficient", np.array(coefficient))
    if coefficient not in range(len(contrasts) * width):
        raise ValueError(
            f"coefficient must be 0 … {len(contrasts) * width - 1}, got {coefficient!r}"
        )
    contrast, column = divmod(coefficient, width)
    in_units = in_users_units(fit, np.eye(width))[column]
    a = np.kron(contrasts[contrast], in_units)
    best = stacked(fit.params).ravel()
    estimate, u = float(a @ best), fit.inverse @ a
    error = np.sqrt(a @ u / fit.total)
    quantile = float(special.chdtri(1, 1 - level))

    def held(t: float, near: np.ndarray) -> _Held:
        return _held(fit, a, t, near)

    start = _Held(best, fit.value, 0.0, u / (a @ u), fit.gap_bound)
    ends = [
        end_of(held, start, estimate, sign * error, quantile, 2 * fit.total) for sign in (-1, 1)
    ]
    gaps = [2 * fit.total * (fit.gap_bound + point.gap_bound) for _, point in ends]
    return ProfileInterval(
        estimate, ends[0][0], ends[1][0], level, max(gaps) + _DEVIANCE * max(1.0, quantile)
    )


def end_of(
    held: Callable[[float, np.ndarray], Any],
    best: Any,
    estimate: float,
    error: float,
    quantile: float,
    scale: float,
) -> tuple[float, Any]:
    """An end of a profile interval, by Newton's method on the root of the deviance.

    The root is almost linear in t. A trial outside the bracket is replaced by its middle.

    Args:
      held: ``(t, near) -> point``, the best point with the coefficient at t, sought from ``near``.
      best: the point with the coefficient at its estimate. Points have ``theta``, ``value``,
        ``slope`` and ``along``.
      estimate: the estimate.
      error: its standard error, with the sign of the side.
      quantile: the deviance at the end.
      scale: the deviance is so many times the value above the best one.

    Returns:
      The end, and the point there.
    """
    inside, outside = (estimate, best), None
    t = estimate + np.sqrt(quantile) * error
    for _ in range(_MOST_STEPS):
        at, near = inside
        point = held(t, near.theta + (t - at) * near.along)
        deviance = max(scale * (point.value - best.value), 0.0)
        if abs(deviance - quantile) <= _DEVIANCE * max(1.0, quantile):
            return float(t), point
        if deviance < quantile:
            inside = t, point
        else:
            outside = t
        slope = scale * point.slope
        newton = t - 2 * (deviance - np.sqrt(deviance * quantile)) / slope if slope else np.inf
        last = inside[0]
        if outside is None:
            # No step is longer than twice what the interval has by now.
            most = estimate + 3 * (last - estimate)
            t = newton if min(last, most) < newton < max(last, most) else most
        else:
            low, high = sorted((last, outside))
            t = newton if low < newton < high else (low + high) / 2
    raise RuntimeError(f"the end of the interval was not found; it is beyond {inside[0]:g}")


def _held(fit: Fit, a: np.ndarray, t: float, theta: np.ndarray) -> _Held:
    """The minimum of the mean loss where ``aᵀθ = t``, by Newton's method from such a point."""
    point = _on_line(fit, a, theta)
    for _ in range(_MOST_STEPS):
        if fit.total * point.decrement <= _SETTLED:
            break
        point = _lower(fit, a, point)
    gap = _gap(fit, point.inverse, max(point.decrement, 0.0))
    return _Held(point.theta, point.value, point.slope, point.along, gap)


class _OnLine(NamedTuple):
    """A point with the coefficient held, and the step of Newton's method from it."""

    theta: np.ndarray
    value: float
    slope: float
    along: np.ndarray
    step: np.ndarray
    decrement: float
    inverse: np.ndarray


def _on_line(fit: Fit, a: np.ndarray, theta: np.ndarray) -> _OnLine:
    point = unflattened(theta, fit.params)
    risk, gradient, hessian = derivatives(fit.loss, fit.rows, point)
    inverse = inverse_of(hessian, point, fit.ridge, ignores_shifts=fit.ignores_shifts)
    if inverse is None:
        raise RuntimeError("the likelihood is flat on the way to the end of the interval")
    g, u = stacked(gradient).ravel(), inverse @ a
    along = u / (a @ u)
    slope = float(along @ g)
    residual = g - slope * a
    step = -inverse @ residual
    return _OnLine(theta, float(risk), slope, along, step, float(-residual @ step), inverse)


def _lower(fit: Fit, a: np.ndarray, point: _OnLine) -> _OnLine:
    """The point after a step, which is shortened where the loss does not fall."""
    length, noise = 1.0, 1e-15 * abs(point.value)
    while True:
        tried = _on_line(fit, a, point.theta + length * point.step)
        enough = point.value - 1e-4 * length * point.decrement + noise
        if tried.value <= enough or length < 1e-8:
            return tried
        length /= 4


def _gap(fit: Fit, inverse: np.ndarray, squared_decrement: float) -> float:
    """The bound of :mod:`jaxclf.certificates.local_bound`, without rounding."""
    if fit.self_concordance is None:
        return np.inf
    longest = np.sqrt(leverages(fit, inverse)[fit.weights > 0].max())
    q = fit.self_concordance * longest * np.sqrt(squared_decrement)
    return squared_decrement * float(growth(q)) if q < 1 else np.inf


def leverages(fit: Fit, inverse: np.ndarray) -> np.ndarray:
    """``(e_k ⊗ x̃ᵢ)ᵀ A⁻¹ (e_k ⊗ x̃ᵢ)`` of rows and logits, ``(n, K)``."""
    x, num_logits = designed(fit), len(fit.params.weights)
    blocks = inverse.reshape(num_logits, x.shape[1], num_logits, x.shape[1])
    return np.stack([np.sum(x @ blocks[k, :, k] * x, 1) for k in range(num_logits)], 1)
