"""Fitted estimators and pipelines as bytes, by skops: nothing is ever unpickled."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from jaxclf.estimators.skops_schema import checked

_MOST_BYTES = 2**40
"""No bound: an estimator that is in memory may be written."""


def to_bytes(estimator: BaseEstimator) -> bytes:
    """A fitted estimator, or a pipeline that ends with one.

    Raises:
      NotFittedError: an estimator that is not fitted.
      TypeError: a part that is neither of jaxclf nor of scikit-learn, or a search, whose scorers
        could call anything: save its ``best_estimator_``.
      ValueError: coefficients that are not finite.
    """
    from skops.io import dumps

    check_is_fitted(estimator)
    if hasattr(estimator, "best_estimator_"):
        raise TypeError(
            f"a {type(estimator).__name__} holds more than a model: save its best_estimator_"
        )
    _check_finite(estimator)
    try:
        content = dumps(estimator)
    except Exception as error:  # what skops raises depends on the object that it cannot write
        raise TypeError(f"a {type(estimator).__name__} cannot be written: {error}") from None
    try:
        checked(content, _MOST_BYTES)
    except ValueError as error:
        raise TypeError(str(error)) from None
    return content


def _check_finite(estimator: BaseEstimator) -> None:
    """Raises ValueError for weights that are not finite, of the estimator that predicts."""
    last = estimator[-1] if hasattr(estimator, "named_steps") else estimator
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

    content, types = checked(content, largest_bytes)
    loaded = loads(content, trusted=types)
    if not isinstance(loaded, BaseEstimator):
        raise ValueError(f"it holds a {type(loaded).__name__}, which is no estimator")
    return loaded
