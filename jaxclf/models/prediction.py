"""Predictions of a classifier, from arrays and from tables."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.activations import softmax
from jaxclf.array_input import as_array, column_names, is_table
from jaxclf.data.table_encoding import encode, note_of_absent, note_of_unread
from jaxclf.messages import listed
from jaxclf.models.classifier import Classifier, logits_of
from jaxclf.training.evaluation import make_logits


def probabilities(classifier: Classifier, X: Any) -> np.ndarray:
    """The probabilities ``(n, K)`` of the classes for the rows of ``X``."""
    return np.asarray(softmax(make_predict(classifier, "X")(features_of(classifier, X))))


def features_of(classifier: Classifier, X: Any) -> np.ndarray | jax.Array:
    """The features ``(n, ...)`` of rows, as the classifier takes them.

    A table of pandas, polars or pyarrow, or a mapping from names to columns, becomes features by
    the plan of the classifier, or by its names of columns where it has no plan. A warning names
    what counts as missing. An array is taken as it is.

    Raises:
      ValueError, TypeError: columns that the classifier does not know, or that it needs.
    """
    if not is_table(X):
        return as_array("X", X)
    if classifier.plan is None:
        wanted, given = classifier.feature_names, column_names(X)
        if missing := [name for name in wanted if name not in given]:
            raise ValueError(f"X has no column {listed(missing)}, which the model takes")
        return as_array("X", {name: X[name] for name in wanted or given})
    import pyarrow as pa

    table = pa.table(X)
    rows = np.arange(len(table))
    features, unread = encode(classifier.plan, table, "X", rows)
    absent = note_of_absent(classifier.plan, table.schema.names)
    for note in (*absent, *note_of_unread(unread)):
        warnings.warn(note, UserWarning, stacklevel=4)
    return features.astype(np.float32)


def make_predict(classifier: Classifier, source: str) -> Callable[[Any], jax.Array]:
    """A function ``features (n, ...) -> logits (n, K)`` of arrays, compiled once for each n.

    Args:
      classifier: the model.
      source: the source of the features, for messages.
    """
    all_logits = make_logits(logits_of(classifier))
    wanted, pixels = tuple(classifier.architecture.feature_shape), classifier.architecture.pixels

    def predict(features) -> jax.Array:
        if features.shape[1:] != wanted:
            raise ValueError(
                f"the model takes examples of shape {wanted}, {source} has {features.shape[1:]}"
            )
        if pixels and features.dtype != pixels:
            raise ValueError(f"the model takes {pixels} pixels, {source} has {features.dtype}")
        checks.check_features(features)
        if features.dtype == np.float64:
            features = features.astype(np.float32)
        return all_logits(classifier.params, jnp.asarray(features))

    return predict
