"""The certified optimum that inference rests on, in float64, with its curvature.

Statistics asks for more digits than training does. Steps of Newton's method in float64 therefore
bring the given parameters to rounding, after a solver where they are not near the optimum. The
certificate then says whether inference may start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf.certificates.certificate import Certificate, certify
from jaxclf.certificates.duality import Known
from jaxclf.certificates.local_bound import local_bound
from jaxclf.inference.gap import gap_by_inverse
from jaxclf.inference.hessian import (
    FEW,
    derivatives,
    error_of,
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
from jaxclf.penalties import Penalty, check_factors_finite, is_smooth
from jaxclf.programs import programs_by_shape
from jaxclf.promotion import standard_promotion
from jaxclf.scaling.sharing import on_device, to_host
from jaxclf.solvers.inputs import (
    as_affine,
    bounded,
    check_linear,
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
_SAME = 1e-8
"""The curvature counts as that of the optimum where it has changed by no larger share."""
_ERROR = 1e-4
"""The same for more than ``FEW`` parameters, with the rounding of float32 in it. Standard errors
are then off by half of it at most, and sampling moves them by ``1 / √(2 n)``."""
_NEAR = 0.1
"""The largest change of a logit by Newton's step from a start that needs no solver first."""
_STEPS = 5


class Fit(NamedTuple):
    """A certified optimum of a linear model; all arrays are float64 and on the host."""

    params: Affine
    """The parameters as matrices, ``(K, d)`` and ``(K,)`` or ``None``."""
    logits: np.ndarray
    """The logits of the rows, ``(n, K)``, without the offset, which stands beside the labels."""
    slopes: np.ndarray
    """``ℓ′(zᵢ, yᵢ)`` of the rows, ``(n, K)``, without weights."""
    inverse: np.ndarray
    """The inverse of the Hessian of the objective, ``(P, P)``. The parameters of a logit follow
    each other, its intercept last. One shift of all logits, which a softmax does not see, is given
    a curvature first; no contrast of classes feels it."""
    products: Any
    """The dtype of the products that made the Hessian: float32 where that is close enough."""
    rows: Rows
    """The rows; their weights sum to one."""
    weights: np.ndarray
    """The weights of the rows as they were given, ``(n,)``; ones where none were."""
    loss: Callable
    """The loss as a function of ``(K,)`` logits."""
    ridge: np.ndarray
    """The penalty's curvature of each parameter, ``(P,)``, zero for intercepts."""
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
    if not is_smooth(objective.strengths):
        raise ValueError(
            "an L1 penalty leaves no smooth likelihood: inference takes an L2 penalty or none"
        )
    check_factors_finite("inference", objective.strengths)
    check_dense("inference", batch.features)
    batch = checked_batch(objective, batch, params)
    n = len(batch.labels)
    weights = np.ones(n) if batch.weights is None else np.asarray(batch.weights, np.float64)
    total = weights.sum()
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        loss, l2 = of_logits(objective.loss, params, batch), objective.strengths.l2
        known, why = known_loss(objective, params, batch)
        features, labels, normalised = on_device(
            (batch.features, labels_of(batch), normalised_weights(batch))
        )
        rows = Rows(features, labels, normalised)
        start, few = as_affine(wide), sum(x.size for x in jax.tree.leaves(wide)) <= FEW
        check_linear(objective, wide, batch)
        ridge = ridge_of(start, l2)
        found = _optimum(loss, rows, start, ridge, known, near=True) if few else None
        if found is None:
            result = minimize(objective, wide, batch, tol=_TOL / total)
            _check_status(result.status)
            why = result.reason or f"the solver ended with {result.status}"
            found = _optimum(loss, rows, as_affine(result.params), ridge, known, near=False)
        penalty = Penalty(0.0, np.atleast_2d(l2) if np.ndim(l2) else float(l2))
        certificate, bound = _certified(loss, known, rows, found, penalty, _REACHED / total)
        if not bound * total <= _REACHED:
            raise ValueError(
                f"the optimum is not certain: the bound on the gap is {bound:.3g}, and inference "
                f"from {total:g} rows needs {_REACHED / total:.3g} ({why})"
            )
        _, z, slopes = to_host(_rows_at(loss, like=(rows, found.v))(rows, certificate.affine))
    return Fit(
        params=jax.tree.map(np.asarray, certificate.affine),
        logits=z,
        slopes=slopes,
        inverse=found.inverse,
        products=found.products,
        rows=to_host(rows),
        weights=weights,
        loss=loss,
        ridge=ridge,
        value=float(certificate.value),
        gap_bound=bound,
        ignores_shifts=known.ignores_shifts,
        self_concordance=known.self_concordance,
    )


def check_inside(fit: Fit, bounds: Any, params: Any) -> None:
    """Raises ValueError unless the optimum lies strictly within bounds on its weights; then it is
    the optimum within them too.

    Args:
      fit: the optimum without bounds.
      bounds: ``(lower, upper)``, as in :func:`jaxclf.minimize`.
      params: parameters, for the shape of the weights.
    """
    part, w = bounded(Penalty(), bounds, np.zeros(np.shape(params.weights))).l1, fit.params.weights
    beyond = np.argwhere((w <= part.lower) | (w >= part.upper))
    if len(beyond):
        at = tuple(beyond[0])
        raise ValueError(
            "standard errors do not hold where a weight is at its bound: without bounds column "
            f"{at[1]} would have {w[at]:.6g}, which is not between {part.lower[at]:g} and "
            f"{part.upper[at]:g}"
        )


def _check_status(status: str) -> None:
    if status == "no_finite_minimiser":
        raise ValueError(
            "there is no finite maximum of the likelihood: the classes are separated, so that "
            "larger coefficients are always better; an L2 penalty or jaxclf.inference.firth has one"
        )
    if status == "nonfinite":
        raise ValueError("the objective became infinite on the way to the optimum: scale features")


class _Optimum(NamedTuple):
    v: Affine
    gradient: np.ndarray
    inverse: np.ndarray
    products: Any


def _optimum(
    loss: Callable, rows: Rows, v: Affine, ridge: np.ndarray, known: Known, *, near: bool
) -> _Optimum | None:
    """The optimum by Newton's method, with one Hessian for as long as it changes little.

    With ``near`` the result is ``None`` where the start is not near the optimum.
    """
    few, concordance = len(ridge) <= FEW, known.self_concordance or 1.0
    products, same = (np.float64, _SAME) if few else (np.float32, _ERROR)
    run, counted = _rows_at(loss, like=(rows, v)), np.asarray(rows.weights)[:, None] > 0

    def at(v: Affine) -> tuple[np.ndarray, np.ndarray]:
        gradient, z, _ = to_host(run(rows, v))
        return stacked(gradient).ravel() + ridge * stacked(v).ravel(), z

    g, z = at(v)
    for _ in range(_STEPS):
        hessian = derivatives(loss, rows, v, products)[2]
        inverse = inverse_of(hessian, v, ridge, ignores_shifts=known.ignores_shifts)
        if products == np.float32 and not _is_close(loss, rows, v, ridge, inverse):
            products, hessian = np.float64, derivatives(loss, rows, v)[2]
            inverse = inverse_of(hessian, v, ridge, ignores_shifts=known.ignores_shifts)
        del hessian
        if inverse is None:
            if near:
                return None
            raise ValueError(_singular(rows, v))
        there, before, moved = z, np.inf, 0.0
        # The decrement falls with each step, until rounding is what is left of it.
        while (decrement := g @ (step := inverse @ g)) < before / 4:
            v, before = unflattened(stacked(v).ravel() - step, v), decrement
            g, z = at(v)
            moved = concordance * np.abs(z - there).max(initial=0.0, where=counted)
            if near and not moved <= _NEAR:
                return None
        if moved <= same:
            break
    return _Optimum(v, g, inverse, products)


def _is_close(loss: Callable, rows: Rows, v: Affine, ridge: np.ndarray, inverse) -> bool:
    return inverse is not None and error_of(loss, rows, v, ridge, inverse) <= _ERROR


def _certified(
    loss: Callable, known: Known, rows: Rows, found: _Optimum, penalty: Penalty, enough: float
) -> tuple[Certificate, float]:
    """The certificate of an optimum, and a bound on its gap, the dearer one where it is needed."""
    certificate, _ = certify(loss, known, penalty, on_device(found.v), rows, narrow=False)
    bound = float(certificate.gap_bound)
    if bound <= enough or known.self_concordance is None or not known.convex:
        return certificate, bound
    if len(found.inverse) <= FEW:
        local = local_bound(loss, known, penalty, certificate.affine, rows)
        return certificate, float(np.fmin(local + float(certificate.value_error), bound))
    own = certificate._replace(affine=found.v)
    local = gap_by_inverse(loss, rows, found.v, found.gradient, found.inverse, known)
    return own, min(local, bound)


@programs_by_shape
def _rows_at(loss: Callable) -> Callable:
    """The gradient of the mean loss, the logits of the rows, and ``ℓ′`` there."""

    def at(rows: Rows, v: Affine):
        z = lp.logits(rows.features, v)
        slopes = jax.vmap(jax.grad(loss))(z, rows.labels)
        weighted = slopes * rows.weights[:, None]
        gradient = lp.transpose_product(rows.features, weighted, intercept=v.intercept is not None)
        return gradient, z, slopes

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
