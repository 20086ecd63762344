"""Everything that fits works under JAX's own settings."""

import jax
import numpy as np
import pytest

from jaxclf import (
    LinearSVC,
    LogisticRegression,
    LogisticRegressionCV,
    MinibatchClassifier,
    OneVsRestLogisticRegression,
    RidgeClassifier,
    fit,
    losses,
    make_batch,
    make_objective,
    metrics,
    minimize,
    penalties,
    sweep,
)
from jaxclf.models import linear

SETTINGS = {
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "64 bits": lambda: jax.enable_x64(True),
    "no jit": jax.disable_jit,
    "debug nans": lambda: jax.debug_nans(True),
}
"""All tests run with warnings as errors and rank promotion refused."""
RNG = np.random.default_rng(0)
Y = np.tile(np.arange(3, dtype=np.int32), 8)
X = (RNG.normal(size=(24, 2)) + np.c_[Y, Y == 1]).astype(np.float32)
START = linear.LinearParams(np.zeros((3, 2), np.float32), np.zeros(3, np.float32))
CV = {"Cs": 2, "cv": 2, "l1_ratios": (0, 1), "scoring": "neg_log_loss"}
ESTIMATORS = [
    LogisticRegression(),
    LogisticRegression(l1_ratio=1.0),
    LogisticRegressionCV(**CV, use_legacy_attributes=False),
    OneVsRestLogisticRegression(),
    LinearSVC(loss="hinge", tol=0.1),
    RidgeClassifier(),
    MinibatchClassifier(epochs=2, early_stopping=True, validation_fraction=0.2),
]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_estimators(estimator, setting):
    if setting == "no jit" and isinstance(estimator, LogisticRegressionCV | LinearSVC):
        pytest.skip("many fits take long without jit; they are those of the others")
    with SETTINGS[setting]():
        for dtype in (np.float32,) if setting == "no jit" else (np.float32, np.float64):
            assert estimator.fit(X.astype(dtype), Y).score(X.astype(dtype), Y) > -2


def _objective(penalty):
    return make_objective(linear.logits, losses.categorical_nll, penalty)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("solver", ["newton_cg", "newton_cholesky", "lbfgs", "proximal_newton"])
def test_minimize(solver, setting):
    penalty = penalties.l1(0.1) if solver == "proximal_newton" else penalties.l2(0.1)
    with SETTINGS[setting]():
        result = minimize(_objective(penalty), START, make_batch(X, Y), solver=solver, tol=1e-4)
    assert result.status == "converged"


@pytest.mark.parametrize("setting", SETTINGS)
def test_fit_by_the_name_of_an_optimizer_and_a_number_for_a_key(setting):
    options = {"optimizer": "adam", "batch_size": 8, "epochs": 2}
    with SETTINGS[setting]():
        batch = make_batch(X, Y)
        result = fit(_objective(penalties.l2(0.1)), START, batch, key=0, **options)
        again = fit(_objective(penalties.l2(0.1)), START, batch, key=jax.random.key(0), **options)
        assert np.array_equal(result.params.weights, again.params.weights)
        logits = jax.vmap(linear.logits, (None, 0))(result.params, batch.features)
        assert 0 <= metrics.accuracy(logits, batch.labels) <= 1
        for loss in (losses.categorical_nll, losses.multiclass_hinge, losses.softmax_squared_error):
            assert np.isfinite(jax.grad(loss)(logits[0], batch.labels[0])).all()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", ["convex", "minibatch"])
def test_sweep(method, setting):
    options = {} if method == "convex" else {"epochs": 1, "validation": 0.25}
    grid = {"l2": [0.1], "fold": range(2)} if method == "convex" else {"learning_rate": [0.1, 0.2]}
    if (method, setting) == ("minibatch", "no jit"):
        pytest.skip("the same steps as those of fit, many times as slow")
    with SETTINGS[setting]():
        assert len(sweep(grid, make_batch(X, Y), method=method, **options).table) == 2


@pytest.mark.parametrize("optimizer", ["no_such", 3])
def test_what_is_no_optimizer_is_refused(optimizer):
    options = {"optimizer": optimizer, "batch_size": 8, "epochs": 1, "key": 0}
    with pytest.raises((ValueError, TypeError), match="optimizer must be"):
        fit(_objective(None), START, make_batch(X, Y), **options)
