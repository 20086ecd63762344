"""How good a classifier is: accuracy, confusion, log loss, Brier score, calibration, ROC AUC.

Logits or scores come first, then labels, then optional weights per row. Binary classifiers have
logits ``(n,)``, others ``(n, K)``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.checks import at_least_float32, check_integer, check_shape
from jaxclf.losses import bernoulli_nll, categorical_nll
from jaxclf.objectives import weighted_mean


def predictions(logits) -> jax.Array:
    """Most probable class of each row: ``z >= 0`` for logits ``(n,)``, argmax for ``(n, K)``.

    Returns:
      ``(n,)`` int32. Ties go to class 1 (binary) or to the lowest class.
    """
    logits = jnp.asarray(logits)
    if logits.ndim == 1:
        return (logits >= 0).astype(jnp.int32)
    check_shape("logits", logits, (None, None))
    return jnp.argmax(logits, -1).astype(jnp.int32)


def accuracy(logits, labels, weights=None) -> jax.Array:
    """Share of rows whose most probable class is the label, in [0, 1].

    Args:
      logits: ``(n,)`` or ``(n, K)``.
      labels: ``(n,)`` integers.
      weights: ``(n,)`` or ``None``.
    """
    _check_labels(labels, jnp.shape(logits)[:1])
    return weighted_mean(predictions(logits) == jnp.asarray(labels), weights)


def confusion_matrix(labels, predicted, num_classes: int) -> jax.Array:
    """Counts ``M[i, j]`` of rows of class i that were called j.

    Args:
      labels, predicted: ``(n,)`` integers; pairs with a value outside 0 … K-1 are not counted.
      num_classes: K.

    Returns:
      ``(K, K)`` int32, rows are true classes.
    """
    _check_labels(labels, jnp.shape(predicted))
    check_integer("predicted", predicted)
    classes = jnp.arange(num_classes)
    true = (jnp.asarray(labels)[:, None] == classes[None]).astype(jnp.int32)
    called = (jnp.asarray(predicted)[:, None] == classes[None]).astype(jnp.int32)
    return true.T @ called


def log_loss(logits, labels, weights=None) -> jax.Array:
    """Mean negative log-likelihood of the labels, in nats, from logits: nothing is clipped.

    Args:
      logits: ``(n,)`` or ``(n, K)``.
      labels: ``(n,)`` integers.
      weights: ``(n,)`` or ``None``.
    """
    _check_labels(labels, jnp.shape(logits)[:1])
    loss = bernoulli_nll if jnp.ndim(logits) == 1 else categorical_nll
    return weighted_mean(jax.vmap(loss)(jnp.asarray(logits), jnp.asarray(labels)), weights)


def brier_score(probabilities, labels, weights=None) -> jax.Array:
    """Mean squared error of the probabilities.

    ``(n,)`` probabilities of class 1: mean of ``(p - y)²``, in [0, 1]. ``(n, K)``: mean of
    ``Σ_k (p_k - 1[k = y])²``, in [0, 2], which for K = 2 is twice the first.

    Source: Brier (1950).
    """
    _check_labels(labels, jnp.shape(probabilities)[:1])
    p, labels = at_least_float32(probabilities), jnp.asarray(labels)
    if p.ndim == 1:
        return weighted_mean((p - labels) ** 2, weights)
    one_hot = (labels[:, None] == jnp.arange(p.shape[-1])[None]).astype(p.dtype)
    return weighted_mean(jnp.sum((p - one_hot) ** 2, -1), weights)


def expected_calibration_error(probabilities, labels, weights=None, *, bins: int = 15) -> jax.Array:
    """``Σ_b (share of rows in b) · |accuracy in b - mean confidence in b|``, in [0, 1].

    The confidence is the probability of the predicted class; the bins cut [0, 1] into equal parts.

    Args:
      probabilities: ``(n,)`` of class 1, or ``(n, K)``.
      labels: ``(n,)`` integers.
      weights: ``(n,)`` or ``None``.
      bins: how many.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017, eq. 3.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    _check_labels(labels, jnp.shape(probabilities)[:1])
    p = at_least_float32(probabilities)
    if p.ndim == 1:
        p = jnp.stack([1 - p, p], -1)
    confidence = jnp.max(p, -1)
    correct = (jnp.argmax(p, -1) == jnp.asarray(labels)).astype(p.dtype)
    weights = jnp.ones_like(confidence) if weights is None else at_least_float32(weights)
    index = jnp.clip((confidence * bins).astype(jnp.int32), 0, bins - 1)
    # Per bin, |Σ w (correct - confidence)| / Σ w over all rows: the counts of the bins cancel.
    gap = jnp.zeros(bins, p.dtype).at[index].add(weights * (correct - confidence))
    return jnp.sum(jnp.abs(gap)) / jnp.sum(weights)


def roc_auc(scores, labels, weights=None) -> float:
    """Area under the ROC curve, through scikit-learn; one-vs-rest macro mean for K > 2.

    Args:
      scores: ``(n,)`` logits or probabilities of class 1, or ``(n, K)`` probabilities.
      labels: ``(n,)`` integers; every class must occur.
      weights: ``(n,)`` or ``None``.
    """
    from sklearn.metrics import roc_auc_score

    _check_labels(labels, jnp.shape(scores)[:1])
    weights = None if weights is None else np.asarray(weights)
    multi = {} if jnp.ndim(scores) == 1 else {"multi_class": "ovr"}
    return float(
        roc_auc_score(np.asarray(labels), np.asarray(scores), sample_weight=weights, **multi)
    )


def _check_labels(labels, shape) -> None:
    check_shape("labels", labels, tuple(shape))
    check_integer("labels", labels)
