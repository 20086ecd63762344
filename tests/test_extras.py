"""What a user is told where the packages of an extra are not installed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jaxclf.commands import cli
from jaxclf.extras import COMMAND
from jaxclf.reports.plots import figure
from jaxclf.reports.report import write_report
from jaxclf.training.callbacks import tensorboard_log

ROOT = Path(__file__).parents[1]


def test_the_extra_of_the_command_is_what_the_command_asks_for():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert [requirement.split(">=")[0] for requirement in extras["command"]] == list(COMMAND)


@pytest.mark.parametrize(
    ("package", "call", "message"),
    [
        (
            "matplotlib",
            lambda folder: figure(folder / "a.png").__enter__(),
            r"^a figure needs matplotlib: pip install 'jaxclf\[command\]'$",
        ),
        (
            "jinja2",
            lambda folder: write_report(folder / "a.html", "", [], ""),
            r"^write_report needs jinja2: pip install 'jaxclf\[command\]'$",
        ),
        (
            "tensorboardX",
            lambda folder: tensorboard_log(folder / "a").__enter__(),
            r"^tensorboard_log needs tensorboardX: pip install 'jaxclf\[tensorboard\]'$",
        ),
    ],
)
def test_a_missing_package_is_one_sentence_with_its_extra(
    package, call, message, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", COMMAND)
def test_the_command_asks_for_its_packages_before_it_works(package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", "iris"])
    assert stop.value.code == 2
    expected = f"error: the command jaxclf needs {package}: pip install 'jaxclf[command]'\n"
    assert capsys.readouterr().err == expected


HIDDEN = """
import runpy, sys

sys.modules |= dict.fromkeys(sys.argv[1].split(","))
import jaxclf
from jaxclf.commands import cli

for name in [*jaxclf.__all__, *jaxclf._MODULES]:
    getattr(jaxclf, name)
cli.main(["--version"])
cli.main(["--help"])
sys.argv = ["experiments", "margins"]
runpy.run_module("experiments", run_name="__main__")
"""


def test_the_library_works_without_extras_and_an_experiment_names_its_own():
    hidden = ",".join([*COMMAND, "tensorboardX"])
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, hidden], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "datasets prepare" in done.stdout
    names = ", ".join(COMMAND)
    assert done.stderr == f"error: an experiment needs {names}: pip install 'jaxclf[experiments]'\n"
