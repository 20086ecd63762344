"""Columns far from zero, or of scales far apart, have the inference of columns near one."""

import jax
import numpy as np
import pytest

from jaxclf import inference, losses, make_objective, penalties
from jaxclf.models import linear
from jaxclf.objectives import Batch
from tests.inference.problems import rows

KEY = jax.random.key(0)


def problem(K, penalty=None):
    """Rows in two units, in which the same numbers are exact, and the map of the coefficients."""
    x, y, clusters = rows("breast_cancer" if K == 2 else "wine")
    x = np.round(4096 * x[:, :3].astype(np.float64)) / 4096
    scale, centre = 2.0 ** np.array([0, 40, -35]), 2.0 ** np.array([24, 62, -40])
    outputs = () if K == 2 else (K,)
    start = linear.LinearParams(np.zeros((*outputs, 3)), np.zeros(outputs))
    loss = losses.bernoulli_nll if K == 2 else losses.categorical_nll
    of_penalty = [None, None]
    if penalty is not None:
        of_penalty = [penalties.l2(penalty, factors=f) for f in (np.ones(3), scale**2)]
    objectives = [make_objective(linear.logits, loss, one) for one in of_penalty]
    batches = Batch(x, y), Batch(x * scale + centre, y)
    J = np.diag([*(1 / scale), 1])
    J[3, :3] = -centre / scale
    given = [(o, start, b) for o, b in zip(objectives, batches, strict=True)]
    return *given, np.kron(np.eye(max(K - 1, 1)), J), clusters


@pytest.mark.parametrize("penalty", [None, 0.01])
@pytest.mark.parametrize("K", [2, 3])
def test_the_table_is_that_of_columns_near_one(K, penalty):
    near, far, J, clusters = problem(K, penalty)
    for kind in ("model", "posterior", "cluster"):
        options = {"covariance": kind, "clusters": clusters if kind == "cluster" else None}
        one, other = (inference.infer(*given, **options) for given in (near, far))
        np.testing.assert_allclose(other.estimate, J @ one.estimate, 1e-6)
        expected = np.sqrt(np.diagonal(J @ one.covariance @ J.T))
        np.testing.assert_allclose(other.standard_error, expected, 1e-6)
        assert other.gap_bound < 1e-12


@pytest.mark.parametrize("K", [2, 3])
def test_tests_and_effects_are_those_of_columns_near_one(K):
    near, far, J, _ = problem(K)
    for test in (inference.likelihood_ratio_test, inference.wald_test, inference.score_test):
        one, other = (test(*given, [0, 2]).statistic for given in (near, far))
        assert other == pytest.approx(one, rel=1e-6)
    for column in (0, 1):
        one, other = (inference.profile_interval(*given, column) for given in (near, far))
        np.testing.assert_allclose(other[:3], np.array(one[:3]) * J[column, column], 1e-6)
    one, other = (inference.average_marginal_effects(*given) for given in (near, far))
    scale = np.tile(np.diagonal(J)[:3], 1 if K == 2 else 3)
    np.testing.assert_allclose(other.estimate, one.estimate * scale, 1e-6)
    np.testing.assert_allclose(other.standard_error, one.standard_error * scale, 1e-6)


def test_the_profile_of_an_intercept_far_away_is_close_to_its_wald_interval():
    _, far, _, _ = problem(2)
    table = inference.infer(*far)
    found = inference.profile_interval(*far, 3)
    assert found.estimate == pytest.approx(table.estimate[3], rel=1e-9)
    width = table.upper[3] - table.lower[3]
    assert abs(found.lower - table.lower[3]) < 0.1 * width
    assert abs(found.upper - table.upper[3]) < 0.1 * width


@pytest.mark.parametrize("K", [2, 3])
def test_rows_do_what_they_do_to_columns_near_one(K):
    near, far, J, _ = problem(K, 0.01)
    one, other = (inference.influence(*given) for given in (near, far))
    J = np.kron(np.eye(K if K > 2 else 1), J[:4, :4])
    largest = np.abs(other).max(0)
    np.testing.assert_allclose(other / largest, one @ J.T / largest, 1e-5, 1e-9)
    one, other = (
        inference.influence(*given, of=lambda p: p.weights.ravel()[1]) for given in (near, far)
    )
    np.testing.assert_allclose(other / J[1, 1], one, 1e-5, 1e-9)
    one, other = (inference.leave_one_out(*given, refits=1) for given in (near, far))
    np.testing.assert_allclose(other, one, atol=1e-6)
    one, other = (inference.bootstrap(*given, KEY, draws=5) for given in (near, far))
    np.testing.assert_allclose(other.replicates, one.replicates @ J.T, 1e-5)
    np.testing.assert_allclose(other.estimate, J @ one.estimate, 1e-6)
    assert (other.gap_bounds < 1e-12).all()
