"""What :func:`jaxclf.minimize` accepts, what is known of its losses, and its data on the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks, losses
from jaxclf.objectives import Batch, Objective, check_rows
from jaxclf.penalties import Penalty, check_strengths
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.sharing import everywhere, is_shared, on_device
from jaxclf.solvers.linear_problem import Affine, Rows, underlying

CLASSIFICATION = (
    losses.bernoulli_nll,
    losses.categorical_nll,
    losses.logistic_margin,
    losses.hinge,
    losses.squared_hinge,
    losses.multiclass_hinge,
    losses.sigmoid_squared_error,
    losses.softmax_squared_error,
)
NEVER_ZERO = (losses.bernoulli_nll, losses.categorical_nll, losses.logistic_margin)
"""Positive at every finite logit, with the infimum zero."""
NONCONVEX = (losses.sigmoid_squared_error, losses.softmax_squared_error)
NONNEGATIVE = (
    *CLASSIFICATION,
    losses.soft_categorical_nll,
    losses.multilabel_nll,
    losses.squared_error,
)


def check_batch(objective: Objective, batch: Batch, *, of_many: bool = False) -> None:
    """``of_many``: the rows are those of one of several processes, all of which are here."""
    check_rows(batch)
    if batch.weights is not None:
        checks.check_weights(batch.weights, num_rows=len(batch.labels))
    labels = np.asarray(batch.labels)
    if underlying(objective.loss) in CLASSIFICATION and labels.ndim == 1:
        counted = labels if batch.weights is None else labels[np.asarray(batch.weights) > 0]
        ends = [counted.min(), counted.max()]
        ends = everywhere(ends) if of_many else np.array(ends)
        if ends.min() == ends.max():
            raise ValueError(f"labels hold one class only, {counted[0]}: a classifier needs two")


def check_params(params) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = f"params{jax.tree_util.keystr(path)}"
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"{name} must be floating, got dtype {jnp.result_type(leaf)}")
        if not np.isfinite(np.asarray(leaf, np.float64)).all():
            raise ValueError(f"{name} must be finite")


def check_linear(objective: Objective, params, batch: Batch) -> None:
    check_strengths(objective.penalty or Penalty())
    checks.check_shape("features", batch.features, (None, jnp.shape(params.weights)[-1]))
    if jnp.ndim(params.weights) == 2 and len(params.weights) == 1:
        raise ValueError("one logit has weights (d,), not (1, d): a softmax needs two classes")
    if params.intercept is not None:
        checks.check_shape("intercept", params.intercept, jnp.shape(params.weights)[:-1])


def of_logits(loss: Callable, params) -> Callable:
    """The loss as one of ``(K,)`` logits, where that of a model with weights ``(d,)`` takes one."""
    return loss if jnp.ndim(params.weights) == 2 else _of_one_logit(loss)


@lru_cache(maxsize=64)
def _of_one_logit(loss: Callable) -> Callable:
    return lambda z, label: loss(z[0], label)


def device_rows(batch: Batch, params) -> Rows:
    """The rows on the device, their weights in the dtype to compute in."""
    weights = normalised_weights(batch).astype(_dtype_of(params))
    return Rows(*map(on_device, (batch.features, batch.labels, weights)))


def normalised_weights(batch: Batch) -> Any:
    """``(n,)`` in float64, on the host but for rows that several processes hold."""
    if batch.weights is None:
        return np.full(len(batch.features), 1 / len(batch.features))
    if isinstance(batch.weights, jax.Array) and is_shared(batch.weights):
        return _normalised(batch.weights)
    weights = np.asarray(batch.weights, np.float64)
    return weights / np.sum(weights)


@jit_by_shape
def _normalised(weights):
    weights = weights.astype(jnp.float64)
    return weights / jnp.sum(weights)


def _dtype_of(params) -> np.dtype:
    leaves = jax.tree.leaves(params)
    return np.dtype(jnp.promote_types(jnp.result_type(*leaves), jnp.float32))


def as_affine(params) -> Affine:
    """Parameters of the host as matrices, in the dtype to compute in."""
    dtype, intercept = _dtype_of(params), params.intercept
    weights = np.asarray(params.weights, dtype)
    if intercept is not None:
        intercept = np.asarray(intercept, dtype).reshape(-1)
    return Affine(weights.reshape(-1, weights.shape[-1]), intercept)


def params_like(params, affine: Affine) -> Any:
    """Matrices of the host in the shapes and dtypes of ``params``."""

    def shaped(like, found):
        return (
            None
            if like is None
            else np.asarray(found, jnp.result_type(like)).reshape(np.shape(like))
        )

    return params._replace(
        weights=shaped(params.weights, affine.weights),
        intercept=shaped(params.intercept, affine.intercept),
    )
