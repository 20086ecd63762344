from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.models import linear


@pytest.mark.parametrize("num_outputs", [None, 3])
def test_bias_trick_both_ways(num_outputs):
    params = linear.init(jax.random.key(1), 4, num_outputs, stddev=1.0)
    params = params._replace(intercept=params.intercept + 0.7)
    x = jax.random.normal(jax.random.key(2), (4,))
    folded = linear.fold_intercept(params)
    np.testing.assert_allclose(
        linear.logits(folded, linear.append_one(x)), linear.logits(params, x), rtol=1e-6
    )
    jax.tree.map(np.testing.assert_array_equal, linear.unfold_intercept(folded), params)
    with pytest.raises(ValueError, match="no intercept to fold"):
        linear.fold_intercept(folded)
    with pytest.raises(ValueError, match="already has an intercept"):
        linear.unfold_intercept(params)


def test_init():
    params = linear.init(jax.random.key(0), 1000, 50, stddev=0.01)
    np.testing.assert_allclose(params.weights.std(), 0.01, rtol=0.02)
    np.testing.assert_array_equal(params.intercept, np.zeros(50))
    assert linear.init(jax.random.key(0), 3, intercept=False).intercept is None
    with pytest.raises(ValueError, match="stddev must be finite, at least 0, got -1"):
        linear.init(jax.random.key(0), 3, stddev=-1)


def test_integer_and_half_features_are_widened():
    params = linear.LinearParams(jnp.full(2, 200.0), jnp.zeros(()))
    assert linear.logits(params, jnp.array([200, 200], jnp.uint8)) == 80000
    assert linear.logits(params, jnp.array([200, 200], jnp.float16)) == 80000


@pytest.mark.parametrize("num_outputs", [None, 4])
def test_decision_boundary_is_where_two_classes_tie(num_outputs):
    params = linear.init(jax.random.key(3), 2, num_outputs, stddev=1.0)
    intercept = 0.5 if num_outputs is None else jnp.arange(4) + 0.5
    params = params._replace(intercept=jnp.asarray(intercept))
    classes = (0, 1) if num_outputs is None else (1, 3)
    point, direction = linear.decision_boundary(params, classes)
    np.testing.assert_allclose(jnp.linalg.norm(direction), 1, rtol=1e-6)
    np.testing.assert_allclose(point @ direction, 0, atol=1e-5)
    for t in (-2.0, 0.0, 5.0):
        z = linear.logits(params, point + t * direction)
        tie = z if num_outputs is None else z[1] - z[3]
        np.testing.assert_allclose(tie, 0, atol=2e-5)


def test_decision_boundary_faults():
    with pytest.raises(ValueError, match="needs 2 features, the model has 3"):
        linear.decision_boundary(linear.LinearParams(jnp.ones(3)))
    assert jnp.isnan(linear.decision_boundary(linear.LinearParams(jnp.zeros(2)))[1]).all()
    for classes in ((0, 7), (1, 1)):
        with pytest.raises(ValueError, match=r"classes must be two of 0 … 2, got"):
            linear.decision_boundary(linear.LinearParams(jnp.ones((3, 2))), classes)


def test_the_logits_are_known_through_jit_and_partial_and_not_through_a_wrapper():
    assert linear.is_linear(linear.logits)
    assert linear.is_linear(jax.jit(partial(jax.jit(linear.logits))))
    assert not linear.is_linear(partial(linear.logits, linear.LinearParams(jnp.ones(2))))
    assert not linear.is_linear(lambda params, x: linear.logits(params, x) ** 2)
