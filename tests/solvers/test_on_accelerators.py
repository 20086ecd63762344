"""What is chosen otherwise on an accelerator, tried on the device that there is."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import Batch, losses, make_objective, minimize, penalties
from jaxclf.linear_algebra import columns
from jaxclf.models import linear
from jaxclf.scaling import row_sums
from jaxclf.solvers import in_memory, linear_oracle

N, D, K = 3000, 12, 4


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
    for module in (row_sums, linear_oracle, in_memory):
        monkeypatch.setattr(module, "on_accelerator", lambda: True)
    monkeypatch.setattr(row_sums, "_BLOCK_NUMBERS_OF_ACCELERATORS", 1000 * D)


def problem(dtype=np.float32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)).astype(dtype)
    y = np.argmax(2 * x @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K)), 1)
    start = linear.LinearParams(np.zeros((K, D), np.float32), np.zeros(K, np.float32))
    return start, Batch(x, y.astype(np.int32))


@pytest.mark.parametrize("penalty", [penalties.l2(1e-3), penalties.l1(1e-3)])
def test_the_optimum_is_the_same(penalty, as_on_an_accelerator, monkeypatch):
    start, batch = problem()
    objective = make_objective(linear.logits, losses.categorical_nll, penalty)
    found = minimize(objective, start, batch, tol=1e-6)
    monkeypatch.undo()
    here = minimize(objective, start, batch, tol=1e-6)
    assert found.status == here.status == "converged"
    assert found.value - found.gap_bound <= here.value
    assert here.value - here.gap_bound <= found.value


def test_rows_are_sampled_only_where_their_products_take_long(as_on_an_accelerator, monkeypatch):
    start, batch = problem()
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(1e-3))
    options = {"solver": "newton_cg", "tol": 1e-6}
    whole = minimize(objective, start, batch, **options)
    monkeypatch.setattr(in_memory, "_SAMPLED_ABOVE_ON_ACCELERATORS", N * D * K - 1)
    sampled = minimize(objective, start, batch, **options)
    assert "sampled" not in whole.solver
    assert "sampled" in sampled.solver
    assert whole.status == sampled.status == "converged"
    assert abs(whole.value - sampled.value) <= whole.gap_bound + sampled.gap_bound


def test_a_metric_is_of_all_rows_where_that_is_cheap(as_on_an_accelerator, monkeypatch):
    n = 2**20
    assert linear_oracle._enough(4000, n, 1000**2) == n
    assert linear_oracle._enough(4000, n, 1000**3) == 4000
    monkeypatch.undo()
    assert linear_oracle._enough(4000, n, 1) == 4000


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.uint8])
def test_the_ends_of_columns_are_those_of_all_rows_there(dtype):
    x = np.random.default_rng(0).integers(0, 200, (5000, 3)).astype(dtype)
    ends = np.asarray(columns._ends_on_device(jnp.asarray(x)), np.float64)
    expected = np.stack([np.asarray(x, np.float64).min(0), np.asarray(x, np.float64).max(0)])
    np.testing.assert_array_equal(ends, expected)
