"""Fitted estimators and pipelines as bytes, by skops: nothing is ever unpickled."""

from __future__ import annotations

import io
import zipfile
from importlib import import_module
from types import FunctionType
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

_TRUSTED = {
    *(f"jaxclf.estimators.{name}" for name in (
        "linear.LinearClassifier", "logistic.LogisticRegression",
        "logistic_cv.LogisticRegressionCV", "minibatch.MinibatchClassifier",
        "one_vs_rest.OneVsRestLogisticRegression", "squared.RidgeClassifier", "svc.LinearSVC",
    )),
    "jaxclf.models.linear.LinearParams",
    "jaxclf.solvers.result.SolverResult",
    "jaxclf.solvers.result.Step",
    "jaxclf.training.segment.TrainState",
    "numpy.dtype",
}  # fmt: skip
"""The types of ours that a file may hold, beside those that skops itself trusts."""
_MODULES = {
    "sklearn.calibration",
    "sklearn.feature_selection._univariate_selection",
    "sklearn.metrics._classification",
    "sklearn.metrics._ranking",
    "sklearn.metrics._scorer",
    "sklearn.model_selection._split",
    "sklearn.utils._bunch",
}
"""The modules whose own classes and functions a file may hold: the parts of searches, calibrations
and selections. What such a module imports from elsewhere is not trusted."""


def to_bytes(estimator: BaseEstimator) -> bytes:
    """A fitted estimator, or a pipeline that ends with one.

    Raises:
      NotFittedError: an estimator that is not fitted.
      TypeError: a part that is neither of jaxclf nor of scikit-learn.
      ValueError: coefficients that are not finite.
    """
    from skops.io import dumps

    check_is_fitted(estimator)
    _check_finite(estimator)
    try:
        content = dumps(estimator)
    except Exception as error:  # what skops raises depends on the object that it cannot write
        raise TypeError(f"a {type(estimator).__name__} cannot be written: {error}") from None
    _check_types(content)
    return content


def _check_finite(estimator: BaseEstimator) -> None:
    """Raises ValueError for weights that are not finite, of the estimator that predicts."""
    last = getattr(estimator, "best_estimator_", estimator)
    last = last[-1] if hasattr(last, "named_steps") else last
    for name in ("coef_", "intercept_", "params_"):
        for leaf in jax.tree.leaves(getattr(last, name, ())):
            if not np.isfinite(np.asarray(leaf, float)).all():
                raise ValueError(f"the estimator has numbers in {name} that are not finite")


def from_bytes(content: bytes, largest_bytes: int) -> Any:
    """The estimator in the bytes of :func:`to_bytes`.

    Raises:
      ValueError: a part of any other type, which is not made, or more than ``largest_bytes``.
    """
    from skops.io import loads

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > largest_bytes:
        raise ValueError(f"it unpacks to {size} bytes, more than {largest_bytes}")
    loaded = loads(content, trusted=_check_types(content))
    if not isinstance(loaded, BaseEstimator):
        raise ValueError(f"it holds a {type(loaded).__name__}, which is no estimator")
    return loaded


def _check_types(content: bytes) -> list[str]:
    """The types to trust, or an error of one sentence where there is any other."""
    from skops.io import get_untrusted_types

    types = get_untrusted_types(data=content)
    other = [name for name in types if not _is_trusted(name)]
    if other:
        raise TypeError(
            "a model file holds estimators of jaxclf and of scikit-learn, and pipelines of them; "
            f"it has a {other[0][:100]}"
        )
    return types


def _is_trusted(name: str) -> bool:
    """Whether a name is that of a type of ours, or of what a trusted module defines itself."""
    module, _, attribute = name.rpartition(".")
    if name in _TRUSTED:
        return True
    is_optax = module.startswith("optax._src.") and attribute.endswith("State")
    if not is_optax and module not in _MODULES:
        return False
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError:
        return False
    if is_optax:
        return isinstance(found, type) and issubclass(found, tuple) and found.__module__ == module
    return isinstance(found, type | FunctionType) and found.__module__ == module
