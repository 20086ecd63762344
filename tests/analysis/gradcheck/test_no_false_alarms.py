"""Right gradients at hard points: edges of domains, optima, saturation, noise."""

import jax
import jax.numpy as jnp

from jaxclf.analysis.gradcheck import check_gradients


def test_steps_out_of_the_domain_are_left_out():
    edge = (jnp.array([1e-3, 2.0]),)
    assert check_gradients(lambda x: jnp.sum(jnp.log(x) + jnp.sqrt(x)), edge, order=2)
    assert check_gradients(lambda x: jnp.sum(jnp.arccos(x)), (jnp.array([0.999, 0.0]),))
    assert check_gradients(lambda x: jnp.sum(jnp.exp(x)), (jnp.array([80.0]),))


def test_at_an_optimum_the_zero_gradient_passes():
    assert check_gradients(lambda x: jnp.sum(x**2), (jnp.zeros(4),), order=2)
    assert check_gradients(lambda x: jnp.sum((x - 0.1) ** 2), (jnp.full(4, 0.1),), order=2)
    assert check_gradients(lambda x: jnp.sum(jnp.ones(3)) + 0 * x, (1.0,))


def test_noise_that_hides_the_gradient_is_inconclusive():
    def fn(x):  # the value is rounded to steps far larger than the differences
        return jnp.sum(x) + jnp.round(jnp.sin(1e7 * jnp.sum(x)) * 50)

    x = (jnp.array([0.3, 0.7]),)
    assert check_gradients(fn, x, grad=jnp.ones_like).outcome in ("inconclusive", "failed")
    # Rounding of the value hides everything: neither the right gradient nor a wrong one passes.
    buried = lambda v: 1e14 + jnp.sum(jnp.sin(v))  # noqa: E731
    assert check_gradients(buried, x, grad=jnp.cos).outcome == "inconclusive"
    assert check_gradients(buried, x, grad=lambda v: -jnp.cos(v)).outcome == "inconclusive"


def test_near_the_edge_of_the_domain():
    edge = (jnp.array([1e-12, 0.5, 1.0]),)
    assert check_gradients(lambda v: jnp.sum(jnp.log(v)), edge)
    assert check_gradients(lambda v: jnp.sum(jnp.sqrt(v)), edge)
    assert not check_gradients(lambda v: jnp.sum(jnp.log(v)), edge, grad=lambda v: 1.001 / v)


def test_a_saturated_cross_entropy_is_no_alarm():
    fn = lambda z: -jax.nn.log_softmax(z)[0]  # noqa: E731
    assert check_gradients(fn, (jnp.array([20.0, 0.0]),))


def test_differences_that_alias_are_no_alarm():
    x = jnp.array([0.3, -1.2, 2.0])
    for fast in (1e6, 1e8):
        report = check_gradients(lambda v, w=fast: jnp.sum(jnp.sin(w * v)), (x,))
        assert report.outcome != "failed"
