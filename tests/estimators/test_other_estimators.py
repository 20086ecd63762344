"""One-vs-rest, several labels, support vectors and least squares, against scikit-learn's."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.linear_model import LogisticRegression as ReferenceLogistic
from sklearn.linear_model import RidgeClassifier as ReferenceRidge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC as ReferenceSVC

from jaxclf import LinearSVC, OneVsRestLogisticRegression, RidgeClassifier
from jaxclf.estimators.svc import _loss


def standardised(load):
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def test_one_vs_rest_is_one_fit_per_class():
    X, y = standardised(load_wine)
    theirs = OneVsRestClassifier(ReferenceLogistic(tol=1e-9, max_iter=10_000)).fit(X, y)
    ours = OneVsRestLogisticRegression(tol=1e-9).fit(X, y)
    assert np.abs(ours.predict_proba(X) - theirs.predict_proba(X)).max() < 1e-5
    for k, one in enumerate(theirs.estimators_):
        assert np.allclose(ours.coef_[k], one.coef_[0], atol=1e-5)


def test_several_labels_at_once():
    X, y = standardised(load_wine)
    labels = np.stack([y == 0, y != 1, X[:, 0] > 0], 1).astype(int)
    theirs = OneVsRestClassifier(ReferenceLogistic(tol=1e-9, max_iter=10_000)).fit(X, labels)
    ours = OneVsRestLogisticRegression(tol=1e-9).fit(X, labels)
    assert np.array_equal(ours.predict(X), theirs.predict(X))
    assert np.abs(ours.predict_proba(X) - theirs.predict_proba(X)).max() < 1e-5
    with pytest.raises(ValueError, match="zeros and ones only"):
        OneVsRestLogisticRegression().fit(X, labels + 0.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "scores", [[-1e4] * 3, [-1000, -900, -1100], [50, 100, 75], [-800, 800, 900], [0, 80, 90]]
)
def test_probabilities_of_extreme_scores_name_the_label_that_is_predicted(scores, dtype):
    X, y = standardised(load_iris)
    model = OneVsRestLogisticRegression().fit(X.astype(dtype), y)
    model.coef_, model.intercept_ = 0 * model.coef_, np.array(scores, dtype)
    X = X[:2].astype(dtype)
    for found in (model.predict_proba(X), model.predict_log_proba(X)):
        assert found.dtype == dtype
        assert np.array_equal(found.argmax(1), model.predict(X))
    assert np.allclose(model.predict_proba(X).sum(1), 1)
    each = -np.logaddexp(0, -np.array(scores, float))
    exact = each - np.logaddexp.reduce(each)
    assert np.allclose(model.predict_log_proba(X)[0], exact, rtol=1e-5)


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_ridge_is_that_of_scikit_learn(load, class_weight):
    X, y = standardised(load)
    theirs = ReferenceRidge(alpha=3.0, class_weight=class_weight).fit(X, y)
    ours = RidgeClassifier(alpha=3.0, class_weight=class_weight).fit(X, y)
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-8)
    assert np.allclose(ours.intercept_, theirs.intercept_, atol=1e-8)
    # One step from the start, and one that rounding makes.
    assert ours.n_iter_[0] <= 2


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer])
def test_the_squared_hinge_is_that_of_liblinear(load):
    X, y = standardised(load)
    options = {"C": 0.1, "intercept_scaling": 3.0, "tol": 1e-8}
    theirs = ReferenceSVC(**options, dual=False, max_iter=100_000).fit(X, y)
    ours = LinearSVC(**options).fit(X, y)
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-5)
    assert np.allclose(ours.intercept_, theirs.intercept_, atol=1e-5)


def test_the_hinge_comes_within_its_width_of_liblinear():
    X, y = standardised(load_breast_cancer)
    C, signs = 0.1, 2 * y - 1
    theirs = ReferenceSVC(C=C, loss="hinge", fit_intercept=False, tol=1e-9, max_iter=1_000_000).fit(
        X, y
    )

    def objective(w):
        return np.maximum(0, 1 - signs * (X @ w)).mean() + w @ w / (2 * C * len(y))

    ours = LinearSVC(C=C, loss="hinge", fit_intercept=False, tol=1e-4).fit(X, y)
    gap = objective(ours.coef_[0]) - objective(theirs.coef_[0])
    assert gap <= ours.result_.gap_bound
    assert gap < 1e-4
    assert ours.result_.gap_bound < 1e-3


def test_l1_leaves_weights_at_zero():
    X, y = standardised(load_breast_cancer)
    model = LinearSVC(penalty="l1", C=0.01).fit(X, y)
    assert 0 < np.count_nonzero(model.coef_) < X.shape[1] / 2


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_all_classes_at_once_is_the_loss_of_weston_and_watkins(loss):
    X, y = standardised(load_iris)
    model = LinearSVC(loss=loss, multi_class="weston_watkins", C=1.0, tol=1e-3).fit(X, y)
    assert model.score(X, y) > 0.9
    assert np.allclose(model.coef_.sum(0), 0, atol=1e-5)
    scores, signs = np.array([0.3, -0.2, 1.1]), np.array([-1.0, 1.0, -1.0])
    wide = np.maximum(0, 1 + scores - scores[1])[[0, 2]]
    exact = np.sum(wide if loss == "hinge" else wide**2)
    width = 1e-6
    found = float(_loss(loss, True)(scores, np.append(signs, width)))
    assert exact - 2 * width <= found <= exact + 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "log"}, "'loss' parameter of LinearSVC must be a str among"),
        ({"penalty": "l1", "loss": "hinge"}, "needs loss 'squared_hinge'"),
        ({"multi_class": "crammer_singer"}, "'multi_class' parameter"),
        ({"dual": 3}, "'dual' parameter"),
        ({"intercept_scaling": 0}, "'intercept_scaling' parameter"),
        ({"loss": "hinge", "tol": 0.0}, "'tol' parameter"),
    ],
)
def test_bad_parameters_are_one_sentence(options, message):
    X, y = standardised(load_iris)
    with pytest.raises(ValueError, match=message):
        LinearSVC(**options).fit(X, y)


def test_several_labels_may_be_sparse():
    X, _ = load_iris(return_X_y=True)
    labels = np.c_[X[:, 0] > 5.8, X[:, 2] > 4].astype(int)
    dense = OneVsRestLogisticRegression().fit(X, labels)
    for kind in (sparse.csr_matrix, sparse.csr_array, sparse.csc_array):
        thin = OneVsRestLogisticRegression().fit(X, kind(labels))
        np.testing.assert_array_equal(dense.predict(X), thin.predict(X))
    assert np.allclose(np.exp(dense.predict_log_proba(X)), dense.predict_proba(X))


@pytest.mark.parametrize(
    "estimator",
    [
        OneVsRestLogisticRegression(tol=1e-6),
        OneVsRestLogisticRegression(tol=1e-6, l1_ratio=0.5),
        LinearSVC(tol=1e-6),
        LinearSVC(tol=1e-6, penalty="l1"),
        RidgeClassifier(tol=1e-6),
    ],
)
def test_sparse_features_stay_sparse_and_give_the_same_fit(monkeypatch, estimator):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    X = rng.poisson(rng.lognormal(-2.5, 1.5, (3, 40))[y]).astype(float)
    wanted = clone(estimator).fit(X, y)
    monkeypatch.setattr("jaxclf.estimators.inputs.MOST_DENSE_BYTES", 0)
    thin = clone(estimator).fit(sparse.csr_matrix(X), y)
    assert thin.result_.status == "converged"
    assert thin.result_.solver.startswith(("newton_cg", "proximal_newton"))
    np.testing.assert_allclose(thin.coef_, wanted.coef_, atol=5e-3)
