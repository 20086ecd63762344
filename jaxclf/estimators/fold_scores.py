"""Scores of the rows that a fold holds out, by the scorers and splitters of scikit-learn."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils._metadata_requests import _routing_enabled
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.validation import _check_method_params, _check_sample_weight

from jaxclf.estimators.inputs import Training
from jaxclf.estimators.logistic import LogisticRegression


class _FoldModel(LogisticRegression):
    """The model of a fold, which adds the offset of the rows that judge it."""

    def decision_function(self, X, offset=None) -> np.ndarray:
        return super().decision_function(X, self.offset_ if offset is None else offset)


def held_out_scores(
    scorer: Any,
    training: Training,
    offset: np.ndarray | None,
    models: Iterable[tuple[np.ndarray, np.ndarray]],
    held: np.ndarray,
    params: dict,
) -> list[float]:
    """The scores of models on the rows that were held out.

    Args:
      scorer: a scorer of scikit-learn.
      training: all rows.
      offset: the offset of all rows, or ``None``.
      models: the coefficients and the intercept of each model.
      held: the numbers of the rows that are held out.
      params: what the scorer is given beside the rows, for all of them.
    """
    features, labels = training.features[held], training.classes[training.targets[held]]
    params = _check_method_params(training.features, params, indices=held)
    scores = []
    for coef, intercept in models:
        model = _FoldModel()
        model.offset_ = None if offset is None else offset[held]
        model.classes_, model.n_features_in_ = training.classes, features.shape[1]
        model.coef_, model.intercept_ = coef, intercept
        scores.append(float(scorer(model, features, labels, **params)))
    return scores


def told_classes(scorer: Any, classes: np.ndarray) -> Any:
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


def routed(estimator, training: Training, sample_weight, params: dict) -> tuple[dict, dict]:
    """What the splitter and the scorer are given of the arguments of ``fit``."""
    if _routing_enabled():
        routed = process_routing(estimator, "fit", sample_weight=sample_weight, **params)
        return routed.splitter.split, routed.scorer.score
    if sample_weight is None:
        return {}, {}
    return {}, {"sample_weight": _check_sample_weight(sample_weight, training.features)}
