from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses, make_batch, make_objective
from jaxclf.analysis.curvature import (
    directional_curvature,
    linear_risk_hessian,
    logit_hessians,
    second_moment,
)
from jaxclf.models.linear import LinearParams, logits


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_structured_hessian_is_the_hessian_of_the_objective(num_classes, weighted, x64):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(20, 4))
    y = rng.integers(num_classes or 2, size=20)
    loss = losses.softmax_squared_error if num_classes else losses.sigmoid_squared_error
    w = rng.normal(size=(num_classes, 4) if num_classes else 4)
    sample = rng.uniform(size=20) if weighted else None
    batch = make_batch(x, y, sample)
    objective = make_objective(lambda v, a: logits(LinearParams(v.reshape(w.shape)), a), loss)

    hessians = jax.jit(partial(logit_hessians, loss))(x @ w.T, batch.labels)
    structured = linear_risk_hessian(hessians, batch.features, batch.weights)
    generic = jax.jit(jax.hessian(objective))(jnp.asarray(w.ravel()), batch)
    np.testing.assert_allclose(structured, generic, atol=1e-15)

    v = rng.normal(size=w.shape)
    along = directional_curvature(loss, x @ w.T, x @ v.T, batch.labels, batch.weights)
    np.testing.assert_allclose(along, v.ravel() @ generic @ v.ravel(), atol=1e-14)


def test_second_moment(x64):
    x = np.random.default_rng(0).normal(size=(30, 3))
    np.testing.assert_allclose(second_moment(jnp.asarray(x)), x.T @ x / 30, rtol=1e-14)


def test_rows_must_match():
    with pytest.raises(ValueError, match=r"features must have shape \(5, any\), got \(4, 2\)"):
        linear_risk_hessian(jnp.ones(5), jnp.ones((4, 2)))


def test_half_precision_features_do_not_overflow():
    moment = second_moment(jnp.full((3, 2), 300.0, jnp.float16))
    np.testing.assert_allclose(moment, 9e4)
