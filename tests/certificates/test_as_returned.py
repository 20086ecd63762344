"""The certificate is of the parameters as they are returned, in their dtypes and units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import Batch, losses, make_objective, minimize, penalties, sweep
from jaxclf.certificates.separation import proves
from jaxclf.facts import state_facts
from jaxclf.models import linear

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4))
Y = (X @ [1, -2, 0.5, 0] + RNG.normal(size=200) > 0).astype(float)
RIDGE = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(1e-3))


def start(weights=np.float64, intercept=np.float64, size=4):
    return linear.LinearParams(jnp.zeros(size, weights), jnp.zeros((), intercept))


def value_of(params, x) -> float:
    w, b = (np.asarray(leaf, np.float64).astype(np.longdouble) for leaf in params)
    z = x.astype(np.longdouble) @ w + b
    return np.mean(np.logaddexp(0, z) - Y * z) + 1e-3 / 2 * w @ w


@pytest.mark.parametrize(
    ("weights", "intercept", "centre"),
    [
        (jnp.bfloat16, jnp.bfloat16, 0),
        (np.float16, np.float16, 0),
        (np.float64, np.float32, 1e6),
        (np.float32, np.float64, 1e6),
        (np.float64, jnp.bfloat16, 0),
    ],
)
def test_the_bound_holds_for_narrow_and_for_mixed_dtypes(weights, intercept, centre, x64):
    x = X + np.array([centre, 0, 0, 0])
    best = minimize(RIDGE, start(), Batch(x, Y), tol=1e-13)
    assert best.gap_bound < 1e-11
    found = minimize(RIDGE, start(weights, intercept), Batch(x, Y), tol=1e-7)
    assert found.params.weights.dtype == weights
    assert found.params.intercept.dtype == intercept
    gap = value_of(found.params, x) - best.value
    assert -1e-11 < gap <= found.gap_bound + best.gap_bound
    assert found.status == ("converged" if found.gap_bound <= 1e-7 else "precision_floor")


def test_what_is_beyond_the_range_of_a_dtype_is_clipped(x64):
    batch = Batch(X * 1e-8, Y)
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(1e-20))
    found = minimize(objective, start(np.float16, np.float16), batch, tol=1e-6)
    weights = np.asarray(found.params.weights, np.float64)
    assert np.abs(weights).max() == np.finfo(np.float16).max
    assert found.status == "stationary"
    assert 1e-2 < found.gap_bound < np.log(2)


def test_the_gradient_is_in_the_units_of_the_user(x64):
    x = X * [1e8, 1, 1, 1] + [0, 1e6, 0, 0]
    found = minimize(RIDGE, start(), Batch(x, Y), tol=1e-9)
    gradient = jax.grad(RIDGE)(found.params, Batch(x, Y))
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in gradient)
    # Rounding of logits to float64 moves the gradient of such columns.
    assert found.gradient_norm == pytest.approx(largest, rel=0.5, abs=1e-7)


def test_an_outlier_that_a_sample_of_rows_misses_is_not_rounded(x64):
    """Row 1 is not among 4096 of 10 000. In float32 it would be 0.125 after a shift by 1e6."""
    n = 10_000
    x = (1e6 + RNG.normal(size=n)).astype(np.float32)
    x[1] = 0.1
    labels = x.astype(np.float64) - 1e6 + 1e-3 * RNG.normal(size=n)
    objective = make_objective(linear.logits, losses.squared_error, penalties.l2(1e-9))
    found = minimize(objective, start(size=1), Batch(x[:, None], labels), tol=1e-9)
    mean, target = x.mean(dtype=np.float64), labels.mean()
    wide = x.astype(np.float64) - mean
    slope = wide @ (labels - target) / (wide @ wide + n * 1e-9 / 2)
    residuals = slope * wide - (labels - target)
    best = residuals @ residuals / n + 1e-9 / 2 * slope**2
    w, b = float(found.params.weights[0]), float(found.params.intercept)
    residuals = w * wide + (b + w * mean - labels)
    gap = residuals @ residuals / n + 1e-9 / 2 * w**2 - best
    assert gap <= found.gap_bound + 1e-12


def test_targets_that_do_not_sum_to_one_loosen_the_bound(x64):
    """The Hessian is in proportion to the sum of the target."""
    x = RNG.normal(size=(60, 3))
    targets = RNG.dirichlet(np.ones(3), 60)
    objective = make_objective(linear.logits, losses.soft_categorical_nll)
    params = linear.LinearParams(np.zeros((3, 3)), np.zeros(3))
    for scale in (0.9992, 1.0008):
        batch = Batch(x, targets * scale)
        best = minimize(objective, params, batch, tol=1e-14)
        for steps in (2, 3, 4):
            found = minimize(objective, params, batch, tol=1e-14, max_steps=steps)
            assert found.value - best.value <= found.gap_bound + 1e-14


@pytest.mark.filterwarnings("ignore")
def test_a_lane_that_is_not_finite_is_not_converged():
    features = (RNG.normal(size=(120, 70)) * 1e-5).astype(np.float32)
    labels = RNG.integers(0, 5, 120).astype(np.int32)
    found = sweep({"l2": [1e30, 1e29, 1e28, 1e27]}, Batch(features, labels), tol=1e-4)
    for row in found.table:
        assert (row["status"] == "converged") == (row["gap_bound"] <= 1e-4)


def test_leads_prove_nothing_for_a_loss_that_is_no_function_of_them(x64):
    """Three sectors: one line separates each pair, but no class from the two others."""

    def one_vs_rest(z, label):
        own = jnp.arange(3) == label
        return jnp.sum(jax.nn.softplus(jnp.where(own, -z, z)))

    state_facts(
        one_vs_rest, convex=True, lower_bound=0.0, labels="class", structure="separable",
        attains_minimum=False,
    )  # fmt: skip
    angle = np.linspace(0, 2 * np.pi, 300, endpoint=False) + 0.01
    radius = np.tile([1e-3, 0.1, 1.0], 100)
    x = np.c_[np.cos(angle), np.sin(angle)] * radius[:, None]
    labels = (angle // (2 * np.pi / 3)).astype(np.int32)
    params = linear.LinearParams(np.zeros((3, 2)), np.zeros(3))
    found = minimize(make_objective(linear.logits, one_vs_rest), params, Batch(x, labels), tol=1e-6)
    assert found.status != "no_finite_minimiser"
    same = minimize(
        make_objective(linear.logits, losses.categorical_nll), params, Batch(x, labels), tol=1e-9
    )
    assert same.status == "no_finite_minimiser"


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_direction_is_a_proof_after_rounding_or_none_is_given(dtype, x64):
    x = np.c_[1e6 + 32 * np.arange(40.0), RNG.normal(size=40)]
    labels = (np.arange(40) >= 20).astype(float)
    bare = make_objective(linear.logits, losses.bernoulli_nll)
    found = minimize(bare, start(dtype, dtype, 2), Batch(x, labels), tol=1e-9)
    assert found.status == "no_finite_minimiser"
    if found.direction is not None:
        assert proves(x, labels, np.ones(40), as_rows(found.direction))
    else:
        assert dtype != np.float64


def as_rows(params):
    return type(params)(params.weights.reshape(1, -1), params.intercept.reshape(1))


@pytest.mark.parametrize("penalty", [penalties.l2(1e-3), penalties.l1(1e-3), None])
@pytest.mark.parametrize("centre", [0, 1e4])
def test_the_intercepts_of_a_softmax_have_a_mean_of_zero(penalty, centre, x64):
    """They are certified so: no shift follows the certificate."""
    labels = RNG.integers(0, 3, len(X))
    objective = make_objective(linear.logits, losses.categorical_nll, penalty)
    begin = linear.LinearParams(jnp.zeros((3, 4)), jnp.ones(3))
    found = minimize(objective, begin, Batch(X + centre, labels), tol=1e-9)
    weights, intercept = (np.asarray(leaf) for leaf in found.params)
    assert found.status == "converged"
    assert np.abs(intercept.mean()) <= 1e-12 * max(1, np.abs(intercept).max())
    if penalty is None or penalty.l2 > 0:
        assert np.abs(weights.mean(0)).max() <= 1e-9
