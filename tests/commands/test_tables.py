"""The commands on tables: what they say, and models that know their columns."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from jaxclf.commands.cli import main
from jaxclf.model_file import load_model

RNG = np.random.default_rng(0)
ROWS = 120


def run(*arguments):
    main([str(argument) for argument in arguments])


def write(path, columns):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


@pytest.fixture
def columns():
    size = RNG.normal(size=ROWS)
    colour = RNG.choice(["red", "blue", "?"], ROWS)
    kind = np.where(size + (colour == "red") + 0.3 * RNG.normal(size=ROWS) > 0.5, "=big", "small")
    return {"id": range(ROWS), "size": size, "colour": colour, "kind": kind}


def test_explain_says_what_would_be_done(tmp_path, columns, capsys):
    write(tmp_path / "x.csv", columns)
    run("explain", tmp_path / "x.csv")
    said = capsys.readouterr().out
    assert "The labels are taken from the last column, kind; --label takes another." in said
    assert "it numbers the rows" in said
    assert "2 categories; " in said
    assert "features  float64 (96, 4)" in said
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_a_model_knows_its_columns(tmp_path, columns, capsys):
    write(tmp_path / "x.csv", columns)
    out = tmp_path / "run"
    run("probe", tmp_path / "x.csv", "--grid", "l2=1e-3,1e-1", "--folds", 2, "--out", out)
    plan = load_model(out / "model.npz").plan
    assert plan.label == "kind"
    assert [column.kind for column in plan.columns] == ["left out", "number", "category"]

    def predicted(**changed):
        write(tmp_path / "new.csv", changed)
        options = ("--out", tmp_path / "p.csv", "--overwrite")
        run("predict", out / "model.npz", tmp_path / "new.csv", *options)
        with open(tmp_path / "p.csv", newline="") as file:
            return list(csv.DictReader(file))

    whole = predicted(size=columns["size"], colour=columns["colour"])
    right = [row["class"].lstrip("'") == kind
             for row, kind in zip(whole, columns["kind"], strict=True)]  # fmt: skip
    assert np.mean(right) > 0.85
    shuffled = predicted(colour=columns["colour"], more=range(ROWS), size=columns["size"])
    assert shuffled == whole
    capsys.readouterr()
    predicted(size=["", "1.5", "0"], colour=["green", "", "red"])
    assert "There is no column" not in capsys.readouterr().out
    predicted(size=["1", "1.5"])
    assert "There is no column 'colour': its cells count as missing." in capsys.readouterr().out
    run("evaluate", out / "model.npz", tmp_path / "x.csv", "--split", "all", "--json")
    measured = json.loads(capsys.readouterr().out)
    shares = np.mean(columns["kind"] == "small"), np.mean(columns["kind"] == "=big")
    assert measured["class_shares"]["accuracy"] == pytest.approx(max(shares))
    assert measured["roc_auc"] > 0.85


def test_the_report_answers_first(tmp_path, columns):
    write(tmp_path / "x.csv", columns)
    out = tmp_path / "run"
    run("probe", tmp_path / "x.csv", "--grid", "l2=1e-3,1e-1", "--folds", 2, "--out", out)
    facts = json.loads((out / "metrics.json").read_text())
    rows, right = facts["test"]["rows"], facts["test"]["accuracy"]
    of_classes = facts["classes"]
    assert sum(one["rows"] for one in of_classes) == rows
    assert sum(one["rows"] * one["recall"] for one in of_classes) == pytest.approx(rows * right)
    balanced = np.mean([one["recall"] for one in of_classes])
    assert facts["test"]["balanced_accuracy"] == pytest.approx(balanced)
    report = (out / "report.html").read_text()
    said = f"The classifier names {right:.1%} of {rows} test rows right"
    assert 0 < report.index(said) < report.index("learned from all 96 training rows")


def test_columns_without_names_are_known_by_their_places(tmp_path, columns, capsys):
    def rows(*names):
        return "".join(f"{','.join(map(str, row))}\n" for row in
                       zip(*(columns[name] for name in names), strict=True))  # fmt: skip

    def predicted(text):
        (tmp_path / "new.csv").write_text(text)
        options = ("--out", tmp_path / "p.csv", "--overwrite")
        run("predict", tmp_path / "run" / "model.npz", tmp_path / "new.csv", *options)
        return (tmp_path / "p.csv").read_text()

    (tmp_path / "x.csv").write_text(rows("kind", "size", "colour"))
    options = ("--label", "1", "--grid", "l2=0.1", "--folds", 2, "--out", tmp_path / "run")
    run("probe", tmp_path / "x.csv", *options)
    assert predicted(rows("kind", "size", "colour")) == predicted(rows("size", "colour"))
    with pytest.raises(SystemExit):
        predicted(rows("kind", "size", "colour", "id"))
    assert "expected 2 columns beside the labels, got 4" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predicted("size,colour\n" + rows("size", "colour"))
    assert "its first row has 'size' where the model takes numbers" in capsys.readouterr().err


def test_names_of_classes_are_no_formulas_for_a_spreadsheet(tmp_path, columns):
    write(tmp_path / "x.csv", columns)
    run("probe", tmp_path / "x.csv", "--grid", "l2=0.1", "--folds", 2, "--out", tmp_path / "run")
    model = tmp_path / "run" / "model.npz"
    assert "'=big" in (tmp_path / "run" / "predictions.csv").read_text()
    run("predict", model, tmp_path / "x.csv", "--out", tmp_path / "p.csv")
    run("predict", model, tmp_path / "x.csv", "--out", tmp_path / "raw.csv", "--raw-text")
    assert "p('=big)" in (tmp_path / "p.csv").read_text()
    assert "p(=big)" in (tmp_path / "raw.csv").read_text()


def test_names_of_classes_that_are_hard_to_draw(tmp_path, columns):
    names = np.where(columns["kind"] == "small", "costs $5 and $x", "long\nname " * 300)
    write(tmp_path / "x.csv", columns | {"kind": names})
    run("probe", tmp_path / "x.csv", "--grid", "l2=0.1", "--folds", 2, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "confusion.png").stat().st_size < 200_000


def test_the_defaults_reach_a_plateau(tmp_path, capsys):
    run("fit", "iris", "--verbose", 0, "--out", tmp_path / "run")
    said = capsys.readouterr().out
    accuracy = float(said.split("accuracy")[1].split()[0])
    assert accuracy > 0.9
    run("fit", "iris", "--verbose", 0, "--epochs", 10, "--out", tmp_path / "short")
    assert "more --epochs may lower it further" in capsys.readouterr().out


def test_version_and_list(capsys):
    run("--version")
    run("datasets", "list")
    said = capsys.readouterr().out
    assert said.startswith("jaxclf ")
    assert "parquet:FILE" in said


PEERS = {"titanic": 1.0, "penguins": 0.971, "mushrooms": 1.0, "german_credit": 0.76, "sonar": 0.786}
"""The accuracy of a pipeline of scikit-learn 1.9 on the same test rows: median and indicator,
standardised; the most frequent category, one-hot; LogisticRegressionCV over 17 strengths and 5
folds by log loss."""


@pytest.mark.parametrize("name", PEERS)
def test_real_tables(tmp_path, name, capsys):
    path = Path(os.environ.get("JAXCLF_DATA", "")) / "tables" / f"{name}.csv"
    if not path.is_file():
        pytest.skip("JAXCLF_DATA has no tables")
    label = ["--label", "survived"] if name == "titanic" else []
    run("probe", path, *label, "--out", tmp_path / "run")
    said = capsys.readouterr().out
    accuracy = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["accuracy"]
    assert ("> 0.999" if 0.9995 <= accuracy < 1 else f"{accuracy:.3g}") in said
    rows = len((tmp_path / "run" / "predictions.csv").read_text().splitlines()) - 1
    error = np.sqrt(PEERS[name] * (1 - PEERS[name]) / rows)
    assert accuracy >= PEERS[name] - error - 1e-3


def test_an_offset_is_a_column_by_name(tmp_path, columns, capsys):
    """The offset decides; its weight is one, and a prediction needs the column."""
    exposure = 3 * RNG.normal(size=ROWS)
    kind = np.where(exposure + columns["size"] + RNG.logistic(size=ROWS) > 0, "yes", "no")
    table = {"size": columns["size"], "exposure": exposure, "kind": kind}
    write(tmp_path / "x.csv", table)
    options = ("--offset", "exposure", "--epochs", 5, "--out", tmp_path / "run")
    run("fit", tmp_path / "x.csv", *options)
    model = load_model(tmp_path / "run/model.npz")
    place = model.feature_names.index("exposure")
    weights = np.asarray(model.params.weights)[:, place] / model.standardiser.scale[place]
    np.testing.assert_array_equal(weights, [-0.5, 0.5])
    run("predict", tmp_path / "run/model.npz", tmp_path / "x.csv", "--out", tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="") as file:
        found = [row["class"] for row in csv.DictReader(file)]
    assert np.mean(np.array(found) == kind) > 0.8
    capsys.readouterr()
    write(tmp_path / "without.csv", {"size": columns["size"]})
    with pytest.raises(SystemExit):
        run("predict", tmp_path / "run/model.npz", tmp_path / "without.csv")
    assert "it has no column 'exposure'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["probe", "sweep"])
def test_a_chosen_penalty_is_beside_an_offset(command, tmp_path, columns, capsys):
    """The model is that of minimize on the same rows, and its measures are those of `evaluate`."""
    exposure = 3 * RNG.normal(size=ROWS)
    kind = np.where(exposure + columns["size"] + RNG.logistic(size=ROWS) > 0, "yes", "no")
    write(tmp_path / "x.csv", {"size": columns["size"], "exposure": exposure, "kind": kind})
    axes = ["l2=1e-3:1e-1:3"] + (["fold=0,1"] if command == "sweep" else [])
    options = ["--offset", "exposure", "--grid", *axes, "--out", tmp_path / "run"]
    options += ["--temperature"] if command == "probe" else []
    run(command, tmp_path / "x.csv", *options)
    model = load_model(tmp_path / "run/model.npz")
    place = model.feature_names.index("exposure")
    weights = np.asarray(model.params.weights)[:, place] / model.standardiser.scale[place]
    temperature = 1.0
    if command == "probe":
        facts = json.loads((tmp_path / "run/metrics.json").read_text())
        temperature, measured = facts["temperature"], facts["test"]
        assert temperature != 1
    else:
        chosen = json.loads((tmp_path / "run/sweep.json").read_text())["selection"]
        measured = chosen["test"]
    np.testing.assert_allclose(weights, np.array([-0.5, 0.5]) / temperature, rtol=1e-6)
    capsys.readouterr()
    run("evaluate", tmp_path / "run/model.npz", tmp_path / "x.csv", "--json")
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["log_loss"] == pytest.approx(measured["log_loss"], rel=1e-4)
    assert again["accuracy"] > 0.75


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--offset", "weight"), "no column 'weight' for the offset"),
        (("--offset", "size", "--model", "mlp"), "an offset needs the model linear, got mlp"),
    ],
)
def test_an_offset_that_cannot_be_is_refused(tmp_path, columns, capsys, options, said):
    write(tmp_path / "x.csv", columns)
    with pytest.raises(SystemExit):
        run("fit", tmp_path / "x.csv", *options, "--out", tmp_path / "run")
    assert said in capsys.readouterr().err
