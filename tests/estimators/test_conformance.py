"""scikit-learn's own checks of an estimator, all of them, and what its tools do with ours."""

import pickle

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import StackingClassifier
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV, cross_val_score
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


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)
def test_a_pickle_of_an_earlier_version_has_defaults_for_what_it_lacks(estimator, tmp_path):
    X, y = load_iris(return_X_y=True)
    model = clone(estimator).fit(X, y)
    expected = model.predict(X)
    last = list(model.get_params())[-1]
    vars(model).pop(last)
    for again in (pickle.loads(pickle.dumps(model)), clone(pickle.loads(pickle.dumps(model)))):
        assert getattr(again, last) == getattr(type(model)(), last)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), expected)
    joblib.dump(model, tmp_path / "model.joblib")
    assert joblib.load(tmp_path / "model.joblib").fit(X, y).score(X, y) > -1


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)
def test_weights_are_routed_where_they_are_asked_for(estimator):
    X, y = load_iris(return_X_y=True)
    weights = np.where(y == 0, 0.5, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        asked = clone(estimator).set_fit_request(sample_weight=True)
        if isinstance(estimator, LogisticRegressionCV):
            asked.set_params(
                scoring=get_scorer("neg_log_loss").set_score_request(sample_weight=True)
            )
        if isinstance(estimator, MinibatchClassifier):
            asked.set_params(random_state=0)
        model = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), asked)
        scores = model.fit(X, y, sample_weight=weights).decision_function(X)
    scaled = StandardScaler().fit_transform(X)
    plain = clone(asked).fit(scaled, y, weights)
    assert np.allclose(scores, plain.decision_function(scaled))
    assert not np.allclose(scores, plain.fit(scaled, y).decision_function(scaled))


def test_stacking_inspection_selection_and_a_tuned_threshold():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = StandardScaler().set_output(transform="pandas").fit_transform(X)
    model = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X[X.columns[::-1]])
    members = [("svc", LinearSVC()), ("ridge", RidgeClassifier())]
    stacked = StackingClassifier(members, LogisticRegression(), cv=2).fit(X, y)
    assert stacked.score(X, y) > 0.95
    columns = stacked.set_output(transform="pandas").transform(X).columns
    assert list(columns) == ["stackingclassifier_svc", "stackingclassifier_ridge"]
    tuned = TunedThresholdClassifierCV(LogisticRegression(), scoring="balanced_accuracy", cv=2)
    assert tuned.fit(X, y).score(X, y) > 0.9
    important = permutation_importance(model, X, y, n_repeats=2, random_state=0)
    assert important.importances_mean.max() > 0
    assert partial_dependence(model, X, [0], grid_resolution=3)["average"].shape == (1, 3)
    selected = RFE(LogisticRegression(), step=4)
    search = GridSearchCV(selected, {"n_features_to_select": [2, 9]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.9
    chosen = SelectFromModel(LogisticRegression(l1_ratio=1.0, C=0.1)).fit(X, y)
    assert 0 < chosen.get_support().sum() < 20


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
