"""Influence of rows beside derivatives through the fit, and leaving rows out beside refits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn.datasets import load_breast_cancer, load_wine

import jaxclf
from jaxclf import losses, make_batch, make_objective, minimize, penalties
from jaxclf.inference import influence, leave_one_out
from jaxclf.models import linear


def problem(K):
    x, y = load_wine(return_X_y=True) if K == 3 else load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0))[::2, :5].astype(np.float32)
    outputs = () if K == 2 else (3,)
    start = linear.LinearParams(np.zeros((*outputs, 5)), np.zeros(outputs))
    loss = losses.bernoulli_nll if K == 2 else losses.categorical_nll
    weights = np.random.default_rng(0).uniform(0.5, 2, len(x)).astype(np.float32)
    return loss, start, make_batch(x, y[::2], weights)


@pytest.mark.parametrize("K", [2, 3])
def test_influence_is_the_derivative_through_the_fit(K):
    loss, start, batch = problem(K)
    objective = make_objective(linear.logits, loss, penalties.l2(0.02))

    def probe(params):
        return jnp.sum(params.weights**2) + jnp.sum(params.weights[..., 0])

    found = influence(objective, start, batch, of=probe)
    whole = influence(objective, start, batch)
    with jax.enable_x64(True):
        wide = jax.tree.map(
            lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else x, batch
        )

        def of_weights(weights):
            return probe(jaxclf.solve(objective, start, wide._replace(weights=weights)))

        expected = np.asarray(jax.grad(of_weights)(wide.weights))
        fitted = minimize(objective, start, batch, tol=1e-14).params
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found @ np.asarray(batch.weights, np.float64), 0, atol=1e-9)
    slope = 2 * np.asarray(fitted.weights) + (np.arange(5) == 0)
    parts = whole.reshape(len(whole), -1, 6)[:, :, :5]
    np.testing.assert_allclose(np.tensordot(parts, np.atleast_2d(slope), 2), found, 1e-5, 1e-12)


@pytest.mark.parametrize("K", [2, 3])
def test_leaving_a_row_out_is_close_to_a_refit(K):
    loss, start, batch = problem(K)
    strength, w = 0.02, np.asarray(batch.weights, np.float64)
    found = leave_one_out(make_objective(linear.logits, loss, penalties.l2(strength)), start, batch)
    refitted = leave_one_out(
        make_objective(linear.logits, loss, penalties.l2(strength)), start, batch, refits=len(w)
    ) if K == 3 else None  # fmt: skip
    with_all = None
    for i in (0, 20, 40, 60):
        others = np.where(np.arange(len(w)) == i, 0, w)
        kept = penalties.l2(strength * w.sum() / others.sum())
        fits = []
        for penalty, weights in ((kept, others), (penalties.l2(strength), w)):
            with jax.enable_x64(True):
                objective = make_objective(linear.logits, loss, penalty)
                p = minimize(objective, start, batch._replace(weights=weights), tol=1e-12).params
                fits.append(np.asarray(linear.logits(p, batch.features[i])))
        exact, with_all = fits
        assert np.abs(found[i] - exact).max() < 0.03 * np.abs(with_all - exact).max() + 1e-6
        if refitted is not None:
            np.testing.assert_allclose(refitted[i], exact, atol=1e-6)


def test_it_is_exact_for_squared_error():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 3)).astype(np.float32)
    y = (x @ rng.normal(size=3) + rng.normal(size=30)).astype(np.float32)
    start = linear.LinearParams(np.zeros(3), np.zeros(()))
    found = leave_one_out(
        make_objective(linear.logits, losses.squared_error), start, make_batch(x, y)
    )
    for i in range(0, 30, 7):
        rest = np.delete(np.c_[x, np.ones(30)].astype(np.float64), i, 0)
        theta = np.linalg.lstsq(rest, np.delete(y, i).astype(np.float64), rcond=None)[0]
        assert found[i] == pytest.approx(float(np.append(x[i], 1) @ theta), rel=1e-8)


def test_refits_of_the_rows_that_move_most_take_away_the_error():
    """With a weak ridge the loss of a few rows far from the others is most of the error."""
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)[::4, :8]
    batch, start = make_batch(x, y[::4]), linear.LinearParams(np.zeros(8), np.zeros(()))
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(1e-3))

    def loss(refits):
        z = leave_one_out(objective, start, batch, refits=refits)
        return -special.log_expit((2 * y[::4] - 1) * z).mean()

    exact = loss(len(x))
    assert 0 < abs(loss(5) - exact) < 0.2 * abs(loss(0) - exact)


def test_the_loss_without_each_row_is_above_that_with_it():
    loss, start, batch = problem(2)
    objective = make_objective(linear.logits, loss, penalties.l2(1e-3))
    z, y = leave_one_out(objective, start, batch), np.asarray(batch.labels)
    weights, intercept = map(
        np.asarray, minimize(objective, jax.tree.map(np.float32, start), batch).params
    )
    fitted = np.asarray(batch.features) @ weights + intercept

    def mean_loss(z):
        return -special.log_expit((2 * y - 1) * z).mean()

    assert mean_loss(z) > mean_loss(fitted)


def test_what_is_refused():
    loss, start, batch = problem(2)
    for run in (influence, leave_one_out):
        with pytest.raises(ValueError, match="L1"):
            run(make_objective(linear.logits, loss, penalties.l1(0.1)), start, batch)
    with pytest.raises(ValueError, match="refits"):
        leave_one_out(make_objective(linear.logits, loss), start, batch, refits=-1)
