"""Fits to data that are badly scaled, nearly separable, redundant or very wide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.data import transforms
from jaxclf.linear_algebra import preconditioner
from jaxclf.models import linear
from jaxclf.programs import give_back
from jaxclf.solvers.minimize import minimize
from tests.solvers.problems import SOFTMAX, optimum, problem, small, start


@pytest.mark.parametrize("solver", ["newton_cg", "newton_cholesky"])
def test_a_feature_a_hundred_million_times_the_others(solver):
    objective, params, batch = problem("iris", np.float32)
    scaled = batch._replace(features=batch.features * jnp.array([[1e8, 1, 1, 1]]))
    result = minimize(objective, params, scaled, tol=1e-7, solver=solver)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        exact = scaled._replace(features=np.asarray(scaled.features, np.float64))
        best = minimize(objective, wide, exact, tol=1e-9)
    assert best.status == "converged"
    assert result.value - best.value < 1e-6


@pytest.mark.parametrize("l2", [1e-7, 1e-5, 1e-3])
def test_nearly_separable_data_are_solved_to_the_tolerance(l2):
    """There the curvature changes by orders of magnitude from step to step."""
    data = load_dataset("digits", dtype=np.float32)
    standardiser = transforms.fit_standardiser(data.features)
    batch = make_batch(transforms.standardise(standardiser, data.features), data.labels)
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(l2))
    with jax.enable_x64(True):
        wide = batch._replace(features=jnp.asarray(batch.features, np.float64))
        best = minimize(objective, start(64, 10, np.float64), wide, tol=1e-13)
    assert best.gap_bound < 1e-6
    for tol in (1e-2, 1e-4):
        result = minimize(objective, start(64, 10), batch, tol=tol, solver="newton_cg")
        assert result.status == "converged"
        assert result.value - best.value <= 2 * tol


def test_more_features_than_a_factor_may_have(monkeypatch):
    batch = small(num_rows=40, num_features=60)
    expected = optimum(batch, start(60, 3))
    monkeypatch.setattr(preconditioner, "LARGEST_FACTOR", 50)
    give_back()
    result = minimize(SOFTMAX, start(60, 3), batch, tol=1e-7, solver="newton_cg")
    give_back()
    assert result.status == "converged"
    assert result.value - expected < 1e-6


@pytest.mark.parametrize("solver", ["newton_cg", "newton_cholesky"])
def test_columns_that_repeat_and_columns_that_are_constant(solver):
    batch = small()
    features = jnp.concatenate([batch.features, batch.features, jnp.ones((80, 2))], 1)
    repeated = batch._replace(features=features)
    result = minimize(SOFTMAX, start(12, 3), repeated, tol=1e-8, solver=solver)
    assert result.value - optimum(repeated, start(12, 3)) < 1e-7
    twice = result.params.weights
    np.testing.assert_allclose(twice[:, :5], twice[:, 5:10], atol=1e-4)
