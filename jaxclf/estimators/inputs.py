"""The inputs of estimators, as scikit-learn's users give them: checked, encoded, in few sizes.

A program is compiled for a shape. Rows are filled up with rows of weight zero and columns with
columns of zeros to the next of few sizes, so that folds, bootstraps and selections of columns of
one data set share their programs. The weights of such columns stay zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, validate_data

from jaxclf import checks
from jaxclf.array_input import read_array
from jaxclf.estimators.dispatch import Library, library_of, on_host, to_jax
from jaxclf.estimators.labels import checked_labels, class_weights, describe
from jaxclf.sparse_rows import is_smaller

MOST_DENSE_BYTES = 2**32
"""Sparse features are made dense up to this size by estimators that do not take them."""
DTYPES = (np.float64, np.float32)


class Training(NamedTuple):
    """Data to fit."""

    features: Any
    """The features, ``(n, d)`` float32 or float64: an array of NumPy or of JAX, or a CSR matrix of
    SciPy."""
    targets: np.ndarray
    """The targets, ``(n,)`` int32 class numbers, or ``(n, K)`` in the dtype of the features."""
    weights: np.ndarray
    """The weights of the rows, ``(n,)``."""
    classes: np.ndarray
    """The labels of the classes, ``(K,)``."""
    library: Library | None = None
    """The library of features that are an array of JAX; ``None`` where they are on the host."""
    library_of_labels: Library | None = None
    """The library of labels that are numbers in an array of it."""
    offset: np.ndarray | None = None
    """What is added to the logits, ``(n,)`` or ``(n, K)``, in the dtype of the features."""

    @property
    def numbers(self) -> np.ndarray:
        """The targets ``(n, K)``: one-hot, or as they are if they are a matrix already."""
        if self.targets.ndim == 2:
            return self.targets
        return np.eye(len(self.classes), dtype=self.features.dtype)[self.targets]


def training_of(
    estimator,
    X,
    y,
    sample_weight,
    *,
    dtype=None,
    classes=None,
    matrix: str | None = None,
    reset: bool = True,
    dispatched: bool = False,
    takes_sparse: bool = False,
) -> Training:
    """The checked arguments of an estimator's ``fit``.

    Args:
      estimator: the estimator, whose number and names of features are set, and whose
        ``class_weight`` is applied.
      X: ``(n, d)``, dense or sparse.
      y: ``(n,)`` labels of any kind, or a matrix as ``matrix`` says.
      sample_weight: ``(n,)`` or ``None``.
      dtype: the dtype to compute in; by default that of the estimator, or else that of X if it is
        float32 or float64, and float64 for another X.
      classes: the sorted labels there are; by default those in y.
      matrix: the meaning of a y of several columns: ``probabilities``, ``indicators``, or ``None``
        where there may be no such y.
      dispatched: whether features in an array of another library stay on its device.
      takes_sparse: whether sparse features stay sparse, where they take less memory so. Others are
        made dense.
      reset: whether the number and names of features are set, or must be as they were.

    Raises:
      ValueError, TypeError: data that are not accepted; the message says what was given and what is
        accepted.
    """
    accepted, dtype = list(DTYPES), estimator.dtype if dtype is None else dtype
    class_weight = getattr(estimator, "class_weight", None)
    if dtype is not None:
        checks.check_option("dtype", np.dtype(dtype), [np.dtype(x) for x in DTYPES])
        accepted = [np.dtype(dtype)]
    libraries = library_of(X) if dispatched else None, library_of(y)
    X = on_host(X) if libraries[0] is None else X
    y, sample_weight = checked_labels(on_host(y)), on_host(sample_weight)
    if libraries[0] is not None:
        # JAX and some devices have no float64, so that the dtype stays unless one is asked for.
        dtypes = DTYPES if estimator.dtype is None else accepted
        dtypes = [getattr(libraries[0].namespace, np.dtype(x).name) for x in dtypes]
        X = to_jax(validate_data(estimator, X, dtype=dtypes, reset=reset))
        y = validate_data(estimator, y=y, multi_output=True)
        check_consistent_length(X, y)
    else:
        X, y = validate_data(
            estimator,
            X,
            y,
            accept_sparse="csr",
            dtype=accepted,
            order="C",
            multi_output=True,
            reset=reset,
        )
    features = X if takes_sparse and sparse.issparse(X) and is_smaller(X) else dense(X)
    y = np.asarray(y.toarray() if sparse.issparse(y) else y)
    weights = np.ones(features.shape[0], features.dtype)
    if sample_weight is not None:
        weights = _check_sample_weight(
            sample_weight, weights, dtype=features.dtype, ensure_non_negative=True
        )
    if y.ndim == 2 and y.shape[1] > 1:
        targets = _matrix(y, matrix).astype(features.dtype)
        if class_weight is not None:
            raise ValueError(f"class_weight is for labels (n,), got y of shape {y.shape}")
        return Training(features, targets, weights, np.arange(y.shape[1]), *libraries)
    y = column_or_1d(y, warn=True) if y.ndim > 1 else y
    are_integers = y.dtype.kind in "iub"
    if not are_integers:
        check_classification_targets(y)
    all_at_once = classes is None
    if classes is None:
        classes, targets = np.unique(y, return_inverse=True)
    else:
        targets = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
        if (wrong := classes[targets] != y).any():
            label = y[wrong].tolist()[0]
            raise ValueError(f"y has a label {label!r} that is not one of the classes {classes}")
    if len(classes) < 2:
        raise ValueError(f"y holds one class only, {classes.tolist()}: a classifier needs two")
    if are_integers and len(classes) > len(y) / 2:
        check_classification_targets(y)  # of integers it can only say that they are many
    if class_weight is not None:
        of_class = class_weights(class_weight, classes, targets, weights)
        weights = weights * of_class.astype(weights.dtype)[targets]
    present = np.unique(targets[weights > 0]) if not weights.all() else classes
    if all_at_once and len(present) == 1:
        raise ValueError(
            f"only the class {describe(classes[present[0]])} has rows whose weight is above 0: a "
            "classifier needs two"
        )
    return Training(features, targets.astype(np.int32), weights, classes, *libraries)


def with_offset(training: Training, offset: Any, num_logits: int) -> Training:
    """The same rows with an offset, if one is given."""
    if offset is None:
        return training
    offset = offset_of(offset, len(training.weights), num_logits)
    return training._replace(offset=offset.astype(training.features.dtype))


def offset_of(offset: Any, num_rows: int, num_logits: int) -> np.ndarray:
    """An offset ``(n,)`` of one logit or ``(n, K)`` of K, in float64.

    Raises:
      ValueError, TypeError: another shape, or values that are not finite numbers.
    """
    offset = np.asarray(read_array("offset", on_host(offset)))
    checks.check_offset(offset, num_rows=num_rows)
    checks.check_shape("offset", offset, (num_rows,) if num_logits == 1 else (num_rows, num_logits))
    return offset.astype(np.float64)


def offset_like(offset: Any, scores: Any) -> Any:
    """An offset for such logits, as an array of their library, dtype and device."""
    num_logits = 1 if scores.ndim == 1 else scores.shape[1]
    offset = offset_of(offset, scores.shape[0], num_logits)
    offset = offset.astype(str(scores.dtype).rpartition(".")[2])
    library = library_of(scores)
    return offset if library is None else library.array(offset)


def with_constant(training: Training, value: float | None) -> Training:
    """The rows with a further column in which every entry is the value; ``None`` adds no column."""
    if value is None:
        return training
    features = training.features
    column = np.full((features.shape[0], 1), value, features.dtype)
    if sparse.issparse(features):
        return training._replace(features=sparse.hstack([features, column], "csr"))
    with jax.enable_x64(True):
        joined = np.hstack if isinstance(features, np.ndarray) else jnp.hstack
        return training._replace(features=joined([features, column]))


def dense(X) -> np.ndarray:
    """Features as a dense array.

    Raises:
      ValueError: if the array would be larger than is allowed.
    """
    if not sparse.issparse(X):
        return X
    needed = X.shape[0] * X.shape[1] * X.dtype.itemsize
    if needed > MOST_DENSE_BYTES:
        raise ValueError(
            f"sparse features of shape {X.shape} take {needed / 2**30:.1f} GiB when dense; up to "
            f"{MOST_DENSE_BYTES / 2**30:g} GiB are converted"
        )
    return X.toarray()


def _matrix(y: np.ndarray, meaning: str | None) -> np.ndarray:
    if meaning == "probabilities":
        if y.dtype.kind not in "fiub":
            raise ValueError(f"y of shape {y.shape} must hold probabilities, got dtype {y.dtype}")
        checks.check_distribution("the rows of y", y.astype(np.float64))
        return y
    if meaning == "indicators":
        if type_of_target(y) != "multilabel-indicator":
            raise ValueError(f"y of shape {y.shape} must hold zeros and ones only")
        return y
    raise ValueError(f"y must have shape (n,), got {y.shape}")


def filled(x: Any, shape: tuple[int, ...]) -> Any:
    """An array that is filled up with zeros to ``shape``."""
    if isinstance(x, jax.Array):
        return jnp.pad(x, [(0, to - size) for size, to in zip(x.shape, shape, strict=True)])
    if x.shape == shape:
        return x
    whole = np.zeros(shape, x.dtype)
    whole[tuple(slice(size) for size in x.shape)] = x
    return whole


def padded_rows(num_rows: int) -> int:
    """The next multiple of 64, or of an eighth of a power of two, which is at most an eighth up."""
    step = max(64, 2 ** (num_rows.bit_length() - 4))
    return -(-num_rows // step) * step


def padded_columns(num_columns: int) -> int:
    """The next multiple of 8, which is what a vector unit works on at once."""
    return -(-num_columns // 8) * 8
