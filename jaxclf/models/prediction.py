"""Predictions of a classifier, from arrays and from tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.activations import softmax
from jaxclf.array_input import column_names, is_table, narrowed, read_array
from jaxclf.data import transforms
from jaxclf.data.dataset import invented_names
from jaxclf.data.table_encoding import encode, note_of_absent, note_of_unread
from jaxclf.data.table_plan import TablePlan
from jaxclf.messages import listed, shortened
from jaxclf.models import linear
from jaxclf.models.batched_logits import make_logits
from jaxclf.models.classifier import Classifier, logits_by
from jaxclf.sparse_rows import canonical, check_dense, is_sparse_input, read_sparse


def probabilities(classifier: Classifier, X: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """The probabilities ``(n, K)`` of the classes for the rows of ``X``, and what to warn of."""
    features, notes = features_of(classifier, X)
    return np.asarray(softmax(make_predict(classifier, "X")(features))), notes


def features_of(classifier: Classifier, X: Any) -> tuple[np.ndarray | jax.Array, tuple[str, ...]]:
    """The features ``(n, ...)`` of rows, as the classifier takes them, and what to warn of.

    A table of pandas, polars or pyarrow, or a mapping from names to columns, becomes features by
    the plan of the classifier, or by its names of columns where it has no plan. What counts as
    missing is warned of. An array is taken as it is.

    Raises:
      ValueError, TypeError: columns that the classifier does not know, or that it needs.
    """
    if is_sparse_input(X):
        return X, ()
    if not is_table(X):
        return read_array("X", X), ()
    if classifier.plan is None:
        wanted, given = classifier.feature_names, column_names(X)
        if wanted == invented_names(len(wanted)) and len(given) == len(wanted):
            wanted = given if not set(wanted) & set(given) else wanted
        if missing := [name for name in wanted if name not in given]:
            raise ValueError(f"X has no column {listed(missing)}, which the model takes")
        return read_array("X", {name: X[name] for name in wanted or given}), ()
    table = _as_table(classifier.plan, X)
    rows = np.arange(len(table))
    features, unread = encode(classifier.plan, table, "X", rows)
    absent = note_of_absent(classifier.plan, table.schema.names)
    return features, (*absent, *note_of_unread(unread))


def _as_table(plan: TablePlan, X: Any) -> Any:
    """The columns of a plan as a :class:`pyarrow.Table`, of those that are there."""
    import pyarrow as pa

    given = Counter(column_names(X))
    wanted = [column.name for column in plan.columns if column.kind != "left out"]
    found = [name for name in wanted if name in given]
    if repeated := [name for name in found if given[name] > 1]:
        raise ValueError(f"X has two columns with the name {shortened(repeated[0])}")
    try:
        if hasattr(X, "__arrow_c_stream__") and not hasattr(X, "iloc"):  # polars, pyarrow
            return pa.table(X).select(found)
        return pa.table({name: X[name] for name in found})
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ValueError(f"X cannot be read as a table: {shortened(str(error))}") from None


def takes_sparse(classifier: Classifier) -> bool:
    """Whether sparse features stay sparse: the model is linear, and its scaling keeps zeros."""
    linear_model = classifier.architecture.name == "linear"
    return linear_model and transforms.keeps_zeros(classifier.standardiser)


def make_predict(classifier: Classifier, source: str) -> Callable[[Any], jax.Array]:
    """A function ``features (n, ...) -> logits (n, K)``, compiled once for each n.

    Features are an array, or a sparse matrix for a model that :func:`takes_sparse`.

    Args:
      classifier: the model.
      source: the source of the features, for messages.
    """
    wanted, pixels = tuple(classifier.architecture.feature_shape), classifier.architecture.pixels

    def of_sparse(features) -> jax.Array:
        if not takes_sparse(classifier):
            check_dense("this model", features)
        rows = canonical(source, features)
        if classifier.standardiser is not None:
            rows = transforms.standardise(classifier.standardiser, rows)
        rows = read_sparse(source, rows)
        all_logits = make_logits(linear.logits, like=(classifier.params, rows))
        return all_logits(classifier.params, rows)

    def predict(features) -> jax.Array:
        if features.shape[1:] != wanted:
            raise ValueError(
                f"the model takes examples of shape {wanted}, {source} has {features.shape[1:]}"
            )
        if pixels and features.dtype != pixels:
            raise ValueError(f"the model takes {pixels} pixels, {source} has {features.dtype}")
        if is_sparse_input(features):
            return of_sparse(features)
        checks.check_features(features)
        if isinstance(features, jax.Array) and features.dtype.itemsize == 8:
            features = np.asarray(features)
        standardiser = classifier.standardiser
        if transforms.standardises_wide(standardiser, features):
            features, standardiser = transforms.standardise(standardiser, features), None
        else:
            features = jnp.asarray(narrowed("features", features))
        fitted = classifier.params, standardiser
        all_logits = make_logits(logits_by(classifier.architecture), like=(fitted, features))
        return all_logits(fitted, features)

    return predict
