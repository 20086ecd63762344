"""Rows with more features than rows have the same minimum in coordinates of the rows."""

import gc

import jax
import numpy as np
import pytest

from jaxclf import losses, make_batch, make_objective, minimize, penalties
from jaxclf.linear_algebra import row_space
from jaxclf.linear_algebra.problem import Affine
from jaxclf.models import linear


def wide_rows(n=40, d=1700, k=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = (x @ rng.normal(size=(d, k)) / d**0.5 + rng.gumbel(size=(n, k))).argmax(1)
    return x, y.astype(np.int32)


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("each", [True, False])
def test_logits_and_penalty_are_the_same(each, shifted, x64):
    x, _ = wide_rows()
    rng = np.random.default_rng(1)
    l2 = rng.uniform(0.5, 2, (1, x.shape[1])) if each else np.float64(0.1)
    start = Affine(rng.normal(size=(3, x.shape[1])), rng.normal(size=3) if shifted else None)
    features = jax.device_put(x)
    factor = row_space.factor_of(features, l2, start)
    gram = (x * (np.mean(l2) / l2)) @ x.T
    gram = gram + np.mean(np.diagonal(gram)) if shifted else gram
    np.testing.assert_allclose(np.asarray(factor @ factor.T), gram, atol=1e-11 * gram.max())
    assert not np.triu(factor, 1).any()
    assert row_space.is_sound(factor)

    u = row_space.inside(features, factor, start)
    w = row_space.outside(features, factor, l2, u)
    # Weights that agree on all rows: the constant feature takes part where there is an intercept.
    alpha = np.linalg.solve(np.asarray(factor).T, np.asarray(u.weights).T)
    constant = np.sqrt(np.mean(np.diagonal(gram)) / 2) if shifted else 0.0
    beside = constant * alpha.sum(0)  # the weight of the constant feature
    logits = x @ np.asarray(w.weights).T + constant * beside
    np.testing.assert_allclose(logits, np.asarray(factor) @ np.asarray(u.weights).T, atol=1e-9)
    np.testing.assert_allclose(logits, x @ start.weights.T, atol=1e-9)
    strength = np.sum(np.mean(l2) * beside**2) + np.sum(l2 * np.asarray(w.weights) ** 2)
    np.testing.assert_allclose(strength, np.mean(l2) * np.sum(np.asarray(u.weights) ** 2))


def fit(x, y, k, *, dtype=np.float32, shifted=True, weights=None, **options):
    loss = losses.bernoulli_nll if k is None else losses.categorical_nll
    with jax.enable_x64(dtype == np.float64):
        start = linear.init(jax.random.key(0), x.shape[1], k, stddev=0, intercept=shifted)
        start = jax.tree.map(lambda a: np.asarray(a, dtype), start)
        batch = make_batch(x.astype(dtype), y, weights, num_classes=k or 2)
        objective = make_objective(linear.logits, loss, penalties.l2(0.01))
        return minimize(objective, start, batch, **options)


@pytest.mark.parametrize(
    ("k", "shifted", "dtype"),
    [(None, True, np.float32), (3, True, np.float64), (3, False, np.float32)],
)
def test_the_minimum_is_that_of_all_features(k, shifted, dtype, monkeypatch):
    x, y = wide_rows()
    y = y if k else (y > 0).astype(np.int32)
    x[:, :5] *= 1e4  # columns that are scaled: each has a strength of its own
    choice = {"dtype": dtype, "shifted": shifted}
    found = fit(x, y, k, tol=1e-7, **choice)
    assert "coordinates of the rows" in found.solver
    monkeypatch.setattr(row_space, "is_wide", lambda *_: False)
    known = fit(x, y, k, tol=1e-7, **choice)
    assert "coordinates of the rows" not in known.solver
    assert found.status == known.status == "converged"
    assert known.value - found.value <= known.gap_bound
    assert found.value - known.value <= found.gap_bound


def test_centred_rows_and_rows_without_weight():
    x, y = wide_rows()
    found = fit(x - x.mean(0), y, 3, weights=np.arange(len(y)) % 4 * 1.0)
    assert "coordinates of the rows" in found.solver
    assert found.status == "converged"
    assert found.passes < 15


def test_rows_that_depend_on_each_other_are_solved_in_all_features():
    x, y = wide_rows()
    x[7] = x[3]
    assert fit(x, y, 3).status == "converged"
    with jax.enable_x64(True):
        start = Affine(np.zeros((3, x.shape[1]), np.float32), None)
        features = jax.device_put(x.astype(np.float32))
        assert not row_space.is_sound(row_space.factor_of(features, np.float64(1), start))


def test_the_factor_is_kept_as_long_as_its_features():
    x, _ = wide_rows()
    start = Affine(np.zeros((3, x.shape[1]), np.float32), None)
    features, other = jax.device_put(x.astype(np.float32)), jax.device_put(x.astype(np.float32))
    made = row_space.factor_of(features, np.float32(1), start)
    assert row_space.factor_of(features, np.float32(7), start) is made
    shifted = start._replace(intercept=np.zeros(3, np.float32))
    assert row_space.factor_of(features, np.float32(1), shifted) is not made
    assert row_space.factor_of(other, np.float32(1), start) is not made
    del other
    gc.collect()
    assert row_space._latest[2] is None


def test_what_is_wide():
    def wide(n, d, *, held=np.float32, l2=0.1):
        features = jax.ShapeDtypeStruct((n, d), held)
        return row_space.is_wide(features, np.dtype(np.float32), l2)

    assert wide(100, 20_000)
    assert not wide(100, 199)
    assert not wide(20, 100)
    assert not wide(5000, 20_000)
    assert not wide(100, 20_000, l2=0.0)
    assert wide(4000, 10**6)
    assert not wide(4000, 10**6, held=np.uint8)  # a copy would take 16 GB
    assert wide(100, 20_000, held=np.uint8)
    assert not wide(4000, 10**6, l2=np.ones((1, 10**6)))
