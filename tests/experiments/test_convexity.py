import json
import subprocess
import sys

import numpy as np
import pytest

from experiments.convexity import measure
from jaxclf import load_dataset

# One worker, so that the fixture's run is shared.
pytestmark = pytest.mark.xdist_group("convexity")


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
    assert {p.name for p in out.iterdir()} == figures | {"metrics.json", "report.html"}
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
