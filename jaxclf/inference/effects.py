"""Coefficients in terms of odds and of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.activations import sigmoid, softmax
from jaxclf.facts import facts_of
from jaxclf.inference.covariance import check_covariance, covariance_of, is_no_likelihood
from jaxclf.inference.fitted import fit_of
from jaxclf.inference.hessian import stacked
from jaxclf.inference.table import Inference, names_of, table_of
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine
from jaxclf.objectives import Batch, Objective
from jaxclf.programs import programs_by_shape


class OddsRatios(NamedTuple):
    """Factors of the odds per unit of a feature."""

    names: tuple[str, ...]
    ratio: np.ndarray
    standard_error: np.ndarray
    """The error by the delta method, which is the ratio times the error of the coefficient."""
    lower: np.ndarray
    upper: np.ndarray


def odds_ratios(inference: Inference) -> OddsRatios:
    """The factor ``exp θ`` by which the odds change per unit of a feature, with its interval.

    For K classes the odds are those of a class against the reference. The interval has the
    exponentials of the ends of the coefficient's interval, and is not symmetric.

    Args:
      inference: a table of :func:`jaxclf.inference.infer`.

    Source: Cox, The regression analysis of binary sequences, J. R. Stat. Soc. B 20 (1958).
    """
    with np.errstate(over="ignore"):  # a unit may be so large that a factor is infinite
        ratio = np.exp(inference.estimate)
        return OddsRatios(
            names=inference.names,
            ratio=ratio,
            standard_error=ratio * inference.standard_error,
            lower=np.exp(inference.lower),
            upper=np.exp(inference.upper),
        )


def average_marginal_effects(
    objective: Objective,
    params: Any,
    batch: Batch,
    *,
    covariance: str = "model",
    clusters=None,
    weights: str | None = None,
    level: float = 0.95,
    feature_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> Inference:
    """The mean over the rows of ``∂p/∂xⱼ``, with errors by the delta method.

    With ``p = σ(z)`` the effect of column j is ``Σ ωᵢ pᵢ (1 - pᵢ) θⱼ``. With K classes each class
    has effects, ``Σ ωᵢ p_ik (θ_kj - Σ_l p_il θ_lj)``, which sum to zero over the classes. Their
    covariance is ``J V Jᵀ`` with V that of the coefficients and J the effects' derivative. The rows
    are taken as they are, without an error of their own.

    The arguments and the errors are those of :func:`jaxclf.inference.infer`. The loss must be a log
    loss whose probabilities are the sigmoid or the softmax of the logits.

    Returns:
      An :class:`Inference` whose coefficients are the effects, without intercepts.

    Source: Bartus, Estimation of marginal effects using margeff, Stata Journal 5 (2005).
    """
    checks.check_number("level", level, above=0, at_most=1 - 1e-12)
    fit = fit_of(objective, params, batch, weights)
    if is_no_likelihood(fit.given_loss) or facts_of(fit.given_loss).labels == "number":
        raise ValueError(
            "average marginal effects are those of probabilities, so the loss must be a log loss "
            "of a sigmoid or a softmax"
        )
    check_covariance(covariance, clusters, fit, weights)
    num_logits, d = fit.params.weights.shape
    contrasts = np.eye(num_logits) - fit.ignores_shifts / num_logits
    matrix = covariance_of(fit, contrasts, covariance, clusters, weights)
    run = _effects(fit.ignores_shifts, like=(fit.params, fit.rows.features))
    scale = np.ones(d) if fit.columns is None else fit.columns.scale
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        effects, jacobian = jax.tree.map(np.asarray, run(fit.params, scale, *fit.rows))
    width = stacked(fit.params).shape[1]
    J = _stacked(jacobian).reshape(num_logits * d, num_logits * width)
    all_names, _ = names_of(fit, None, feature_names, class_names)
    names = tuple(name for i, name in enumerate(all_names) if i % width < d)
    kind, none = "average marginal effects, delta method", np.zeros(len(names), bool)
    return table_of(names, none, effects.ravel(), J @ matrix @ J.T, kind, level, fit)


def _stacked(jacobian: Affine) -> np.ndarray:
    """Derivatives ``(K, d, K, d)`` and ``(K, d, K)`` in the order of stacked parameters."""
    w, b = jacobian
    return np.asarray(w) if b is None else np.concatenate([w, b[..., None]], -1)


@programs_by_shape
def _effects(ignores_shifts: bool):
    probabilities = softmax if ignores_shifts else sigmoid

    def mean_effects(v: Affine, scale, features, labels, shares):
        z = lp.at_offset(lp.logits(features, v), labels)
        # The derivative of the probabilities in the logits, averaged over the rows.
        slopes = jax.vmap(jax.jacobian(probabilities))(z)
        return jnp.einsum("n,nkl->kl", shares, slopes) @ (v.weights * scale[None])

    def both(v: Affine, *given):
        return mean_effects(v, *given), jax.jacobian(mean_effects)(v, *given)

    return jax.jit(both)
