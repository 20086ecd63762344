"""Offsets and penalty factors of every estimator, beside the conditions of their optima."""

import numpy as np
import pandas
import pytest
import sklearn
from sklearn.model_selection import StratifiedKFold

from jaxclf import (
    LinearSVC,
    LogisticRegression,
    LogisticRegressionCV,
    MinibatchClassifier,
    OneVsRestLogisticRegression,
    RidgeClassifier,
    load_dataset,
)

INF = np.inf
FOLDED = {
    "Cs": [0.01, 1.0],
    "cv": StratifiedKFold(3),
    "scoring": "neg_log_loss",
    "l1_ratios": (0,),
    "use_legacy_attributes": False,
    "tol": 1e-9,
}


def data(name):
    """Four standardised columns, labels, and an offset for each logit."""
    found = load_dataset(name, dtype=np.float64)
    x = found.features[:, :4]
    shape = (len(x),) if found.num_classes == 2 else (len(x), found.num_classes)
    known = 2 * np.random.default_rng(0).normal(size=shape)
    return (x - x.mean(0)) / x.std(0), found.labels, known


@pytest.mark.parametrize("name", ["breast_cancer", "iris"])
def test_folds_are_judged_with_their_offset(name):
    X, y, known = data(name)
    factors = [0.0, 1.0, 3.0, INF]
    model = LogisticRegressionCV(penalty_factors=factors, **FOLDED).fit(X, y, offset=known)
    alone = {"penalty_factors": factors, "tol": 1e-9}
    again = LogisticRegression(C=model.C_, **alone).fit(X, y, offset=known)
    np.testing.assert_allclose(model.coef_, again.coef_, atol=1e-5)
    for fold, (rows, held) in enumerate(FOLDED["cv"].split(X, y)):
        for place, C in enumerate(FOLDED["Cs"]):
            one = LogisticRegression(C=C, **alone).fit(X[rows], y[rows], offset=known[rows])
            p = one.predict_proba(X[held], known[held])
            score = np.log(p[np.arange(len(held)), y[held]]).mean()
            assert model.scores_[fold, 0, place] == pytest.approx(score, abs=1e-6)
    np.testing.assert_allclose(
        model.decision_function(X, known), model.decision_function(X) + known, rtol=1e-12
    )
    with pytest.raises(ValueError, match="offset must have one row per row of features"):
        LogisticRegressionCV(**FOLDED).fit(X, y, offset=known[:9])


@pytest.mark.parametrize("factors", [[0.0, 1.0, 2.0, 1.0], [0.5] * 4])
def test_a_path_of_factors_begins_where_the_first_weight_enters(factors):
    X, y, _ = data("breast_cancer")
    options = {**FOLDED, "Cs": "path", "l1_ratios": (1,), "tol": 1e-6, "solver": "saga"}
    model = LogisticRegressionCV(penalty_factors=factors, **options).fit(X, y)
    shrunk = np.array(factors) > 0
    options = {"penalty_factors": factors, "l1_ratio": 1, "tol": 1e-8, "solver": "saga"}
    for C, enters in ((model.Cs_[0], False), (1.1 * model.Cs_[0], True)):
        found = LogisticRegression(C=C * (1 - 1e-5), **options).fit(X, y).coef_[0]
        assert found[shrunk].any() == enters
    assert (found[~shrunk] != 0).all()


@pytest.mark.parametrize("name", ["breast_cancer", "iris"])
def test_least_squares_to_what_the_offset_leaves(name):
    X, y, known = data(name)
    numbers = np.eye(y.max() + 1)[y][:, -known[0].size :]
    targets = (2 * numbers - 1) - known.reshape(len(y), -1)
    D, factors = np.c_[X, np.ones(len(X))], np.array([0.0, 1.0, 5.0, 2.0])
    ridge = np.diag(np.append(3 * factors, 0))
    exact = np.linalg.solve(D.T @ D + ridge, D.T @ targets).T
    model = RidgeClassifier(alpha=3, penalty_factors=factors).fit(X, y, offset=known)
    np.testing.assert_allclose(np.c_[model.coef_, model.intercept_], exact, atol=1e-8)
    scores = (D @ exact.T + known.reshape(len(y), -1)).reshape(known.shape)
    np.testing.assert_allclose(model.decision_function(X, known), scores, atol=1e-7)
    right = (scores > 0) if scores.ndim == 1 else scores.argmax(1)
    assert model.score(X, y, offset=known) == pytest.approx(np.mean(right == y))


def test_a_fixed_column_of_least_squares_is_left_out():
    X, y, _ = data("iris")
    fixed = RidgeClassifier(penalty_factors=[1, INF, 1, 1]).fit(X, y)
    fewer = RidgeClassifier().fit(X[:, [0, 2, 3]], y)
    np.testing.assert_allclose(fixed.coef_[:, [0, 2, 3]], fewer.coef_, atol=1e-8)
    assert (fixed.coef_[:, 1] == 0).all()


@pytest.mark.parametrize("name", ["breast_cancer", "iris"])
def test_margins_have_the_offset_in_them(name):
    """The gradient of the squared hinge, with the intercept penalised as liblinear has it."""
    X, y, known = data(name)
    factors = np.array([0.0, 1.0, 2.0, 1.0])
    model = LinearSVC(C=0.1, tol=1e-9, penalty_factors=factors).fit(X, y, offset=known)
    signs = 2 * np.eye(y.max() + 1)[y][:, -len(model.coef_) :] - 1
    z = X @ model.coef_.T + model.intercept_ + known.reshape(len(y), -1)
    slopes = -0.2 * signs * np.maximum(1 - signs * z, 0)
    penalty = np.c_[factors * model.coef_, model.intercept_]
    np.testing.assert_allclose(slopes.T @ np.c_[X, np.ones(len(X))] + penalty, 0, atol=1e-6)
    np.testing.assert_allclose(model.decision_function(X, known), z.reshape(known.shape))


def test_each_class_against_the_rest_has_its_factors():
    X, y, known = data("iris")
    factors = np.array([[0.0, 1.0, 1.0, 1.0], [2.0, 1.0, INF, 1.0], [1.0, 1.0, 1.0, 0.5]])
    options = {"C": 0.1, "tol": 1e-9}
    model = OneVsRestLogisticRegression(penalty_factors=factors, **options)
    model.fit(X, y, offset=known)
    for k in range(3):
        one = LogisticRegression(penalty_factors=factors[k], **options)
        one.fit(X, y == k, offset=known[:, k])
        np.testing.assert_allclose(model.coef_[k], one.coef_[0], atol=1e-5)


@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize("name", ["breast_cancer", "iris"])
def test_minibatches_learn_beside_an_offset(name, model):
    """An offset that knows the labels leaves nothing to learn."""
    X, y, _ = data(name)
    K = y.max() + 1
    known = 20.0 * np.eye(K)[y] - 10
    known = known[:, 1] if K == 2 else known
    options = {"model": model, "epochs": 3, "batch_size": 64, "random_state": 0, "hidden": (4,)}
    found = MinibatchClassifier(**options, early_stopping=True).fit(X, y, offset=known)
    assert found.history_[-1]["loss"] < 0.1
    assert found.history_[-1]["held_out_loss"] < 0.1
    assert found.score(X, y, offset=known) == 1
    np.testing.assert_allclose(
        found.decision_function(X, known), found.decision_function(X) + known, atol=1e-9
    )
    p = found.predict_proba(X, known)
    np.testing.assert_allclose(np.log(p), found.predict_log_proba(X, known), atol=1e-9)
    again = MinibatchClassifier(**options).partial_fit(X, y, np.unique(y), offset=known)
    assert again.history_[-1]["loss"] < 0.1
    with pytest.raises(ValueError, match="offset must have"):
        found.predict(X, known[:5])


def test_minibatches_shrink_by_factor_and_name():
    X, y, _ = data("breast_cancer")
    table = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    options = {"l2": 1.0, "epochs": 800, "batch_size": 569, "optimizer": "sgd", "random_state": 0}
    named = {"a": 0.0, "b": 2.0}
    found = MinibatchClassifier(penalty_factors=named, **options, learning_rate=0.5).fit(table, y)
    weights = found.params_.weights
    # Two rows of weights hold half of the coefficient each, and so have half of its penalty.
    exact = LogisticRegression(C=2 / len(y), penalty_factors=[0.0, 2.0, 1.0, 1.0], tol=1e-9)
    exact.fit(X, y)
    np.testing.assert_allclose(weights[1] - weights[0], exact.coef_[0], atol=0.05)
    with pytest.raises(ValueError, match="takes finite penalty factors"):
        MinibatchClassifier(penalty_factors={"a": INF}).fit(table, y)
    with pytest.raises(ValueError, match="penalty_factors are for the weights of the linear model"):
        MinibatchClassifier("mlp", penalty_factors={"a": 0.0}).fit(table, y)


@pytest.mark.parametrize(
    "estimator", [LogisticRegressionCV(**FOLDED), RidgeClassifier(), LinearSVC()]
)
def test_factors_that_do_not_fit_are_refused(estimator):
    X, y, _ = data("iris")
    with pytest.raises(ValueError, match=r"must have shape \(4,\) or \(3, 4\), got \(2,\)"):
        sklearn.clone(estimator).set_params(penalty_factors=[1, 1]).fit(X, y)
