"""Second derivatives of losses as exact polynomials of the sigmoid."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses
from jaxclf.analysis import closed_forms
from jaxclf.analysis.sigmoid_polynomials import exact_curvature


def test_the_curvature_of_squared_error_changes_its_sign_at_log_2():
    for label, side in ((1, -1), (0, 1)):
        exact = exact_curvature(losses.sigmoid_squared_error, label)
        [root] = {piece.low for piece in exact.pieces} - {-math.inf}
        assert root == pytest.approx(side * math.log(2), abs=1e-15)
        signs = [piece.sign for piece in exact.pieces]
        assert signs == ([-1, 1] if label else [1, -1])
        assert exact.lowest / 2 == pytest.approx(-0.0601022, abs=1e-7)
        assert exact.highest / 2 == pytest.approx(0.0770293, abs=1e-7)
        assert exact.lowest_at == pytest.approx(side * math.log(0.86436 / 0.13564), abs=1e-3)


@pytest.mark.parametrize("label", [0, 1, 0.3])
@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (losses.bernoulli_nll, closed_forms.bernoulli_curvature),
        (losses.sigmoid_squared_error, closed_forms.sigmoid_squared_error_curvature),
    ],
)
def test_the_exact_polynomial_is_the_second_derivative(loss, formula, label, x64):
    exact = exact_curvature(loss, label)
    for z in np.random.default_rng(0).normal(size=40) * 4:
        s = 1 / (1 + math.exp(-z))
        value = sum(float(c) * s**i for i, c in enumerate(exact.coefficients))
        assert value == pytest.approx(float(jax.hessian(loss)(z, label)), abs=1e-12)
        assert value == pytest.approx(float(formula(jnp.asarray(z), label)), abs=1e-12)
        [piece] = [p for p in exact.pieces if p.low < z < p.high]
        assert np.sign(value) == piece.sign or abs(value) < 1e-12
