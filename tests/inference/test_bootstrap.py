"""Refits of drawn rows, their certificates and intervals; and averaged probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from jaxclf import losses, make_batch, make_objective, minimize, penalties
from jaxclf.inference import bootstrap, infer, predictive
from jaxclf.models import linear
from tests.inference.test_table import problem

KEY = jax.random.key(0)


def counts_of(rng, n, draws):
    """How often each row is drawn."""
    drawn = rng.integers(0, n, (draws, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn])


def test_each_refit_is_the_certified_fit_to_its_rows():
    objective, start, batch, _ = problem("wine", penalties.l2(0.01))
    found = bootstrap(objective, start, batch, KEY, draws=5)
    assert (found.gap_bounds < 1e-12).all()
    n = len(batch.labels)
    rng = np.random.default_rng(np.asarray(jax.random.bits(KEY, (4,), "uint32")))
    counts = counts_of(rng, n, 5)
    for i in (0, 4):
        with jax.enable_x64(True):
            wide = jax.tree.map(np.float64, start)
            one = minimize(objective, wide, batch._replace(weights=counts[i] * 1.0), tol=1e-13)
            weights = np.asarray(one.params.weights)
        np.testing.assert_allclose(found.replicates[i].reshape(3, 4)[:, :3], weights, atol=1e-5)
    again = bootstrap(objective, start, batch, KEY, draws=5)
    np.testing.assert_array_equal(found.replicates, again.replicates)


def test_refits_keep_a_strength_for_each_coefficient():
    factors = np.array([[0.0, 1.0, 3.0], [0.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
    objective, start, batch, _ = problem("wine", penalties.l2(0.05, factors=factors))
    found = bootstrap(objective, start, batch, KEY, draws=5)
    assert (found.gap_bounds < 1e-12).all()
    n = len(batch.labels)
    rng = np.random.default_rng(np.asarray(jax.random.bits(KEY, (4,), "uint32")))
    counts = counts_of(rng, n, 5)
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, start)
        one = minimize(objective, wide, batch._replace(weights=counts[2] * 1.0), tol=1e-13)
    x, theta = np.asarray(batch.features, float), found.replicates[2].reshape(3, 4)
    weights, intercept = map(np.asarray, one.params)
    z, expected = x @ theta[:, :3].T + theta[:, 3], x @ weights.T + intercept
    np.testing.assert_allclose(*(special.softmax(x, 1) for x in (z, expected)), atol=1e-6)


def test_no_bound_is_below_the_gap_that_more_digits_show():
    objective, start, batch, _ = problem("breast_cancer", penalties.l2(0.01))
    found = bootstrap(objective, start, batch, KEY, draws=20)
    n = len(batch.labels)
    x = np.c_[np.asarray(batch.features), np.ones(n)].astype(np.longdouble)
    signs = 2 * np.asarray(batch.labels) - 1
    rng = np.random.default_rng(np.asarray(jax.random.bits(KEY, (4,), "uint32")))
    counts = counts_of(rng, n, 20)
    ridge = np.append(np.full(x.shape[1] - 1, np.longdouble(0.01)), 0)
    for theta, count, bound in zip(found.replicates, counts, found.gap_bounds, strict=True):
        z = signs * (x @ theta.astype(np.longdouble))
        p = 1 / (1 + np.exp(z))
        shares = count.astype(np.longdouble) / n
        g = -x.T @ (shares * signs * p) + ridge * theta
        hessian = x.T @ ((shares * p * (1 - p))[:, None] * x) + np.diag(ridge)
        half = g @ np.linalg.solve(hessian.astype(np.float64), g.astype(np.float64)) / 2
        assert 0 < half <= bound < 1e-12


def test_errors_are_those_of_the_sandwich_in_large_samples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 2)).astype(np.float32)
    y = (rng.random(1000) < special.expit(x[:, 0])).astype(np.int32)
    start = linear.LinearParams(np.zeros(2), np.zeros(()))
    given = make_objective(linear.logits, losses.bernoulli_nll), start, make_batch(x, y)
    table = infer(*given, covariance="sandwich")
    found = bootstrap(*given, KEY, draws=800)
    np.testing.assert_allclose(found.estimate, table.estimate, 1e-9)
    np.testing.assert_allclose(found.standard_error, table.standard_error, 0.08)
    np.testing.assert_allclose(found.lower, table.lower, atol=0.3 * table.standard_error.max())
    bca = bootstrap(*given, KEY, draws=800, interval="bca")
    np.testing.assert_allclose(bca.upper, found.upper, atol=0.4 * table.standard_error.max())


def test_the_corrected_interval_follows_a_transformation():
    """BCa of exp(w) is exp of BCa of w, and so is it of percentiles, but for the acceleration."""
    objective, start, batch, _ = problem("breast_cancer", penalties.l2(0.01))
    ends = {}
    for name, statistic in {
        "w": lambda p: p.weights[0],
        "exp": lambda p: jnp.exp(p.weights[0]),
    }.items():
        found = bootstrap(
            objective, start, batch, KEY, draws=60, statistic=statistic, interval="bca"
        )
        ends[name] = np.array([found.lower[0], found.upper[0]])
        assert found.replicates.shape == (60, 1)
    np.testing.assert_allclose(np.exp(ends["w"]), ends["exp"], rtol=0.02)


def test_what_is_refused():
    objective, start, batch, _ = problem("iris_pair")
    with pytest.raises(ValueError, match="must be one of percentile"):
        bootstrap(objective, start, batch, KEY, interval="t")
    with pytest.raises(ValueError, match="draws"):
        bootstrap(objective, start, batch, KEY, draws=1)
    with pytest.raises(ValueError, match="refits have no minimum"):
        bootstrap(objective, start, batch, KEY, draws=20)


def test_probabilities_are_averaged_over_the_coefficients():
    objective, start, batch, _ = problem("iris_pair", penalties.l2(0.01))
    posterior = infer(objective, start, batch, covariance="posterior")
    params = linear.LinearParams(posterior.estimate[:4], posterior.estimate[4])
    x = np.asarray(batch.features, np.float64)
    found = predictive(params, posterior.covariance, x)
    plain = special.expit(x @ params.weights + params.intercept)
    np.testing.assert_allclose(found.sum(1), 1)
    assert ((found[:, 1] - 0.5) * (plain - 0.5) >= 0).all()
    assert (abs(found[:, 1] - 0.5) <= abs(plain - 0.5)).all()
    theta = stats.multivariate_normal(posterior.estimate, posterior.covariance, seed=1).rvs(20_000)
    exact = special.expit(np.c_[x[:10], np.ones(10)] @ theta.T).mean(1)
    drawn = predictive(params, posterior.covariance, x[:10], draws=20_000, key=KEY)[:, 1]
    np.testing.assert_allclose(drawn, exact, atol=0.01)
    np.testing.assert_allclose(found[:10, 1], exact, atol=0.02)


def test_probabilities_of_classes_without_uncertainty_are_the_softmax():
    objective, start, batch, _ = problem("wine", penalties.l2(0.01))
    centred = infer(objective, start, batch, covariance="posterior", reference=None)
    theta = centred.estimate.reshape(3, 4)
    params = linear.LinearParams(theta[:, :3], theta[:, 3])
    x = np.asarray(batch.features, np.float64)
    plain = special.softmax(x @ theta[:, :3].T + theta[:, 3], 1)
    np.testing.assert_allclose(predictive(params, np.zeros((12, 12)), x), plain, 1e-12)
    drawn = predictive(params, centred.covariance, x, draws=4000, key=KEY)
    np.testing.assert_allclose(drawn, predictive(params, centred.covariance, x), atol=0.05)
    assert np.mean(special.entr(drawn).sum(1)) > np.mean(special.entr(plain).sum(1))


def test_what_probabilities_refuse():
    params = linear.LinearParams(np.zeros(2), np.float64(0))
    with pytest.raises(ValueError, match="covariance must have shape"):
        predictive(params, np.eye(2), np.ones((3, 2)))
    with pytest.raises(ValueError, match="features must have shape"):
        predictive(params, np.eye(3), np.ones((3, 3)))
    with pytest.raises(TypeError, match="together"):
        predictive(params, np.eye(3), np.ones((3, 2)), draws=10)
