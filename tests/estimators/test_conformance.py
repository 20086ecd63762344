"""scikit-learn's own checks of an estimator, all of them, and what its tools do with ours."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from jaxclf import (
    LinearSVC,
    LogisticRegression,
    LogisticRegressionCV,
    MinibatchClassifier,
    OneVsRestLogisticRegression,
    RidgeClassifier,
)

ESTIMATORS = [
    LogisticRegression(),
    LogisticRegressionCV(
        Cs=[0.1, 1.0], cv=3, l1_ratios=(0,), scoring="neg_log_loss", use_legacy_attributes=False
    ),
    OneVsRestLogisticRegression(),
    LinearSVC(),
    RidgeClassifier(),
    MinibatchClassifier(),
]


def name_of(estimator):
    return type(estimator).__name__


# Checks fit on purpose what cannot converge, and scikit-learn warns of itself in places.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)
def test_every_check_of_scikit_learn_passes(estimator):
    failures, passed = [], 0
    for one, check in estimator_checks_generator(estimator, mark=None):
        name = getattr(check, "func", check).__name__
        try:
            check(one)
            passed += 1
        except pytest.skip.Exception:
            raise
        except Exception as error:
            if type(error).__name__ != "SkipTest":
                failures.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
    assert not failures, "\n".join(failures)
    assert passed > 40


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)
def test_works_in_the_tools_of_scikit_learn(estimator):
    X, y = load_iris(return_X_y=True, as_frame=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = make_pipeline(StandardScaler().set_output(transform="pandas"), clone(estimator))
    scores = cross_val_score(model, X, names, cv=3, scoring="accuracy")
    assert scores.mean() > 0.75
    model.fit(X, names)
    assert list(model[-1].feature_names_in_) == list(X.columns)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict(X), model.predict(X))
    calibrated = CalibratedClassifierCV(clone(model), cv=2).fit(X, names)
    assert np.allclose(calibrated.predict_proba(X).sum(1), 1)


def test_a_grid_search_and_joblib(tmp_path):
    X, y = load_breast_cancer(return_X_y=True)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()),
        {"logisticregression__C": [0.01, 0.1, 1.0]},
        cv=4,
    ).fit(X, y)
    joblib.dump(search, tmp_path / "search.joblib")
    assert np.array_equal(joblib.load(tmp_path / "search.joblib").predict(X), search.predict(X))
    assert search.best_score_ > 0.95
