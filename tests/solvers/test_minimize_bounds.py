"""The bound on the gap to the optimum, and the value it is a bound for."""

import jax
import numpy as np
import pytest

from jaxclf import Batch, losses, make_objective, penalties
from jaxclf.linear_algebra.conjugate_gradients import gap_left
from jaxclf.models import linear
from jaxclf.solvers.minimize import minimize
from tests.solvers.problems import SMOOTH, SOFTMAX, problem, small, start


def test_what_a_solve_left_is_not_trusted_where_rounding_made_it_negative():
    # With it a step far from the optimum was taken for converged.
    assert gap_left([(9, 0.5)], 76.0, -4412.0) == np.inf
    assert gap_left([(9, 0.5)], 76.0, 1.0) == 78.0


@pytest.mark.parametrize("solver", ["newton_cg", "newton_cholesky"])
def test_the_bound_is_a_bound_at_every_step(solver, x64):
    objective, params, batch = problem("wine")
    best = minimize(objective, params, batch, tol=1e-14).value
    for steps in range(1, 9):
        result = minimize(objective, params, batch, tol=1e-14, max_steps=steps, solver=solver)
        assert result.steps == len(result.trace) - 1 <= steps
        gap = result.value - best
        assert -1e-12 < gap <= result.gap_bound
        # The value is that of the parameters which are returned.
        assert float(objective(result.params, batch)) == pytest.approx(result.value, abs=1e-13)
    values = [step.value for step in result.trace]
    assert values == sorted(values, reverse=True)


def test_a_loss_that_is_not_convex_has_no_bound(x64):
    objective = make_objective(linear.logits, losses.sigmoid_squared_error, penalties.l2(0.1))
    batch = small(np.float64, num_classes=2)
    assert minimize(objective, start(5, None, np.float64), batch).gap_bound == np.inf


def test_the_value_is_that_of_the_rounded_intercept():
    batch = small()
    result = minimize(SOFTMAX, start(5, 3), batch, tol=1e-9)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), result.params)
        features = np.asarray(batch.features, np.float64)
        again = float(SOFTMAX(wide, batch._replace(features=features)))
    assert result.value == pytest.approx(again, abs=1e-14)


@pytest.mark.parametrize("solver", SMOOTH)
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_the_bound_is_one_on_the_parameters_that_are_returned(solver, offset):
    """They are rounded to float32, which costs most where the intercept is large."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3)).astype(np.float32)
    targets = (features[:, 0] + rng.normal(size=400) + offset).astype(np.float32)
    objective = make_objective(linear.logits, losses.squared_error, penalties.l2(1.0))
    begin = linear.LinearParams(np.zeros(3, np.float32), np.float32(0))
    result = minimize(objective, begin, Batch(features, targets), solver=solver, tol=1e-10)
    w, b = (np.asarray(x, np.float64) for x in result.params)
    x, y = features.astype(np.float64), targets.astype(np.float64)

    def value(w, b):
        return np.mean((x @ w + b - y) ** 2) + w @ w / 2

    centred = x - x.mean(0)
    best = np.linalg.solve(2 * centred.T @ centred / 400 + np.eye(3), 2 * centred.T @ y / 400)
    least = value(best, y.mean() - x.mean(0) @ best)
    assert result.value == pytest.approx(value(w, b), rel=1e-12)
    assert value(w, b) - least <= result.gap_bound + 1e-12 * least
