"""The certified optimum that inference rests on, in float64, with its curvature.

Statistics asks for more digits than training does. The optimum is therefore sought again in float64
from the given parameters, and steps of Newton's method with the whole Hessian bring it to rounding.
Its certificate then says whether inference may start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf.certificates.certificate import certify
from jaxclf.certificates.local_bound import local_bound
from jaxclf.facts import facts_of
from jaxclf.inference.hessian import (
    derivatives,
    inverse_of,
    inverse_of_positive,
    ridge_of,
    stacked,
    unflattened,
)
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.models.linear import is_linear
from jaxclf.objectives import Batch, Objective
from jaxclf.penalties import Penalty, largest_l1
from jaxclf.programs import programs_by_shape
from jaxclf.promotion import standard_promotion
from jaxclf.scaling.sharing import on_device, to_host
from jaxclf.solvers.inputs import (
    as_affine,
    checked_batch,
    known_loss,
    labels_of,
    normalised_weights,
    of_logits,
)
from jaxclf.solvers.minimize import minimize
from jaxclf.sparse_rows import check_dense

_TOL = 1e-9
"""The gap that is asked of the solver, times the number of rows. A gap of ``ε² / 2`` divided by the
number of rows moves a coefficient by ε of its standard errors."""
_REACHED = 1e-6
"""The largest certified gap, times the number of rows, with which inference starts."""
_SETTLED = 1e-13
"""The squared Newton decrement, times the number of rows, from which on another Hessian changes
nothing."""
_STEPS = 5


class Fit(NamedTuple):
    """A certified optimum of a linear model; all arrays are float64 and on the host."""

    params: Affine
    """The parameters as matrices, ``(K, d)`` and ``(K,)`` or ``None``."""
    logits: np.ndarray
    """The logits of the rows, ``(n, K)``, without the offset, which stands beside the labels."""
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
    if (strength := largest_l1(objective.strengths)) > 0:
        raise ValueError(
            f"an L1 penalty of {strength:g} leaves no smooth likelihood: "
            "inference takes an L2 penalty or none"
        )
    if any(np.ndim(strength) for strength in objective.strengths):
        raise ValueError("inference takes one strength for all coefficients, not penalty factors")
    check_dense("inference", batch.features)
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
        loss = loss if batch.offset is None else lp.with_offset(loss)
        features, labels, normalised = on_device(
            (batch.features, labels_of(batch), normalised_weights(batch))
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


@programs_by_shape
def _rows_at(loss: Callable) -> Callable:
    def at(rows: Rows, v: Affine):
        z = lp.logits(rows.features, v)
        return z, jax.vmap(jax.grad(loss))(z, rows.labels)

    return jax.jit(at)


def _singular(rows: Rows, v: Affine) -> str:
    """The reason for a singular Hessian."""
    moments = lp.gram(rows.features, rows.weights, intercept=v.intercept is not None)
    if inverse_of_positive(np.array(moments)) is None:
        return (
            "columns of the features depend on each other or on the intercept, so that their "
            "coefficients have no error: leave some out, or add an L2 penalty"
        )
    return (
        "the likelihood is flat where the solver ended: the classes may be separated, so that "
        "larger coefficients are always better; an L2 penalty or jaxclf.inference.firth has a "
        "finite maximum"
    )


def designed(fit: Fit, rows: slice = slice(None)) -> np.ndarray:
    """Features ``(n, d)`` in float64, with a column of ones last for an intercept."""
    x = np.asarray(fit.rows.features[rows], np.float64)
    return np.c_[x, np.ones(len(x))] if fit.params.intercept is not None else x
