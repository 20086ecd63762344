"""The commands on a file of sparse features, which stay sparse from the file to the report."""

import csv
import json

import numpy as np
import pytest
import scipy.sparse as sp

from jaxclf import load_dataset, load_model
from jaxclf.commands.cli import main
from tests.data.test_svmlight import written

FIT = ["--epochs", "3", "--verbose", "0"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a file of 80 rows and 40 columns, of which the last is never dense."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = []
    for y in np.arange(80) % 2:
        words = np.sort(rng.choice(np.arange(20 * y, 40), 4, replace=False))
        lines.append(f"{y} " + " ".join(f"{word + 1}:{1 + word % 3}" for word in words))
    written(tmp_path, "\n".join([*lines, "0 41:1"]), "words.svmlight.gz")
    return tmp_path


@pytest.fixture
def never_dense(monkeypatch):
    """There is no memory for features that are made dense, but for a block of eight rows."""
    monkeypatch.setattr("jaxclf.data.dataset.free_host_memory", lambda: 1.0)
    monkeypatch.setattr("jaxclf.solvers.newton_on_host._DENSE_NUMBERS", 8 * 41)
    to_array = sp.csr_array.toarray

    def of_others(matrix, *arguments, **options):
        num_rows, num_columns = matrix.shape
        assert num_columns != 41 or num_rows <= 8, "the features were made dense"
        return to_array(matrix, *arguments, **options)

    monkeypatch.setattr(sp.csr_array, "toarray", of_others)


def test_a_model_is_fitted_judged_and_applied(folder, never_dense, capsys):
    main(["fit", "words.svmlight.gz", *FIT, "--validation", "0.2", "--patience", "2"])
    main(["evaluate", "results/fit/model.npz", "words.svmlight.gz", "--json"])
    text = capsys.readouterr().out
    assert "dense" not in text
    assert json.loads(text[text.index("\n{") :])["rows"] == 17
    main(["predict", "results/fit/model.npz", "words.svmlight.gz", "--out", "p.csv"])
    data = load_dataset("words.svmlight.gz")
    model = load_model("results/fit/model.npz")
    with open("p.csv", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    proba = model.predict_proba(data.features)
    np.testing.assert_allclose([float(row[3]) for row in rows], proba[:, 1], rtol=1e-4)
    assert [row[1] for row in rows] == [str(y) for y in model.predict(data.features)]


def test_predictions_of_a_loaded_model_are_those_of_dense_features(folder):
    main(["fit", "words.svmlight.gz", *FIT])
    features, model = (
        load_dataset("words.svmlight.gz").features,
        load_model("results/fit/model.npz"),
    )
    assert not model.standardiser.mean.any()
    np.testing.assert_allclose(
        model.predict_proba(features), model.predict_proba(features.toarray()), rtol=1e-5
    )


@pytest.mark.parametrize(
    "command",
    [
        ["probe", "words.svmlight.gz", "--grid", "l2=1e-3:1:3", "--folds", "2", "--temperature"],
        ["probe", "words.svmlight.gz", "--grid", "l2=1e-2", "--shots", "2", "--tries", "1"],
        ["sweep", "words.svmlight.gz", "--grid", "l2=1e-3:1:3", "fold=0,1"],
        ["sweep", "words.svmlight.gz", "--method", "minibatch", "--epochs", "2", "--validation",
         "0.2", "--grid", "learning_rate=0.1,1"],
    ],
)  # fmt: skip
def test_sweeps_and_probes_keep_them(folder, never_dense, capsys, command):
    main([*command, "--out", "out"])
    assert "dense" not in capsys.readouterr().out
    report = (folder / "out" / "report.html").read_text("utf-8")
    assert "41 features" in report
    main(["evaluate", "out/model.npz", "words.svmlight.gz", "--json"])
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.5


def test_a_file_may_lack_the_last_columns(folder, capsys):
    main(["fit", "words.svmlight.gz", *FIT])
    for text in ("0 3:1\n1 5:1\n", "0 0:1 1:1\n1 0:2 1:1\n"):  # the second is dense
        written(folder, text, "few.svmlight")
        main(["predict", "results/fit/model.npz", "few.svmlight", "--out", "p.csv", "--overwrite"])
        assert len((folder / "p.csv").read_text().splitlines()) == 3


def test_what_needs_dense_features_is_told(folder, capsys):
    main(["fit", "words.svmlight.gz", *FIT, "--model", "mlp", "--hidden", "4"])
    main(["evaluate", "results/fit/model.npz", "words.svmlight.gz"])
    assert capsys.readouterr().out.count("are made dense") >= 2
    model = load_model("results/fit/model.npz")
    with pytest.raises(TypeError, match="this model takes dense features"):
        model.predict(load_dataset("words.svmlight.gz").features)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 3:1\n1 99:1\n", "the model takes examples of shape (41,), few.svmlight has (99,)"),
        ("0 3:1\n1 5\n", "few.svmlight: line 2: expected COLUMN:NUMBER, got '5'"),
        ("", "few.svmlight: no line has a number"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(folder, capsys, text, message):
    main(["fit", "words.svmlight.gz", *FIT])
    written(folder, text, "few.svmlight")
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "results/fit/model.npz", "few.svmlight", "--out", "p.csv"])
    assert message in str(stopped.value.code) + capsys.readouterr().err
    assert not (folder / "p.csv").exists()
