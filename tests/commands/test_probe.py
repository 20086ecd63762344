"""`jaxclf probe` and `jaxclf predict`, as they are typed."""

import csv
import json
import re

import numpy as np
import pytest

from jaxclf.commands.cli import main
from jaxclf.data import load_dataset
from jaxclf.model_file import load_model


def run(*arguments):
    main([str(argument) for argument in arguments])


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    return message


def test_nothing_but_the_data_gives_model_report_and_predictions(tmp_path, capsys):
    run("probe", "iris", "--out", tmp_path)
    printed = capsys.readouterr()
    assert "chosen" in printed.out
    assert "on 30 test rows" in printed.out
    assert "class shares" in printed.out
    assert "lane" not in printed.out.replace(str(tmp_path), "") + printed.err
    facts = json.loads((tmp_path / "metrics.json").read_text())
    assert facts["test"]["accuracy"] > 0.85
    assert facts["temperature"] == 1
    table = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert len(table) == 17 * 5
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    right = np.mean([row["label"] == row["class"] for row in rows])
    assert right == pytest.approx(facts["test"]["accuracy"])
    page = (tmp_path / "report.html").read_text()
    assert "Linear probe of iris" in page
    assert page.count("data:image/png") == 5
    for name in ("confusion", "calibration", "coefficients", "path", "seconds"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    words = re.sub(r"<[^>]*>", " ", page.partition("<body>")[2])
    assert "lane" not in words
    order = ["test rows right", "with 95% certainty", "chosen from 17 configurations by log loss",
             "120 training rows", "Which classes are confused", "Are its probabilities right",
             "What it looks at", "How the penalty was chosen"]  # fmt: skip
    places = [words.index(part) for part in order]
    assert places == sorted(places)
    numbers = re.findall(r"\d+\.\d+%?", words.partition("Source of the data")[0])
    digits = [x.replace(".", "").lstrip("0") for x in numbers if not x.endswith("%")]
    assert max(map(len, digits)) == 3
    run("evaluate", tmp_path / "model.npz", "iris", "--json")
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["log_loss"] == pytest.approx(facts["test"]["log_loss"], rel=1e-5)


def test_few_rows_of_each_class_are_fitted_too(tmp_path, capsys):
    options = ("--shots", "1,4", "--tries", 2, "--grid", "l2=1e-3:1:3", "--metric", "f1_macro")
    run("probe", "wine", *options, "--out", tmp_path)
    assert "fits to few rows, on the test rows" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "few_shot.csv").read_text().splitlines()))
    assert [(row["shots"], row["seed"]) for row in rows] == [
        ("1", "0"), ("1", "1"), ("4", "0"), ("4", "1")
    ]  # fmt: skip
    f1 = np.array([float(row["f1_macro"]) for row in rows])
    assert f1[2:].mean() > f1[:2].mean() > 1 / 6
    page = (tmp_path / "report.html").read_text()
    assert "How few rows are enough" in page
    assert (tmp_path / "shots.png").stat().st_size > 5000
    facts = json.loads((tmp_path / "metrics.json").read_text())
    assert facts["class_shares"]["f1_macro"] < f1.min() < facts["test"]["f1_macro"]
    wrong = refused(capsys, "probe", "wine", "--shots", "1,few", "--out", tmp_path / "x")
    assert "shots must be whole numbers, got '1 few'" in wrong
    assert not (tmp_path / "x").exists()


def test_rows_with_several_labels(tmp_path, capsys):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5)) * [1, 10, 1, 1, 1]
    labels = np.stack([X[:, 0] > 0, X[:, 1] > 5, X[:, 2] + rng.normal(size=200) > 0], 1)
    rare = np.arange(200)[:, None] == 3
    y = np.hstack([labels, rare]).astype(int)
    names = np.array(["sky", "=sea", "dog", "rare"])
    np.savez(tmp_path / "x.npz", X=X, y=y, class_names=names)
    run("probe", tmp_path / "x.npz", "--grid", "l2=1e-3,1e-1", "--out", tmp_path / "run")
    said = capsys.readouterr().out
    assert "A row has any number of 4 labels" in said
    assert "Labels with too few rows are left out, 1 of them: 'rare'" in said
    facts = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [one["name"] for one in facts["labels"]] == ["sky", "=sea", "dog"]
    assert facts["labels"][0]["test"]["average_precision"] > 0.95
    assert facts["labels"][2]["test"]["average_precision"] < 0.95
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").read_text().splitlines()))
    assert list(rows[0]) == ["row", "sky", "'=sea", "dog", "p(sky)", "p('=sea)", "p(dog)"]
    found = np.array([[float(row[name]) for name in list(row)[4:]] for row in rows])
    model = load_model(tmp_path / "run" / "model.npz")
    assert model.classes_.tolist() == ["sky", "=sea", "dog"]
    test = load_dataset(f"npz:{tmp_path / 'x.npz'}", split="test")
    np.testing.assert_allclose(model.predict_proba(test.features), found, rtol=1e-3, atol=1e-6)
    assert np.mean(model.predict(X) == y[:, :3]) > 0.85
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The mean average precision over 3 labels" in page
    assert "data:image/png" in page
    message = refused(capsys, "fit", tmp_path / "x.npz", "--out", tmp_path / "fit")
    assert "several labels a row" in message
    message = refused(capsys, "probe", tmp_path / "x.npz", "--shots", 1, "--out", tmp_path / "few")
    assert "shots and temperature are for data of one label a row" in message
    run("datasets", "show", tmp_path / "x.npz")
    assert "sky: " in capsys.readouterr().out


def test_C_is_a_strength_and_temperature_does_not_change_the_classes(tmp_path):
    grid = ("--grid", "C=100:1000:2", "class_weight=none,balanced")
    options = ("digits", *grid, "--validation", "0.5")
    run("probe", *options, "--out", tmp_path / "plain")
    run("probe", *options, "--temperature", "--out", tmp_path / "warm")
    plain, warm = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "warm")
    )
    rows = len(load_dataset("digits", split="train").labels)
    assert any(plain["chosen"]["l2"] == pytest.approx(1 / (C * rows)) for C in (100, 1000))
    assert warm["temperature"] > 1  # a weak penalty is too sure of itself
    assert warm["test"]["accuracy"] == plain["test"]["accuracy"]
    assert warm["test"]["log_loss"] < plain["test"]["log_loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("iris", "--grid", "l1_ratio=0,1"), "an axis of strengths, either C or l2"),
        (("iris", "--grid", "C=1", "l2=1"), "an axis of strengths, either C or l2"),
        (("iris", "--grid", "fold=0,1"), "grid key must be one of C, l2"),
        (("iris", "--folds", "3", "--validation", "0.2"), "not by both"),
        (("iris", "--folds", "1"), "folds must be"),
        (("npy:nowhere",), "nowhere: No such file"),
    ],
)
def test_bad_input_is_one_line_before_any_work(tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert message in refused(capsys, "probe", *arguments, "--out", out)
    assert not out.exists()


def test_predictions_stream_from_files_without_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxclf.data.streams.ROWS_AT_ONCE", 32)
    run("probe", "iris", "--grid", "l2=0.01", "--folds", "2", "--out", tmp_path / "probe")
    model = tmp_path / "probe" / "model.npz"
    data = load_dataset("iris")
    np.save(tmp_path / "x.npy", data.features)
    np.savez(tmp_path / "x.npz", features=data.features)
    with open(tmp_path / "x.csv", "w") as file:
        writer = csv.writer(file)
        # Other columns, in another order.
        writer.writerow(["flower", *data.feature_names[::-1]])
        writer.writerows([i, *x[::-1]] for i, x in enumerate(data.features))
    run("predict", model, "iris", "--out", tmp_path / "whole.csv")
    expected = (tmp_path / "whole.csv").read_text()
    assert len(expected.splitlines()) == 151
    for name in ("npy:x.npy", "npz:x.npz", "csv:x.csv"):
        kind, _, file = name.partition(":")
        run(
            "predict",
            model,
            f"{kind}:{tmp_path / file}",
            "--out",
            tmp_path / "p.csv",
            "--overwrite",
        )
        found = (tmp_path / "p.csv").read_text()
        ours, theirs = (list(csv.reader(text.splitlines())) for text in (found, expected))
        assert [row[:2] for row in ours] == [row[:2] for row in theirs], name
        numbers = [np.array([row[2:] for row in rows[1:]], float) for rows in (ours, theirs)]
        assert np.allclose(*numbers, atol=1e-5)
    (tmp_path / "y.csv").write_text("a,b\n1,2\n")
    message = refused(
        capsys, "predict", model, f"csv:{tmp_path / 'y.csv'}", "--out", tmp_path / "q"
    )
    assert "it has none of the model's columns, 'sepal length (cm)', " in message
    (tmp_path / "z.csv").write_text(",".join(data.feature_names) + "\n")
    message = refused(
        capsys, "predict", model, f"csv:{tmp_path / 'z.csv'}", "--out", tmp_path / "q"
    )
    assert "expected at least one row" in message
    assert not (tmp_path / "q").exists()
