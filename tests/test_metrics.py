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


def balanced_by_sklearn(labels, predicted, weights):
    return sk.balanced_accuracy_score(labels, predicted, sample_weight=weights)


def f1_by_sklearn(labels, predicted, weights):
    return sk.f1_score(labels, predicted, sample_weight=weights, average="macro")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.balanced_accuracy, balanced_by_sklearn),
        (metrics.f1_macro, f1_by_sklearn),
    ],
)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_means_over_classes(ours, theirs, weights):
    predicted = LOGITS.argmax(1)
    assert ours(LOGITS, LABELS, weights) == pytest.approx(
        theirs(LABELS, predicted, weights), rel=1e-5
    )
    binary = theirs(BINARY, LOGITS[:, 0] >= 0, weights)
    assert ours(LOGITS[:, 0], BINARY, weights) == pytest.approx(binary, rel=1e-5)
    assert ours(np.eye(4)[LABELS], LABELS, weights) == pytest.approx(1)


def test_absent_classes_and_broken_rows_in_means_over_classes():
    logits = np.array([[2.0, 1, 0], [0, 1, 0], [3, 1, 0], [np.nan, 0, 0]])
    labels = np.array([0, 1, 1, 1])
    assert metrics.balanced_accuracy(logits, labels) == pytest.approx((1 + 1 / 3) / 2)
    assert metrics.f1_macro(logits, labels) == pytest.approx((2 / 3 + 2 / 4) / 2)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_average_precision_of_two_and_many_classes(weights):
    p = np.asarray(softmax(LOGITS), np.float64)
    each = [
        sk.average_precision_score(k == LABELS, p[:, k], sample_weight=weights) for k in range(4)
    ]
    assert metrics.average_precision(p, LABELS, weights) == pytest.approx(np.mean(each), rel=1e-6)
    binary = sk.average_precision_score(BINARY, LOGITS[:, 0], sample_weight=weights)
    assert metrics.average_precision(LOGITS[:, 0], BINARY, weights) == pytest.approx(
        binary, rel=1e-6
    )
    expected = np.mean(
        [sk.roc_auc_score(k == LABELS, p[:, k], sample_weight=weights) for k in range(4)]
    )
    assert metrics.roc_auc(p, LABELS, weights) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("measure", [metrics.roc_auc, metrics.average_precision])
def test_rankings_need_every_class(measure):
    with pytest.raises(ValueError, match="expected a row of every class, class 1 has none"):
        measure(np.linspace(0, 1, 4), np.zeros(4, int))
    weights = np.array([1.0, 1, 0, 0])
    with pytest.raises(ValueError, match="expected a row of every class, class 1 has none"):
        measure(np.linspace(0, 1, 4), np.array([0, 0, 1, 1]), weights)


def test_measures_of_class_shares_are_those_of_knowing_nothing():
    shares = np.bincount(LABELS, minlength=4) / len(LABELS)
    found = metrics.measures_of_shares(LABELS, 4)
    expected = {
        "rows": 200,
        "accuracy": shares.max(),
        "balanced_accuracy": 1 / 4,
        "log_loss": -(shares * np.log(shares)).sum(),
        "brier_score": 1 - (shares**2).sum(),
        "expected_calibration_error": 0,
        "roc_auc": 0.5,
        "average_precision": 1 / 4,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=2e-6)
    assert found.keys() == metrics.measures(LOGITS, LABELS).keys()
    absent = metrics.measures_of_shares(np.array([0, 0, 1]), 3)
    assert "roc_auc" not in absent
    assert absent["log_loss"] == pytest.approx(np.log(3) - 2 / 3 * np.log(2), abs=1e-6)


def test_means_over_classes_of_many_rows():
    """A sum in float32 that has reached 2²⁴ does not grow by ones."""
    rows = 2**25
    right = jnp.arange(rows) % 10 < 7
    logits = jnp.where(right, 0.5, -0.5)
    labels = jnp.ones(rows, jnp.int32)
    assert metrics.balanced_accuracy(logits, labels) == pytest.approx(0.7, abs=1e-4)
    assert metrics.f1_macro(logits, labels) == pytest.approx(1.4 / 1.7 / 2, abs=1e-4)


@pytest.mark.parametrize("measure", [
    metrics.balanced_accuracy, metrics.f1_macro, metrics.roc_auc, metrics.average_precision
])  # fmt: skip
def test_labels_and_weights_outside_are_refused(measure):
    scores = softmax(LOGITS)
    for labels in (LABELS + 1, LABELS - 1):
        with pytest.raises(ValueError, match="labels must be finite, at least 0, at most 3"):
            measure(scores, labels)
    with pytest.raises(ValueError, match="weights must be finite, at least 0"):
        measure(scores, LABELS, -WEIGHTS)
    with pytest.raises(ValueError, match="labels and weights must have the same shape"):
        measure(scores, LABELS, WEIGHTS[:-1])
