"""Squared error on raw outputs, for comparison with log loss."""

from __future__ import annotations

from numbers import Integral, Real

from sklearn.linear_model import RidgeClassifier as SklearnRidgeClassifier
from sklearn.utils._param_validation import Interval

from jaxclf.estimators.base import LinearClassifier
from jaxclf.estimators.inputs import training_of, with_offset
from jaxclf.estimators.linear import on_device, solve, zeros
from jaxclf.estimators.parameters import CONSTRAINTS, check_parameters, factors_of
from jaxclf.losses import squared_error
from jaxclf.penalties import Penalty


class RidgeClassifier(LinearClassifier):
    """Least squares to targets of ±1, as scikit-learn's ``RidgeClassifier``.

    The fit minimises ``Σᵢ sᵢ ‖W xᵢ + b - tᵢ‖² + alpha ‖W‖²``, where ``tᵢₖ`` is 1 for the row's
    class and -1 for the others. There is one output for two classes. The objective is a quadratic,
    so one Newton step reaches its minimum.

    Args:
      alpha: strength of the penalty, at least 0.
      fit_intercept: whether there is an intercept; it is not penalised.
      max_iter: the most steps.
      tol: the solver stops where no entry of the gradient of the mean loss plus penalty is larger,
        or where rounding hides it.
      class_weight: ``{label: weight}``, ``"balanced"`` or ``None``.
      penalty_factors: numbers that alpha is multiplied by, ``{name of a feature: factor}``,
        ``(d,)`` or ``(K, d)``; 0 leaves a coefficient free, infinity fixes it at zero.
      dtype: float32 or float64; by default that of the features.
      device: a device of JAX, or ``"cpu"``, ``"gpu"``, ``"tpu"``.

    Attributes: ``classes_``, ``coef_`` (1 or K, d), ``intercept_``, ``n_iter_``,
    ``n_features_in_``, ``result_``.
    """

    _parameter_constraints = {  # noqa: RUF012
        **SklearnRidgeClassifier._parameter_constraints,
        **CONSTRAINTS,
        "penalty_factors": "no_validation",
        "alpha": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        alpha=1.0,
        *,
        fit_intercept=True,
        max_iter=100,
        tol=1e-6,
        class_weight=None,
        penalty_factors=None,
        dtype=None,
        device=None,
    ):
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.class_weight = class_weight
        self.penalty_factors = penalty_factors
        self.dtype = dtype
        self.device = device

    def fit(self, X, y, sample_weight=None, offset=None):
        """Finds the optimum for features ``(n, d)`` and labels ``(n,)``.

        ``offset`` is added to the outputs: ``(n,)`` for two classes, else ``(n, K)``.
        ``decision_function`` and ``predict`` take one too.

        Raises:
          ValueError, TypeError: parameters or data that are not accepted.
        """
        check_parameters(self)
        training = training_of(self, X, y, sample_weight, dispatched=True, takes_sparse=True)
        targets = 2 * training.numbers - 1
        if len(training.classes) == 2:
            targets = targets[:, 1]
        num_logits = 1 if targets.ndim == 1 else targets.shape[1]
        rows = with_offset(training, offset, num_logits)
        result = solve(
            squared_error,
            on_device(rows, targets, self.device),
            zeros(training, num_logits, self.fit_intercept),
            Penalty(l2=2 * self.alpha / float(training.weights.sum())),
            factors=factors_of(self, num_logits),
            tol=self.tol,
            max_iter=self.max_iter,
        )
        self._keep(result, training)
        return self
