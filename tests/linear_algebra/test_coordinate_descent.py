"""Coordinate descent: the optimality conditions of its quadratic."""

import numpy as np

from jaxclf.bounded_l1 import BoundedL1
from jaxclf.linear_algebra.coordinate_descent import Quadratic, coordinate_descent


def test_coordinate_descent_solves_the_quadratic(x64):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(20, 12))
    hessian, g, w = root.T @ root / 20, rng.normal(size=12), rng.normal(size=12)
    penalty = np.full(12, 0.3)
    penalty[0] = 0.0
    for lower, upper in ((-np.inf, np.inf), (-0.5, 0.7), (0.2, np.inf)):
        low, high = np.full(12, lower), np.full(12, upper)
        start = np.clip(w, low, high)
        problem = Quadratic(hessian, start, g, penalty, np.zeros(12), low, high)
        u, epochs = coordinate_descent(problem)
        assert epochs > 1
        assert ((lower <= u) & (u <= upper)).all()
        least, most = BoundedL1(penalty, low, high).subgradients(u)
        slope = g + hessian @ (u - start)
        # To the accuracy that a truncated step asks for.
        assert (slope + least <= 0.1).all()
        assert (slope + most >= -0.1).all()
