"""Which rows train and judge a lane, and which lane is chosen."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from jaxclf import (
    Batch,
    losses,
    make_objective,
    metrics,
    minimize,
    penalties,
    sweep,
)
from jaxclf.models import linear
from jaxclf.sweeps import rows, selection
from jaxclf.sweeps.few_shot import few_shot
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
    lane = {
        "fold": None,
        "train_fraction": 0.5,
        "shots": None,
        "seed": 1,
        "class_weight": "balanced",
    }
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


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize(
    "metric", ["balanced_accuracy", "f1_macro", "roc_auc", "average_precision"]
)
def test_any_metric_judges_on_the_held_out_rows(metric, num_classes):
    batch = data(num_classes)
    grid = {"l2": [1e-3, 1.0], "fold": range(3)}
    result = sweep(grid, batch, test=batch, metric=metric, tol=1e-6)
    folds = rows.assign(np.asarray(batch.labels), 3, 0.0, 0).fold
    for place, row in enumerate(result.table):
        held = folds == row["lane"]["fold"]
        own = type(result.params)(*(x[place] for x in result.params))
        logits = np.asarray(batch.features)[held] @ own.weights.T + own.intercept
        probabilities = logits if num_classes == 2 else softmax(logits, 1)
        ranked = metric in ("roc_auc", "average_precision")
        labels = np.asarray(batch.labels)[held]
        expected = getattr(metrics, metric)(probabilities if ranked else logits, labels)
        assert row[metric] == pytest.approx(float(expected), abs=1e-5)
    chosen = result.selection
    means = {c.lane["l2"]: c.mean for c in chosen.candidates}
    assert chosen.lane["l2"] == max(means, key=means.get)
    assert 0 < chosen.test[metric] <= 1


def test_a_ranking_needs_every_class_among_the_rows_that_judge():
    batch = data()
    few = Batch(batch.features[:4], np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match=r"roc_auc needs a row .* none of class 2"):
        sweep({"l2": [1e-2]}, batch, validation=few, metric="roc_auc")
    with pytest.raises(ValueError, match=r"roc_auc needs a row .* none of class 2"):
        sweep({"l2": [1e-2]}, batch, validation=0.2, test=few, metric="roc_auc")


def test_places_in_a_class_count_its_rows():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [30, 60, 3]))
    used = np.arange(93) % 5 > 0
    place = rows.place_in_class(1, labels, used)
    for k in range(3):
        counted = place[used & (labels == k)]
        assert sorted(counted) == list(range(len(counted)))
    assert (place[~used] >= 93).all()
    assert (rows.place_in_class(2, labels, used) != place).any()


def test_few_shots_learn_from_their_rows_alone():
    batch, test = data(num_rows=300), data(num_rows=400)
    labels, grid = np.asarray(batch.labels), {"l2": [1e-2, 1.0]}
    found = few_shot(grid, batch, test, shots=(16, 1, 4), seeds=(0, 7), tol=1e-6)
    keys = [(one.shots, one.seed) for one in found]
    assert keys == [(1, 0), (1, 7), (4, 0), (4, 7), (16, 0), (16, 7)]
    # A fit does not depend on what else is asked for.
    alone = few_shot(grid, batch, test, shots=(4,), seeds=(7,), tol=1e-6)[0]
    assert alone.lane == found[3].lane
    for name, value in alone.test.items():
        assert found[3].test[name] == pytest.approx(value, rel=1e-4)
    # Its parameters are those of its four rows of each class.
    place = rows.place_in_class(7, labels)
    learned = Batch(*(np.asarray(x)[place < 4] for x in batch[:2]))
    objective = make_objective(
        linear.logits, losses.categorical_nll, penalties.l2(alone.lane["l2"])
    )
    params = minimize(objective, start(), learned, tol=1e-7).params
    logits = np.asarray(test.features) @ np.asarray(params.weights).T + np.asarray(params.intercept)
    expected = metrics.log_loss(logits, test.labels)
    assert alone.test["log_loss"] == pytest.approx(float(expected), rel=1e-3)
    # Other rows than those of the seeds are never read.
    pool = np.any([rows.place_in_class(seed, labels) < 16 + 4 for seed in (0, 7)], 0)
    broken = batch._replace(features=np.where(pool[:, None], batch.features, np.nan))
    same = few_shot(grid, broken, test, shots=(1, 4, 16), seeds=(0, 7), tol=1e-6)
    assert [one.test for one in same] == [one.test for one in found]
    right = [np.mean([x.test["accuracy"] for x in found if x.shots == n]) for n in (1, 16)]
    assert right[1] > right[0] > 1 / 3


def test_the_rows_that_choose_come_next():
    """Rows beyond the shots have other labels, so that only the strongest penalty is right."""
    made = data(num_classes=2, num_rows=60)
    labels = np.asarray(made.labels)
    place = rows.place_in_class(0, labels)
    features = np.where(place < 5, 1.0, -1.0)[:, None] * np.where(labels == 1, 1.0, -1.0)[:, None]
    batch = Batch(features.astype(np.float32), labels)
    grid = {"l2": [1e-3, 1e3]}
    assert few_shot(grid, batch, batch, shots=(5,), seeds=(0,))[0].lane["l2"] == 1e3
    assert few_shot(grid, batch, batch, shots=(2,), seeds=(0,))[0].lane["l2"] == 1e-3


def test_shots_that_do_not_fit():
    batch = data()
    counts = np.bincount(batch.labels)
    for shots, metric, limit in (
        ((0, 2), "log_loss", "shots must be finite, at least 1, got 0"),
        ((), "log_loss", "got none"),
        ((2, 400), "log_loss", f"from 1 to {counts.max() - 1}, as the largest class has"),
        ((2, 400), "roc_auc", f"from 1 to {counts.min() - 1}, as the smallest class has"),
    ):
        with pytest.raises(ValueError, match=limit):
            few_shot({"l2": [1e-2]}, batch, batch, shots=shots, metric=metric)
    wider = batch._replace(labels=np.asarray(batch.labels) + 1)
    with pytest.raises(ValueError, match="test has class 3, which the data to train on have not"):
        few_shot({"l2": [1e-2]}, batch, wider)
