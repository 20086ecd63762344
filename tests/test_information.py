import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import information

P = np.array([0.5, 0.125, 0.125, 0.25], np.float32)
UNIFORM = np.full(4, 0.25, np.float32)


def test_the_twenty_questions_numbers():
    assert information.entropy(P) == 1.75
    assert information.cross_entropy(P, UNIFORM) == 2
    assert information.entropy(UNIFORM) == 2
    assert information.kl_divergence(P, UNIFORM) == 0.25
    assert information.hartley_information(1024) == pytest.approx(10, rel=1e-6)
    np.testing.assert_allclose(information.information_content(P), [1, 3, 3, 2], rtol=1e-6)


def test_bases_differ_by_a_factor():
    bits = information.kl_divergence(P, UNIFORM)
    nats = information.kl_divergence(P, UNIFORM, base=math.e)
    np.testing.assert_allclose(nats / bits, math.log(2), rtol=1e-6)
    np.testing.assert_allclose(information.entropy(P, base=4), 0.875, rtol=1e-6)


def test_identities():
    p, q = np.random.default_rng(0).dirichlet(np.ones(6), size=(2, 30)).astype(np.float32)
    cross, entropy = information.cross_entropy(p, q), information.entropy(p)
    np.testing.assert_allclose(cross - entropy, information.kl_divergence(p, q), atol=2e-6)
    assert (information.kl_divergence(p, q) >= 0).all()
    np.testing.assert_array_equal(information.kl_divergence(p, p), 0)
    assert (entropy <= np.log2(6)).all()
    gradient = jax.vmap(jax.grad(lambda a, b: information.cross_entropy(a, b, base=math.e), 1))(
        p, q
    )
    np.testing.assert_allclose(gradient, -p / q, rtol=1e-5)


def test_zeros_and_infinities():
    sure = jnp.array([1.0, 0.0])
    assert information.entropy(sure) == 0
    assert not np.signbit(information.entropy(sure))
    assert information.cross_entropy(sure, jnp.array([0.5, 0.5])) == 1
    assert information.kl_divergence(jnp.array([0.5, 0.5]), sure) == jnp.inf
    assert information.information_content(0.0) == jnp.inf
    assert jnp.isfinite(jax.grad(information.entropy)(jnp.array([0.5, 0.5, 0.0]))).all()


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([0.5, 0.6], "p must sum to 1, got a sum of 1.1"),
        ([1.5, -0.5], "p must be non-negative, got -0.5"),
        ([np.nan, 1.0], "p must be non-negative, got nan"),
        ([], "at least one outcome"),
    ],
)
def test_what_is_no_distribution_is_refused(p, message):
    with pytest.raises(ValueError, match=message):
        information.entropy(np.array(p))


def test_other_bad_input():
    with pytest.raises(ValueError, match="same shape"):
        information.kl_divergence(P, P[:2])
    with pytest.raises(ValueError, match="base must be finite, above 1, got 1"):
        information.entropy(P, base=1)
    with pytest.raises(ValueError, match="num_outcomes must be finite, at least 1, got 0"):
        information.hartley_information(0)
    with pytest.raises(ValueError, match=r"p must be finite, at least 0, at most 1, got 1.5"):
        information.information_content(1.5)


def test_derivatives_at_zeros_and_ones():
    nats = partial(information.entropy, base=math.e)
    np.testing.assert_allclose(jax.grad(nats)(jnp.array([1.0, 0.0])), [-1, 0])
    content = partial(information.information_content, base=math.e)
    assert jax.grad(content)(1.0) == -1
    cross = partial(information.cross_entropy, base=math.e)
    gradient = jax.grad(cross)(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(gradient, np.log([2, 2]), rtol=1e-6)


def test_nan_stays_nan_under_jit():
    broken, fair = jnp.array([jnp.nan, 0.5]), jnp.array([0.5, 0.5])
    assert jnp.isnan(jax.jit(information.entropy)(broken))
    assert jnp.isnan(jax.jit(information.kl_divergence)(broken, fair))
    assert jnp.isnan(jax.jit(information.kl_divergence)(fair, broken))


def test_kl_divergence_of_close_distributions_does_not_cancel():
    rng = np.random.default_rng(4)
    q = rng.dirichlet(np.ones(8), size=200)
    p = q * (1 + 1e-4 * rng.normal(size=q.shape))
    p, q = (p / p.sum(1, keepdims=True)).astype(np.float32), q.astype(np.float32)
    divergence = information.kl_divergence(p, q, base=math.e)
    assert (divergence > 0).all()
    wide_p, wide_q = p.astype(np.float64), q.astype(np.float64)
    exact = np.sum(wide_p * np.log(wide_p / wide_q) - wide_p + wide_q, 1)
    np.testing.assert_allclose(divergence, exact, rtol=1e-5)
    gradient = jax.grad(information.kl_divergence)(jnp.asarray(p[0]), jnp.asarray(q[0]))
    np.testing.assert_allclose(gradient, np.log2(wide_p[0] / wide_q[0]), atol=1e-7)


def test_a_softmax_in_half_precision_is_a_distribution():
    p = jax.nn.softmax(jnp.zeros(3, jnp.bfloat16))
    np.testing.assert_allclose(information.entropy(p), np.log2(3), rtol=2e-2)
