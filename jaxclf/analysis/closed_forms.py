"""Second derivatives of the losses in the logits, as formulas, and what they imply for the risk.

Tests hold each formula to ``jax.hessian`` of the loss; nothing here differentiates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxclf import losses
from jaxclf.activations import sigmoid, softmax


def bernoulli_curvature(logit, label) -> jax.Array:
    """``d²/dz²`` of the log loss: ``s (1 - s)`` with s = σ(z), whatever the label."""
    del label
    return sigmoid(logit) * sigmoid(-logit)


def sigmoid_squared_error_curvature(logit, label) -> jax.Array:
    """``d²/dz² (σ(z) - y)² = 2 s (1 - s) [-3 s² + 2 (1 + y) s - y]`` with s = σ(z).

    For y = 1 the bracket is ``(1 - s)(3 s - 1)``, negative exactly where s < 1/3, z < -log 2.
    """
    s, t = sigmoid(logit), sigmoid(-logit)
    # The bracket is split by the label, so that it keeps its precision where s is close to 1.
    return 2 * s * t * (label * t * (3 * s - 1) + (1 - label) * s * (2 - 3 * s))


def categorical_hessian(logits, label) -> jax.Array:
    """``diag(p) - p pᵀ`` with p = softmax(z): ``(K,) -> (K, K)``, whatever the label."""
    del label
    p = softmax(logits)
    return jnp.diag(p) - jnp.outer(p, p)


def softmax_squared_error_hessian(logits, label) -> jax.Array:
    """``2 [J² + Σ_k p_k (r_k - r̄) (e_k - p)(e_k - p)ᵀ]``: ``(K,) -> (K, K)``.

    Here p = softmax(z), r = p - e_y, r̄ = pᵀr and J = diag(p) - p pᵀ = Σ_k p_k (e_k-p)(e_k-p)ᵀ.
    """
    p = softmax(logits)
    r = p - (jnp.arange(p.shape[0]) == label)
    centred = jnp.eye(p.shape[0], dtype=p.dtype) - p[None]  # row k is e_k - p
    jacobian = jnp.diag(p) - jnp.outer(p, p)
    return 2 * (jacobian @ jacobian + (centred.T * (p * (r - p @ r))[None]) @ centred)


def squared_error_curvature(logit, label) -> jax.Array:
    """``d²/dz² (z - y)² = 2``, whatever the logit and the label."""
    del label
    return jnp.full_like(logit, 2)


def onehot_squared_error_hessian(logits, label) -> jax.Array:
    """``2 I``: ``(K,) -> (K, K)``, whatever the logits and the label."""
    del label
    return 2 * jnp.eye(jnp.shape(logits)[0], dtype=jnp.result_type(logits))


class Curvature(NamedTuple):
    """Bounds on a loss's Hessian H in the logits that hold for every logit and label."""

    lower: float
    """A proven bound: every eigenvalue of H is at least this."""
    upper: float
    """A proven bound: every eigenvalue of H is at most this."""
    attained: tuple[float, float]
    """The extremes that are attained or approached. For the softmax squared error of K >= 3 it is a
    conjecture that no curvature lies beyond them. A search over the simplex for K up to 10 supports
    the conjecture."""
    formula: str
    proof: str

    @property
    def convex(self) -> bool:
        return self.lower >= 0


def _half_squared_sigmoid_extremes() -> tuple[float, float]:
    # For y = 1, q(s) = s (1-s)² (3s - 1) has q' = (s - 1)(12 s² - 9 s + 1).
    def q(s: float) -> float:
        return s * (1 - s) ** 2 * (3 * s - 1)

    root = math.sqrt(33)
    return q((9 - root) / 24), q((9 + root) / 24)


def curvature(loss: Callable, num_outputs: int | None = None) -> Curvature:
    """The range of a loss's curvature in the logits.

    For linear logits of features with second moment S = XᵀX/n, the Hessian of the risk is the mean
    of ``H_i ⊗ x_i x_iᵀ``, so its eigenvalues lie in ``[min(0, lower), max(0, upper)] · λmax(S)``.

    Args:
      loss: a loss of one or K logits whose formula is known here.
      num_outputs: K for losses of several logits, ``None`` for a single one.

    Raises:
      ValueError: if the loss's curvature is not known here.
    """
    low, high = _half_squared_sigmoid_extremes()
    if loss is losses.bernoulli_nll:
        return Curvature(
            0, 1 / 4, (0, 1 / 4), "s (1 - s)", "a product of two probabilities is never negative"
        )
    if loss is losses.sigmoid_squared_error:
        return Curvature(
            2 * low,
            2 * high,
            (2 * low, 2 * high),
            "2 s (1 - s) [-3 s² + 2 (1 + y) s - y]",
            "extremes at s = (9 ∓ √33) / 24 for y = 1, mirrored for y = 0",
        )
    if loss is losses.squared_error:
        return Curvature(2, 2, (2, 2), "2", "a square bends up by 2 everywhere")
    if loss is losses.categorical_nll:
        return Curvature(
            0,
            1 / 2,
            (0, 1 / 2),
            "diag(p) - p pᵀ",
            "vᵀHv = Σ_{i<j} p_i p_j (v_i - v_j)² is a variance, never negative, at most ½‖v‖²",
        )
    if loss is losses.softmax_squared_error:
        # vᵀHv = 2 Σ_k p_k c_k (v_k - pᵀv)², a variance with coefficients c_y = 3 p_y - 1 - ‖p‖²
        # and c_k = 2 p_k + p_y - ‖p‖². With m = max p and u = m (1 - m), Gershgorin gives
        # λmax(J) <= 2u for m >= 1/2, and -c <= 1 + ‖p‖² <= 2 - 2u, so vᵀHv >= -8 u (1 - u) >= -3/2;
        # for m < 1/2, λmax(J) <= 1/2 and ‖p‖² <= 1/2 give the same. From above c <= 9/8, λmax(J)
        # <= 1/2. For K = 2 the problem is the sigmoid's along (1, -1), four times as curved.
        attained = (8 * low, 8 * high)
        proven = attained if num_outputs == 2 else (-3 / 2, 9 / 8)
        return Curvature(
            *proven,
            attained,
            "2 [J² + Σ_k p_k (r_k - r̄)(e_k - p)(e_k - p)ᵀ]",
            "vᵀHv = 2 Σ_k p_k c_k (v_k - pᵀv)² with -(1 + ‖p‖²) <= c_k <= 9/8",
        )
    if loss is losses.onehot_squared_error:
        return Curvature(2, 2, (2, 2), "2 I", "a square bends up by 2 everywhere")
    raise ValueError(
        f"no closed form of the curvature is known for {getattr(loss, '__name__', loss)}"
    )
