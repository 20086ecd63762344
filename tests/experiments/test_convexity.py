import errno
import json
import subprocess
import sys

import numpy as np
import pytest

from experiments.convexity import __main__ as convexity
from experiments.convexity import measure, page
from experiments.verify_witness import verify
from jaxclf import load_dataset
from jaxclf.analysis.negative_curvature import most_negative_curvature, risk_hessian


def run(*arguments, cwd="."):
    return subprocess.run(
        [sys.executable, "-m", "experiments.convexity", *arguments],
        capture_output=True, text=True, check=False, cwd=cwd,
    )  # fmt: skip


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    out = tmp_path_factory.mktemp("convexity") / "out"
    process = run("--dataset", "breast_cancer", "iris", "--quick", "--out", str(out))
    assert process.returncode == 0, process.stderr
    return process.stdout, out, json.loads((out / "metrics.json").read_text())["datasets"]


@pytest.mark.parametrize("name", ["breast_cancer", "iris"])
def test_the_claims_hold(outcome, name):
    metrics = outcome[2][name]
    for key, arm in metrics["arms"].items():
        low, high = arm["eigenvalue_bounds"]
        assert min(arm["smallest_eigenvalue"]) >= low - arm["rounding"]
        assert max(arm["largest_eigenvalue"]) <= high + arm["rounding"]
        assert arm["formula_error"] < 1e-12
        if key == "probability":
            assert arm["negative_eigenvalues"] > 0
            assert not arm["convex"]
        else:
            assert arm["negative_eigenvalues"] == 0
            assert max(arm["midpoint_violations"]) == 0
            assert arm["convex"]
    assert 0 < metrics["ridge_needed"] <= metrics["ridge_sufficient"]
    jensen = metrics["jensen"]
    assert jensen["at_middle"] > (jensen["at_start"] + jensen["at_end"]) / 2


def test_it_writes_a_report_the_figures_and_a_table(outcome):
    stdout, out, metrics = outcome
    parts = ("eigenvalues", "slice", "surface", "descent")
    figures = {f"{name}_{part}.png" for name in metrics for part in parts} | {"curvature.png"}
    witnesses = {f"witness_{name}.{kind}" for name in metrics for kind in ("json", "npz")}
    written = figures | witnesses | {"metrics.json", "report.html"}
    assert {p.name for p in out.glob("[!.]*")} == written
    for name in metrics:
        found = verify(out / f"witness_{name}.json")
        claimed = metrics[name]["most_negative_curvature"]
        assert found.curvature[0] == pytest.approx(claimed, abs=1e-9)
    html = (out / "report.html").read_text()
    assert html.count("data:image/png;base64,") == len(figures)
    assert "http" not in html
    assert "not convex" in stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "mnst"], "dataset must be one of"),
        (["--platform", "abacus"], "platform must be one of cpu, gpu, tpu; got 'abacus'"),
        (["--platform", "tpu"], "platform 'tpu' has no device here; available: cpu"),
        (["--out", "/dev/null/results"], "Not a directory"),
        (["--seed", "-1"], "seed must be at least 0, got -1"),
        (["--dataset"], "--dataset: expected at least one value"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message):
    process = run(*arguments)
    assert process.returncode == 2
    assert process.stdout == ""
    assert message in process.stderr
    assert process.stderr.count("\n") == 1


def test_sampled_weights_give_logits_of_the_stated_size():
    problem = measure.prepare(load_dataset("iris"))
    weights = measure.sample_weights(np.random.default_rng(0), problem, (0.5, 4.0), 3)
    logits = np.einsum("nd,smkd->smnk", problem.batch.features, weights)
    np.testing.assert_allclose(
        np.sqrt(np.mean(logits**2, (2, 3))), [[0.5] * 3, [4.0] * 3], rtol=1e-5
    )


def test_the_hunt_finds_more_negative_curvature_than_it_starts_with(x64):
    problem = measure.prepare(load_dataset("iris", dtype=np.float64))
    arm = measure.arms(3)[1]
    start = measure.sample_weights(np.random.default_rng(1), problem, (1.0,), 1)[0, 0]
    rows = problem.batch[:2]
    first = most_negative_curvature(arm.loss, start, *rows, num_steps=0)
    found = most_negative_curvature(arm.loss, start, *rows, num_steps=10)
    assert found.curvature < first.curvature < 0
    hessian = np.asarray(risk_hessian(arm.loss, found.weights, *rows))
    v = found.direction.ravel()
    np.testing.assert_allclose(v @ hessian @ v, found.curvature, rtol=1e-10)
    np.testing.assert_allclose([v @ v, v @ found.other.ravel()], [1, 0], atol=1e-12)


def test_descent_numbers_mean_what_they_say():
    falling = np.linspace(2.0, 0.5, 31)
    flat = np.linspace(2.0, 1.9, 31)
    slow = np.linspace(4.0, 1.1, 31)
    run = measure.Descent(np.array([[falling, flat, slow, flat]]), np.ones((1, 4)), 1.0, 0.1)
    np.testing.assert_array_equal(run.stuck, [0.5])
    np.testing.assert_array_equal(run.steps_to_zero, [np.inf])
    run = run._replace(values=np.array([[falling]]))
    np.testing.assert_array_equal(run.steps_to_zero, [21])


def test_raw_outputs_are_cut_at_one_half_and_the_step_is_one_over_l(x64):
    problem = measure.prepare(load_dataset("breast_cancer", dtype=np.float64))
    arm = measure.arms(2)[2]
    starts = measure.sample_weights(np.random.default_rng(0), problem, (0.1,), 2)
    run = measure.descend(arm, problem, starts, 400)
    np.testing.assert_allclose(run.step_size * 2 * problem.scale, 1)
    assert run.accuracies.min() > 0.95
    assert (np.diff(run.values, axis=-1) <= 0).all()


def test_a_jensen_triple_is_symmetric_about_the_middle():
    distances = np.linspace(-2, 2, 5)
    triple = measure.jensen_triple(distances, np.array([0.0, 3.0, 5.0, 4.0, 1.0]))
    assert triple == (2.0, 0.0, 5.0, 1.0)


def test_a_full_disk_at_the_end_does_not_hide_what_was_measured(tmp_path, monkeypatch, capsys):
    def write(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device", "figure.png")

    monkeypatch.setattr(page, "sections", write)
    with pytest.raises(OSError, match="No space left"):
        convexity.run(convexity.Config(("iris",), out=tmp_path / "out", quick=True))
    assert "iris" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
