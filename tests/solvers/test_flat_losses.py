"""Losses that have no curvature where a solver starts, so that Newton's step is not defined."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize as scipy_minimize

from jaxclf import Batch, LinearSVC, make_objective, minimize, penalties
from jaxclf.facts import state_facts
from jaxclf.models import linear
from tests.solvers.problems import SMOOTH

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 3))
Y = 100 + X @ [5, -20, 3.0] + RNG.normal(size=100)


def huber(z, y):
    """It is a straight line where the residual is larger than one."""
    r = jnp.abs(z - y)
    return jnp.where(r < 1, r * r / 2, r - 0.5)


state_facts(huber, convex=True, lower_bound=0.0, structure="separable")


def least(l2: float) -> float:
    def value_and_gradient(v):
        r = X @ v[:3] + v[3] - Y
        slopes = np.clip(r, -1, 1)
        values = np.where(np.abs(r) < 1, r * r / 2, np.abs(r) - 0.5)
        gradient = np.r_[X.T @ slopes / 100 + l2 * v[:3], slopes.mean()]
        return values.mean() + l2 / 2 * v[:3] @ v[:3], gradient

    options = {"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-12}
    start = np.array([0, 0, 0, 100.0])
    return scipy_minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B", options=options
    ).fun


def fitted(penalty, solver="auto", **options):
    start = linear.LinearParams(jnp.zeros(3), jnp.zeros(()))
    objective = make_objective(linear.logits, huber, penalty)
    return minimize(objective, start, Batch(X, Y), solver=solver, **options)


@pytest.mark.parametrize("l2", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize("solver", SMOOTH)
def test_targets_far_from_the_start_are_reached(solver, l2, x64):
    found = fitted(penalties.l2(l2) if l2 else None, solver)
    assert found.value == pytest.approx(least(l2), abs=1e-6)
    assert found.status == ("converged" if l2 else "stationary")


def test_rows_in_chunks_are_no_different(x64):
    assert fitted(penalties.l2(1e-3), stream=True).value == pytest.approx(least(1e-3), abs=1e-6)


@pytest.mark.parametrize("l1", [1e-3, 0.1])
def test_with_l1(l1, x64):
    found = fitted(penalties.l1(l1))
    assert found.status == "converged"
    assert found.value < least(0.0) + l1 * 30  # the weights of the rule have a norm of 28


@pytest.mark.parametrize("num_classes", [3, 5])
def test_a_hinge_whose_kinks_hold_most_rows(num_classes):
    """Labels without a signal: the best score is -1 for every class, where the hinge has a kink."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4)), rng.integers(0, num_classes, 200)
    result = LinearSVC(loss="hinge", intercept_scaling=1e3).fit(x, y).result_
    assert result.status == "converged"
    assert result.value == pytest.approx(2, abs=1e-3)


def test_columns_of_other_scales_get_a_metric_as_soon_as_there_is_curvature(x64):
    start = linear.LinearParams(jnp.zeros(3), jnp.zeros(()))
    objective = make_objective(linear.logits, huber)
    found = minimize(objective, start, Batch(X * [1, 30, 1], Y), solver="newton_cg")
    assert found.value == pytest.approx(least(0.0), abs=1e-6)
    assert found.steps < 40


def test_l1_with_features_that_are_large(x64):
    start = linear.LinearParams(jnp.zeros(3), jnp.zeros(()))
    objective = make_objective(linear.logits, huber, penalties.l1(0.1))
    assert minimize(objective, start, Batch(1000 * X, Y)).status == "converged"


@pytest.mark.parametrize("solver", ["newton_cg", "lbfgs"])
def test_a_start_where_the_value_is_zero(solver):
    found = minimize(lambda p, _: jnp.sum((p - 1) ** 2) - 1.0, jnp.zeros(1), None, solver=solver)
    assert found.value == pytest.approx(-1, abs=1e-6)
