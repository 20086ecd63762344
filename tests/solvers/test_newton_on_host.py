"""Newton's method with the kernels of SciPy: the optimum of dense features, and its ends."""

import jax
import numpy as np
import pytest
import scipy.sparse as sp

from jaxclf import losses, make_batch, make_objective, minimize, penalties
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.models import linear
from jaxclf.solvers import newton_on_host as module
from jaxclf.solvers.newton_on_host import newton_on_host
from jaxclf.solvers.result import Stop


def problem(num_features=40, loss=losses.bernoulli_nll, l2=0.01, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.poisson(3 / (1 + np.arange(num_features)), (200, num_features)).astype(np.float32)
    x[3], x[:, 5] = 0, 0
    labels = (x @ rng.normal(size=num_features) + rng.normal(size=200) > 0).astype(np.float32)
    objective = make_objective(linear.logits, loss, penalties.l2(l2))
    return objective, linear.init(jax.random.key(0), num_features, stddev=0), x, labels


def both(objective, start, x, labels, **options):
    return [
        minimize(objective, start, make_batch(features, labels), **options)
        for features in (sp.csr_array(x), x)
    ]


def test_a_loss_without_curvature_is_handed_to_another_solver():
    objective, start, x, labels = problem(loss=losses.hinge, l2=0.1)
    sparse, dense = both(objective, start, x, 2 * labels - 1, tol=1e-3, max_steps=200)
    assert np.isfinite(sparse.gap_bound)
    assert abs(sparse.value - dense.value) <= sparse.gap_bound + dense.gap_bound


@pytest.mark.parametrize("kind", ["columns", "diagonal"])
def test_each_metric_finds_the_optimum_of_dense_features(monkeypatch, kind):
    monkeypatch.setattr(module, "kind_of_sparse", lambda *_: kind)
    objective, start, x, labels = problem()
    sparse, dense = both(objective, start, x, labels, tol=1e-7, solver="newton_cg")
    assert sparse.status == dense.status == "converged"
    assert abs(sparse.value - dense.value) <= sparse.gap_bound + dense.gap_bound
    np.testing.assert_allclose(sparse.params.weights, dense.params.weights, atol=2e-3)


def test_columns_that_depend_on_each_other_have_a_metric(monkeypatch):
    monkeypatch.setattr(module, "kind_of_sparse", lambda *_: "columns")
    objective, start, x, labels = problem(l2=1e-6)
    groups = np.eye(4, dtype=np.float32)[np.arange(200) % 4]  # they add up to the intercept
    x[:, :4], x[:, 10:14] = groups, groups
    sparse, dense = both(objective, start, x, labels, tol=1e-6, solver="newton_cg")
    assert sparse.status == "converged"
    assert abs(sparse.value - dense.value) <= sparse.gap_bound + dense.gap_bound


def test_it_ends_where_it_is_told_to():
    objective, start, x, labels = problem()
    early, _ = both(objective, start, x, labels, tol=1e-9, max_steps=2, solver="newton_cg")
    assert early.status == "max_steps"
    assert early.steps == 2
    near, _ = both(objective, start, x, labels, tol=1e-9, gradient_tol=1e-2, solver="newton_cg")
    assert near.status == "stationary"
    assert near.gradient_norm <= 1e-2


def test_a_value_that_is_no_number_is_a_status(x64):
    batch = make_batch(sp.csr_array(problem()[2]), problem()[3])
    rows = Rows(batch.features, batch.labels, np.full(200, np.nan))
    start = Affine(np.zeros((1, 40), np.float32), np.zeros(1, np.float32))
    loss = lambda z, label: losses.bernoulli_nll(z[0], label)  # noqa: E731
    outcome, final = newton_on_host(
        loss, rows, 0.1, start, stop=Stop(1e-6, 0.0, 10, lambda *_: None)
    )
    assert final
    assert outcome.status == "nonfinite"
