"""The common part of the linear estimators: predictions from `coef_`, and what a fit keeps."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin, SparseCoefMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxclf.estimators.dispatch import (
    check_same_library,
    dispatches,
    library_of,
    namespace_of,
    on_host,
)
from jaxclf.estimators.inputs import DTYPES, Training, offset_like
from jaxclf.solvers.result import SolverResult

ADVICE = {
    "max_steps": "Increase the number of iterations (max_iter), or scale the features",
    "no_finite_minimiser": "the classes are separated, so that larger weights are always better; "
    "give a finite C",
    "nonfinite": "the objective became infinite; scale the features",
    "precision_floor": "the rest is lost to the dtype of the data; give float64, or scale or "
    "centre the features",
    "stalled": "no step lowers the objective any more; scale the features",
}
"""The advice for each status that is not the optimum."""
_AT_MAX_ITER = {
    "lbfgs": "lbfgs failed to converge: ",
    "newton-cg": "newton-cg failed to converge: ",
    "newton-cholesky": "Newton solver did not converge after {} iterations: ",
    "sag": "The max_iter was reached which means the coef_ did not converge: ",
    "saga": "The max_iter was reached which means the coef_ did not converge: ",
    "liblinear": "Liblinear failed to converge, increase the number of iterations: ",
}
"""The words of scikit-learn's warning for each name of a solver, by which users filter."""
_STANDS_OUT = 1e3
"""A column is named if its largest entry is so many times the largest entry of the median column,
or so many times smaller."""


class LinearClassifier(LinearClassifierMixin, SparseCoefMixin, BaseEstimator):
    """Predicts from ``coef_ (1 or K, d)``, ``intercept_ (1 or K,)`` and ``classes_ (K,)``.

    ``sparsify()`` makes ``coef_`` a sparse matrix, and ``densify()`` dense again.
    """

    def decision_function(self, X, offset=None) -> np.ndarray:
        """The logits ``(n, K)``; for two classes the logit of the second class, ``(n,)``.

        An offset of the same shape is added to them.
        """
        check_is_fitted(self)
        scores = self._dispatched_scores(X) if dispatches() else self._scores_on_host(X)
        if offset is None:
            return scores
        return scores + offset_like(offset, scores)

    def _scores_on_host(self, X) -> np.ndarray:
        """The logits as an array of NumPy."""
        options = {"accept_sparse": "csr", "dtype": list(DTYPES), "reset": False}
        X = validate_data(self, X, ensure_all_finite=False, **options)
        with np.errstate(invalid="ignore"):
            scores = safe_sparse_dot(X, self.coef_.T, dense_output=True) + self.intercept_
        # A number that is not finite makes a score that is not, also where its coefficient is zero.
        # The scores are looked through, as they are fewer than the features.
        if not np.isfinite(scores).all():
            validate_data(self, X, **options)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def _dispatched_scores(self, X) -> Any:
        """The logits as an array of the library of X, on its device."""
        check_same_library(X, self.coef_)
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        scores = safe_sparse_dot(X, self.coef_.T, dense_output=True)
        scores = scores + namespace_of(scores).reshape(self.intercept_, (1, -1))
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X, offset=None) -> np.ndarray:
        """The label of each row, ``(n,)``."""
        if dispatches() and offset is None:
            return super().predict(X)
        scores, library = on_host(self.decision_function(X, offset)), library_of(self.classes_)
        numbers = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        labels = on_host(self.classes_)[numbers]
        return labels if library is None else library.array(labels)

    def score(self, X, y, sample_weight=None, offset=None) -> float:
        """The accuracy, or of several labels the share of the rows that have all of them right."""
        return accuracy_score(y, self.predict(X, offset), sample_weight=sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags

    def __setstate__(self, state: dict) -> None:
        """Unpickles; a parameter that the version which pickled it did not have is the default."""
        super().__setstate__({**with_defaults(type(self)), **state})

    def _keep(self, result: SolverResult, training: Training) -> None:
        """Sets the fitted attributes, and warns unless the result is the optimum."""
        weights, intercept = result.params
        self.coef_ = np.atleast_2d(weights)
        zero = np.zeros(len(self.coef_), self.coef_.dtype)
        self.intercept_ = zero if intercept is None else np.atleast_1d(intercept)
        self.classes_ = training.classes
        if training.library is not None:
            self.coef_ = training.library.array(self.coef_)
            self.intercept_ = training.library.array(self.intercept_)
        if training.library_of_labels is not None:
            self.classes_ = training.library_of_labels.array(self.classes_)
        self.n_iter_ = steps_of([result], self)
        self.result_ = result
        warn(result, training.features, getattr(self, "solver", "auto"))


def with_defaults(estimator: type) -> dict:
    """The parameters of a class of estimators, with their defaults."""
    parameters = list(inspect.signature(estimator.__init__).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def steps_of(results, estimator) -> np.ndarray:
    """The steps of each result. To find that a start is the optimum counts as one, as there."""
    return np.maximum([result.steps for result in results], min(1, estimator.max_iter))


def warn(result: SolverResult, features: np.ndarray, solver: str = "auto") -> None:
    """Gives a ConvergenceWarning with advice, unless the result is the optimum."""
    if result.status in ADVICE:
        first = _AT_MAX_ITER.get(solver, "") if result.status == "max_steps" else ""
        largest = f"the largest entry of the gradient is {result.gradient_norm:.2g} after "
        warnings.warn(
            f"{first.format(result.steps)}{largest}{result.steps} steps. "
            f"{ADVICE[result.status]}{_standing_out(features)}",
            ConvergenceWarning,
            stacklevel=4,
        )


def _standing_out(features: np.ndarray) -> str:
    """A text that names the column whose scale stands out most; empty if no column stands out."""
    sparse = issparse(features)
    sizes = (
        abs(features).max(0).toarray().ravel() if sparse else np.abs(np.asarray(features)).max(0)
    )
    used = np.flatnonzero(sizes)
    if not used.size:
        return ""
    ratios = sizes[used] / np.median(sizes[used])
    worst = int(np.argmax(np.abs(np.log(ratios))))
    if 1 / _STANDS_OUT < ratios[worst] < _STANDS_OUT:
        return ""
    return f"; column {used[worst]} is {ratios[worst]:.1g} times as large as the median column"
