"""Products and sums over rows of a linear model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses, make_batch, make_objective
from jaxclf.data import synthetic
from jaxclf.linear_algebra import problem as lp
from jaxclf.models import linear
from jaxclf.scaling import row_sums


def small(dtype=np.float32, num_rows=80, num_features=5, num_classes=3):
    data = synthetic.gaussian_classes(1, num_rows, num_features, num_classes, dtype=dtype)
    return make_batch(data.features, data.labels, num_classes=num_classes)


@pytest.mark.parametrize("block", [1, 7, 36, 10**6])
def test_blocks_of_rows_add_up(block, monkeypatch):
    monkeypatch.setattr(row_sums, "_BLOCK_NUMBERS", block)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 9, (13, 4)).astype(np.uint8))
    v = lp.Affine(jnp.asarray(rng.normal(size=(3, 4)), jnp.float32), jnp.arange(3.0))
    z = lp.logits(x, v)
    np.testing.assert_allclose(z, x @ v.weights.T + v.intercept[None], rtol=1e-5, atol=1e-5)
    residuals = jnp.asarray(rng.normal(size=(13, 3)), jnp.float32)
    summed = lp.transpose_product(x, residuals, intercept=True)
    np.testing.assert_allclose(summed.weights, residuals.T @ x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(summed.intercept, residuals.sum(0), rtol=1e-4, atol=1e-5)
    w = jnp.asarray(rng.uniform(size=13), jnp.float32)
    ones = jnp.concatenate([x.astype(jnp.float32), jnp.ones((13, 1))], 1)
    expected = ones.T @ (ones * w[:, None])
    np.testing.assert_allclose(lp.gram(x, w, intercept=True), expected, rtol=1e-4)


def test_the_hessian_product_is_that_of_the_objective(x64):
    batch = small(np.float64)
    params = linear.init(jax.random.key(1), 5, 3, stddev=0.5, dtype=np.float64)
    direction = linear.init(jax.random.key(2), 5, 3, stddev=1.0, dtype=np.float64)
    direction = direction._replace(intercept=jnp.arange(3.0))
    bare = make_objective(linear.logits, losses.categorical_nll)
    expected = jax.jvp(lambda p: jax.grad(bare)(p, batch), (params,), (direction,))[1]
    z = lp.logits(batch.features, lp.Affine(*params))
    maps = lp.curvature(losses.categorical_nll, z, batch.labels)
    weights = jnp.full(80, 1 / 80)
    found = lp.hessian_product(batch.features, maps, weights, lp.Affine(*direction))
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-13)
    np.testing.assert_allclose(found.intercept, expected.intercept, atol=1e-13)
    assert lp.ignores_shifts(maps, z)
    several = lp.curvature(losses.multilabel_nll, z, jnp.zeros((80, 3)))
    assert not lp.ignores_shifts(several, z)
