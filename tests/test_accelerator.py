"""Each solver, dtype and way of holding rows once, on the device that JAX has by default.

They are part of all tests. ``pytest -m accelerator`` runs them alone, on a machine that may lack
tensorflow-datasets, Grain, Orbax and tyro; so nothing here needs these.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks import exact
from jaxclf import (
    Batch,
    LogisticRegression,
    check_gradients,
    fit,
    losses,
    make_objective,
    minimize,
    penalties,
    sweep,
)
from jaxclf.models import linear
from jaxclf.scaling import make_mesh

pytestmark = pytest.mark.accelerator
N, D, K, L2 = 400, 6, 3, 1e-2
TOLS = {np.float32: 1e-6, np.float64: 1e-10}


def drawn(dtype=np.float32, *, num_classes=K):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (N, D)) / 256
    logits = 4 * (x - 0.5) @ rng.normal(size=(D, num_classes))
    y = np.argmax(logits + rng.gumbel(size=logits.shape), 1).astype(np.int32)
    return (x * 256 if dtype == np.uint8 else x).astype(dtype), y


def start_of(dtype, outputs=(K,)):
    return linear.LinearParams(np.zeros((*outputs, D), dtype), np.zeros(outputs, dtype))


def assert_certified(found, x, y, *, loss=exact.softmax, l1=0.0, l2=L2, tol):
    """The value is that of 80-bit floats, and no point is lower by more than the bound."""
    targets = np.eye(K)[y] if loss is exact.softmax else y
    weights = np.ones(len(y))
    problem = exact.make_problem(
        np.asarray(x, np.float64), targets, weights, loss, l1, l2, intercept=True
    )
    params = jax.tree.map(np.asarray, found.params)
    here = exact.point_of(problem, *params)
    value, least = (exact.value_of(problem, v) for v in (here, exact.minimise(problem, [here])))
    assert found.status == "converged"
    assert abs(found.value - value) < 1e-12
    assert 0 <= value - least <= found.gap_bound + 1e-15 <= tol + 1e-15


@pytest.mark.parametrize("dtype", TOLS)
@pytest.mark.parametrize("solver", ["newton_cholesky", "newton_cg", "lbfgs"])
def test_solvers(solver, dtype, x64):
    x, y = drawn(dtype)
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(L2))
    tol = TOLS[dtype]
    found = minimize(objective, start_of(dtype), Batch(x, y), solver=solver, tol=tol)
    assert_certified(found, x, y, tol=tol)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.uint8])
def test_narrow_features_on_the_device(dtype):
    x, y = drawn(dtype)
    l2 = L2 * (256**2 if dtype == np.uint8 else 1)
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(l2))
    batch = Batch(jnp.asarray(x), jnp.asarray(y))
    found = minimize(objective, start_of(np.float32), batch, solver="newton_cg", tol=1e-6)
    assert_certified(found, x, y, l2=l2, tol=1e-6)


def test_one_logit():
    x, y = drawn(num_classes=2)
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(L2))
    found = minimize(objective, start_of(np.float32, ()), Batch(x, y), tol=1e-6)
    assert_certified(found, x, y, loss=exact.bernoulli, tol=1e-6)


def test_l1():
    x, y = drawn()
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l1(L2))
    found = minimize(objective, start_of(np.float32), Batch(x, y), tol=1e-6)
    assert_certified(found, x, y, l1=L2, l2=0.0, tol=1e-6)


@pytest.mark.parametrize("solver", ["newton_cg", "lbfgs"])
def test_rows_in_chunks(solver):
    x, y = drawn()
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(L2))
    batch = Batch(x, y)
    found = minimize(objective, start_of(np.float32), batch, solver=solver, tol=1e-6, stream=True)
    assert_certified(found, x, y, tol=1e-6)


def test_rows_on_a_mesh():
    x, y = drawn()
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(L2))
    mesh = make_mesh(jax.devices()[:1])
    found = minimize(objective, start_of(np.float32), Batch(x, y), tol=1e-6, devices=mesh)
    assert_certified(found, x, y, tol=1e-6)


def test_lanes():
    x, y = drawn()
    found = sweep({"l2": [1e-3, 1e-2], "l1_ratio": [0.0, 0.5]}, Batch(x, y), tol=1e-5)
    for i, row in enumerate(found.table):
        params = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), found.params)
        l2, ratio = row["lane"]["l2"], row["lane"]["l1_ratio"]
        result = minimize(
            make_objective(
                linear.logits,
                losses.categorical_nll,
                penalties.elastic_net(l1=ratio * l2, l2=(1 - ratio) * l2),
            ),
            params,
            Batch(x, y),
            tol=1e-5,
        )
        assert row["status"] == "converged"
        assert row["objective"] - row["gap_bound"] <= result.value
        assert result.value - result.gap_bound <= row["objective"]


def test_minibatch_training_and_its_lanes_learn():
    x, y = drawn()
    objective = make_objective(linear.logits, losses.categorical_nll)
    trained = fit(
        objective, start_of(np.float32), Batch(x, y), optimizer=optax.sgd(1.0), batch_size=32,
        epochs=5, key=jax.random.key(0),
    )  # fmt: skip
    assert objective(trained.params, Batch(x, y)) < 0.9 * np.log(K)
    options = {"method": "minibatch", "epochs": 5}
    lanes = sweep({"learning_rate": [0.3, 1.0]}, Batch(x, y), **options)
    assert all(row["objective"] < np.log(K) for row in lanes.table)


def test_the_estimator_is_as_sure_as_minimize():
    x, y = drawn()
    model = LogisticRegression(tol=1e-6).fit(x, y)
    weights = model.coef_.astype(np.float64)
    z = x.astype(np.float64) @ weights.T + model.intercept_
    assert np.array_equal(model.predict(x), np.argmax(z, 1))
    assert model.result_.status == "converged"


def test_a_gradient_is_checked_in_float64():
    z = np.linspace(-3, 3, 4)
    assert check_gradients(lambda z: losses.categorical_nll(z, 1), (z,))
