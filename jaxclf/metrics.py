"""Measures of a classifier: accuracy, F1, log loss, Brier score, calibration, ranking.

Logits or scores come first, then labels, then optional weights per row. Binary classifiers have
logits ``(n,)``, others ``(n, K)``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.activations import softmax
from jaxclf.checks import (
    at_least_float32,
    check_integer,
    check_number,
    check_same_shape,
    check_shape,
)
from jaxclf.extended_reals import weighted_mean
from jaxclf.losses import bernoulli_nll, categorical_nll, onehot_squared_error

_BLOCK = 2**16
"""The rows that are summed one after another."""


def predictions(logits) -> jax.Array:
    """Most probable class of each row: ``z >= 0`` for logits ``(n,)``, argmax for ``(n, K)``.

    Returns:
      ``(n,)`` int32. Ties go to class 1 (binary) or to the lowest class; a row with NaN is -1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.metrics import predictions
      >>> predictions(jnp.array([[2.0, 1.0], [0.0, 3.0]])).tolist()
      [0, 1]
    """
    logits = jnp.asarray(logits)
    if logits.ndim == 1:
        classes, broken = logits >= 0, jnp.isnan(logits)
    else:
        _check_columns("logits", logits)
        classes, broken = jnp.argmax(logits, -1), jnp.isnan(logits).any(-1)
    return jnp.where(broken, -1, classes.astype(jnp.int32))


def accuracy(logits, labels, weights=None) -> jax.Array:
    """Share of rows whose most probable class is the label, in [0, 1]; a row with NaN is wrong.

    Args:
      logits: ``(n,)`` or ``(n, K)``, K >= 2.
      labels: ``(n,)`` integers.
      weights: ``(n,)`` or ``None``.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.metrics import accuracy
      >>> float(accuracy(jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 0])))
      0.5
    """
    _check_labels(labels, jnp.shape(logits)[:1])
    return weighted_mean(predictions(logits) == jnp.asarray(labels), weights)


def balanced_accuracy(logits, labels, weights=None) -> jax.Array:
    """The mean over classes of the share of their rows that is found, in [0, 1].

    Also called the mean per-class accuracy. Classes without a row of positive weight do not count.

    Args:
      logits: ``(n,)`` or ``(n, K)``, K >= 2.
      labels: ``(n,)`` integers.
      weights: ``(n,)`` or ``None``.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.metrics import balanced_accuracy
      >>> logits = jnp.array([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [0.0, 3.0]])
      >>> float(balanced_accuracy(logits, jnp.array([0, 0, 1, 1])))
      0.75

    Source: Brodersen et al., The balanced accuracy and its posterior distribution, ICPR 2010.
    """
    found, rows, _ = _totals(logits, labels, weights)
    present = rows > 0
    recall = found / jnp.where(present, rows, 1)
    return jnp.sum(jnp.where(present, recall, 0)) / jnp.sum(present)


def f1_macro(logits, labels, weights=None) -> jax.Array:
    """The mean over classes of ``F1 = 2 found / (rows + predicted)``, in [0, 1].

    Of a class, ``found`` is the weight of its rows that are predicted as it, ``rows`` the weight of
    its rows, and ``predicted`` the weight of all rows that are predicted as it. A class that has no
    rows and is not predicted does not count.

    Args:
      logits: ``(n,)`` or ``(n, K)``, K >= 2.
      labels: ``(n,)`` integers.
      weights: ``(n,)`` or ``None``.

    Source: Opitz and Burst, Macro F1 and macro F1, arXiv 1911.03347 (2019), the mean of F1.
    """
    found, rows, called = _totals(logits, labels, weights)
    present = rows + called > 0
    f1 = 2 * found / jnp.where(present, rows + called, 1)
    return jnp.sum(jnp.where(present, f1, 0)) / jnp.sum(present)


def _totals(logits, labels, weights) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The weights of the rows of each class found, of its rows, and of those predicted as it."""
    _check_labels(labels, jnp.shape(logits)[:1])
    num_classes = 2 if jnp.ndim(logits) == 1 else jnp.shape(logits)[1]
    check_number("labels", labels, at_least=0, at_most=num_classes - 1)
    predicted, labels = predictions(logits), jnp.asarray(labels)
    weights = jnp.ones(len(labels)) if weights is None else at_least_float32(weights)
    check_same_shape("labels", labels, "weights", weights)
    check_number("weights", weights, at_least=0)
    right = jnp.where(predicted == labels, weights, 0)
    # A row with NaN is called nothing: -1 would be the last class.
    called = jnp.where(predicted < 0, 0, weights)
    pairs = ((labels, right), (labels, weights), (predicted, called))
    return tuple(_sums(numbers, values, num_classes) for numbers, values in pairs)


def _sums(numbers, values, size: int) -> jax.Array:
    """The sum of the values with each number, ``(size,)``.

    Rows are summed in blocks: a float32 that has reached 2²⁴ does not grow by ones any more.
    """
    block = jnp.arange(len(numbers)) // _BLOCK
    blocks = jnp.zeros((-(-len(numbers) // _BLOCK), size), values.dtype)
    return blocks.at[block, numbers].add(values).sum(0)


def confusion_matrix(labels, predicted, num_classes: int) -> jax.Array:
    """Counts ``M[i, j]`` of rows of class i that were called j.

    Args:
      labels, predicted: ``(n,)`` integers in 0 … K-1. Under jit, where values are not known, pairs
        outside are not counted.
      num_classes: K.

    Returns:
      ``(K, K)`` int32, rows are true classes.

    Raises:
      ValueError: a class outside 0 … K-1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.metrics import confusion_matrix
      >>> confusion_matrix(jnp.array([0, 1, 1]), jnp.array([0, 0, 1]), 2).tolist()
      [[1, 0], [1, 1]]
    """
    _check_labels(labels, jnp.shape(predicted))
    check_integer("predicted", predicted)
    check_number("labels", labels, at_least=0, at_most=num_classes - 1)
    check_number("predicted", predicted, at_least=0, at_most=num_classes - 1)
    labels, predicted = jnp.asarray(labels), jnp.asarray(predicted)
    valid = (labels >= 0) & (labels < num_classes) & (predicted >= 0) & (predicted < num_classes)
    counts = jnp.zeros((num_classes, num_classes), jnp.int32)
    return counts.at[labels, predicted].add(valid.astype(jnp.int32))


def by_class(predicted, labels, num_classes: int) -> dict[str, np.ndarray]:
    """Rows, recall and precision of each class, ``(K,)``; 0 where there is no row.

    Recall is the share of the rows of a class that are predicted as it; precision is the share of
    the rows predicted as it that are of it.

    Args:
      predicted, labels: ``(n,)`` integers in 0 … K-1.
      num_classes: K.
    """
    counts = np.asarray(confusion_matrix(labels, predicted, num_classes))
    right, rows, called = np.diagonal(counts), counts.sum(1), counts.sum(0)
    return {
        "rows": rows,
        "recall": right / np.maximum(rows, 1),
        "precision": right / np.maximum(called, 1),
    }


def log_loss(logits, labels, weights=None) -> jax.Array:
    """Mean negative log-likelihood of the labels, in nats, from logits: nothing is clipped.

    Args:
      logits: ``(n,)`` or ``(n, K)``.
      labels: ``(n,)`` integers.
      weights: ``(n,)`` or ``None``.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.metrics import log_loss
      >>> round(float(log_loss(jnp.array([[0.0, 0.0]]), jnp.array([1]))), 4)
      0.6931
    """
    _check_labels(labels, jnp.shape(logits)[:1])
    loss = bernoulli_nll if jnp.ndim(logits) == 1 else categorical_nll
    return weighted_mean(jax.vmap(loss)(jnp.asarray(logits), jnp.asarray(labels)), weights)


def brier_score(probabilities, labels, weights=None) -> jax.Array:
    """Mean squared error of the probabilities.

    For ``(n,)`` probabilities of class 1 it is the mean of ``(p - y)²``, in [0, 1]. For ``(n, K)``
    it is the mean of ``Σ_k (p_k - 1[k = y])²``, in [0, 2], which for K = 2 is twice the first.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.metrics import brier_score
      >>> float(brier_score(jnp.array([[0.5, 0.5]]), jnp.array([1])))
      0.5

    Source: Brier (1950).
    """
    _check_labels(labels, jnp.shape(probabilities)[:1])
    p, labels = _check_probabilities(probabilities), jnp.asarray(labels)
    if p.ndim == 1:
        errors = jnp.where((labels == 0) | (labels == 1), (p - labels) ** 2, jnp.nan)
    else:
        errors = jax.vmap(onehot_squared_error)(p, labels)
    return weighted_mean(errors, weights)


def expected_calibration_error(probabilities, labels, weights=None, *, bins: int = 15) -> jax.Array:
    """``Σ_b (share of rows in b) · |accuracy in b - mean confidence in b|``, in [0, 1].

    The confidence is the probability of the predicted class; the bins cut [0, 1] into equal parts.

    Args:
      probabilities: ``(n,)`` of class 1, or ``(n, K)``.
      labels: ``(n,)`` integers.
      weights: ``(n,)`` or ``None``.
      bins: the number of bins.

    Raises:
      ValueError: probabilities outside [0, 1], or no bins.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017, eq. 3.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    _check_labels(labels, jnp.shape(probabilities)[:1])
    p = _check_probabilities(probabilities)
    if p.ndim == 1:
        p = jnp.stack([1 - p, p], -1)
    confidence = jnp.max(p, -1)
    correct = (jnp.argmax(p, -1) == jnp.asarray(labels)).astype(p.dtype)
    weights = jnp.ones_like(confidence) if weights is None else at_least_float32(weights)
    check_same_shape("labels", labels, "weights", weights)
    index = jnp.clip((confidence * bins).astype(jnp.int32), 0, bins - 1)
    # Each bin adds |Σ w (correct - confidence)| / Σ w over all rows: the counts of the bins cancel.
    gap = _sums(index, weights * (correct - confidence), bins)
    return jnp.sum(jnp.abs(gap)) / jnp.sum(weights)


def roc_auc(scores, labels, weights=None) -> float:
    """Area under the ROC curve, through scikit-learn; the mean of one against the rest for K > 2.

    Args:
      scores: ``(n,)`` logits or probabilities of class 1, or ``(n, K)`` probabilities.
      labels: ``(n,)`` integers; every class must occur.
      weights: ``(n,)`` or ``None``.

    Raises:
      ValueError: a class that has no row.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxclf.metrics import roc_auc
      >>> roc_auc(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1]))
      0.75
    """
    from sklearn.metrics import roc_auc_score

    return _one_against_the_rest(roc_auc_score, scores, labels, weights)


def average_precision(scores, labels, weights=None) -> float:
    """``Σ_t (recall_t - recall_{t-1}) precision_t`` over falling thresholds, through scikit-learn.

    For K > 2 it is the mean of one against the rest (the mean average precision, mAP).

    Args:
      scores: ``(n,)`` logits or probabilities of class 1, or ``(n, K)`` probabilities.
      labels: ``(n,)`` integers; every class must occur.
      weights: ``(n,)`` or ``None``.

    Raises:
      ValueError: a class that has no row.
    """
    from sklearn.metrics import average_precision_score

    return _one_against_the_rest(average_precision_score, scores, labels, weights)


def measures(logits, labels) -> dict[str, float]:
    """All measures of this module by name, and the number of rows.

    ROC AUC and average precision are left out where a class has no row.

    Args:
      logits: ``(n, K)``.
      labels: ``(n,)`` integers in 0 … K-1.
    """
    probabilities, labels = softmax(logits), np.asarray(labels)
    found = {
        "accuracy": accuracy(logits, labels),
        "balanced_accuracy": balanced_accuracy(logits, labels),
        "f1_macro": f1_macro(logits, labels),
        "log_loss": log_loss(logits, labels),
        "brier_score": brier_score(probabilities, labels),
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
    }
    if (np.bincount(labels, minlength=jnp.shape(logits)[1]) > 0).all():
        found["roc_auc"] = roc_auc(probabilities, labels)
        found["average_precision"] = average_precision(probabilities, labels)
    return {"rows": len(labels)} | {name: float(value) for name, value in found.items()}


def measures_of_shares(labels, num_classes: int) -> dict[str, float]:
    """The measures of a model that gives every row the shares of the classes among the rows.

    The model always names the most frequent class, and its log loss is the entropy of the shares.
    A model that learned something has better measures.

    Args:
      labels: ``(n,)`` integers in 0 … K-1.
      num_classes: K.
    """
    labels = np.asarray(labels)
    check_number("labels", labels, at_least=0, at_most=num_classes - 1)
    shares = np.bincount(labels, minlength=num_classes) / len(labels)
    with np.errstate(divide="ignore"):
        logits = np.log(shares.astype(np.float32))
    found = measures(np.broadcast_to(logits, (len(labels), num_classes)), labels)
    return {name: round(value, 6) for name, value in found.items()}  # float32 has no more digits


def _one_against_the_rest(measure: Callable, scores, labels, weights) -> float:
    """The mean over classes of a measure of binary labels and scores."""
    _check_labels(labels, jnp.shape(scores)[:1])
    scores, labels = np.asarray(scores).astype(np.float64), np.asarray(labels)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights)
    check_same_shape("labels", labels, "weights", weights)
    check_number("weights", weights, at_least=0)
    num_classes = 2 if scores.ndim == 1 else scores.shape[1]
    check_number("labels", labels, at_least=0, at_most=num_classes - 1)
    scores = np.stack([-scores, scores], 1) if scores.ndim == 1 else scores
    used = weights > 0  # rows without weight have no part
    rows = np.bincount(labels[used], minlength=scores.shape[1])
    if (rows == 0).any():
        raise ValueError(f"expected a row of every class, class {int(np.argmin(rows))} has none")
    classes = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    values = [
        measure(labels[used] == k, scores[used, k], sample_weight=weights[used]) for k in classes
    ]
    return float(np.mean(values))


def _check_labels(labels, shape) -> None:
    check_shape("labels", labels, tuple(shape))
    check_integer("labels", labels)


def _check_columns(name: str, x) -> None:
    check_shape(name, x, (None, None))
    if jnp.shape(x)[1] < 2:
        raise ValueError(f"{name} of one class must have shape (n,), got {jnp.shape(x)}")


def _check_probabilities(p) -> jax.Array:
    if jnp.ndim(p) != 1:
        _check_columns("probabilities", p)
    check_number("probabilities", p, at_least=0, at_most=1 + 1e-2)  # halves round upwards
    return at_least_float32(p)
