"""What the coefficients of a fit mean: estimates, errors, tests and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from jaxclf import checks
from jaxclf.inference.covariance import (
    check_covariance,
    class_contrasts,
    contrasted,
    covariance_of,
)
from jaxclf.inference.fitted import Fit, check_inside, fit_of, in_users_units
from jaxclf.inference.hessian import stacked
from jaxclf.objectives import Batch, Objective

_MEANING = {
    "model": "of the model",
    "posterior": "of the posterior",
    "sandwich": "sandwich (HC0)",
    "cluster": "sandwich over clusters",
}
_MOST_LINES = 60
"""The most lines of a printed table; ``to_dict`` has all of them."""
_COLUMNS = ("estimate", "standard_error", "z", "p_value", "lower", "upper")


class Inference(NamedTuple):
    """Coefficients with their errors, tests and intervals; each array has one entry a name."""

    names: tuple[str, ...]
    """The names of the coefficients: of one logit after the other, its intercept last."""
    intercepts: np.ndarray
    """Whether each is an intercept, ``(m,)``."""
    estimate: np.ndarray
    standard_error: np.ndarray
    z: np.ndarray
    """The estimate over its standard error; NaN where the error is zero, as by the model with a
    ridge for a column of zeros."""
    p_value: np.ndarray
    """The two-sided p-value of z under a standard normal."""
    lower: np.ndarray
    upper: np.ndarray
    covariance: np.ndarray
    """The covariance of the coefficients, ``(m, m)``."""
    kind: str
    """The covariance in words, and what the coefficients are contrasts to."""
    level: float
    total: float
    """The sum of the weights; the number of rows where they have none."""
    gap_bound: float
    """A bound on the objective at the estimates less its minimum; infinite where there is none."""

    def __str__(self) -> str:
        width = min(40, max(11, *map(len, self.names)))
        percent = f"{100 * self.level:g} %"
        heads = ("estimate", "std. error", "z", "p", f"{percent} from", "to")
        lines = [" ".join([" " * width, *(f"{head:>11}" for head in heads)])]
        for i, name in enumerate(self.names[:_MOST_LINES]):
            numbers = (getattr(self, column)[i] for column in _COLUMNS)
            lines.append(" ".join([f"{name[:width]:{width}}", *(f"{x:11.4g}" for x in numbers)]))
        if len(self.names) > _MOST_LINES:
            lines.append(f"and {len(self.names) - _MOST_LINES} more")
        gap = f" Gap: at most {self.gap_bound:.2g}." if np.isfinite(self.gap_bound) else ""
        lines.append(f"Errors: {self.kind}. Rows: {self.total:g}.{gap}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, fit for JSON, without the covariance."""
        table = {column: getattr(self, column).tolist() for column in _COLUMNS}
        facts = ("kind", "level", "total", "gap_bound")
        return {"name": list(self.names), **table, **{fact: getattr(self, fact) for fact in facts}}

    def to_frame(self):
        """The table as a DataFrame of pandas, which must be installed; its index has the names."""
        import pandas as pd  # no dependency of jaxclf

        return pd.DataFrame(
            {column: getattr(self, column) for column in _COLUMNS},
            index=pd.Index(self.names, name="coefficient"),
        )


def infer(
    objective: Objective,
    params: Any,
    batch: Batch,
    *,
    covariance: str = "model",
    clusters=None,
    weights: str | None = None,
    reference: int | None = 0,
    level: float = 0.95,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    bounds: Any = None,
) -> Inference:
    """Standard errors, tests and intervals of the coefficients of a linear model.

    The optimum is sought from ``params`` in float64, whatever JAX's 64-bit mode, and must be
    certified. With W the sum of the weights, ω the weights over W, A the Hessian of the objective
    and gᵢ the gradient of row i at the optimum, the covariance is

    - ``model``: ``A⁻¹ H A⁻¹ / W`` with H the Hessian of the mean loss. Without a penalty it is the
      inverse of the information, ``H⁻¹ / W``. With a ridge it is the frequentist covariance of the
      estimate, whose bias it does not know.
    - ``posterior``: ``A⁻¹ / W``, the covariance of the normal approximation of the posterior, for
      which a ridge is a normal prior. Without a penalty it is that of ``model``.
    - ``sandwich``: ``A⁻¹ (Σ ωᵢ² gᵢ gᵢᵀ) A⁻¹``, which holds also where the model does not. It is
      called HC0, as it has no correction for a small number of rows.
    - ``cluster``: the same with the sums of ``ωᵢ gᵢ`` over clusters in the place of ``ωᵢ gᵢ``,
      without a correction for few clusters.

    ``model`` and ``posterior`` need a loss that is a negative log-likelihood in nats; the sandwich
    takes any smooth convex loss. Intervals are ``estimate ± q · error`` with q of the normal
    distribution.

    For K classes only differences of logits mean something. The coefficients are therefore
    contrasts to the ``reference`` class, ``θ_k - θ_ref`` for every other class k, or with
    ``reference=None`` to the mean of all classes, whose K rows sum to zero.

    Args:
      objective: an objective of :func:`jaxclf.make_objective` with the logits of
        :func:`jaxclf.models.linear.logits`, and with an L2 penalty or none.
      params: a fit or a start, with weights ``(d,)`` or ``(K, d)``.
      batch: the rows, in memory.
      covariance: one of the names above.
      clusters: the cluster of each row, ``(n,)`` numbers or texts, for ``cluster``.
      weights: the meaning of weights in the batch, which must be said if there are any. A row of
        ``frequency`` f counts as f equal rows. ``sampling`` weights say how many of a population a
        row stands for; only a sandwich is right for them.
      reference: a class, or ``None``; without effect on a loss that sees every logit.
      level: the probability of the intervals, in (0, 1).
      feature_names: the names of the d columns.
      class_names: the names of the K classes.
      bounds: the bounds of a fit by :func:`jaxclf.minimize`. Errors do not hold where a weight is
        at its bound, so that the optimum must lie strictly within them.

    Returns:
      An :class:`Inference`, which prints as a table.

    Raises:
      TypeError: an objective that is no linear model.
      ValueError: no finite minimiser, an optimum that is not certified, columns that depend on each
        other, an L1 penalty, a weight at its bound, or options that do not fit together.

    Example:
      >>> import numpy as np
      >>> from jaxclf import losses, make_batch, make_objective
      >>> from jaxclf.models import linear
      >>> from jaxclf.inference import infer
      >>> x = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])[:, None]
      >>> batch = make_batch(x, np.array([0, 0, 1, 0, 1, 0, 1, 1]))
      >>> objective = make_objective(linear.logits, losses.bernoulli_nll)
      >>> start = linear.LinearParams(np.zeros(1), np.zeros(()))
      >>> found = infer(objective, start, batch, feature_names=["dose"])
      >>> print(found.names, found.estimate.round(3), found.standard_error.round(3))
      ('dose', 'intercept') [ 0.594 -2.079] [0.432 1.733]

    Source: White, Maximum likelihood estimation of misspecified models, Econometrica 50 (1982);
    Liang and Zeger, Longitudinal data analysis using generalized linear models, Biometrika 73
    (1986) for clusters.
    """
    checks.check_number("level", level, above=0, at_most=1 - 1e-12)
    fit = fit_of(objective, params, batch, weights)
    if bounds is not None:
        check_inside(fit, bounds, params)
    check_covariance(covariance, clusters, fit, weights)
    contrasts = class_contrasts(fit, reference)
    matrix = in_users_units(fit, covariance_of(fit, contrasts, covariance, clusters, weights))
    matrix = in_users_units(fit, matrix.T)
    estimate = in_users_units(fit, contrasted(contrasts, stacked(fit.params).ravel()))
    names, against = names_of(fit, reference, feature_names, class_names)
    width = stacked(fit.params).shape[1]
    last = np.arange(len(names)) % width == fit.params.weights.shape[1]
    kind = _MEANING[covariance]
    if fit.ridge.any() and covariance == "model":
        kind += ", frequentist with a ridge"
    return table_of(names, last, estimate, matrix, kind + against, level, fit)


def table_of(names, intercepts, estimate, matrix, kind: str, level: float, fit: Fit) -> Inference:
    """The table of estimates with their covariance."""
    error = np.sqrt(np.diagonal(matrix))
    z = np.divide(estimate, error, out=np.full(len(error), np.nan), where=error > 0)
    half = special.ndtri((1 + level) / 2) * error
    return Inference(
        names=names,
        intercepts=intercepts,
        estimate=estimate,
        standard_error=error,
        z=z,
        p_value=2 * special.ndtr(-np.abs(z)),
        lower=estimate - half,
        upper=estimate + half,
        covariance=matrix,
        kind=kind,
        level=level,
        total=fit.total,
        gap_bound=fit.gap_bound,
    )


def names_of(
    fit: Fit, reference: int | None, feature_names, class_names
) -> tuple[tuple[str, ...], str]:
    """The names of contrasts as :func:`infer` orders them, and what they are contrasts to.

    Raises:
      ValueError: if there are not as many names as columns or classes.
    """
    num_logits, d = fit.params.weights.shape
    columns = column_names(feature_names, d)
    columns += ["intercept"] * (fit.params.intercept is not None)
    if num_logits == 1:
        return tuple(columns), ""
    classes = _named("class_names", class_names, num_logits, "class ")
    against = ""
    if fit.ignores_shifts:
        against = "; contrasts to the mean of the classes"
        if reference is not None:
            against = f"; contrasts to {classes.pop(reference)}"
    return tuple(f"{name}: {column}" for name in classes for column in columns), against


def column_names(feature_names: Sequence[str] | None, d: int) -> list[str]:
    """The names of d columns, or numbers; raises ValueError if there are not d."""
    return _named("feature_names", feature_names, d, "x")


def _named(what: str, given: Sequence[str] | None, count: int, prefix: str) -> list[str]:
    if given is None:
        return [f"{prefix}{i}" for i in range(count)]
    if len(given) != count:
        raise ValueError(f"{what} must be {count} names, got {len(given)}")
    return [str(name) for name in given]
