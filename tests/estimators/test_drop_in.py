"""What a user of scikit-learn's classes expects, beyond what its own tests look at."""

import numpy as np
import pytest
from scipy import sparse
from sklearn import linear_model
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.preprocessing import StandardScaler

from jaxclf import (
    LinearSVC,
    LogisticRegression,
    LogisticRegressionCV,
    OneVsRestLogisticRegression,
    RidgeClassifier,
)

LINEAR = [LogisticRegression, OneVsRestLogisticRegression, LinearSVC, RidgeClassifier]


def iris(num_classes=3):
    X, y = load_iris(return_X_y=True)
    kept = y < num_classes
    return StandardScaler().fit_transform(X[kept]), y[kept]


@pytest.mark.parametrize("options", [{}, {"intercept_scaling": 5.0}, {"l1_ratio": 1.0, "C": 0.1}])
def test_liblinear_penalises_its_intercept(options):
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)[:, :8].astype(np.float32)
    options = {"solver": "liblinear", "tol": 1e-10, "max_iter": 10_000, **options}
    theirs = linear_model.LogisticRegression(**options, random_state=0).fit(X, y)
    ours = LogisticRegression(**options).fit(X, y)
    assert ours.coef_.dtype == np.float64
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-5)
    assert np.allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    each = OneVsRestLogisticRegression(solver="liblinear", tol=1e-10).fit(X, y)
    plain = LogisticRegression(solver="liblinear", tol=1e-10).fit(X, y)
    assert np.allclose(each.coef_, plain.coef_, atol=1e-8)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_attributes_of_the_folds_have_the_shapes_of_scikit_learn(legacy, num_classes):
    X, y = iris(num_classes)
    options = {
        "Cs": 3,
        "cv": 2,
        "l1_ratios": (0.0, 0.5),
        "scoring": "accuracy",
        "use_legacy_attributes": legacy,
        "solver": "saga",
        "tol": 0.1,
        "max_iter": 1000,
    }
    ours = LogisticRegressionCV(**options).fit(X, y)
    theirs = linear_model.LogisticRegressionCV(**options).fit(X, y)
    for name in ("scores_", "coefs_paths_", "n_iter_", "C_", "l1_ratio_", "Cs_", "l1_ratios_"):
        one, other = getattr(ours, name), getattr(theirs, name)
        if isinstance(other, dict):
            assert list(one) == list(other), name
            one, other = list(one.values()), list(other.values())
        assert np.shape(one) == np.shape(other), name


@pytest.mark.parametrize("estimator", LINEAR)
def test_coefficients_may_be_written_to_and_made_sparse(estimator):
    for num_classes in (2, 3):
        X, y = iris(num_classes)
        model = estimator().fit(X, y)
        scores = model.decision_function(X)
        assert sparse.issparse(model.sparsify().coef_)
        assert np.allclose(model.decision_function(X), scores)
        assert np.allclose(model.decision_function(sparse.csr_array(X)), scores)
        model.densify().coef_[:] = 0
        model.intercept_[:] = 0
        assert not model.decision_function(X).any()


@pytest.mark.parametrize("estimator", LINEAR)
def test_no_step_is_the_start(estimator):
    X, y = iris()
    with pytest.warns(match="Increase the number of iterations"):
        model = estimator(max_iter=0).fit(X, y)
    assert not model.coef_.any()
    assert list(model.n_iter_) == [0]


def test_a_fold_that_holds_one_of_two_classes():
    X, y = iris(2)
    by_class = [(np.flatnonzero(y == 0), np.flatnonzero(y == 1)), (np.arange(100), np.arange(100))]
    options = {"l1_ratios": (0,), "scoring": "neg_log_loss", "use_legacy_attributes": False}
    model = LogisticRegressionCV(Cs=[0.1], cv=by_class, **options).fit(X, y)
    assert model.scores_[0, 0, 0] < np.log(1e-3) < model.scores_[1, 0, 0]
    with pytest.raises(ValueError, match="one class only"):
        LogisticRegressionCV(Cs=[0.1], cv=by_class, fit_intercept=False, **options).fit(X, y)
