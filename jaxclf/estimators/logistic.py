"""Logistic and softmax regression with scikit-learn's interface."""

from __future__ import annotations

import warnings
from numbers import Real

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax

from jaxclf import checks
from jaxclf.estimators.inputs import Training, training_of
from jaxclf.estimators.linear import (
    SOLVER_NAMES,
    LinearClassifier,
    on_device,
    options_of,
    solve,
    zeros,
)
from jaxclf.losses import bernoulli_nll, categorical_nll, soft_categorical_nll
from jaxclf.models.linear import LinearParams
from jaxclf.penalties import Penalty, strength_from_sklearn


class LogisticClassifier(LinearClassifier):
    """A linear classifier with probabilities: a sigmoid of one logit, a softmax of K logits."""

    def predict_proba(self, X) -> np.ndarray:
        """``(n, K)`` probabilities of the classes, in the order of ``classes_``."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.stack([expit(-scores), expit(scores)], 1)
        return softmax(scores, 1)

    def predict_log_proba(self, X) -> np.ndarray:
        """``(n, K)`` logarithms of the probabilities, exact where a probability rounds to zero."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.stack([log_expit(-scores), log_expit(scores)], 1)
        return log_softmax(scores, 1)


class LogisticRegression(LogisticClassifier):
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
      l1_ratio: share of L1 in the penalty, in [0, 1].
      dual: False; the primal is solved.
      tol: the solver stops where no entry of the gradient of the mean loss plus penalty is larger,
        or where rounding hides it.
      fit_intercept: whether there is an intercept; it is not penalised.
      intercept_scaling: 1, as the intercept is not penalised.
      class_weight: ``{label: weight}``, ``"balanced"`` or ``None``.
      random_state: the random state of the rows that large problems sample; the optimum does not
        depend on it.
      solver: ``auto``; ``newton-cg``, ``newton-cholesky`` or ``lbfgs``, which take no L1; ``sag``
        or ``saga``, each of which means ``auto``. There is no ``liblinear``: it penalises the
        intercept.
      max_iter: the most steps.
      verbose: above 0 prints the steps.
      warm_start: whether to start from the last solution.
      n_jobs: no effect, as in scikit-learn; a step uses every core.
      dtype: float32 or float64.
      device: a device of JAX, or ``"cpu"``, ``"gpu"``, ``"tpu"``.

    Attributes: ``classes_``, ``coef_`` (1 or K, d), ``intercept_`` (1 or K,), ``n_iter_``,
    ``n_features_in_``, ``feature_names_in_``, ``result_``.
    """

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
        dtype=None,
        device=None,
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
        self.dtype = dtype
        self.device = device

    def fit(self, X, y, sample_weight=None):
        """Finds the optimum for features ``(n, d)`` and labels ``(n,)`` or probabilities.

        Raises:
          ValueError, TypeError: parameters or data that are not accepted.
        """
        C, l1_ratio = strength_of(self.penalty, self.C, self.l1_ratio)
        check_primal(self.dual, self.intercept_scaling)
        solver = solver_of(self.solver, l1_ratio)
        training = training_of(
            self,
            X,
            y,
            sample_weight,
            dtype=self.dtype,
            class_weight=self.class_weight,
            matrix="probabilities",
        )
        loss, targets, num_logits = log_loss_of(training)
        start = zeros(training, num_logits, self.fit_intercept)
        if self.warm_start and hasattr(self, "coef_"):
            start = _restart(start, self.coef_, self.intercept_)
        result = solve(
            loss,
            on_device(training, targets, self.device),
            start,
            penalty_of(C, l1_ratio, training.weights),
            solver=solver,
            **options_of(self),
        )
        self._keep(result, training)
        return self


def strength_of(penalty, C, l1_ratio) -> tuple[float, float]:
    """``(C, l1_ratio)`` from the parameters that set the penalty; C is infinite for no penalty."""
    if penalty != "deprecated":
        warnings.warn(
            "penalty is superseded: use l1_ratio=0 for 'l2', l1_ratio=1 for 'l1', another l1_ratio "
            "for 'elasticnet', and C=numpy.inf for None",
            FutureWarning,
            stacklevel=3,
        )
        checks.check_option("penalty", penalty, ("l1", "l2", "elasticnet", None))
        if penalty is None:
            C = np.inf
        elif penalty != "elasticnet":
            l1_ratio = float(penalty == "l1")
    l1_ratio = 0.0 if l1_ratio is None else l1_ratio
    if not isinstance(C, Real) or not C > 0:
        raise ValueError(f"C must be a number above 0, got {C!r}")
    checks.check_number("l1_ratio", l1_ratio, at_least=0, at_most=1)
    return float(C), float(l1_ratio)


def check_primal(dual, intercept_scaling) -> None:
    """Raises ValueError for options that only a solver that penalises the intercept can use."""
    if dual:
        raise ValueError(
            "dual must be False: the primal problem is solved, and has the same optimum"
        )
    if intercept_scaling != 1:
        raise ValueError(
            f"intercept_scaling must be 1, got {intercept_scaling!r}: no intercept is penalised"
        )


def solver_of(name: str, l1_ratio: float) -> str:
    """Our solver for one of scikit-learn's names."""
    if name == "liblinear":
        raise ValueError(
            "solver 'liblinear' penalises the intercept, which no solver here does: use 'auto', "
            "or 'saga' with an L1 penalty"
        )
    checks.check_option("solver", name, SOLVER_NAMES)
    if l1_ratio > 0 and SOLVER_NAMES[name] != "auto":
        raise ValueError(f"solver {name!r} takes no L1 penalty: use 'auto' or 'saga'")
    return SOLVER_NAMES[name]


def log_loss_of(training: Training):
    """The loss of the logits, its targets, and how many logits there are."""
    targets, num_classes = training.targets, len(training.classes)
    if num_classes == 2:
        return bernoulli_nll, targets[:, 1] if targets.ndim == 2 else targets, 1
    return categorical_nll if targets.ndim == 1 else soft_categorical_nll, targets, num_classes


def penalty_of(C: float, l1_ratio: float, weights: np.ndarray) -> Penalty:
    """The penalty beside the mean loss, for a C beside the sum of the losses."""
    if np.inf == C:
        return Penalty()
    strength = strength_from_sklearn(C, float(np.sum(weights, dtype=np.float64)))
    return Penalty(l1=l1_ratio * strength, l2=(1 - l1_ratio) * strength)


def _restart(start: LinearParams, coef, intercept) -> LinearParams:
    """The last solution if its shape fits the data, else the start."""
    if np.shape(coef) != np.shape(np.atleast_2d(start.weights)):
        return start
    weights = np.asarray(coef, start.weights.dtype).reshape(start.weights.shape)
    if start.intercept is None:
        return LinearParams(weights, None)
    return LinearParams(
        weights, np.asarray(intercept, weights.dtype).reshape(start.intercept.shape)
    )
