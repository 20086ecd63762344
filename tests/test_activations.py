import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import activations
from tests import reference


def test_softmax_of_known_scores():
    p = activations.softmax(jnp.array([0.4, 0.6, 0.2]))
    np.testing.assert_allclose(p, [0.32893292, 0.40175958, 0.2693075], rtol=1e-6)


def test_sigmoid_and_softmax_match_the_exact_values():
    z = np.linspace(-30, 30, 61).astype(np.float32)
    exact = [float(reference.sigmoid(v)) for v in z]
    np.testing.assert_allclose(activations.sigmoid(z), exact, rtol=1e-6)
    scores = np.random.default_rng(0).normal(size=(20, 6), scale=8).astype(np.float32)
    exact = np.array([[float(p) for p in reference.softmax(row)] for row in scores])
    np.testing.assert_allclose(activations.softmax(scores), exact, rtol=4e-6)
    exact = np.array([[float(p) for p in reference.log_softmax(row)] for row in scores])
    np.testing.assert_allclose(activations.log_softmax(scores), exact, rtol=1e-6)


def test_inverse_and_complement_identities():
    z = jnp.linspace(-8, 8, 33)
    s = activations.sigmoid(z)
    np.testing.assert_allclose(activations.logit(s), z, atol=1e-3)
    np.testing.assert_allclose(s + activations.sigmoid(-z), 1, rtol=1e-6)
    np.testing.assert_allclose(activations.odds(s), jnp.exp(z), rtol=5e-4)
    np.testing.assert_allclose(activations.log_sigmoid(z), jnp.log(s), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(activations.softplus(z) - activations.softplus(-z), z, atol=2e-6)


def test_derivatives_match_the_closed_forms(x64):
    z = jnp.linspace(-40, 40, 81)
    s = activations.sigmoid(z)
    slope = jax.vmap(jax.grad(activations.sigmoid))(z)
    np.testing.assert_allclose(slope, s * activations.sigmoid(-z), rtol=1e-14)
    np.testing.assert_allclose(jax.vmap(jax.grad(activations.softplus))(z), s, rtol=1e-14)
    scores = jnp.array([0.3, -2.0, 5.0])
    p = activations.softmax(scores)
    jacobian = jax.jacobian(activations.softmax)(scores)
    np.testing.assert_allclose(jacobian, jnp.diag(p) - jnp.outer(p, p), atol=1e-16)
    jacobian = jax.jacobian(activations.log_softmax)(scores)
    np.testing.assert_allclose(jacobian, jnp.eye(3) - p[None].repeat(3, 0), atol=1e-16)


def test_limits():
    inf = jnp.inf
    np.testing.assert_array_equal(activations.sigmoid(jnp.array([-inf, 0, inf])), [0, 0.5, 1])
    np.testing.assert_array_equal(activations.logit(jnp.array([0, 0.5, 1])), [-inf, 0, inf])
    assert jnp.isnan(activations.logit(1.5))
    assert activations.odds(1.0) == inf
    assert activations.log_sigmoid(-1e4) == -1e4
    np.testing.assert_array_equal(activations.softmax(jnp.array([-inf, 0.0])), [0, 1])
    np.testing.assert_array_equal(activations.softmax(jnp.array([inf, 0, inf])), [0.5, 0, 0.5])
    assert jnp.isnan(activations.softmax(jnp.array([-inf, -inf]))).all()
    np.testing.assert_array_equal(activations.softmax(jnp.array([1e4, -1e4])), [1, 0])


def test_shift_invariance_and_order():
    z = jnp.array([0.5, -1.25, 3.0, 3.0])
    p = activations.softmax(z)
    np.testing.assert_allclose(activations.softmax(z + 64), p, rtol=1e-6)
    assert (jnp.argsort(p) == jnp.argsort(z)).all()
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-6)


def test_unit_step_has_zero_gradient():
    z = jnp.array([-2.0, 0.0, 2.0])
    np.testing.assert_array_equal(activations.unit_step(z), [0, 1, 1])
    np.testing.assert_array_equal(jax.vmap(jax.grad(activations.unit_step))(z), 0)
    assert jnp.isnan(activations.unit_step(jnp.nan))


def test_why_softmax_was_chosen():
    scores = jnp.array([1.0, -2.0, 3.0])
    assert activations.sum_normaliser(scores).min() < 0
    patterns = jnp.array(list(itertools.product([1, -1], repeat=3))) * jnp.abs(scores)[None]
    outputs = activations.absolute_normaliser(patterns)
    np.testing.assert_allclose(outputs, outputs[:1].repeat(8, 0))
    assert len(np.unique(np.round(activations.softmax(patterns), 5), axis=0)) == 8


@pytest.mark.parametrize("name", ["sigmoid", "softmax", "log_softmax", "softplus", "log_sigmoid"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_halves_keep_their_dtype_and_are_rounded_once(name, dtype):
    z = jnp.array([1.5, -0.25, 8.0], dtype)
    function = getattr(activations, name)
    assert function(z).dtype == dtype
    np.testing.assert_array_equal(function(z), function(z.astype(jnp.float32)).astype(dtype))


def test_integers_are_widened():
    np.testing.assert_allclose(activations.softmax(jnp.array([200, 201], jnp.uint8)).sum(), 1)
    assert activations.sigmoid(0) == 0.5
