"""Labels as vectors, and as weights."""

from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.checks import check_integer, check_number, check_shape


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
