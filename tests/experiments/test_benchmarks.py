"""The benchmarks against other libraries: all are judged by one optimum, at equal accuracy."""

import json
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import (
    estimators,
    exact,
    exact_groups,
    full_batch,
    inference,
    machine,
    minibatch,
    paths,
    peers,
    sparse,
    sparse_l1,
    sweep,
    works,
)
from jaxclf import load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.models import linear


@pytest.mark.filterwarnings("ignore")  # those of the other libraries
def test_the_minibatch_benchmark_compares_equals(tmp_path):
    with jax.numpy_rank_promotion("allow"):
        minibatch.run(minibatch.Config("digits", repeats=5, out=tmp_path / "b.json"))
    results = json.loads((tmp_path / "b.json").read_text())["results"]
    assert {"jaxclf.fit", "flax.nnx loop"} <= results.keys()
    accuracies = [r["test_accuracy"] for r in results.values()]
    assert min(accuracies) > 0.8


@pytest.mark.parametrize("name", ["iris", "breast_cancer"])
def test_the_benchmark_of_estimators_judges_both_by_the_same_optimum(name):
    facts = estimators.measure(*estimators.embedded(name), 1)
    for library in ("jaxclf", "scikit-learn"):
        assert 0 <= facts[library]["gap"] + 1e-9 < 1e-4
        assert all(value >= 0 for key, value in facts[library].items() if "seconds" in key)


def test_the_benchmark_of_sparse_features_judges_all_by_one_optimum(tmp_path, capsys):
    config = sparse.Config(rows=300, words=500, length=20, classes=3, repeats=2, out=tmp_path / "o")
    sparse.run(config)
    works = json.loads((config.out / "sparse.json").read_text())["works"]
    facts, memory, epoch = works.values()
    assert 0 < memory["peak_bytes"] < 10**9
    assert memory["csr_bytes"] > 8 * facts["numbers"]
    assert all(seconds > 0 for seconds in epoch["seconds"].values())
    assert {"jaxclf, sgd", "jaxclf, adam"} <= epoch["seconds"].keys()
    assert facts["rows, features, classes"] == [300, 500, 3]
    assert 300 * 5 < facts["numbers"] < 300 * 30
    ours, theirs = facts["jaxclf"], facts["newton-cg"]
    assert ours["status"] == "converged"
    assert ours["gap"] <= ours["gap_bound"] + facts["bound of the optimum"] <= 1.1e-5
    assert theirs["reached"]
    assert 0 <= theirs["gap"] <= 1e-5
    assert "text-like" in capsys.readouterr().out


def test_the_benchmark_of_sparse_features_has_a_cross_validation(monkeypatch):
    monkeypatch.setattr(sparse, "STRENGTHS", 2)
    monkeypatch.setattr(sparse, "FOLDS", 2)
    facts = sparse.cross_validations(*works.text_like(60, 40, 8, 2))
    assert facts["by solver"].keys() == {"jaxclf", *sparse.SOLVERS}
    for found in facts["by solver"].values():
        assert found["C"] in (1e-4, 1e4)
        assert found["seconds"] > 0


def test_the_benchmark_of_paths_judges_all_by_one_gap(tmp_path, capsys):
    config = paths.Config("iris", num=3, peers=("scikit-learn",), out=tmp_path / "paths.json")
    paths.run(config)
    works = json.loads(config.out.read_text())["works"]
    assert set(works) == {"L1, even or odd", "group lasso"}
    for facts in works.values():
        assert 0 <= facts["jaxclf"]["gap"] <= facts["jaxclf"]["bound"] <= 1e-5
        assert facts["jaxclf"]["converged"] == 3
    assert works["L1, even or odd"]["scikit-learn"]["gap"] <= 1e-5
    assert "scikit-learn" not in works["group lasso"]  # which has none of a softmax
    assert "group lasso" in capsys.readouterr().out


def test_the_benchmark_of_inference_compares_with_refits(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inference, "EVERY", {"breast_cancer": 29, "digits": 600})
    monkeypatch.setattr(inference, "find_spec", lambda _: None)
    config = inference.Config("iris", draws=20, repeats=1, refitted=(0,), out=tmp_path / "i.json")
    inference.run(config)
    works = json.loads(config.out.read_text())["works"]
    assert set(works["covariances"]["by kind"]) == set(inference.KINDS)
    assert works["refits"]["jaxclf"]["largest bound"] < 1e-12
    for facts in works["rows left out"].values():
        assert facts["without the row"] > facts["on all rows"]
        assert facts["by rows refitted"]["0"]["error"] < 0.02
    assert "rows left out" in capsys.readouterr().out


def test_the_benchmark_of_sparse_features_with_l1_judges_all_by_one_optimum(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sparse_l1, "find_spec", lambda _: None)  # compiling takes numba long
    monkeypatch.setattr(sparse_l1, "STEPS", 6)
    config = sparse_l1.Config(rows=300, words=500, length=20, repeats=1, out=tmp_path / "o")
    sparse_l1.run(config)
    (facts,) = json.loads((config.out / "sparse_l1.json").read_text())["works"].values()
    assert facts["nonzero"] >= 5
    ours, theirs = facts["jaxclf"], facts["liblinear"]
    assert ours["status"] == "converged"
    assert ours["gap"] <= ours["gap_bound"] + facts["bound of the optimum"] <= 1.1e-6
    assert ours["other support"] == 0
    assert theirs["reached"]
    assert facts["path"]["jaxclf"]["statuses"] == ["converged"]
    assert facts["path"]["jaxclf"]["gap"] <= 1.1e-6
    assert "text-like, path" in capsys.readouterr().out


def test_the_full_batch_benchmark_judges_all_by_one_gap(tmp_path, capsys):
    full_batch.run(full_batch.Config(work=("iris",), repeats=1, out=tmp_path))
    found = json.loads((tmp_path / "full_batch.json").read_text())["works"]["iris"]
    assert found["optimum"]["gap_bound"] < 1e-9
    assert abs(found["optimum"]["second solver's value"] - found["optimum"]["value"]) < 1e-8
    installed = filter(peers.is_installed, works.ALL_SMOOTH)
    assert set(found["runs"]) == {"jaxclf.minimize", *installed}
    for points in found["runs"].values():
        assert all(point["gap"] > -1e-9 for point in points)
        assert points[-1]["gap"] < 1e-5
    for point in found["runs"]["jaxclf.minimize"]:
        assert point["gap"] <= max(point["tol"], point["gap_bound"])
    assert (tmp_path / "full_batch.png").exists()
    assert "iris, 150 × 4 × 3" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        full_batch.run(full_batch.Config(work=("softmax",), out=tmp_path / "none"))
    assert "work 'softmax' needs --dataset" in capsys.readouterr().err
    points = [{"seconds": 2.0, "gap": 1e-5}, {"seconds": 1.0, "gap": 1e-3}]
    assert full_batch.seconds_to_gaps(points) == {
        "0.001": 1.0, "0.0001": 2.0, "1e-05": 2.0, "1e-06": None
    }  # fmt: skip


def test_the_benchmark_of_sweeps_judges_by_the_objective(x64):
    data = load_dataset("iris", dtype=np.float64)
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=(3, 5))
    params = linear.LinearParams(*map(jnp.asarray, (coefficients[:, :-1], coefficients[:, -1])))
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.1))
    expected = float(jax.jit(objective)(params, make_batch(data.features, data.labels)))
    found = sweep.value_of(coefficients, data.features, data.labels, 0.1)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("common", [0.0, 2.0**37])
def test_the_reference_keeps_its_digits_where_all_logits_are_large(common):
    """A softmax ignores what they have in common; with it 80 bits would be off by 1e-9."""
    rng = np.random.default_rng(0)
    x, classes = rng.normal(size=(20, 2)), np.eye(3)[rng.integers(0, 3, 20)]
    problem = exact.make_problem(x, classes, np.ones(20), exact.softmax, 0, 0, intercept=True)
    w, b = rng.normal(size=(3, 2)), np.array([0.5, -0.25, 1.0])
    value = exact.value_of(problem, exact.point_of(problem, w, b + common))
    z = x @ w.T + b
    logs = np.log(np.exp(z).sum(1)) - (z * classes).sum(1)
    assert float(value) == pytest.approx(logs.mean(), abs=1e-14)


def test_a_benchmark_starts_anew_without_a_forced_kernel_of_blas(monkeypatch):
    started = []
    monkeypatch.setattr(machine.os, "execve", lambda *call: started.append(call))
    for name in machine.FORCES_A_KERNEL:
        monkeypatch.delenv(name, raising=False)
    machine.let_blas_choose()
    assert not started
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    machine.let_blas_choose()
    [(program, arguments, environment)] = started
    assert program == arguments[0] == sys.executable
    assert arguments[1:] == sys.orig_argv[1:]
    assert "OPENBLAS_CORETYPE" not in environment
    assert environment["PATH"] == os.environ["PATH"]


def test_the_kernels_of_blas_are_named():
    assert any("openblas" in name or "mkl" in name for name in machine.blas())
    assert all("threads" in name for name in machine.blas())


@pytest.mark.parametrize("l1", [0.0, 0.02])
def test_the_reference_of_groups_ends_where_the_conditions_of_a_minimum_hold(l1):
    rng = np.random.default_rng(0)
    x, groups = rng.normal(size=(60, 8)), [([0, 3, 5], 0.05), ([1], 0.2), ([2, 4, 6, 7], 0.03)]
    y = np.eye(3)[rng.integers(0, 3, 60)]
    problem = exact.make_problem(
        x, y, np.ones(60), exact.softmax, l1, 0.01, intercept=True, groups=groups
    )
    zero = np.zeros((3, 8))
    v = exact_groups.minimise(problem, [exact.Point(zero, zero[:, 0])])
    p = np.exp(problem.features @ v.weights.T + v.intercept)
    residuals = (p / p.sum(1, keepdims=True) - y) / 60
    g = residuals.T @ problem.features + 0.01 * v.weights
    np.testing.assert_allclose(residuals.sum(0).astype(float), 0, atol=1e-12)
    held = []
    for columns, strength in groups:
        w, fall = v.weights[:, columns], -g[:, columns]
        shrunk = np.sign(fall) * np.maximum(np.abs(fall) - l1, 0)
        held.append(not w.any())
        if held[-1]:
            assert np.linalg.norm(shrunk.astype(float)) <= strength
            continue
        pull = fall - strength * w / np.linalg.norm(w.astype(float)) - l1 * np.sign(w)
        np.testing.assert_allclose(pull[w != 0].astype(float), 0, atol=1e-10)
        assert (np.abs(fall[w == 0]) <= l1).all()
    assert held == [False, True, False]
