"""Temperature scaling."""

from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from jaxclf import calibration, minimize
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


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_logits_of_any_size(scale):
    logits, labels = drawn(2.0, 500)
    assert fit_temperature(scale * logits, labels) / scale == pytest.approx(
        fit_temperature(logits, labels), rel=1e-6
    )


def test_logits_that_are_all_zero_have_some_temperature():
    assert 0 < fit_temperature(np.zeros((4, 2)), np.array([0, 1, 1, 0])) < np.inf


def test_a_solver_that_did_not_end_at_the_minimum_is_told_of(monkeypatch):
    logits, labels = drawn(5.0, 500)
    monkeypatch.setattr(calibration, "minimize", partial(minimize, max_steps=1))
    with pytest.warns(RuntimeWarning, match="the solver ended with max_steps after 1 steps"):
        fit_temperature(logits, labels)


def test_logits_need_a_column_for_each_class():
    with pytest.raises(ValueError, match="logits"):
        fit_temperature(np.zeros(4), np.array([0, 1, 1, 0]))
