"""Stationary points that cannot be missed."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf.analysis.minima import stationary_points


def test_every_root_of_the_slope_is_found():
    # The slope is (x + 2)(x + 0.5)(x - 1)(x - 3) / 10.
    polynomial = np.polynomial.Polynomial.fromroots([-2, -0.5, 1, 3]).integ() / 10
    coefficients = [float(c) for c in polynomial.coef]

    def function(x):
        return sum(c * x**i for i, c in enumerate(coefficients) if i)

    found = stationary_points(function, -5.0, 5.0)
    assert [p.kind for p in found] == ["maximum", "minimum", "maximum", "minimum"]
    for point, root in zip(found, [-2, -0.5, 1, 3], strict=True):
        assert point.low < root < point.high


def test_two_points_very_close_together_are_told_apart_or_left_open():
    for gap, kinds in ((1e-3, {"maximum", "minimum"}), (0.0, {"undecided"})):
        found = stationary_points(lambda x, g=gap: x**3 / 3 - (g / 2) ** 2 * x, -1.0, 1.1)
        assert {p.kind for p in found} == kinds


def test_none_where_the_slope_keeps_its_sign():
    assert stationary_points(lambda x: jnp.exp(x) + x, -4.0, 4.0) == ()


def test_boxes_too_wide_to_decide_are_cut():
    found = stationary_points(lambda x: 1 / (x * x - x + 1.0), -3.0, 3.0)
    assert [p.kind for p in found] == ["maximum"]
    assert found[0].low <= 0.5 <= found[0].high


def test_bad_requests_are_one_sentence():
    with pytest.raises(ValueError, match="low must be below high"):
        stationary_points(lambda x: x**2, 1.0, 0.0)
    with pytest.raises(ValueError, match="a primitive that intervals do not know"):
        stationary_points(jnp.sin, 0.0, 1.0)
