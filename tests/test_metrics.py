import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as sk

from jaxclf import metrics
from jaxclf.activations import sigmoid, softmax

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(200, 4)).astype(np.float32) * 2
LABELS = RNG.integers(4, size=200)
BINARY = LABELS % 2
WEIGHTS = RNG.uniform(size=200).astype(np.float32)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_against_scikit_learn(weights):
    p, p1 = np.asarray(softmax(LOGITS), np.float64), np.asarray(sigmoid(LOGITS[:, 0]))
    p /= p.sum(1, keepdims=True)
    options = {"sample_weight": weights}
    called = np.asarray(metrics.predictions(LOGITS))
    pairs = [
        (metrics.accuracy(LOGITS, LABELS, weights), sk.accuracy_score(LABELS, called, **options)),
        (
            metrics.accuracy(LOGITS[:, 0], BINARY, weights),
            sk.accuracy_score(BINARY, LOGITS[:, 0] > 0, **options),
        ),
        (metrics.log_loss(LOGITS, LABELS, weights), sk.log_loss(LABELS, p, **options)),
        (metrics.log_loss(LOGITS[:, 0], BINARY, weights), sk.log_loss(BINARY, p1, **options)),
        (metrics.brier_score(p1, BINARY, weights), sk.brier_score_loss(BINARY, p1, **options)),
        (metrics.roc_auc(p1, BINARY, weights), sk.roc_auc_score(BINARY, p1, **options)),
    ]
    np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-5)


def test_confusion_matrix():
    called = metrics.predictions(LOGITS)
    matrix = metrics.confusion_matrix(LABELS, called, 4)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(LABELS, np.asarray(called)))
    np.testing.assert_allclose(jnp.trace(matrix) / 200, metrics.accuracy(LOGITS, LABELS))


def test_brier_score_of_two_classes_is_twice_the_binary_one():
    p = np.asarray(sigmoid(LOGITS[:, 0]))
    both = metrics.brier_score(np.stack([1 - p, p], 1), BINARY)
    np.testing.assert_allclose(both, 2 * metrics.brier_score(p, BINARY), rtol=1e-6)


def test_calibration_error():
    assert metrics.expected_calibration_error(np.eye(4)[LABELS], LABELS) == 0
    confident = np.full(200, 0.9, np.float32)
    expected = abs(BINARY.mean() - 0.9)
    error = metrics.expected_calibration_error(confident, BINARY)
    np.testing.assert_allclose(error, expected, rtol=1e-5)
    p = np.asarray(softmax(LOGITS))
    by_hand, confidence = 0.0, p.max(1)
    right = p.argmax(1) == LABELS
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & (confidence < low + 0.1)
        if inside.any():
            by_hand += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    error = metrics.expected_calibration_error(p, LABELS, bins=10)
    np.testing.assert_allclose(error, by_hand, rtol=1e-4)


def test_calibrated_probabilities_have_a_small_error():
    labels = jax.random.categorical(jax.random.key(0), LOGITS.repeat(100, 0))
    error = metrics.expected_calibration_error(softmax(LOGITS.repeat(100, 0)), labels)
    assert error < 0.02


def test_bad_input():
    with pytest.raises(ValueError, match=r"labels must have shape \(200,\), got \(200, 1\)"):
        metrics.accuracy(LOGITS, LABELS[:, None])
    with pytest.raises(TypeError, match="labels must be integers"):
        metrics.log_loss(LOGITS, LABELS.astype(np.float32))
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        metrics.expected_calibration_error(softmax(LOGITS), LABELS, bins=0)
    with pytest.raises(ValueError, match="probabilities must be finite, at least 0"):
        metrics.brier_score(LOGITS, LABELS)
    with pytest.raises(ValueError, match=r"logits of one class must have shape \(n,\)"):
        metrics.accuracy(LOGITS[:, :1], LABELS)
    with pytest.raises(ValueError, match="values and weights must have the same shape"):
        metrics.accuracy(LOGITS, LABELS, WEIGHTS[:, None])
    with pytest.raises(ValueError, match="labels must be finite, at least 0, at most 2, got 3"):
        metrics.confusion_matrix(LABELS, LABELS, 3)


def test_broken_logits_and_labels_score_nothing():
    assert metrics.accuracy(np.full((3, 2), np.nan), np.zeros(3, int)) == 0
    assert metrics.accuracy(np.full(3, np.nan), np.zeros(3, int)) == 0
    assert jnp.isnan(metrics.brier_score(np.full(2, 0.5), np.array([-1, 1])))
    assert jnp.isnan(metrics.brier_score(np.full((2, 2), 0.5), np.array([0, 11])))


def test_roc_auc_of_two_and_many_classes():
    p1 = np.asarray(sigmoid(LOGITS[:, 0]))
    both = jnp.stack([1 - p1, p1], 1).astype(jnp.bfloat16)
    assert metrics.roc_auc(both, BINARY) == pytest.approx(metrics.roc_auc(p1, BINARY), abs=0.01)
    p = np.asarray(softmax(LOGITS), np.float64)
    p /= p.sum(1, keepdims=True)
    expected = sk.roc_auc_score(LABELS, p, multi_class="ovr")
    assert metrics.roc_auc(p, LABELS) == pytest.approx(expected, rel=1e-6)
