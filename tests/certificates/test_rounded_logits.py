"""Logits that lose digits: their terms are large and cancel, so that slopes look like zero."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses
from jaxclf.certificates.certificate import certify
from jaxclf.certificates.duality import Known, roundoff, sums_block
from jaxclf.certificates.local_bound import local_bound
from jaxclf.linear_algebra.problem import Affine, Rows, logits
from jaxclf.penalties import Penalty

SQUARES = Known("separable", 0.0, 0.0, convex=True, self_concordance=0.0)


def squares(z, y):
    return losses.squared_error(z[0], y)


def exact(matrix) -> list[list[Fraction]]:
    return [[Fraction(float(x)) for x in row] for row in np.asarray(matrix)]


def value_at(w, x, y) -> Fraction:
    """The exact mean of squares."""
    residuals = (
        sum((a * b for a, b in zip(w, row, strict=True)), -target)
        for row, target in zip(x, y, strict=True)
    )
    return sum((r * r for r in residuals), Fraction(0)) / len(x)


def least(x, y) -> Fraction:
    """The exact minimum over two weights, by the normal equations."""
    a, b, c = (sum(r[i] * r[j] for r in x) for i, j in ((0, 0), (0, 1), (1, 1)))
    p, q = (sum(r[i] * t for r, t in zip(x, y, strict=True)) for i in (0, 1))
    det = a * c - b * b
    return value_at([(c * p - b * q) / det, (a * q - b * p) / det], x, y)


@pytest.mark.parametrize("scale", [1e10, 1e14, 1e17])
def test_duality_counts_what_is_beyond_first_order(scale, x64):
    """All slopes are zero, so rounding seems to cost nothing to first order."""
    x = np.array([[scale, -scale, 1.0]])
    v = Affine(np.array([[1 + 3 * 2.0**-52, 1.0, 0.7]]), None)
    y = np.asarray(logits(jnp.asarray(x), v))[:, 0]
    found, _ = certify(
        squares, SQUARES, Penalty(l1=0.0, l2=1e-30), v, Rows(x, y, np.ones(1)), narrow=False
    )
    truth = float(value_at(*exact(v.weights), exact(x), *exact(y[None])))
    assert truth > 0
    assert truth - float(found.value) <= float(found.value_error)
    assert truth <= float(found.gap_bound) + 1e-25
    assert float(found.gap_bound) <= 2e-29 * scale**2 + 1e-25


def test_the_local_bound_counts_the_logits_in_the_gradient(x64):
    x = np.array([[1e5, -1e5], [1.0, 2.0], [3.0, 1.0]])
    v = Affine(np.array([[1.1 + 2.0**-50, 1.1]]), None)
    y = np.asarray(logits(jnp.asarray(x), v))[:, 0]
    rows = Rows(jnp.asarray(x), jnp.asarray(y), jnp.full(3, 1 / 3))
    bound = local_bound(squares, SQUARES, Penalty(l1=0.0, l2=0.0), v, rows)
    [w], of_x, [of_y] = exact(v.weights), exact(x), exact(y[None])
    gap = float(value_at(w, of_x, of_y) - least(of_x, of_y))
    assert 0 < gap <= bound <= 1e-17


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize(
    ("loss", "structure"),
    [
        (losses.categorical_nll, "softmax"),
        (losses.multiclass_hinge, "mixed"),
        (losses.multiclass_hinge, "separable"),
    ],
)
def test_no_change_of_the_logits_rises_further_above_the_tangent(loss, structure, size, x64):
    """Each logit moves within its δ. The hinge is no sum over logits, so that claim must fail."""
    rng = np.random.default_rng(0)
    num_rows, num_logits = 200, 4
    x, z = rng.normal(size=(num_rows, 3)), 2 * rng.normal(size=(num_rows, num_logits))
    labels = rng.integers(0, num_logits, num_rows)
    v = Affine(jnp.asarray(rng.normal(size=(num_logits, 3))), None)
    errors = roundoff(v)
    errors = errors._replace(weights=size * errors.weights / np.max(errors.weights))
    off = np.sqrt((x**2).sum(1))[:, None] * np.asarray(errors.weights)[None]
    allowed, rises = _rises(loss, structure, x, z, labels, errors, off, rng)
    assert ((rises <= allowed[:, None] * (1 + 1e-9) + 1e-13).all()) == (structure != "separable")


def _rises(loss, structure, x, z, labels, errors, off, rng):
    """What the sum allows for each row, and what random changes at the corners take."""
    block = sums_block(loss, structure, False, False)

    def of_row(x, z, label):
        sums, _ = block(x[None], z[None], label[None], jnp.ones(1), errors)
        return sums.above_tangent

    def rise(z, label, moved):
        return loss(z + moved, label) - loss(z, label) - jax.grad(loss)(z, label) @ moved

    moved = off[:, None] * rng.choice([-1.0, 1.0], (len(x), 60, z.shape[1]))
    rises = jax.vmap(jax.vmap(rise, (None, None, 0)))(z, labels, moved)
    return np.asarray(jax.jit(jax.vmap(of_row))(x, z, labels)), np.asarray(rises)


@pytest.mark.parametrize("far", [0.0, 1e4, 1e8, 1e12, 1e15])
def test_an_intercept_far_from_its_minimum_costs_the_value_no_digits(far, x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    y, w = x[:, 0] + 1e-6 * rng.normal(size=40), np.array([[0.99, 0.001]])
    rows, v = Rows(x, y, np.full(40, 1 / 40)), Affine(w, np.array([far]))
    found, _ = certify(squares, SQUARES, Penalty(l1=0.0, l2=0.0), v, rows, narrow=False)
    [of_w], b = exact(w), Fraction(float(found.affine.intercept[0]))
    truth = value_at([*of_w, b], [[*row, Fraction(1)] for row in exact(x)], exact(y[None])[0])
    assert abs(float(truth - Fraction(float(found.value)))) <= float(found.value_error) < 1e-14
