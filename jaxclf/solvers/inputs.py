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
from jaxclf.scaling.sharing import everywhere
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
    dtype = jnp.promote_types(jnp.result_type(*jax.tree.leaves(params)), jnp.float32)
    weights = normalised_weights(batch).astype(dtype)
    return Rows(jnp.asarray(batch.features), jnp.asarray(batch.labels), weights)


def normalised_weights(batch: Batch) -> jax.Array:
    """In float64, with 64-bit mode on."""
    if batch.weights is None:
        return jnp.full(len(batch.features), 1 / len(batch.features), jnp.float64)
    return _normalised(jnp.asarray(batch.weights, jnp.float64))


@jax.jit
def _normalised(weights):
    return weights / jnp.sum(weights)


@jax.jit
def as_affine(params) -> Affine:
    dtype = jnp.promote_types(jnp.result_type(*jax.tree.leaves(params)), jnp.float32)
    weights = jnp.asarray(params.weights, dtype)
    intercept = params.intercept
    if weights.ndim == 1:
        weights = weights[None]
        intercept = None if intercept is None else jnp.reshape(jnp.asarray(intercept, dtype), (1,))
    return Affine(weights, None if intercept is None else jnp.asarray(intercept, dtype))


@jax.jit
def params_like(params, affine: Affine) -> Any:
    def shaped(like, found):
        return (
            None if like is None else found.reshape(jnp.shape(like)).astype(jnp.result_type(like))
        )

    return params._replace(
        weights=shaped(params.weights, affine.weights),
        intercept=shaped(params.intercept, affine.intercept),
    )
