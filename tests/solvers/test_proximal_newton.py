"""L1 and elastic net: optimality conditions, the peer's optimum, bounds, the working set."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxclf import Batch, load_dataset, losses, make_objective, minimize, penalties
from jaxclf.data import synthetic
from jaxclf.facts import state_facts
from jaxclf.linear_algebra import problem as lp
from jaxclf.models import linear
from jaxclf.penalties import strength_from_sklearn
from jaxclf.solvers import in_memory, proximal_newton


def data(num_rows=120, num_features=10, num_classes=3, dtype=np.float64):
    made = synthetic.gaussian_classes(2, num_rows, num_features, num_classes, dtype=dtype)
    return Batch(jnp.asarray(made.features), jnp.asarray(made.labels))


def start(num_features, num_outputs=3, dtype=np.float64, **options):
    return linear.init(
        jax.random.key(0), num_features, num_outputs, stddev=0, dtype=dtype, **options
    )


def lasso(l1=0.02, l2=0.0, loss=losses.categorical_nll):
    return make_objective(linear.logits, loss, penalties.elastic_net(l1=l1, l2=l2))


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_the_optimality_conditions_hold(l2, intercept, x64):
    batch, params = data(), start(10, intercept=intercept)
    result = minimize(lasso(l2=l2), params, batch, tol=1e-11)
    assert result.status == "converged"
    assert result.solver == "proximal_newton: a linear model with an L1 penalty"
    smooth = make_objective(linear.logits, losses.categorical_nll, penalties.l2(l2))
    gradient = jax.grad(smooth)(result.params, batch)
    w, g = np.asarray(result.params.weights), np.asarray(gradient.weights)
    assert 0 < (w == 0).sum() < w.size
    np.testing.assert_allclose(g[w != 0], -0.02 * np.sign(w[w != 0]), atol=1e-6)
    assert np.abs(g[w == 0]).max() <= 0.02 + 1e-6
    if intercept:
        np.testing.assert_allclose(gradient.intercept, 0, atol=1e-9)
    assert result.gradient_norm < 1e-6
    assert result.gap_bound < 1e-4


def test_the_optimum_is_that_of_scikit_learn(x64):
    made = load_dataset("breast_cancer", dtype=np.float64)
    features = (made.features - made.features.mean(0)) / made.features.std(0)
    l1 = strength_from_sklearn(0.1, len(features))
    batch = Batch(jnp.asarray(features), jnp.asarray(made.labels))
    objective = lasso(l1, loss=losses.bernoulli_nll)
    result = minimize(objective, start(30, None), batch, tol=1e-12)
    peer = LogisticRegression(
        C=0.1, l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=10**5, random_state=0
    )
    peer.fit(features, made.labels)
    theirs = linear.LinearParams(jnp.asarray(peer.coef_[0]), jnp.asarray(peer.intercept_[0]))
    assert -1e-12 < float(objective(theirs, batch)) - result.value < 1e-8
    np.testing.assert_array_equal(result.params.weights != 0, peer.coef_[0] != 0)
    np.testing.assert_allclose(result.params.weights, peer.coef_[0], atol=1e-4)


@pytest.mark.parametrize("l2", [0.0, 1e-6, 0.1])
def test_the_bound_is_a_bound_at_every_step(l2, x64):
    batch, params, objective = data(), start(10), lasso(l2=l2)
    best = minimize(objective, params, batch, tol=1e-13).value
    bounds = []
    for steps in range(1, 6):
        result = minimize(objective, params, batch, tol=1e-13, max_steps=steps)
        assert -1e-12 < result.value - best <= result.gap_bound < np.inf
        assert float(objective(result.params, batch)) == pytest.approx(result.value, abs=1e-12)
        bounds.append(result.gap_bound)
    assert bounds[-1] < 0.1 * bounds[0]


def test_a_loss_that_may_be_negative_has_no_bound_by_l1_alone(x64):
    def shifted(logits, label):
        return losses.categorical_nll(logits, label) - 1

    assert minimize(lasso(0.02, loss=shifted), start(10), data()).gap_bound == np.inf
    # At zero weights the slopes are a dual point as they are.
    assert minimize(lasso(10.0, loss=shifted), start(10), data()).gap_bound < 1e-9
    assert minimize(lasso(loss=shifted, l2=0.1), start(10), data()).gap_bound < 1e-3
    state_facts(shifted, convex=True, lower_bound=-1.0)
    assert minimize(lasso(0.02, loss=shifted), start(10), data()).gap_bound < 1e-3


def test_weights_without_curvature_are_set_to_zero(x64):
    """A squared hinge is flat where every margin is above one."""
    x, y = jnp.array([[1.0], [-1.0]]), jnp.array([1, -1])
    far = linear.LinearParams(jnp.array([5.0]), None)
    result = minimize(lasso(10.0, loss=losses.squared_hinge), far, Batch(x, y))
    assert result.status == "converged"
    assert float(result.params.weights[0]) == 0


def test_a_strong_penalty_leaves_only_the_intercept(x64):
    batch = data()
    result = minimize(lasso(l1=10.0), start(10), batch, tol=1e-12)
    assert result.status == "converged"
    assert not np.asarray(result.params.weights).any()
    shares = np.bincount(np.asarray(batch.labels)) / len(batch.labels)
    np.testing.assert_allclose(jax.nn.softmax(result.params.intercept), shares, atol=1e-9)


def test_weights_are_repeated_rows(x64):
    batch = data()
    counts = np.arange(120) % 3
    weighted = batch._replace(weights=jnp.asarray(counts, jnp.float64))
    repeated = jax.tree.map(lambda x: jnp.repeat(x, counts, axis=0), batch)
    a, b = (minimize(lasso(), start(10), rows, tol=1e-13) for rows in (weighted, repeated))
    np.testing.assert_allclose(a.params.weights, b.params.weights, atol=1e-6)
    assert a.value == pytest.approx(b.value, abs=1e-11)


def test_sampled_rows_and_working_sets_smaller_than_the_support(monkeypatch):
    """In float32, with rows drawn and room for few weights at a time."""
    batch = data(3000, 40, dtype=np.float32)
    expected = minimize(lasso(l1=1e-3), start(40, dtype=np.float32), batch, tol=1e-7)
    monkeypatch.setitem(in_memory._SAMPLED_ABOVE, "proximal_newton", 1000)
    sampled = minimize(lasso(l1=1e-3), start(40, dtype=np.float32), batch, tol=1e-7)
    assert "sampled" in sampled.solver
    assert abs(sampled.value - expected.value) < 1e-6
    assert (np.asarray(expected.params.weights) != 0).sum() > 20
    monkeypatch.setattr(proximal_newton, "_LARGEST_SET", 9)
    parts = minimize(lasso(l1=1e-3), start(40, dtype=np.float32), batch, tol=1e-7, max_steps=500)
    assert abs(parts.value - expected.value) < 1e-5


def test_the_other_statuses():
    batch, params = data(dtype=np.float32), start(10, dtype=np.float32)
    assert minimize(lasso(), params, batch, max_steps=1, tol=1e-9).status == "max_steps"
    assert minimize(lasso(), params, batch, tol=1e-30).status == "precision_floor"
    huge = batch._replace(features=batch.features * 1e30)
    found = minimize(lasso(), linear.LinearParams(jnp.ones((3, 10))), huge)
    assert found.status != "nonfinite"  # in units of the columns
    assert 0 <= found.gap_bound < np.inf


def test_the_dense_hessian_is_that_of_the_objective(x64):
    batch = data(30, 4)
    params = linear.init(jax.random.key(1), 4, 3, stddev=0.5, dtype=np.float64)
    bare = make_objective(linear.logits, losses.categorical_nll)

    def of_matrix(m):
        return bare(linear.LinearParams(m[:, :4], m[:, 4]), batch)

    stacked = jnp.c_[params.weights, params.intercept]
    expected = jax.jit(jax.hessian(of_matrix))(stacked).reshape(15, 15)
    rows = lp.Rows(*batch[:2], jnp.full(30, 1 / 30))
    z = lp.logits(batch.features, lp.Affine(*params))
    dense = jax.jit(partial(lp.dense_hessian, losses.categorical_nll), static_argnames="intercept")
    found = dense(rows, z, None, intercept=True)
    np.testing.assert_allclose(found, expected, atol=1e-13)
    columns = jnp.array([[2, 0], [1, 3], [0, 1]])
    part = dense(rows, z, columns, intercept=False)
    places = (5 * jnp.arange(3)[:, None] + columns).ravel()
    np.testing.assert_allclose(part, expected[places[:, None], places[None]], atol=1e-13)
