"""Full-batch fits reach the exact optimum, with any convex loss and any rows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxclf import Batch, losses, make_objective, penalties
from jaxclf.data import transforms
from jaxclf.models import linear
from jaxclf.solvers import in_memory
from jaxclf.solvers.minimize import minimize
from tests.solvers.problems import LAMBDA, SMOOTH, SOFTMAX, optimum, problem, small, start


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        ("iris", "newton_cholesky"),
        ("wine", "newton_cg"),
        ("wine", "newton_cholesky"),
        ("breast_cancer", "newton_cg"),
    ],
)
def test_the_optimum_is_that_of_scikit_learn_on_unscaled_data(name, solver, x64):
    objective, params, batch = problem(name)
    result = minimize(objective, params, batch, tol=1e-10, solver=solver)
    assert result.status == "converged"
    assert result.solver == f"{solver}: as asked"
    assert result.gap_bound < 1e-9
    theirs = "newton-cholesky" if params.weights.ndim == 1 else "newton-cg"
    peer = LogisticRegression(tol=1e-10, max_iter=10**5, solver=theirs)
    peer.fit(np.asarray(batch.features), np.asarray(batch.labels))
    shape = np.shape(params.weights)
    theirs = linear.LinearParams(peer.coef_.reshape(shape), peer.intercept_.reshape(shape[:-1]))
    assert abs(float(objective(theirs, batch)) - result.value) < 1e-9
    np.testing.assert_allclose(result.params.weights, theirs.weights, rtol=1e-4, atol=1e-6)


def test_all_solvers_agree(x64):
    objective, params, batch = problem("iris")
    standardiser = transforms.fit_standardiser(np.asarray(batch.features))
    features = jnp.asarray(transforms.standardise(standardiser, np.asarray(batch.features)))
    scaled = batch._replace(features=features)
    results = [minimize(objective, params, scaled, tol=1e-12, solver=s) for s in SMOOTH]
    for result in results:
        assert result.status == "converged"
        assert abs(result.value - results[0].value) < 1e-9
        assert result.gap_bound < 1e-9


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        ("iris", "newton_cg"),
        ("wine", "newton_cholesky"),
        ("wine", "newton_cg"),
        ("breast_cancer", "newton_cholesky"),
    ],
)
def test_in_single_precision_it_comes_as_close_as_rounding_allows(name, solver):
    objective, params, batch = problem(name, np.float32)
    result = minimize(objective, params, batch, tol=1e-7, solver=solver)
    assert result.status in ("converged", "precision_floor")
    assert result.params.weights.dtype == np.float32
    with jax.enable_x64(True):
        best = minimize(*problem(name), tol=1e-13).value
    assert -1e-8 < result.value - best < 1e-6


LOSSES = {
    "bernoulli": (losses.bernoulli_nll, "01"),
    "soft bernoulli": (losses.bernoulli_nll, "probability"),
    "smoothed": (partial(losses.categorical_nll, smoothing=0.1), "class"),
    "soft categorical": (losses.soft_categorical_nll, "distribution"),
    "multilabel": (losses.multilabel_nll, "several"),
    "squared error": (losses.squared_error, "number"),
    "squared hinge": (losses.squared_hinge, "sign"),
    "logistic margin": (losses.logistic_margin, "sign"),
}


def labels_of(kind, n, rng):
    draws = rng.uniform(size=(n, 3))
    return {
        "01": (draws[:, 0] > 0.5).astype(np.int32),
        "probability": draws[:, 0],
        "class": rng.integers(0, 3, n).astype(np.int32),
        "distribution": draws / draws.sum(1, keepdims=True),
        "several": (draws > 0.5).astype(np.float64),
        "number": rng.normal(size=n),
        "sign": np.where(draws[:, 0] > 0.5, 1, -1).astype(np.int32),
    }[kind]


@pytest.mark.parametrize(
    ("name", "intercept", "solver"),
    [(name, name != "smoothed", "newton_cholesky") for name in LOSSES]
    + [("soft bernoulli", False, "newton_cg"), ("multilabel", True, "newton_cg")],
)
def test_any_convex_loss_reaches_a_point_where_its_gradient_is_zero(name, intercept, solver, x64):
    loss, kind = LOSSES[name]
    rng = np.random.default_rng(3)
    batch = Batch(rng.normal(size=(60, 4)), labels_of(kind, 60, rng), rng.uniform(0, 2, 60))
    outputs = 3 if kind in ("class", "distribution", "several") else None
    params = start(4, outputs, np.float64, intercept=intercept)
    objective = make_objective(linear.logits, loss, penalties.l2(LAMBDA))
    result = minimize(objective, params, batch, tol=1e-13, solver=solver)
    assert result.status == "converged"
    gradient = jax.grad(objective)(result.params, batch)
    assert max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(gradient)) < 1e-6
    assert jax.tree.structure(result.params) == jax.tree.structure(params)


def test_least_squares_without_a_penalty_is_the_normal_equations(x64):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    objective = make_objective(linear.logits, losses.squared_error)
    result = minimize(objective, start(3, dtype=np.float64), Batch(x, y), tol=1e-15)
    expected = np.linalg.lstsq(np.c_[x, np.ones(40)], y)[0]
    np.testing.assert_allclose(result.params.weights, expected[:3], atol=1e-7)
    assert result.status in ("stationary", "precision_floor")
    assert result.gap_bound < 1e-12


def test_weights_are_repeated_rows(x64):
    batch = small(np.float64)
    counts = np.arange(80) % 3
    weighted = batch._replace(weights=jnp.asarray(counts, jnp.float64))
    repeated = jax.tree.map(lambda x: jnp.repeat(x, counts, axis=0), batch)
    params = start(5, 3, np.float64)
    a, b = (minimize(SOFTMAX, params, data, tol=1e-14) for data in (weighted, repeated))
    np.testing.assert_allclose(a.params.weights, b.params.weights, atol=1e-7)
    assert a.value == pytest.approx(b.value, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.int32])
def test_features_of_other_dtypes_are_widened(dtype):
    rng = np.random.default_rng(0)
    features = rng.integers(0, 9, (90, 4)).astype(dtype)
    labels = rng.integers(0, 3, 90).astype(np.int32)
    narrow, wide = (
        minimize(
            SOFTMAX,
            start(4, 3),
            Batch(jnp.asarray(x), jnp.asarray(labels)),
            tol=1e-9,
            solver="newton_cg" if dtype == np.uint8 else "auto",
        )
        for x in (features, features.astype(np.float32))
    )
    np.testing.assert_allclose(narrow.params.weights, wide.params.weights, atol=1e-4)
    assert narrow.value == pytest.approx(wide.value, abs=1e-7)


def test_sampled_hessians_reach_the_same_optimum(monkeypatch):
    batch = small(num_rows=3000, num_features=8)
    expected = optimum(batch, start(8, 3))
    monkeypatch.setitem(in_memory._SAMPLED_ABOVE, "newton_cg", 100)
    options = {"tol": 1e-7, "solver": "newton_cg"}
    result = minimize(SOFTMAX, start(8, 3), batch, **options)
    assert "sampled" in result.solver
    assert result.value - expected < 1e-6
    again = minimize(SOFTMAX, start(8, 3), batch, **options)
    np.testing.assert_array_equal(result.params.weights, again.params.weights)


def test_many_logits_are_certified_with_an_intercept(x64):
    rng = np.random.default_rng(0)
    batch = Batch(rng.normal(size=(200, 3)), (np.arange(200) % 70).astype(np.int32))
    result = minimize(SOFTMAX, start(3, 70, np.float64), batch, tol=1e-11)
    assert result.status == "converged"
    assert result.gap_bound < 1e-9
    gradient = jax.grad(SOFTMAX)(result.params, batch)
    assert max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(gradient)) < 1e-5


@pytest.mark.parametrize("solver", SMOOTH)
def test_a_second_fit_compiles_nothing(solver):
    traces = []

    def counted(logits, label):
        traces.append(1)
        return losses.categorical_nll(logits, label)

    batch = small()
    for strength in (0.1, 0.01):
        objective = make_objective(linear.logits, counted, penalties.l2(strength))
        minimize(objective, start(5, 3), batch, solver=solver)
        if strength == 0.1:
            first = len(traces)
    assert len(traces) == first


@pytest.mark.parametrize("solver", SMOOTH)
def test_the_callback_sees_every_step(solver):
    seen = []
    result = minimize(SOFTMAX, start(5, 3), small(), callback=seen.append, solver=solver)
    assert tuple(seen) == result.trace
    assert seen[-1].passes <= result.passes
