"""What `load_model(path).predict(X)` takes, of a classifier that a command trained."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from jaxclf import load_dataset, load_model, save_model
from jaxclf.commands.cli import main
from jaxclf.commands.evaluation import predict_logits
from jaxclf.commands.recipe import Recipe, prepare
from jaxclf.estimators.exchange import to_estimator, to_sklearn

CELLS = {
    "age": ["31", "", "54", "20"] * 10,
    "town": ["Bonn", "Ulm", "Ulm", "Bonn"] * 10,
    "id": [str(i) for i in range(40)],
    "kind": ["x", "y", "y", "x"] * 10,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    pd.DataFrame(CELLS).to_csv(folder / "t.csv", index=False)
    trained = prepare(Recipe(f"csv:{folder / 't.csv'}", epochs=3))()
    save_model(folder / "m.npz", trained.classifier)
    return load_model(folder / "m.npz")


class PolarsFrame:
    """The part of polars.DataFrame that is used."""

    def __init__(self, cells):
        self.cells, self.columns = cells, list(cells)

    def __arrow_c_stream__(self, requested_schema=None):
        return pa.table(self.cells).__arrow_c_stream__(requested_schema)


ROWS = {"town": ["Ulm", "Bonn", None], "age": [54.0, 31.0, np.nan], "more": ["a", "b", "c"]}


def test_the_model_knows_its_labels(model):
    assert model.plan.label == "kind"
    assert model.class_names == ("x", "y")


@pytest.mark.parametrize("kind", [dict, pd.DataFrame, pa.table, PolarsFrame])
def test_tables_in_any_order_are_predicted(model, kind):
    names = model.predict(kind(ROWS))
    assert names[:2].tolist() == ["y", "x"]
    given = model.predict_proba(kind(ROWS))
    assert given.shape == (3, 2)
    np.testing.assert_allclose(given.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(given, model.predict_proba(ROWS))


def test_what_counts_as_missing_is_said(model):
    with pytest.warns(UserWarning, match="There is no column 'age': its cells count as missing"):
        model.predict({"town": ["Ulm"]})
    with pytest.warns(UserWarning, match="count as missing: 'age' has 'old'"):
        found = model.predict_proba({"town": ["Ulm"], "age": ["old"]})
    np.testing.assert_array_equal(found, model.predict_proba({"town": ["Ulm"], "age": [None]}))
    with pytest.warns(UserWarning, match="count as missing: 'town' has 'Kiel'"):
        found = model.predict_proba({"town": ["Kiel"], "age": [31]})
    np.testing.assert_array_equal(found, model.predict_proba({"town": [None], "age": [31]}))
    with pytest.warns(UserWarning, match="count as missing: 'age' has 'inf'"):
        model.predict({"town": ["Ulm"], "age": [np.inf]})
    with pytest.raises(ValueError, match="X: it has none of the model's columns, 'age', 'town'"):
        model.predict({"city": ["Ulm"]})


def test_features_that_are_encoded_already_are_taken_as_they_are(model):
    width = len(model.feature_names)
    assert model.predict(np.zeros((3, width))).shape == (3,)
    with pytest.raises(ValueError, match=rf"of shape \({width},\), X has \(1,\)"):
        model.predict(np.zeros((3, 1)))


def test_a_model_without_a_plan_takes_columns_by_their_names(tmp_path):
    trained = prepare(Recipe("iris", epochs=3))()
    data = load_dataset("iris")
    frame = pd.DataFrame(data.features.astype(np.float64), columns=list(data.feature_names))
    expected = jax.nn.softmax(predict_logits(trained.classifier, data))
    shuffled = frame[frame.columns[::-1]]
    for X in (frame, shuffled, data.features, dict(frame)):
        np.testing.assert_allclose(trained.classifier.predict_proba(X), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"X has no column 'sepal width \(cm\)'"):
        trained.classifier.predict(frame.drop(columns="sepal width (cm)"))


@pytest.mark.parametrize(
    ("labels", "kind"), [([3, 10] * 20, "i"), ([True, False] * 20, "b"), (["03", "10"] * 20, "U")]
)
def test_labels_come_back_as_they_were_given(tmp_path, labels, kind):
    X = np.random.default_rng(0).normal(size=(40, 2)) + np.arange(40)[:, None] % 2 * 9
    np.savez(tmp_path / "x.npz", X=X, y=np.array(labels))
    trained = prepare(Recipe(f"npz:{tmp_path / 'x.npz'}", epochs=40))()
    predicted = trained.classifier.predict(X)
    assert predicted.dtype.kind == kind
    assert np.mean(predicted == np.array(labels)) == 1


def test_tables_that_cannot_be_read_are_one_sentence(model):
    frame = pd.DataFrame([[31, "Ulm", 40]], columns=["age", "town", "age"])
    for X, message in (
        (frame, "X has two columns with the name 'age'"),
        ({"age": [1, 2], "town": ["Ulm"]}, "X cannot be read as a table"),
        ({"age": 31, "town": "Ulm"}, "X cannot be read as a table"),
        ({"age": [1j], "town": ["Ulm"]}, "X cannot be read as a table"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(X)


OFFSET = 1_700_000_000


@pytest.mark.parametrize("dtype", [np.int64, np.float64, ">f8", np.uint32, np.int32])
@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_numbers_that_float32_does_not_hold_are_standardised_first(tmp_path, dtype, model):
    """Seconds since 1970, which differ by a day within a class and by ten between classes."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = (OFFSET + 5 * y[:, None] + rng.integers(0, 3, (200, 2))).astype(dtype)
    assert len(np.unique(X.astype(np.float32))) == 1
    np.savez(tmp_path / "x.npz", X=X, y=y)
    recipe = Recipe(f"npz:{tmp_path / 'x.npz'}", model=model, hidden=(8,), epochs=60)
    trained = prepare(recipe)().classifier
    save_model(tmp_path / "m.npz", trained)
    loaded = load_model(tmp_path / "m.npz")
    assert np.mean(loaded.predict(X) == y) == 1
    assert np.mean(loaded.predict(X.tolist()) == y) == 1
    if np.dtype(dtype) == np.float64:
        main(["predict", str(tmp_path / "m.npz"), f"npz:{tmp_path / 'x.npz'}",
              "--out", str(tmp_path / "p.csv")])  # fmt: skip
        assert (pd.read_csv(tmp_path / "p.csv")["class"] == y).all()


def test_a_table_keeps_the_digits_of_its_columns(tmp_path):
    seconds = OFFSET + 0.5 * np.arange(200)
    frame = pd.DataFrame({"at": seconds, "kind": np.where(np.arange(200) < 100, "a", "b")})
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "t.csv", index=False)
    main(["probe", str(tmp_path / "t.csv"), "--grid", "l2=1e-6", "--out", str(tmp_path / "run")])
    model = load_model(tmp_path / "run" / "model.npz")
    assert np.mean(model.predict(frame[["at"]]) == frame["kind"]) > 0.98


def offset_rows():
    """Rows whose columns have large means and small deviations, and classes that depend on them."""
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(300, 4))
    scores = Z @ rng.normal(size=(4, 3)) + 0.5 * rng.gumbel(size=(300, 3))
    return Z * [10, 1e5, 1e-3, 1] + [1e9, 1.7e12, 0, 0], scores.argmax(1), scores > 0


def probabilities_in(path) -> np.ndarray:
    found = pd.read_csv(path)
    return found[[name for name in found if name.startswith("p(")]].to_numpy()


def test_models_for_other_libraries_have_the_same_probabilities(tmp_path):
    X, y, several = offset_rows()
    np.savez(tmp_path / "one.npz", X=X, y=y)
    np.savez(tmp_path / "several.npz", X=X, y=several.astype(int))
    options = ["--grid", "C=1", "--folds", "2"]
    for name in ("one", "several"):
        main(["probe", str(tmp_path / f"{name}.npz"), *options, "--out", str(tmp_path / name)])
    test = load_dataset(f"npz:{tmp_path / 'one.npz'}", split="test").features
    model = load_model(tmp_path / "one" / "model.npz")
    expected = model.predict_proba(test)
    saved = probabilities_in(tmp_path / "one" / "predictions.csv")
    np.testing.assert_allclose(expected, saved, atol=1e-5)
    for exported in (to_estimator(model), to_sklearn(model)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the names of columns
            np.testing.assert_allclose(exported.predict_proba(test), expected, atol=1e-5)
    with jax.enable_x64(True):
        wide = jnp.asarray(test)
    np.testing.assert_allclose(model.predict_proba(wide), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(pd.DataFrame(test)), expected, atol=1e-6)
    of_labels = load_model(tmp_path / "several" / "model.npz")
    test = load_dataset(f"npz:{tmp_path / 'several.npz'}", split="test").features
    saved = probabilities_in(tmp_path / "several" / "predictions.csv")
    np.testing.assert_allclose(of_labels.predict_proba(test), saved, atol=1e-5)


def test_a_model_that_was_trained_on_narrow_features_narrows_first():
    """Its standardiser is float32, as are those of older model files."""
    trained = prepare(Recipe("iris", epochs=3))().classifier
    assert trained.standardiser.mean.dtype == np.float32
    X = load_dataset("iris").features
    np.testing.assert_array_equal(
        trained.predict_proba(X.astype(np.float64)), trained.predict_proba(X)
    )


def test_names_and_the_order_of_memory_of_an_archive(tmp_path):
    X, y, _ = offset_rows()
    names = np.array(list("abcd"))
    np.savez(tmp_path / "x.npz", X=X, y=y, feature_names=names)
    np.savez(tmp_path / "turned.npz", X=np.ascontiguousarray(X[:, ::-1]), feature_names=names[::-1])
    np.savez(tmp_path / "columns.npz", X=np.asfortranarray(X))
    np.savez(tmp_path / "other.npz", X=X, feature_names=np.array(list("wxyz")))
    run = tmp_path / "run"
    main(["probe", str(tmp_path / "x.npz"), "--grid", "C=1", "--folds", "2", "--out", str(run)])
    found = []
    for name in ("x", "turned", "columns"):
        out = tmp_path / f"{name}.csv"
        main(["predict", str(run / "model.npz"), str(tmp_path / f"{name}.npz"), "--out", str(out)])
        found.append(probabilities_in(out))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    with pytest.raises(SystemExit):
        main(["predict", str(run / "model.npz"), str(tmp_path / "other.npz"),
              "--out", str(tmp_path / "other.csv")])  # fmt: skip
    assert not (tmp_path / "other.csv").exists()


def test_a_model_that_predicts_again_compiles_nothing(tmp_path, compiled):
    trained = prepare(Recipe("iris", epochs=3))().classifier
    save_model(tmp_path / "m.npz", trained)
    X = load_dataset("iris").features
    load_model(tmp_path / "m.npz").predict(X)
    compiled.clear()
    trained.predict(X)
    load_model(tmp_path / "m.npz").predict(X)
    assert not compiled
    trained.predict(X[:7])
    assert compiled
