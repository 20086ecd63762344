"""The command line that experiments share: an interrupt, a closed pipe, and other errors."""

import errno
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments import __main__ as experiments
from experiments import cli


@dataclass(frozen=True)
class Config:
    """An experiment."""

    seed: int = 0
    """The seed."""
    out: Path = Path("results")
    """The folder."""


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "--seed", "3"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return cli.parse(Config, "benchmarks.x")


def test_options_become_the_config(parsed):
    assert parsed == Config(3, Path("results"))


def test_an_option_that_is_not_known_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--sede", "3"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as stop:
        cli.parse(Config, "benchmarks.x")
    assert stop.value.code == 2
    said = "error: python -m experiments.benchmarks.x has no option --sede; did you mean --seed?\n"
    assert capsys.readouterr().err == said


def test_an_interrupt_and_a_full_disk_leave_one_line_and_an_error_its_traceback(parsed, capsys):
    error = KeyboardInterrupt()
    with pytest.raises(SystemExit) as stop:
        sys.excepthook(KeyboardInterrupt, error, None)
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
    full = OSError(errno.ENOSPC, "No space left on device", "figure.png")
    with pytest.raises(SystemExit) as stop:
        sys.excepthook(OSError, full, None)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: figure.png: No space left on device\n"
    sys.excepthook(ZeroDivisionError, ZeroDivisionError("by zero"), None)
    assert "ZeroDivisionError: by zero" in capsys.readouterr().err


def test_an_experiment_that_is_not_known_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as stop:
        experiments.main(["verdcts"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: no experiment 'verdcts'; did you mean verdicts?\n"


def test_a_reader_that_goes_away_leaves_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "experiments"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert ended.stderr == ""
    assert ended.returncode == 141
