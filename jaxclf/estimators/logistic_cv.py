"""Logistic regression whose penalty is chosen by cross-validation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from sklearn.linear_model import LogisticRegressionCV as SklearnLogisticRegressionCV
from sklearn.model_selection import check_cv
from sklearn.utils._metadata_requests import _raise_for_params
from sklearn.utils._param_validation import StrOptions

from jaxclf.estimators.base import ADVICE, steps_of, warn
from jaxclf.estimators.fold_scores import held_out_scores, routed, told_classes
from jaxclf.estimators.inputs import filled, training_of, with_constant, with_offset
from jaxclf.estimators.linear import (
    on_device,
    options_of,
    padded_bounds,
    solve_each,
    tol_scale_of,
    widened,
    without_constant,
    zeros,
)
from jaxclf.estimators.logistic import (
    LogisticClassifier,
    LogisticRegression,
    dtype_of,
    log_loss_of,
)
from jaxclf.estimators.parameters import (
    CONSTRAINTS,
    bounds_of,
    check_liblinear,
    check_parameters,
    check_solver,
    constant_of,
    factors_of,
    penalty_of,
    ratios_of,
    takes_sparse,
    warn_of_defaults,
)
from jaxclf.messages import shortened
from jaxclf.models.linear import LinearParams, logits
from jaxclf.objectives import Batch, make_objective
from jaxclf.penalties import elastic_net, total_strength
from jaxclf.solvers.path import strength_range
from jaxclf.solvers.result import SolverResult

_THEIRS = inspect.signature(SklearnLogisticRegressionCV).parameters
"""The parameters of scikit-learn's class, whose defaults change from version to version."""


class LogisticRegressionCV(LogisticClassifier, SklearnLogisticRegressionCV):
    """:class:`~jaxclf.LogisticRegression` with C and ``l1_ratio`` chosen over folds.

    The folds are weights of zero and one on the same rows on the device, so no fold copies the
    features or compiles anything. Each path of penalties goes from strong to weak, and every
    solution is the start of the next. Parameters, defaults, warnings and attributes are those of
    the scikit-learn that is installed.

    Args:
      Cs: the number of values, spaced evenly in the logarithm from 1e-4 to 1e4, or the values; or
        ``"path"``, 100 values from the one below which all coefficients are zero, as
        :func:`jaxclf.minimize_path` spaces them.
      l1_ratios: shares of L1 in the penalty that are tried.
      cv: the number of folds, 5 by default, or a splitter or an iterable of pairs of row numbers.
      penalty: superseded by ``l1_ratios``, as in scikit-learn.
      scoring: the name of a scorer of scikit-learn or a callable ``(estimator, X, y)``; ``None``
        means accuracy. A score that takes ``labels`` is given all classes, as a fold may lack one.
      refit: whether the chosen penalty is fitted to all rows; otherwise the coefficients of the
        best penalty of each fold are averaged.
      use_legacy_attributes: whether attributes have the shapes that they had before scikit-learn
        1.10: dicts over classes, with axes (folds, Cs, ratios).
      fit_intercept, dual, solver, tol, max_iter: the same as in
        :class:`~jaxclf.LogisticRegression`.
      class_weight: the same there; balanced weights are those of all rows.
      verbose, intercept_scaling, random_state, penalty_factors, monotonic_cst, dtype, device: the
        same there too.
      n_jobs: no effect; a step uses every core.

    Attributes: ``C_``, ``l1_ratio_``, ``Cs_``, ``l1_ratios_``, ``scores_`` and ``n_iter_`` (folds,
    ratios, Cs), ``coefs_paths_`` (folds, ratios, Cs, 1 or K, d + 1; last the intercept, if there is
    one), and those of :class:`~jaxclf.LogisticRegression`, ``result_`` with ``refit`` only.
    """

    _parameter_constraints = {  # noqa: RUF012
        **SklearnLogisticRegressionCV._parameter_constraints,
        **CONSTRAINTS,
        "Cs": [*SklearnLogisticRegressionCV._parameter_constraints["Cs"], StrOptions({"path"})],
        "penalty_factors": "no_validation",
        "monotonic_cst": LogisticRegression._parameter_constraints["monotonic_cst"],
    }

    def __init__(
        self,
        *,
        Cs=10,
        l1_ratios=_THEIRS["l1_ratios"].default,
        fit_intercept=True,
        cv=None,
        dual=False,
        penalty="deprecated",
        scoring=_THEIRS["scoring"].default,
        solver="auto",
        tol=1e-4,
        max_iter=100,
        class_weight=None,
        n_jobs=None,
        verbose=0,
        refit=True,
        intercept_scaling=1.0,
        random_state=None,
        use_legacy_attributes=_THEIRS["use_legacy_attributes"].default,
        penalty_factors=None,
        monotonic_cst=None,
        dtype=None,
        device=None,
    ):
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.dual = dual
        self.penalty = penalty
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
        self.use_legacy_attributes = use_legacy_attributes
        self.penalty_factors = penalty_factors
        self.monotonic_cst = monotonic_cst
        self.dtype = dtype
        self.device = device

    def fit(self, X, y, sample_weight=None, offset=None, **params):
        """Chooses a penalty and fits it to features ``(n, d)`` and labels ``(n,)``.

        ``offset`` is added to the logits, also to those of the rows that are held out: ``(n,)`` for
        two classes, else ``(n, K)``. ``params`` go to the splitter and the scorer, where metadata
        routing is enabled.

        Raises:
          ValueError, TypeError: parameters or data that are not accepted.
        """
        _raise_for_params(params, self, "fit")
        check_parameters(self)
        ratios = ratios_of(self.penalty, self.l1_ratios)
        warn_of_defaults(self)
        Cs = self._given_Cs()
        for C, ratio in ((C, ratio) for C in Cs for ratio in ratios):
            given = {"C": C, "l1_ratio": ratio, "monotonic_cst": self.monotonic_cst}
            check_solver(self.solver, dual=self.dual, **given)
        training = training_of(
            self,
            X,
            y,
            sample_weight,
            dtype=dtype_of(self),
            takes_sparse=takes_sparse(self.solver),
        )
        if self.solver == "liblinear":
            check_liblinear(training.features, len(training.classes))
        labels = training.classes[training.targets]
        split, score = routed(self, training, sample_weight, params)
        folds = list(
            check_cv(self.cv, labels, classifier=True).split(training.features, labels, **split)
        )
        constant, (loss, targets, num_logits) = constant_of(self), log_loss_of(training)
        rows = with_offset(with_constant(training, constant), offset, num_logits)
        batch, tol_scale = on_device(rows, targets, self.device), tol_scale_of(training)
        start = zeros(rows, num_logits, self.fit_intercept and constant is None)
        if isinstance(self.Cs, str):
            Cs = self._along_path(loss, batch, start, ratios, training.features.shape)

        def path(rows: np.ndarray, ratio: float) -> list[SolverResult]:
            weights = np.zeros_like(training.weights)
            np.add.at(weights, rows, training.weights[rows])
            seen = training.targets[weights > 0]
            if start.intercept is not None and num_logits == 1 and len(set(seen)) == 1:
                return [_constant_fit(start, seen[0], self.tol)] * len(Cs)
            with jax.enable_x64(True):
                held = jax.device_put(filled(weights, batch.weights.shape), batch.weights.device)
            return self._path(loss, batch._replace(weights=held), start, Cs, ratio, tol_scale)

        paths = [[path(rows, ratio) for ratio in ratios] for rows, _ in folds]
        joined = np.array([[[self._joined(r.params) for r in p] for p in q] for q in paths])
        scorer = told_classes(super()._get_scorer(), training.classes)
        judged = partial(held_out_scores, scorer, training, rows.offset, params=score)
        scores = np.array(
            [
                [judged(map(self._parted, p), held) for p in q]
                for q, (_, held) in zip(joined, folds, strict=True)
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
                warn(result, training.features, self.solver)
                break
        iterations = np.array([[steps_of(p, self) for p in q] for q in paths])
        if self.refit:
            mean = scores.mean(0)
            ratio, place = np.unravel_index(np.argmax(mean), mean.shape)
            self.C_, self.l1_ratio_ = float(Cs[place]), float(ratios[ratio])
            if self.solver != "liblinear":  # which knows no warm start
                start = paths[0][ratio][place].params
            [result] = self._path(loss, batch, start, Cs[[place]], ratios[ratio], tol_scale)
            self._keep(result._replace(params=without_constant(result.params, constant)), training)
        else:
            best = [np.unravel_index(np.argmax(s), s.shape) for s in scores]
            mean = np.mean([joined[f][b] for f, b in enumerate(best)], 0)
            self.C_ = float(np.mean([Cs[c] for _, c in best]))
            self.l1_ratio_ = float(np.mean([ratios[r] for r, _ in best]))
            self.coef_, self.intercept_ = self._parted(mean)
            vars(self).pop("result_", None)
        self.n_iter_, self.scores_, self.coefs_paths_ = iterations, scores, joined
        if self.use_legacy_attributes:  # a warning is true too
            self._make_legacy()
        return self

    def score(self, X, y, sample_weight=None, **score_params) -> float:
        """The score by ``scoring``, as scikit-learn's class has it."""
        return SklearnLogisticRegressionCV.score(
            self, X, y, sample_weight=sample_weight, **score_params
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags

    def _given_Cs(self) -> np.ndarray:
        """The values of C that are given; one that stands for all of a path."""
        if isinstance(self.Cs, str):
            return np.ones(1)
        Cs = np.geomspace(1e-4, 1e4, self.Cs) if np.ndim(self.Cs) == 0 else np.array(self.Cs)
        if not (len(Cs) and np.all(Cs > 0)):
            raise ValueError(f"Cs must be numbers above 0, got {shortened(self.Cs)}")
        return Cs

    def _path(
        self, loss, batch, params, Cs: np.ndarray, ratio: float, tol_scale: float
    ) -> list[SolverResult]:
        """Results for Cs, in their order, from the strongest penalty to the weakest."""
        order, weights = np.argsort(Cs, kind="stable"), np.asarray(batch.weights)
        found = solve_each(
            loss,
            batch,
            params,
            [penalty_of(Cs[place], ratio, weights) for place in order],
            bounds=self._bounds(params),
            tol_scale=tol_scale,
            **options_of(self, len(np.atleast_2d(params.weights))),
        )
        results = {}
        for place, result in zip(order, found, strict=True):
            same = np.array_equal(result.params.weights, params.weights)
            if result.steps == 0 and same:  # the intercept is rounded anew
                result = result._replace(params=params)
            results[place], params = result, result.params
        return [results[place] for place in range(len(Cs))]

    def _along_path(
        self, loss, batch: Batch, start: LinearParams, ratios, shape: tuple[int, int]
    ) -> np.ndarray:
        """The values of C of the paths of all ratios, ascending, from the weakest start."""
        width, objective = batch.features.shape[1], make_objective(logits, loss)
        wide = start._replace(weights=widened(start.weights, width))
        factors = factors_of(self, len(np.atleast_2d(start.weights)))
        factors = None if factors is None else widened(factors, width, 1)
        with jax.enable_x64(True):
            shared = [elastic_net(l1=ratio, l2=1 - ratio, factors=factors) for ratio in ratios]
            bounds = padded_bounds(self._bounds(start), width)
            ends = strength_range(objective, wide, batch, shared, shape, bounds=bounds)
            # λ is the strength of the largest factor, and C belongs to the factor one.
            largest = total_strength(shared[0])
        total = np.sum(np.asarray(batch.weights), dtype=np.float64)
        return largest / (np.geomspace(*ends, 100) * total)

    def _bounds(self, params: LinearParams) -> tuple | None:
        """The bounds by the directions that were given."""
        return bounds_of(self.monotonic_cst, self, len(np.atleast_2d(params.weights)))

    def _joined(self, params: LinearParams) -> np.ndarray:
        """The parameters as one matrix ``(1 or K, d + 1)``, the intercept last if there is one."""
        params = without_constant(params, constant_of(self))
        weights = np.atleast_2d(params.weights)
        if params.intercept is None:
            return weights
        return np.c_[weights, np.atleast_1d(params.intercept)].astype(weights.dtype)

    def _parted(self, joined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients and intercepts of such a matrix."""
        if self.fit_intercept:
            return joined[:, :-1], joined[:, -1]
        return joined, np.zeros(len(joined), joined.dtype)

    def _make_legacy(self) -> None:
        """Gives the attributes of the folds the shapes they had before scikit-learn 1.10."""
        names = self.classes_[-len(self.coef_) :]  # the second of two classes
        dropped = self.l1_ratios is None or np.ndim(self.l1_ratios) == 0

        def swapped(values: np.ndarray) -> np.ndarray:
            values = np.swapaxes(values, 1, 2)
            return values[:, :, 0] if dropped else values

        paths, scores = swapped(self.coefs_paths_), swapped(self.scores_)
        self.n_iter_ = swapped(self.n_iter_)[None]
        self.coefs_paths_ = {name: paths[..., k, :] for k, name in enumerate(names)}
        self.scores_ = {name: scores.copy() for name in names}
        self.C_ = np.full(len(names), self.C_)
        self.l1_ratio_ = np.full(len(names), self.l1_ratio_)

    def _get_scorer(self) -> Callable:
        scorer = super()._get_scorer()
        return told_classes(scorer, self.classes_) if hasattr(self, "classes_") else scorer


def _constant_fit(start: LinearParams, target: int, tol: float) -> SolverResult:
    """The fit to rows of one class, whose intercept grows until its gradient is the tolerance."""
    tol = np.clip(tol, 1e-12, 0.5)
    logit = np.log1p(-tol) - np.log(tol)
    intercept = np.asarray(logit if target else -logit, start.weights.dtype)
    return SolverResult(
        params=LinearParams(np.zeros_like(start.weights), intercept),
        value=-float(np.log1p(-tol)),
        gradient_norm=float(tol),
        gap_bound=-float(np.log1p(-tol)),
        status="stationary",
        solver="none",
        steps=1,
        passes=0.0,
        trace=(),
    )
