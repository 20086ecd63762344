"""What `load_model(path).predict(X)` takes, of a classifier that a command trained."""

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from jaxclf import load_dataset, load_model, save_model
from jaxclf.commands.evaluation import predict_logits
from jaxclf.commands.recipe import Recipe, prepare

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


ROWS = {"town": ["Ulm", "Bonn", "Kiel"], "age": [54.0, 31.0, np.nan], "more": ["a", "b", "c"]}


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
