"""Objectives that are not linear models, the pieces that all solvers share, and paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

from jaxclf import losses, make_batch, make_objective, minimize, minimize_path, penalties
from jaxclf.data import synthetic
from jaxclf.linear_algebra import conjugate_gradients as conjugate_gradients_module
from jaxclf.linear_algebra.conjugate_gradients import (
    conjugate_gradients,
    remembered,
    smallest_eigenvalue,
)
from jaxclf.models import linear
from jaxclf.models.flax_module import flax_module
from jaxclf.solvers.line_search import line_search


def batch(dtype=np.float32):
    data = synthetic.gaussian_classes(1, 80, 5, 3, dtype=dtype)
    return make_batch(data.features, data.labels, num_classes=3)


def start(dtype=np.float32):
    return linear.init(jax.random.key(0), 5, 3, stddev=0, dtype=dtype)


LINEAR = make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.01))
UNMARKED = make_objective(
    lambda params, x: linear.logits(params, x), losses.categorical_nll, penalties.l2(0.01)
)


@pytest.mark.parametrize(
    ("objective", "solver", "told"),
    [
        (UNMARKED, "newton_cg", "newton_cg: as asked"),
        (lambda params, rows: LINEAR(params, rows), "auto",
         "lbfgs: the objective is not a linear model"),
    ],
)  # fmt: skip
def test_the_optimum_is_found_without_knowing_that_the_model_is_linear(
    objective, solver, told, x64
):
    expected = minimize(LINEAR, start(np.float64), batch(np.float64), tol=1e-13)
    found = minimize(objective, start(np.float64), batch(np.float64), tol=1e-13, solver=solver)
    assert found.status == "stationary"
    assert found.reason == "the objective is not a linear model"
    assert found.solver == told
    assert found.value == pytest.approx(expected.value, abs=1e-10)
    np.testing.assert_allclose(found.params.weights, expected.params.weights, atol=1e-4)
    assert found.gap_bound == np.inf


@pytest.mark.parametrize("solver", ["lbfgs", "newton_cg"])
def test_a_network_is_trained_to_a_stationary_point(solver):
    # Not rectifiers: where their slope jumps, the gradient need not vanish.
    rngs = nnx.Rngs(0)
    model = flax_module(
        nnx.Sequential(nnx.Linear(5, 8, rngs=rngs), nnx.tanh, nnx.Linear(8, 3, rngs=rngs))
    )
    params = model.params
    objective = make_objective(model.logits, losses.categorical_nll, penalties.l2(1e-2))
    result = minimize(objective, params, batch(), solver=solver, max_steps=500)
    assert result.status in ("stationary", "stalled")
    assert result.value < 0.5 * float(objective(params, batch()))
    assert result.gradient_norm < 2e-3
    values = [step.value for step in result.trace]
    assert all(after <= before + 1e-5 for before, after in itertools.pairwise(values))


@pytest.mark.parametrize("solver", ["lbfgs", "newton_cg"])
def test_a_general_objective_that_breaks_is_a_status(solver):
    broken = minimize(lambda p, b: jnp.log(p) * b, jnp.asarray(-1.0), 2.0, solver=solver)
    assert broken.status == "nonfinite"
    few = minimize(UNMARKED, start(), batch(), solver=solver, max_steps=1)
    assert few.status == "max_steps"


def test_the_penalty_of_a_general_objective_compiles_nothing():
    traces = []

    def counted(params, x):
        traces.append(1)
        return linear.logits(params, x)

    counts = []
    for strength in (0.1, 0.01):
        objective = make_objective(counted, losses.categorical_nll, penalties.l2(strength))
        minimize(objective, start(), batch())
        counts.append(len(traces))
    assert counts[0] == counts[1] > 0


def test_an_objective_of_small_slopes_is_still_minimised():
    """Half the squared slope at the start says nothing of what can be gained."""
    result = minimize(lambda p, b: (b * p - 1) ** 2, jnp.asarray(0.0), 1e-4)
    assert result.value < 1e-3
    assert float(result.params) == pytest.approx(1e4, rel=0.05)


@pytest.mark.parametrize("first", [1e-3, 1.0, 50.0])
def test_the_line_search_finds_where_the_slope_vanishes(first, x64):
    def at(t):  # minimum at t = 2
        return jnp.cosh(t - 2), jnp.sinh(t - 2)

    found = jax.jit(lambda f: line_search(at, *at(0.0), f, noise=0.0, wolfe_c2=1e-3))(first)
    assert abs(float(found.length) - 2) < 0.01
    assert float(found.value) == pytest.approx(1, abs=1e-4)
    assert int(found.trials) < 15


def test_the_line_search_is_not_held_by_an_end_that_stays(x64):
    """A slope of -1 up to 1e-4 and of 0.2 beyond: plain regula falsi takes a sixth off at a time
    and would not come there in its 20 trials."""

    def at(t):
        x = 1e7 * (jnp.asarray(t) - 1e-4)
        return -0.4 * t + 0.6e-7 * jnp.logaddexp(x, -x), -0.4 + 0.6 * jnp.tanh(x)

    found = line_search(at, *at(0.0), 1.0, noise=0.0, wolfe_c2=0.1)
    assert float(found.length) == pytest.approx(1e-4, rel=5e-2)


def test_the_line_search_comes_back_from_where_nothing_is_finite(x64):
    def at(t):
        value = jnp.where(t > 1, jnp.nan, (t - 0.5) ** 2)
        return value, jnp.where(t > 1, jnp.nan, 2 * t - 1)

    found = line_search(at, 0.25, -1.0, 64.0, noise=0.0, wolfe_c2=0.1)
    assert abs(float(found.length) - 0.5) < 0.1
    # Never good: the best trial on the left comes back, with its own value.
    steep = line_search(lambda t: (-t, -1.0 + 0 * t), 0.0, -1.0, 1.0, noise=0.0, wolfe_c2=0.1)
    assert float(steep.value) == -float(steep.length) < -1
    never = line_search(lambda t: (t * jnp.nan, t), 0.25, -1.0, 1.0, noise=0.0, wolfe_c2=0.1)
    assert float(never.length) == 0


def quadratic(rng, size=30):
    root = rng.normal(size=(2 * size, size))
    return jnp.asarray(root.T @ root + 0.01 * np.eye(size))


def test_conjugate_gradients_solve_and_remember(x64):
    rng = np.random.default_rng(0)
    hessian, b = quadratic(rng), jnp.asarray(rng.normal(size=30))
    scale = jnp.diagonal(hessian)

    nothing = conjugate_gradients_module.no_pairs(b)

    def solve(b, accuracy, curved=nothing):
        metric = Partial(jnp.multiply, 1 / scale)
        return conjugate_gradients(lambda d: hessian @ d, metric, b, accuracy, curved)

    exact = solve(b, 1e-10)
    np.testing.assert_allclose(exact.d, jnp.linalg.solve(hessian, b), rtol=1e-6)
    assert float(exact.predicted_decrease) == pytest.approx(float(b @ exact.d) / 2)
    eigenvalues = np.linalg.eigvalsh(hessian / jnp.sqrt(scale[:, None] * scale[None]))
    assert smallest_eigenvalue(int(exact.count), exact.alpha, exact.beta) == pytest.approx(
        eigenvalues[0], rel=1e-3
    )
    # What is left of the quadratic is bounded by the residual over the smallest eigenvalue.
    rough = solve(b, 0.3)
    gap = float(b @ jnp.linalg.solve(hessian, b) / 2 - rough.predicted_decrease)
    assert 0 < gap <= float(rough.residual_energy) / eigenvalues[0]

    # The same right-hand side is known already, and any other takes fewer steps.
    again = solve(b, 1e-4, remembered(exact.pairs, exact.products))
    assert int(again.count) <= 4 < int(exact.count)
    other = jnp.asarray(rng.normal(size=30))
    roughly = remembered(rough.pairs, rough.products)
    assert int(solve(other, 1e-6, roughly).count) < int(solve(other, 1e-6).count)
    np.testing.assert_allclose(
        solve(other, 1e-10, remembered(exact.pairs, exact.products)).d,
        jnp.linalg.solve(hessian, other),
        rtol=1e-5,
    )


@pytest.mark.parametrize("kept", [0, 4])
def test_conjugate_gradients_remember_only_what_there_is_room_for(kept, monkeypatch, x64):
    monkeypatch.setattr(conjugate_gradients_module, "_REMEMBERED_NUMBERS", kept * 30)
    rng = np.random.default_rng(0)
    hessian, b = quadratic(rng), jnp.asarray(rng.normal(size=30))
    nothing = conjugate_gradients_module.no_pairs(b)
    solved = conjugate_gradients(lambda d: hessian @ d, Partial(jnp.positive), b, 1e-10, nothing)
    np.testing.assert_allclose(solved.d, jnp.linalg.solve(hessian, b), rtol=1e-6)
    assert solved.pairs.shape == (2, kept, 30)
    p, q = solved.pairs
    np.testing.assert_allclose(p @ hessian, q, atol=1e-9)


def test_conjugate_gradients_stop_where_there_is_no_curvature(x64):
    b = jnp.array([1.0, 2.0])
    nothing = conjugate_gradients_module.no_pairs(b)
    flat = conjugate_gradients(lambda d: 0 * d, Partial(jnp.positive), b, 0.1, nothing)
    np.testing.assert_array_equal(flat.d, b)
    assert int(flat.count) == 1
    assert smallest_eigenvalue(int(flat.count), flat.alpha, flat.beta) == 0
    assert not np.asarray(flat.pairs).any()
    assert not remembered(flat.pairs, flat.products).inverse.any()


def test_a_path_is_a_solution_for_each_penalty(x64):
    strengths = [penalties.l2(x) for x in (1.0, 0.1, 0.01)] + [penalties.l1(0.05)]
    path = minimize_path(LINEAR, start(np.float64), batch(np.float64), strengths, tol=1e-11)
    for strength, found in zip(strengths, path, strict=True):
        objective = make_objective(linear.logits, losses.categorical_nll, strength)
        alone = minimize(objective, start(np.float64), batch(np.float64), tol=1e-11)
        assert found.status == "converged"
        assert found.value == pytest.approx(alone.value, abs=1e-9)
    # The second of two equal penalties starts at its solution.
    twice = minimize_path(LINEAR, start(np.float64), batch(np.float64), [strengths[2]] * 2)
    assert twice[1].steps <= 1
    with pytest.raises(ValueError, match="a path needs at least one penalty, got none"):
        minimize_path(LINEAR, start(), batch(), [])


def test_progress_is_printed_on_request(capsys):
    minimize(LINEAR, start(), batch())
    assert capsys.readouterr().err == ""
    minimize(LINEAR, start(), batch(), verbose=True)
    assert "objective 1.0986" in capsys.readouterr().err


@pytest.mark.parametrize("products", [np.ones((2, 2)), np.full((2, 2), np.nan), np.diag([1, -1.0])])
def test_pairs_that_are_of_no_use_are_forgotten(products):
    pairs = np.ones((2, 2, 5))
    inverse = remembered(pairs, products).inverse
    assert np.isfinite(inverse).all()
    if np.isnan(products).any():
        assert not inverse.any()
