"""Finds weights at which the risk of a linear model bends down the most."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from jaxclf.analysis.curvature import directional_curvature, linear_risk_hessian, logit_hessians
from jaxclf.analysis.spectrum import dense_eigenpairs


class Bent(NamedTuple):
    """A point and a unit direction along which the risk curves by ``curvature``."""

    weights: np.ndarray
    """The point, ``(d,)`` or ``(K, d)``."""
    direction: np.ndarray
    other: np.ndarray
    """The unit direction of the largest curvature at the point, orthogonal to ``direction``."""
    curvature: float


@partial(jax.jit, static_argnums=0)
def risk_hessian(loss: Callable, weights, features, labels, row_weights=None) -> jax.Array:
    """Dense Hessian of the mean loss of logits ``W x``, ``(P, P)`` in the weights.

    Args:
      loss: ``(logits, label) -> ()``.
      weights: ``(d,)`` or ``(K, d)``.
      features: ``(n, d)``.
      labels: ``(n,)``.
      row_weights: ``(n,)`` or ``None``.
    """
    return linear_risk_hessian(
        logit_hessians(loss, features @ weights.T, labels), features, row_weights
    )


@partial(jax.jit, static_argnums=0)
@partial(jax.grad, argnums=1)
def _slope(loss, weights, direction, features, labels, row_weights):
    return directional_curvature(
        loss, features @ weights.T, features @ direction.T, labels, row_weights
    )


def most_negative_curvature(
    loss: Callable,
    start,
    features,
    labels,
    row_weights=None,
    *,
    num_steps: int,
    advance: Callable[[], None] = lambda: None,
) -> Bent:
    """Descends on the smallest eigenvalue itself, for the most negative curvature it can reach.

    The gradient of a simple eigenvalue is the gradient of ``vᵀ H(W) v`` at fixed eigenvector v
    (Hellmann and Feynman). A step that does not help is halved.

    Args:
      loss, features, labels, row_weights: the arguments of :func:`risk_hessian`, whose size bounds
        the model.
      start: the first weights, not zero.
      num_steps: the number of Hessians to form, less one.
      advance: a function that is called after each Hessian.
    """
    start = np.asarray(start)
    best = Bent(start, start, start, np.inf)
    weights, step, downhill = start, 0.2, start
    for _ in range(num_steps + 1):
        hessian = risk_hessian(loss, weights, features, labels, row_weights)
        values, vectors = dense_eigenpairs(np.asarray(hessian))
        if values[0] < best.curvature:
            worst, steepest = (vectors[:, i].reshape(start.shape) for i in (0, -1))
            best = Bent(weights, worst, steepest, float(values[0]))
            gradient = np.asarray(_slope(loss, weights, worst, features, labels, row_weights))
            downhill = -gradient / max(np.linalg.norm(gradient), np.finfo(gradient.dtype).tiny)
        else:
            step /= 2
        weights = best.weights + step * np.linalg.norm(best.weights) * downhill
        advance()
    return best
