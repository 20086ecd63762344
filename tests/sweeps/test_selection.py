"""Which rows train and judge a lane, and which lane is chosen."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import (
    Batch,
    losses,
    make_objective,
    minimize,
    penalties,
    sweep,
)
from jaxclf.models import linear
from jaxclf.sweeps import rows, selection
from jaxclf.sweeps.selection import Candidate
from tests.sweeps.problems import data, start


def test_folds_are_trained_without_their_rows_and_judged_by_them():
    batch = data()
    result = sweep({"l2": [1e-2, 1e-1], "fold": range(3)}, batch, tol=1e-7)
    folds = rows.assign(np.asarray(batch.labels), 3, 0.0, 0).fold
    for row in result.table:
        held = folds == row["lane"]["fold"]
        objective = make_objective(
            linear.logits, losses.categorical_nll, penalties.l2(row["lane"]["l2"])
        )
        kept = Batch(batch.features[~held], batch.labels[~held])
        single = minimize(objective, start(), kept, tol=1e-7)
        assert row["objective"] == pytest.approx(single.value, abs=1e-6)
        judged = make_objective(linear.logits, losses.categorical_nll)
        found = judged(single.params, Batch(batch.features[held], batch.labels[held]))
        assert row["log_loss"] == pytest.approx(float(found), rel=1e-3)
    chosen = result.selection
    assert chosen.judged_by == "3 folds"
    means = {
        l2: np.mean([r["log_loss"] for r in result.table if r["lane"]["l2"] == l2])
        for l2 in (1e-2, 1e-1)
    }
    assert chosen.lane["l2"] == min(means, key=means.get)
    objective = make_objective(
        linear.logits, losses.categorical_nll, penalties.l2(chosen.lane["l2"])
    )
    alone = minimize(objective, start(), batch, tol=1e-7)
    np.testing.assert_allclose(chosen.params.weights, alone.params.weights, atol=1e-3)


def test_rows_of_a_share_are_nested_and_balanced_classes_weigh_the_same():
    labels = np.repeat([0, 1, 2], [30, 60, 90])
    roles = rows.assign(labels, 0, 0.2, 0)
    assert np.bincount(labels[roles.held]).tolist() == [6, 12, 18]
    lane = {"fold": None, "train_fraction": 0.5, "seed": 1, "class_weight": "balanced"}
    half = rows.training_weights(lane, labels, None, roles, 3)
    most = rows.training_weights(lane | {"train_fraction": 0.9}, labels, None, roles, 3)
    assert not half[roles.held].any()
    assert np.count_nonzero(half) == 12 + 24 + 36
    assert (most[half > 0] > 0).all()
    totals = np.bincount(labels, half)
    np.testing.assert_allclose(totals, totals[0], rtol=1e-6)


def test_one_standard_error_takes_the_strongest_penalty_that_is_near():
    def candidate(l2, mean, error):
        return Candidate({"l2": l2}, mean, error)

    candidates = [candidate(0.1, 0.5, 0.1), candidate(1.0, 0.55, 0.1), candidate(10.0, 0.7, 0.1)]
    assert selection.choose(candidates, "log_loss", "best").lane["l2"] == 0.1
    assert selection.choose(candidates, "log_loss", "one_standard_error").lane["l2"] == 1.0
    assert selection.choose(candidates, "accuracy", "best").lane["l2"] == 10.0
    assert selection.choose(candidates, "accuracy", "one_standard_error").lane["l2"] == 10.0
    with pytest.raises(ValueError, match="no configuration of the sweep ended well"):
        selection.choose([candidate(1.0, math.nan, math.nan)], "log_loss", "best")


def test_other_rows_may_judge_and_are_trained_on_in_the_end():
    batch, own, test = data(), data(num_rows=30), data(num_rows=45)
    result = sweep({"l2": [1e-3, 1.0]}, batch, validation=own, test=test, tol=1e-7)
    joined = Batch(*(jnp.concatenate([a, b]) for a, b in zip(batch[:2], own[:2], strict=True)))
    chosen = result.selection
    objective = make_objective(
        linear.logits, losses.categorical_nll, penalties.l2(chosen.lane["l2"])
    )
    single = minimize(objective, start(), joined, tol=1e-7)
    np.testing.assert_allclose(chosen.params.weights, single.params.weights, atol=1e-3)
    found = make_objective(linear.logits, losses.categorical_nll)(chosen.params, test)
    assert chosen.test["log_loss"] == pytest.approx(float(found), rel=1e-5)


def test_test_rows_need_a_lane_that_is_chosen():
    with pytest.raises(ValueError, match="test rows measure the configuration that is chosen"):
        sweep({"l2": [1e-3]}, data(), test=data())
    with pytest.raises(TypeError, match="data must be a Batch, such as make_batch gives, got dict"):
        sweep({"l2": [1e-3]}, {})


def test_the_training_of_the_chosen_lane_tells_how_it_ended():
    chosen = sweep({"l2": [1e-3], "fold": [0, 1]}, data()).selection
    assert chosen.facts["status"] == "converged"
    with pytest.warns(RuntimeWarning, match="trained on all rows, ended as max_steps"):
        short = sweep({"l2": [1e-6], "fold": [0, 1]}, data(), max_steps=1, tol=1e-9).selection
    assert short.facts["status"] == "max_steps"
