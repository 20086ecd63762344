"""Estimators and pipelines in model files: what was saved comes back, and nothing else."""

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import RFE, SelectKBest, f_classif
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    QuantileTransformer,
    StandardScaler,
)

from jaxclf import (
    LinearSVC,
    LogisticRegression,
    LogisticRegressionCV,
    MinibatchClassifier,
    OneVsRestLogisticRegression,
    RidgeClassifier,
    load_model,
    save_model,
)
from jaxclf.model_file import signed

X, Y = load_wine(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
NAMES = np.array(["barbera", "barolo", "grignolino"])[Y]
L = LogisticRegression


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(C=0.5, class_weight={"barolo": 2.0, "barbera": 1, "grignolino": 1}),
        LogisticRegressionCV(
            Cs=3, cv=3, l1_ratios=(0,), scoring="accuracy", use_legacy_attributes=True
        ),
        LinearSVC(),
        RidgeClassifier(),
        OneVsRestLogisticRegression(),
        MinibatchClassifier(epochs=2, random_state=0),
        MinibatchClassifier("mlp", hidden=(4,), epochs=2, random_state=0),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_estimator_comes_back_as_it_was(tmp_path, estimator):
    estimator.fit(X, NAMES)
    save_model(tmp_path / "m.npz", estimator)
    again = load_model(tmp_path / "m.npz")
    assert type(again) is type(estimator)
    assert again.get_params() == estimator.get_params()
    assert vars(again).keys() == vars(estimator).keys()
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))
    np.testing.assert_array_equal(again.decision_function(X), estimator.decision_function(X))
    again.fit(X, NAMES)


def test_training_goes_on_from_a_file(tmp_path):
    model = MinibatchClassifier(random_state=0).partial_fit(X, NAMES, classes=np.unique(NAMES))
    save_model(tmp_path / "m.npz", model)
    again = load_model(tmp_path / "m.npz").partial_fit(X, NAMES)
    np.testing.assert_array_equal(
        again.params_.weights, model.partial_fit(X, NAMES).params_.weights
    )


def frame():
    rng = np.random.default_rng(0)
    age = np.where(rng.random(60) < 0.2, np.nan, rng.normal(40, 9, 60))
    return pd.DataFrame({"age": age, "town": rng.choice(["Bonn", "Ulm"], 60)})


def test_a_pipeline_of_a_table_comes_back(tmp_path):
    table, kinds = frame(), np.where(np.arange(60) % 3, "a", "b")
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    columns = make_column_transformer(
        (numbers, ["age"]), (OneHotEncoder(handle_unknown="ignore"), ["town"])
    )
    pipeline = make_pipeline(columns, LogisticRegression()).fit(table, kinds)
    save_model(tmp_path / "m.npz", pipeline)
    again = load_model(tmp_path / "m.npz")
    table.loc[3, "town"] = "Kiel"
    np.testing.assert_array_equal(again.predict_proba(table), pipeline.predict_proba(table))
    assert isinstance(again[-1], LogisticRegression)


def test_a_pipeline_of_texts_comes_back(tmp_path):
    texts, kinds = ["free money now", "see you at noon"] * 6, ["spam", "ham"] * 6
    search = GridSearchCV(
        make_pipeline(TfidfVectorizer(), LogisticRegression()),
        {"logisticregression__C": [0.1, 1]},
        cv=2,
        scoring="f1_macro",
    ).fit(texts, kinds)
    with pytest.raises(TypeError, match="holds more than a model: save its best_estimator_"):
        save_model(tmp_path / "m.npz", search)
    save_model(tmp_path / "m.npz", search.best_estimator_)
    assert load_model(tmp_path / "m.npz").predict(["money"]).tolist() == ["spam"]


@pytest.mark.parametrize(
    "estimator",
    [
        CalibratedClassifierCV(L(), cv=2),
        CalibratedClassifierCV(L(), cv=2, method="isotonic"),
        VotingClassifier([("a", L())]),
        LogisticRegressionCV(
            Cs=2,
            cv=StratifiedKFold(2),
            l1_ratios=(0,),
            scoring="accuracy",
            use_legacy_attributes=False,
        ),
        make_pipeline(SelectKBest(f_classif, k=4), L()),
        make_pipeline(PCA(4, random_state=0), QuantileTransformer(n_quantiles=9), L()),
        make_pipeline(FeatureUnion([("a", MinMaxScaler()), ("b", PolynomialFeatures())]), L()),
    ],
    ids=lambda e: type(e).__name__,
)
def test_estimators_of_scikit_learn_around_ours_come_back(tmp_path, estimator):
    estimator.fit(X, NAMES)
    save_model(tmp_path / "m.npz", estimator)
    again = load_model(tmp_path / "m.npz")
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))


class Twice(TransformerMixin, BaseEstimator):
    """A step that only this file knows."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return 2 * X


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (make_pipeline(Twice(), L()), "Twice"),
        (make_pipeline(FunctionTransformer(lambda x: 2 * x), L()), "lambda|function"),
        (make_pipeline(FunctionTransformer(np.tanh), L()), "FunctionTransformer|tanh"),
        (StackingClassifier([("a", L())], cv=2), "StackingClassifier"),
        (make_pipeline(RFE(L(), n_features_to_select=4), L()), "RFE"),
    ],
)
def test_parts_of_other_kinds_are_refused_by_name(tmp_path, estimator, name):
    """scikit-learn's own that call what their attributes name are refused too."""
    estimator.fit(X, Y)
    with pytest.raises(TypeError, match=name):
        save_model(tmp_path / "m.npz", estimator)
    assert not list(tmp_path.iterdir())


def test_what_is_no_fitted_model_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        save_model(tmp_path / "m.npz", make_pipeline(StandardScaler(), LogisticRegression()))
    with pytest.raises(TypeError, match=r"holds a Classifier, or an estimator .*; got dict"):
        save_model(tmp_path / "m.npz", {"weights": X})
    broken = LogisticRegression().fit(X, Y)
    broken.coef_ = broken.coef_ * np.nan
    with pytest.raises(ValueError, match="numbers in coef_ that are not finite"):
        save_model(tmp_path / "m.npz", broken)
    assert not list(tmp_path.iterdir())


def rewritten(content: bytes, change) -> bytes:
    """The archive of skops with its schema changed."""
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            archive.writestr(name, change(data) if name == "schema.json" else data)
    return target.getvalue()


def test_a_file_that_names_another_type_makes_nothing(tmp_path):
    path = tmp_path / "m.npz"
    save_model(path, LogisticRegression().fit(X, Y))
    with np.load(path) as archive:
        stored = dict(archive)
    other = rewritten(
        stored["estimator"].tobytes(),
        lambda text: text.replace(b"jaxclf.estimators.logistic", b"os.path"),
    )
    path.write_bytes(signed(stored | {"estimator": np.frombuffer(other, np.uint8)}))
    with pytest.raises(ValueError, match=r"m\.npz is not a usable model file: .*os\.path"):
        load_model(path)
    large = io.BytesIO()
    with zipfile.ZipFile(large, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", bytes(10**7))
    path.write_bytes(signed(stored | {"estimator": np.frombuffer(large.getvalue(), np.uint8)}))
    with pytest.raises(ValueError, match="unpacks to more than 1000000 bytes"):
        load_model(path, largest_bytes=10**6)


def archive(schema: dict) -> bytes:
    """An archive of skops with a schema alone."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("schema.json", json.dumps(schema | {"protocol": 2, "_skops_version": "0"}))
    return target.getvalue()


def node(name: str, loader: str, **more) -> dict:
    module, _, kind = name.rpartition(".")
    return {"__class__": kind, "__module__": module, "__loader__": loader, **more}


def by_attributes(module: str, name: str, *attributes: str) -> dict:
    """A node that asks for an attribute of what a module imports."""
    found = node(f"{module}.{name}", "TypeNode")
    for attribute in attributes:
        content = {"func": attribute, "obj": found}
        found = node(f"{module}.{name}", "MethodNode", content=content)
    return found


@pytest.mark.parametrize(
    "reached",
    [
        by_attributes("sklearn.calibration", "np", "ctypeslib", "_ctypeslib", "os", "system"),
        node("sklearn.calibration.np", "TypeNode"),
        node("sklearn.metrics._ranking.partial", "FunctionNode"),
        node("sklearn.metrics._scorer.warnings", "TypeNode"),
        node("optax._src.alias.jnp", "TypeNode"),
        node("os.system", "FunctionNode"),
        node("builtins.eval", "FunctionNode"),
        node("jaxclf.model_file.save_model", "FunctionNode"),
        node("sklearn.metrics._scorer.get_scorer", "TypeNode"),
        node("sklearn.metrics._scorer._cached_call", "ConstructorFromReduceNode"),
    ],
)
def test_nothing_that_modules_import_can_be_reached(tmp_path, monkeypatch, reached):
    """The keys of a dictionary are made by calling their type: here it would be a command."""
    monkeypatch.setattr("os.system", lambda command: pytest.fail(command))
    keys = node("builtins.list", "ListNode", content=[reached])
    text = node("builtins.str", "JsonNode", content="1")
    path, header = tmp_path / "m.npz", {"format": "jaxclf estimator", "version": 3}
    content = archive(node("builtins.dict", "DictNode", key_types=keys, content={"echo": text}))
    stored = {"header": np.array(json.dumps(header))}
    path.write_bytes(signed(stored | {"estimator": np.frombuffer(content, np.uint8)}))
    with pytest.raises(ValueError, match="not a usable model file: a model file holds estimators"):
        load_model(path)


def test_what_is_no_estimator_is_not_given_back(tmp_path):
    path, header = tmp_path / "m.npz", {"format": "jaxclf estimator", "version": 3}
    content = archive(node("builtins.str", "JsonNode", content="[1, 2]"))
    stored = {"header": np.array(json.dumps(header))}
    path.write_bytes(signed(stored | {"estimator": np.frombuffer(content, np.uint8)}))
    with pytest.raises(ValueError, match="it holds a list, which is no estimator"):
        load_model(path)


def refused(path, schema: dict, packed: int = zipfile.ZIP_STORED, **files: bytes) -> str:
    """What is said of a file with a schema of skops and further files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", packed) as file:
        file.writestr("schema.json", json.dumps(schema | {"protocol": 2, "_skops_version": "0"}))
        for name, content in files.items():
            file.writestr(name, content)
    header = {"format": "jaxclf estimator", "version": 3}
    stored = {"header": np.array(json.dumps(header))}
    path.write_bytes(signed(stored | {"estimator": np.frombuffer(target.getvalue(), np.uint8)}))
    with pytest.raises(ValueError, match="not a usable model file") as raised:
        load_model(path, largest_bytes=10**6)
    assert len(str(raised.value)) < 400
    return str(raised.value)


TEXT = node("builtins.str", "JsonNode", content="1")
PAIR = node("builtins.tuple", "TupleNode", content=[TEXT])
LIST = node("builtins.list", "ListNode", content=[])


@pytest.mark.parametrize(
    "schema",
    [
        node("sklearn.metrics._scorer._cached_call", "ConstructorFromReduceNode", content=PAIR),
        node("sklearn.metrics._scorer._cached_call", "LossNode", content={}),
        node("sklearn.metrics._scorer._cached_call", "FunctionNode"),
        node("sklearn.model_selection._split.train_test_split", "NdArrayNode", content=[]),
        node("sklearn.metrics._scorer.get_scorer_names", "DictNode", key_types=LIST, content={}),
        node("sklearn.model_selection._split._CVIterableWrapper", "SetNode", content=[]),
        node("sklearn.metrics._scorer.make_scorer", "ListNode", content=[]),
        node("os.system", "SliceNode", content={"start": 0, "stop": 1, "step": None}),
        node("numpy.random._generator.Generator", "RandomGeneratorNode", content={}),
        node("scipy.sparse._csr.csr_matrix", "SparseMatrixNode", file="a"),
        node("functools.partial", "PartialNode", content={}),
        node("sklearn.dummy.DummyClassifier", "CachedNode"),
        node("sklearn.frozen._frozen.FrozenEstimator", "ObjectNode", content=None),
        node("numpy.random.mtrand.RandomState", "RandomStateNode", content={}),
        node("numpy.add", "FunctionNode"),
    ],
)
def test_loaders_that_call_what_they_name_are_refused(tmp_path, schema):
    assert "a model file holds estimators of jaxclf" in refused(tmp_path / "m.npz", schema)


def test_an_object_cannot_have_methods_of_its_own(tmp_path):
    """Else a file could say what `transform` does."""
    kind = node("builtins.str", "TypeNode")
    keys = node("builtins.list", "ListNode", content=[kind])
    for name in ("transform", "__sklearn_tags__", "__array_interface__", "fit"):
        content = node("builtins.dict", "DictNode", key_types=keys, content={name: TEXT})
        schema = node("sklearn.preprocessing._data.StandardScaler", "ObjectNode", content=content)
        said = refused(tmp_path / "m.npz", schema)
        assert f"StandardScaler with {name} of its own" in said


def test_texts_do_not_become_names_of_files(tmp_path):
    texts, kinds = ["free money", "see noon"] * 3, [0, 1] * 3
    vectorizer = TfidfVectorizer().fit(texts)
    model = make_pipeline(vectorizer, LogisticRegression().fit(vectorizer.transform(texts), kinds))
    save_model(tmp_path / "m.npz", model)
    vectorizer.input = "filename"
    with pytest.raises(TypeError, match="TfidfVectorizer that opens files"):
        save_model(tmp_path / "m.npz", model)


def test_small_files_cannot_take_much(tmp_path):
    array = io.BytesIO()
    np.save(array, np.zeros(60_000))
    one = node("numpy.ndarray", "NdArrayNode", type="numpy", file="a")
    many = node("builtins.list", "ListNode", content=[one] * 40)
    assert "far larger than the file" in refused(tmp_path / "m.npz", many, a=array.getvalue())
    large = refused(tmp_path / "m.npz", one, a=bytes(10**7))
    assert "more than 1000000" in large
    assert "file that is no array" in refused(tmp_path / "m.npz", one, a=b"PK")
    assert "a part of it is packed" in refused(
        tmp_path / "m.npz", one, zipfile.ZIP_DEFLATED, a=array.getvalue()
    )
    empty = io.BytesIO()
    header = {"descr": "|S0", "fortran_order": False, "shape": (4 * 10**8,)}
    np.lib.format.write_array_header_1_0(empty, header)
    assert "array of |S0" in refused(tmp_path / "m.npz", one, a=empty.getvalue())
    twice = TEXT | {"__id__": 1}
    for number in range(2, 60):  # each list names the one before it twice
        before = {"__id__": number - 1} | node("builtins.list", "CachedNode")
        twice = node("builtins.list", "ListNode", content=[twice, before]) | {"__id__": number}
    refused(tmp_path / "m.npz", twice)
