import jax
import jax.numpy as jnp

from jaxclf.analysis.convexity import midpoint_test

ENDS = jax.random.normal(jax.random.key(0), (2, 100, 3))


def test_a_convex_function_is_never_refuted():
    test = midpoint_test(lambda w: jnp.sum(w**2), *ENDS)
    assert not test.violations.any()
    assert (test.excess < 0).all()


def test_a_linear_function_is_within_rounding():
    test = midpoint_test(lambda w: jnp.sum(w) + 1e3, *ENDS, batch_size=7)
    assert not test.violations.any()


def test_a_concave_function_is_always_refuted():
    assert midpoint_test(lambda w: -jnp.sum(w**2), *ENDS).violations.all()


def test_a_saddle_is_refuted_on_some_segments():
    share = midpoint_test(lambda w: w[0] ** 2 - w[1] ** 2, *ENDS).violations.mean()
    assert 0.2 < share < 0.8
