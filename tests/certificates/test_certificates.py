"""Bounds, statuses and what breaks them: no false bound, no false status, no exception."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import exact
from experiments.benchmarks.certificates import COUNTS, battery
from jaxclf import Batch, losses, make_objective, minimize, penalties
from jaxclf.certificates.separation import _is_proof, runaway
from jaxclf.linear_algebra import columns
from jaxclf.models import linear

SMOOTH = ("newton_cg", "newton_cholesky", "lbfgs")
LAMBDA = 1e-3


def logistic(num_rows=48, num_features=4):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(num_rows, num_features)), rng.normal(size=num_features)
    return x, (rng.random(num_rows) < 1 / (1 + np.exp(-x @ w))).astype(np.int32)


def solve(x, y, loss=losses.bernoulli_nll, penalty=None, *, outputs=(), start=0.0, **options):
    """A result in 64-bit mode, in the dtype of the features."""
    penalty = penalties.l2(LAMBDA) if penalty is None else penalty
    zeros = np.zeros((*outputs, x.shape[1]), x.dtype)
    begin = linear.LinearParams(zeros + start, np.zeros(outputs, x.dtype))
    with jax.enable_x64(True):
        return minimize(make_objective(linear.logits, loss, penalty), begin, Batch(x, y), **options)


def gap(result, x, y, l1=0.0, l2=LAMBDA, formula=exact.bernoulli):
    """How far the returned parameters are above the minimum, in 80 bits."""
    problem = exact.make_problem(x, y, np.ones(len(x)), formula, l1, l2, intercept=True)
    here = exact.point_of(problem, *result.params)
    zero = exact.Point(np.zeros_like(here.weights), np.zeros_like(here.intercept))
    best = exact.minimise(problem, [here, zero])
    return float(exact.value_of(problem, here) - exact.value_of(problem, best))


def test_random_problems_have_no_false_bound_and_no_false_status():
    found = battery(12, 7, 3)
    assert found["counts"] == dict.fromkeys(COUNTS, 0), found["failures"]


def stopped(z, y):
    return losses.bernoulli_nll(jax.lax.stop_gradient(z), y) + 0 * z


NOT_CONVEX = {
    "zero_one": (losses.zero_one, True),
    "around a loss": (lambda z, y: losses.sigmoid_squared_error(z, y), False),
    "jitted": (jax.jit(losses.sigmoid_squared_error), False),
    "unbounded": (lambda z, y: -(z**2), False),
    "waves": (lambda z, y: jnp.sin(3 * z), False),
    "steps": (lambda z, y: jnp.where(z > 0, 1.0, 0.0), False),
    "stopped gradient": (stopped, False),
}


@pytest.mark.parametrize("name", NOT_CONVEX)
@pytest.mark.parametrize("solver", SMOOTH)
def test_a_loss_that_is_not_known_to_be_convex_has_no_bound(name, solver):
    loss, signs = NOT_CONVEX[name]
    x, y = logistic()
    y = 2 * y - 1 if signs else y.astype(np.float64)
    found = solve(x, y, loss, solver=solver)
    assert found.gap_bound == np.inf
    assert found.status != "converged"
    assert "convex" in found.reason


CONVEX = {
    "around a loss": lambda z, y: losses.bernoulli_nll(z, y),
    "inlined": lambda z, y: jnp.logaddexp(0.0, z) - y * z,
    "Huber": lambda z, y: jnp.where(jnp.abs(z - y) < 1, (z - y) ** 2 / 2, jnp.abs(z - y) - 0.5),
    "quartic": lambda z, y: (z - y) ** 4,
}


@pytest.mark.parametrize("name", CONVEX)
def test_a_loss_of_ones_own_is_proven_and_certified(name):
    x, y = logistic()
    found = solve(x, y.astype(np.float64), CONVEX[name], tol=1e-9)
    assert found.status == "converged"
    assert found.reason == ""


def test_a_softmax_of_ones_own_is_proven_and_certified():
    x, y = logistic()
    y = (y + np.arange(48) % 2).astype(np.int32)
    own = solve(x, y, lambda z, k: jax.nn.logsumexp(z) - z[k], outputs=(3,), tol=1e-9)
    known = solve(x, y, losses.categorical_nll, outputs=(3,), tol=1e-9)
    assert own.status == known.status == "converged"
    assert own.value == pytest.approx(known.value, abs=1e-9)


@pytest.mark.parametrize("solver", [*SMOOTH, "stream"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_far_from_zero_cost_no_more_than_their_dtype(solver, dtype):
    x, y = logistic()
    x = (x + 1e6).astype(dtype)
    options = {"stream": True, "solver": "newton_cg"} if solver == "stream" else {"solver": solver}
    found = solve(x, y, **options)
    left = gap(found, x, y)
    assert left <= found.gap_bound
    if dtype == np.float64:
        assert found.status == "converged"
    else:  # weights and intercept of 24 bits
        assert found.status == "precision_floor"
        assert left < 1e-2


@pytest.mark.parametrize("solver", SMOOTH)
@pytest.mark.parametrize(("start", "l2"), [(1e3, LAMBDA), (1e4, LAMBDA), (1e4, 1e-12)])
def test_no_start_is_too_far(solver, start, l2):
    x, y = logistic()
    far = start * np.array([1.0, -1, 1, -1])
    found = solve(x, y, penalty=penalties.l2(l2), start=far, solver=solver)
    assert found.status == "converged"
    assert gap(found, x, y, l2=l2) <= min(found.gap_bound, 1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_of_scales_far_apart(dtype):
    x, y = logistic()
    scales = 10.0 ** np.array([-8, -4, 0, 8])
    x = (x * scales).astype(dtype)
    for l1, l2 in ((0.0, LAMBDA), (LAMBDA, 0.0), (1e-4, LAMBDA)):
        found = solve(x, y, penalty=penalties.elastic_net(l1=l1, l2=l2), tol=1e-5)
        assert found.status == "converged", (l1, l2)
        assert gap(found, x, y, l1, l2) <= min(found.gap_bound, 1e-5)


def test_l1_needs_no_centring():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100, 2)) + 100
    y = (rng.random(100) < 1 / (1 + np.exp(-(x - 100) @ [1, -2.0]))).astype(np.int32)
    for dtype in (np.float32, np.float64):
        for l1, l2 in ((0.01, 0.0), (0.005, 0.005)):
            for intercept in (None, dtype(0)):
                objective = make_objective(
                    linear.logits, losses.bernoulli_nll, penalties.elastic_net(l1=l1, l2=l2)
                )
                begin = linear.LinearParams(np.zeros(2, dtype), intercept)
                with jax.enable_x64(True):
                    found = minimize(objective, begin, Batch(x.astype(dtype), y))
                assert found.status == "converged"
                assert found.steps <= 10


def test_features_beyond_the_squares_of_float32():
    x, y = np.array([[-1e24], [1e24]], np.float32), np.array([0, 1], np.int32)
    for penalty in (penalties.l1(0.5), penalties.l2(0.5), penalties.elastic_net(l1=0.1, l2=0.5)):
        found = solve(x, y, penalty=penalty)
        assert found.status == "converged"
        assert 0 <= found.value < 1e-5


LINEAR = {
    "linear": lambda z, y: -z * (2 * y - 1),
    "hinge": lambda z, y: jnp.maximum(0, 1 - (2 * y - 1) * z),
    "absolute": lambda z, y: jnp.abs(z - y),
    "pinball": lambda z, y: jnp.where(z < y, 0.3 * (y - z), 0.7 * (z - y)),
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("solver", SMOOTH)
def test_a_loss_without_curvature_ends_in_a_status(name, solver):
    x, y = logistic()
    found = solve(x, y.astype(np.float64), LINEAR[name], solver=solver, max_steps=50)
    assert found.status in ("stationary", "stalled", "max_steps", "nonfinite")
    assert found.gap_bound >= 0


def test_saturated_rows_may_be_streamed():
    x, y = logistic(2000)
    found = solve(1e3 * x.astype(np.float32), y, penalty=penalties.l2(1e-9), start=1e3, stream=True)
    assert found.status in ("converged", "precision_floor", "max_steps")
    assert found.gap_bound >= 0


def test_without_a_penalty_a_log_loss_has_a_bound_and_a_minimiser():
    x, y = logistic()
    none = penalties.l2(0.0)
    for dtype in (np.float32, np.float64):
        found = solve(x.astype(dtype), y, penalty=none, tol=1e-9)
        assert found.status == "converged"
        assert gap(found, x.astype(dtype), y, l2=0.0) <= found.gap_bound + 1e-18
    y = (y + np.arange(48) % 2).astype(np.int32)
    found = solve(x, y, losses.categorical_nll, none, outputs=(3,), tol=1e-9)
    assert found.status == "converged"
    left = gap(found, x, np.eye(3)[y], l2=0.0, formula=exact.softmax)
    assert left <= found.gap_bound + 1e-18


def test_the_bound_without_a_penalty_holds_far_from_the_minimum():
    """Also with L1, whose smallest subgradient counts; against the exact minimum."""
    x, y = logistic()
    finite = 0
    for l1 in (0.0, 0.01):
        for steps in range(1, 5):
            penalty = penalties.elastic_net(l1=l1, l2=0.0)
            found = solve(x, y, penalty=penalty, max_steps=steps, tol=1e-14)
            assert gap(found, x, y, l1, 0.0) <= found.gap_bound
            finite += np.isfinite(found.gap_bound)
    assert finite >= 4


def quasi_separated():
    """Class 1 wherever the first column is 1; the second is noise."""
    rng = np.random.default_rng(0)
    x = np.c_[rng.integers(0, 2, 60), rng.normal(size=60)].astype(float)
    y = np.where(x[:, 0] == 1, 1, rng.integers(0, 2, 60)).astype(np.int32)
    return x, y


@pytest.mark.parametrize("solver", SMOOTH)
def test_a_coefficient_that_runs_away_is_named(solver):
    x, y = quasi_separated()
    found = solve(x, y, penalty=penalties.l2(0.0), solver=solver)
    assert found.status == "no_finite_minimiser"
    weights, intercept = found.direction
    assert weights[0] > 0
    assert weights[1] == intercept == 0
    two = solve(x, y, losses.categorical_nll, penalties.l2(0.0), outputs=(2,), solver=solver)
    assert two.status == "no_finite_minimiser"
    lead = two.direction.weights[1] - two.direction.weights[0]
    assert lead[0] > 0
    assert lead[1] == 0
    # A row that contradicts brings the minimiser back; one of no weight does not.
    x, y = np.r_[x, [[1.0, 0.3]]], np.r_[y, 0].astype(np.int32)
    assert solve(x, y, penalty=penalties.l2(0.0), solver=solver).status == "converged"


def test_a_direction_counts_only_if_it_is_exact():
    x, y = quasi_separated()
    assert runaway(x, y, np.ones(60), 1, intercept=True) is not None
    noise = np.random.default_rng(0).normal(size=60)
    assert runaway(np.c_[noise], y, np.ones(60), 1, intercept=True) is None
    direction = np.array([[1.0, -1e-12, 0.0]])
    assert not _is_proof(np.c_[x, np.ones(60)], y, direction)
    assert _is_proof(np.c_[x, np.ones(60)], y, np.array([[1.0, 0.0, 0.0]]))


def test_unix_times_keep_the_bound_above_the_gap():
    rng = np.random.default_rng(0)
    for seed in range(8):
        x, y = logistic()
        x[:, 0] = 1.7e9 + 1e5 * rng.random(48)
        for tol in (1e-4, 1e-10):
            found = solve(x, y, penalty=penalties.l2(10.0**-seed), tol=tol)
            left = gap(found, x, y, l2=10.0**-seed)
            assert left <= found.gap_bound + 1e-18
            assert found.status != "converged" or left <= tol


def test_the_value_of_soft_labels_in_float32_is_that_in_memory():
    x, _ = logistic()
    y = np.random.default_rng(0).random(48).astype(np.float32)
    found = solve(x, y, tol=1e-9)
    problem = exact.make_problem(x, y, np.ones(48), exact.bernoulli, 0.0, LAMBDA, intercept=True)
    value = exact.value_of(problem, exact.point_of(problem, *found.params))
    assert abs(found.value - float(value)) < 1e-14
    assert gap(found, x, y) <= found.gap_bound


@pytest.mark.parametrize(
    ("loss", "labels", "outputs", "message"),
    [
        (losses.categorical_nll, [3, -1, 255], (3,), "classes 0 … 2, got 3 in row 0"),
        (losses.categorical_nll, [0, 1, 2], (2,), "classes 0 … 1, got 2 in row 2"),
        (losses.bernoulli_nll, [-1.0, 1, 1], (), r"in \[0, 1\], got -1.0 in row 0"),
        (losses.hinge, [0, 1, 1], (), r"-1 or \+1, got 0 in row 0"),
    ],
)
def test_labels_that_are_none_are_refused_with_a_sentence(loss, labels, outputs, message):
    x = np.arange(6.0).reshape(3, 2)
    with pytest.raises(ValueError, match=message):
        solve(x, np.array(labels), loss, outputs=outputs)


def test_units_change_no_number():
    """What is moved and scaled is exact, and comes back as it was."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) * [1e-9, 1, 1e9] + [0, 1e6, 0]
    for dtype in (np.float32, np.float64):
        rows = x.astype(dtype)
        units = columns.columns_of(rows, shifted=True)
        moved = (rows.astype(np.longdouble) - units.centre) * units.scale
        with jax.enable_x64(True):
            found = np.asarray(columns.in_units(units, jnp.asarray(rows)))
        np.testing.assert_array_equal(found.astype(np.longdouble), moved)
        assert np.abs(found).max(0).min() > 0.5
        assert np.abs(found).max() <= 2
    assert columns.columns_of(rng.normal(size=(50, 3)), shifted=True) is None
    assert not columns.columns_of(x + 1e6, shifted=False).centre.any()
