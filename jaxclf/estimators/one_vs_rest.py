"""One logistic regression per class, all in one fit: one-vs-rest, and several labels per row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import log_expit, log_softmax

from jaxclf.estimators.base import LinearClassifier
from jaxclf.estimators.dispatch import library_of, on_host
from jaxclf.estimators.inputs import training_of, with_constant, with_offset
from jaxclf.estimators.linear import (
    on_device,
    options_of,
    solve,
    tol_scale_of,
    without_constant,
    zeros,
)
from jaxclf.estimators.logistic import LogisticRegression, dtype_of
from jaxclf.estimators.parameters import (
    bounds_of,
    check_parameters,
    check_solver,
    constant_of,
    penalty_of,
    takes_sparse,
)
from jaxclf.losses import bernoulli_nll, multilabel_nll


class OneVsRestLogisticRegression(LinearClassifier):
    """The model of ``OneVsRestClassifier(LogisticRegression())``, in one fit instead of K.

    The fit minimises ``C Σᵢ sᵢ Σₖ log_loss(zᵢₖ, [yᵢ = k]) + penalty(W)``. The classes share nothing
    but the reading of the features. A y of zeros and ones ``(n, K)`` says for each row which of K
    labels it has, any number of them; then predictions are such matrices.

    Args:
      C, l1_ratio, tol, fit_intercept, random_state, solver, max_iter, verbose, dtype, device: the
        same as in :class:`~jaxclf.LogisticRegression`, whose other parameters are not here.
      penalty_factors: the same as there, by name, ``(d,)`` or ``(K, d)``.
      monotonic_cst: the direction in which each feature acts on the probability of every class
        against the rest, or of every label: 1 for a coefficient of at least 0, -1 for at most 0, 0
        for any; by name, ``(d,)`` or ``(K, d)``.

    Attributes: ``classes_``, ``coef_`` (K, d), or (1, d) for two classes, ``intercept_``,
    ``multilabel_``, ``n_iter_``, ``n_features_in_``, ``result_``.

    Source: Rifkin and Klautau, In defense of one-vs-all classification, J. Mach. Learn. Res. 5
    (2004).
    """

    _parameter_constraints = LogisticRegression._parameter_constraints

    def __init__(
        self,
        *,
        C=1.0,
        l1_ratio=0.0,
        tol=1e-4,
        fit_intercept=True,
        random_state=None,
        solver="auto",
        max_iter=100,
        verbose=0,
        penalty_factors=None,
        monotonic_cst=None,
        dtype=None,
        device=None,
    ):
        self.C = C
        self.l1_ratio = l1_ratio
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.penalty_factors = penalty_factors
        self.monotonic_cst = monotonic_cst
        self.dtype = dtype
        self.device = device

    def fit(self, X, y, sample_weight=None, offset=None):
        """Finds the optimum for features ``(n, d)`` and labels ``(n,)`` or indicators ``(n, K)``.

        ``offset`` is added to the logits: ``(n,)`` for two classes, else ``(n, K)``. ``predict``
        and the other methods for rows take one too.

        Raises:
          ValueError, TypeError: parameters or data that are not accepted.
        """
        check_parameters(self)
        given = {"C": self.C, "l1_ratio": self.l1_ratio, "monotonic_cst": self.monotonic_cst}
        check_solver(self.solver, dual=False, **given)
        training = training_of(
            self,
            X,
            y,
            sample_weight,
            dtype=dtype_of(self),
            matrix="indicators",
            dispatched=True,
            takes_sparse=takes_sparse(self.solver),
        )
        self.multilabel_ = training.targets.ndim == 2
        single = len(training.classes) == 2 and not self.multilabel_
        num_logits = 1 if single else len(training.classes)
        constant = constant_of(self)
        rows = with_offset(with_constant(training, constant), offset, num_logits)
        result = solve(
            bernoulli_nll if single else multilabel_nll,
            on_device(rows, rows.targets if single else rows.numbers, self.device),
            zeros(rows, num_logits, self.fit_intercept and constant is None),
            penalty_of(self.C, self.l1_ratio, training.weights),
            bounds=bounds_of(self.monotonic_cst, self, num_logits, one_vs_rest=True),
            tol_scale=tol_scale_of(training),
            **options_of(self, num_logits),
        )
        self._keep(result._replace(params=without_constant(result.params, constant)), training)
        return self

    def predict(self, X, offset=None) -> np.ndarray:
        """The label of each row, ``(n,)``, or zeros and ones ``(n, K)``."""
        if getattr(self, "multilabel_", False):
            numbers = (on_host(self.decision_function(X, offset)) > 0).astype(int)
            return numbers if library_of(X) is None else library_of(X).array(numbers)
        return super().predict(X, offset)

    def predict_proba(self, X, offset=None) -> np.ndarray:
        """``(n, K)`` probabilities, one for each of several labels, else scaled to sum to one."""
        return self._from_logarithms(X, offset, np.exp)

    def predict_log_proba(self, X, offset=None) -> np.ndarray:
        """``(n, K)`` logarithms of the probabilities, exact where a probability rounds to zero."""
        return self._from_logarithms(X, offset, lambda logarithms: logarithms)

    def _from_logarithms(self, X, offset, of_logarithms: Callable) -> np.ndarray:
        """A function of the logarithms of the probabilities.

        A tie that rounding makes goes to the label that ``predict`` gives.
        """
        library, scores = library_of(X), on_host(self.decision_function(X, offset))
        if scores.ndim == 1:
            found = of_logarithms(np.stack([log_expit(-scores), log_expit(scores)], 1))
        elif self.multilabel_:
            found = of_logarithms(log_expit(scores))
        else:
            found, chosen = of_logarithms(log_softmax(log_expit(scores), 1)), scores.argmax(1)
            tied = np.flatnonzero(found.argmax(1) != chosen)
            above = np.nextafter(found[tied].max(1), found.dtype.type(np.inf))
            found[tied, chosen[tied]] = above
        return found if library is None else library.array(found)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
