"""Model files of estimators, and to scikit-learn and back."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression as Reference

from jaxclf import LogisticRegression, RidgeClassifier, load_model, save_model
from jaxclf.activations import softmax
from jaxclf.commands.evaluation import predict_logits
from jaxclf.commands.recipe import Recipe, prepare
from jaxclf.estimators.exchange import to_classifier, to_estimator, to_sklearn


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_file_gives_back_the_same_estimator(tmp_path, load, dtype):
    X, y = load(return_X_y=True, as_frame=True)
    X = X.astype(dtype)
    names = np.array(["a", "b", "c"])[y]
    model = LogisticRegression(C=0.1).fit(X, names)
    save_model(tmp_path / "model.npz", model)
    again = load_model(tmp_path / "model.npz")
    assert isinstance(again, LogisticRegression)
    assert again.get_params() == model.get_params()
    assert again.result_.gap_bound == model.result_.gap_bound
    assert np.array_equal(again.coef_, model.coef_)
    assert again.coef_.dtype == dtype
    assert list(again.feature_names_in_) == list(X.columns)
    assert np.array_equal(again.predict(X), model.predict(X))
    assert np.allclose(again.predict_proba(X), model.predict_proba(X), atol=1e-7)


def test_labels_keep_their_kind(tmp_path):
    X, y = load_wine(return_X_y=True)
    for labels in (y, y.astype(float) + 0.0, np.array(["x", "y", "z"])[y], y > 0):
        save_model(tmp_path / "model.npz", LogisticRegression(max_iter=200).fit(X, labels))
        again = load_model(tmp_path / "model.npz")
        assert again.classes_.dtype.kind == np.asarray(labels).dtype.kind
        assert np.isin(again.predict(X), labels).all()


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer])
def test_to_scikit_learn_and_from_it(tmp_path, load):
    X, y = load(return_X_y=True)
    ours = LogisticRegression(C=0.01).fit(X, y)
    theirs = to_sklearn(ours)
    assert isinstance(theirs, Reference)
    assert np.allclose(theirs.predict_proba(X), ours.predict_proba(X), atol=1e-12)
    fitted = Reference(max_iter=10_000).fit(X, y)
    save_model(tmp_path / "model.npz", fitted)
    again = load_model(tmp_path / "model.npz")
    assert isinstance(again, Reference)
    imported = to_estimator(to_classifier(again))
    assert np.allclose(imported.predict_proba(X), fitted.predict_proba(X), atol=1e-12)


def test_the_scaling_of_a_trained_model_is_folded_in():
    trained = prepare(Recipe("wine", epochs=3))()
    X = pd.DataFrame(trained.train.features, columns=trained.train.feature_names)
    assert trained.classifier.standardiser is not None
    exported = to_sklearn(trained.classifier)
    expected = np.asarray(softmax(predict_logits(trained.classifier, trained.train)))
    assert np.allclose(exported.predict_proba(X), expected, atol=1e-4)


def test_refuses_what_it_cannot_hold(tmp_path):
    X, y = load_wine(return_X_y=True)
    with pytest.raises(TypeError, match="got RidgeClassifier"):
        to_classifier(RidgeClassifier().fit(X, y))
    with pytest.raises(NotFittedError):
        save_model(tmp_path / "model.npz", LogisticRegression())
    assert not list(tmp_path.iterdir())
    mlp = prepare(Recipe("wine", model="mlp", epochs=1))().classifier
    with pytest.raises(ValueError, match="only a linear classifier"):
        to_sklearn(mlp)
    assert to_classifier(LogisticRegression(max_iter=200).fit(X, y)).architecture.num_classes == 3
