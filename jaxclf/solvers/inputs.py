"""The checks of what :func:`jaxclf.minimize` accepts, the facts of its losses, and its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.bounded_l1 import BoundedL1
from jaxclf.certificates.duality import Known
from jaxclf.facts import facts_of
from jaxclf.group_norms import GroupNorms
from jaxclf.linear_algebra.problem import Affine, Offset, with_offset
from jaxclf.messages import shortened
from jaxclf.models.linear import is_linear
from jaxclf.objectives import Batch, Objective, check_rows, with_checked_labels
from jaxclf.penalties import Penalty, check_strengths, not_smooth
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.sharing import all_gather, is_shared, local_rows
from jaxclf.sparse_rows import from_csr, is_sparse, to_csr
from jaxclf.stored_rows import StoredRows

_OF_CLASSES = ("class", "sign", "probability")
_MOST_VALUES = 16
"""The most labels that are tried one by one, where no proof covers all labels between them."""
_SOFT = ("probability", "probabilities", "distribution")
"""The kinds of labels that may lie between 0 and 1; the slope of a row is then a difference."""


def checked_batch(objective: Objective, batch: Batch, params, *, of_many: bool = False) -> Batch:
    """The batch, or an error where its rows do not fit the objective and its parameters.

    A row of weight zero may have any label, and gets one that the loss takes. With ``of_many``
    every one of several processes calls this with its own rows.
    """
    check_rows(batch)
    if batch.weights is not None:
        checks.check_weights(batch.weights, num_rows=len(batch.labels))
    if batch.offset is not None:
        checks.check_offset(batch.offset, num_rows=len(batch.labels))
    batch = with_checked_labels(batch, objective.loss, num_logits_of(objective, params))
    labels = np.asarray(batch.labels)
    if facts_of(objective.loss).labels not in _OF_CLASSES or labels.ndim != 1:
        return batch
    counted = labels if batch.weights is None else labels[np.asarray(batch.weights) > 0]
    ends = [counted.min(), counted.max()]
    ends = all_gather(ends) if of_many else np.array(ends)
    if ends.min() == ends.max() and ends.min() == np.round(ends.min()):
        raise ValueError(f"labels hold one class only, {counted[0]}: a classifier needs two")
    return batch


def known_loss(
    objective: Objective, params, batch: Batch, *, of_many: bool = False
) -> tuple[Known, str]:
    """The facts of the loss of a linear model with these labels.

    Convexity is proven where nobody has stated it.

    Returns:
      The facts, and in words why the loss is not known to be convex, if it is not.
    """
    facts, labels = facts_of(objective.loss), local_rows(batch.labels)
    num_logits = num_logits_of(objective, params)
    convex, why_not = facts.convex, "the loss is not convex"
    if convex is None:
        convex = _is_proven(objective.loss, num_logits, labels, of_many)
        why_not = "the loss is not known to be convex: state it by state_facts if it is"
    cancels = not facts.accurate
    if facts.labels in _SOFT:
        cancels = cancels or not bool(((labels == 0) | (labels == 1)).all())
    factor = 1.0
    if facts.labels == "distribution":
        sums = np.asarray(labels, np.float64).sum(-1)
        sums = sums[sums > 0]  # rows without a weight may have none
        factor = float(np.max(np.maximum(sums, 1 / sums), initial=1.0))
    if of_many:
        cancels, factor = bool(all_gather(cancels).any()), float(all_gather(factor).max())
    structure = facts.structure
    if structure != "softmax":
        single = num_logits == 1 or structure == "separable"
        structure = "separable" if single and np.isfinite(facts.lower_bound) else "mixed"
    known = Known(
        structure=structure,
        lower_bound=facts.lower_bound,
        cancellation=float(cancels),
        target_factor=factor,
        convex=bool(convex),
        # With several logits a lead of the own class proves something of a softmax alone.
        attains_minimum=facts.attains_minimum or (num_logits > 1 and structure != "softmax"),
        ignores_shifts=facts.ignores_shifts,
        self_concordance=facts.self_concordance,
    )
    return known, "" if convex else why_not


def _is_proven(loss: Callable, num_logits: int, labels: np.ndarray, of_many: bool) -> bool:
    """Whether the loss is proven convex for the labels that there are."""
    ends = np.stack([labels.min(0), labels.max(0)])
    if of_many:
        ends = all_gather(ends)
        ends = np.stack([ends[:, 0].min(0), ends[:, 1].max(0)])
    low, high = ends
    shape = () if num_logits == 1 else (num_logits,)
    if _proof(loss, shape, low.tobytes(), high.tobytes(), low.dtype.str, low.shape):
        return True
    values = np.unique(labels) if labels.ndim == 1 else ()
    if of_many or not 1 < len(values) <= _MOST_VALUES:
        return False
    each = (np.asarray(value, labels.dtype) for value in values)
    return all(_proof(loss, shape, x.tobytes(), x.tobytes(), x.dtype.str, ()) for x in each)


@lru_cache(maxsize=256)
def _proof(loss: Callable, logits_shape, low: bytes, high: bytes, dtype: str, shape) -> bool:
    from jaxclf.analysis.proofs import prove_convex  # only unknown losses pay for the import

    low, high = (np.frombuffer(x, dtype).reshape(shape) for x in (low, high))
    return prove_convex(loss, logits_shape=logits_shape, low=low, high=high) is not None


def check_params(params) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = f"params{jax.tree_util.keystr(path)}"
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"{name} must be floating, got dtype {jnp.result_type(leaf)}")
        if not np.isfinite(np.asarray(leaf, np.float64)).all():
            raise ValueError(f"{name} must be finite")


def check_linear(objective: Objective, params, batch: Batch) -> None:
    check_strengths(objective.strengths, jnp.shape(params.weights))
    checks.check_shape("features", batch.features, (None, jnp.shape(params.weights)[-1]))
    if batch.offset is not None:
        wanted = (len(batch.labels), *jnp.shape(params.weights)[:-1])
        if jnp.shape(batch.offset) != wanted:
            raise ValueError(
                f"the offset must have shape {wanted}, a number for each logit of a row, got "
                f"{jnp.shape(batch.offset)}"
            )
    if jnp.ndim(params.weights) == 2 and len(params.weights) == 1:
        raise ValueError("one logit has weights (d,), not (1, d): a softmax needs two classes")
    if params.intercept is not None:
        checks.check_shape("intercept", params.intercept, jnp.shape(params.weights)[:-1])


def bounded(penalty: Penalty, bounds: Any, weights: Any) -> Penalty:
    """The penalty with bounds on the weights, ``(K, d)`` in the dtype of the weights.

    A weight with an infinite factor has bounds of zero.

    Args:
      penalty: a checked penalty.
      bounds: ``(lower, upper)``, each ``()``, ``(d,)`` or ``(K, d)``.
      weights: the weights of the start, ``(d,)`` or ``(K, d)``.

    Raises:
      ValueError, TypeError: bounds that are no pair, do not fit, are NaN or crossed, or exclude a
        zero that a factor asks for; norms of groups.
    """
    if isinstance(penalty.l1, GroupNorms):
        raise ValueError("bounds go with L1 and L2, not with norms of groups")
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(f"bounds must be a pair (lower, upper), got {shortened(bounds)}")
    shape, ends = jnp.shape(weights), []
    for name, end in zip(("lower", "upper"), bounds, strict=True):
        end = np.asarray(end, np.float64)
        if end.shape not in ((), shape, shape[-1:]):
            raise ValueError(
                f"the {name} bounds of shape {end.shape} do not fit weights of shape {shape}"
            )
        if np.isnan(end).any():
            raise ValueError(f"the {name} bounds must be numbers, which may be infinite, got nan")
        with np.errstate(over="ignore"):
            end = end.astype(jnp.result_type(weights)).astype(np.float64)
        ends.append(np.atleast_2d(np.broadcast_to(end, shape)))
    lower, upper = ends
    l1, l2 = (np.atleast_2d(np.broadcast_to(np.asarray(x, np.float64), shape)) for x in penalty)
    crossed = (lower > upper) | (lower == np.inf) | (upper == -np.inf)
    fixed = np.isinf(l2)
    for wrong, what in (
        (crossed, "bounds leave no number between {} and {}"),
        (fixed & ((lower > 0) | (upper < 0)), "an infinite penalty factor asks for zero, which is "
         "not between the bounds {} and {}"),
    ):  # fmt: skip
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            raise ValueError(f"{what.format(lower[at], upper[at])}, for column {at[1]}")
    lower, upper, l1, l2 = (np.where(fixed, 0, x) for x in (lower, upper, l1, l2))
    return Penalty(BoundedL1(l1, lower, upper), l2)


def free_sides(penalty: Penalty, shape: tuple[int, int]) -> np.ndarray:
    """Whether each weight may go down, and up, without end and without a penalty, ``(2, K, d)``."""
    part = not_smooth(penalty.l1)
    ends = (part.free(penalty.l2) & np.isinf(end) for end in (part.lower, part.upper))
    return np.stack([np.broadcast_to(end, shape) for end in ends])


def fixed_columns(penalty: Penalty) -> np.ndarray:
    """Whether all weights of each column are fixed at zero, ``(d,)``; ``()`` without factors."""
    strengths = np.asarray(penalty.l2)
    return np.isinf(strengths.min(0) if strengths.ndim == 2 else strengths)


def columns_of_rows(features: Any, kept: np.ndarray) -> Any:
    """The features of some columns."""
    if isinstance(features, StoredRows):
        few = features[:][:, np.flatnonzero(kept)]
        return StoredRows(few.data, few.indices, few.indptr, few.shape[1])
    if is_sparse(features):
        return from_csr(to_csr(features)[:, np.flatnonzero(kept)])
    return features[:, np.flatnonzero(kept)]


def without_columns(fixed: np.ndarray, objective: Objective, params, batch: Batch) -> tuple:
    """The objective, the start and the rows without columns that are fixed at zero."""
    penalty = Penalty(
        *(np.asarray(x)[..., ~fixed] if np.ndim(x) else x for x in objective.strengths)
    )
    return (
        replace(objective, penalty=penalty),
        params._replace(weights=np.asarray(params.weights)[..., ~fixed]),
        batch._replace(features=columns_of_rows(batch.features, ~fixed)),
    )


def with_zeros(fixed: np.ndarray, params: Any) -> Any:
    """Parameters with weights of zero for the columns that were left out."""
    weights = np.zeros((*np.shape(params.weights)[:-1], len(fixed)), params.weights.dtype)
    weights[..., ~fixed] = np.asarray(params.weights)
    if isinstance(params.weights, jax.Array):
        with jax.enable_x64(weights.dtype.itemsize == 8):  # they keep their dtype
            return params._replace(weights=jax.device_put(weights))
    return params._replace(weights=weights)


def num_logits_of(objective: Objective, params) -> int | None:
    """K of a linear model, which is 1 with weights ``(d,)``; ``None`` for any other model."""
    if not is_linear(objective.logits_fn):
        return None
    return len(params.weights) if jnp.ndim(params.weights) == 2 else 1


def of_logits(loss: Callable, params, batch: Batch | None = None) -> Callable:
    """The loss as a function of ``(K,)`` logits; with weights ``(d,)`` the given loss takes one.

    Where a batch is given, the loss takes what :func:`labels_of` makes of it.
    """
    loss = loss if jnp.ndim(params.weights) == 2 else _of_one_logit(loss)
    return loss if batch is None or batch.offset is None else with_offset(loss)


@lru_cache(maxsize=64)
def _of_one_logit(loss: Callable) -> Callable:
    return lambda z, label: loss(z[0], label)


def labels_of(batch: Batch) -> Any:
    """The labels, beside the offset ``(n, K)`` if there is one, for a loss of ``(K,)`` logits."""
    if batch.offset is None:
        return batch.labels
    return Offset(batch.labels, batch.offset.reshape(len(batch.labels), -1))


def normalised_weights(batch: Batch) -> Any:
    """The weights over their sum, ``(n,)`` float64; on the host unless processes share them."""
    if batch.weights is None:
        return np.full(len(batch.features), 1 / len(batch.features))
    if isinstance(batch.weights, jax.Array) and is_shared(batch.weights):
        return _normalised(batch.weights)
    weights = np.asarray(batch.weights, np.float64)
    weights = weights / np.max(weights)  # their sum may be beyond float64
    return weights / np.sum(weights)


@jit_by_shape
def _normalised(weights):
    weights = weights.astype(jnp.float64)
    weights = weights / jnp.max(weights)
    return weights / jnp.sum(weights)


def _dtype_of(params) -> np.dtype:
    leaves = jax.tree.leaves(params)
    return np.dtype(jnp.promote_types(jnp.result_type(*leaves), jnp.float32))


def dtypes_of(params) -> Affine:
    """The dtypes of the weights and of the intercept."""
    b = params.intercept
    return Affine(
        np.dtype(jnp.result_type(params.weights)), b if b is None else np.dtype(jnp.result_type(b))
    )


def as_affine(params) -> Affine:
    """Parameters on the host as matrices, in the dtype to compute in."""
    dtype, intercept = _dtype_of(params), params.intercept
    weights = np.asarray(params.weights, dtype)
    if intercept is not None:
        intercept = np.asarray(intercept, dtype).reshape(-1)
    return Affine(weights.reshape(-1, weights.shape[-1]), intercept)


def params_like(params, affine: Affine) -> Any:
    """Matrices on the host in the shapes and dtypes of ``params``."""

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
