"""Penalties, targets, features and weights near the ends of what their dtypes hold."""

import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import Batch, losses, make_objective, minimize, penalties, sweep
from jaxclf.models import linear
from jaxclf.penalties import strength_from_sklearn

X = np.array([-1, 0.5, 2, 1, 0, 3, 0.2, 1])[:, None]
Y = np.array([0, 1, 1, 1, 0, 1, 1, 1.0])
OF_CONSTANT = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
"""The log loss of Y where the weights are zero."""


def solved(loss, l2, x, y, *, dtype=np.float64, intercept=True, **options):
    start = linear.LinearParams(
        jnp.zeros(x.shape[1], dtype), jnp.zeros((), dtype) if intercept else None
    )
    objective = make_objective(linear.logits, loss, penalties.l2(l2))
    return minimize(objective, start, Batch(x, y), **options)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("scale", "l2"), [(1e-34, 1e-4), (1.0, 1e60)])
def test_the_penalty_is_certified_as_it_was_given(scale, l2, dtype, x64):
    """In units of the columns the penalty is beyond what float32 holds."""
    found = solved(losses.bernoulli_nll, l2, scale * X, Y, dtype=dtype)
    w = float(found.params.weights[0])
    assert l2 / 2 * w * w < 1e-6
    assert found.value == pytest.approx(OF_CONSTANT, abs=2e-6)
    assert found.status == "converged"


def test_a_penalty_that_vanishes_in_float64_is_still_one(x64):
    found = solved(losses.bernoulli_nll, 1e-3, 1e170 * X, (X[:, 0] > 0.3) * 1.0)
    assert found.status != "no_finite_minimiser"


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integer_targets_keep_their_digits(dtype, x64):
    target = np.array([16_777_217, 0], dtype)
    found = solved(losses.squared_error, 0.0, np.eye(2)[:, :1], target, intercept=False)
    assert float(found.params.weights[0]) == pytest.approx(16_777_217, abs=1e-4)
    error = float(losses.gaussian_nll(jnp.float64(16_777_216.0), target[0]))
    assert error == pytest.approx(0.5 + 0.5 * math.log(2 * math.pi))


def test_integers_beyond_float64_are_shifted_exactly(x64):
    """Nanoseconds of a clock: their differences are small, and they are above 2⁵³."""
    x, y = 2**60 + 64 * np.arange(8)[:, None], np.array([0, 1, 1, 0, 1, 1, 0, 0.0])
    found = solved(losses.bernoulli_nll, 2e5, x, y)
    w, b = float(found.params.weights[0]), float(found.params.intercept)
    centre = 2**60 + 224
    middle = float(Fraction(w) * centre + Fraction(b))
    z = w * (x[:, 0] - centre).astype(np.float64) + middle
    value = np.mean(np.logaddexp(0, z) - y * z) + 1e5 * w * w
    assert found.value == pytest.approx(value, abs=1e-9)
    best = solved(losses.bernoulli_nll, 2e5, (x - centre).astype(np.float64), y, tol=1e-12)
    assert value - best.value <= found.gap_bound + 1e-12


def test_weights_whose_sum_is_beyond_float64(x64):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 2)), np.arange(10) % 2 * 1.0
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(1e-3))
    start = linear.LinearParams(np.zeros(2), np.zeros(()))
    same = [minimize(objective, start, Batch(x, y, np.full(10, w))).value for w in (1.0, 1e308)]
    assert same[0] == pytest.approx(same[1], rel=1e-12)


def test_a_strength_is_not_lost_where_its_product_is_infinite():
    assert strength_from_sklearn(1e307, 100.0) == pytest.approx(1e-309, rel=1e-6)


@pytest.mark.parametrize("role", ["", "validation ", "test "])
def test_a_sweep_refuses_features_that_it_would_round(role):
    wide = Batch(1e8 + np.arange(4.0)[:, None], np.array([0, 0, 1, 1]))
    narrow = wide._replace(features=np.arange(4, dtype=np.float32)[:, None])
    batches = {"data": narrow, "validation": narrow, "test": narrow, (role.strip() or "data"): wide}
    with pytest.raises(TypeError, match=f"^{role}features is float64 but JAX's 64-bit mode is off"):
        sweep({"l2": [1e-3]}, **batches)


def value_of(params, x, y, l2=0.0):
    """The mean log loss and the ridge, in 80 bits."""
    w, b = (np.asarray(part, np.float64).astype(np.longdouble) for part in params)
    z = x.astype(np.longdouble) @ w + b
    return float(np.logaddexp(0, -(2 * y - 1) * z).mean() + l2 / 2 * (w * w).sum())


@pytest.mark.parametrize("stream", [False, True])
def test_unsigned_integers_do_not_wrap(stream, x64):
    x, y = np.array([[0], [1], [2**63], [2**63 + 5]], np.uint64), np.array([0, 0, 1, 1.0])
    options = {"stream": True, "solver": "newton_cg"} if stream else {}
    found = solved(losses.bernoulli_nll, 1e30, x, y, **options)
    assert found.value == pytest.approx(value_of(found.params, x, y, 1e30), rel=1e-9)
    assert found.value <= math.log(2)


def test_unsigned_integers_that_overlap_are_not_separated(x64):
    ends = [0, 1, 2**62, 2**62 + 7, 2**63 + 10, 2**63 + 11]
    x, y = np.array(ends, np.uint64)[:, None], np.array([0, 0, 1, 1, 0, 0.0])
    assert solved(losses.bernoulli_nll, 0.0, x, y).status != "no_finite_minimiser"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_near_the_largest_number_are_not_lost(dtype, x64):
    """Their scale would be below the normal numbers, which programs take for zero."""
    y = np.array([0, 0, 0, 1, 0, 1, 1, 1.0])
    x = np.linspace(-1, 1, 8)[:, None] * 0.99 * float(jnp.finfo(dtype).max)
    found = solved(losses.bernoulli_nll, 1e-3, x.astype(dtype), y, dtype=dtype)
    assert found.value == pytest.approx(value_of(found.params, x.astype(dtype), y), rel=1e-6)
    assert found.value < 0.45
    assert found.status == "converged"


@pytest.mark.parametrize("size", [1e-160, 1e-310])
def test_a_tiny_column_spoils_no_other(size, x64):
    x = np.c_[X, X[::-1] * size]
    alone, both = (solved(losses.bernoulli_nll, 1e-2, columns, Y) for columns in (X, x))
    assert both.status == "converged"
    assert both.value == pytest.approx(alone.value, abs=1e-6)


def test_a_strength_that_only_its_scale_makes_small_is_not_zero(x64):
    h = 2.0**538
    x, y = np.where(X > 0.3, h, -h), (X[:, 0] > 0.3) * 1.0
    found = minimize(
        make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(1.7e308)),
        linear.LinearParams(np.array([1e10 / h]), np.array(0.0)), Batch(x, y),
    )  # fmt: skip
    w = np.asarray(found.params.weights).astype(np.longdouble)
    ridge = float(np.longdouble(1.7e308) / 2 * (w * w).sum())
    assert found.value == pytest.approx(value_of(found.params, x, y) + ridge, rel=1e-9, abs=1e-9)
    assert found.value < 1e-6


@pytest.mark.parametrize("label", [1e154, 1e200])
def test_a_row_of_weight_zero_may_have_a_label_whose_loss_is_infinite(label, x64):
    start = linear.LinearParams(np.zeros(1), np.zeros(()))
    objective = make_objective(linear.logits, losses.squared_error, penalties.l2(0.1))
    one = minimize(objective, start, Batch(X, Y, np.ones(8)))
    batch = Batch(np.r_[X, [[1.0]]], np.append(Y, label), np.append(np.ones(8), 0.0))
    other = minimize(objective, start, batch)
    assert other.status == one.status == "converged"
    assert other.value == pytest.approx(one.value, rel=1e-12)


@pytest.mark.parametrize(("dtype", "size"), [(np.float16, 1e-5), (np.float32, 1e-50)])
def test_a_direction_is_told_in_the_dtype_of_the_parameters(dtype, size, x64):
    """Only the ratios of its numbers count; along the columns themselves they would overflow."""
    x = (np.array([-1, -1, 0, 0, 1, 1]) * size)[:, None]
    y = np.array([0, 0, 0, 1, 1, 1.0])
    found = solved(losses.bernoulli_nll, 0.0, x, y, dtype=dtype)
    assert found.status == "no_finite_minimiser"
    assert found.gap_bound == np.inf
    assert 0.5 <= float(np.asarray(found.direction.weights, np.float64)[0]) < 1


def test_weights_that_programs_would_take_for_zero_are_refused(x64):
    weights = np.append(np.ones(7), 1.5e-308)
    start = linear.LinearParams(np.zeros(1), np.zeros(()))
    objective = make_objective(linear.logits, losses.squared_error, penalties.l2(0.1))
    with pytest.raises(ValueError, match=r"at least 1e-280 of the largest, got 1\.5e-308"):
        minimize(objective, start, Batch(X, Y, weights))
    weights[-1] = 1e-279
    assert minimize(objective, start, Batch(X, Y, weights)).status == "converged"


@pytest.mark.parametrize("penalty", [penalties.l1(1e-17), penalties.l2(1e-33), penalties.l2(0.0)])
def test_no_bound_forgets_numbers_that_programs_take_for_zero(penalty, x64):
    """The row of weight zero sets the unit, in which all others are below 2⁻¹²⁶."""
    rng = np.random.default_rng(0)
    s = rng.normal(size=(20, 1))
    y = np.append(s[:, 0] + 0.3 * rng.normal(size=20) > 0, True).astype(np.float32)
    x = np.append(1e-15 * s, [[1e30]], 0).astype(np.float32)
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalty)
    start = linear.LinearParams(np.zeros(1), np.zeros(()))
    found = minimize(objective, start, Batch(x, y, np.append(np.ones(20), 0)))

    def objective_at(params):
        w = abs(float(params.weights[0]))
        value = value_of(params, x[:20], y[:20], float(penalty.l2))
        return value + float(penalty.l1) * w

    lower = objective_at(linear.LinearParams(np.array([3e15]), 0.6))
    assert lower < objective_at(found.params) <= lower + found.gap_bound
    assert found.status != "converged"


@pytest.mark.parametrize("size", [1e-39, 1e-43])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_columns_below_the_normal_numbers_are_scaled_exactly(size, offset, x64):
    y = np.array([0, 0, 0, 1, 0, 1, 1, 1.0])
    x = (size * (np.linspace(-1, 1, 8)[:, None] + offset)).astype(np.float32)
    exact = x.astype(np.float64) / size
    found = solved(losses.bernoulli_nll, 0.0, x, y)
    expected = solved(losses.bernoulli_nll, 0.0, exact, y)
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    assert found.status == "converged"
