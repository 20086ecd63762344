"""Kinks are named and not failed, unless the gradient beside them is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses
from jaxclf.analysis.gradcheck import check_gradients


def relu(x):
    return jnp.sum(jax.nn.relu(x))


def absolute(x):
    return jnp.sum(jnp.abs(x))


def hinge(x):
    return jnp.sum(jax.vmap(losses.hinge)(x, jnp.ones(3)))


@pytest.mark.parametrize(
    ("fn", "corner"),
    [(relu, [-1.0, 0.0, 2.0]), (absolute, [0.0, 0.0, 3.0]), (hinge, [1.0, 0.5, 2.0])],
)
def test_a_kink_is_named_and_not_failed(fn, corner):
    report = check_gradients(fn, (jnp.array(corner),))
    assert report.outcome == "kink"
    assert report
    for kink in report.kinks:
        assert kink.before < kink.after
        assert kink.inside
    assert "kink along direction" in str(report)
    assert check_gradients(fn, (jnp.array(corner),), kinks="fail").outcome == "kink_failed"
    assert check_gradients(fn, (jnp.array(corner),), kinks="ignore")
    assert check_gradients(fn, (jnp.array(corner) + 0.25,)).outcome == "passed"


def test_one_sided_derivatives_are_right():
    report = check_gradients(absolute, (jnp.array([0.0]),))
    for kink in report.kinks:
        np.testing.assert_allclose(abs(kink.after), -kink.before * np.sign(kink.after), rtol=1e-9)
        np.testing.assert_allclose(kink.after, -kink.before, rtol=1e-9)


def test_outside_the_subdifferential_or_wrong_beside_the_kink_fails():
    x = (jnp.array([-1.0, 0.0, 2.0]),)
    outside = check_gradients(relu, x, grad=lambda v: (v > 0) + 2.0 * (v == 0))
    assert outside.outcome == "failed"
    assert not all(kink.inside for kink in outside.kinks)
    beside = check_gradients(relu, x, grad=lambda v: 1.001 * (v > 0))
    assert beside.outcome == "failed"
    assert all("beside the kink" in check.name for check in beside.checks)


def test_many_corners_nearby_are_no_alarm():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 6)).astype(np.float32)
    y = np.sign(rng.normal(size=4000)).astype(np.float32)
    fn = lambda w: jnp.mean(jax.vmap(losses.hinge)(x @ w, y))  # noqa: E731
    for seed in range(5):
        w = jnp.asarray(rng.normal(size=6).astype(np.float32))
        assert check_gradients(fn, (w,), seed=seed).outcome == "passed"


def test_a_corner_of_the_gradient_is_no_alarm_at_order_two():
    ones = jnp.ones(3)
    squared = lambda z: jnp.sum(jax.vmap(losses.squared_hinge)(z, ones))  # noqa: E731
    assert check_gradients(squared, (jnp.array([1.0, 0.5, 2.0]),), order=2)
    assert check_gradients(lambda v: jnp.sum(v * jnp.abs(v)), (jnp.array([0.0, 1.0]),), order=2)
