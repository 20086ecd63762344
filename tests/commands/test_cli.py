"""The `jaxclf` command end to end, and the experiments of minibatch training."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxclf import compilation_cache
from jaxclf.commands import cli
from jaxclf.commands.cli import main
from tests.data.test_files import write_folder

DATA = os.environ.get("JAXCLF_DATA")


def run(*arguments):
    main([str(a) for a in arguments])


def test_fit_evaluate_and_predict(tmp_path, capsys):
    out = tmp_path / "run"
    fit = ["fit", "iris", "--epochs", 30, "--batch-size", 16, "--validation", 0.2, "--out", out]
    run(*fit, "--verbose", 0, "--tensorboard")
    printed = capsys.readouterr().out
    assert "completed; on 30 test rows" in printed
    measured = json.loads((out / "metrics.json").read_text())
    assert measured["test"]["accuracy"] > 0.8
    assert measured["recipe"]["dataset"] == "iris"
    assert len((out / "history.jsonl").read_text().splitlines()) == 30
    assert list((out / "tensorboard").iterdir())

    run("evaluate", out / "model.npz", "iris", "--json")
    again = json.loads(capsys.readouterr().out)
    assert again.pop("class_shares")["accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert again == {
        k: v for k, v in measured["test"].items() if k not in ("sha256", "class_shares")
    }

    run("predict", out / "model.npz", "iris", "--out", tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 150
    sums = [sum(float(v) for k, v in row.items() if k.startswith("p(")) for row in rows]
    np.testing.assert_allclose(sums, 1, atol=1e-4)
    assert {row["class"] for row in rows} == {"setosa", "versicolor", "virginica"}

    before = (out / "model.npz").read_bytes()
    run(*fit, "--verbose", 0)  # taken up where it ended: nothing is trained
    assert (out / "model.npz").read_bytes() == before


def test_networks_early_stopping_and_balance_from_the_command_line(tmp_path, capsys):
    write_folder(tmp_path / "idx", 60, 12)
    run("fit", f"idx:{tmp_path / 'idx'}", "--model", "mlp", "--hidden", 8, "--dropout", 0.2,
        "--optimizer", "adamw", "--l2", 0.01, "--schedule", "cosine", "--balanced",
        "--validation", 0.3, "--patience", 2, "--epochs", 12,
        "--out", tmp_path / "mlp")  # fmt: skip
    captured = capsys.readouterr()
    assert "epoch 1/12" in captured.err  # plain lines, since this is no terminal
    run("datasets", "show", f"idx:{tmp_path / 'idx'}")
    shown = capsys.readouterr().out
    assert "uint8 (72, 3, 4)" in shown
    assert "0: 24, 1: 24, 2: 24" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "mnst"], "dataset must be one of breast_cancer, digits, iris, wine, csv:FILE"),
        (["fit", "idx:/nowhere"], "/nowhere is not a folder"),
        (["fit", "csv:/nowhere.csv"], "/nowhere.csv: No such file or directory"),
        (["fit", "iris", "--model", "convnet"], "needs images (h, w) or (h, w, c)"),
        (
            ["fit", "iris", "--learning-rate", "0"],
            "learning_rate must be finite, above 0, at most 3.40282e+38, got 0",
        ),
        (["fit", "iris", "--optimizer", "adamw"], "adamw is adam with decay: give an l2 above 0"),
        (["fit", "iris", "--dropout", "0.5"], "a linear model has no hidden units to drop"),
        (["fit", "iris", "--patience", "3"], "patience needs rows to judge by"),
        (["fit", "iris", "--platform", "abacus"], "platform must be one of cpu, gpu, tpu"),
        (["fit", "iris", "--seed", "-1"], "seed must be at least 0, got -1"),
        (
            ["fit", "iris", "--devices", "none"],
            "devices must be 'all', a number, devices or a mesh",
        ),
        (["fit", "iris", "--devices", "99"], "which are here; got 99"),
        (
            ["fit", "iris", "--process", "1"],
            "coordinator, processes and process need --distributed",
        ),
        (["fit", "tfds:mnist", "--data-dir", "/nowhere"], "tfds:mnist is not prepared"),
        (["evaluate", "none.npz", "iris"], "none.npz: No such file or directory"),
        (["datasets", "show", "iris", "--split", "half"], "split must be one of all, train, test"),
        (["datasets", "prepare", "mnist"], "dataset must be tfds:NAME, got 'mnist'"),
        (["ftt", "iris"], "there is no command jaxclf ftt; did you mean fit?"),
        (["datasets", "lst"], "no command jaxclf datasets lst; did you mean datasets list?"),
        (["nonsense"], "there is no command jaxclf nonsense; see jaxclf --help"),
        (["fit", "iris", "--lerning-rate", "1"], "--lerning-rate; did you mean --learning-rate?"),
        (["fit", "iris", "--verbose", "7"], "--verbose must be one of 0, 1, 2, got '7'"),
        (["explain", "iris", "--seed", "-3"], "seed must be at least 0, got -3"),
        (
            ["explain", "iris", "--seed", str(2**32)],
            "seed must be below 4294967296, got 4294967296",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["datasets"], ["datasets", "-h"]])
def test_the_commands_are_listed(arguments, capsys):
    main(arguments)
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "datasets prepare" in shown
    assert ("  evaluate " in shown) == (arguments[:1] != ["datasets"])


@pytest.mark.parametrize("name", list(cli._COMMANDS))
@pytest.mark.parametrize("width", [80, 120])
def test_the_help_of_each_command_fits_and_speaks_in_words(name, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= width for line in shown.splitlines())
    assert f"usage: jaxclf {name}" in shown
    for word in ("STR", "INT", "FLOAT", "PATH", "None", "False", "(default: )"):
        assert word not in shown
    if name == "predict":
        assert "--out FILE" in shown
        assert "--drop NAME …" in shown
        assert "MODEL DATASET" in shown


@pytest.mark.parametrize("module", ["apply", "datasets", "fit", "sweep"])
def test_what_takes_long_to_import_is_imported_after_the_first_line(module):
    # Each of these takes up to two seconds, before which nothing could be seen.
    code = f"import sys, jaxclf.commands.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow = {"sklearn", "matplotlib", "pandas", "pyarrow", "tensorflow_datasets"}
    assert slow & set(done.stdout.split()) == set()


def test_a_terminal_sees_at_once_what_is_read(tmp_path, monkeypatch, capsys):
    main(["explain", "iris"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    main(["explain", "iris"])
    assert capsys.readouterr().err == "reading iris\n"


def test_an_interrupted_command_leaves_one_line(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(compilation_cache, "use_compilation_cache", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(["explain", "iris"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("arguments", [["datasets", "list"], ["fit", "--help"]])
def test_a_reader_that_goes_away_leaves_no_traceback(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "jaxclf", *arguments]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert ended.stderr == ""
    assert ended.returncode == 141


def test_rows_that_do_not_fit_are_refused_before_a_file_is_chosen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("fit", "iris", "--epochs", 1, "--verbose", 0, "--out", "run")
    (tmp_path / "predictions.csv").write_text("mine")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run("predict", "run/model.npz", "wine")
    error = capsys.readouterr().err
    assert "takes examples of shape (4,), wine has (13,)" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.csv", "run"]


def test_a_model_and_a_dataset_that_do_not_fit(tmp_path, capsys):
    run("fit", "iris", "--epochs", 1, "--verbose", 0, "--out", tmp_path)
    for name, message in (
        ("wine", "wine has a class 'class_0' that the model does not know"),
        ("digits", "a class '0' that the model does not know"),
    ):
        with pytest.raises(SystemExit):
            run("evaluate", tmp_path / "model.npz", name)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("predict", tmp_path / "model.npz", "wine", "--out", tmp_path / "p.csv")
    assert "takes examples of shape (4,), wine has (13,)" in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()


def test_another_recipe_gets_a_folder_of_its_own(tmp_path, capsys):
    out = tmp_path / "run"
    run("fit", "iris", "--epochs", 2, "--verbose", 0, "--out", out)
    first = (out / "metrics.json").read_text()
    run("fit", "iris", "--learning-rate", 0.2, "--epochs", 2, "--verbose", 0, "--out", out)
    said = capsys.readouterr()
    assert f"so the results go to {out}-2" in said.err
    assert f"model in {out}-2/model.npz" in said.out
    assert (out / "metrics.json").read_text() == first
    with pytest.raises(SystemExit):
        run("fit", "iris", "--epochs", 1, "--verbose", 0, "--out", out)
    assert "has 2 epochs, more than 1" in capsys.readouterr().err
    run("fit", "iris", "--epochs", 4, "--verbose", 0, "--out", out)
    assert len((out / "history.jsonl").read_text().splitlines()) == 4
    options = ("--learning-rate", 0.2, "--epochs", 3, "--verbose", 0, "--overwrite")
    (out / "checkpoints" / "notes.txt").write_text("mine")
    (out / "history.jsonl").write_text("my history")
    run("fit", "iris", *options, "--out", out)
    assert (out / "checkpoints" / "notes.txt").read_text() == "mine"
    assert (out / "history-1.jsonl").read_text() == "my history"
    assert json.loads((out / "metrics.json").read_text())["recipe"]["learning_rate"] == 0.2
    assert len((out / "history.jsonl").read_text().splitlines()) == 3


def test_nothing_of_the_users_is_replaced(tmp_path, capsys):
    rng = np.random.default_rng(0)
    table = "a,label\n" + "".join(f"{x},{int(x > 0)}\n" for x in rng.normal(size=60))
    for name in ("table.csv", "model.npz", "metrics.json"):
        (tmp_path / name).write_text(table)
    run("probe", tmp_path / "table.csv", "--grid", "l2=0.1", "--folds", 2, "--out", tmp_path)
    run("fit", tmp_path / "table.csv", "--epochs", 1, "--verbose", 0, "--out", tmp_path)
    capsys.readouterr()
    model = f"{tmp_path}-2/model.npz"
    for kept in (tmp_path / "table.csv", model):
        with pytest.raises(SystemExit):
            run("predict", model, tmp_path / "table.csv", "--out", kept, "--overwrite")
        assert "is what the result is made of" in capsys.readouterr().err
    for name in ("table.csv", "model.npz", "metrics.json"):
        assert (tmp_path / name).read_text() == table


def test_columns_are_matched_by_name(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = (x[:, 0] > 0).astype(int)
    for name, columns in (("ab", (0, 1)), ("ba", (1, 0)), ("ac", (0, 1))):
        lines = [f"{x[i, columns[0]]},{x[i, columns[1]]},{y[i]}" for i in range(80)]
        header = f"{name[0]},{name[1]},label"
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    run("fit", f"csv:{tmp_path}/ab.csv", "--epochs", 20, "--verbose", 0, "--out", tmp_path / "run")
    capsys.readouterr()
    measured = []
    for name in ("ab", "ba"):
        model = tmp_path / "run" / "model.npz"
        run("evaluate", model, f"csv:{tmp_path}/{name}.csv", "--split", "all", "--json")
        measured.append(json.loads(capsys.readouterr().out))
    assert measured[0].pop("class_shares") == measured[1].pop("class_shares")
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)
    assert measured[0]["accuracy"] > 0.9
    run("evaluate", model, f"csv:{tmp_path}/ac.csv")
    assert "There is no column 'b': its cells count as missing." in capsys.readouterr().out


def test_pixels_of_another_scale_are_refused(tmp_path, capsys):
    parts = write_folder(tmp_path / "idx", 60, 12)
    run("fit", f"idx:{tmp_path / 'idx'}", "--epochs", 1, "--verbose", 0, "--out", tmp_path / "run")
    images, labels = parts["t10k"]
    np.savez(tmp_path / "f.npz", features=images.astype(float), labels=labels)
    with pytest.raises(SystemExit):
        run("evaluate", tmp_path / "run" / "model.npz", f"npz:{tmp_path}/f.npz", "--split", "all")
    assert "the model takes uint8 pixels" in capsys.readouterr().err
    # NumPy's float64 trains as float32.
    run("fit", f"npz:{tmp_path}/f.npz", "--epochs", 1, "--verbose", 0, "--out", tmp_path / "float")
    assert "completed" in capsys.readouterr().out


def test_divergence_ends_with_one_line(tmp_path):
    with pytest.raises(SystemExit) as stop:
        run("fit", "iris", "--learning-rate", 3e38, "--verbose", 0, "--out", tmp_path)
    assert stop.value.code == "error: the loss became infinite; try a lower learning rate"
    assert not (tmp_path / "model.npz").exists()


@pytest.mark.skipif(not DATA, reason="JAXCLF_DATA names no folder")
def test_mnist_softmax_regression_reaches_92_percent(tmp_path):
    run("fit", f"idx:{DATA}/mnist", "--learning-rate", 0.5, "--verbose", 0, "--out", tmp_path)
    measured = json.loads((tmp_path / "metrics.json").read_text())
    assert measured["test"]["accuracy"] >= 0.92
    assert measured["train"]["rows"] == 60000


@pytest.mark.skipif(not DATA, reason="JAXCLF_DATA names no folder")
def test_real_fashion_images_train_a_network(tmp_path):
    run("fit", f"idx:{DATA}/fashion_mnist_sample", "--model", "convnet", "--optimizer", "adam",
        "--learning-rate", 2e-3, "--batch-size", 32, "--verbose", 0, "--out", tmp_path)  # fmt: skip
    measured = json.loads((tmp_path / "metrics.json").read_text())
    assert measured["test"]["accuracy"] > 0.7
