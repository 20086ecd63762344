"""Estimators and pipelines in model files: what was saved comes back, and nothing else."""

import json
from functools import cache

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    RobustScaler,
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
    losses,
    save_model,
)
from jaxclf.estimators.persistence import taken_apart
from jaxclf.model_archive import packed, signed

X, Y = load_wine(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
NAMES = np.array(["barbera", "barolo", "grignolino"])[Y]
WITH_GAPS = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
L = LogisticRegression


def saved(path, estimator):
    """The estimator after a journey through a file."""
    save_model(path / "m.npz", estimator)
    return load_model(path / "m.npz")


def cross_validated(**options):
    """An estimator without the defaults that scikit-learn is about to change."""
    given = {"l1_ratios": (0,), "scoring": "accuracy", "use_legacy_attributes": False}
    return LogisticRegressionCV(**given | options)


def assert_same(again, estimator, features):
    for method in ("predict", "decision_function", "predict_proba", "predict_log_proba"):
        assert hasattr(again, method) == hasattr(estimator, method)
        if hasattr(estimator, method):
            expected = getattr(estimator, method)(features)
            np.testing.assert_array_equal(getattr(again, method)(features), expected)


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(C=0.5, class_weight={"barolo": 2.0, "barbera": 1, "grignolino": 1}),
        LogisticRegression(C=np.inf, l1_ratio=0, max_iter=3, dtype=np.float32),
        cross_validated(Cs=3, cv=3),
        cross_validated(Cs=[0.1, 1.0], cv=3, refit=False),
        LinearSVC(),
        RidgeClassifier(),
        OneVsRestLogisticRegression(),
        MinibatchClassifier(epochs=2, random_state=0, optimizer="sgd"),
        MinibatchClassifier("mlp", hidden=(4,), epochs=2, random_state=0, early_stopping=True),
        SklearnLogisticRegression(),
    ],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_comes_back_as_it_was(tmp_path, estimator):
    table = pd.DataFrame(X, columns=[f"c{i}" for i in range(13)])
    estimator.fit(table, NAMES)
    again = saved(tmp_path, estimator)
    assert type(again) is type(estimator)
    assert again.get_params() == estimator.get_params()
    assert vars(again).keys() == vars(estimator).keys()
    assert_same(again, estimator, table)
    np.testing.assert_array_equal(again.feature_names_in_, table.columns)
    if hasattr(estimator, "result_"):
        pairs = zip(*(jax.tree.leaves(e.result_) for e in (again, estimator)), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    again.fit(table, NAMES)


@pytest.mark.parametrize(
    "step",
    [
        StandardScaler(),
        StandardScaler(with_mean=False, with_std=False),
        MinMaxScaler((-1, 1), clip=True),
        MaxAbsScaler(),
        RobustScaler(with_centering=False),
        Normalizer("l1"),
        SimpleImputer(strategy="median"),
        SimpleImputer(strategy="constant", fill_value=3),
        PCA(4, whiten=True, random_state=0),
        VarianceThreshold(0.1),
        "passthrough",
    ],
    ids=str,
)
def test_a_pipeline_comes_back(tmp_path, step):
    features = WITH_GAPS if isinstance(step, SimpleImputer) else X
    pipeline = make_pipeline(step, StandardScaler(), LogisticRegression()).fit(features, NAMES)
    again = saved(tmp_path, pipeline)
    assert_same(again, pipeline, features)
    assert str(again.get_params()) == str(pipeline.get_params())
    if step != "passthrough":
        assert vars(again[0]).keys() == vars(pipeline[0]).keys()
    again.fit(features, NAMES)


@pytest.mark.parametrize(
    "labels",
    [Y > 0, Y - 7, Y.astype(">i4"), Y + 0.0, NAMES, NAMES.astype(object), np.eye(3, dtype=int)[Y]],
    ids=["bool", "int", "big-endian", "float", "text", "object", "indicators"],
)
def test_labels_keep_their_kind(tmp_path, labels):
    several = make_pipeline(StandardScaler(), OneVsRestLogisticRegression())
    single = [RidgeClassifier(), MinibatchClassifier(epochs=1, random_state=0)]
    for model in [several] if labels.ndim > 1 else [several, *single]:
        model.fit(X.astype(np.float32), labels)
        again, found = saved(tmp_path, model), model.predict(X)
        assert again.predict(X).dtype == found.dtype.newbyteorder("=")
        assert_same(again, model, X)


def test_older_attributes_by_class_and_outputs_for_pandas_come_back(tmp_path):
    model = cross_validated(Cs=2, cv=2, use_legacy_attributes=True).fit(X, NAMES)
    assert isinstance(model.scores_, dict)
    again = saved(tmp_path, model)
    assert list(again.scores_) == model.classes_.tolist()
    table = pd.DataFrame(X, columns=[f"c{i}" for i in range(13)])
    scaled = make_pipeline(StandardScaler(), L()).set_output(transform="pandas").fit(table, Y)
    again = saved(tmp_path, scaled)
    assert isinstance(again[:1].transform(table), pd.DataFrame)
    np.testing.assert_array_equal(again.predict(table), scaled.predict(table))


def test_what_is_of_the_fit_alone_comes_back_as_its_default(tmp_path):
    pipeline = make_pipeline(StandardScaler(), L(), memory=str(tmp_path / "cache")).fit(X, Y)
    pipeline[-1].n_jobs = 2
    again = saved(tmp_path, pipeline)
    assert (again[-1].n_jobs, again[-1].verbose, again.memory) == (None, 0, None)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_training_goes_on_from_a_file(tmp_path, optimizer):
    model = MinibatchClassifier(random_state=0, optimizer=optimizer)
    model.partial_fit(X, NAMES, classes=np.unique(NAMES))
    again = saved(tmp_path, model).partial_fit(X, NAMES)
    np.testing.assert_array_equal(
        again.params_.weights, model.partial_fit(X, NAMES).params_.weights
    )


class Twice(TransformerMixin, BaseEstimator):
    """A step that only this file knows."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return 2 * X


class OurRegression(LogisticRegression):
    """A subclass may do anything."""


class Seven(int):
    """A number that only this file knows."""


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (
            make_pipeline(Twice(), L()),
            "no Twice: it holds .*StandardScaler.* joblib or skops keeps",
        ),
        (make_pipeline(FunctionTransformer(np.tanh), L()), "no FunctionTransformer"),
        (make_pipeline(OneHotEncoder(handle_unknown="ignore"), L()), "no OneHotEncoder"),
        (make_pipeline(make_column_transformer((PCA(2), [0, 1])), L()), "no ColumnTransformer"),
        (make_pipeline(make_pipeline(StandardScaler()), L()), "no Pipeline"),
        (StackingClassifier([("a", L())], cv=2), "no StackingClassifier"),
        (GridSearchCV(L(), {"C": [1]}, cv=2), "a GridSearchCV holds more.* its best_estimator_"),
        (OurRegression(), "no OurRegression"),
        (cross_validated(Cs=2, cv=StratifiedKFold(2)), "cv of LogisticRegressionCV is Strat"),
        (L(random_state=np.random.RandomState(0)), "random_state of LogisticRegression is Random"),
        (L(max_iter=Seven(7)), "max_iter of LogisticRegression is 7"),
        (MinibatchClassifier(loss=losses.categorical_nll, epochs=1), "loss of MinibatchC.* is <fu"),
        (make_pipeline(SimpleImputer(add_indicator=True), L()), "indicator_ of SimpleImputer is"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_parts_of_other_kinds_are_refused_by_name(tmp_path, estimator, message):
    features = WITH_GAPS if "simpleimputer" in estimator.get_params() else X
    with pytest.raises(TypeError, match=message):
        save_model(tmp_path / "m.npz", estimator.fit(features, Y))
    assert not list(tmp_path.iterdir())


def test_what_is_no_fitted_model_is_refused(tmp_path):
    path = tmp_path / "m.npz"
    with pytest.raises(NotFittedError):
        save_model(path, make_pipeline(StandardScaler(), LogisticRegression()))
    with pytest.raises(TypeError, match=r"holds a Classifier, or an estimator .*; got dict"):
        save_model(path, {"weights": X})
    for no_classifier in (StandardScaler().fit(X), make_pipeline(PCA(2)).fit(X)):
        with pytest.raises(TypeError, match="a pipeline that ends with one"):
            save_model(path, no_classifier)
    with pytest.raises(ValueError, match=r"an integer .* beyond 64 bits"):
        save_model(path, L(max_iter=10**30).fit(X, Y))
    with pytest.raises(TypeError, match="no TfidfVectorizer"):
        save_model(path, make_pipeline(TfidfVectorizer(), L()).fit(["a bc", "bc de"], [0, 1]))
    broken = LogisticRegression().fit(X, Y)
    broken.extra_ = 1
    with pytest.raises(TypeError, match="no attribute extra_ of a LogisticRegression"):
        save_model(path, broken)
    del broken.extra_
    broken.coef_ = broken.coef_ * np.nan
    with pytest.raises(ValueError, match=r"numbers in coef_ .* that are not finite"):
        save_model(path, broken)
    broken.coef_ = np.ones((3, 4))
    with pytest.raises(ValueError, match=r"coef_ .* has the shape \(3, 4\)"):
        save_model(path, broken)
    noisy = MinibatchClassifier(epochs=1).fit(X, Y).set_params(optimizer="noisy_sgd")
    with pytest.raises(ValueError, match=r"optimizer of a MinibatchClassifier in .* 'noisy_sgd'"):
        save_model(path, noisy)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        save_model(path, L().fit(X, np.array(["a", "b", "\ud800"], object)[Y]))
    assert not list(tmp_path.iterdir())


def test_estimators_of_earlier_files_are_to_be_saved_again(tmp_path):
    header = {"format": "jaxclf estimator", "version": 3}
    stored = {"header": np.array(json.dumps(header)), "estimator": np.zeros(9, np.uint8)}
    (tmp_path / "m.npz").write_bytes(signed(stored))
    with pytest.raises(ValueError, match=r"earlier development version .*: fit .* save it again"):
        load_model(tmp_path / "m.npz")


@cache
def fitted(name: str):
    """A model to be changed, as it is in a file."""
    models = {
        "linear": L(),
        "labels": OneVsRestLogisticRegression(),
        "binary": OneVsRestLogisticRegression(),
        "mlp": MinibatchClassifier("mlp", hidden=(4,), epochs=1, random_state=0),
        "pipeline": make_pipeline(SimpleImputer(), StandardScaler(), PCA(4), L()),
        "range": make_pipeline(MinMaxScaler(clip=True), L()),
    }
    targets = {"labels": np.eye(3, dtype=int)[Y], "binary": Y > 0}.get(name, NAMES)
    return taken_apart(models[name].fit(X, targets))


def put(part: str, name: str, value, step: int = -1):
    """A change of one value of a step's header."""

    def change(header, arrays):
        header["steps"][step][1][part][name] = value(arrays) if callable(value) else value

    return change


def array(values):
    """A new array in the file."""

    def add(arrays):
        arrays["new"] = np.asarray(values)
        return {"array": "new"}

    return add


def texts(values):
    return {"texts": values, "object": False}


def attribute(name, value, step=-1):
    return put("attributes", name, value, step)


def param(name, value, step=-1):
    return put("params", name, value, step)


DEEP = "a"
for _ in range(30):
    DEEP = {"dict": [{"list": [1, DEEP]}]}


def drop_unused(header, arrays):
    """Takes the arrays of steps that were left out."""
    kept = json.dumps(header)
    for name in list(arrays):
        if f'{{"array": "{name}"}}' not in kept:
            del arrays[name]


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("linear", lambda h, a: h["steps"][0][1].update({"class": "os.system"}), "it has a 'os.sy"),
        ("linear", lambda h, a: h["steps"][0][1].update({"class": ["a"]}), "unhashable"),
        ("linear", lambda h, a: h["steps"].clear(), "it has steps of the names $"),
        ("linear", lambda h, a: h["steps"].append(h["steps"][0]), "steps of the names '', ''"),
        ("linear", lambda h, a: h["steps"].insert(0, ["a", None]), "steps of the names 'a', ''"),
        ("linear", attribute("predict", 1), "an attribute 'predict' of a LogisticRegression"),
        ("linear", attribute("__class__", 1), "an attribute '__class__' of a LogisticReg"),
        ("linear", attribute("coef_", None), "coef_ of LogisticRegression is a NoneType"),
        ("linear", attribute("coef_", {"list": [1.0]}), r"coef_ .* is a list, not a number"),
        ("linear", attribute("coef_", {"dict": []}), "coef_ of LogisticRegression is a dict"),
        ("linear", attribute("coef_", array(np.ones((3, 14)))), r"the shape \(3, 14\)"),
        ("linear", attribute("coef_", array(np.ones((3, 13), int))), "has the dtype int64"),
        ("linear", attribute("intercept_", array(np.full(3, np.inf))), "are not finite"),
        (
            "linear",
            attribute("classes_", texts(["a", "b", "a"])),
            "the classes",
        ),
        ("linear", attribute("classes_", texts(["a", "b", 3])), "of texts"),
        ("linear", attribute("classes_", texts(["a" * 10**4] + [""] * 10**4)), "texts .* too long"),
        ("linear", attribute("classes_", array([0, 1])), "3 rows of coefficients for 2 classes"),
        ("linear", attribute("classes_", array([0, 1, np.nan])), "are not finite"),
        ("linear", attribute("classes_", array([])), r"the classes \[\]"),
        ("linear", attribute("n_features_in_", 10**19), r"the shape \(3, 13\)"),
        ("linear", attribute("n_features_in_", array(13)), "n_features_in_ .* is a ndarray"),
        ("linear", param("class_weight", DEEP), "more than 20 values in each other"),
        ("linear", param("class_weight", {"dict": [{"list": [{"tuple": []}, 1]}]}), "other keys"),
        ("linear", lambda h, a: h["steps"].append(["b", None]) or h.update(pipeline=True), "trans"),
        ("binary", attribute("multilabel_", True), "1 rows of coefficients for 2 classes"),
        ("linear", attribute("n_features_in_", -13), "does not fit"),
        ("linear", attribute("result_", {"tuple": []}), "result_ .* is a tuple"),
        ("linear", attribute("result_", {"SolverResult": [1]}), "Expected 11 arguments, got 1"),
        ("linear", attribute("result_", {"os.system": ["echo"]}), "it has no 'os.system'"),
        ("linear", attribute("n_iter_", {"dtype": "O"}), "'dtype'"),
        ("linear", attribute("n_iter_", {"array": "0", "x": 1}), "too many values"),
        ("linear", attribute("n_iter_", {"array": "none"}), "it has no 'none'"),
        ("linear", lambda h, a: a.update(more=np.ones(3)), "1 arrays of no attribute"),
        ("linear", lambda h, a: h["steps"][0][1]["attributes"].pop("coef_"), "no coef_ of|1 "),
        ("linear", param("n_jobs", 9), "a parameter 'n_jobs' of a LogisticRegression"),
        ("linear", param("__init__", 9), "a parameter '__init__' of a LogisticRegression"),
        ("linear", param("C", [1.0]), "a list without a kind"),
        ("labels", attribute("multilabel_", 1), "multilabel_ .* has the dtype int64"),
        ("pipeline", lambda h, a: h["steps"][0].__setitem__(0, "pca"), "names 'pca', '"),
        ("pipeline", lambda h, a: h.update(pipeline=False), "it has steps of the names"),
        ("pipeline", lambda h, a: h["steps"].pop() and drop_unused(h, a), "ends with one"),
        ("pipeline", lambda h, a: h["steps"].append(["end", None]), "implement fit and transform"),
        ("pipeline", lambda h, a: h["steps"][0].__setitem__(0, "steps"), "conflict with"),
        ("pipeline", lambda h, a: h["steps"][0].__setitem__(0, "a__b"), "must not contain __"),
        (
            "pipeline",
            attribute("_sklearn_output_config", {"dict": [{"list": ["transform", "os"]}]}, 1),
            "an output that set_output of StandardScaler does not set",
        ),
        ("pipeline", lambda h, a: h["steps"][0][1]["attributes"].pop("_fill_dtype"), "_fill_dtype"),
        ("range", param("feature_range", {"tuple": [0.5]}, 0), "not enough values"),
        (
            "range",
            param("feature_range", {"tuple": [1, 0]}, 0),
            r"the feature_range \(1\.0, 0\.0\)",
        ),
        ("range", param("feature_range", {"tuple": [None, 1]}, 0), "NoneType"),
        ("pipeline", attribute("mean_", None, 1), "mean_ of StandardScaler is a NoneType"),
        ("pipeline", attribute("mean_", array(np.ones(12)), 1), r"the shape \(12,\)"),
        (
            "pipeline",
            attribute("components_", array(np.ones((5, 13))), 2),
            "does not fit the others",
        ),
        ("pipeline", attribute("_fill_dtype", True, 0), "_fill_dtype .* is a bool"),
        ("pipeline", param("strategy", "exec", 0), "'strategy' parameter of SimpleImputer"),
        ("pipeline", param("add_indicator", True, 0), "indicator_ of SimpleImputer is a NoneType"),
        ("pipeline", param("whiten", {"list": []}, 2), "'whiten' parameter of PCA"),
        ("mlp", param("hidden", {"tuple": [10**9]}), "do not fit layers of widths"),
        ("mlp", param("hidden", {"tuple": [1] * 200}), "do not fit layers of widths"),
        ("mlp", param("hidden", {"tuple": [5]}), "the state of its training does not fit"),
        ("mlp", param("hidden", {"tuple": [2.5]}), "do not fit layers of widths"),
        ("mlp", param("model", "linear"), "the state of its training does not fit"),
        ("mlp", param("optimizer", "sgd"), "the state of its training does not fit"),
        ("mlp", param("optimizer", "multi_transform"), "optimizer of a MinibatchClassifier"),
        ("mlp", param("loss", "exec"), "loss of a MinibatchClassifier"),
        ("mlp", param("learning_rate", -1), "learning_rate must be finite, above 0"),
        ("mlp", attribute("_state", {"list": [1]}), "no attribute 'size'"),
        ("mlp", attribute("_state", {"list": []}), "do not fit layers of widths"),
        ("mlp", attribute("history_", {"list": [1]}), "history_ .* is a list"),
        ("mlp", attribute("status_", 1), "status_ of MinibatchClassifier is a int"),
    ],
)
def test_headers_of_other_contents_make_nothing(tmp_path, model, change, message):
    header, arrays = json.loads(json.dumps(fitted(model)[0])), dict(fitted(model)[1])
    change(header, arrays)
    content = packed({"format": "jaxclf estimator", "version": 4} | header, arrays)
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(ValueError, match=f"not a usable model file: .*({message})") as raised:
        load_model(tmp_path / "m.npz")
    assert len(str(raised.value)) < 500
