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

from jaxclf import losses
from jaxclf.certificates.certificate import Certificate, certify
from jaxclf.certificates.duality import Known
from jaxclf.certificates.local_bound import local_bound
from jaxclf.facts import facts_of, unwrapped
from jaxclf.inference.gap import gap_by_inverse
from jaxclf.inference.hessian import FEW, ridge_of, stacked, unflattened
from jaxclf.inference.optimum import Optimum, optimum, rows_at
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.columns import (
    Columns,
    columns_of,
    in_units,
    params_in_units,
    penalty_in_units,
)
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


class Fit(NamedTuple):
    """A certified optimum of a linear model; all arrays are float64 and on the host.

    Features, parameters, their ridge and the inverse are in the units of ``columns``, see
    :func:`in_users_units`.
    """

    columns: Columns | None
    """The units; ``None`` for the user's."""
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
    given_loss: Callable
    """The loss as it was given."""
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
def fit_of(
    objective: Objective, params: Any, batch: Batch, kind_of_weights: str | None = None
) -> Fit:
    """The certified optimum of a linear model.

    Args:
      objective: an objective of :func:`jaxclf.make_objective` with the logits of
        :func:`jaxclf.models.linear.logits`, and an L2 penalty or none.
      params: the parameters from which the optimum is sought.
      batch: the rows, in memory.
      kind_of_weights: ``frequency`` where weights count rows. Otherwise their sum says nothing of
        how exact the fit must be, and Kish's number of rows takes its place, ``(Σ w)² / Σ w²``.

    Raises:
      TypeError: an objective that is no linear model.
      ValueError: an L1 penalty; no finite minimiser; columns that depend on each other; an optimum
        that is not certified. The sentence says which.
    """
    if not isinstance(objective, Objective) or not is_linear(objective.logits_fn):
        raise TypeError(
            "inference needs an objective of make_objective with the logits of models.linear.logits"
        )
    loss = unwrapped(objective.loss)[0]
    if loss in (losses.hinge, losses.multiclass_hinge):
        raise ValueError(f"{loss.__name__} has corners: inference takes smooth losses")
    if not is_smooth(objective.strengths):
        raise ValueError(
            "an L1 penalty leaves no smooth likelihood: inference takes an L2 penalty or none"
        )
    check_factors_finite("inference", objective.strengths)
    check_dense("inference", batch.features)
    batch = checked_batch(objective, batch, params)
    n = len(batch.labels)
    weights = np.ones(n) if batch.weights is None else np.asarray(batch.weights, np.float64)
    if params.intercept is not None:
        _check_classes(objective.loss, batch.labels, weights, np.shape(params.weights)[0])
    parts = weights / weights.max()
    count = weights.sum() if kind_of_weights == "frequency" else parts.sum() ** 2 / (parts @ parts)
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        loss, l2 = of_logits(objective.loss, params, batch), objective.strengths.l2
        known, why = known_loss(objective, params, batch)
        features, labels, normalised = on_device(
            (batch.features, labels_of(batch), normalised_weights(batch))
        )
        check_linear(objective, wide, batch)
        columns = columns_of(batch.features, shifted=params.intercept is not None)
        rows = Rows(in_units(columns, features), labels, normalised)
        strengths = Penalty(0.0, np.atleast_2d(l2) if np.ndim(l2) else float(l2))
        penalty = penalty_in_units(columns, strengths)

        def affine(params) -> Affine:
            return params_in_units(columns, as_affine(params), centred=known.ignores_shifts)

        start, few = affine(wide), sum(x.size for x in jax.tree.leaves(wide)) <= FEW
        ridge = ridge_of(start, penalty.l2)
        # A Hessian of many parameters takes longer than a certificate of the start.
        near = (
            few or float(_certificate(loss, known, rows, start, penalty).gap_bound) <= _TOL / count
        )
        found = optimum(loss, rows, start, ridge, known, solved=False) if near else None
        if found is None:
            result = minimize(objective, wide, batch, tol=_TOL / count)
            _check_status(result.status)
            why = result.reason or f"the solver ended with {result.status}"
            found = optimum(loss, rows, affine(result.params), ridge, known, solved=True)
        certificate, bound = _certified(loss, known, rows, found, penalty, _REACHED / count)
        if not bound * count <= _REACHED:
            raise ValueError(
                f"the optimum is not certain: the bound on the gap is {bound:.3g}, and inference "
                f"from {count:g} rows needs {_REACHED / count:.3g}{f' ({why})' * bool(why)}"
            )
        _, z, slopes = to_host(rows_at(loss, like=(rows, found.v))(rows, certificate.affine))
    return Fit(
        columns=columns,
        params=jax.tree.map(np.asarray, certificate.affine),
        logits=z,
        slopes=slopes,
        inverse=found.inverse,
        products=found.products,
        rows=to_host(rows),
        weights=weights,
        loss=loss,
        given_loss=objective.loss,
        ridge=ridge,
        value=float(certificate.value),
        gap_bound=bound,
        ignores_shifts=known.ignores_shifts,
        self_concordance=known.self_concordance,
    )


def _check_classes(loss: Callable, labels: Any, weights: np.ndarray, num_classes: int) -> None:
    facts = facts_of(loss)
    if facts.labels != "class" or not facts.ignores_shifts or facts.attains_minimum:
        return
    counts = np.bincount(np.asarray(labels)[weights > 0], minlength=num_classes)
    if (counts == 0).any():
        raise ValueError(
            f"no row with a weight has the class {counts.argmin()}, so that its intercept has no "
            "finite value: leave the class out"
        )


def check_inside(fit: Fit, bounds: Any, params: Any) -> None:
    """Raises ValueError unless the optimum lies strictly within bounds on its weights; then it is
    the optimum within them too.

    Args:
      fit: the optimum without bounds.
      bounds: ``(lower, upper)``, as in :func:`jaxclf.minimize`.
      params: parameters, for the shape of the weights.
    """
    part = bounded(Penalty(), bounds, np.zeros(np.shape(params.weights))).l1
    w = users_params(fit).weights
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


def _certified(
    loss: Callable, known: Known, rows: Rows, found: Optimum, penalty: Penalty, enough: float
) -> tuple[Certificate, float]:
    """The certificate of an optimum, and a bound on its gap, the dearer one where it is needed."""
    certificate = _certificate(loss, known, rows, found.v, penalty)
    bound = float(certificate.gap_bound)
    if bound <= enough or known.self_concordance is None or not known.convex:
        return certificate, bound
    if len(found.inverse) <= FEW:
        local = local_bound(loss, known, penalty, certificate.affine, rows)
        return certificate, float(np.fmin(local + float(certificate.value_error), bound))
    own = certificate._replace(affine=found.v)
    local = gap_by_inverse(loss, rows, found.v, found.gradient, found.inverse, known)
    return own, min(local, bound)


def _certificate(loss: Callable, known: Known, rows: Rows, v: Affine, penalty: Penalty):
    return certify(loss, known, penalty, on_device(v), rows, narrow=False)[0]


def designed(fit: Fit, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
    """Features ``(n, d)`` in float64, with a column of ones last for an intercept."""
    x = np.asarray(fit.rows.features[rows], np.float64)
    return np.c_[x, np.ones(len(x))] if fit.params.intercept is not None else x


def curvatures_of(fit: Fit) -> np.ndarray:
    """``ℓ″(zᵢ, yᵢ)`` of the rows, ``(n, K, K)``, without weights."""
    with jax.enable_x64(True):
        return np.asarray(_curvatures(fit.loss, like=fit.logits)(fit.logits, fit.rows.labels))


@programs_by_shape
def _curvatures(loss: Callable) -> Callable:
    return jax.jit(lambda z, labels: lp.logit_hessians(loss, z, labels))


def in_users_units(fit: Fit, matrix: np.ndarray) -> np.ndarray:
    """Coefficients, or derivatives of them along the first axis, in the units of the user.

    Args:
      fit: the optimum.
      matrix: ``(m D, …)``, the D coefficients of a logit, or of a contrast, after each other.
    """
    if fit.columns is None:
        return matrix
    centre, scale = fit.columns
    parts = matrix.reshape(-1, stacked(fit.params).shape[1], matrix[0].size).copy()
    parts[:, : len(scale)] *= scale[:, None]
    if fit.params.intercept is not None:
        parts[:, -1] -= np.einsum("j,mjr->mr", centre, parts[:, :-1])
    return parts.reshape(matrix.shape)


def users_params(fit: Fit) -> Affine:
    """The parameters in the units of the user."""
    return unflattened(in_users_units(fit, stacked(fit.params).ravel()), fit.params)
