"""Linear models: ``logits = W x + b``, one logit (binary) or one per class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.checks import at_least_float32, check_number, check_shape
from jaxclf.facts import unwrapped
from jaxclf.programs import jit_by_shape
from jaxclf.sparse_rows import check_dense, is_sparse, of_numbers


class LinearParams(NamedTuple):
    """Parameters of a linear model, a plain pytree."""

    weights: Any
    """The weights, ``(d,)`` for one logit, ``(K, d)`` for K; each row is the template of a class.
    """
    intercept: Any = None
    """The intercept, ``()`` or ``(K,)``, which is never penalised; ``None`` for a model through the
    origin."""


def init(
    key,
    num_features: int,
    num_outputs: int | None = None,
    *,
    stddev: float = 0.01,
    intercept: bool = True,
    dtype=jnp.float32,
) -> LinearParams:
    """Normal weights of a chosen standard deviation, and a zero intercept.

    Args:
      key: a JAX random key.
      num_features: d.
      num_outputs: K, or ``None`` for a single logit.
      stddev: the standard deviation of each weight; 0 starts at zero.
      intercept: whether the model has an intercept.
      dtype: the dtype of the parameters.
    """
    check_number("stddev", stddev, at_least=0)
    outputs = () if num_outputs is None else (num_outputs,)
    weights = jax.device_put(np.zeros((*outputs, num_features), dtype))
    if not (isinstance(stddev, int | float) and stddev == 0):
        weights = _normal(key, stddev, weights)
    return LinearParams(weights, jax.device_put(np.zeros(outputs, dtype)) if intercept else None)


@jit_by_shape
def _normal(key, stddev, like):
    return stddev * jax.random.normal(key, like.shape, like.dtype)


def logits(params: LinearParams, features) -> jax.Array:
    """``W x + b`` of one example, or of all rows of sparse features.

    Args:
      params: a model of d features.
      features: ``(d,)`` of any real dtype; integers and halves are widened first. Sparse features,
        :class:`~jaxclf.sparse_rows.SparseRows`, are ``(n, d)``.

    Returns:
      ``()`` or ``(K,)``, in float32 or wider; of sparse features ``(n,)`` or ``(n, K)``.
    """
    if is_sparse(features):
        check_shape("features", features, (None, jnp.shape(params.weights)[-1]))
        z = of_numbers(at_least_float32, features) @ at_least_float32(params.weights).T
        return z if params.intercept is None else z + jnp.broadcast_to(params.intercept, z.shape)
    check_shape("features", features, jnp.shape(params.weights)[-1:])
    weights, x = at_least_float32(params.weights), at_least_float32(features)
    z = weights @ x
    return z if params.intercept is None else z + params.intercept


def is_linear(logits_fn: Callable) -> bool:
    """Whether a function is :func:`logits`, as it is or in ``jax.jit`` or an empty ``partial``.

    Solvers know the structure of such a model: its features enter by ``W x + b`` alone.
    """
    inner, options = unwrapped(logits_fn)
    return inner is logits and not options


def append_one(features) -> jax.Array:
    """The bias trick on the data: ``(..., d) -> (..., d+1)`` with a last column of ones."""
    check_dense("append_one", features)
    features = jnp.asarray(features)
    return jnp.concatenate([features, jnp.ones((*features.shape[:-1], 1), features.dtype)], -1)


def fold_intercept(params: LinearParams) -> LinearParams:
    """The bias trick on the model: the intercept becomes the last weight.

    ``logits(fold_intercept(p), append_one(x)) == logits(p, x)``.

    Raises:
      ValueError: if the model has no intercept.
    """
    if params.intercept is None:
        raise ValueError("the model has no intercept to fold into its weights")
    column = jnp.asarray(params.intercept)[..., None]
    return LinearParams(jnp.concatenate([params.weights, column], -1), None)


def unfold_intercept(params: LinearParams) -> LinearParams:
    """Inverse of :func:`fold_intercept`: the last weight becomes the intercept.

    Raises:
      ValueError: if the model already has an intercept.
    """
    if params.intercept is not None:
        raise ValueError("the model already has an intercept")
    return LinearParams(params.weights[..., :-1], params.weights[..., -1])


def decision_boundary(
    params: LinearParams, classes: tuple[int, int] = (0, 1)
) -> tuple[jax.Array, jax.Array]:
    """The line on which two classes tie, for a model of 2 features.

    Every point of the line is ``point + t · direction``. The line solves ``w · x + b = 0``, where w
    and b are those of the single logit, or the difference of the two classes' rows.

    Args:
      params: a model with d = 2.
      classes: which two of K; ignored for a single logit.

    Returns:
      The point ``(2,)`` of the line nearest to the origin and its unit direction ``(2,)``. Both are
      NaN if w = 0, when there is no such line.
    """
    w, b = params.weights, params.intercept
    if jnp.shape(w)[-1] != 2:
        raise ValueError(f"a boundary line needs 2 features, the model has {jnp.shape(w)[-1]}")
    b = jnp.zeros(jnp.shape(w)[:-1], w.dtype) if b is None else b
    if jnp.ndim(w) == 2:
        first, second = classes
        if first == second or not {first, second} <= set(range(len(w))):
            raise ValueError(f"classes must be two of 0 … {len(w) - 1}, got {classes}")
        w, b = w[first] - w[second], b[first] - b[second]
    square = jnp.sum(w * w)
    direction = jnp.stack([-w[1], w[0]]) / jnp.sqrt(square)
    return -b * w / square, direction


def both_classes(params: LinearParams) -> LinearParams:
    """The parameters of two logits, ``(2, d)`` and ``(2,)``, with the same probabilities as one.

    Each class gets half, so that the difference of its logits is the same without rounding.

    Args:
      params: weights ``(d,)`` and intercept ``()``.
    """
    return jax.tree.map(lambda x: np.stack([-x / 2, x / 2]), params)
