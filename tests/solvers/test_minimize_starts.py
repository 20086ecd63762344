"""Where a fit starts, and what it does with a start that is no good."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import Batch, losses, make_objective, penalties
from jaxclf.models import linear
from jaxclf.solvers.minimize import minimize
from tests.solvers.problems import SMOOTH, small


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("solver", SMOOTH)
def test_a_start_whose_classes_do_not_add_up_to_zero(solver, intercept, x64):
    # The log loss does not see what all classes have in common; the penalty does.
    data, objective = (
        small(np.float64),
        make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.1)),
    )
    away = linear.init(jax.random.key(0), 5, 3, stddev=3.0, intercept=intercept, dtype=np.float64)
    result = minimize(objective, away, data, solver=solver, tol=1e-9)
    assert result.status == "converged"
    assert result.gap_bound < 1e-7
    near = minimize(objective, jax.tree.map(jnp.zeros_like, away), data, solver=solver, tol=1e-9)
    assert result.value == pytest.approx(near.value, abs=1e-7)


@pytest.mark.parametrize("solver", ["newton_cg", "lbfgs"])
def test_a_start_without_a_value_is_left_for_zero(solver, x64):
    def barrier(z, y):
        return -jnp.log(1 - z**2) + 0.3 * (2 * y - 1) * z

    batch = Batch(np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2)
    begin = linear.LinearParams(np.zeros(2), np.array(2.0))
    objective = make_objective(linear.logits, barrier, penalties.l2(1e-2))
    result = minimize(objective, begin, batch, solver=solver)
    assert result.status == "stationary"
    assert "not known to be convex" in result.reason
    assert abs(float(result.params.intercept)) < 1
    assert result.gradient_norm < 1e-3


@pytest.mark.parametrize("solver", ["newton_cg", "lbfgs"])
def test_a_loss_without_curvature_at_zero_starts_where_it_was_told(solver, x64):
    def poisson(z, y):
        return z - (y + 0.5) * jnp.log(z)

    batch = Batch(0.1 * np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2)
    begin = linear.LinearParams(np.zeros(2), np.array(1.0))
    objective = make_objective(linear.logits, poisson, penalties.l2(1e-2))
    result = minimize(objective, begin, batch, solver=solver, tol=1e-8)
    assert result.trace[0].value == pytest.approx(1)
    assert result.status == "stationary"
    assert result.gradient_norm < 1e-3


def test_results_are_not_the_memory_of_the_start():
    raw = np.zeros(64 + 64, np.uint8)
    aligned = -raw.ctypes.data % 64  # so that the device could use this memory as it is
    weights = raw[aligned : aligned + 64].view(np.float32)[:4]
    weights[:] = 0.25  # a stationary point, so that the start itself is returned
    batch = Batch(np.zeros((6, 4), np.float32), np.arange(6) % 2)
    objective = make_objective(linear.logits, losses.bernoulli_nll)
    begin = linear.LinearParams(weights, np.float32(0))
    result = minimize(objective, begin, batch, solver="newton_cg")
    weights[:] = 7
    np.testing.assert_array_equal(result.params.weights, np.full(4, 0.25, np.float32))
