"""Temperature scaling."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from jaxclf.calibration import fit_temperature


def drawn(scale, n=4000):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, 4)) * 2
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), 1)
    return scale * logits, labels


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0, 1e5])
def test_undoes_a_scale_of_the_logits(scale):
    logits, labels = drawn(scale)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(scale, rel=0.05)

    def log_loss(t):
        return -log_softmax(logits / t, 1)[np.arange(len(labels)), labels].mean()

    assert log_loss(temperature) <= min(log_loss(temperature * f) for f in (0.99, 1.01))


def test_is_right_to_six_digits():
    logits, labels = drawn(0.484, 300)

    def log_loss(t):
        return -log_softmax(np.float64(logits.astype(np.float32)) / t, 1)[
            np.arange(300), labels
        ].mean()

    best = minimize_scalar(log_loss, bracket=(0.4, 0.5), tol=1e-12).x
    assert fit_temperature(logits.astype(np.float32), labels) == pytest.approx(best, rel=1e-6)


def test_is_held_where_there_is_no_best():
    sure = np.eye(3)[[0, 1, 2]] * 3
    assert 0 < fit_temperature(sure, np.arange(3)) < 0.2
    scale = np.sqrt(np.mean(sure**2))
    assert fit_temperature(sure, np.array([1, 2, 0])) == pytest.approx(100 * scale)


def test_rows_of_weight_zero_do_not_count():
    logits, labels = drawn(2.0, 500)
    weights = np.ones(500)
    weights[100:] = 0
    part = fit_temperature(logits[:100], labels[:100])
    assert fit_temperature(logits, labels, weights.astype(np.float32)) == pytest.approx(
        part, rel=1e-3
    )
