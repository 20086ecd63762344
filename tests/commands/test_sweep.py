"""`jaxclf sweep`, as it is typed."""

import json
import re

import pytest

from jaxclf import (
    load_dataset,
)
from jaxclf.commands.cli import main


def test_the_command_writes_a_table_figures_and_a_model(tmp_path, capsys):
    out = tmp_path / "out"
    axes = ["l2=1e-3:1e-1:3", "fold=0,1"]
    main(["sweep", "breast_cancer", "--grid", *axes, "--out", str(out)])
    printed = capsys.readouterr()
    assert "6 fits: 6 converged" in printed.out
    assert "class shares" in printed.out
    assert "lane" not in printed.out.replace(str(tmp_path), "") + printed.err
    assert {"table.csv", "sweep.json", "model.npz", "path.png", "seconds.png", "report.html"} <= {
        path.name for path in out.iterdir()
    }
    words = re.sub(r"<[^>]*>", " ", (out / "report.html").read_text().partition("<body>")[2])
    assert "lane" not in words
    for part in ("from 3 configurations by log loss on 2 folds", "test rows right",
                 "class shares", "The best configurations"):  # fmt: skip
        assert part in words
    assert (out / "report.html").read_text().count("data:image/png") == 2
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
    assert (tmp_path / "report.html").read_text().count("data:image/png") == 2
    row = json.loads((tmp_path / "sweep.json").read_text())["fits"][0]
    assert len(row["curves"]["log_loss"]) == 2


def test_the_command_needs_no_rows_to_choose_by(tmp_path):
    out = tmp_path / "out"
    main(["sweep", "iris", "--grid", "l2=1e-3,1e-2", "--out", str(out)])
    assert len((out / "table.csv").read_text().splitlines()) == 3
    assert "selection" not in json.loads((out / "sweep.json").read_text())
    assert not (out / "model.npz").exists()
    assert "No configuration was chosen" in (out / "report.html").read_text()


@pytest.mark.parametrize("axis", ["l2", "l2=", "l2=0:1:3", "l2=1:2", "=1"])
def test_the_command_refuses_what_is_no_axis(axis, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "iris", "--grid", axis, "--out", str(tmp_path / "out")])
    assert "got " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["sweep", "probe"])
def test_the_help_speaks_of_fits_and_configurations(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "lane" not in capsys.readouterr().out
