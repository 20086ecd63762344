"""Sweeps of sparse features: the table and the choice of the same features made dense."""

import numpy as np
import pytest
import scipy.sparse as sp

from jaxclf import make_batch, sweep
from jaxclf.sweeps import few_shot, minibatch, sweep_labels
from jaxclf.sweeps.rows import Roles
from jaxclf.sweeps.task import make_task


def rows(num_classes=2):
    rng = np.random.default_rng(0)
    y = rng.integers(0, num_classes, 120)
    return rng.poisson(rng.lognormal(-2, 1, (num_classes, 12))[y]).astype(np.float32), y


def batches(num_classes=2, kind=sp.csr_array):
    """The rows to train on, and those for testing, sparse and dense."""
    x, y = rows(num_classes)
    return [
        [make_batch(of(x[part]), y[part]) for part in (slice(80), slice(80, 100), slice(100, 120))]
        for of in (kind, np.asarray)
    ]


@pytest.mark.parametrize(
    ("num_classes", "grid", "judged"),
    [
        (2, {"l2": [1e-3, 0.1], "fold": [0, 1, 2]}, "folds"),
        (3, {"l2": [1e-3, 0.1, 1.0, 10.0]}, "own rows"),
        (2, {"l2": [0.1], "class_weight": [None, "balanced"]}, "a share"),
        (3, {"l2": [0.1, 0.03], "l1_ratio": [0.5, 1.0], "fold": [0, 1]}, "folds"),
    ],
)
def test_a_sweep_is_that_of_dense_features(tmp_path, num_classes, grid, judged):
    found = []
    for i, (train, held_out, test) in enumerate(batches(num_classes)):
        options = {"own rows": {"validation": held_out}, "a share": {"validation": 0.2}}
        options = options.get(judged, {}) | {"test": test, "tol": 1e-7, "metric": "accuracy"}
        result = sweep(grid, train, checkpoint=tmp_path / str(i), **options)
        again = sweep(grid, train, checkpoint=tmp_path / str(i), **options)
        assert again.table == result.table
        found.append(result)
    sparse, dense = found
    for ours, theirs in zip(sparse.table, dense.table, strict=True):
        assert ours["status"] == theirs["status"] == "converged"
        assert abs(ours["objective"] - theirs["objective"]) < 2e-7
        assert ours["log_loss"] == pytest.approx(theirs["log_loss"], abs=1e-3)
    assert sparse.selection.lane == dense.selection.lane
    assert sparse.selection.test["log_loss"] == pytest.approx(
        dense.selection.test["log_loss"], abs=1e-3
    )


def test_what_needs_dense_features_says_so():
    (train, held_out, test), (dense, *_) = batches()
    with pytest.raises(TypeError, match="a sweep of sparse features runs on one device"):
        sweep({"l2": [0.1]}, train, devices=1)
    with pytest.raises(TypeError, match="must all be sparse, or all be dense"):
        sweep({"l2": [0.1]}, dense, validation=held_out, test=test)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_minibatch_lanes_are_those_of_dense_features(num_classes):
    grid = {"learning_rate": [0.1, 1.0], "l2": [0.0, 0.1], "batch_size": [16], "seed": [0, 1]}
    options = {"method": "minibatch", "epochs": 3, "halve_every": 2}
    sparse, dense = (
        sweep(grid, train, validation=held_out, test=test, **options)
        for train, held_out, test in batches(num_classes)
    )
    for ours, theirs in zip(sparse.table, dense.table, strict=True):
        assert ours["status"] == theirs["status"]
        assert ours["log_loss"] == pytest.approx(theirs["log_loss"], rel=1e-5)
    np.testing.assert_allclose(sparse.params.weights, dense.params.weights, rtol=1e-4, atol=1e-6)
    assert sparse.selection.lane == dense.selection.lane


def test_fits_of_several_labels_take_them():
    x, y = rows(3)
    labels = np.stack([y == 1, y == 2, x[:, 0] > 0], 1).astype(int)
    grid, names = {"l2": [0.01, 0.1], "fold": [0, 1]}, ["one", "two", "first"]
    (sparse, _), (dense, _) = (
        sweep_labels(grid, make_batch(of(x), labels), make_batch(of(x), labels), names, tol=1e-8)
        for of in (sp.csr_array, np.asarray)
    )
    for ours, theirs in zip(sparse, dense, strict=True):
        assert ours.lane == theirs.lane
        np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-2)


def test_fits_to_few_rows_take_them():
    (train, _, test), (dense, _, dense_test) = batches(3)
    options = {"shots": (2, 8), "seeds": (0,), "tol": 1e-7}
    found = few_shot({"l2": [0.01, 0.1]}, train, test, **options)
    for ours, theirs in zip(
        found, few_shot({"l2": [0.01, 0.1]}, dense, dense_test, **options), strict=True
    ):
        assert ours.lane == theirs.lane
        assert ours.test["log_loss"] == pytest.approx(theirs.test["log_loss"], abs=1e-3)


def test_the_weights_of_many_columns_count_in_the_width_of_a_stack():
    x, y = rows()
    wide = sp.csr_array(x)
    wide.resize((len(x), 100_000))
    for features, width in ((x, 64), (wide, 2)):
        task = make_task(make_batch(sp.csr_array(features), y), 2, Roles(None, None), None)
        assert minibatch._width(task, 64, memory=5e6) == width
