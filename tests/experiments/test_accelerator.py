"""The command for accelerators, tried on a CPU, where it runs every part on smaller sizes."""

import json
import subprocess
import sys

import pytest

from experiments.benchmarks.accelerator import isolated
from experiments.benchmarks.accelerator.__main__ import NAMES, main

_MISSING = ("tyro", "tensorflow_datasets", "grain", "orbax", "platformdirs")
_HIDDEN = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {_MISSING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
import jaxclf
for name in jaxclf.__all__:
    getattr(jaxclf, name)
import experiments.benchmarks.accelerator.__main__
import tests.conftest
import tests.test_accelerator
"""


def test_every_part_runs_on_a_cpu(tmp_path, capsys):
    parts = [name for name in NAMES if name != "tests"]
    main(["--platform", "cpu", "--minutes", "9", "--out", str(tmp_path), "--parts", *parts])
    found = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert list(found) == parts
    assert {part["ended"] for part in found.values()} == {"complete"}
    assert all(part["found"] for part in found.values())
    assert found["devices"]["found"][0]["work"] == "probe on 2"
    assert found["probe"]["found"][0]["status"] == "converged"
    assert (tmp_path / "accelerator.png").stat().st_size > 10_000
    assert "MNIST, C = 1" in capsys.readouterr().out


def test_a_part_that_takes_too_long_ends_alone():
    facts = {}
    assert list(isolated.part("device", "cpu", None, limit=0.01, facts=facts)) == []
    assert facts["ended"] == "its 0 s were over"


def test_a_part_that_fails_says_why():
    facts = {}
    assert list(isolated.part("mnist", "cpu", "no:such", limit=60, facts=facts)) == []
    assert facts["ended"].startswith("ValueError")


def test_it_needs_few_packages():
    command = [sys.executable, "-c", _HIDDEN]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--minutes", "0"], "--minutes must be above 0, got 0"),
        (["--parts", "all"], "invalid choice: 'all'"),
    ],
)
def test_options_are_checked(arguments, said, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err
