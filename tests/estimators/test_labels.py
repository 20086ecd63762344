"""Labels of many kinds, weights of classes, and classes that weights leave empty."""

import numpy as np
import pandas as pd
import pytest
from sklearn import linear_model
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler

from jaxclf import (
    LinearSVC,
    LogisticRegression,
    LogisticRegressionCV,
    MinibatchClassifier,
    OneVsRestLogisticRegression,
    RidgeClassifier,
)

X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
TEXTS = np.array(["1", "2", "3"])[Y]
NEW = {"l1_ratios": (0,), "scoring": "accuracy", "use_legacy_attributes": False}
WITH_CLASS_WEIGHT = [LogisticRegression, LinearSVC, RidgeClassifier, MinibatchClassifier]


def test_class_weights_of_texts_that_read_as_numbers():
    model = LogisticRegression(class_weight={"1": 1, "2": 5, "3": 2}).fit(X, TEXTS)
    other = LogisticRegression(class_weight={0: 1, 1: 5, 2: 2}).fit(X, Y)
    assert np.array_equal(model.coef_, other.coef_)
    partly = LogisticRegression(class_weight={"2": 5}).fit(X, TEXTS)
    theirs = linear_model.LogisticRegression(class_weight={1: 5}, tol=1e-8, max_iter=1000).fit(X, Y)
    assert np.allclose(partly.predict_proba(X), theirs.predict_proba(X), atol=1e-2)
    with pytest.raises(ValueError, match=r"class_weight has the label 2, which is none of y's"):
        LogisticRegression(class_weight={2: 5}).fit(X, TEXTS)
    with pytest.raises(ValueError, match=r"class_weight must be finite, at least 0, got -1"):
        LogisticRegression(class_weight={0: -1}).fit(X, Y)


@pytest.mark.parametrize("estimator", WITH_CLASS_WEIGHT)
def test_a_class_whose_rows_weigh_nothing_is_as_good_as_absent(estimator):
    options = {"epochs": 2, "random_state": 0} if estimator is MinibatchClassifier else {}
    weights = (Y != 1).astype(float)
    for class_weight in ("balanced", {1: 0}):
        model = estimator(class_weight=class_weight, **options)
        model.fit(X, Y, weights if class_weight == "balanced" else None)
        trained = set(Y) if estimator is MinibatchClassifier else {0, 2}
        assert np.isfinite(model.decision_function(X)).all()
        assert set(model.predict(X)) <= trained
    for options["class_weight"], given in (("balanced", Y == 2), ({0: 0, 1: 0}, None)):
        with pytest.raises(ValueError, match="only the class 2 has rows whose weight is above 0"):
            estimator(**options).fit(X, Y, given)


def test_balanced_weights_are_those_of_the_rows_that_weigh():
    weights = np.where(Y == 1, 0.0, 1.0)
    weights[:30] = 0
    model = LogisticRegression(class_weight="balanced").fit(X, Y, weights)
    each = np.array([70 / 2 / 20, 0, 70 / 2 / 50])
    assert np.allclose(model.coef_, LogisticRegression().fit(X, Y, weights * each[Y]).coef_)


@pytest.mark.parametrize("estimator", [OneVsRestLogisticRegression, LogisticRegressionCV])
def test_weights_that_leave_one_class_name_it(estimator):
    options = NEW if estimator is LogisticRegressionCV else {}
    with pytest.raises(ValueError, match="only the class '3' has rows whose weight is above 0"):
        estimator(**options).fit(X, TEXTS, Y == 2)


def test_texts_of_variable_length():
    y = TEXTS.astype(np.dtypes.StringDType())
    for model in (LogisticRegression(), MinibatchClassifier(epochs=2, random_state=0)):
        assert np.array_equal(model.fit(X, y).predict(X), model.fit(X, TEXTS).predict(X))
    series = pd.Series(TEXTS, dtype="string")
    assert LogisticRegression().fit(X, series).score(X, TEXTS) > 0.9


def with_one(value, dtype=object):
    y = TEXTS.astype(object)
    y[3] = value
    return pd.Series(y, dtype=dtype) if isinstance(dtype, str) else y


@pytest.mark.parametrize("estimator", [LogisticRegression, OneVsRestLogisticRegression, LinearSVC])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (with_one(None), "y has a missing label, None, in row 3"),
        (with_one(np.nan), "y has a missing label, nan, in row 3"),
        (with_one(pd.NA, "string"), "y has a missing label, <NA>, in row 3"),
        (with_one(pd.NaT), "y has a missing label, NaT, in row 3"),
        (with_one(4), "labels of two kinds, such as '1' and 4"),
        (np.where(Y, 1.0, np.nan), "Input y contains NaN"),
    ],
    ids=str,
)
def test_labels_that_are_missing_or_mixed_get_one_sentence(estimator, y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        estimator().fit(X, y)


def test_a_rare_class_without_a_penalty_has_its_share_at_the_default_tolerance():
    counts = np.array([100_000, 3, 1])
    y = np.repeat(np.arange(3), counts)
    rows = np.random.default_rng(0).normal(size=(len(y), 2)).astype(np.float32)
    model = LogisticRegression(C=np.inf).fit(rows, y)
    assert np.allclose(model.predict_proba(rows).sum(0), counts, rtol=0.01)
