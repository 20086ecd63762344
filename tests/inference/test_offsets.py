"""An offset that is a combination of the columns moves the coefficients, and nothing else."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from jaxclf import losses, make_batch, make_objective
from jaxclf.inference import (
    average_marginal_effects,
    bootstrap,
    firth,
    infer,
    influence,
    leave_one_out,
    likelihood_ratio_test,
    predictive,
    profile_interval,
    score_test,
)
from jaxclf.models import linear
from tests.inference.problems import rows


def problem(name):
    """The same rows without an offset and with one, and the coefficients that the offset has."""
    x, y, _ = rows(name)
    K, rng = int(y.max()) + 1, np.random.default_rng(0)
    outputs = () if K == 2 else (K,)
    known = np.round(rng.normal(size=(*outputs, x.shape[1])), 1)
    loss = losses.bernoulli_nll if K == 2 else losses.categorical_nll
    start = linear.LinearParams(np.zeros(known.shape), np.zeros(outputs))
    batch = make_batch(x, y)
    offset = x.astype(np.float64) @ known.T
    return make_objective(linear.logits, loss), start, batch, batch._replace(offset=offset), known


@pytest.mark.parametrize("name", ["breast_cancer", "wine"])
def test_errors_stay_and_estimates_move(name):
    objective, start, plain, moved, known = problem(name)
    for covariance in ("model", "sandwich"):
        a, b = (infer(objective, start, x, covariance=covariance) for x in (plain, moved))
        np.testing.assert_allclose(a.standard_error, b.standard_error, rtol=1e-6)
        contrasts = known[None] if known.ndim == 1 else known[1:] - known[0]
        shift = np.c_[contrasts, np.zeros(len(contrasts))].ravel()
        np.testing.assert_allclose(a.estimate - b.estimate, shift, atol=1e-6)


@pytest.mark.parametrize("name", ["breast_cancer", "wine"])
def test_tests_of_other_columns_keep_the_offset_in_the_null_model(name):
    objective, start, plain, _, known = problem(name)
    known[..., 1] = 0
    moved = plain._replace(offset=np.asarray(plain.features, np.float64) @ known.T)
    for test in (likelihood_ratio_test, score_test):
        a, b = (test(objective, start, batch, [1]) for batch in (plain, moved))
        assert a.statistic == pytest.approx(b.statistic, rel=1e-6)
    left_out = [leave_one_out(objective, start, batch) for batch in (plain, moved)]
    if known.ndim == 2:  # a softmax does not see what all logits have in common
        left_out = [z - z.mean(1, keepdims=True) for z in left_out]
    np.testing.assert_allclose(*left_out, atol=1e-6)


def test_intervals_influence_and_firth_move_too():
    objective, start, plain, moved, known = problem("breast_cancer")
    a, b = (profile_interval(objective, start, batch, 0) for batch in (plain, moved))
    assert a.lower - b.lower == pytest.approx(known[0], abs=1e-5)
    assert a.upper - b.upper == pytest.approx(known[0], abs=1e-5)
    of = [influence(objective, start, x, of=lambda p: p.weights[0]) for x in (plain, moved)]
    np.testing.assert_allclose(*of, rtol=1e-5, atol=1e-9)
    a, b = (firth(start, batch) for batch in (plain, moved))
    np.testing.assert_allclose(a.params.weights - b.params.weights, known, atol=1e-6)
    np.testing.assert_allclose(a.inference.lower[:-1] - b.inference.lower[:-1], known, atol=1e-5)
    key = jax.random.key(0)
    a, b = (bootstrap(objective, start, batch, key, draws=20) for batch in (plain, moved))
    np.testing.assert_allclose(a.standard_error, b.standard_error, rtol=1e-5)


def test_effects_and_predictions_are_those_of_the_whole_logit():
    objective, start, _, moved, _ = problem("breast_cancer")
    found = average_marginal_effects(objective, start, moved)
    fit = infer(objective, start, moved, covariance="posterior")
    x = np.asarray(moved.features, np.float64)
    theta, z = fit.estimate, np.c_[x, np.ones(len(x))] @ fit.estimate + moved.offset
    p = 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(found.estimate, np.mean(p * (1 - p)) * theta[:-1], rtol=1e-6)
    params = linear.LinearParams(theta[:-1], theta[-1])
    none = predictive(params, 0 * fit.covariance, x, offset=moved.offset)
    np.testing.assert_allclose(none[:, 1], p, rtol=1e-6)
    with pytest.raises(ValueError, match="offset must have"):
        predictive(params, fit.covariance, x, offset=np.zeros((len(x), 2)))


def test_the_fit_is_that_of_statsmodels():
    """``GLM(y, add_constant(x), family=Binomial(), offset=offset)`` of statsmodels 0.15.0."""
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    offset, x = x[:, 3] - 0.5 * x[:, 20], x[:, [1, 4, 8, 11]]
    start = linear.LinearParams(np.zeros(4), np.zeros(()))
    with jax.enable_x64(True):
        batch = make_batch(x, y, offset=offset)
        found = infer(make_objective(linear.logits, losses.bernoulli_nll), start, batch)
    estimate = [-1.98894083076226, -1.14206219065404, -0.58425926145502, 1.06846392719008]
    np.testing.assert_allclose(found.estimate, [*estimate, 0.82069688786451], rtol=1e-8)
    errors = [0.16850116461014, 0.15626884564489, 0.14681620412103, 0.15313792295561]
    np.testing.assert_allclose(found.standard_error, [*errors, 0.12065750079218], rtol=1e-6)
