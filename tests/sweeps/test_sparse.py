"""Sweeps of sparse features: the table and the choice of the same features made dense."""

import numpy as np
import pytest
import scipy.sparse as sp

from jaxclf import make_batch, sweep


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
    with pytest.raises(ValueError, match="an L1 penalty needs dense features"):
        sweep({"l2": [0.1], "l1_ratio": [0.5]}, train)
    with pytest.raises(TypeError, match="needs method='convex', and one device"):
        sweep({"learning_rate": [0.1]}, train, method="minibatch", epochs=1)
    with pytest.raises(TypeError, match="needs method='convex', and one device"):
        sweep({"l2": [0.1]}, train, devices=1)
    with pytest.raises(TypeError, match="must all be sparse, or all be dense"):
        sweep({"l2": [0.1]}, dense, validation=held_out, test=test)
