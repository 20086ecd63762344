"""Conversions of a linear classifier between our estimators, scikit-learn's and model files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
from sklearn.utils.validation import check_is_fitted

from jaxclf.data.transforms import Standardiser
from jaxclf.estimators.logistic import LogisticClassifier, LogisticRegression
from jaxclf.estimators.one_vs_rest import OneVsRestLogisticRegression
from jaxclf.models.classifier import Architecture, Classifier
from jaxclf.models.linear import LinearParams, both_classes


def to_classifier(estimator) -> Classifier:
    """The classifier, as a model file holds it, of a fitted softmax or logistic regression.

    Args:
      estimator: :class:`~jaxclf.LogisticRegression`, :class:`~jaxclf.LogisticRegressionCV`, or
        scikit-learn's of the same names.

    Raises:
      TypeError: another estimator, whose scores are no logits of a softmax.
      NotFittedError: an estimator that is not fitted.
    """
    if not isinstance(estimator, LogisticClassifier | SklearnLogisticRegression):
        raise TypeError(
            "expected a LogisticRegression or LogisticRegressionCV, whose scores are the logits of "
            f"a softmax; got {type(estimator).__name__}"
        )
    check_is_fitted(estimator)
    weights, intercept = np.asarray(estimator.coef_), np.asarray(estimator.intercept_)
    if len(weights) == 1:
        weights, intercept = both_classes(LinearParams(weights[0], intercept[0]))
    num_classes, num_features = weights.shape
    names = getattr(estimator, "feature_names_in_", ())
    return Classifier(
        Architecture("linear", (num_features,), num_classes, ()),
        LinearParams(weights, np.broadcast_to(intercept, (num_classes,)).astype(weights.dtype)),
        tuple(estimator.classes_.tolist()),
        tuple(map(str, names)),
    )


def to_estimator(classifier: Classifier) -> LogisticRegression:
    """A fitted :class:`~jaxclf.LogisticRegression` of a linear classifier.

    Raises:
      ValueError: a classifier that is not linear.
    """
    return _filled(LogisticRegression(), classifier)


def to_sklearn(model) -> SklearnLogisticRegression:
    """A fitted ``sklearn.linear_model.LogisticRegression`` with the same probabilities.

    Args:
      model: a linear classifier, or a fitted estimator as :func:`to_classifier` takes it.

    Raises:
      ValueError: a classifier that is not linear.
    """
    classifier = model if isinstance(model, Classifier) else to_classifier(model)
    return _filled(SklearnLogisticRegression(), classifier)


def to_label_estimator(
    params: LinearParams, names: Sequence[str], standardiser: Standardiser | None, pixels: str
) -> OneVsRestLogisticRegression:
    """A fitted :class:`~jaxclf.OneVsRestLogisticRegression` of labels, any number of them a row.

    Args:
      params: weights ``(K, d)`` and intercepts ``(K,)``.
      names: the names of the labels, which become ``classes_``.
      standardiser: the standardiser of the features, or ``None``.
      pixels: the unsigned dtype of features that are pixels; empty where they are numbers.
    """
    estimator = OneVsRestLogisticRegression()
    weights, intercept = _of_raw_features(params, standardiser, pixels)
    estimator.coef_, estimator.intercept_ = weights, intercept
    estimator.classes_, estimator.multilabel_ = np.array(names), True
    estimator.n_features_in_, estimator.n_iter_ = weights.shape[1], np.array([0])
    return estimator


def _of_raw_features(
    params: LinearParams, standardiser: Standardiser | None, pixels: str
) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``(K, d)`` and intercepts ``(K,)`` of features before their scaling.

    They are float64 where there is a standardiser: float32 does not hold the intercept of a column
    with a large mean.
    """
    weights = np.asarray(params.weights, np.float64)
    intercept = np.zeros(len(weights))
    if params.intercept is not None:
        intercept = np.asarray(params.intercept, np.float64)
    if standardiser is not None:
        weights = weights / np.ravel(standardiser.scale)
        intercept = intercept - weights @ np.ravel(standardiser.mean)
        return weights, intercept
    if pixels:
        weights = weights / np.iinfo(pixels).max
    dtype = np.asarray(params.weights).dtype
    return weights.astype(dtype), intercept.astype(dtype)


def _filled(estimator, classifier: Classifier):
    """Fills an estimator with coefficients of the raw features; their scaling is folded in."""
    architecture, params, names, feature_names, standardiser, _ = classifier
    if architecture.name != "linear":
        raise ValueError(f"only a linear classifier has coefficients, got {architecture.name!r}")
    weights, intercept = _of_raw_features(params, standardiser, architecture.pixels)
    if len(weights) == 2:
        weights, intercept = weights[1:] - weights[:1], intercept[1:] - intercept[:1]
    estimator.coef_, estimator.intercept_ = weights, intercept
    estimator.classes_ = np.array(names)
    estimator.n_features_in_ = weights.shape[1]
    estimator.n_iter_ = np.array([0])
    if feature_names:
        estimator.feature_names_in_ = np.array(feature_names, object)
    return estimator
