"""Separable data without a penalty, and what is not to be taken for separated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import Batch, load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.certificates.separation import is_separated, proves, runaway
from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra import problem as lp
from jaxclf.models import linear
from jaxclf.solvers.minimize import minimize
from tests.solvers.problems import start


@pytest.mark.parametrize("solver", ["newton_cg", "newton_cholesky"])
def test_separable_data_without_a_penalty_have_no_minimiser(solver):
    data = load_dataset("iris")
    keep = data.labels < 2  # setosa and versicolor can be told apart by a line
    batch = make_batch(data.features[keep], data.labels[keep], num_classes=2)
    objective = make_objective(linear.logits, losses.bernoulli_nll)
    result = minimize(objective, start(4), batch, solver=solver)
    assert result.status == "no_finite_minimiser"
    logits = jax.vmap(linear.logits, (None, 0))(result.direction, batch.features)
    assert (jnp.sign(logits) == 2 * batch.labels - 1).all()
    # Twice as far along the direction is better still, and so on.
    further = jax.tree.map(lambda w: 2 * w, result.params)
    assert objective(further, batch) < objective(result.params, batch)
    # A penalty, or a loss that is zero beyond a margin, has a minimiser on the same data.
    penalised = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(1e-3))
    assert minimize(penalised, start(4), batch).status == "converged"
    signs = batch._replace(labels=2 * batch.labels - 1)
    hinge = minimize(make_objective(linear.logits, losses.squared_hinge), start(4), signs)
    assert hinge.status == "converged"
    assert hinge.value < 1e-9


def test_least_squares_is_never_taken_for_separated(x64):
    x, y = jnp.array([[1.0], [-1.0]]), jnp.array([100, -100])
    near = linear.LinearParams(jnp.array([0.01]), None)
    result = minimize(make_objective(linear.logits, losses.squared_error), near, Batch(x, y))
    assert result.status == "converged"
    assert float(result.params.weights[0]) == pytest.approx(100)
    # Targets that are all alike are no single class.
    same = minimize(make_objective(linear.logits, losses.squared_error), near, Batch(x, y * y))
    assert same.status in ("converged", "stationary", "precision_floor")
    assert same.gap_bound < 1e-10 * same.value


def test_separation_of_several_classes_is_by_the_smallest_margin(x64):
    params = lp.Affine(jnp.eye(3), jnp.zeros(3))  # the features are the logits
    rows = lp.Rows(None, jnp.array([0, 2, 1]), jnp.full(3, 1 / 3))
    z = jnp.array([[2.0, 1.0, 0.0], [0.0, 1.0, 1.5], [0.0, 0.1, 0.0]])

    def separated(z, rows=rows, loss=losses.categorical_nll):
        rows = rows._replace(features=z)
        value = blocks.reduce(rows, blocks.risk_block(loss), params, z)[0]
        return is_separated(loss, rows, params, z, float(value))

    assert separated(z)
    assert not separated(z.at[2, 1].set(0.0))  # a tie
    assert not separated(z.at[0, 2].set(3.0))
    assert separated(z.at[0, 2].set(3.0), rows._replace(weights=jnp.array([0, 0.5, 0.5])))
    smoothed = partial(losses.categorical_nll, smoothing=0.1)
    assert not separated(z, loss=smoothed)  # it rises again at infinity


def test_one_class_is_separated_from_two_that_overlap():
    iris = load_dataset("iris")
    X, y = iris.features[:, :2].astype(np.float64), iris.labels  # the sepals tell setosa alone
    found = runaway(X, y, np.ones(len(y)), 3, intercept=True)
    assert found is not None
    assert proves(X, y, np.ones(len(y)), found)
    others = y > 0
    assert runaway(X[others], y[others] - 1, np.ones(others.sum()), 2, intercept=True) is None
