"""Logistic regression whose penalty is chosen by cross-validation."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from sklearn.linear_model import LogisticRegressionCV as SklearnLogisticRegressionCV
from sklearn.model_selection import check_cv
from sklearn.utils._metadata_requests import _raise_for_params, _routing_enabled
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.validation import _check_method_params, _check_sample_weight

from jaxclf.estimators.inputs import (
    Training,
    filled,
    training_of,
    with_constant,
    with_offset,
)
from jaxclf.estimators.linear import (
    ADVICE,
    of_constant,
    on_device,
    options_of,
    padded_bounds,
    share_of,
    solve,
    steps_of,
    warn,
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
    SOLVER_NAMES,
    bounds_of,
    check_liblinear,
    check_parameters,
    check_solver,
    penalty_of,
    ratios_of,
    takes_sparse,
    warn_of_defaults,
    with_factors,
)
from jaxclf.messages import shortened
from jaxclf.models.linear import LinearParams, logits
from jaxclf.objectives import Batch, make_objective
from jaxclf.penalties import Penalty, total_strength
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
        means accuracy. Its score is told of classes that a fold lacks.
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
            class_weight=self.class_weight,
            takes_sparse=takes_sparse(self.solver),
        )
        if self.solver == "liblinear":
            check_liblinear(training.features, len(training.classes))
        labels = training.classes[training.targets]
        split, score = _routed(self, training, sample_weight, params)
        folds = list(
            check_cv(self.cv, labels, classifier=True).split(training.features, labels, **split)
        )
        scaled = self.solver == "liblinear" and self.fit_intercept
        rows = with_constant(training, self.intercept_scaling) if scaled else training
        loss, targets, num_logits = log_loss_of(training)
        rows = with_offset(rows, offset, num_logits)
        batch, share = on_device(rows, targets, self.device), share_of(training)
        start = zeros(rows, num_logits, self.fit_intercept and not scaled)
        if isinstance(self.Cs, str):
            Cs = self._along_path(loss, batch, start, ratios, training.features.shape)

        def path(rows: np.ndarray, ratio: float) -> list[SolverResult]:
            weights = np.zeros_like(training.weights)
            np.add.at(weights, rows, training.weights[rows])
            seen = training.targets[weights > 0]
            if start.intercept is not None and num_logits == 1 and len(set(seen)) == 1:
                return [_of_one_class(start, seen[0], self.tol)] * len(Cs)
            with jax.enable_x64(True):
                held = jax.device_put(filled(weights, batch.weights.shape), batch.weights.device)
            return self._path(loss, batch._replace(weights=held), start, Cs, ratio, share)

        paths = [[path(rows, ratio) for ratio in ratios] for rows, _ in folds]
        joined = np.array([[[self._joined(r.params) for r in p] for p in q] for q in paths])
        scores = np.array(
            [
                [self._scores(training, labels, rows.offset, p, held, score) for p in q]
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
            [result] = self._path(loss, batch, start, Cs[[place]], ratios[ratio], share)
            if scaled:
                result = result._replace(params=of_constant(result.params, self.intercept_scaling))
            self._keep(result, training)
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
        self, loss, batch, params, Cs: np.ndarray, ratio: float, share: float
    ) -> list[SolverResult]:
        """Results for Cs, in their order, from the strongest penalty to the weakest."""
        results = {}
        for place in np.argsort(Cs, kind="stable"):
            result = solve(
                loss,
                batch,
                params,
                self._penalty(
                    penalty_of(Cs[place], ratio, np.asarray(batch.weights)), batch, params
                ),
                bounds=self._bounds(params),
                solver=SOLVER_NAMES[self.solver],
                share=share,
                **options_of(self),
            )
            if result.steps == 0:  # the intercept is rounded anew, which would be a change
                result = result._replace(params=params)
            results[place] = result
            if np.isfinite(result.value):
                params = result.params
        return [results[place] for place in range(len(Cs))]

    def _along_path(
        self, loss, batch: Batch, start: LinearParams, ratios, shape: tuple[int, int]
    ) -> np.ndarray:
        """The values of C of the paths of all ratios, ascending, from the weakest start."""
        more = [(0, 0)] * (start.weights.ndim - 1)
        more.append((0, batch.features.shape[1] - start.weights.shape[-1]))
        wide = start._replace(weights=np.pad(start.weights, more))
        objective = make_objective(logits, loss)
        with jax.enable_x64(True):
            shared = [Penalty(l1=ratio, l2=1 - ratio) for ratio in ratios]
            shared = [self._penalty(penalty, batch, start) for penalty in shared]
            bounds = padded_bounds(self._bounds(start), batch.features.shape[1])
            ends = strength_range(objective, wide, batch, shared, shape, bounds=bounds)
            # λ is the strength of the largest factor, and C belongs to the factor one.
            largest = total_strength(shared[0])
        total = np.sum(np.asarray(batch.weights), dtype=np.float64)
        return largest / (np.geomspace(*ends, 100) * total)

    def _penalty(self, penalty: Penalty, batch: Batch, start: LinearParams) -> Penalty:
        """The penalty with the factors that were given."""
        shape = len(np.atleast_2d(start.weights)), batch.features.shape[1]
        return with_factors(penalty, self.penalty_factors, self, shape)

    def _bounds(self, params: LinearParams) -> tuple | None:
        """The bounds by the directions that were given."""
        return bounds_of(self.monotonic_cst, self, len(np.atleast_2d(params.weights)))

    def _joined(self, params: LinearParams) -> np.ndarray:
        """The parameters as one matrix ``(1 or K, d + 1)``, the intercept last if there is one."""
        if self.solver == "liblinear" and self.fit_intercept:
            params = of_constant(params, self.intercept_scaling)
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
        return _of_classes(scorer, self.classes_) if hasattr(self, "classes_") else scorer

    def _scores(
        self, training: Training, labels, offset, path: np.ndarray, held, given: dict
    ) -> list:
        """The scores of a path on the rows that were held out."""
        scorer = _of_classes(super()._get_scorer(), training.classes)
        features, truth = training.features[held], labels[held]
        given = _check_method_params(training.features, given, indices=held)
        scores = []
        for joined in path:
            judged = _OfFold()
            judged.offset_ = None if offset is None else offset[held]
            judged.classes_, judged.n_features_in_ = training.classes, features.shape[1]
            judged.coef_, judged.intercept_ = self._parted(joined)
            scores.append(float(scorer(judged, features, truth, **given)))
        return scores


class _OfFold(LogisticRegression):
    """The model of a fold, which adds the offset of the rows that judge it."""

    def decision_function(self, X, offset=None) -> np.ndarray:
        return super().decision_function(X, self.offset_ if offset is None else offset)


def _of_one_class(start: LinearParams, target: int, tol: float) -> SolverResult:
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


def _routed(estimator, training: Training, sample_weight, params: dict) -> tuple[dict, dict]:
    """What the splitter and the scorer are given of the arguments of ``fit``."""
    if _routing_enabled():
        routed = process_routing(estimator, "fit", sample_weight=sample_weight, **params)
        return routed.splitter.split, routed.scorer.score
    if sample_weight is None:
        return {}, {}
    return {}, {"sample_weight": _check_sample_weight(sample_weight, training.features)}


def _of_classes(scorer: Any, classes: np.ndarray) -> Any:
    """The scorer, told of all classes where it takes them: a fold may lack one."""
    score = getattr(scorer, "_score_func", None)
    accepted = inspect.signature(score).parameters if score else {}
    if "labels" not in accepted:
        return scorer
    told = {"labels": classes}
    if "pos_label" in accepted and len(classes) == 2:
        told["pos_label"] = classes[1]
    scorer = copy.copy(scorer)
    scorer._kwargs = {**told, **scorer._kwargs}
    return scorer
