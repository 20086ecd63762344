"""Tests of nested models, profile intervals, and effects, beside statsmodels and NumPy."""

import numpy as np
import pytest
from scipy import optimize, special

from jaxclf import losses, make_batch, make_objective, penalties
from jaxclf.inference import (
    average_marginal_effects,
    infer,
    likelihood_ratio_test,
    odds_ratios,
    profile_interval,
    score_test,
    wald_test,
)
from jaxclf.models import linear
from tests.inference.problems import rows
from tests.inference.test_table import STATSMODELS, problem


@pytest.mark.parametrize("name", ["breast_cancer", "wine"])
def test_the_likelihood_ratio_is_that_of_statsmodels(name):
    objective, start, batch, _ = problem(name)
    found = likelihood_ratio_test(objective, start, batch, [1])
    larger = STATSMODELS[name]["model"]["log_likelihood"]
    smaller = STATSMODELS[name]["without_column_1"]["log_likelihood"]
    assert found.statistic == pytest.approx(2 * (larger - smaller), rel=1e-9)
    assert found.degrees_of_freedom == (1 if name == "breast_cancer" else 2)
    expected = special.chdtrc(found.degrees_of_freedom, 2 * (larger - smaller))
    assert found.p_value == pytest.approx(expected, rel=1e-6)


def test_without_any_column_only_the_frequencies_are_left():
    objective, start, batch, _ = problem("wine")
    found = likelihood_ratio_test(objective, start, batch, [0, 1, 2])
    counts = np.bincount(rows("wine")[1])
    null = (counts * np.log(counts / counts.sum())).sum()
    larger = STATSMODELS["wine"]["model"]["log_likelihood"]
    assert found.statistic == pytest.approx(2 * (larger - null), rel=1e-9)
    assert found.degrees_of_freedom == 6


def test_wald_and_score_tests_follow_their_formulas():
    objective, start, batch, clusters = problem("breast_cancer")
    x, y, _ = rows("breast_cancer")
    table = infer(objective, start, batch)
    one = wald_test(objective, start, batch, [2])
    assert one.statistic == pytest.approx(table.z[2] ** 2, rel=1e-9)
    assert one.p_value == pytest.approx(table.p_value[2], rel=1e-6)
    table = infer(objective, start, batch, covariance="cluster", clusters=clusters)
    robust = wald_test(objective, start, batch, [2], covariance="cluster", clusters=clusters)
    assert robust.statistic == pytest.approx(table.z[2] ** 2, rel=1e-9)

    design = np.c_[x, np.ones(len(x))].astype(np.float64)
    smaller = linear.LinearParams(np.zeros(2), np.zeros(()))
    kept = infer(objective, smaller, batch._replace(features=batch.features[:, 2:])).estimate
    p = special.expit(design[:, 2:] @ kept)
    U = design.T @ (y - p)
    information = design.T @ ((p * (1 - p))[:, None] * design)
    found = score_test(objective, start, batch, [0, 1])
    assert found.statistic == pytest.approx(U @ np.linalg.solve(information, U), rel=1e-6)
    assert found.degrees_of_freedom == 2


def test_the_three_tests_agree_in_large_samples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 2)).astype(np.float32)
    y = (rng.random(20_000) < special.expit(0.5 * x[:, 0] + 0.04 * x[:, 1])).astype(np.int32)
    start = linear.LinearParams(np.zeros(2, np.float32), np.float32(0))
    given = make_objective(linear.logits, losses.bernoulli_nll), start, make_batch(x, y), [1]
    ratio = likelihood_ratio_test(*given).statistic
    assert ratio > 1
    assert wald_test(*given).statistic == pytest.approx(ratio, rel=1e-2)
    assert score_test(*given).statistic == pytest.approx(ratio, rel=1e-2)


def refitted(design, y, column, value):
    """The least ``Σ loss`` with a coefficient held, by Newton's method in NumPy."""
    rest = np.delete(design, column, 1)
    theta = np.zeros(rest.shape[1])
    for _ in range(100):
        z = rest @ theta + value * design[:, column]
        p = special.expit(z)
        H = rest.T @ ((p * (1 - p))[:, None] * rest)
        theta = theta - np.linalg.solve(H, rest.T @ (p - y))
    return -special.log_expit((2 * y - 1) * (rest @ theta + value * design[:, column])).sum()


def test_the_deviance_at_the_ends_is_the_quantile():
    objective, start, batch, _ = problem("breast_cancer")
    x, y, _ = rows("breast_cancer")
    found = profile_interval(objective, start, batch, 1, level=0.9)
    design = np.c_[x - x.mean(0), np.ones(len(x))].astype(np.float64)
    best = -STATSMODELS["breast_cancer"]["model"]["log_likelihood"]
    quantile = special.chdtri(1, 0.1)
    assert found.deviance_error < 1e-6
    for end in (found.lower, found.upper):
        deviance = 2 * (refitted(design, y, 1, end) - best)
        assert deviance == pytest.approx(quantile, abs=1e-6)
    assert found.lower < found.estimate < found.upper


def test_the_profile_of_a_contrast_nears_the_wald_interval():
    """With many rows of three classes the likelihood is almost a normal one."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(9000, 2)).astype(np.float32)
    y = (rng.gumbel(size=(9000, 3)) + x @ np.array([[0, 0.3, -0.2], [0, 0.1, 0.4]])).argmax(1)
    start = linear.LinearParams(np.zeros((3, 2)), np.zeros(3))
    given = make_objective(linear.logits, losses.categorical_nll), start, make_batch(x, y)
    table = infer(*given, reference=1)
    found = profile_interval(*given, 4, reference=1)
    assert table.names[4] == "class 2: x1"
    assert found.estimate == pytest.approx(table.estimate[4], rel=1e-9)
    ends = [table.lower[4], table.upper[4]]
    np.testing.assert_allclose([found.lower, found.upper], ends, rtol=3e-3)


@pytest.mark.parametrize("name", ["breast_cancer", "iris_pair"])
def test_marginal_effects_are_those_of_statsmodels(name):
    objective, start, batch, _ = problem(name)
    found = average_marginal_effects(objective, start, batch)
    expected = STATSMODELS[name]["effects"]
    np.testing.assert_allclose(found.estimate, expected["estimate"], 1e-6)
    np.testing.assert_allclose(found.standard_error, expected["standard_error"], 1e-6)


def test_marginal_effects_of_classes_are_differences_of_mean_probabilities():
    objective, start, batch, _ = problem("wine")
    x, _, _ = rows("wine")
    found = average_marginal_effects(objective, start, batch)
    theta = infer(objective, start, batch, reference=None).estimate.reshape(3, 4)

    def mean_probabilities(column, step):
        moved = x.astype(np.float64) + step * (np.arange(3) == column)
        return special.softmax(moved @ theta[:, :3].T + theta[:, 3], 1).mean(0)

    for j in range(3):
        change = (mean_probabilities(j, 1e-5) - mean_probabilities(j, -1e-5)) / 2e-5
        np.testing.assert_allclose(found.estimate.reshape(3, 3)[:, j], change, 1e-6)
    np.testing.assert_allclose(found.estimate.reshape(3, 3).sum(0), 0, atol=1e-12)


def test_odds_ratios_are_exponentials():
    objective, start, batch, _ = problem("iris_pair")
    table = infer(objective, start, batch)
    found = odds_ratios(table)
    np.testing.assert_allclose(np.log(found.ratio), table.estimate)
    np.testing.assert_allclose(np.log(found.upper), table.upper)
    slope = optimize.approx_fprime(table.estimate[:1], lambda t: np.exp(t[0]), 1e-7)
    assert found.standard_error[0] == pytest.approx(slope[0] * table.standard_error[0], rel=1e-5)


def test_what_is_refused():
    objective, start, batch, _ = problem("iris_pair")
    penalised = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(0.1))
    for run in (likelihood_ratio_test, wald_test, score_test):
        with pytest.raises(ValueError, match="likelihoods are compared without"):
            run(penalised, start, batch, [0])
        for dropped in ([], [4], [-1]):
            with pytest.raises(ValueError, match="dropped must be columns"):
                run(objective, start, batch, np.array(dropped, int))
    with pytest.raises(ValueError, match="whole numbers"):
        half = batch._replace(weights=np.full(100, 0.5))
        likelihood_ratio_test(objective, start, half, [0])
    with pytest.raises(ValueError, match="coefficient must be"):
        profile_interval(objective, start, batch, 5)
