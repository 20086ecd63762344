"""A script as users write it, for the type checker: names resolve and results have their types.

``basedpyright`` reads it in ``.ci/run``; a test runs it.
"""

from typing import assert_type

import jax
import numpy as np
import optax

import jaxclf
from jaxclf import (
    Batch,
    Convex,
    FitResult,
    GradientReport,
    LogisticRegression,
    NonConvex,
    SolverResult,
    SweepResult,
    Unknown,
    certify_convexity,
    check_gradients,
    fit,
    load_dataset,
    losses,
    make_batch,
    make_objective,
    minimize,
    penalties,
    sweep,
)
from jaxclf.models import linear

data = load_dataset("iris")
batch = make_batch(data.features, data.labels, num_classes=data.num_classes)
assert_type(batch, Batch)
objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(1e-3))
params = linear.init(jax.random.key(0), num_features=4, num_outputs=3)
result = minimize(objective, params, batch, tol=1e-7)
assert_type(result, SolverResult)
assert_type(result.status, str)
assert_type(result.gap_bound, float)

trained = fit(
    objective,
    params,
    batch,
    optimizer=optax.sgd(0.1),
    batch_size=32,
    epochs=1,
    key=jax.random.key(1),
)
assert_type(trained, FitResult)
assert_type(sweep({"l2": [1e-3, 1e-2]}, batch), SweepResult)
assert_type(check_gradients(lambda z: losses.categorical_nll(z, 1), (np.zeros(3),)), GradientReport)
assert_type(certify_convexity(losses.bernoulli_nll), Convex | NonConvex | Unknown)

model = LogisticRegression(C=1.0).fit(data.features, data.labels)
assert_type(model, LogisticRegression)
assert_type(jaxclf.__version__, str)
print(result.status, trained.params, model.predict(data.features[:3]))
