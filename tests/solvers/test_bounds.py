"""Bounds on weights: the conditions of optimality in float64, and what SciPy finds."""

import jax
import numpy as np
import pytest
from scipy.sparse import csr_array

from jaxclf import (
    Batch,
    load_dataset,
    losses,
    make_batch,
    make_objective,
    minimize,
    minimize_path,
    penalties,
)
from jaxclf.bounded_l1 import BoundedL1
from jaxclf.models import linear
from tests.solvers.references import least
from tests.solvers.test_penalty_factors import data

INF = np.inf
BOUNDS = {
    "not negative": (0.0, INF),
    "box": (-0.3, 0.2),
    "without zero": (0.1, 0.6),
    "one-sided": ((-INF, 0, -INF, 0.5, 0), (INF, INF, -0.2, INF, 0.1)),
    "fixed": ((-INF, 0.3, 0, -1, 0), (INF, 0.3, 0, 1, INF)),
}
PENALTIES = {
    "none": {},
    "L1": {"l1": 0.02},
    "L2": {"l2": 0.05},
    "elastic net": {"l1": 0.02, "l2": 0.01},
    "factors": {"l1": 0.02, "l2": 0.01, "factors": (INF, 0.0, 3.0, 1.0, 0.5)},
}


def fitted(num_logits, batch, penalty, bounds, dtype=np.float64, start=0.0, **options):
    outputs = () if num_logits == 1 else (num_logits,)
    loss = losses.bernoulli_nll if num_logits == 1 else losses.categorical_nll
    d = batch.features.shape[1]
    with jax.enable_x64(True):
        params = linear.LinearParams(np.full((*outputs, d), start, dtype), np.zeros(outputs, dtype))
        objective = make_objective(linear.logits, loss, penalty)
        found = minimize(objective, params, batch, bounds=bounds, **{"tol": 1e-10, **options})
    return found._replace(params=jax.tree.map(np.asarray, found.params))


def steepest(found, batch, l1, l2, lower, upper):
    """The largest entry of the smallest subgradient, by NumPy from the formulas."""
    w, b = np.atleast_2d(found.params.weights), np.atleast_1d(found.params.intercept)
    z = batch.features @ w.T + b + (0 if batch.offset is None else batch.offset[:, None])
    if len(w) == 1:
        slopes = 1 / (1 + np.exp(-z)) - batch.labels[:, None]
    else:
        p = np.exp(z - z.max(1, keepdims=True))
        slopes = p / p.sum(1, keepdims=True) - np.eye(len(w))[batch.labels]
    r = slopes * (batch.weights / batch.weights.sum())[:, None]
    g = r.T @ batch.features + l2 * w
    up, down = g + l1 * np.where(w >= 0, 1, -1), g + l1 * np.where(w > 0, 1, -1)
    can_rise, can_fall = w < upper, w > lower
    falls = np.where(can_rise, np.maximum(-up, 0), 0)
    rises = np.where(can_fall, np.maximum(down, 0), 0)
    return max(falls.max(), rises.max(), np.abs(r.sum(0)).max())


def parts(name, shape):
    given = dict(PENALTIES[name])
    factors = np.array(given.pop("factors", np.ones(5)), float)
    fixed = factors == INF
    l1, l2 = (given.get(x, 0.0) * np.where(fixed, 0, factors) for x in ("l1", "l2"))
    return [np.broadcast_to(x, shape) for x in (l1, l2, fixed)]


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_optimum_of_one_logit(penalty, bounds):
    check(1, penalty, BOUNDS[bounds])


@pytest.mark.parametrize("bounds", ["not negative", "box", "without zero"])
@pytest.mark.parametrize("penalty", ["L1", "L2", "elastic net"])
def test_the_optimum_of_a_softmax(penalty, bounds):
    check(3, penalty, BOUNDS[bounds])


def check(num_logits, name, bounds):
    batch, given = data(num_logits), dict(PENALTIES[name])
    if num_logits == 1:
        batch = batch._replace(offset=np.sin(np.arange(90.0)))
    l1, l2, fixed = parts(name, (num_logits, 5))
    lower, upper = (np.broadcast_to(x, fixed.shape) for x in bounds)
    factors = given.pop("factors", None)
    penalty = penalties.elastic_net(**{"l1": 0.0, "l2": 0.0, **given}, factors=factors)
    if (fixed & ((lower > 0) | (upper < 0))).any():
        with pytest.raises(ValueError, match="an infinite penalty factor asks for zero"):
            fitted(num_logits, batch, penalty, bounds)
        return
    lower, upper = (np.where(fixed, 0, x) for x in (lower, upper))
    found = fitted(num_logits, batch, penalty, bounds)
    assert found.status == "converged"
    assert (found.params.weights >= lower).all()
    assert (found.params.weights <= upper).all()
    assert steepest(found, batch, l1, l2, lower, upper) < 1e-6
    best = least(num_logits, batch, l2, l1, lower, upper)
    assert found.value == pytest.approx(best, abs=1e-8)


def test_bounds_by_coefficient():
    batch = data(3)
    lower = np.where(np.arange(15).reshape(3, 5) % 3, -INF, 0.1)
    upper = np.where(np.arange(15).reshape(3, 5) % 2, INF, 0.2)
    found = fitted(3, batch, penalties.l2(0.01), (lower, upper))
    assert found.status == "converged"
    assert steepest(found, batch, 0, 0.01, lower, upper) < 1e-6
    assert found.value == pytest.approx(least(3, batch, 0.01, 0, lower, upper), abs=1e-8)


def test_one_sided_weights_of_a_softmax_without_a_penalty():
    """A softmax ignores a shift of all classes, so that signs alone cost nothing. Where a class has
    an upper bound too, the bounds alone see that shift."""
    free, signed = (fitted(3, data(3), None, bounds) for bounds in (None, (0.0, INF)))
    assert free.status == signed.status == "converged"
    assert signed.value == pytest.approx(free.value, abs=1e-12)
    lower, upper = np.zeros((3, 5)), np.full((3, 5), INF)
    upper[1] = 0.1
    found = fitted(3, data(3), None, (lower, upper))
    assert found.status == "converged"
    assert found.value == pytest.approx(least(3, data(3), lower=lower, upper=upper), abs=1e-8)
    upper[:] = 0.1
    assert fitted(3, data(3), None, (lower, upper)).status == "converged"


def test_weights_run_away_only_where_no_bound_holds_them():
    """The first column separates the classes, in one direction."""
    batch = data(1)
    x = batch.features.copy()
    x[:, 0] = np.where(batch.labels, 1.0, -1.0) * (1 + x[:, 0] ** 2)
    apart = batch._replace(features=x)
    found = fitted(1, apart, None, (0.0, INF))
    assert found.status == "no_finite_minimiser"
    assert found.direction.weights[0] > 0
    assert (np.asarray(found.direction.weights) >= 0).all()
    for bounds in ((-INF, 0.0), (0.0, [5.0, INF, INF, INF, INF])):
        held = fitted(1, apart, None, bounds)
        assert held.status == "converged"
        assert held.value == pytest.approx(
            least(1, apart, lower=bounds[0], upper=bounds[1]), abs=1e-8
        )
    several = apart._replace(labels=apart.labels + (apart.labels & (x[:, 1] > 2)))
    lower, upper = np.full((3, 5), -1.0), np.full((3, 5), 1.0)
    assert fitted(3, several, None, (lower, upper)).status == "converged"
    lower[0, 0] = -INF
    found = fitted(3, several, None, (lower, upper))
    assert found.status == "no_finite_minimiser"
    assert found.direction.weights[0, 0] < 0
    np.testing.assert_array_equal(np.asarray(found.direction.weights)[1:], 0)


def test_columns_in_other_units_sparse_ones_and_float32():
    batch, units = data(1), np.array([1e-6, 1e5, 1.0, 1e3, 1.0])
    bounds = np.array([-0.1, 0, -INF, 0.1, 0]), np.array([0.1, INF, 0.5, 0.2, INF])
    penalty = penalties.elastic_net(l1=0.0, l2=0.05)
    best = fitted(1, batch, penalty, bounds)
    scaled = batch._replace(features=batch.features * units)
    weighed = penalties.l2(0.05, factors=units**2)
    found = fitted(1, scaled, weighed, tuple(x / units for x in bounds))
    assert found.status == "converged"
    assert found.value == pytest.approx(best.value, abs=1e-9)
    with jax.enable_x64(True):
        rows = make_batch(csr_array(batch.features), batch.labels, batch.weights)
    found = fitted(1, rows, penalty, bounds)
    assert found.status == "converged"
    assert found.value == pytest.approx(best.value, abs=1e-9)
    narrow = batch._replace(features=batch.features.astype(np.float32))
    found = fitted(1, narrow, penalty, bounds, np.float32, tol=1e-6)
    assert found.status == "converged"
    lower, upper = (x.astype(np.float32) for x in bounds)
    assert (found.params.weights >= lower).all()
    assert (found.params.weights <= upper).all()
    assert (found.params.weights == lower).any()
    assert found.value == pytest.approx(best.value, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "bounds", "l2", "value", "at_bounds"),
    [
        ("breast_cancer", (0.0, INF), 1e-3, 0.657996948453, (29, 0)),
        ("breast_cancer", (-0.2, 0.1), 1e-4, 0.163654382602, (20, 6)),
        ("wine", (0.0, INF), 1e-2, 0.148126147726, (13, 0)),
    ],
)
def test_standardised_data_have_the_optimum_of_scipy(name, bounds, l2, value, at_bounds):
    """The values are those of L-BFGS-B of SciPy 1.17 to 1e-12, and of its trust-constr to 2e-8; the
    coefficients of both agree to 2e-6."""
    source = load_dataset(name, dtype=np.float64)
    x = source.features - source.features.mean(0)
    batch = Batch(x / x.std(0), source.labels, np.ones(len(x)))
    num_logits = 1 if source.num_classes == 2 else source.num_classes
    found = fitted(num_logits, batch, penalties.l2(l2), bounds)
    assert found.status == "converged"
    assert found.value == pytest.approx(value, abs=1e-10)
    assert steepest(found, batch, 0.0, l2, *bounds) < 1e-6
    assert tuple((found.params.weights == end).sum() for end in bounds) == at_bounds


def test_a_start_beyond_the_bounds_begins_at_them():
    best = fitted(1, data(1), penalties.l2(0.05), (0.1, 0.6))
    found = fitted(1, data(1), penalties.l2(0.05), (0.1, 0.6), start=7.0)
    np.testing.assert_allclose(found.params.weights, best.params.weights, atol=1e-6)


def test_a_path_keeps_the_bounds():
    batch = data(1)
    with jax.enable_x64(True):
        start = linear.LinearParams(np.zeros(5), np.zeros(()))
        objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l1(1.0))
        path = minimize_path(objective, start, batch, num=4, min_ratio=0.01, bounds=(0, INF))
    assert {result.status for result in path} == {"converged"}
    weights = np.array([result.params.weights for result in path])
    assert (weights >= 0).all()
    assert weights[0].max() < 1e-4  # where the first weight is about to leave zero
    assert weights[-1].max() > 1e-2


def test_a_path_starts_from_solutions_at_bounds_without_zero():
    """A weight that rounding of units would move is at its bound in every fit."""
    batch = data(1)
    batch = batch._replace(features=batch.features * np.array([1e-3, 3.0, 1.0, 7.0, 1e3]) + 0.1)
    bounds = np.full(5, 0.1), np.full(5, 0.7)
    with jax.enable_x64(True):
        start = linear.LinearParams(np.zeros(5), np.zeros(()))
        objective = make_objective(linear.logits, losses.bernoulli_nll)
        strengths = [penalties.l2(strength) for strength in (1.0, 0.1, 0.01)]
        path = minimize_path(objective, start, batch, strengths, bounds=bounds, tol=1e-9)
    for penalty, result in zip(strengths, path, strict=True):
        assert result.status == "converged"
        w = np.asarray(result.params.weights)
        assert ((w >= bounds[0]) & (w <= bounds[1])).all()
        alone = fitted(1, batch, penalty, bounds)
        assert result.value == pytest.approx(alone.value, abs=1e-9)
        np.testing.assert_array_equal(w == 0.1, np.asarray(alone.params.weights) == 0.1)


def test_bounds_without_end_leave_the_solver_of_a_smooth_objective():
    found = fitted(1, data(1), penalties.l2(0.05), (-INF, INF))
    assert found.solver.startswith("newton_cholesky")
    assert found.value == fitted(1, data(1), penalties.l2(0.05), None).value


def test_the_subgradients_are_those_of_the_penalty():
    w = np.array([-1.0, 0, 0, 2, 2, 3, 3])
    penalty = BoundedL1(0.5, np.array([-2.0, -1, 0, 2, 1, 3, 0]), np.array([5, 1, 5, 5, 2, 3, 5.0]))
    low, high = penalty.subgradients(w)
    np.testing.assert_array_equal(low, [-0.5, -0.5, -INF, -INF, 0.5, -INF, 0.5])
    np.testing.assert_array_equal(high, [-0.5, 0.5, 0.5, 0.5, INF, INF, 0.5])


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        (0.0, TypeError, r"bounds must be a pair \(lower, upper\), got 0.0"),
        ((0, 1, 2), TypeError, r"bounds must be a pair \(lower, upper\), got \(0, 1, 2\)"),
        ((1.0, 0.0), ValueError, "bounds leave no number between 1.0 and 0.0, for column 0"),
        ((INF, INF), ValueError, "bounds leave no number between inf and inf, for column 0"),
        ((np.nan, 1.0), ValueError, "the lower bounds must be numbers, .* got nan"),
        ((0.0, np.ones(4)), ValueError, r"upper bounds of shape \(4,\) do not fit .* \(3, 5\)"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(bounds, error, message):
    with pytest.raises(error, match=message):
        fitted(3, data(3), penalties.l2(0.1), bounds)


def test_solvers_and_objectives_without_bounds_refuse_them():
    batch, box = data(1), (0.0, 1.0)
    with pytest.raises(ValueError, match="solver 'newton_cg' takes no bound on weights; proximal"):
        fitted(1, batch, penalties.l2(0.1), box, solver="newton_cg")
    with pytest.raises(ValueError, match="a bound on weights needs the rows in memory"):
        fitted(1, batch, penalties.l2(0.1), box, stream=True)
    with pytest.raises(ValueError, match="bounds go with L1 and L2, not with norms of groups"):
        fitted(1, batch, penalties.group_lasso(0.1, [[0, 1], [2, 3, 4]]), box)
    objective = make_objective(lambda w, x: w @ x, losses.bernoulli_nll)
    with pytest.raises(TypeError, match=r"bounds need the logits of models\.linear\.logits"):
        minimize(objective, np.zeros(5), Batch(batch.features, batch.labels), bounds=box)
