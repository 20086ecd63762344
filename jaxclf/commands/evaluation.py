"""What a classifier in a file is worth on a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxclf import metrics
from jaxclf.data import Dataset
from jaxclf.data.dataset import with_dense_features
from jaxclf.messages import listed
from jaxclf.model_file import load_model
from jaxclf.models.classifier import Classifier
from jaxclf.models.prediction import make_predict, takes_sparse


def load_classifier(path: Path) -> Classifier:
    """The classifier in a model file, which may hold a logistic or softmax regression.

    Raises:
      ValueError: no model file, or one of another estimator or pipeline.
      OSError: the file cannot be read.
    """
    model = load_model(path)
    if isinstance(model, Classifier):
        return model
    from jaxclf.estimators.exchange import to_classifier

    try:
        return to_classifier(model)
    except TypeError:
        raise ValueError(
            f"{path} holds a {type(model).__name__}, which predicts in Python: "
            "jaxclf.load_model(path).predict(X)"
        ) from None


def predict_logits(classifier: Classifier, dataset: Dataset) -> jax.Array:
    """Logits ``(n, K)`` of a dataset's rows; columns are matched by name where both have names.

    Raises:
      ValueError: other features than the model was trained on.
    """
    return make_predict(classifier, dataset.name)(matched_columns(classifier, dataset))


def matched_columns(classifier: Classifier, dataset: Dataset) -> np.ndarray:
    """The features of a dataset, by name in the model's order where both have names.

    Sparse features are made dense for a model that needs it.
    """
    if not takes_sparse(classifier):
        dataset = with_dense_features(dataset)
    order = column_order(classifier, dataset.feature_names, dataset.name)
    return dataset.features if order is None else dataset.features[:, order]


def column_order(classifier: Classifier, given: Sequence[str], source: str) -> list[int] | None:
    """The columns in the model's order; ``None`` where they are taken as they are.

    Args:
      classifier: the model.
      given: the names of the columns, if there are any.
      source: their source, for messages.

    Raises:
      ValueError: as many columns as the model has, with other names.
    """
    wanted, given = classifier.feature_names, tuple(given)
    if not given or wanted == given or len(wanted) != len(given):
        return None  # their shape speaks for itself
    if sorted(wanted) != sorted(given):
        different = sorted(set(wanted) ^ set(given)) or given
        raise ValueError(f"{source} and the model have different columns: {listed(different)}")
    return [given.index(name) for name in wanted]


def evaluate(classifier: Classifier, dataset: Dataset) -> dict[str, float]:
    """What a classifier is worth on a dataset, whose classes are matched by name.

    Raises:
      ValueError: rows of another shape, or a class that the model does not know.
    """
    numbers = {str(name): k for k, name in enumerate(classifier.class_names)}
    unknown = [name for name in dataset.class_names if name not in numbers]
    if unknown:
        raise ValueError(
            f"{dataset.name} has a class {unknown[0]!r} that the model does not know; it knows "
            f"{', '.join(numbers)}"
        )
    labels = np.array([numbers[name] for name in dataset.class_names], np.int32)[dataset.labels]
    return metrics.measures(predict_logits(classifier, dataset), labels)
