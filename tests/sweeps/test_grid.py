"""Grids and rows that a sweep refuses, and the losses of a grid."""

import jax.numpy as jnp
import pytest

from jaxclf import (
    Batch,
    sweep,
)
from tests.sweeps.problems import data, wide_data


def test_features_that_are_not_finite_are_named():
    batch = wide_data()
    broken = batch._replace(features=batch.features.at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="features must be finite"):
        sweep({"l2": [1e-3, 1e-2, 1e-1, 1.0]}, broken)


@pytest.mark.parametrize("method", ["convex", "minibatch"])
def test_losses_are_groups_of_their_own(method):
    names = ["log_loss", "onehot_squared_error"]
    result = sweep({"loss": names, "l2": [0.1]}, data(), method=method, tol=1e-7)
    for row in result.table:
        alone = sweep([{"loss": row["lane"]["loss"], "l2": 0.1}], data(), method=method, tol=1e-7)
        assert row["objective"] == pytest.approx(alone.table[0]["objective"], rel=1e-6)
    assert result.table[0]["objective"] != pytest.approx(result.table[1]["objective"], rel=1e-2)


@pytest.mark.parametrize(
    ("grid", "options", "sentence"),
    [
        ({"l3": [1]}, {}, "grid key must be one of l2, .* got 'l3'"),
        ({"learning_rate": [1]}, {}, "grid key must be one of"),
        ({"l2": []}, {}, "axis 'l2' of the grid is empty"),
        ({"l2": [1, -1]}, {}, "l2 must be finite, at least 0, got -1"),
        ({"l2": [1, 1.0]}, {}, "the grid has the same configuration twice"),
        ({"fold": [0, 2]}, {}, "folds must be 0, 1, … without gaps"),
        ({"fold": range(40)}, {}, "40 folds need as many rows of each class"),
        ({"fold": [0, 1]}, {"validation": 0.2}, "by its folds or by"),
        ({"loss": ["hinge"]}, {}, "loss must be one of log_loss, onehot"),
        ({"loss": ["sigmoid_squared_error"]}, {"method": "minibatch"}, "is for two classes"),
        ({"loss": ["onehot_squared_error"], "label_smoothing": [0.1]}, {}, "is of log_loss"),
        ({"l2": [1]}, {"metric": "auc"}, "metric must be one of log_loss, accuracy"),
        ({"l2": ["a"]}, {}, "l2 must be a number, got 'a'"),
        ({"l2": [1]}, {"rule": "one_standard_error"}, "the grid needs a fold axis"),
        ({"learning_rate": [0]}, {"method": "minibatch"}, "learning_rate must be finite, above 0"),
        ({"l2": [1]}, {"halve_every": 1}, "halve_every drops minibatch fits"),
        ({"optimizer": ["sdg"]}, {"method": "minibatch"}, "optimizer must be one of optax"),
        ({"momentum": [0.9], "optimizer": ["adam"]}, {"method": "minibatch"}, "grid key must be"),
        ({"batch_size": [0]}, {"method": "minibatch"}, "batch_size must be finite, at least 1"),
    ],
)  # fmt: skip
def test_bad_grids_are_refused_before_any_work(grid, options, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        sweep(grid, data(), checkpoint=tmp_path / "lanes", **options)
    assert not (tmp_path / "lanes").exists()


def test_other_rows_must_fit():
    with pytest.raises(ValueError, match="test has class 3, which the data to train on have not"):
        sweep({"l2": [1.0]}, data(3), test=data(4))
    with pytest.raises(ValueError, match="labels hold one class only"):
        sweep({"l2": [1.0]}, Batch(jnp.ones((5, 2)), jnp.zeros(5, jnp.int32)))
    with pytest.raises(TypeError, match="grid must be a mapping"):
        sweep([1, 2], data())
