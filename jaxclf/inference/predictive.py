"""Probabilities that know how uncertain the coefficients are: the last-layer Laplace approximation.

With coefficients normal around the fit with covariance V, the logits of a row are normal with
covariance ``S = (x̃ ⊗ I)ᵀ V (x̃ ⊗ I)``, and the probabilities are the mean of their sigmoid or
softmax.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from scipy import special

from jaxclf import checks
from jaxclf.inference.influence import covariances_of_logits
from jaxclf.models.linear import LinearParams
from jaxclf.sparse_rows import check_dense

_ROWS_AT_ONCE = 2**22
"""The most draws of logits that are held at once: 32 MiB."""


def predictive(
    params: LinearParams,
    covariance: np.ndarray,
    features: Any,
    *,
    offset: Any = None,
    draws: int | None = None,
    key: Any = None,
) -> np.ndarray:
    """Probabilities of the classes, averaged over the uncertainty of the coefficients.

    Without ``draws`` they are MacKay's: ``σ(z / √(1 + π s / 8))`` with s the variance of the logit,
    and for K classes the softmax of logits that are each divided so. With ``draws`` they are the
    mean over so many normal draws of the logits.

    The uncertainty shrinks probabilities towards even odds, more where there were few rows. It does
    not turn a binary decision around.

    Args:
      params: the fit, with weights ``(d,)`` or ``(K, d)``.
      covariance: ``(P, P)``, that of :func:`jaxclf.inference.infer` with
        ``covariance="posterior"``, and for a softmax with ``reference=None``.
      features: ``(n, d)``.
      offset: ``(n,)`` or ``(n, K)``, which is added to the logits.
      draws: the number of draws.
      key: a JAX random key, which draws need.

    Returns:
      ``(n, K)`` float64, for one logit the probabilities ``(n, 2)`` of both classes.

    Raises:
      ValueError, TypeError: shapes that do not fit, or draws without a key.

    Example:
      >>> import numpy as np
      >>> from jaxclf.models import linear
      >>> params = linear.LinearParams(np.array([2.0]), None)
      >>> print(predictive(params, np.array([[4.0]]), np.array([[1.0], [10.0]])).round(3))
      [[0.223 0.777]
       [0.169 0.831]]

    Source: MacKay, The evidence framework applied to classification networks, Neural Computation 4
    (1992); Gibbs, Bayesian Gaussian processes for regression and classification (1997), chapter 5.
    """
    check_dense("predictive", features)
    checks.check_features(features)
    x, theta = np.asarray(features, np.float64), np.atleast_2d(np.asarray(params.weights))
    checks.check_shape("features", x, (None, theta.shape[1]))
    if params.intercept is not None:
        x = np.c_[x, np.ones(len(x))]
        theta = np.c_[theta, np.atleast_1d(np.asarray(params.intercept))]
    K = len(theta)
    checks.check_shape("covariance", covariance, (theta.size, theta.size))
    checks.check_number("params", theta)
    checks.check_number("covariance", covariance)
    if (draws is None) != (key is None):
        raise TypeError("draws and a key are given together, or neither is")
    z = x @ theta.T
    if offset is not None:
        checks.check_offset(offset, num_rows=len(x))
        checks.check_shape("offset", offset, (len(x), *np.shape(params.weights)[:-1]))
        z = z + np.asarray(offset, np.float64).reshape(z.shape)
    spread = covariances_of_logits(x, np.asarray(covariance, np.float64), K)
    if draws is None:
        variance = np.maximum(np.diagonal(spread, axis1=1, axis2=2), 0)
        return _probabilities(z / np.sqrt(1 + np.pi / 8 * variance))
    checks.check_integer("draws", np.array(draws))
    checks.check_number("draws", draws, at_least=1)
    # A covariance of centred logits is singular, so its root is taken by eigenvalues.
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
    rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), "uint32")))
    total, left = np.zeros((len(z), max(K, 2))), draws
    while left:
        size = min(left, max(1, _ROWS_AT_ONCE // z.size))
        noise = rng.standard_normal((size, *z.shape))
        total += _probabilities(z + np.einsum("nkj,snj->snk", root, noise)).sum(0)
        left -= size
    return total / draws


def _probabilities(z: np.ndarray) -> np.ndarray:
    """Probabilities of the classes from logits ``(…, K)``, or from one logit of two classes."""
    if z.shape[-1] == 1:
        return np.concatenate([special.expit(-z), special.expit(z)], -1)
    return special.softmax(z, -1)
