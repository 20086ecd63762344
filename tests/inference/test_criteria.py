"""Information criteria of paths against their definitions."""

import numpy as np
import pytest
from scipy.special import comb

from jaxclf import load_dataset, losses, make_batch, make_objective, minimize_path, penalties
from jaxclf.inference import information_criteria
from jaxclf.models import linear
from jaxclf.models.linear import LinearParams


def path_of(penalty, *, num_classes=None, weights=None, num=4, bounds=None):
    data = load_dataset("wine", dtype=np.float64)
    x = (data.features - data.features.mean(0)) / data.features.std(0)
    labels = data.labels if num_classes else data.labels == 0
    loss = losses.categorical_nll if num_classes else losses.bernoulli_nll
    objective = make_objective(linear.logits, loss, penalty)
    outputs = (num_classes,) if num_classes else ()
    start = LinearParams(np.zeros((*outputs, 13)), np.zeros(outputs))
    batch = make_batch(x, labels, weights)
    return (
        objective,
        minimize_path(objective, start, batch, num=num, min_ratio=0.01, tol=1e-9, bounds=bounds),
        batch,
    )


@pytest.mark.parametrize("num_classes", [None, 3])
def test_l1_counts_the_weights_that_are_not_zero(num_classes, x64):
    objective, path, batch = path_of(penalties.l1(1.0), num_classes=num_classes)
    found = information_criteria(objective, path, batch, gamma=1.0)
    counts = np.array([np.count_nonzero(result.params.weights) for result in path])
    np.testing.assert_array_equal(found.degrees_of_freedom, counts + (2 if num_classes else 1))
    bare = make_objective(linear.logits, objective.loss)
    risks = [float(bare(result.params, batch)) for result in path]
    np.testing.assert_allclose(found.log_likelihood, -178 * np.array(risks), rtol=1e-9)
    df, deviance = found.degrees_of_freedom, -2 * found.log_likelihood
    np.testing.assert_allclose(found.aic, deviance + 2 * df)
    np.testing.assert_allclose(found.bic, deviance + np.log(178) * df)
    sets = np.log(comb(39 if num_classes else 13, counts))
    np.testing.assert_allclose(found.ebic, found.bic + 2 * sets)
    zero = information_criteria(objective, path, batch, gamma=0.0)
    np.testing.assert_array_equal(zero.ebic, zero.bic)


@pytest.mark.parametrize("factors", [1.0, np.r_[0, 2, np.inf, np.ones(10)]])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_ridge_has_the_trace_of_the_hat_matrix(share, factors, x64):
    factors = np.broadcast_to(factors, 13)
    penalty = penalties.elastic_net(l1=share, l2=1 - share, factors=factors)
    objective, path, batch = path_of(penalty)
    found = information_criteria(objective, path, batch)
    x = np.c_[batch.features, np.ones(178)]
    for df, result, penalty in zip(found.degrees_of_freedom, path, path.penalties, strict=True):
        w = np.asarray(result.params.weights)
        used = np.append(w != 0 if share else np.isfinite(factors), True)
        ends = np.zeros(14)
        ends[:13] = np.where(np.isfinite(penalty.l2), penalty.l2, 0)
        p = 1 / (1 + np.exp(-(x[:, :13] @ w + result.params.intercept)))
        root = np.sqrt(p * (1 - p) / 178)[:, None] * x[:, used]
        ridge = np.diag(ends[used])
        hat = root @ np.linalg.solve(root.T @ root + ridge, root.T)
        assert df == pytest.approx(np.trace(hat), rel=1e-8)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_weight_at_its_bound_is_not_free(share, x64):
    penalty = penalties.elastic_net(l1=share, l2=1 - share)
    objective, path, batch = path_of(penalty, bounds=(0.0, 0.05))
    found = information_criteria(objective, path, batch)
    x = np.c_[batch.features, np.ones(178)]
    assert (np.asarray(path[-1].params.weights) == 0.05).any()
    for df, result, penalty in zip(found.degrees_of_freedom, path, path.penalties, strict=True):
        w = np.asarray(result.params.weights)
        used = np.append((w > 0) & (w < 0.05), True)
        p = 1 / (1 + np.exp(-(x[:, :13] @ w + result.params.intercept)))
        root = np.sqrt(p * (1 - p) / 178)[:, None] * x[:, used]
        ridge = np.diag(np.where(np.arange(used.sum()) < used.sum() - 1, penalty.l2, 0))
        hat = root @ np.linalg.solve(root.T @ root + ridge, root.T)
        assert df == pytest.approx(np.trace(hat), rel=1e-8)


def test_weights_that_are_free_or_fixed_are_in_no_choice(x64):
    """EBIC counts the sets of weights that the penalty chooses from."""
    factors = np.r_[0, np.inf, np.ones(11)]
    objective, path, batch = path_of(penalties.l1(1.0, factors=factors))
    found = information_criteria(objective, path, batch, gamma=1.0)
    chosen = [np.count_nonzero(np.asarray(result.params.weights)[2:]) for result in path]
    np.testing.assert_allclose(found.ebic - found.bic, 2 * np.log(comb(11, chosen)), atol=1e-9)
    np.testing.assert_allclose(found.degrees_of_freedom, np.array(chosen) + 2, rtol=1e-9)


def test_a_weight_counts_as_rows_and_softmax_has_one_free_intercept_less(x64):
    objective, path, batch = path_of(
        penalties.l2(1.0), num_classes=3, weights=np.full(178, 2.0), num=2
    )
    found = information_criteria(objective, path, batch)
    once = information_criteria(objective, path, batch._replace(weights=None))
    np.testing.assert_allclose(found.log_likelihood, 2 * once.log_likelihood)
    assert found.degrees_of_freedom[0] == pytest.approx(2, abs=0.1)
    assert 2 < found.degrees_of_freedom[1] < 28


def test_bad_input_is_refused(x64):
    objective, path, batch = path_of(penalties.l1(1.0), num=2)
    with pytest.raises(ValueError, match="gamma must be finite, at least 0, at most 1, got 2"):
        information_criteria(objective, path, batch, gamma=2)
    with pytest.raises(TypeError, match=r"needs the logits of models\.linear\.logits"):
        information_criteria(lambda params, batch: 0.0, path, batch)
