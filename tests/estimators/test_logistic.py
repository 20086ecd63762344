"""Logistic regression against scikit-learn's, at the optimum."""

import warnings

import jax
import numpy as np
import pandas
import pytest
import sklearn
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning, UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.linear_model import LogisticRegressionCV as ReferenceCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxclf
from jaxclf import LogisticRegression, LogisticRegressionCV, OneVsRestLogisticRegression

LOADERS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
}


def standardised(name):
    X, y = LOADERS[name](return_X_y=True)
    return StandardScaler().fit_transform(X), y


def reference(**options):
    solver = "saga" if options.get("l1_ratio") else "newton-cg"
    return Reference(solver=solver, tol=1e-9, max_iter=100_000, **options)


SMOOTH = [
    {},
    {"C": 0.01},
    {"fit_intercept": False},
    {"class_weight": "balanced"},
    {"class_weight": {0: 3.0, 1: 0.5}},
]
SPARSE = [{"l1_ratio": 1.0, "C": 0.1}, {"l1_ratio": 0.5, "C": 0.1}]
CASES = [
    *((name, options, False) for name in LOADERS for options in SMOOTH),
    *((name, options, False) for name in ("iris", "wine") for options in SPARSE),
    *((name, {}, True) for name in LOADERS),
    *((name, SPARSE[0], True) for name in ("iris", "wine")),
]


@pytest.mark.parametrize(("name", "options", "weighted"), CASES, ids=str)
def test_probabilities_are_those_of_scikit_learn(name, options, weighted):
    X, y = standardised(name)
    weights = np.random.default_rng(0).uniform(0.2, 3, len(y)) if weighted else None
    theirs = reference(**options).fit(X, y, weights)
    ours = LogisticRegression(tol=1e-9, **options).fit(X, y, weights)
    assert ours.coef_.shape == theirs.coef_.shape
    assert ours.intercept_.shape == theirs.intercept_.shape
    assert np.abs(ours.predict_proba(X) - theirs.predict_proba(X)).max() < 1e-6
    assert ours.result_.status in ("converged", "stationary")
    assert ours.result_.gap_bound < 1e-6
    if options in SPARSE:
        assert np.array_equal(ours.coef_ == 0, np.abs(theirs.coef_) < 1e-9)


@pytest.mark.parametrize("name", LOADERS)
def test_default_fits_are_certified_to_their_tolerance(name):
    X, y = LOADERS[name](return_X_y=True)
    model = LogisticRegression().fit(X, y)
    assert model.result_.status == "converged"
    assert max(model.result_.gap_bound, model.result_.gradient_norm) <= model.tol


def test_takes_all_parameters_of_scikit_learn():
    assert set(Reference().get_params()) <= set(LogisticRegression().get_params())
    assert set(ReferenceCV().get_params()) <= set(LogisticRegressionCV().get_params())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_computes_in_the_dtype_of_the_features_and_leaves_jax_as_it_was(dtype):
    X, y = standardised("iris")
    model = LogisticRegression().fit(X.astype(dtype), y)
    assert not jax.config.jax_enable_x64
    assert model.coef_.dtype == model.intercept_.dtype == dtype
    assert model.predict_proba(X.astype(dtype)).dtype == dtype
    assert LogisticRegression(dtype="float32").fit(X, y).coef_.dtype == np.float32


def test_soft_labels_are_the_targets():
    X, y = standardised("wine")
    hard = LogisticRegression(tol=1e-9).fit(X, y)
    soft = LogisticRegression(tol=1e-9).fit(X, np.eye(3)[y])
    assert np.allclose(soft.coef_, hard.coef_, atol=1e-6)
    smoothed = LogisticRegression(C=np.inf, tol=1e-9).fit(X, 0.9 * np.eye(3)[y] + 0.1 / 3)
    residual = smoothed.predict_proba(X) - (0.9 * np.eye(3)[y] + 0.1 / 3)
    assert np.abs(X.T @ residual).max() / len(X) < 1e-8
    with pytest.raises(ValueError, match="sum to 1"):
        LogisticRegression().fit(X, np.eye(3)[y] + 0.5)


def test_weights_are_repeated_rows():
    X, y = standardised("breast_cancer")
    times = np.random.default_rng(1).integers(0, 4, len(y))
    weighted = LogisticRegression(tol=1e-10).fit(X, y, times)
    repeated = LogisticRegression(tol=1e-10).fit(np.repeat(X, times, 0), np.repeat(y, times))
    assert np.allclose(weighted.coef_, repeated.coef_, atol=1e-8)


def test_a_warm_start_begins_where_the_last_fit_ended():
    X, y = standardised("wine")
    model = LogisticRegression(warm_start=True, tol=1e-8).fit(X, y)
    assert model.fit(X, y).result_.steps == 0
    # Other data than it was fitted to begin anew.
    assert model.fit(X[:, :5], y).coef_.shape == (3, 5)


def test_names_of_solvers_mean_the_same_optimum():
    X, y = standardised("wine")
    expected = LogisticRegression(tol=1e-9).fit(X, y).coef_
    for solver in ("lbfgs", "newton-cg", "newton-cholesky", "sag", "saga"):
        found = LogisticRegression(solver=solver, tol=1e-9, max_iter=1000).fit(X, y).coef_
        assert np.allclose(found, expected, atol=1e-6), solver


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "liblinear"}, "does not support multiclass classification, got 3 classes"),
        ({"solver": "liblinear", "C": np.inf}, "is not supported for the liblinear solver"),
        ({"solver": "lbfgs", "l1_ratio": 0.5}, r"supports only 'l2' or None.*use 'auto'"),
        ({"solver": "magic"}, r"'solver' parameter of LogisticRegression must be a str among"),
        ({"C": 0}, r"'C' parameter of LogisticRegression must be a float in .* Got 0 instead"),
        ({"C": "1"}, r"'C' parameter .* Got '1' instead"),
        ({"l1_ratio": 2}, r"'l1_ratio' parameter"),
        ({"dual": True}, r"Solver auto supports only dual=False"),
        ({"intercept_scaling": 0}, r"'intercept_scaling' parameter"),
        ({"dtype": "float16"}, r"dtype must be one of"),
        ({"tol": "1e-4"}, r"'tol' parameter .* Got '1e-4' instead"),
        ({"tol": -1}, r"'tol' parameter .* Got -1 instead"),
        ({"device": "abacus"}, r"device must be one of"),
        ({"max_iter": -1}, r"'max_iter' parameter"),
        ({"max_iter": 1.5}, r"'max_iter' parameter .* must be an int .* Got 1.5 instead"),
    ],
)
def test_bad_parameters_are_one_sentence(options, message):
    X, y = standardised("iris")
    with pytest.raises((ValueError, TypeError), match=message):
        LogisticRegression(**options).fit(X, y)


def test_the_old_penalty_is_understood():
    X, y = standardised("wine")
    with (
        pytest.warns(FutureWarning, match="'penalty' was deprecated"),
        pytest.warns(UserWarning, match="Inconsistent values: penalty=l1 with l1_ratio=0.0"),
    ):
        old = LogisticRegression(penalty="l1", solver="saga", C=0.1).fit(X, y)
    assert np.allclose(old.coef_, LogisticRegression(l1_ratio=1.0, C=0.1).fit(X, y).coef_)


def test_warns_where_the_optimum_was_not_reached():
    X, y = standardised("digits")
    with pytest.warns(ConvergenceWarning, match="Increase the number of iterations"):
        LogisticRegression(max_iter=1).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="give a finite C"):
        LogisticRegression(C=np.inf).fit(*standardised("wine"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LogisticRegression().fit(X, y)


def test_sparse_features_give_the_same_fit_and_a_limit(monkeypatch):
    X, y = standardised("iris")
    dense = LogisticRegression().fit(X, y)
    thin = LogisticRegression().fit(sparse.csr_array(X), y)
    assert np.array_equal(dense.coef_, thin.coef_)  # few of their numbers are zero
    assert np.allclose(thin.predict_proba(sparse.csr_array(X)), dense.predict_proba(X))
    monkeypatch.setattr("jaxclf.estimators.inputs.MOST_DENSE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"GiB when dense; up to"):
        LogisticRegression().fit(sparse.csr_array(X), y)


def test_data_of_nearby_sizes_compile_nothing(compiled):
    X, y = standardised("wine")
    LogisticRegression().fit(X[:160], y[:160])
    compiled.clear()
    rows = np.random.default_rng(0).permutation(len(y))
    for size in (160, 159, 150, 146):
        LogisticRegression(C=0.1 * size).fit(X[rows[:size]], y[rows[:size]])
    assert not compiled
    LogisticRegression().fit(np.tile(X, 3), y)
    assert compiled


NEW = {"l1_ratios": (0.0,), "scoring": "neg_log_loss", "use_legacy_attributes": False}
"""The defaults that scikit-learn announces."""


def test_cross_validation_scores_and_chooses_as_scikit_learn():
    X, y = standardised("wine")
    options = {"Cs": [0.01, 0.1, 1.0, 10.0], "cv": 4, **NEW}
    theirs = ReferenceCV(**options, tol=1e-9, max_iter=10_000).fit(X, y)
    ours = LogisticRegressionCV(**options, tol=1e-9).fit(X, y)
    assert ours.C_ == theirs.C_
    assert ours.l1_ratio_ == 0
    assert np.allclose(ours.scores_, theirs.scores_, atol=1e-6)
    assert ours.coefs_paths_.shape == theirs.coefs_paths_.shape
    assert np.allclose(ours.coef_, theirs.coef_, atol=1e-5)
    averaged = LogisticRegressionCV(**options, tol=1e-9, refit=False).fit(X, y)
    their_average = ReferenceCV(**options, tol=1e-9, refit=False).fit(X, y)
    assert np.allclose(averaged.coef_, their_average.coef_, atol=1e-4)


def test_cross_validation_scores_like_scikit_learn_and_takes_folds_without_a_class():
    X, y = standardised("iris")
    options = {"Cs": [0.1, 1.0], "cv": 3, **NEW}
    theirs = ReferenceCV(**options, tol=1e-9).fit(X, y)
    ours = LogisticRegressionCV(**options, tol=1e-9).fit(X, y, sample_weight=2.0)
    assert ours.C_ == theirs.C_
    plain = LogisticRegressionCV(**options, tol=1e-9).fit(X, y)
    assert plain.score(X, y) == pytest.approx(theirs.score(X, y), abs=1e-5)
    by_class = [(np.flatnonzero(y != 2), np.flatnonzero(y == 2)), (np.arange(150), np.arange(150))]
    assert np.isfinite(LogisticRegressionCV(Cs=[0.1], cv=by_class, **NEW).fit(X, y).scores_).all()
    assert not hasattr(plain.set_params(refit=False).fit(X, y), "result_")
    with pytest.warns(ConvergenceWarning, match="Increase the number"):
        LogisticRegressionCV(Cs=[1.0], cv=3, max_iter=1, **NEW).fit(X, y)


def test_cross_validation_along_a_path_begins_where_all_coefficients_are_zero():
    X, y = (part[::3] for part in standardised("breast_cancer"))
    lasso = {**NEW, "l1_ratios": (1.0,)}
    model = LogisticRegressionCV(Cs="path", cv=2, tol=1e-2, **lasso).fit(X, y)
    first = 1 / np.abs(X.T @ (y.mean() - y)).max()
    np.testing.assert_allclose(model.Cs_, first * np.geomspace(1, 1e4, 100), rtol=1e-6)
    assert model.Cs_[0] < model.C_ < model.Cs_[-1]
    assert not LogisticRegression(C=model.Cs_[0] * 0.999, l1_ratio=1.0).fit(X, y).coef_.any()
    with pytest.raises(ValueError, match="'Cs' parameter of LogisticRegressionCV must be"):
        LogisticRegressionCV(Cs="grid", **NEW).fit(X, y)


def test_the_top_of_the_package_names_what_is_imported_later():
    for name in ("LogisticRegression", "MinibatchClassifier", "certify_convexity"):
        assert name in dir(jaxclf)
        assert getattr(jaxclf, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Perceptron'"):
        _ = jaxclf.Perceptron


def test_a_score_that_is_no_number_chooses_nothing():
    """The rows held out are of one class."""
    X, y = standardised("breast_cancer")
    order = np.argsort(y, kind="stable")
    model = LogisticRegressionCV(Cs=[0.1, 1.0], cv=KFold(5), **{**NEW, "scoring": "roc_auc"})
    with (
        pytest.warns(UndefinedMetricWarning),
        pytest.raises(ValueError, match="scoring 'roc_auc' is no number for the held-out rows of"),
    ):
        model.fit(X[order], y[order])
    assert not hasattr(model, "classes_")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_predictions_need_finite_features_also_where_coefficients_are_zero(wrong, kind):
    X, y = standardised("iris")
    model = LogisticRegression().fit(X, y)
    model.coef_ = model.coef_ * (np.arange(4) != 2)
    broken = X.copy()
    broken[7, 2] = wrong
    for predict in (model.predict, model.predict_proba, model.decision_function):
        with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
            predict(kind(broken))
        predict(kind(X))


def test_scores_beyond_the_largest_number_are_no_fault_of_the_features():
    X, y = standardised("iris")
    model = LogisticRegression().fit(X.astype(np.float32), y)
    with pytest.warns(RuntimeWarning, match="overflow"):
        scores = model.decision_function(np.full((1, 4), 3e38, np.float32))
    assert not np.isfinite(scores).all()


def words(num_classes, dtype=np.float64):
    """Counts of words, most of which are zero."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, num_classes, 200)
    rate = rng.lognormal(-2.5, 1.5, (num_classes, 40))
    return rng.poisson(rate[y]).astype(dtype), np.array(["a", "b", "c"])[y]


@pytest.mark.parametrize(
    ("num_classes", "dtype", "options"),
    [
        (2, np.float64, {}),
        (3, np.float32, {}),
        (2, np.float64, {"solver": "liblinear"}),
        (3, np.float64, {"l1_ratio": 0.5, "solver": "saga"}),
    ],
)
def test_sparse_features_stay_sparse_and_give_the_same_fit(
    monkeypatch, num_classes, dtype, options
):
    X, y = words(num_classes, dtype)
    wanted = LogisticRegression(tol=1e-6, **options).fit(X, y)
    monkeypatch.setattr("jaxclf.estimators.inputs.MOST_DENSE_BYTES", 0)
    for kind in (sparse.csr_array, sparse.csc_matrix):
        thin = LogisticRegression(tol=1e-6, **options).fit(kind(X), y)
        assert thin.result_.status == "converged"
        assert thin.result_.solver.startswith(("newton_cg", "proximal_newton"))
        assert thin.coef_.dtype == wanted.coef_.dtype == dtype
        np.testing.assert_allclose(thin.coef_, wanted.coef_, atol=2e-3)
        np.testing.assert_allclose(thin.predict_proba(kind(X)), wanted.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize(
    ("num_classes", "options"), [(2, {}), (3, {"refit": False, "scoring": "accuracy"})]
)
def test_cross_validation_keeps_sparse_features_and_chooses_the_same(
    monkeypatch, num_classes, options
):
    X, y = words(num_classes)
    weights = np.linspace(0.5, 2, len(y))
    model = LogisticRegressionCV(**NEW | {"Cs": 5, "cv": 3, "tol": 1e-8} | options)
    wanted = clone(model).fit(X, y, weights)
    monkeypatch.setattr("jaxclf.estimators.inputs.MOST_DENSE_BYTES", 0)
    thin = clone(model).fit(sparse.csr_matrix(X), y, weights)
    assert pytest.approx(wanted.C_) == thin.C_
    np.testing.assert_allclose(thin.scores_, wanted.scores_, atol=1e-4)
    np.testing.assert_allclose(thin.coef_, wanted.coef_, atol=2e-3)
    with pytest.raises(ValueError, match="GiB when dense"):
        LogisticRegressionCV(**NEW | {"solver": "newton-cholesky"}).fit(sparse.csr_matrix(X), y)


def test_a_warm_start_and_no_step_take_sparse_features():
    X, y = words(3)
    model = LogisticRegression(warm_start=True).fit(sparse.csr_array(X), y)
    assert model.fit(sparse.csr_array(X), y).n_iter_ == 1
    with pytest.warns(ConvergenceWarning):
        assert not LogisticRegression(max_iter=0).fit(sparse.csr_array(X), y).coef_.any()


def test_sparse_features_of_nearby_counts_compile_nothing(compiled):
    X, y = words(2)
    LogisticRegression().fit(sparse.csr_array(X[:190]), y[:190])
    compiled.clear()
    LogisticRegression().fit(sparse.csr_array(X[:186]), y[:186])
    assert not compiled


def test_a_large_sparse_matrix_is_never_made_dense():
    X, y = words(2)
    wide = sparse.csr_array(X)
    wide.resize((len(X), 3_000_000))
    model = LogisticRegression().fit(wide, y)
    assert model.score(wide, y) > 0.8
    with pytest.raises(ValueError, match="GiB when dense"):
        LogisticRegression(solver="newton-cholesky").fit(wide, y)


@pytest.mark.parametrize("name", ["breast_cancer", "iris"])
def test_an_offset_is_added_to_the_logits(name):
    """A logit that the features explain is left to the offset."""
    X, y = standardised(name)
    exact = LogisticRegression(tol=1e-9).fit(X, y)
    shape = exact.decision_function(X).shape
    known = np.random.default_rng(0).normal(size=shape)
    ours = LogisticRegression(tol=1e-9).fit(X, y, offset=known)
    z = X @ ours.coef_.T + ours.intercept_ + known.reshape(len(X), -1)
    np.testing.assert_allclose(ours.decision_function(X, known), z.reshape(shape), rtol=1e-12)
    p, targets = ours.predict_proba(X, offset=known), np.eye(len(exact.classes_))[y]
    residuals = (p - targets)[:, -len(ours.coef_) :]
    np.testing.assert_allclose(residuals.sum(0), 0, atol=1e-5)
    np.testing.assert_allclose(residuals.T @ X + ours.coef_, 0, atol=1e-4)
    np.testing.assert_array_equal(ours.predict(X, known), ours.classes_[p.argmax(1)])
    with pytest.raises(ValueError, match="offset must have shape"):
        ours.predict(X, np.zeros((len(X), 7)))
    with pytest.raises(ValueError, match="offset must have one row per row of features"):
        LogisticRegression().fit(X, y, offset=np.zeros(3))


def test_an_offset_is_routed_as_scikit_learn_spells_it():
    X, y = standardised("breast_cancer")
    known = np.random.default_rng(0).normal(size=len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        model = LogisticRegression().set_fit_request(offset=True).set_predict_request(offset=True)
        pipeline = make_pipeline(StandardScaler(), model).fit(X, y, offset=known)
        predicted = pipeline.predict(X, offset=known)
    scaled = StandardScaler().fit_transform(X)
    direct = LogisticRegression().fit(scaled, y, offset=known)
    np.testing.assert_allclose(pipeline[-1].coef_, direct.coef_, atol=1e-4)
    np.testing.assert_array_equal(predicted, direct.predict(scaled, known))
    assert (predicted != direct.predict(scaled)).any()


def test_monotonic_directions_by_name():
    X, y = standardised("breast_cancer")
    X = X[:, :4]
    table = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    named = {"a": 1, "c": -1, "d": 1}
    model = LogisticRegression(C=0.1, tol=1e-8, monotonic_cst=named).fit(table, y)
    assert model.result_.status == "converged"
    same = LogisticRegression(C=0.1, tol=1e-8, monotonic_cst=[1, 0, -1, 1]).fit(X, y)
    np.testing.assert_array_equal(model.coef_, same.coef_)
    coef = model.coef_[0]
    gradient = coef + 0.1 * (model.predict_proba(table)[:, 1] - y) @ X
    assert (coef * [1, 0, -1, 1] >= 0).all()
    assert coef[0] == 0  # free, it would be negative
    assert gradient[0] > 0
    np.testing.assert_allclose(gradient[coef != 0], 0, atol=1e-5)
    for penalty in ({"l1_ratio": 0.5}, {"penalty_factors": {"a": 0}}, {"solver": "liblinear"}):
        few = LogisticRegression(monotonic_cst=named, **penalty).fit(table, y)
        assert (few.coef_[0] * [1, 0, -1, 1] >= 0).all()
    rows = LogisticRegression(C=0.1, tol=1e-8, monotonic_cst=[1, 0, -1, 1]).fit(
        sparse.csr_array(X), y
    )
    np.testing.assert_allclose(rows.coef_, model.coef_, atol=1e-6)


@pytest.mark.parametrize("Cs", [[0.01, 1.0], "path"])
def test_folds_keep_the_directions(Cs):
    X, y = standardised("breast_cancer")
    table = pandas.DataFrame(X[:, :4], columns=["a", "b", "c", "d"])
    named, signs = {"a": 1, "c": -1, "d": 1}, np.array([1, 0, -1, 1])
    options = {"cv": 2, "scoring": "neg_log_loss", "use_legacy_attributes": False, "tol": 1e-8}
    l1_ratio = 1.0 if Cs == "path" else 0.0
    options["l1_ratios"] = (l1_ratio,)
    model = LogisticRegressionCV(Cs=Cs, solver="saga", monotonic_cst=named, **options)
    model.fit(table, y)
    assert (model.coefs_paths_[..., :4] * signs >= 0).all()
    assert (model.coef_[0] * signs >= 0).all()
    one = LogisticRegression(
        C=model.C_, l1_ratio=l1_ratio, solver="saga", monotonic_cst=named, tol=1e-8
    ).fit(table, y)
    np.testing.assert_allclose(model.coef_, one.coef_, atol=1e-5)
    if Cs == "path":  # the first weight enters right after the first C
        assert not model.coefs_paths_[:, 0, 0, 0, :4].all(-1).any()
        entered = one.set_params(C=1.01 * model.Cs_[0]).fit(table, y).coef_
        assert np.count_nonzero(entered) == 1
    with pytest.raises(ValueError, match="Solver lbfgs takes no monotonic_cst"):
        LogisticRegressionCV(solver="lbfgs", monotonic_cst=named, **options).fit(table, y)
    with pytest.raises(ValueError, match="not supported for multiclass"):
        LogisticRegressionCV(monotonic_cst=[1] * 13, **options).fit(*standardised("wine"))


def test_each_class_against_the_rest_has_its_directions():
    X, y = standardised("wine")
    X, options = X[:, :4], {"C": 0.1, "tol": 1e-8}
    for signs in (np.array([1, 0, -1, 1]), np.arange(12).reshape(3, 4) % 3 - 1):
        model = OneVsRestLogisticRegression(monotonic_cst=signs, **options).fit(X, y)
        assert model.result_.status == "converged"
        for k, own in enumerate(np.broadcast_to(signs, (3, 4))):
            one = LogisticRegression(monotonic_cst=own, **options).fit(X, y == k)
            np.testing.assert_allclose(model.coef_[k], one.coef_[0], atol=1e-6)
    several = np.stack([y == 0, y > 0, y < 2], 1).astype(int)
    model = OneVsRestLogisticRegression(monotonic_cst=[1, 1, 1, 1], **options).fit(X, several)
    assert (model.coef_ >= 0).all()
    two = OneVsRestLogisticRegression(monotonic_cst=[1, 0, -1, 1], **options).fit(X, y == 0)
    one = LogisticRegression(monotonic_cst=[1, 0, -1, 1], **options).fit(X, y == 0)
    np.testing.assert_allclose(two.coef_, one.coef_, atol=1e-6)
    with pytest.raises(ValueError, match=r"monotonic_cst must have shape \(3, 4\), got \(2, 4\)"):
        OneVsRestLogisticRegression(monotonic_cst=np.ones((2, 4), int)).fit(X, y)
    with pytest.raises(ValueError, match="array-like of -1, 0 or 1"):
        OneVsRestLogisticRegression(monotonic_cst=2 * np.ones((3, 4), int)).fit(X, y)
    with pytest.raises(ValueError, match="Solver lbfgs takes no monotonic_cst"):
        OneVsRestLogisticRegression(monotonic_cst=[1] * 4, solver="lbfgs").fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"monotonic_cst": [1, 0, 2]}, "monotonic_cst must be an array-like of -1, 0 or 1"),
        ({"monotonic_cst": [1, 0]}, r"monotonic_cst must have shape \(3,\), got \(2,\)"),
        ({"monotonic_cst": {"a": 1}}, "was not fitted on data with feature names"),
        ({"monotonic_cst": 1}, "monotonic_cst"),
        ({"monotonic_cst": [1, 0, 0], "solver": "lbfgs"}, "Solver lbfgs takes no monotonic_cst"),
        ({"monotonic_cst": [1, 0, 0], "firth": True, "C": np.inf}, "firth=True takes no monotonic"),
    ],
)
def test_directions_that_do_not_fit_are_refused(parameters, message):
    X, y = standardised("breast_cancer")
    with pytest.raises(ValueError, match=message):
        LogisticRegression(**parameters).fit(X[:, :3], y)


def test_directions_need_two_classes():
    X, y = standardised("iris")
    with pytest.raises(ValueError, match="monotonic constraints are not supported for multiclass"):
        LogisticRegression(monotonic_cst=[1, 0, 0, 0]).fit(X, y)


def test_penalty_factors_by_name():
    X, y = standardised("breast_cancer")
    table = pandas.DataFrame(X[:, :4], columns=["a", "b", "c", "d"])
    named = {"a": 0.0, "c": np.inf, "d": 3.0}
    by_name = LogisticRegression(C=0.01, tol=1e-9, penalty_factors=named).fit(table, y)
    factors = [0.0, 1.0, np.inf, 3.0]
    same = LogisticRegression(C=0.01, tol=1e-9, penalty_factors=factors).fit(X[:, :4], y)
    np.testing.assert_allclose(by_name.coef_, same.coef_, atol=1e-7)
    assert same.coef_[0, 2] == 0
    gradient = (same.predict_proba(X[:, :4])[:, 1] - y) @ X[:, :4] * 0.01
    np.testing.assert_allclose(gradient[0], 0, atol=1e-6)
    np.testing.assert_allclose(gradient[1] + same.coef_[0, 1], 0, atol=1e-6)
    np.testing.assert_allclose(gradient[3] + 3 * same.coef_[0, 3], 0, atol=1e-6)
    with pytest.raises(ValueError, match="penalty_factors has 'e', but X has 'a', 'b', 'c', 'd'"):
        LogisticRegression(penalty_factors={"e": 0}).fit(table, y)
    with pytest.raises(ValueError, match="but the columns of X have no names"):
        LogisticRegression(penalty_factors={"a": 0}).fit(X, y)
    with pytest.raises(ValueError, match=r"must have shape \(4,\) or \(1, 4\), got \(3,\)"):
        LogisticRegression(penalty_factors=[1, 1, 1]).fit(table, y)
    with pytest.raises(ValueError, match=r"factors must be at least 0, .*, got -1"):
        LogisticRegression(penalty_factors={"a": -1}).fit(table, y)
