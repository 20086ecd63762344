"""Inference of what has no errors is refused in a sentence, and its neighbours are answered."""

import importlib

import jax
import numpy as np
import pytest

from jaxclf import Batch, inference, losses, make_batch, make_objective, penalties
from jaxclf.models import linear
from tests.inference.test_table import problem

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
TARGET = X @ [1.0, -1.0] + RNG.normal(size=60)
START = linear.LinearParams(np.zeros(2), np.zeros(()))
DESIGN = np.c_[X, np.ones(60)]


def least_squares(loss):
    return make_objective(linear.logits, loss), START, Batch(X, TARGET)


def test_a_loss_that_is_no_likelihood_has_a_sandwich_alone():
    given = least_squares(losses.squared_error)
    for run in (
        lambda: inference.infer(*given),
        lambda: inference.infer(*given, covariance="posterior"),
        lambda: inference.wald_test(*given, [0]),
        lambda: inference.likelihood_ratio_test(*given, [0]),
        lambda: inference.profile_interval(*given, 0),
    ):
        with pytest.raises(ValueError, match="squared_error is no negative log-likelihood"):
            run()
    with pytest.raises(ValueError, match="those of probabilities"):
        inference.average_marginal_effects(*given, covariance="sandwich")
    found = inference.infer(*given, covariance="sandwich")
    inverse = np.linalg.inv(DESIGN.T @ DESIGN)
    residuals = TARGET - DESIGN @ found.estimate
    expected = inverse @ (DESIGN.T * residuals**2 @ DESIGN) @ inverse
    np.testing.assert_allclose(found.covariance, expected, 1e-8)


def test_a_loss_with_corners_has_no_curvature():
    given = make_objective(linear.logits, losses.hinge, penalties.l2(0.1)), START
    with pytest.raises(ValueError, match="hinge has corners"):
        inference.influence(*given, Batch(X, np.where(TARGET > 0, 1, -1)))


def test_least_squares_of_known_noise_have_errors_by_the_model():
    found = inference.infer(*least_squares(losses.gaussian_nll))
    np.testing.assert_allclose(found.covariance, np.linalg.inv(DESIGN.T @ DESIGN), 1e-8)
    ratio = inference.likelihood_ratio_test(*least_squares(losses.gaussian_nll), [1])
    assert ratio.statistic == pytest.approx(found.z[1] ** 2, rel=1e-8)


def test_a_row_without_which_columns_depend_on_each_other_has_no_logit():
    x = X.copy()
    x[:, 1] = np.arange(60) == 7
    given = make_objective(linear.logits, losses.squared_error), START, Batch(x, TARGET)
    found = inference.leave_one_out(*given)
    assert np.flatnonzero(np.isnan(found)).tolist() == [7]
    rest, target = (np.delete(part, [3, 7], 0) for part in (DESIGN[:, [0, 2]], TARGET))
    theta = np.linalg.lstsq(rest, target, rcond=None)[0]
    assert found[3] == pytest.approx(DESIGN[3, [0, 2]] @ theta, rel=1e-8)
    np.testing.assert_allclose(inference.leave_one_out(*given, refits=3), found, 1e-8)


def test_a_row_without_which_the_others_are_separated_has_no_fit():
    """All rows but one lie on the right side of one half."""
    x = np.arange(12.0)[:, None] / 12
    y = (x[:, 0] >= 0.5).astype(int)
    y[2] = 1
    start = linear.LinearParams(np.zeros(1), np.zeros(()))
    given = make_objective(linear.logits, losses.bernoulli_nll), start, make_batch(x, y)
    assert np.isfinite(inference.leave_one_out(*given)).all()
    with pytest.raises(ValueError, match="there is no fit without row 2: there is no finite max"):
        inference.leave_one_out(*given, refits=12)


def test_the_only_row_is_not_left_out():
    objective = make_objective(linear.logits, losses.squared_error, penalties.l2(0.1))
    weights = np.arange(60) == 5
    batch = Batch(X, TARGET, weights.astype(float))
    assert np.isnan(inference.leave_one_out(objective, START, batch)[5])
    given = objective, linear.LinearParams(np.zeros(2), None), batch
    with pytest.raises(ValueError, match="row 5 is the only one with a weight"):
        inference.leave_one_out(*given, refits=60)


def test_factors_of_odds_beyond_all_numbers_are_infinite():
    objective, start, batch, _ = problem("breast_cancer")
    small = batch._replace(features=np.asarray(batch.features) * np.float32(2.0**-20))
    found = inference.odds_ratios(inference.infer(objective, start, small))
    assert np.isinf(found.upper[4]) or found.ratio[0] == 0


def test_a_class_without_rows_has_no_intercept():
    objective, start, batch, _ = problem("wine", penalties.l2(0.1))
    weights = (np.asarray(batch.labels) != 1).astype(np.float32)
    with pytest.raises(ValueError, match="no row with a weight has the class 1"):
        inference.influence(objective, start, batch._replace(weights=weights))
    found = inference.influence(objective, start._replace(intercept=None), batch)
    assert np.isfinite(found).all()


def test_weights_of_a_population_do_not_ask_for_more_digits():
    objective, start, batch, _ = problem("iris_pair")
    weights = np.linspace(1, 2, 100)
    options = {"covariance": "sandwich", "weights": "sampling"}
    one, other = (
        inference.infer(objective, start, batch._replace(weights=s * weights), **options)
        for s in (1.0, 1e9)
    )
    np.testing.assert_allclose(other.standard_error, one.standard_error, 1e-7)
    with pytest.raises(ValueError, match="the optimum is not certain"):
        many = batch._replace(weights=np.full(100, 1e15))
        inference.infer(objective, start, many, weights="frequency")


def test_rows_without_weight_do_not_hold_firths_fit_up():
    _, start, batch, _ = problem("iris_pair")
    x, y = np.asarray(batch.features, float), np.asarray(batch.labels)
    expected = inference.firth(start, make_batch(x[1:], y[1:]))
    far = x.copy()
    far[0] = 1e12
    found = inference.firth(start, Batch(far, y, (np.arange(100) > 0) * 1.0))
    np.testing.assert_allclose(found.inference.upper, expected.inference.upper, 1e-7)


def test_clusters_must_be_known():
    objective, start, batch, clusters = problem("iris_pair")
    for missing in (np.where(clusters == 3, np.nan, clusters), [None, *clusters[1:]]):
        with pytest.raises(ValueError, match="some are missing"):
            inference.infer(objective, start, batch, covariance="cluster", clusters=missing)


def test_numbers_that_do_not_fit():
    objective, start, batch, _ = problem("wine", penalties.l2(0.1))
    with pytest.raises(TypeError, match="reference must be integers"):
        inference.infer(objective, start, batch, reference=1.0)
    with pytest.raises(TypeError, match="coefficient must be integers"):
        inference.profile_interval(*problem("wine")[:3], 1.0)
    with pytest.raises(TypeError, match="draws must be integers"):
        inference.bootstrap(objective, start, batch, KEY, draws=10.5)
    params = linear.LinearParams(np.zeros(2), None)
    with pytest.raises(ValueError, match="covariance must be finite, got nan"):
        inference.predictive(params, np.full((2, 2), np.nan), np.ones((3, 2)))
    with pytest.raises(ValueError, match="params must be finite, got inf"):
        broken = linear.LinearParams(np.full(2, np.inf), None)
        inference.predictive(broken, np.eye(2), np.ones((3, 2)))


def test_refits_are_the_same_without_products_of_pairs_of_columns(monkeypatch):
    objective, start, batch, _ = problem("wine", penalties.l2(0.01))
    expected = inference.bootstrap(objective, start, batch, KEY, draws=4)
    module = importlib.import_module("jaxclf.inference.bootstrap")
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 1)
    found = inference.bootstrap(objective, start, batch, KEY, draws=4)
    np.testing.assert_allclose(found.replicates, expected.replicates, 1e-9)
    assert (found.gap_bounds < 1e-12).all()


def test_a_sample_of_rows_without_weight_has_no_refit():
    objective, start, _, _ = problem("iris_pair", penalties.l2(0.1))
    x, y = np.asarray(problem("iris_pair")[2].features), problem("iris_pair")[2].labels
    weights = np.isin(np.arange(100), [0, 1, 98, 99]).astype(np.float32)
    with pytest.raises(ValueError, match="refits have no minimum"):
        inference.bootstrap(objective, start, make_batch(x, y, weights), KEY, draws=100)
