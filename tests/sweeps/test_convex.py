"""Convex lanes are the optima of single problems, in a batch or along paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import (
    losses,
    make_batch,
    make_objective,
    minimize,
    penalties,
    sweep,
)
from jaxclf.data import class_weights
from jaxclf.models import linear
from jaxclf.sweeps import convex
from tests.sweeps.problems import data, start, wide_data


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


@pytest.mark.parametrize("num_classes", [2, 5])
def test_lanes_take_an_offset(num_classes):
    """The same in a batch, along a path and alone; folds choose with it, and it is refitted."""
    batch = data(2) if num_classes == 2 else wide_data()
    outputs = () if num_classes == 2 else (num_classes,)
    offset = 2 * np.random.default_rng(0).normal(size=(len(batch.labels), *outputs))
    batch = batch._replace(offset=offset.astype(np.float32))
    result = sweep({"l2": [1e-2, 1e-1, 0.3, 1.0], "fold": [0, 1]}, batch, tol=1e-6)
    assert any("in one batch" in row["solver"] for row in result.table) == (num_classes == 5)
    loss = losses.bernoulli_nll if num_classes == 2 else losses.categorical_nll
    chosen = result.selection
    begin = jax.tree.map(np.zeros_like, chosen.params)
    objective = make_objective(linear.logits, loss, penalties.l2(chosen.lane["l2"]))
    single = minimize(objective, begin, batch, tol=1e-7)
    assert chosen.facts["objective"] == pytest.approx(single.value, abs=2e-6)
    for row, weights in zip(result.table, result.params.weights, strict=True):
        intercept = np.asarray(result.params.intercept)[result.table.index(row)]
        logits = np.asarray(batch.features) @ weights.T + intercept + batch.offset
        held = row["log_loss"]
        assert np.isfinite(held)
        assert row["status"] == "converged"
        assert logits.shape == batch.offset.shape
    test = batch._replace(offset=None)
    with pytest.raises(TypeError, match="must all have an offset, or none may"):
        sweep({"l2": [1e-2], "fold": [0, 1]}, batch, test=test)
    with pytest.raises(ValueError, match="data offset must have shape"):
        sweep({"l2": [1e-2]}, batch._replace(offset=np.zeros((len(batch.labels), 7))))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_lanes_keep_their_weights_within_bounds(num_classes, tmp_path):
    """The fits are those of minimize within the same bounds, and so is the refit of the choice."""
    batch, bounds = (
        data(num_classes),
        (np.array([0, -0.1, -np.inf, 0.2]), np.array([np.inf, 0.1, 0, 1])),
    )
    grid = {"l2": [1e-1, 0.3], "fold": [0, 1], "l1_ratio": [0.0, 0.5]}
    result = sweep(grid, batch, bounds=bounds, tol=1e-7, checkpoint=tmp_path)
    assert {row["status"] for row in result.table} == {"converged"}
    lower, upper = (np.float32(x) for x in bounds)
    for weights in (*result.params.weights, result.selection.params.weights):
        assert ((weights >= lower) & (weights <= upper)).all()
    loss = losses.bernoulli_nll if num_classes == 2 else losses.categorical_nll
    begin = jax.tree.map(np.zeros_like, result.selection.params)
    chosen = result.selection.lane
    penalty = penalties.elastic_net(
        l1=chosen["l2"] * chosen["l1_ratio"], l2=chosen["l2"] * (1 - chosen["l1_ratio"])
    )
    objective = make_objective(linear.logits, loss, penalty)
    single = minimize(objective, begin, batch, bounds=bounds, tol=1e-7)
    np.testing.assert_allclose(result.selection.params.weights, single.params.weights, atol=1e-3)
    plain = sweep(grid, batch, tol=1e-7, checkpoint=tmp_path)
    assert (plain.params.weights < lower).any()
    with pytest.raises(ValueError, match=r"bounds leave no number between 1\.0 and 0\.0"):
        sweep(grid, batch, bounds=(1, 0))
    with pytest.raises(ValueError, match="a sweep by minibatches takes no bounds"):
        sweep({"l2": [0.1]}, batch, method="minibatch", bounds=bounds)


@pytest.mark.parametrize("method", ["convex", "minibatch"])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_lanes_have_penalty_factors(num_classes, method, tmp_path):
    """The fits are those of minimize with the same factors, and so is the refit of the choice."""
    batch = data(num_classes)
    factors = np.array([0.0, 1.0, 5.0, 1.0])
    if num_classes == 3:
        factors = np.stack([factors, factors[::-1], np.ones(4)])
    grid = {"l2": [1e-1, 0.3], "fold": [0, 1]}
    options = {"method": method, "penalty_factors": factors, "tol": 1e-8, "epochs": 60}
    if method == "minibatch":
        grid |= {"batch_size": [90], "learning_rate": [1.0]}
    result = sweep(grid, batch, **options, checkpoint=tmp_path)
    loss = losses.bernoulli_nll if num_classes == 2 else losses.categorical_nll
    begin = jax.tree.map(np.zeros_like, result.selection.params)
    penalty = penalties.l2(result.selection.lane["l2"], factors=factors)
    single = minimize(make_objective(linear.logits, loss, penalty), begin, batch, tol=1e-8)
    close = 1e-3 if method == "convex" else 0.05
    np.testing.assert_allclose(result.selection.params.weights, single.params.weights, atol=close)
    plain = sweep(grid, batch, **{**options, "penalty_factors": None}, checkpoint=tmp_path)
    assert np.abs(plain.params.weights - result.params.weights).max() > 0.1
    with pytest.raises(ValueError, match=r"penalty factors of shape \(5,\) do not fit"):
        sweep(grid, batch, method=method, penalty_factors=np.ones(5))
    fixed = np.array([np.inf, 1, 1, 1])
    if method == "minibatch":
        with pytest.raises(ValueError, match="takes finite penalty factors"):
            sweep(grid, batch, method=method, penalty_factors=fixed)
    else:
        found = sweep({"l2": [0.1]}, batch, penalty_factors=fixed)
        assert (found.params.weights[..., 0] == 0).all()
        assert found.table[0]["status"] == "converged"
