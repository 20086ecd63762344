"""Solvers of sparse features: the optimum and the statuses of the same features made dense."""

import jax
import numpy as np
import pytest
import scipy.sparse as sp
from jax.experimental.sparse import BCOO

from jaxclf import (
    check_gradients,
    losses,
    make_batch,
    make_objective,
    minimize_path,
    penalties,
)
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.solvers.minimize import minimize

LAMBDA = 0.01
RIDGE = penalties.l2(LAMBDA)


def text_like(num_rows=300, num_features=60, num_classes=3, dtype=np.float64, seed=0):
    """Counts of words of falling frequency, with an empty row and an empty column."""
    rng = np.random.default_rng(seed)
    rate = 3 / (1 + np.arange(num_features))
    labels = rng.integers(0, num_classes, num_rows)
    lift = rng.lognormal(0, 1, (num_classes, num_features))
    x = rng.poisson(rate * lift[labels]).astype(dtype)
    x[5], x[:, 7] = 0, 0
    return x, labels


def problem(num_classes, dtype, *, penalty=RIDGE, intercept=True, weighted=False):
    x, labels = text_like(num_classes=num_classes, dtype=dtype)
    binary = num_classes == 2
    loss = losses.bernoulli_nll if binary else losses.categorical_nll
    objective = make_objective(linear.logits, loss, penalty)
    options = {"stddev": 0, "dtype": dtype, "intercept": intercept}
    with jax.enable_x64(dtype == np.float64):
        start = linear.init(
            jax.random.key(0), x.shape[1], None if binary else num_classes, **options
        )
    weights = np.random.default_rng(1).random(len(x)) if weighted else None
    return objective, start, x, labels, weights


def both(objective, start, x, labels, weights, **options):
    with jax.enable_x64(x.dtype == np.float64):
        return [
            minimize(objective, start, make_batch(features, labels, weights), **options)
            for features in (sp.csr_array(x), x)
        ]


@pytest.mark.parametrize(
    ("num_classes", "dtype", "weighted"),
    [(2, np.float32, False), (2, np.float64, True), (3, np.float32, True), (3, np.float64, False)],
)
def test_sparse_and_dense_features_have_the_same_optimum(num_classes, dtype, weighted):
    given = problem(num_classes, dtype, weighted=weighted)
    sparse, dense = both(*given, tol=1e-8)
    assert sparse.status == dense.status == "converged"
    assert sparse.solver.startswith("newton_cg")
    assert 0 <= sparse.gap_bound <= 1e-8
    assert abs(sparse.value - dense.value) <= sparse.gap_bound + dense.gap_bound
    np.testing.assert_allclose(sparse.params.weights, dense.params.weights, atol=2e-3)
    assert sparse.params.weights.dtype == dtype


@pytest.mark.parametrize(
    ("num_classes", "dtype", "options"),
    [
        (2, np.float32, {"penalty": penalties.l1(LAMBDA)}),
        (2, np.float64, {"penalty": penalties.l1(LAMBDA), "intercept": False}),
        (3, np.float32, {"penalty": penalties.elastic_net(l1=0.005, l2=0.01), "weighted": True}),
        (3, np.float64, {"penalty": penalties.l1(LAMBDA), "weighted": True}),
    ],
)
def test_an_l1_penalty_has_the_optimum_and_the_support_of_dense_features(
    num_classes, dtype, options
):
    given = problem(num_classes, dtype, **options)
    sparse, dense = both(*given, tol=1e-7)
    assert sparse.status == dense.status == "converged"
    assert sparse.solver.startswith("proximal_newton")
    assert 0 <= sparse.gap_bound <= 1e-7
    assert abs(sparse.value - dense.value) <= sparse.gap_bound + dense.gap_bound
    used, of_dense = (np.asarray(found.params.weights) != 0 for found in (sparse, dense))
    assert 0 < used.sum() < used.size
    np.testing.assert_array_equal(used, of_dense)


def test_an_l1_penalty_holds_all_weights_at_zero_where_it_is_strong():
    given = problem(3, np.float32, penalty=penalties.l1(10.0))
    sparse, dense = both(*given, tol=1e-6)
    assert sparse.status == dense.status == "converged"
    assert not np.any(sparse.params.weights)
    np.testing.assert_allclose(sparse.params.intercept, dense.params.intercept, atol=1e-5)


@pytest.mark.parametrize("solver", ["newton_cg", "lbfgs"])
def test_every_solver_for_a_ridge_takes_them_without_an_intercept(solver):
    given = problem(3, np.float64, intercept=False, weighted=True)
    sparse, dense = both(*given, solver=solver, tol=1e-9)
    assert sparse.status == "converged"
    assert sparse.params.intercept is None
    assert abs(sparse.value - dense.value) <= sparse.gap_bound + dense.gap_bound


def test_columns_of_other_scales_and_far_from_zero_keep_their_digits():
    objective, start, x, labels, weights = problem(2, np.float32)
    x = x.copy()
    x[:, 0] += 1000
    x[:, 1] *= 2.0**30
    sparse, dense = both(objective, start, x, labels, weights, tol=1e-7)
    assert sparse.status == dense.status == "converged"
    assert abs(sparse.value - dense.value) <= sparse.gap_bound + dense.gap_bound


def test_the_bound_holds_where_the_solver_stops_early():
    given = problem(3, np.float64)
    early, _ = both(*given, max_steps=1, tol=1e-12)
    _, best = both(*given, tol=1e-12)
    assert early.status == "max_steps"
    assert best.value - 1e-12 <= early.value <= best.value + early.gap_bound


def test_separated_classes_have_no_finite_minimiser():
    x = np.array([[1.0, 0], [2, 0], [0, 1], [0, 3]])
    objective = make_objective(linear.logits, losses.bernoulli_nll)
    start = linear.init(jax.random.key(0), 2, stddev=0)
    results = both(objective, start, x.astype(np.float32), np.array([0, 0, 1, 1]), None)
    assert {result.status for result in results} == {"no_finite_minimiser"}
    assert all(result.direction is not None for result in results)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_small_fit_without_a_penalty_has_the_bound_of_dense_features(num_classes):
    objective, start, x, labels, weights = problem(num_classes, np.float64, penalty=None)
    x, labels = np.delete(x, 7, 1)[:, :12], np.random.default_rng(2).permutation(labels)
    start = start._replace(weights=start.weights[..., :12])
    sparse, dense = both(objective, start, x, labels, weights, tol=1e-8)
    assert sparse.status == dense.status == "converged"
    assert 0 <= sparse.gap_bound <= 1e-8
    assert abs(sparse.value - dense.value) <= sparse.gap_bound + dense.gap_bound


@pytest.mark.parametrize(
    ("options", "penalty", "message"),
    [
        ({"solver": "newton_cholesky"}, penalties.l2(0.1), "'newton_cholesky' needs dense"),
        ({"stream": True}, penalties.l1(0.1), "an L1 penalty needs the rows in memory"),
    ],
)
def test_what_needs_dense_features_says_so(options, penalty, message):
    _, start, x, labels, _ = problem(2, np.float32)
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalty)
    with pytest.raises(ValueError, match=message):
        minimize(objective, start, make_batch(sp.csr_array(x), labels), **options)


def test_parameters_must_fit():
    objective, _, x, labels, _ = problem(2, np.float32)
    start = linear.init(jax.random.key(0), 5, stddev=0)
    with pytest.raises(ValueError, match="features must have shape"):
        minimize(objective, start, make_batch(sp.csr_array(x), labels))


@pytest.mark.parametrize("kind", [penalties.l2, penalties.l1])
def test_a_path_is_that_of_dense_features(kind):
    objective, start, x, labels, _ = problem(3, np.float32)
    strengths = [kind(strength) for strength in (1.0, 0.1, 0.01)]
    sparse, dense = (
        minimize_path(objective, start, make_batch(features, labels), strengths, tol=1e-7)
        for features in (sp.csr_array(x), x)
    )
    for ours, theirs in zip(sparse, dense, strict=True):
        assert ours.status == theirs.status == "converged"
        assert abs(ours.value - theirs.value) <= ours.gap_bound + theirs.gap_bound


@pytest.mark.parametrize("kind", [sp.csr_array, BCOO.fromdense])
def test_sparse_features_that_no_batch_has_checked_are_named(kind):
    objective, start, x, labels, _ = problem(2, np.float32)
    with pytest.raises(TypeError, match="which make_batch puts on the device"):
        minimize(objective, start, Batch(kind(x), labels))


def test_derivatives_of_an_objective_are_checked():
    objective, start, x, labels, _ = problem(3, np.float32)
    batch = make_batch(sp.csr_array(x), labels)
    params = jax.tree.map(lambda leaf: leaf + 0.1, start)
    assert check_gradients(lambda params: objective(params, batch), (params,))
