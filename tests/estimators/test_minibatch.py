"""Minibatch training behind scikit-learn's interface."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from jaxclf import LogisticRegression, MinibatchClassifier
from jaxclf.losses import categorical_nll


def standardised(load=load_iris):
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X).astype(np.float32), y


def test_descends_to_the_optimum_of_the_same_objective():
    X, y = standardised()
    C = 1.0
    optimum = LogisticRegression(C=C, tol=1e-9).fit(X, y)
    options = {"l2": 1 / (C * len(y)), "optimizer": "lbfgs", "learning_rate": 1.0}
    model = MinibatchClassifier(**options, batch_size=len(y), epochs=200).fit(X, y)
    assert np.abs(model.predict_proba(X) - optimum.predict_proba(X)).max() < 1e-2


def test_partial_fit_takes_the_steps_of_fit():
    X, y = standardised()
    options = {"batch_size": len(y), "optimizer": "momentum_of_no_one"}
    with pytest.raises(ValueError, match="optimizer must be one of optax"):
        MinibatchClassifier(**options).fit(X, y)
    options = {"batch_size": len(y), "random_state": 3}
    whole = MinibatchClassifier(epochs=5, **options).fit(X, y)
    parts = MinibatchClassifier(**options)
    for _ in range(5):
        parts.partial_fit(X, y, classes=[0, 1, 2])
    # A batch of all rows is the same in any order; Adam's moments must have been kept.
    assert np.allclose(parts.params_.weights, whole.params_.weights, atol=1e-5)
    assert parts.n_iter_ == 5
    fresh = MinibatchClassifier(**options).partial_fit(X, y, classes=[0, 1, 2])
    assert not np.allclose(fresh.params_.weights, whole.params_.weights, atol=1e-3)


def test_partial_fit_needs_to_know_the_classes():
    X, y = standardised()
    with pytest.raises(ValueError, match="first call of partial_fit needs classes"):
        MinibatchClassifier().partial_fit(X, y)
    model = MinibatchClassifier().partial_fit(X[:50], y[:50], classes=[0, 1])
    with pytest.raises(ValueError, match="a label 2 that is not one of the classes"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match="classes were"):
        model.partial_fit(X[:50], y[:50], classes=[0, 1, 2])


def test_stops_early_and_keeps_the_best():
    X, y = standardised(load_digits)
    model = MinibatchClassifier(
        "mlp", hidden=(32,), early_stopping=True, n_iter_no_change=3, epochs=300, random_state=0
    ).fit(X, y)
    assert model.status_ == "stopped_early"
    assert model.n_iter_ < 300
    held = [epoch["held_out_loss"] for epoch in model.history_]
    assert len(held) - 1 - int(np.argmin(held)) == 3
    assert model.score(X, y) > 0.95


def test_takes_a_flax_module_a_loss_and_an_optimizer_of_ones_own():
    X, y = standardised()
    module = nnx.Sequential(
        nnx.Linear(4, 8, rngs=nnx.Rngs(0)), nnx.tanh, nnx.Linear(8, 3, rngs=nnx.Rngs(1))
    )

    def own(logits, label):
        return 2 * categorical_nll(logits, label)

    model = MinibatchClassifier(module, loss=own, optimizer=optax.adamw(0.02), epochs=60)
    assert clone(model).fit(X, y).score(X, y) > 0.9
    assert not hasattr(model, "predict_proba")
    with pytest.raises(ValueError, match=r"a logit for each of 2 classes, got shape \(3,\)"):
        model.fit(X[:100], y[:100])


@pytest.mark.parametrize("loss", ["hinge", "squared_error", "softmax_squared_error"])
def test_other_losses_give_scores_and_no_probabilities(loss):
    X, y = standardised()
    model = MinibatchClassifier(loss=loss, early_stopping=True, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.75
    assert model.decision_function(X).shape == (len(y), 3)
    assert not hasattr(model, "predict_proba")


def test_a_diverging_run_warns_and_leaves_finite_weights():
    X, y = standardised()
    model = MinibatchClassifier(optimizer="sgd", learning_rate=1e30, loss="squared_error")
    with pytest.warns(ConvergenceWarning, match="lower learning_rate"):
        model.fit(X, y)
    assert model.status_ == "nonfinite"
    assert np.isfinite(model.params_.weights).all()


def test_float64_is_computed_in_float64():
    X, y = standardised()
    model = MinibatchClassifier("mlp", hidden=(4,), epochs=2).fit(X.astype(np.float64), y)
    assert model.predict_proba(X.astype(np.float64)).dtype == np.float64
    assert {leaf.dtype for leaf in model.params_["output"].values()} == {jnp.dtype("float64")}


def test_partial_fit_goes_on_in_the_dtype_it_began_with_and_from_what_predicts():
    X, y = standardised()
    model = MinibatchClassifier(random_state=0).partial_fit(X.astype(np.float64), y, [0, 1, 2])
    assert model.partial_fit(X, y).params_.weights.dtype == np.float64
    stopped = MinibatchClassifier(early_stopping=True, epochs=3, random_state=0).fit(X, y)
    assert np.array_equal(stopped._state.params.weights, stopped.params_.weights)
    noise = optax.add_noise(eta=0.01, gamma=0.55, key=jax.random.key(0))
    optimizer = optax.chain(noise, optax.sgd(0.1))
    noisy = MinibatchClassifier(optimizer=optimizer, epochs=2, random_state=0).fit(X, y)
    assert noisy.partial_fit(X, y).n_iter_ == 3
    wild = MinibatchClassifier(optimizer="sgd", learning_rate=1e30, loss="squared_error")
    wild.partial_fit(X, y, [0, 1, 2])
    with pytest.warns(ConvergenceWarning, match="lower learning_rate"):
        wild.partial_fit(X, y)


def test_an_attempt_that_fails_leaves_the_model_as_it_was():
    X, y = standardised()
    model = MinibatchClassifier(epochs=2, early_stopping=True).fit(X, y)
    before, other = model.predict(X), np.where(y == 0, 7, y)
    other[:2] = 9, 0  # a class of one row cannot be split
    with pytest.raises(ValueError, match="least populated class"):
        model.fit(X, other)
    np.testing.assert_array_equal(model.predict(X), before)


def test_rows_without_any_weight_are_refused():
    X, y = standardised()
    model = MinibatchClassifier(class_weight={0: 0, 1: 1, 2: 1})
    with pytest.raises(ValueError, match="weights must not all be zero"):
        model.partial_fit(X[y == 0], y[y == 0], classes=[0, 1, 2])


def test_one_width_is_one_hidden_layer():
    X, y = standardised()
    options = {"epochs": 1, "random_state": 0}
    one, same = (MinibatchClassifier("mlp", hidden=h, **options).fit(X, y) for h in (5, (5,)))
    np.testing.assert_array_equal(one.predict(X), same.predict(X))
    with pytest.raises(TypeError, match="hidden must be integers, got dtype float64"):
        MinibatchClassifier("mlp", hidden=(64.7,)).fit(X, y)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_sparse_features_stay_sparse_and_give_the_same_steps(monkeypatch, num_classes):
    rng = np.random.default_rng(0)
    y = rng.integers(0, num_classes, 150)
    X = rng.poisson(rng.lognormal(-2.5, 1.5, (num_classes, 40))[y]).astype(np.float32)
    options = {"epochs": 6, "batch_size": 32, "random_state": 0}
    plain = MinibatchClassifier(early_stopping=True, **options)
    wanted = clone(plain).fit(X, y), clone(plain).partial_fit(X, y, np.unique(y))
    monkeypatch.setattr("jaxclf.estimators.inputs.MOST_DENSE_BYTES", 0)
    for kind in (sparse.csr_array, sparse.csc_matrix):
        thin = clone(plain).fit(kind(X), y), clone(plain).partial_fit(kind(X), y, np.unique(y))
        for ours, theirs in zip(thin, wanted, strict=True):
            np.testing.assert_allclose(
                ours.params_.weights, theirs.params_.weights, rtol=1e-4, atol=1e-5
            )
            np.testing.assert_allclose(
                ours.predict_proba(kind(X)), theirs.predict_proba(X), atol=1e-5
            )
    with pytest.raises(ValueError, match="GiB when dense"):
        clone(plain).set_params(model="mlp").fit(sparse.csr_array(X), y)
