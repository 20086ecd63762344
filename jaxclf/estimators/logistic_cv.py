"""Logistic regression whose penalty is chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from sklearn.metrics import get_scorer, log_loss, make_scorer
from sklearn.model_selection import check_cv
from sklearn.utils.validation import _check_sample_weight

from jaxclf import checks
from jaxclf.estimators.inputs import Training, placed, training_of
from jaxclf.estimators.linear import ADVICE, on_device, options_of, solve, warn, zeros
from jaxclf.estimators.logistic import (
    LogisticClassifier,
    LogisticRegression,
    check_primal,
    log_loss_of,
    penalty_of,
    solver_of,
    strength_of,
)
from jaxclf.models.linear import LinearParams
from jaxclf.solvers.result import SolverResult


class LogisticRegressionCV(LogisticClassifier):
    """:class:`~jaxclf.LogisticRegression` with C and ``l1_ratio`` chosen over folds.

    The folds are weights of zero and one on the same rows on the device, so no fold copies the
    features or compiles anything. Each path of penalties goes from strong to weak, and every
    solution is the start of the next. Parameters have scikit-learn's names, without ``penalty`` and
    ``use_legacy_attributes``. Attributes have the shapes that they have there if the latter is
    False; only ``coefs_paths_`` has a place for the intercept where there is none, too.

    Args:
      Cs: the number of values, spaced evenly in the logarithm from 1e-4 to 1e4, or the values.
      l1_ratios: shares of L1 in the penalty that are tried.
      cv: the number of folds, 5 by default, or a splitter or an iterable of pairs of row numbers.
      scoring: the name of a scorer of scikit-learn or a callable ``(estimator, X, y)``; by default
        ``neg_log_loss``, not accuracy, which ``None`` means.
      refit: whether the chosen penalty is fitted to all rows; otherwise the coefficients of the
        best penalty of each fold are averaged.
      fit_intercept, dual, solver, tol, max_iter, class_weight, n_jobs, verbose, intercept_scaling,
      random_state, dtype, device: the same as in :class:`~jaxclf.LogisticRegression`. Balanced
        weights are those of all rows.

    Attributes: ``C_``, ``l1_ratio_``, ``Cs_``, ``l1_ratios_``, ``scores_`` and ``n_iter_`` (folds,
    ratios, Cs), ``coefs_paths_`` (folds, ratios, Cs, 1 or K, d + 1; last the intercept, or 0), and
    the attributes of :class:`~jaxclf.LogisticRegression`, ``result_`` with ``refit`` only.
    """

    def __init__(
        self,
        *,
        Cs=10,
        l1_ratios=(0.0,),
        fit_intercept=True,
        cv=None,
        dual=False,
        scoring="neg_log_loss",
        solver="auto",
        tol=1e-4,
        max_iter=100,
        class_weight=None,
        n_jobs=None,
        verbose=0,
        refit=True,
        intercept_scaling=1.0,
        random_state=None,
        dtype=None,
        device=None,
    ):
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.dual = dual
        self.scoring = scoring
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.refit = refit
        self.intercept_scaling = intercept_scaling
        self.random_state = random_state
        self.dtype = dtype
        self.device = device

    def fit(self, X, y, sample_weight=None):
        """Chooses a penalty and fits it to features ``(n, d)`` and labels ``(n,)``.

        Raises:
          ValueError, TypeError: parameters or data that are not accepted.
        """
        check_primal(self.dual, self.intercept_scaling)
        Cs = np.geomspace(1e-4, 1e4, self.Cs) if np.ndim(self.Cs) == 0 else np.array(self.Cs)
        ratios = np.atleast_1d(np.asarray(self.l1_ratios, float))
        if not (len(Cs) and len(ratios)):
            raise ValueError("Cs and l1_ratios must not be empty")
        for C in Cs:
            strength_of("deprecated", C, ratios[0])
        for ratio in ratios:
            checks.check_number("l1_ratios", ratio, at_least=0, at_most=1)
            solver_of(self.solver, ratio)
        training = training_of(
            self, X, y, sample_weight, dtype=self.dtype, class_weight=self.class_weight
        )
        labels = training.classes[training.targets]
        folds = list(check_cv(self.cv, labels, classifier=True).split(training.features, labels))
        loss, targets, num_logits = log_loss_of(training)
        batch = on_device(training, targets, self.device)
        start = zeros(training, num_logits, self.fit_intercept)

        def path(rows: np.ndarray, ratio: float) -> list[SolverResult]:
            weights = np.zeros_like(training.weights)
            np.add.at(weights, rows, training.weights[rows])
            with jax.enable_x64(True):
                held = placed(weights, batch.weights.shape, batch.weights.device)
            return self._path(loss, batch._replace(weights=held), start, Cs, ratio)

        paths = [[path(rows, ratio) for ratio in ratios] for rows, _ in folds]
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, training.features)
        scores = np.array(
            [
                [self._scores(training, sample_weight, labels, p, held) for p in q]
                for q, (_, held) in zip(paths, folds, strict=True)
            ]
        )
        if np.isnan(scores).any():
            raise ValueError(
                f"scoring {self.scoring!r} is no number for the held-out rows of fold "
                f"{np.argwhere(np.isnan(scores))[0, 0]}: does the fold hold every class?"
            )
        self.Cs_, self.l1_ratios_, self.classes_ = Cs, ratios, training.classes
        for result in (r for q in paths for p in q for r in p):
            if result.status in ADVICE:
                warn(result, training.features)
                break
        self.coefs_paths_ = np.array([[[_joined(r.params) for r in p] for p in q] for q in paths])
        self.n_iter_ = np.array([[[r.steps for r in p] for p in q] for q in paths])
        self.scores_ = scores
        if self.refit:
            mean = self.scores_.mean(0)
            ratio, place = np.unravel_index(np.argmax(mean), mean.shape)
            self.C_, self.l1_ratio_ = float(Cs[place]), float(ratios[ratio])
            start, iterations = paths[0][ratio][place].params, self.n_iter_
            [result] = self._path(loss, batch, start, Cs[[place]], ratios[ratio])
            self._keep(result, training)
            self.n_iter_ = iterations
        else:
            best = [np.unravel_index(np.argmax(s), s.shape) for s in self.scores_]
            joined = np.mean([self.coefs_paths_[f][b] for f, b in enumerate(best)], 0)
            self.C_ = float(np.mean([Cs[c] for _, c in best]))
            self.l1_ratio_ = float(np.mean([ratios[r] for r, _ in best]))
            self.coef_, self.intercept_ = joined[:, :-1], joined[:, -1]
            vars(self).pop("result_", None)
        return self

    def _path(self, loss, batch, params, Cs: np.ndarray, ratio: float) -> list[SolverResult]:
        """Results for Cs, in their order, from the strongest penalty to the weakest."""
        results = {}
        for place in np.argsort(Cs, kind="stable"):
            result = solve(
                loss,
                batch,
                params,
                penalty_of(Cs[place], ratio, np.asarray(batch.weights)),
                solver=solver_of(self.solver, ratio),
                **options_of(self),
            )
            results[place] = result
            if np.isfinite(result.value):
                params = result.params
        return [results[place] for place in range(len(Cs))]

    def score(self, X, y, sample_weight=None) -> float:
        """The score that ``scoring`` gives the predictions."""
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        return float(self._scorer(self.classes_)(self, X, y, **weights))

    def _scorer(self, labels: np.ndarray) -> Callable:
        if self.scoring == "neg_log_loss":  # a fold may lack a class
            return make_scorer(
                log_loss, greater_is_better=False, response_method="predict_proba", labels=labels
            )
        return get_scorer("accuracy" if self.scoring is None else self.scoring)

    def _scores(self, training: Training, sample_weight, labels, path: list, held) -> list[float]:
        scorer = self._scorer(training.classes)
        features, truth = training.features[held], labels[held]
        weights = (
            {} if sample_weight is None else {"sample_weight": np.asarray(sample_weight)[held]}
        )
        scores = []
        for result in path:
            judged = LogisticRegression()
            judged.classes_, judged.n_features_in_ = training.classes, features.shape[1]
            joined = _joined(result.params)
            judged.coef_, judged.intercept_ = joined[:, :-1], joined[:, -1]
            scores.append(float(scorer(judged, features, truth, **weights)))
        return scores


def _joined(params: LinearParams) -> np.ndarray:
    """The parameters as one matrix ``(1 or K, d + 1)``, the intercept last."""
    weights = np.atleast_2d(params.weights)
    intercept = np.zeros(len(weights)) if params.intercept is None else params.intercept
    return np.c_[weights, np.atleast_1d(intercept)].astype(weights.dtype)
