"""Refutation by two points and their middle, and the enclosures it rests on."""

import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxclf import losses
from jaxclf.analysis.intervals import enclosure
from jaxclf.analysis.jaxpr_walk import traced
from jaxclf.analysis.jensen import refutes


def test_enclosures_hold_the_value_and_are_thin():
    rng = np.random.default_rng(0)
    closed = traced(lambda z: losses.bernoulli_nll(z, 1), ())
    with mpmath.workdps(50):
        for z in rng.normal(size=10) * 20:
            found = enclosure(closed, z)
            exact = mpmath.log(1 + mpmath.exp(-mpmath.mpf(float(z))))
            assert found.a <= exact <= found.b
            assert float(found.delta) <= 1e-30 * max(1, abs(float(exact)))
    assert enclosure(traced(jnp.sin, ()), 1.0) is None


def test_points_that_break_no_inequality_refute_nothing():
    assert refutes(losses.bernoulli_nll, 1, -1.0, 1.0) is None
    assert refutes(losses.sigmoid_squared_error, 1, 0.0, 1.0) is None
    assert refutes(losses.squared_error, 1.0, -1.0, 1.0) is None
    with pytest.raises(ValueError, match="middle of a and b is not exact"):
        refutes(losses.bernoulli_nll, 1, 0.0, 5e-324)
