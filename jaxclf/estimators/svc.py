"""Linear support vector machines: hinge and squared hinge, one-vs-rest and of all classes at once.

The hinge has a corner, which a Newton step cannot see. It is replaced by ``h_w``, a parabola across
a width w: ``h_w ≤ hinge ≤ h_w + w/2``, so the two minima differ by at most ``w/2`` for each logit.
Each width starts from the solution of a width ten times as large.

Sources: Fan et al., LIBLINEAR, JMLR 9 (2008); Weston and Watkins, Multi-class support vector
machines (1998); Nesterov, Smooth minimization of non-smooth functions, Math. Program. 103 (2005).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.svm import LinearSVC as SklearnLinearSVC
from sklearn.utils._param_validation import StrOptions

from jaxclf.estimators.base import LinearClassifier
from jaxclf.estimators.inputs import Training, training_of, with_constant, with_offset
from jaxclf.estimators.linear import on_device, options_of, solve, without_constant, zeros
from jaxclf.estimators.parameters import CONSTRAINTS, check_parameters, penalty_of
from jaxclf.facts import state_facts
from jaxclf.solvers.result import SolverResult

LOSSES = ("hinge", "squared_hinge")


class LinearSVC(LinearClassifier):
    """Linear support vector classification, as scikit-learn's ``LinearSVC``.

    The fit minimises ``C Σᵢ sᵢ Σₖ φ(mᵢₖ) + penalty(W)``, where φ(m) is max(0, m) or its square and
    the penalty is ``½ ‖W‖²`` or ``‖W‖₁``. With targets t of ±1, m is ``1 - t z`` for two classes
    and for each class against the rest. With ``weston_watkins`` m is ``1 + zₖ - z_y`` for each
    wrong class k. The intercept is ``intercept_scaling`` times a weight, which is penalised like
    the others, as scikit-learn's is.

    Args:
      penalty: ``l2``, or ``l1`` with the squared hinge.
      loss: ``squared_hinge`` or ``hinge``.
      dual: accepted for scikit-learn's sake. The primal is solved, which has the same optimum.
      tol: the solver stops where no entry of the gradient of the mean loss plus penalty is larger.
        The corner of the hinge is replaced by a parabola of the width ``tol`` over the number of
        logits, which changes the objective by ``tol / 2`` at most.
      C: inverse strength of the penalty, above 0.
      multi_class: ``ovr`` or ``weston_watkins``. There is no ``crammer_singer``.
      fit_intercept: whether there is an intercept.
      intercept_scaling: the larger, the less the intercept is penalised.
      class_weight: ``{label: weight}``, ``"balanced"`` or ``None``, for the rows of each class.
      verbose: above 0 prints the steps.
      random_state: the random state of the rows that large problems sample.
      max_iter: the most steps for each width.
      penalty_factors: numbers that the strength is multiplied by, ``{name of a feature: factor}``,
        ``(d,)`` or ``(K, d)``; 0 leaves a coefficient free, infinity fixes it at zero.
      dtype: float32 or float64; by default that of the features.
      device: a device of JAX, or ``"cpu"``, ``"gpu"``, ``"tpu"``.

    Attributes: ``classes_``, ``coef_`` (1 or K, d), ``intercept_``, ``n_iter_``,
    ``n_features_in_``, ``result_``.
    """

    _parameter_constraints = {  # noqa: RUF012
        **SklearnLinearSVC._parameter_constraints,
        **CONSTRAINTS,
        "penalty_factors": "no_validation",
        "multi_class": [StrOptions({"ovr", "weston_watkins"})],
    }

    def __init__(
        self,
        penalty="l2",
        loss="squared_hinge",
        *,
        dual="auto",
        tol=1e-4,
        C=1.0,
        multi_class="ovr",
        fit_intercept=True,
        intercept_scaling=1,
        class_weight=None,
        verbose=0,
        random_state=None,
        max_iter=1000,
        penalty_factors=None,
        dtype=None,
        device=None,
    ):
        self.penalty = penalty
        self.loss = loss
        self.dual = dual
        self.tol = tol
        self.C = C
        self.multi_class = multi_class
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.verbose = verbose
        self.random_state = random_state
        self.max_iter = max_iter
        self.penalty_factors = penalty_factors
        self.dtype = dtype
        self.device = device

    def fit(self, X, y, sample_weight=None, offset=None):
        """Finds the optimum for features ``(n, d)`` and labels ``(n,)``.

        ``offset`` is added to the scores: ``(n,)`` for two classes, else ``(n, K)``.
        ``decision_function`` and ``predict`` take one too.

        Raises:
          ValueError, TypeError: parameters or data that are not accepted.
        """
        check_parameters(self)
        if self.penalty == "l1" and self.loss == "hinge":
            raise ValueError("penalty 'l1' needs loss 'squared_hinge', got 'hinge'")
        training = training_of(self, X, y, sample_weight, dispatched=True, takes_sparse=True)
        num_logits = 1 if len(training.classes) == 2 else len(training.classes)
        constant = self.intercept_scaling if self.fit_intercept else None
        rows = with_offset(with_constant(training, constant), offset, num_logits)
        result = self._solve(rows)
        self._keep(result._replace(params=without_constant(result.params, constant)), training)
        return self

    def _solve(self, training: Training) -> SolverResult:
        num_classes = len(training.classes)
        signs = 2 * training.numbers - 1
        if num_classes == 2:
            signs = signs[:, 1:]
        num_logits = signs.shape[1]
        of_all = self.multi_class == "weston_watkins" and num_classes > 2
        loss, start = _loss(self.loss, of_all), zeros(training, num_logits, False)
        widths = _widths(self.tol / num_logits) if self.loss == "hinge" else (0.0,)
        targets = np.c_[signs, np.zeros(len(signs), signs.dtype)]
        batch, steps = on_device(training, targets, self.device), 0
        penalty = penalty_of(self.C, float(self.penalty == "l1"), training.weights)
        options = options_of(self, num_logits)
        for width in widths:
            with jax.enable_x64(True):
                labels = batch.labels.at[:, -1].set(jnp.asarray(width, batch.labels.dtype))
            result = solve(loss, batch._replace(labels=labels), start, penalty, **options)
            start, steps = result.params, steps + result.steps
        bound, status = result.gap_bound + num_logits * width / 2, result.status
        if status == "converged" and not bound <= self.tol:
            status = "stationary"
        return result._replace(gap_bound=bound, status=status, steps=steps)


def _widths(last: float) -> tuple[float, ...]:
    """The widths from one down to the last, each a tenth of the width before."""
    wide = 10.0 ** -np.arange(np.ceil(-np.log10(last))) if last < 1 else ()
    return (*wide, last)


@lru_cache(maxsize=len(LOSSES) * 2)
def _loss(name: str, of_all: bool) -> Callable:
    """``(scores, target) -> ()``; a target holds ±1 for each score, and last the width."""

    def squared(m, _):
        return jnp.maximum(m, 0) ** 2

    def smoothed(m, width):
        width = jnp.maximum(width, jnp.finfo(m.dtype).tiny)
        inside = jnp.clip(m, 0, width)
        return inside**2 / (2 * width) + jnp.maximum(m - width, 0)

    each = squared if name == "squared_hinge" else smoothed

    def loss(scores, target):
        z, signs, width = jnp.atleast_1d(scores), target[:-1], target[-1]
        m = 1 - signs * z
        if of_all:
            own = jnp.sum(jnp.where(signs > 0, z, 0))
            m = jnp.where(signs > 0, 0, 1 + z - own)
        return jnp.sum(each(m, width))

    structure = "any" if of_all else "separable"
    return state_facts(
        loss, convex=True, lower_bound=0.0, structure=structure, ignores_shifts=of_all
    )
