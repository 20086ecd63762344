"""Labels as vectors."""

from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.checks import check_integer


def one_hot(labels, num_classes: int, *, dtype=jnp.float32) -> jax.Array:
    """``e_y`` for each label: ``(...,) -> (..., K)``.

    Args:
      labels: ``()`` or ``(n,)`` integers in 0 … K-1.
      num_classes: K.
      dtype: of the result, floating.

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
        # On the host, before JAX can round a 64-bit number into the range.
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
