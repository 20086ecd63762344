"""The count of local minima of a single neuron."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments.local_minima import LOSSES, count, minima


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("inputs", "spacing"), [(1, 10.0), (3, 10.0)])
def test_squared_error_has_as_many_minima_as_inputs_and_log_loss_one(inputs, spacing, hard):
    lowest = minima(count(LOSSES["squared error"], inputs, spacing, hard=hard))
    assert len(lowest) == inputs
    near = np.sort(np.log(3) / spacing ** np.arange(inputs))
    np.testing.assert_allclose(np.log(lowest), np.log(near), atol=0.3)
    assert len(minima(count(LOSSES["log loss"], inputs, spacing, hard=hard))) == 1


def test_close_inputs_share_a_minimum():
    assert len(minima(count(LOSSES["squared error"], 3, 2.0))) == 1


def test_the_experiment_agrees_with_its_claims(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.local_minima", "--quick", "--inputs", "3",
         "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "metrics.json").read_text())["found"]["local_minima"]
    assert all(claim["agree"] for claim in facts["claims"])
    measured = {claim["claim"]: claim["measured"] for claim in facts["claims"]}
    assert measured["minima of squared error, 2 weights"] == "9"
    assert measured["minima of log loss, 2 weights"] == "1"
    low, high = facts["minima merge at a spacing between"]["2"]
    assert 1.5 < low < high < 20
    assert (tmp_path / "report.html").read_text().count("data:image/png") == 2


def test_bad_input_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.local_minima", "--spacing", "1", "--out",
         str(tmp_path / "x")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "spacing above 1" in done.stderr
    assert not (tmp_path / "x").exists()
