"""Labels as class numbers, as vectors, and as weights."""

from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.checks import check_integer, check_number, check_shape

_NUMBERS_AT_ONCE = 2**22
"""The most numbers of one-hot labels that are looked at together."""


def one_hot(labels, num_classes: int, *, dtype=jnp.float32) -> jax.Array:
    """``e_y`` for each label: ``(...,) -> (..., K)``.

    Args:
      labels: ``()`` or ``(n,)`` integers in 0 … K-1.
      num_classes: K.
      dtype: the floating dtype of the result.

    Raises:
      TypeError: labels that are not integers, or a dtype that cannot hold NaN.
      ValueError: labels outside 0 … K-1 (under jit, where values are not known, their row is NaN),
        or a matrix, which is one-hot already.

    Example:
      >>> from jaxclf.data import one_hot
      >>> one_hot([1, 0], 3).tolist()
      [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    num_classes = operator.index(num_classes)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype must be floating, got {jnp.dtype(dtype)}")
    if not isinstance(labels, jax.Array):
        labels = np.asarray(labels)
    check_integer("labels", labels)
    if jnp.ndim(labels) > 1:
        raise ValueError(
            f"labels must be class numbers of shape () or (n,), got {jnp.shape(labels)}: "
            "they look one-hot already"
        )
    if not isinstance(labels, jax.core.Tracer):
        # The check is on the host, before JAX can round a 64-bit number into the range.
        given = np.asarray(labels)
        wrong = (given < 0) | (given >= num_classes)
        if wrong.any():
            raise ValueError(
                f"labels must lie in 0 … {num_classes - 1}, got {given[wrong].flat[0]}"
            )
    labels = jnp.asarray(labels)
    labels = labels.astype(jnp.promote_types(labels.dtype, jnp.int32))
    valid = (labels >= 0) & (labels < num_classes)
    encoded = (labels[..., None] == jnp.arange(num_classes)[(None,) * labels.ndim]).astype(dtype)
    return jnp.where(valid[..., None], encoded, jnp.nan)


def class_weights(labels, num_classes: int, per_class=None) -> np.ndarray:
    """The weight of each row from its class, to be multiplied with sample weights if there are any.

    Args:
      labels: ``(n,)`` host integers in 0 … K-1.
      num_classes: K.
      per_class: ``(K,)`` weights; by default ``n / (K n_k)``, which gives every class the same
        total (scikit-learn's ``"balanced"``).

    Returns:
      ``(n,)`` float32.

    Raises:
      ValueError: labels outside 0 … K-1, or weights that are not one per class.
    """
    labels = np.asarray(labels)
    check_integer("labels", labels)
    check_number("labels", labels, at_least=0, at_most=num_classes - 1)
    if per_class is None:
        counts = np.bincount(labels, minlength=num_classes)
        per_class = len(labels) / (num_classes * np.maximum(counts, 1))
    per_class = np.asarray(per_class, np.float32)
    check_shape("per_class", per_class, (num_classes,))
    return per_class[labels]


def classes_of(labels: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as class numbers 0 … K-1 and the names of the classes.

    Text and whole numbers are classes, in sorted order (numbers as numbers); numbers with a
    fraction are regression targets, float32, with no classes.

    Args:
      labels: ``(n,)``; text may be an array of objects.
      where: the file, for messages.

    Raises:
      ValueError: labels that are neither text nor finite numbers.
    """
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8")
    if labels.dtype.kind in "UO":
        labels = _numbers_if_all_are(labels)
    if labels.dtype.kind not in "iubfUO":
        raise ValueError(f"{where}: labels must be text or numbers, got dtype {labels.dtype}")
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float64)  # half precision does not hold the bound below
        if not np.isfinite(labels).all():
            row = int(np.argmin(np.isfinite(labels)))
            raise ValueError(f"{where}: labels must be finite, got {labels[row]} in row {row}")
        if not np.array_equal(labels, np.round(labels)) or np.abs(labels).max() > 2**53:
            return labels.astype(np.float32), ()
        labels = labels.astype(np.int64)
    values, numbers = np.unique(labels, return_inverse=True)
    return numbers.astype(np.int32), tuple(str(value) for value in values)


def from_indicators(labels, where: str) -> np.ndarray:
    """Labels ``(n, K)`` of zeros and ones: class numbers where each row has a single one.

    Args:
      labels: ``(n, K)`` numbers or booleans.
      where: the file, for messages.

    Returns:
      ``(n,)`` int32 class numbers of one-hot labels, else ``(n, K)`` uint8.

    Raises:
      ValueError: probabilities, or other numbers.
    """
    shape = np.shape(labels)
    if len(shape) != 2 or shape[1] < 2 or labels.dtype.kind not in "biuf":
        raise ValueError(
            f"{where}: labels must be one a row, (n,), or zeros and ones, (n, K), got "
            f"{labels.dtype} {shape}"
        )
    found = np.empty(shape, np.uint8)
    at_once = max(1, _NUMBERS_AT_ONCE // shape[1])
    for first in range(0, shape[0], at_once):
        rows = np.asarray(labels[first : first + at_once], np.float64)
        wrong = ~((rows == 0) | (rows == 1)).all(1)
        if wrong.any():
            row = rows[wrong][0]
            # Probabilities that were rounded for a table, or in half precision, are meant too.
            is_distribution = (row >= 0).all() and abs(row.sum() - 1) <= 1e-2
            raise ValueError(
                f"{where}: labels must be one a row, (n,), or zeros and ones, (n, K), got {shape} "
                f"with {'probabilities' if is_distribution else 'other numbers'} in row "
                f"{first + int(np.argmax(wrong))}"
                + ("; jaxclf.LogisticRegression takes them as y" if is_distribution else "")
            )
        found[first : first + at_once] = rows
    if (found.sum(1, dtype=np.int64) == 1).all():
        return found.argmax(1).astype(np.int32)
    return found


def _numbers_if_all_are(labels: np.ndarray) -> np.ndarray:
    """Labels as numbers if every text is written as a number is; 007 and 1_0 stay text."""
    texts = labels.tolist()
    try:
        if all(text == str(int(text)) for text in texts):
            return labels.astype(np.int64)
    except (ValueError, OverflowError):
        pass
    try:
        values = labels.astype(np.float64)
    except ValueError:
        return labels
    return values if (values != np.round(values)).any() else labels
