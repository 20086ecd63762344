"""Hessians of a risk, and their extreme eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxclf.checks import at_least_float32, check_shape
from jaxclf.extended_reals import weighted_mean


def logit_hessians(loss: Callable, logits, labels) -> jax.Array:
    """Second derivatives of a per-example loss in its logits.

    Args:
      loss: ``(logits, label) -> ()``.
      logits: ``(n,)`` or ``(n, K)``.
      labels: ``(n,)`` or ``(n, K)``.

    Returns:
      ``(n,)`` or ``(n, K, K)``.
    """
    return jax.vmap(jax.hessian(loss))(logits, labels)


def linear_risk_hessian(hessians, features, weights=None) -> jax.Array:
    """Dense Hessian of a mean loss in the weights W of linear logits ``W x``.

    The formula ``H = Σᵢ wᵢ Hᵢ ⊗ xᵢ xᵢᵀ / Σᵢ wᵢ`` is exact because the logits are linear in W.

    Args:
      hessians: ``(n,)`` or ``(n, K, K)``, from :func:`logit_hessians`.
      features: ``(n, d)``.
      weights: ``(n,)`` or ``None``.

    Returns:
      ``(d, d)`` or ``(K d, K d)``, the weights ordered class by class as in ``W.ravel()``.
    """
    check_shape("features", features, (jnp.shape(hessians)[0], None))
    features, hessians = at_least_float32(features), at_least_float32(hessians)
    n, d = features.shape
    weights = jnp.ones(n, hessians.dtype) if weights is None else at_least_float32(weights)
    share = weights / jnp.sum(weights)
    if jnp.ndim(hessians) == 1:
        return (features * (share * hessians)[:, None]).T @ features

    def class_rows(row):  # (n, K): one class against all; a loop, so that only n·K·d is held
        scaled = (row * share[:, None])[:, :, None] * features[:, None, :]
        return scaled.reshape(n, -1).T @ features

    blocks = jax.lax.map(class_rows, jnp.moveaxis(hessians, 1, 0))  # (K, K d, d)
    num_classes = blocks.shape[0]
    blocks = blocks.reshape(num_classes, num_classes, d, d).transpose(0, 2, 1, 3)
    return blocks.reshape(num_classes * d, num_classes * d)


def second_moment(features, weights=None) -> jax.Array:
    """``S = Σᵢ wᵢ xᵢ xᵢᵀ / Σᵢ wᵢ``: ``(n, d) -> (d, d)``, uncentred."""
    return linear_risk_hessian(jnp.ones(jnp.shape(features)[0]), features, weights)


def directional_curvature(loss: Callable, logits, logit_directions, labels, weights=None):
    """``vᵀ H v`` of the mean loss along a direction of the weights, without forming H.

    Args:
      loss: ``(logits, label) -> ()``.
      logits: ``(n,)`` or ``(n, K)``, the logits at which to measure.
      logit_directions: ``X v``, the logits of the direction, of the same shape.
      labels: ``(n,)`` or ``(n, K)``.
      weights: ``(n,)`` or ``None``.

    Returns:
      ``()``.
    """

    def one(z, dz, label):
        slope = lambda x: jax.jvp(lambda t: loss(t, label), (x,), (dz,))[1]  # noqa: E731
        return jax.jvp(slope, (z,), (dz,))[1]

    return weighted_mean(jax.vmap(one)(logits, logit_directions, labels), weights)
