"""Minibatch lanes are single fits, and none depends on another."""

import math

import jax
import numpy as np
import optax
import pytest

from jaxclf import (
    fit,
    losses,
    make_objective,
    penalties,
    sweep,
)
from jaxclf.models import linear
from tests.sweeps.problems import data


@pytest.mark.parametrize(
    ("optimizer", "made"),
    [
        ("sgd", lambda rate: optax.sgd(rate, momentum=0.9)),
        ("adam", lambda rate: optax.adam(rate)),
        ("adamw", lambda rate: optax.adamw(rate, weight_decay=0.1, mask=penalties.penalised)),
    ],
)
def test_minibatch_lanes_are_single_fits(optimizer, made):
    batch = data()
    extra = {"sgd": {"momentum": [0.9]}, "adam": {}, "adamw": {"weight_decay": [0.1]}}[optimizer]
    grid = {"learning_rate": [0.01, 0.1], "seed": [0, 3], "optimizer": [optimizer], "l2": [0.01]}
    options = {"batch_size": [32], "shuffle_seed": [5]}
    result = sweep(grid | options | extra, batch, method="minibatch", epochs=3)
    for row, weights in zip(result.table, result.params.weights, strict=True):
        lane = row["lane"]
        single = fit(
            make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.01)),
            linear.init(jax.random.key(lane["seed"]), 4, 3),
            batch,
            optimizer=made(lane["learning_rate"]),
            batch_size=32,
            epochs=3,
            key=jax.random.key(5),
        )
        np.testing.assert_allclose(weights, single.params.weights, atol=1e-5)
        assert row["objective"] == pytest.approx(single.history[-1]["loss"], rel=1e-5)
        assert row["curves"]["loss"] == pytest.approx([r["loss"] for r in single.history], rel=1e-5)


def test_a_lane_that_diverges_leaves_the_others_as_they_are():
    batch = data()
    rates = [0.01, 0.1, 0.3, 0.5]
    healthy = sweep({"learning_rate": rates}, batch, method="minibatch", epochs=4)
    rates[1] = 1e38
    poisoned = sweep({"learning_rate": rates}, batch, method="minibatch", epochs=4)
    assert [row["status"] for row in poisoned.table] == [
        "completed", "nonfinite", "completed", "completed"
    ]  # fmt: skip
    assert math.isnan(poisoned.table[1]["objective"])
    assert np.isfinite(poisoned.params.weights).all()
    others = [0, 2, 3]
    np.testing.assert_array_equal(poisoned.params.weights[others], healthy.params.weights[others])
    # And those of a run that never had it.
    alone = sweep({"learning_rate": [0.01, 0.3, 0.5]}, batch, method="minibatch", epochs=4)
    np.testing.assert_allclose(poisoned.params.weights[others], alone.params.weights, rtol=1e-6)


def test_stacks_that_the_memory_cuts_give_the_same():
    batch, grid = data(), {"learning_rate": [0.01, 0.1, 0.3], "l2": [0.0, 0.1]}
    whole = sweep(grid, batch, method="minibatch", epochs=2)
    cut = sweep(grid, batch, method="minibatch", epochs=2, memory=10_000)
    np.testing.assert_allclose(cut.params.weights, whole.params.weights, rtol=1e-5, atol=1e-7)


def test_halving_keeps_the_better_lanes():
    grid = {"learning_rate": [1e-5, 1e-4, 1e-3, 0.01, 0.1]}
    options = {"method": "minibatch", "validation": 0.3, "epochs": 6}
    result = sweep(grid, data(), halve_every=2, **options)
    ends = [(row["status"], row["epochs"]) for row in result.table]
    assert ends == [("dropped", 2), ("dropped", 2), ("dropped", 4), ("completed", 6),
                    ("completed", 6)]  # fmt: skip
    # A lane that stays is trained as if nothing was dropped.
    whole = sweep(grid, data(), **options)
    np.testing.assert_allclose(result.params.weights[4], whole.params.weights[4], rtol=1e-5)
    assert result.selection.lane["learning_rate"] == 0.1
