"""Coordinate descent: the optimality conditions of its quadratic."""

import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra.coordinate_descent import coordinate_descent


def test_coordinate_descent_solves_the_quadratic(x64):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(20, 12))
    hessian, g, w = root.T @ root / 20, rng.normal(size=12), rng.normal(size=12)
    penalty = np.full(12, 0.3)
    penalty[0] = 0.0
    problem = (hessian, w, g, penalty, np.zeros(12))
    u, epochs = coordinate_descent(*map(jnp.asarray, problem))
    assert epochs > 1
    slope = g + hessian @ (u - w)
    nonzero = np.asarray(u) != 0
    # To the accuracy that a truncated step asks for.
    np.testing.assert_allclose(slope[nonzero], -(penalty * np.sign(u))[nonzero], atol=0.1)
    assert (np.abs(slope[~nonzero]) <= penalty[~nonzero] + 0.1).all()
