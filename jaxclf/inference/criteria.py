"""Information criteria along a path of penalties, which choose one without folds."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from scipy.linalg import eigh
from scipy.special import gammaln

from jaxclf import checks
from jaxclf.facts import facts_of
from jaxclf.group_norms import GroupNorms
from jaxclf.inference.hessian import derivatives
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.models.linear import is_linear
from jaxclf.objectives import Batch, Objective
from jaxclf.penalties import Penalty, penalty_value
from jaxclf.promotion import standard_promotion
from jaxclf.scaling.sharing import on_device
from jaxclf.solvers.inputs import (
    as_affine,
    bounded,
    checked_batch,
    labels_of,
    normalised_weights,
    of_logits,
)
from jaxclf.solvers.path import Path
from jaxclf.sparse_rows import is_sparse, to_csr

_SINGULAR = 1e-12
"""A direction of less curvature than this share of the largest, that of the penalty included, is
flat and counts for nothing."""


class InformationCriteria(NamedTuple):
    """Criteria of the fits of a path, one number for each; the smallest is the best."""

    degrees_of_freedom: np.ndarray
    log_likelihood: np.ndarray
    """The log-likelihood of all rows: less their losses, times their weights."""
    aic: np.ndarray
    """Akaike's criterion, ``2 df - 2 log L``."""
    bic: np.ndarray
    """Schwarz's criterion, ``log(W) df - 2 log L`` with W the sum of the weights."""
    ebic: np.ndarray
    """The extended BIC, ``BIC + 2 γ log C(P, ν)`` for ν of P weights, or groups, that are not
    zero."""


@standard_promotion
def information_criteria(
    objective: Objective, path: Path, batch: Batch, *, gamma: float = 0.5
) -> InformationCriteria:
    """AIC, BIC and EBIC of each fit of a path.

    Degrees of freedom are ``tr (H (H + Λ)⁻¹)`` over the parameters that are not zero, with H the
    Hessian of the mean loss and Λ the curvature of the penalty. That is the number of weights that
    are not zero, plus the intercepts, for L1, and the trace of the hat matrix for L2; norms of
    groups curve too. One of K intercepts of a softmax is not free, and neither is a weight at its
    bound.

    Args:
      objective: the objective of :func:`jaxclf.minimize_path`, whose loss must be less the
        log-likelihood of a row, as ``bernoulli_nll`` and ``categorical_nll`` are.
      path: the result.
      batch: the rows that it was fitted to. A weight counts as so many rows.
      gamma: γ of EBIC in [0, 1]; with 0 it is BIC. It weighs how many sets of weights there are.

    Raises:
      TypeError: an objective that is no linear model.
      ValueError: a γ outside [0, 1], or rows that do not fit.

    Source: Zou, Hastie and Tibshirani, On the degrees of freedom of the lasso, Ann. Stat. 35
    (2007); Vaiter, Deledalle, Peyré, Fadili and Dossal, The degrees of freedom of partly smooth
    regularizers, Ann. Inst. Stat. Math. 69 (2017); Chen and Chen, Extended Bayesian information
    criteria, Biometrika 95 (2008).
    """
    checks.check_number("gamma", gamma, at_least=0, at_most=1)
    if not isinstance(objective, Objective) or not is_linear(objective.logits_fn):
        raise TypeError("information_criteria needs the logits of models.linear.logits")
    params = path[0].params
    batch = checked_batch(objective, batch, params)
    total = len(batch.labels) if batch.weights is None else float(np.sum(batch.weights))
    loss = of_logits(objective.loss, params, batch)
    ignores = facts_of(objective.loss).ignores_shifts
    free, risks, chosen = [], [], []
    for result, penalty in zip(path, path.penalties, strict=True):
        v = jax.tree.map(lambda x: np.asarray(x, np.float64), as_affine(result.params))
        with jax.enable_x64(True):
            risks.append(result.value - float(penalty_value(penalty, v._asdict())))
        chosen.append(_chosen(v.weights, penalty))
        free.append(_degrees(loss, batch, v, penalty, ignores, _inside(path, result.params)))
    df, log_likelihood = np.array(free), -total * np.array(risks)
    aic = 2 * df - 2 * log_likelihood
    bic = np.log(total) * df - 2 * log_likelihood
    n, k = np.array(chosen).T
    sets = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return InformationCriteria(df, log_likelihood, aic, bic, bic + 2 * gamma * sets)


def _chosen(w: np.ndarray, penalty: Penalty) -> tuple[int, int]:
    """The number of weights, or of groups, and how many of them are not zero."""
    if not isinstance(penalty.l1, GroupNorms):
        l1 = np.broadcast_to(penalty.l1, w.shape)
        shrunk = (l1 > 0) & np.isfinite(l1)
        return np.count_nonzero(shrunk), np.count_nonzero(w[shrunk])
    used = np.asarray(penalty.l1.numbers)[w.any(0)]
    return len(penalty.l1.weights), len(np.unique(used))


def _inside(path: Path, params) -> np.ndarray:
    """Whether each weight of a fit is not at its bound, ``(K, d)``."""
    w = np.atleast_2d(params.weights)
    if path.bounds is None:
        return np.ones(w.shape, bool)
    part = bounded(Penalty(), path.bounds, params.weights).l1
    return (part.lower < w) & (w < part.upper)


def _degrees(
    loss, batch: Batch, v: Affine, penalty: Penalty, ignores_shifts: bool, inside: np.ndarray
) -> float:
    """The degrees of freedom of one fit."""
    w, grouped = v.weights, isinstance(penalty.l1, GroupNorms)
    l1 = np.broadcast_to(penalty.l1.strength if grouped else penalty.l1, w.shape)
    intercepts = 0 if v.intercept is None else len(w) - ignores_shifts
    used = np.where(l1 > 0, w != 0, np.isfinite(penalty.l2)) & inside
    l2 = np.where(used, penalty.l2, 0)
    if (l1 > 0).all() and not l2.any() and not grouped:
        return float(np.count_nonzero(used) + intercepts)
    if not used.any():
        return float(intercepts)
    columns = np.flatnonzero((used | (w != 0)).any(0))  # all that are in the logits
    hessian, used = _hessian_over(loss, batch, v, columns), used[:, columns]
    curved = np.diag(l2[:, columns].ravel())
    if grouped:
        curved += _curvature_of_norms(penalty.l1, w[:, columns], columns)
    if v.intercept is not None:  # it comes last for each logit
        used = np.c_[used, np.ones(len(w), bool)]
        inside = np.flatnonzero(np.arange(used.size) % used.shape[1] < len(columns))
        wide = np.zeros((used.size, used.size))
        wide[np.ix_(inside, inside)] = curved
        curved = wide
    places = np.flatnonzero(used)
    hessian, curved = (x[np.ix_(places, places)] for x in (hessian, curved))
    values, vectors = eigh(hessian + curved)
    seen = values > _SINGULAR * values[-1]
    part = vectors[:, seen]
    return float(np.sum((part * (hessian @ part)).sum(0) / values[seen]))


def _curvature_of_norms(norms: GroupNorms, w: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The Hessian of the norms over the weights of some columns, ``(K m, K m)``."""
    numbers = np.tile(np.asarray(norms.numbers)[columns], len(w))
    flat, found = w.ravel(), np.zeros((w.size, w.size))
    for group in np.unique(numbers):
        own = np.flatnonzero(numbers == group)
        size = np.linalg.norm(flat[own])
        u = flat[own] / size
        strength = float(norms.strength) * float(norms.weights[group])
        found[np.ix_(own, own)] = strength / size * (np.eye(len(own)) - np.outer(u, u))
    return found


def _hessian_over(loss, batch: Batch, v: Affine, columns: np.ndarray) -> np.ndarray:
    """The Hessian of the mean loss over some columns and the intercept of each logit."""
    # The columns are filled up with zeros to few widths, so that few programs are compiled.
    width = 1 << (len(columns) - 1).bit_length()
    width = width if width * len(v.weights) <= 256 else len(columns)
    features = batch.features
    x = np.zeros((len(batch.labels), width))
    if is_sparse(features):
        x[:, : len(columns)] = to_csr(features)[:, columns].toarray()
    else:
        x[:, : len(columns)] = np.asarray(features)[:, columns]
    weights = np.zeros((len(v.weights), width))
    weights[:, : len(columns)] = v.weights[:, columns]
    with jax.enable_x64(True):
        rows = Rows(*on_device((x, labels_of(batch), normalised_weights(batch))))
        point = on_device(Affine(weights, v.intercept))
        _, _, hessian = derivatives(loss, rows, point)
    num_logits, extra = len(v.weights), int(v.intercept is not None)
    kept = np.append(np.arange(len(columns)), np.arange(width, width + extra))
    hessian = np.asarray(hessian).reshape(num_logits, width + extra, num_logits, width + extra)
    hessian = hessian[:, kept][:, :, :, kept]
    return hessian.reshape(num_logits * len(kept), -1)
