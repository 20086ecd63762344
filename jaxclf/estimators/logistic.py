"""Logistic and softmax regression with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression

from jaxclf.estimators.base import LinearClassifier
from jaxclf.estimators.dispatch import dispatches, namespace_of, on_host
from jaxclf.estimators.inputs import Training, training_of, with_constant, with_offset
from jaxclf.estimators.linear import (
    on_device,
    options_of,
    solve,
    tol_scale_of,
    without_constant,
    zeros,
)
from jaxclf.estimators.parameters import (
    CONSTRAINTS,
    bounds_of,
    check_firth,
    check_liblinear,
    check_parameters,
    check_solver,
    constant_of,
    penalty_of,
    strength_of,
    takes_sparse,
    warn_of_jobs,
)
from jaxclf.losses import bernoulli_nll, categorical_nll, soft_categorical_nll
from jaxclf.models.linear import LinearParams
from jaxclf.objectives import Batch
from jaxclf.solvers.result import SolverResult


class LogisticClassifier(LinearClassifier):
    """A linear classifier with probabilities: a sigmoid of one logit, a softmax of K logits."""

    def predict_proba(self, X, offset=None) -> np.ndarray:
        """``(n, K)`` probabilities of the classes, in the order of ``classes_``."""
        scores = self.decision_function(X, offset)
        if dispatches():
            return softmax(_logit_per_class(scores), 1)
        if scores.ndim == 1:
            return np.stack([expit(-scores), expit(scores)], 1)
        return softmax(scores, 1)

    def predict_log_proba(self, X, offset=None) -> np.ndarray:
        """``(n, K)`` logarithms of the probabilities, exact where a probability rounds to zero."""
        scores = self.decision_function(X, offset)
        if dispatches():
            return log_softmax(_logit_per_class(scores), 1)
        if scores.ndim == 1:
            return np.stack([log_expit(-scores), log_expit(scores)], 1)
        return log_softmax(scores, 1)

    def set_callbacks(self, *callbacks):
        """Warns that the callbacks, an experiment of scikit-learn 1.9, are not called."""
        warnings.warn(
            f"Callbacks are only supported in {type(self).__name__} for solver='lbfgs' of "
            f"scikit-learn: this one calls none of the {len(callbacks)}",
            UserWarning,
            stacklevel=2,
        )
        return self


class LogisticRegression(LogisticClassifier, SklearnLogisticRegression):
    """Logistic regression of two classes, softmax regression of more.

    The fit minimises ``C Σᵢ sᵢ lossᵢ + l1_ratio ‖W‖₁ + (1 - l1_ratio)/2 ‖W‖²`` with the solvers of
    :func:`jaxclf.minimize`; sᵢ is the weight of a row times the weight of its class. Parameters and
    attributes are scikit-learn's and mean the same; in addition:

    - ``y`` may be a matrix ``(n, K)`` of probabilities, which are the targets of each row.
    - It computes in the dtype of the features, float32 or float64, or in ``dtype``.
    - ``result_`` is the :class:`~jaxclf.solvers.result.SolverResult`, with the status and an upper
      bound on the gap to the optimum (of the mean loss plus penalty).

    Args:
      penalty: superseded by ``l1_ratio`` and ``C=inf``, as in scikit-learn.
      C: inverse strength of the penalty, above 0; infinite for none.
      penalty_factors: numbers that the strength is multiplied by, ``{name of a feature: factor}``,
        ``(d,)`` or ``(K, d)``; 0 leaves a coefficient free, infinity fixes it at zero.
      monotonic_cst: the direction in which each feature acts on the probability of the second of
        two classes, as scikit-learn's trees spell it: 1 for a coefficient of at least 0, -1 for at
        most 0, 0 for any; ``(d,)`` or ``{name of a feature: number}``, where others have 0.
      l1_ratio: share of L1 in the penalty, in [0, 1].
      dual: True with ``liblinear`` only. The primal is solved, which has the same optimum.
      tol: the solver stops where no entry of the gradient of the mean loss plus penalty is larger
        than ``tol`` times the smallest share of a class times the number of classes, or where
        rounding hides it.
      fit_intercept: whether there is an intercept; only ``liblinear`` penalises it.
      intercept_scaling: the value of the column whose weight ``liblinear`` takes for the intercept.
      class_weight: ``{label: weight}``, ``"balanced"`` or ``None``.
      random_state: the random state of the rows that large problems sample; the optimum does not
        depend on it.
      solver: ``auto``; ``newton-cg``, ``newton-cholesky`` or ``lbfgs``; ``sag`` or ``saga``, each
        of which means ``auto``; ``liblinear`` for its objective, in which the intercept is
        penalised, of two classes and in float64. Only ``auto``, ``saga`` and ``liblinear`` take
        L1.
      max_iter: the most steps; 0 leaves the start.
      verbose: above 0 prints the steps.
      warm_start: whether to start from the last solution.
      n_jobs: no effect but a warning, as in scikit-learn; a step uses every core.
      dtype: float32 or float64.
      device: a device of JAX, or ``"cpu"``, ``"gpu"``, ``"tpu"``.
      firth: whether the fit is the maximum of Firth's penalised likelihood of two classes, with
        ``C=inf``, as it has no other penalty. It is finite where the classes are separated, and
        less biased with few rows; :func:`jaxclf.inference.firth` has its errors and intervals. The
        result has no bound on the gap.

    Attributes: ``classes_``, ``coef_`` (1 or K, d), ``intercept_`` (1 or K,), ``n_iter_``,
    ``n_features_in_``, ``feature_names_in_``, ``result_``.
    """

    _parameter_constraints = {  # noqa: RUF012
        **SklearnLogisticRegression._parameter_constraints,
        **CONSTRAINTS,
        "penalty_factors": "no_validation",
        "monotonic_cst": ["array-like", dict, None],
        "firth": ["boolean"],
    }

    def __init__(
        self,
        penalty="deprecated",
        *,
        C=1.0,
        l1_ratio=0.0,
        dual=False,
        tol=1e-4,
        fit_intercept=True,
        intercept_scaling=1,
        class_weight=None,
        random_state=None,
        solver="auto",
        max_iter=100,
        verbose=0,
        warm_start=False,
        n_jobs=None,
        penalty_factors=None,
        monotonic_cst=None,
        dtype=None,
        device=None,
        firth=False,
    ):
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.penalty_factors = penalty_factors
        self.monotonic_cst = monotonic_cst
        self.dtype = dtype
        self.device = device
        self.firth = firth

    def fit(self, X, y, sample_weight=None, offset=None):
        """Finds the optimum for features ``(n, d)`` and labels ``(n,)`` or probabilities.

        ``offset`` is added to the logits: ``(n,)`` for two classes, else ``(n, K)``. ``predict``
        and the other methods for rows take one too.

        Raises:
          ValueError, TypeError: parameters or data that are not accepted.
        """
        check_parameters(self)
        warn_of_jobs(self.n_jobs)
        C, l1_ratio = strength_of(self.penalty, self.C, self.l1_ratio)
        directions = self.monotonic_cst
        check_solver(self.solver, C=C, l1_ratio=l1_ratio, dual=self.dual, monotonic_cst=directions)
        if self.firth:
            check_firth(self.solver, C, self.penalty_factors, directions)
        training = training_of(
            self,
            X,
            y,
            sample_weight,
            dtype=dtype_of(self),
            matrix="probabilities",
            dispatched=True,
            takes_sparse=takes_sparse(self.solver) and not self.firth,
        )
        if liblinear := self.solver == "liblinear":
            check_liblinear(training.features, len(training.classes))
        constant, (loss, targets, num_logits) = constant_of(self), log_loss_of(training)
        rows = with_offset(with_constant(training, constant), offset, num_logits)
        start = zeros(rows, num_logits, self.fit_intercept and constant is None)
        if self.warm_start and not liblinear and hasattr(self, "coef_"):
            start = _restart(start, on_host(self.coef_), on_host(self.intercept_))
        if self.firth:
            self._keep(firth_result(rows, start, targets), training)
            return self
        result = solve(
            loss,
            on_device(rows, targets, self.device),
            start,
            penalty_of(C, l1_ratio, training.weights),
            bounds=bounds_of(directions, self, num_logits),
            tol_scale=tol_scale_of(training),
            **options_of(self, num_logits),
        )
        self._keep(result._replace(params=without_constant(result.params, constant)), training)
        return self


def firth_result(training: Training, start: LinearParams, targets: np.ndarray) -> SolverResult:
    """The maximum of Firth's penalised likelihood as the result of a solver.

    Raises:
      ValueError: more than two classes, or columns that depend on each other.
    """
    from jaxclf.inference.firth import firth_maximum  # all of inference takes 30 ms to import

    if start.weights.ndim == 2:
        raise ValueError(
            f"firth=True takes two classes, got {len(training.classes)}: fit one class against "
            "the rest"
        )
    batch = Batch(on_host(training.features), targets, training.weights, training.offset)
    found = firth_maximum(start, batch)
    d, dtype = start.weights.shape[0], start.weights.dtype
    total = float(found.rows[2].sum())
    intercept = None if start.intercept is None else found.theta[d].astype(dtype)
    return SolverResult(
        params=LinearParams(found.theta[:d].astype(dtype), intercept),
        value=-found.log_likelihood / total,
        gradient_norm=float(np.abs(found.point.score * found.scale).max()) / total,
        gap_bound=np.inf,
        status="stationary",
        solver="firth: as asked",
        steps=found.point.steps,
        passes=float(found.point.steps),
        trace=(),
        reason="Firth's penalised likelihood is not concave everywhere",
    )


def _logit_per_class(scores: Any) -> Any:
    """The logit of each class, in an array of any library; the first of two classes has zero."""
    if scores.ndim == 2:
        return scores
    namespace = namespace_of(scores)
    return namespace.stack([namespace.zeros_like(scores), scores], axis=1)


def dtype_of(estimator) -> Any:
    """The dtype that is asked for; liblinear computes in float64."""
    given = estimator.dtype
    return np.float64 if given is None and estimator.solver == "liblinear" else given


def log_loss_of(training: Training):
    """The loss of the logits, its targets, and how many logits there are."""
    targets, num_classes = training.targets, len(training.classes)
    if num_classes == 2:
        return bernoulli_nll, targets[:, 1] if targets.ndim == 2 else targets, 1
    return categorical_nll if targets.ndim == 1 else soft_categorical_nll, targets, num_classes


def _restart(start: LinearParams, coef, intercept) -> LinearParams:
    """The last solution if its shape fits the data, else the start."""
    if np.shape(coef) != np.shape(np.atleast_2d(start.weights)):
        return start
    coef = coef.toarray() if sparse.issparse(coef) else coef
    weights = np.asarray(coef, start.weights.dtype).reshape(start.weights.shape)
    if start.intercept is None:
        return LinearParams(weights, None)
    return LinearParams(
        weights, np.asarray(intercept, weights.dtype).reshape(start.intercept.shape)
    )
