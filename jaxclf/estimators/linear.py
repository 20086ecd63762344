"""The common part of the linear estimators: a fit by `minimize`, and predictions from `coef_`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin, SparseCoefMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_random_state
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxclf import checks
from jaxclf.estimators.dispatch import (
    check_same_library,
    dispatches,
    library_of,
    namespace_of,
    on_host,
)
from jaxclf.estimators.inputs import (
    DTYPES,
    Training,
    filled,
    offset_like,
    padded_columns,
    padded_rows,
)
from jaxclf.forks import refuse_fork
from jaxclf.models.linear import LinearParams, logits
from jaxclf.objectives import Batch, make_objective
from jaxclf.penalties import Penalty
from jaxclf.scaling.devices import PLATFORMS, choose_device
from jaxclf.solvers.minimize import minimize
from jaxclf.solvers.result import SolverResult
from jaxclf.sparse_rows import canonical, from_csr

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
_ANY_GAP = float(np.finfo(np.float64).tiny)
"""The tolerance of the gap, so small that estimators stop by the gradient, as scikit-learn's do."""


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


def padded_bounds(bounds: tuple | None, width: int) -> tuple | None:
    """Bounds on the first columns as bounds on all; the others have none."""
    if bounds is None:
        return None
    more = [(0, 0)] * (bounds[0].ndim - 1) + [(0, width - bounds[0].shape[-1])]
    ends = zip(bounds, (-np.inf, np.inf), strict=True)
    return tuple(np.pad(x, more, constant_values=end) for x, end in ends)


def solve(
    loss: Callable,
    batch: Batch,
    start: LinearParams,
    penalty: Penalty,
    *,
    bounds: tuple | None = None,
    solver: str = "auto",
    tol: float,
    share: float = 1.0,
    max_iter: int,
    seed: int = 0,
    verbose: bool = False,
) -> SolverResult:
    """Runs :func:`jaxclf.minimize` in the dtype of the start, whatever JAX's 64-bit mode.

    The solver stops where no entry of the gradient is larger than ``tol`` times ``share``, and has
    converged if the bound on the gap is at most ``tol``. The start and the result have weights for
    the columns that were given. ``bounds`` are those of the first columns.
    """
    num_columns = start.weights.shape[-1]
    more = [(0, 0)] * (start.weights.ndim - 1)
    more.append((0, batch.features.shape[1] - num_columns))
    objective = make_objective(logits, loss, penalty)
    start = start._replace(weights=np.pad(start.weights, more))
    bounds = padded_bounds(bounds, batch.features.shape[1])
    with jax.enable_x64(True):
        if max_iter == 0:
            result = _at_start(objective, start, batch)
        else:
            result = minimize(
                objective,
                start,
                batch,
                solver=solver,
                bounds=bounds,
                tol=_ANY_GAP,
                gradient_tol=tol * share,
                max_steps=max_iter,
                seed=seed,
                verbose=verbose,
            )
    params = jax.tree.map(np.array, result.params)  # copies, which a user may write to
    params = params._replace(weights=np.ascontiguousarray(params.weights[..., :num_columns]))
    status, direction = result.status, result.direction
    if direction is not None:
        direction = jax.tree.map(np.asarray, direction)
        weights = np.ascontiguousarray(direction.weights[..., :num_columns])
        direction = direction._replace(weights=weights)
    elif result.gap_bound <= tol:
        status = "converged"
    elif status in ("max_steps", "stalled", "precision_floor") and result.gradient_norm <= tol:
        status = "stationary"
    return result._replace(params=params, direction=direction, status=status)


def _at_start(objective: Callable, start: LinearParams, batch: Batch) -> SolverResult:
    """The result of no step."""
    value, gradient = jax.value_and_grad(objective)(jax.tree.map(jnp.asarray, start), batch)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    return SolverResult(
        params=start,
        value=float(value),
        gradient_norm=largest,
        gap_bound=np.inf,
        status="max_steps",
        solver="none",
        steps=0,
        passes=1.0,
        trace=(),
        reason="no step was allowed",
    )


def on_device(training: Training, targets: np.ndarray, device: Any) -> Batch:
    """The rows of a fit on a device.

    The device is one of JAX, the first of a platform that is named, or JAX's own choice. The rows
    are filled up with rows of weight zero, and with columns of zeros.
    """
    refuse_fork()
    if isinstance(device, str):
        checks.check_option("device", device, PLATFORMS)
        device = choose_device(device)
    (n, d), offset = training.features.shape, training.offset
    size, width = padded_rows(n), padded_columns(d)
    with jax.enable_x64(True):
        if device is None and isinstance(training.features, jax.Array):
            device = training.features.device
        if issparse(training.features):
            # Programs are compiled for a count of numbers too.
            matrix = canonical("X", training.features)
            matrix.resize((size, width))
            features = from_csr(matrix, room=padded_rows(matrix.nnz))
        else:
            features = filled(training.features, (size, width))
        rows = Batch(
            features,
            filled(targets, (size, *targets.shape[1:])),
            filled(training.weights, (size,)),
            None if offset is None else filled(offset, (size, *offset.shape[1:])),
        )
        return jax.device_put(rows, device)


def zeros(training: Training, num_logits: int, intercept: bool) -> LinearParams:
    """The start of a fit: zeros, with weights ``(d,)`` for one logit and else ``(K, d)``."""
    dtype = training.features.dtype
    outputs = () if num_logits == 1 else (num_logits,)
    weights = np.zeros((*outputs, training.features.shape[1]), dtype)
    return LinearParams(weights, np.zeros(outputs, dtype) if intercept else None)


def of_constant(params: LinearParams, scaling: float) -> LinearParams:
    """The parameters of features without their last column, of a constant, and an intercept."""
    weights = params.weights
    return LinearParams(np.ascontiguousarray(weights[..., :-1]), weights[..., -1] * scaling)


def share_of(training: Training) -> float:
    """The smallest share of a class in the weights, times their number: one where all are equal.

    A gradient is small for a rare class whatever its coefficients are, so the tolerance is scaled
    by it, as that of liblinear is.
    """
    totals = training.weights.astype(np.float64) @ training.numbers
    totals = totals[totals > 0]
    return min(1.0, float(totals.min() / totals.mean()))


def with_defaults(estimator: type) -> dict:
    """The parameters of a class of estimators, with their defaults."""
    parameters = list(inspect.signature(estimator.__init__).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def options_of(estimator) -> dict:
    """The options of :func:`solve` that an estimator's parameters give."""
    return {
        "tol": estimator.tol,
        "max_iter": estimator.max_iter,
        "seed": seed_of(estimator.random_state),
        "verbose": estimator.verbose > 0,
    }


def seed_of(random_state) -> int:
    """A seed from a random state, as scikit-learn takes it."""
    return int(check_random_state(random_state).randint(2**31 - 1))


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
