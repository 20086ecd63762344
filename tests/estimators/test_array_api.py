"""Arrays of other libraries in, the same out. SciPy reads its variable when it is imported."""

import os
import subprocess
import sys

SCRIPT = """
import jax
import numpy as np
import sklearn
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler
from jaxclf import LinearSVC, LogisticRegression, OneVsRestLogisticRegression, RidgeClassifier

jax.config.update("jax_numpy_rank_promotion", "raise")
X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X).astype(np.float32)
libraries = [jax.numpy]
for name in ("array_api_strict", "torch"):
    try:
        libraries.append(__import__(name))
    except ImportError:
        pass
estimators = LogisticRegression(), OneVsRestLogisticRegression(), LinearSVC(), RidgeClassifier()
for estimator in estimators:
    expected = estimator.fit(X, y).decision_function(X)
    labels = estimator.predict(X)
    known = np.linspace(-2, 2, 450).reshape(150, 3)
    beside = estimator.fit(X, y, offset=known).decision_function(X, known)
    labels_beside = estimator.predict(X, known)
    for library in libraries:
        features, numbers = library.asarray(X), library.asarray(y.astype(np.int32))
        with sklearn.config_context(array_api_dispatch=True):
            estimator.fit(features, numbers, sample_weight=library.asarray(np.ones(150, "f4")))
            found = {"coef_": estimator.coef_, "intercept_": estimator.intercept_}
            for method in "decision_function", "predict", "predict_proba", "predict_log_proba":
                if hasattr(estimator, method):
                    found[method] = getattr(estimator, method)(features)
        for name, value in found.items():
            assert type(value) is type(features), (estimator, library, name)
            assert value.device == features.device
            assert name == "predict" or value.dtype == features.dtype
        assert np.allclose(np.asarray(found["decision_function"]), expected, atol=1e-3)
        assert (np.asarray(found["predict"]) == labels).all()
        with sklearn.config_context(array_api_dispatch=True):
            given = library.asarray(known.astype("f4"))
            estimator.fit(features, numbers, offset=given)
            scores = estimator.decision_function(features, given)
            assert type(scores) is type(features) and scores.dtype == features.dtype
            assert np.allclose(np.asarray(scores), beside, atol=1e-3)
            predicted = estimator.predict(features, given)
            assert type(predicted) is type(features)
            assert (np.asarray(predicted) == labels_beside).all()
        print(type(estimator).__name__, library.__name__)
model = LogisticRegression().fit(X, y)
with sklearn.config_context(array_api_dispatch=True):
    try:
        model.predict(jax.numpy.asarray(X))
    except ValueError as error:
        print("refused", error)
    texts = np.array(["a", "b", "c"])[y]
    found = model.fit(jax.numpy.asarray(X), texts).predict(jax.numpy.asarray(X))
    assert (found == texts).mean() > 0.9
"""


def test_arrays_of_a_library_in_and_out_on_their_device():
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(" jax.numpy\n") == 4
    assert "refused Inputs passed to LogisticRegression" in done.stdout
