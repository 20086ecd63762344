"""Sweeps: every lane is what a single fit gives, and none depends on another."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclf import (
    Batch,
    fit,
    load_dataset,
    losses,
    make_batch,
    make_objective,
    minimize,
    penalties,
    sweep,
)
from jaxclf.commands.cli import main
from jaxclf.data import class_weights, synthetic
from jaxclf.models import linear
from jaxclf.sweeps import convex, rows, selection
from jaxclf.sweeps.grid import lanes_of
from jaxclf.sweeps.selection import Candidate
from jaxclf.sweeps.store import Store
from jaxclf.sweeps.task import Finished


def data(num_classes=3, num_rows=90, dtype=np.float32):
    made = synthetic.gaussian_classes(0, num_rows, 4, num_classes, dtype=dtype)
    return make_batch(made.features, made.labels, num_classes=num_classes)


def wide_data():
    """Parameters enough for lanes in a batch."""
    made = synthetic.gaussian_classes(0, 200, 60, 5, dtype=np.float32)
    return make_batch(made.features, made.labels, num_classes=5)


def start(num_classes=3, dtype=np.float32):
    outputs = None if num_classes == 2 else num_classes
    return linear.init(jax.random.key(0), 4, outputs, stddev=0, dtype=dtype)


def without_seconds(table):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in table]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_convex_lanes_are_the_optima_of_single_problems(num_classes, x64):
    batch = data(num_classes, dtype=np.float64)
    grid = {"l2": [1e-3, 1e-1], "label_smoothing": [0.0, 0.1], "class_weight": [None, "balanced"]}
    result = sweep(grid, batch, tol=1e-13)
    assert result.selection is None
    assert len(result.table) == 8
    loss = losses.bernoulli_nll if num_classes == 2 else losses.categorical_nll
    balanced = jnp.asarray(class_weights(batch.labels, num_classes))
    for row, weights in zip(result.table, result.params.weights, strict=True):
        lane = row["lane"]
        smooth = lambda z, y, e=lane["label_smoothing"]: loss(z, y, smoothing=e)  # noqa: E731
        objective = make_objective(linear.logits, smooth, penalties.l2(lane["l2"]))
        weighted = batch._replace(weights=balanced if lane["class_weight"] else None)
        single = minimize(objective, start(num_classes, np.float64), weighted, tol=1e-13)
        assert row["status"] == "converged"
        assert row["objective"] == pytest.approx(single.value, abs=1e-8)
        np.testing.assert_allclose(weights, single.params.weights, atol=1e-5)
        assert 0 <= row["gap_bound"] < 1e-8


def test_lanes_in_a_batch_are_what_paths_give(monkeypatch):
    batch = wide_data()
    grid = {"l2": [0.0, 1e-3, 1e-2, 1e-1], "class_weight": [None, "balanced"], "l1_ratio": [0, 0.5]}
    grid |= {"fold": [0, 1]}
    together = sweep(grid, batch, tol=1e-6, rule="one_standard_error")
    monkeypatch.setattr(convex, "most_lanes", lambda *size: 1)
    alone = sweep(grid, batch, tol=1e-6, rule="one_standard_error")
    for mine, other in zip(together.table, alone.table, strict=True):
        smooth = mine["lane"]["l2"] > 0 and mine["lane"]["l1_ratio"] == 0
        assert ("in one batch" in mine["solver"]) == smooth
        assert "in one batch" not in other["solver"]
        assert mine["status"] == other["status"]
        if smooth:
            assert mine["gap_bound"] < 1e-4
            assert mine["objective"] == pytest.approx(other["objective"], abs=2e-6)
            assert mine["log_loss"] == pytest.approx(other["log_loss"], abs=1e-2)
    assert together.selection.lane == alone.selection.lane


@pytest.mark.parametrize("scale", [1e-6, 1e7])
def test_features_of_very_different_scales_are_not_left_out_in_a_batch(scale):
    batch, grid = wide_data(), {"l2": [1e-4, 1e-3, 1e-2, 1e-1]}
    scales = np.where(np.arange(60) < 15, scale, 1).astype(np.float32)
    batch = batch._replace(features=batch.features * scales[None])
    for row in sweep(grid, batch, tol=1e-5).table:
        objective = make_objective(
            linear.logits, losses.categorical_nll, penalties.l2(row["lane"]["l2"])
        )
        zero = linear.init(jax.random.key(0), 60, 5, stddev=0)
        alone = minimize(objective, zero, batch, tol=1e-7)
        assert row["objective"] == pytest.approx(alone.value, abs=5e-5)


@pytest.mark.parametrize("kind", ["constant", "tiny", "wide"])
def test_features_without_coordinates_of_their_own_are_solved_along_paths(kind):
    rng = np.random.default_rng(0)
    features = {
        "constant": np.ones((60, 60)),
        "tiny": 1e-22 * rng.normal(size=(60, 60)),
        "wide": rng.normal(size=(20, 3000)),
    }[kind].astype(np.float32)
    labels = np.arange(len(features)) % 5
    result = sweep({"l2": [1e-3, 1e-2, 1e-1, 1.0]}, make_batch(features, labels), tol=1e-5)
    assert {row["status"] for row in result.table} <= {"converged", "precision_floor"}
    assert ("in one batch" in result.table[0]["solver"]) == (kind == "wide")


def test_features_that_are_not_finite_are_named():
    batch = wide_data()
    broken = batch._replace(features=batch.features.at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="features must be finite"):
        sweep({"l2": [1e-3, 1e-2, 1e-1, 1.0]}, broken)


def test_squares_are_solved_in_a_batch_however_few_products_they_take():
    grid = {"l2": [1e-3, 1e-2, 1e-1, 1.0], "loss": ["onehot_squared_error"]}
    result = sweep(grid, wide_data(), tol=1e-5)
    assert all("in one batch" in row["solver"] for row in result.table)
    assert {row["status"] for row in result.table} == {"converged"}


def test_what_does_not_converge_in_a_batch_is_solved_alone(monkeypatch):
    grid = {"l2": [1e-3, 1e-2, 1e-1, 1.0]}
    steps = sweep(grid, wide_data(), max_steps=1, tol=1e-9)
    assert {row["status"] for row in steps.table} == {"max_steps"}
    solve = convex.batched_newton

    def lost(*args, **options):
        found, kept = solve(*args, **options), np.array([1, 0, 1, 1])
        params = jax.tree.map(lambda x: x * kept.reshape(-1, *[1] * (x.ndim - 1)), found.params)
        return found._replace(params=params)

    monkeypatch.setattr(convex, "batched_newton", lost)
    result = sweep(grid, wide_data(), tol=1e-6)
    assert ["in one batch" in row["solver"] for row in result.table] == [True, True, False, True]
    assert {row["status"] for row in result.table} == {"converged"}


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


def test_a_convex_lane_that_fails_is_no_start_for_the_next(monkeypatch):
    batch, grid = data(), {"l2": [1e-1, 1e-2, 1e-3]}
    solve = convex.minimize

    def failing(objective, params, batch, **options):
        result = solve(objective, params, batch, **options)
        if objective.penalty.l2 == 1e-2:
            broken = jax.tree.map(lambda x: x * jnp.nan, result.params)
            result = result._replace(status="nonfinite", params=broken)
        return result

    alone = sweep({"l2": [1e-1, 1e-3]}, batch)
    monkeypatch.setattr(convex, "minimize", failing)
    poisoned = sweep(grid, batch)
    assert poisoned.table[1]["status"] == "nonfinite"
    np.testing.assert_array_equal(poisoned.params.weights[[0, 2]], alone.params.weights)


@pytest.mark.parametrize("method", ["convex", "minibatch"])
def test_losses_are_groups_of_their_own(method):
    names = ["log_loss", "onehot_squared_error"]
    result = sweep({"loss": names, "l2": [0.1]}, data(), method=method, tol=1e-7)
    for row in result.table:
        alone = sweep([{"loss": row["lane"]["loss"], "l2": 0.1}], data(), method=method, tol=1e-7)
        assert row["objective"] == pytest.approx(alone.table[0]["objective"], rel=1e-6)
    assert result.table[0]["objective"] != pytest.approx(result.table[1]["objective"], rel=1e-2)


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
    with pytest.raises(ValueError, match="no lane of the sweep ended well"):
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


@pytest.mark.parametrize(
    ("grid", "options", "sentence"),
    [
        ({"l3": [1]}, {}, "grid key must be one of l2, .* got 'l3'"),
        ({"learning_rate": [1]}, {}, "grid key must be one of"),
        ({"l2": []}, {}, "axis 'l2' of the grid is empty"),
        ({"l2": [1, -1]}, {}, "l2 must be finite, at least 0, got -1"),
        ({"l2": [1, 1.0]}, {}, "the grid has the same lane twice"),
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
        ({"l2": [1]}, {"halve_every": 1}, "halve_every drops minibatch lanes"),
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


def test_the_command_writes_a_table_figures_and_a_model(tmp_path, capsys):
    out = tmp_path / "out"
    axes = ["l2=1e-3:1e-1:3", "fold=0,1"]
    main(["sweep", "breast_cancer", "--grid", *axes, "--out", str(out)])
    printed = capsys.readouterr().out
    assert "6 lanes: 6 converged" in printed
    assert {"table.csv", "sweep.json", "model.npz", "path.png", "seconds.png"} <= {
        path.name for path in out.iterdir()
    }
    lines = (out / "table.csv").read_text().splitlines()
    assert lines[0].startswith("l2,fold,status,log_loss,accuracy")
    assert len(lines) == 7
    found = json.loads((out / "sweep.json").read_text())["selection"]
    main(["evaluate", str(out / "model.npz"), "breast_cancer", "--json"])
    measured = json.loads(capsys.readouterr().out)
    assert measured["log_loss"] == pytest.approx(found["test"]["log_loss"], rel=1e-5)
    assert load_dataset("breast_cancer", split="test").labels.size == measured["rows"]


def test_the_command_draws_learning_rates_against_penalties(tmp_path):
    axes = ["l2=0,1e-2", "learning_rate=0.01,0.1"]
    main(["sweep", "iris", "--grid", *axes, "--method", "minibatch", "--validation", "0.2",
          "--epochs", "2", "--out", str(tmp_path)])  # fmt: skip
    assert (tmp_path / "heat.png").stat().st_size > 1000
    row = json.loads((tmp_path / "sweep.json").read_text())["lanes"][0]
    assert len(row["curves"]["log_loss"]) == 2


@pytest.mark.parametrize("axis", ["l2", "l2=", "l2=0:1:3", "l2=1:2", "=1"])
def test_the_command_refuses_what_is_no_axis(axis, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "iris", "--grid", axis, "--out", str(tmp_path / "out")])
    assert "got " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
