"""A solver of one's own: certified, whatever the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import Batch, losses, make_objective, minimize, penalties
from jaxclf.models import linear
from jaxclf.solvers import Iteration, hessian_product, move

CLASSES, FEATURES = 3, 4


def gradient_descent(oracle, params, *, stop, rng):
    point = oracle.evaluate(params)
    iteration = Iteration(point, stop)
    while True:
        close = float(point.gap_bound) <= stop.tol
        if status := iteration.arrive(point, reached=close):
            return iteration.end(status)
        point = move(oracle, point, jax.tree.map(jnp.negative, point.gradient)).point


def lost(oracle, params, *, stop, rng):
    """Says that it has converged where it has not moved."""
    point = oracle.evaluate(params)
    iteration = Iteration(point, stop)
    iteration.arrive(point, reached=True)
    return iteration.end("converged")


def problem(l2=0.1, l1=0.0):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, FEATURES)), rng.integers(0, CLASSES, 120)
    penalty = penalties.elastic_net(l1=l1, l2=l2)
    objective = make_objective(linear.logits, losses.categorical_nll, penalty)
    start = linear.LinearParams(np.zeros((CLASSES, FEATURES)), np.zeros(CLASSES))
    return objective, start, Batch(x, y.astype(np.int32))


@pytest.mark.parametrize("options", [{}, {"stream": True}, {"devices": 1}], ids=str)
def test_a_solver_of_ones_own_is_certified(options, x64):
    found = minimize(*problem(), solver=gradient_descent, tol=1e-9, **options)
    best = minimize(*problem(), tol=1e-12)
    assert found.status == "converged"
    assert found.solver.startswith("gradient_descent: as asked")
    assert -1e-15 <= found.value - best.value <= found.gap_bound <= 1e-9


def test_what_it_says_of_itself_is_not_believed(x64):
    found = minimize(*problem(), solver=lost)
    assert found.status == "stationary"
    assert found.gap_bound > 1e-3


@pytest.mark.parametrize("stream", [False, True])
def test_a_step_that_leads_nowhere_keeps_its_point(stream, x64):
    """Uphill no length is good: the point stays, with its value and its gradient."""

    def uphill(oracle, params, *, stop, rng):
        point = oracle.evaluate(params)
        moved = move(oracle, point, point.gradient, -1.0)
        assert float(moved.length) == 0
        assert float(moved.point.value) == pytest.approx(float(point.value), abs=1e-15)
        assert float(moved.point.largest) == pytest.approx(float(point.largest), abs=1e-15)
        return lost(oracle, params, stop=stop, rng=rng)

    assert minimize(*problem(), solver=uphill, stream=stream).status == "stationary"


def test_any_other_objective_is_solved_by_it_too(x64):
    def quartic(w, _):
        return jnp.sum((w - 1) ** 4 + w**2)

    found = minimize(quartic, jnp.zeros(3), None, solver=gradient_descent, gradient_tol=1e-6)
    assert found.status == "stationary"
    np.testing.assert_allclose(found.params, 0.410245, atol=1e-6)


def test_products_are_those_with_the_hessian(x64):
    """Of every oracle: what the solver is given has H d, by differences of gradients."""
    objective, start, batch = problem()
    seen = {}

    def look(oracle, params, *, stop, rng):
        at = params._replace(weights=np.arange(12.0).reshape(3, 4) / 10)
        d = jax.tree.map(np.cos, at)
        step = 1e-6
        ahead, behind = (
            oracle.evaluate(jax.tree.map(lambda x, y, s=s: x + s * y, at, d)).gradient
            for s in (step, -step)
        )
        point = oracle.evaluate(at)
        expected = jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)
        found = hessian_product(oracle, point, d)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), found, expected)
        seen[type(oracle).__name__] = True
        return lost(oracle, params, stop=stop, rng=rng)

    for options in ({}, {"stream": True}):
        minimize(objective, start, batch, solver=look, **options)
    hidden = make_objective(lambda p, x: linear.logits(p, x), losses.categorical_nll)
    minimize(hidden, start, batch, solver=look)
    assert sorted(seen) == ["ChunkedOracle", "GenericOracle", "LinearOracle"]


def test_l1_needs_a_solver_that_knows_it(x64):
    with pytest.raises(ValueError, match="solver 'gradient_descent' takes no L1 penalty"):
        minimize(*problem(l1=0.1), solver=gradient_descent)
    with pytest.raises(ValueError, match="solver must be one of"):
        minimize(*problem(), solver="gradient_descent")


def runs_away(oracle, params, *, stop, rng):
    """Says that there is no finite minimiser, at a point that separates the rows if they can be."""
    point = oracle.evaluate(
        jax.tree.map(lambda x: x.at[0].set(-1.0), jax.tree.map(jnp.array, params))
    )
    iteration = Iteration(point, stop)
    iteration.arrive(point, reached=False)
    return iteration.end("no_finite_minimiser")


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 1, 0, 1], [0.1, 0.1, 0.9, 0.9]])
def test_that_there_is_no_minimiser_needs_a_proof(labels, l2, x64):
    x = np.array([[2.0], [1.0], [-1.0], [-2.0]])
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(l2))
    start = linear.LinearParams(np.zeros(1), None)
    found = minimize(objective, start, Batch(x, np.array(labels)), solver=runs_away)
    proven = l2 == 0 and labels == [0, 0, 1, 1]
    assert (found.status == "no_finite_minimiser") == proven
    assert (found.direction is not None) == proven


def test_nor_is_it_believed_of_any_other_objective():
    def objective(params, _):
        return params @ params

    found = minimize(objective, jnp.ones(2), None, solver=runs_away)
    assert found.status == "stalled"
