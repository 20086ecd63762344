"""The bound that a solver goes by: that of the certificate, but for rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_array

from jaxclf import losses, penalties
from jaxclf.certificates.certificate import certify, sizes_of
from jaxclf.certificates.duality import Known, gap_but_for_rounding
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.penalties import Penalty
from jaxclf.sparse_rows import read_sparse

KNOWN = Known("softmax", lower_bound=0.0, cancellation=0.0, convex=True, ignores_shifts=True)
GROUPS = [[0, 2], [1], [3, 4, 5]]
PENALTIES = {
    "L1": penalties.l1(0.05),
    "elastic net": penalties.elastic_net(l1=0.02, l2=0.1),
    "factors": Penalty(np.linspace(0.01, 0.1, 6)[None], 0.0),
    "L2": penalties.l2(0.1),
    "groups": penalties.group_lasso(0.05, GROUPS),
    "groups and L1": penalties.group_lasso(0.03, GROUPS, l1=0.02),
    "groups and L2": penalties.group_lasso(0.03, GROUPS, l2=0.1),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_the_bound_of_a_solver_is_that_of_the_certificate_but_for_rounding(name, x64):
    rng, (l1, l2) = np.random.default_rng(0), PENALTIES[name]
    x, labels = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    for scale in (0.0, 0.01, 1.0):
        w = scale * rng.normal(size=(3, 6))
        z = x @ w.T
        log_p = z - np.logaddexp.reduce(z, 1)[:, None]
        g = (np.exp(log_p) - np.eye(3)[labels]).T @ x / 40
        risk = -log_p[np.arange(40), labels].mean()
        rows = Rows(jnp.asarray(x), jnp.asarray(labels), jnp.full(40, 1 / 40))
        penalty = Penalty(l1, l2)
        proven, _ = certify(
            losses.categorical_nll, KNOWN, penalty, Affine(w, None), rows, narrow=False
        )
        found = gap_but_for_rounding(jnp.asarray(w), jnp.asarray(g), risk, l1, l2, 0.0)
        value = float(proven.value)
        assert min(float(found), value) == pytest.approx(float(proven.gap_bound), abs=1e-9)


def test_there_is_no_such_bound_without_a_penalty_or_a_lower_bound(x64):
    w, g = jnp.ones((1, 3)), jnp.full((1, 3), 0.5)
    assert gap_but_for_rounding(w, g, 0.7, 0.0, 0.0, 0.0) == np.inf
    assert gap_but_for_rounding(w, g, 0.7, np.array([[0.1, 0.0, 0.1]]), 0.0, 0.0) == np.inf
    assert gap_but_for_rounding(w, g, 0.7, 0.1, 0.0, -np.inf) == np.inf
    assert gap_but_for_rounding(w, g, 0.7, 0.6, 0.0, -np.inf) < np.inf


@pytest.mark.parametrize("sparse", [False, True])
def test_a_certificate_with_known_sizes_is_the_same(sparse, x64):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 6)) * (rng.random((40, 6)) < 0.5), rng.integers(0, 3, 40)
    features = read_sparse("x", csr_array(x)) if sparse else jnp.asarray(x)
    weights = rng.random(40)
    rows = Rows(features, jnp.asarray(labels), jnp.asarray(weights / weights.sum()))
    point = Affine(rng.normal(size=(3, 6)), np.zeros(3))
    given = losses.categorical_nll, KNOWN, Penalty(0.05, 0.0), point, rows
    sizes = sizes_of(rows)
    moments = (weights / weights.sum()) @ x**2
    np.testing.assert_allclose(sizes.moments, moments, rtol=1e-12, atol=1e-30)
    np.testing.assert_allclose(sizes.lengths, (x**2).sum(1), rtol=1e-12, atol=1e-30)
    fresh, _ = certify(*given, narrow=False)
    known, _ = certify(*given, narrow=False, sizes=sizes)
    for a, b in zip(jax.tree.leaves(fresh), jax.tree.leaves(known), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
