"""Sums over the rows of a linear model, however they are held, and the formulas that are summed.

Each formula is written once, as a function of a block of rows. Such a block function is made once
for a loss, because its programs are kept by its identity.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.programs import programs_by_shape
from jaxclf.scaling import row_sums
from jaxclf.scaling.chunks import Chunked, sum_chunks
from jaxclf.sparse_rows import of_numbers


def reduce(
    rows: Rows | Chunked,
    block: Callable,
    v: Affine,
    z: Any,
    *args: Any,
    held: int = 1,
    features: bool = True,
) -> tuple[Any, Any]:
    """``Σ block(x, z, labels, weights, *args)`` over all rows, however they are held.

    Rows in memory are taken a block at a time; on a mesh every device takes its own rows, and the
    sums of all are added up; rows in chunks are read from the host. A caller with chunks
    runs on the host; a caller with rows in memory may be traced.

    Args:
      rows: the rows, in memory or in chunks.
      block: ``(x (m, d), z (m, K), labels, weights (m,), *args) -> (sums, per_row)``, in the dtype
        of v. It must live long, as its programs are kept by its identity, and ``per_row`` must not
        depend on the weights.
      v: the parameters.
      z: the logits of the rows where they are known, else ``None``.
      args: arguments that the block needs beside the rows.
      held: numbers that the block makes of a row, if more than it has features.
      features: whether the block uses x. Where it does not and z is known, blocks are as large as
        their logits allow, and x is ``None``.

    Returns:
      The sums, and the block's results for each row of this process.
    """
    if isinstance(rows, Chunked):
        return sum_chunks(_reduced(block, held, like=(rows.rows, v, args)), rows, v, None, *args)
    if not features and z is not None:
        rows = rows._replace(features=None)
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((rows, v))):
        return _over_rows(block, held, rows, v, z, *args)
    return _reduced(block, held, like=(rows, v, z, args))(rows, v, z, *args)


@programs_by_shape
def _reduced(block: Callable, held: int) -> Callable:
    return jax.jit(partial(_over_rows, block, held))


def _over_rows(block: Callable, held: int, rows: Rows, v: Affine, z, *args) -> tuple[Any, Any]:
    dtype, multiply = v.weights.dtype, lp.affine_map(v)
    if rows.features is None:

        def of_logits(z, labels, weights):
            return block(None, z, labels, weights.astype(dtype), *args)

        return row_sums.sum_and_map_rows(of_logits, z, *rows[1:], held=held)

    def of_block(x, *others):
        *known, labels, weights = others
        x = x.astype(dtype)
        return block(x, known[0] if known else multiply(x), labels, weights.astype(dtype), *args)

    per_row = rows[1:] if z is None else (z, *rows[1:])
    held = max(held, len(v.weights)) if z is None else held
    return row_sums.sum_and_map_rows(of_block, rows.features, *per_row, held=held)


def depth(rows: Rows | Chunked, held: int = 1) -> int:
    """The most additions that a term of :func:`reduce` goes through, whatever their order.

    Every process has the same number, so that all processes make the same decisions with it.
    """
    if isinstance(rows, Chunked):
        return rows.size * rows.count * jax.process_count()
    return row_sums.depth(rows.features, held)


@lru_cache(maxsize=64)
def risk_block(loss: Callable) -> Callable:
    """The block function of the mean loss, in float64."""

    def risk(x, z, labels, weights):
        return jnp.sum((weights * lp.losses(loss, z, labels)).astype(jnp.float64)), None

    return risk


@lru_cache(maxsize=64)
def evaluation_block(loss: Callable, curved: bool, intercept: bool) -> Callable:
    """The block function of the mean loss, its gradient, and its curvature by logit and by row."""

    def evaluation(x, z, labels, weights):
        risk, _ = risk_block(loss)(x, z, labels, weights)
        residuals = lp.slopes(loss, z, labels, weights)
        gradient = Affine(residuals.T @ x, jnp.sum(residuals, 0) if intercept else None)
        if not curved:
            return (risk, gradient, None), None
        each = lp.curvatures(loss, z, labels)
        return (risk, gradient, weights @ each), jnp.mean(each, 1)

    return evaluation


@lru_cache(maxsize=64)
def product_block(loss: Callable) -> Callable:
    """The block function of the Hessian times a direction, without the penalty."""

    def product(x, z, labels, weights, d):
        return lp.block_product(x, lp.curvature(loss, z, labels), weights, d), None

    return product


@lru_cache(maxsize=64)
def moments_block(loss: Callable, by_columns: bool, intercept: bool) -> Callable:
    """The block function of ``Σ ωᵢ cᵢ x̃ᵢ x̃ᵢᵀ``, or of its diagonal.

    The number cᵢ is the mean curvature of a row.
    """

    def moments(x, z, labels, weights):
        used = weights * jnp.mean(lp.curvatures(loss, z, labels), 1)
        added = lp.block_gram if by_columns else lp.block_gram_diagonal
        return added(x, used, intercept=intercept), None

    return moments


@lru_cache(maxsize=64)
def added_block(loss: Callable) -> Callable:
    """The block function of the amount by which a change of the logits raises the mean loss, and of
    the effect of relative changes by rounding, ``Σ ωᵢ (|ℓᵢ| + |ℓ′ᵢ| (|zᵢ| + |change|))``."""

    def added(x, z, labels, weights, change):
        moved = z + change[None]
        values, slopes = lp.losses_and_slopes(loss, moved, labels)
        sizes = jnp.abs(moved) + jnp.abs(change)[None] + lp.offset_size(z, labels)
        terms = jnp.sum(jnp.abs(slopes) * sizes, 1)
        rise = (values - lp.losses(loss, z, labels)) @ weights
        return (rise, (jnp.abs(values) + terms) @ weights), None

    return added


def sensitivity(loss: Callable, rows: Rows | Chunked, v: Affine) -> jax.Array:
    """``Σ ωᵢ (|ℓᵢ| + |ℓ′ᵢ| (|W| |xᵢ| + |b|))``, the effect that relative changes of all terms may
    have on the mean loss."""
    return reduce(rows, _sensitivity_block(loss), v, None, jax.tree.map(np.abs, v))[0]


@lru_cache(maxsize=64)
def _sensitivity_block(loss: Callable) -> Callable:
    def sensitivity(x, z, labels, weights, sizes):
        values, slopes = lp.losses_and_slopes(loss, z, labels)
        terms = lp.affine_map(sizes)(of_numbers(jnp.abs, x)) + lp.offset_size(z, labels)
        terms = jnp.sum(jnp.abs(slopes) * terms, 1)
        return weights @ (jnp.abs(values) + terms), None

    return sensitivity


def margins_of(z, labels) -> jax.Array:
    """The lead of each row's own class over the next, ``(n,)``; with one logit, its signed size.

    An offset does not count.
    """
    labels = lp.without_offset(labels)
    if z.shape[1] == 1:
        return jnp.where(labels > 0, z[:, 0], -z[:, 0])
    own = jnp.arange(z.shape[1])[None] == labels[:, None]
    return jnp.sum(jnp.where(own, z, 0), 1) - jnp.max(jnp.where(own, -jnp.inf, z), 1)


def margins_block(x, z, labels, weights):
    """The margins of the rows."""
    return None, margins_of(z, labels)
