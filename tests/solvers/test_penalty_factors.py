"""Penalty factors: free, weighed and fixed coefficients, at the optimum that SciPy finds."""

import jax
import numpy as np
import pytest
from scipy.sparse import csr_array

from jaxclf import Batch, losses, make_batch, make_objective, minimize, penalties, solve
from jaxclf.models import linear
from jaxclf.solvers.inputs import fixed_columns
from tests.solvers.references import least

SMOOTH = ("newton_cg", "newton_cholesky", "lbfgs", "stream")
INF = np.inf
FACTORS = {
    "by feature": (1.0, 4.0, 0.2, 1.0, 2.0),
    "free": (0.0, 1.0, 1.0, 0.0, 2.0),
    "fixed": (INF, 1.0, 3.0, INF, 1.0),
    "all kinds": (INF, 0.0, 3.0, 1.0, 0.5),
}
BY_COEFFICIENT = {
    "by coefficient": ((1, 2, 3, 4, 5), (5, 4, 3, 2, 1), (1, 1, 1, 1, 1)),
    "free of one class": ((1, 0, 1, 1, 1), (1, 1, 1, 1, 1), (1, 1, 0, 0, 1)),
    "fixed of one class": ((INF, 1, 1, 1, INF), (1, INF, 1, 1, INF), (1, 1, 1, 2, INF)),
    "all kinds": ((INF, 0, 1, 1, 1), (1, 0, 1, 0, 2), (0, 1, INF, 1, 1)),
}


def data(num_logits, num_rows=90):
    rng = np.random.default_rng(num_logits)
    x = rng.normal(size=(num_rows, 5)) * [1, 2, 1, 0.5, 1] + 1
    z = x @ rng.normal(size=(5, max(num_logits, 2)))
    y = (z + rng.gumbel(size=z.shape)).argmax(1)
    return Batch(x, y, rng.uniform(0.2, 2, num_rows))


def fitted(num_logits, batch, penalty, **options):
    outputs = () if num_logits == 1 else (num_logits,)
    loss = losses.bernoulli_nll if num_logits == 1 else losses.categorical_nll
    options = {"tol": 1e-10, **options}
    if options.get("solver") == "stream":
        options = {**options, "solver": "newton_cg", "stream": True}
    with jax.enable_x64(True):
        start = linear.LinearParams(np.zeros((*outputs, 5)), np.zeros(outputs))
        return minimize(make_objective(linear.logits, loss, penalty), start, batch, **options)


def check(found, num_logits, batch, factors, l2, l1=0.0):
    factors = np.array(factors, float)
    assert found.status == "converged"
    strengths = (np.where(factors == INF, INF, x * np.where(factors == INF, 0, factors))
                 for x in (l2, l1))  # fmt: skip
    assert found.value == pytest.approx(least(num_logits, batch, *strengths), abs=1e-8)
    weights = np.asarray(found.params.weights)
    assert (weights[np.broadcast_to(factors == INF, weights.shape)] == 0).all()


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("solver", SMOOTH)
@pytest.mark.parametrize("num_logits", [1, 3])
def test_ridge_by_feature(num_logits, solver, name):
    batch, penalty = data(num_logits), penalties.l2(0.05, factors=FACTORS[name])
    check(fitted(num_logits, batch, penalty, solver=solver), num_logits, batch, FACTORS[name], 0.05)


@pytest.mark.parametrize("name", BY_COEFFICIENT)
@pytest.mark.parametrize("solver", SMOOTH)
def test_ridge_by_coefficient(solver, name):
    """Strengths that differ from class to class, which see a shift of all classes."""
    batch, factors = data(3), BY_COEFFICIENT[name]
    found = fitted(3, batch, penalties.l2(0.05, factors=factors), solver=solver)
    check(found, 3, batch, factors, 0.05)


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("num_logits", [1, 3])
def test_elastic_net_by_feature(num_logits, name):
    batch = data(num_logits)
    penalty = penalties.elastic_net(l1=0.02, l2=0.01, factors=FACTORS[name])
    check(fitted(num_logits, batch, penalty), num_logits, batch, FACTORS[name], 0.01, 0.02)


@pytest.mark.parametrize("name", [*FACTORS, "fixed of one class"])
def test_lasso(name):
    num_logits = 1 if name in FACTORS else 3
    factors = FACTORS.get(name) or BY_COEFFICIENT[name]
    batch = data(num_logits)
    check(fitted(num_logits, batch, penalties.l1(0.03, factors=factors)), num_logits, batch,
          factors, 0.0, 0.03)  # fmt: skip


def test_columns_in_other_units_keep_their_strengths():
    batch = data(1)
    units = np.array([1e-6, 1e5, 1.0, 1e3, 1.0])
    scaled = batch._replace(features=batch.features * units)
    factors = np.array(FACTORS["free"]) * units**2
    found = fitted(1, scaled, penalties.l2(0.05, factors=factors))
    same = fitted(1, batch, penalties.l2(0.05, factors=FACTORS["free"]))
    assert found.value == pytest.approx(same.value, abs=1e-9)
    np.testing.assert_allclose(
        np.asarray(found.params.weights) * units, same.params.weights, atol=1e-4
    )


def test_a_column_that_is_fixed_may_be_sparse_and_the_result_keeps_its_dtype():
    batch, factors = data(1), FACTORS["fixed"]
    with jax.enable_x64(True):
        rows = make_batch(csr_array(batch.features), batch.labels, batch.weights)
    found = fitted(1, rows, penalties.l2(0.05, factors=factors))
    check(found, 1, batch, factors, 0.05)
    assert found.params.weights.dtype == np.float64


def test_a_free_column_that_separates_has_no_minimiser():
    batch = data(1)
    apart = np.where(batch.labels, 1.0, -1.0) * (1 + batch.features[:, 0] ** 2)
    batch = batch._replace(features=np.c_[apart, batch.features[:, 1:]])
    found = fitted(1, batch, penalties.l2(0.05, factors=FACTORS["free"]), max_steps=30)
    assert found.status == "no_finite_minimiser"
    assert (found.direction.weights[[1, 2, 4]] == 0).all()


def test_a_free_column_beside_many_others_has_a_bound():
    rng = np.random.default_rng(0)
    x, factors = rng.normal(size=(700, 600)), np.ones(600)
    factors[0] = 0
    batch = Batch(x.astype(np.float32), (x[:, 0] + rng.logistic(size=700) > 0).astype(int))
    start = linear.LinearParams(np.zeros(600, np.float32), np.zeros((), np.float32))
    penalty = penalties.l2(0.1, factors=factors)
    found = minimize(make_objective(linear.logits, losses.bernoulli_nll, penalty), start, batch)
    assert found.status == "converged"
    assert found.value == pytest.approx(least(1, batch, 0.1 * factors), abs=2e-6)


def test_solve_has_a_derivative_in_a_strength_with_factors():
    batch = data(1)
    with jax.enable_x64(True):
        start = linear.LinearParams(np.zeros(5), np.zeros(()))

        def weight(strength):
            penalty = penalties.l2(strength, factors=FACTORS["free"])
            objective = make_objective(linear.logits, losses.bernoulli_nll, penalty)
            return solve(objective, start, batch).weights[1]

        slope, change = jax.grad(weight)(0.1), (weight(0.1001) - weight(0.0999)) / 2e-4
        slope, change = float(slope), float(change)
        lasso = penalties.l1(0.03, factors=FACTORS["free"])
        objective = make_objective(linear.logits, losses.bernoulli_nll, lasso)
        same = solve(objective, start, batch).weights
    assert slope == pytest.approx(change, rel=1e-5)
    np.testing.assert_allclose(same, fitted(1, batch, lasso).params.weights, atol=1e-5)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((1, -1, 1, 1, 1), "factors must be at least 0, .*, got -1"),
        ((1, np.nan, 1, 1, 1), "factors must be at least 0, .*, got nan"),
        (np.ones((2, 3, 4)), r"factors must have shape \(d,\) or \(K, d\), got \(2, 3, 4\)"),
        (np.ones(4), r"penalty factors of shape \(4,\) do not fit weights of shape \(3, 5\)"),
        (np.ones((2, 5)), r"of shape \(2, 5\) do not fit weights of shape \(3, 5\)"),
    ],
)
def test_factors_that_do_not_fit_are_refused(factors, message):
    with pytest.raises(ValueError, match=message):
        fitted(3, data(3), penalties.l2(0.1, factors=factors))


def test_no_column_is_left_out_without_factors():
    assert not fixed_columns(penalties.l2(0.1)).any()
