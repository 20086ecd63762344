"""The minimax concave penalty: its conditions, and its closed form for orthogonal columns."""

import jax
import numpy as np
import pytest

from jaxclf import Batch, losses, make_objective, minimize, minimize_mcp, penalties
from jaxclf.models import linear
from tests.solvers.test_penalty_factors import data


def solved(batch, strength, loss=losses.bernoulli_nll, penalty=None, start=0.0, **options):
    with jax.enable_x64(True):
        params = linear.LinearParams(np.full(batch.features.shape[1], start), None)
        objective = make_objective(linear.logits, loss, penalty)
        found = minimize_mcp(objective, params, batch, strength, **{"tol": 1e-14, **options})
    return found._replace(params=jax.tree.map(np.asarray, found.params))


def test_orthogonal_columns_have_the_firm_threshold():
    """With ``½ mean (z - y)²`` and ``XᵀX = n I`` a weight is the firm threshold of xᵀy / n (Gao and
    Bruce, Stat. Sinica 7 (1997)): 0, ``(|t| - λ) / (1 - 1/γ)``, or t."""
    x, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 5)))
    t = np.array([0.3, -0.8, 1.5, 2.9, -4.0])
    batch = Batch(x * np.sqrt(40), x @ t * np.sqrt(40))

    def half(z, y):
        return losses.squared_error(z, y) / 2

    found = solved(batch, 1.0, half, gamma=3.0)
    firm = np.sign(t) * np.maximum(np.abs(t) - 1, 0) / (1 - 1 / 3)
    expected = np.where(np.abs(t) > 3, t, firm)
    assert found.status == "stationary"
    assert found.gap_bound == np.inf
    assert found.reason == "the minimax concave penalty is not convex"
    np.testing.assert_allclose(found.params.weights, expected, atol=1e-6)
    terms = np.abs(expected) - expected**2 / 6
    value = np.mean((batch.features @ expected - batch.labels) ** 2) / 2
    value += np.where(np.abs(expected) <= 3, terms, 1.5).sum()
    assert found.value == pytest.approx(value, abs=1e-9)


def test_a_log_loss_is_stationary_and_falls_in_every_round():
    batch = data(1)
    found = solved(batch, 0.05, penalty=penalties.l2(0.01))
    w = found.params.weights
    residuals = 1 / (1 + np.exp(-batch.features @ w)) - batch.labels
    g = (residuals * batch.weights / batch.weights.sum()) @ batch.features + 0.01 * w
    slope = np.sign(w) * np.maximum(0, 0.05 - np.abs(w) / 3)
    np.testing.assert_allclose((g + slope)[w != 0], 0, atol=1e-6)
    assert (np.abs(g[w == 0]) <= 0.05 + 1e-9).all()
    assert found.status == "stationary"
    assert found.gradient_norm < 1e-6
    values = [step.value for step in found.trace]
    assert len(values) == found.steps > 1
    assert (np.diff(values) <= 1e-12).all()


def test_the_first_round_is_the_lasso_and_bounds_hold_in_all():
    batch = data(1)
    first = solved(batch, 0.05, max_rounds=1)
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l1(0.05))
    with jax.enable_x64(True):
        lasso = minimize(objective, linear.LinearParams(np.zeros(5), None), batch, tol=1e-14)
    np.testing.assert_allclose(first.params.weights, lasso.params.weights, atol=1e-6)
    assert first.status == "max_steps"
    weights = solved(batch, 0.05, bounds=(-0.1, 0.1)).params.weights
    assert np.abs(weights).max() == 0.1


def test_weights_without_a_slope_that_separate_end_in_a_status():
    x = np.linspace(-2, 2, 20)[:, None]
    found = solved(Batch(x, (x[:, 0] > 0).astype(int)), 1e-3, start=10.0)
    assert found.status == "stalled"


def test_bad_input_is_refused():
    batch = data(1)
    with pytest.raises(ValueError, match="strength must be finite, above 0, got 0"):
        solved(batch, 0.0)
    with pytest.raises(ValueError, match="gamma must be finite, above 1, got 1"):
        solved(batch, 0.1, gamma=1.0)
    with pytest.raises(ValueError, match="minimize_mcp takes the place of L1"):
        solved(batch, 0.1, penalty=penalties.l1(0.1))
    with pytest.raises(TypeError, match=r"needs the logits of models\.linear\.logits"):
        minimize_mcp(
            make_objective(lambda w, x: w @ x, losses.bernoulli_nll), np.zeros(5), batch, 1
        )
