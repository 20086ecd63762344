"""Finished lanes are stored, so that a sweep that was stopped goes on."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxclf import (
    sweep,
)
from jaxclf.models import linear
from jaxclf.sweeps import minibatch
from jaxclf.sweeps.grid import lanes_of
from jaxclf.sweeps.store import Store
from jaxclf.sweeps.task import Finished
from tests.sweeps.problems import data, wide_data


def without_seconds(table):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in table]


@pytest.mark.parametrize(
    ("method", "grid", "options"),
    [
        ("convex", {"l2": [1e-1, 1e-2, 1e-3], "fold": [0, 1]}, {}),
        ("convex", {"l2": [1e-1, 1e-2, 1e-3], "label_smoothing": [0.0, 0.1]}, {"wide": True}),
        ("minibatch", {"learning_rate": [0.1, 0.2, 0.3], "fold": [0, 1]}, {"memory": 1}),
    ],
)
def test_a_sweep_that_was_stopped_goes_on(method, grid, options, tmp_path, monkeypatch):
    batch = wide_data() if options.pop("wide", False) else data()
    options = {"method": method, "epochs": 2} | options
    whole = sweep(grid, batch, **options)
    save, saved = Store.save, []

    def stopping(self, lane, finished):
        if len(saved) == 2:  # in the middle of a path
            raise KeyboardInterrupt
        saved.append(lane)
        save(self, lane, finished)

    monkeypatch.setattr(Store, "save", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep(grid, batch, checkpoint=tmp_path, **options)
    monkeypatch.setattr(Store, "save", lambda self, lane, one: saved.append(lane))
    assert len(saved) == 2
    resumed = sweep(grid, batch, checkpoint=tmp_path, **options)
    chosen = whole.selection is not None  # it is trained again at the end
    assert len(saved) == len(whole.table) + chosen
    assert without_seconds(resumed.table) == without_seconds(whole.table)


def test_a_stack_with_a_missing_lane_is_trained_whole(tmp_path, monkeypatch):
    # The bits of a lane depend on the lanes beside it: among 36 lanes of digits 4 differed by 5e-7.
    stacks, train = [], minibatch._train_stack
    spy = lambda chunk, *rest: stacks.append(len(chunk)) or train(chunk, *rest)  # noqa: E731
    monkeypatch.setattr(minibatch, "_train_stack", spy)
    grid = {"learning_rate": np.geomspace(0.01, 1, 6), "batch_size": [16, 32]}
    options = {"method": "minibatch", "epochs": 1, "checkpoint": tmp_path}
    whole = sweep(grid, data(), **options)
    assert stacks == [6, 6]
    missing = sorted(tmp_path.iterdir())[0]
    missing.unlink()
    others = {path: path.read_bytes() for path in tmp_path.iterdir()}
    resumed = sweep(grid, data(), **options)
    assert stacks == [6, 6, 6]
    assert missing.exists()
    assert {path: path.read_bytes() for path in others} == others
    np.testing.assert_array_equal(resumed.params.weights, whole.params.weights)


@pytest.mark.parametrize(("lanes", "width"), [(1, 1), (3, 2), (3.9, 2), (4, 4), (200, 100)])
def test_stacks_that_the_memory_cuts_are_powers_of_two(lanes, width):
    task = SimpleNamespace(features=np.zeros((10, 2)), num_classes=2, mesh=None)
    assert minibatch._width(task, 100, 4 * 10 * 5 * lanes) == width


def test_a_store_knows_its_lanes_and_survives_damage(tmp_path):
    lane = lanes_of({"l2": [1.0]}, "convex")[0]
    like = linear.init(jax.random.key(0), 4, 3)
    store = Store(tmp_path, {"data": "a"}, like)
    store.save(lane, Finished(like, {"status": "converged"}))
    found = store.load(lane)
    np.testing.assert_array_equal(found.params.weights, like.weights)
    assert found.facts == {"status": "converged"}
    assert Store(tmp_path, {"data": "b"}, like).load(lane) is None
    assert store.load(lane | {"l2": 2.0}) is None
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert store.load(lane) is None


def test_lanes_that_are_halved_compete_again_where_one_is_missing(tmp_path):
    grid = {"learning_rate": [1e-4, 0.01, 0.1, 0.3]}
    options = {"method": "minibatch", "epochs": 4, "halve_every": 1, "validation": 0.3}
    whole = sweep(grid, data(), checkpoint=tmp_path, **options)
    next(iter(sorted(tmp_path.rglob("*.npz")))).unlink()
    resumed = sweep(grid, data(), checkpoint=tmp_path, **options)
    assert without_seconds(resumed.table) == without_seconds(whole.table)


def test_a_sweep_of_bfloat16_features_is_kept(tmp_path):
    batch = data()
    batch = batch._replace(features=batch.features.astype("bfloat16"))
    first, again = (sweep({"l2": [1e-2]}, batch, checkpoint=tmp_path) for _ in range(2))
    assert without_seconds(first.table) == without_seconds(again.table)
