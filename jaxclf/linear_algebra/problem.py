"""The structure of a linear model's objective: the formulas for which solvers read the features.

With ``z_i = W x_i + b`` and any per-example loss ℓ, for V = (W, b):

    F = Σ ωᵢ ℓ(zᵢ, yᵢ) + penalty(W)          value
    ∇F = Σ ωᵢ ℓ′(zᵢ, yᵢ) (xᵢ, 1)ᵀ + …       gradient
    ∇²F · D = Σ ωᵢ ℓ″(zᵢ, yᵢ) (D x̃ᵢ) x̃ᵢᵀ + …   Hessian-vector product

with ωᵢ the weights over their sum. Derivatives in the logits come from ``jax.grad`` and ``jax.vjp``
of one example, so a new loss needs no code here. Features are read a block of rows at a time, see
:mod:`jaxclf.scaling.row_sums`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxclf.activations import softmax
from jaxclf.facts import facts_of, states
from jaxclf.penalties import not_smooth
from jaxclf.scaling.mesh import MODEL, in_use_along
from jaxclf.scaling.row_sums import map_rows, sum_own_rows, sum_rows
from jaxclf.sparse_rows import (
    DenseBlocks,
    is_sparse,
    numbers_in,
    of_numbers,
)

_KERNEL_COLUMNS = 8
_FEWEST_TO_PAD = 64
"""In float64 a product with fewer features takes less time than cutting off the padding."""
_WIDE = 256
"""Columns from which a symmetric product is made of blocks: with 784 it takes two thirds of the
time."""
_CHEAP_LOGITS = 4
_COLUMNS_AT_ONCE = 256
"""The most logits times directions held at once for the diagonals of the rows' curvatures."""


class Affine(NamedTuple):
    """W and b, or a direction of them, as matrices: one row per logit."""

    weights: jax.Array
    """W, ``(K, d)``."""
    intercept: jax.Array | None
    """b, ``(K,)``."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Offset:
    """Labels beside an offset, which the loss of :func:`with_offset` adds to the logits.

    To a solver an offset is a part of the label: logits that it makes and keeps are without it.
    """

    labels: jax.Array
    offset: jax.Array
    """The offset, ``(n, K)``, or ``(K,)`` of one row."""


class Rows(NamedTuple):
    """Rows of data on the device."""

    features: jax.Array
    """The features, ``(n, d)`` of any real dtype."""
    labels: jax.Array | Offset
    weights: jax.Array
    """The weights, ``(n,)`` floating; they sum to one over all rows of the problem."""


@lru_cache(maxsize=64)
def with_offset(loss: Callable) -> Callable:
    """The loss that takes the labels of :class:`Offset`. It has the facts of the given loss, which
    hold of every shift of the logits."""

    @states(**facts_of(loss)._asdict())
    def shifted(z, label: Offset):
        return loss(at_offset(z, label), label.labels)

    return shifted


def at_offset(z, labels) -> jax.Array:
    """The logits with the offset, if the labels have one."""
    return z + labels.offset.astype(z.dtype) if isinstance(labels, Offset) else z


def offset_size(z, labels) -> jax.Array:
    """The absolute values of the offset in the shape and dtype of z; 0 if the labels have none."""
    return jnp.abs(at_offset(jnp.zeros_like(z), labels))


def without_offset(labels) -> Any:
    """The labels alone."""
    return labels.labels if isinstance(labels, Offset) else labels


def dot(a: Any, b: Any) -> jax.Array:
    """``⟨a, b⟩`` of two pytrees, summed in float64 where 64-bit mode is on."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(jnp.sum(_wide(x * y)) for x, y in pairs)


def add_scaled(a: Any, step, b: Any) -> Any:
    """``a + step · b`` of two pytrees, in the dtype of a."""
    return jax.tree.map(lambda x, y: x + jnp.asarray(step, x.dtype) * y, a, b)


def stacked(v: Affine) -> jax.Array:
    """W and b as one matrix ``(K, d + 1)``, the intercept last; W alone without an intercept."""
    if v.intercept is None:
        return v.weights
    return jnp.concatenate([v.weights, v.intercept[:, None]], 1)


def unstacked(matrix, like: Affine) -> Affine:
    """The inverse of :func:`stacked`, with an intercept if ``like`` has one."""
    if like.intercept is None:
        return Affine(matrix, None)
    return Affine(matrix[:, :-1], matrix[:, -1])


def penalty_terms(w, l1, l2):
    """``l1 |w| + l2/2 w²`` of each weight; a group's norm is shared out over its weights.

    Bounds add nothing to the weights, which lie within them."""
    return not_smooth(l1).terms(w) + 0.5 * l2 * w * w


def with_ridge(g: Affine, l2, v: Affine) -> Affine:
    """A gradient, or a product with the Hessian, plus that of ``l2/2 ‖W‖²`` for V = (W, b)."""
    return g._replace(weights=add_scaled(g.weights, l2, v.weights))


def largest(tree: Any) -> jax.Array:
    """The largest absolute entry of a pytree."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))


def smallest_subgradient(w, g, l1) -> jax.Array:
    """The smallest subgradient of ``f + l1 ‖w‖₁``, where f has the gradient g at w."""
    return not_smooth(l1).smallest_subgradient(w, g)


def _wide(x) -> jax.Array:
    return x.astype(jnp.float64) if jax.config.jax_enable_x64 else x


def logits(features, affine: Affine) -> jax.Array:
    """``X Wᵀ + b``, ``(n, K)``."""
    dtype = affine.weights.dtype
    multiply = affine_map(affine)

    def block(x):
        return multiply(x.astype(dtype))

    whole = features.dtype == dtype and not is_sparse(features)
    return block(features) if whole else map_rows(block, features)


def affine_map(affine: Affine) -> Callable:
    """The function ``X -> X Wᵀ + b``.

    K is padded to a width that the kernels of the product are made for. They take 17 ms for 10
    columns, but 11 ms for 8 and 13 ms for 16.
    """
    weights, intercept = affine
    num_logits, d = weights.shape
    worth_it = num_logits > _KERNEL_COLUMNS // 2 and in_use_along(MODEL) == 1
    worth_it = worth_it and (weights.dtype != np.float64 or d >= _FEWEST_TO_PAD)
    padding = -num_logits % _KERNEL_COLUMNS if worth_it else 0
    wide = jnp.pad(weights, ((0, padding), (0, 0))).T

    def multiply(x):
        z = (x @ wide)[:, :num_logits]
        return z if intercept is None else z + intercept[None]

    return multiply


def transpose_product(features, residuals, *, intercept: bool) -> Affine:
    """``(Rᵀ X, Rᵀ 1)`` of residuals ``(n, K)``."""

    def block(x, r):
        return r.T @ x.astype(r.dtype), jnp.sum(r, 0) if intercept else None

    return Affine(*sum_rows(block, features, residuals))


def losses(loss: Callable, z, labels) -> jax.Array:
    """``ℓ(zᵢ, yᵢ)``, ``(n,)``."""
    return jax.vmap(loss)(z, labels)


def slopes(loss: Callable, z, labels, weights) -> jax.Array:
    """``ωᵢ ℓ′(zᵢ, yᵢ)``, ``(n, K)``."""
    return jax.vmap(jax.grad(loss))(z, labels) * weights[:, None]


def losses_and_slopes(loss: Callable, z, labels) -> tuple[jax.Array, jax.Array]:
    """``ℓ(zᵢ, yᵢ)``, ``(n,)``, and ``ℓ′(zᵢ, yᵢ)``, ``(n, K)``, which may share their work."""
    return jax.vmap(jax.value_and_grad(loss))(z, labels)


def is_softmax(loss: Callable) -> bool:
    """Whether ``ℓ″ = diag(p) - p pᵀ`` with ``p = softmax(z)``, whatever the label."""
    return facts_of(loss).structure == "softmax"


def curvature(loss: Callable, z, labels):
    """The linear maps ``u -> ℓ″(zᵢ, yᵢ) u`` of all rows: a pytree of the arrays they need."""
    return jax.vmap(partial(curvature_map, loss))(z, labels)


def curvature_map(loss: Callable, z, label) -> Callable:
    """``u -> ℓ″(z, y) u`` of one row, as a pytree.

    ℓ″ is symmetric, so the pullback of the gradient is the map itself. The map of the log
    loss is written down, ``p ∘ (u - pᵀu)``: it keeps one array where the pullback keeps four.
    """
    if is_softmax(loss):
        return Partial(_centred, softmax(at_offset(z, label)))
    pullback = jax.vjp(lambda z: jax.grad(loss)(z, label), z)[1]
    if jax.tree.leaves(pullback):
        return Partial(_first, pullback)
    # A loss with the same ℓ″ everywhere needs nothing of the row, but a map of each row needs an
    # array.
    return Partial(_everywhere, jnp.zeros((), z.dtype), pullback)


def _centred(p, u):
    weighted = p * u
    # XLA's CPU backend (jaxlib 0.10.2) miscompiles p * (u - Σ) for the columns of I.
    return weighted - p * jnp.sum(weighted)


def _first(pullback, u):
    return pullback(u)[0]


def _everywhere(_, pullback, u):
    return pullback(u)[0]


def curvature_product(maps, u) -> jax.Array:
    """Each row's map applied to its ``u``: ``(n, K) -> (n, K)``."""
    return jax.vmap(lambda product, u: product(u))(maps, u)


def curvature_diagonal(maps, num_logits: int, dtype) -> jax.Array:
    """The diagonal of each row's ℓ″, ``(n, K)``; never more than some hundred columns at once."""
    if isinstance(maps, Partial) and maps.func is _centred:
        (p,) = maps.args
        return p - p**2

    def entry(k):
        unit = (jnp.arange(num_logits) == k).astype(dtype)
        return jax.vmap(lambda product: product(unit)[k])(maps)

    together = max(1, _COLUMNS_AT_ONCE // num_logits)
    return jax.lax.map(entry, jnp.arange(num_logits), batch_size=together).T


def curvatures(loss: Callable, z, labels) -> jax.Array:
    """The curvatures ``ℓ″ᵢ[k, k]``, ``(n, K)``; none is below zero."""
    maps = curvature(loss, z, labels)
    return jnp.maximum(curvature_diagonal(maps, z.shape[1], z.dtype), 0)


def curvature_is_cheap(loss: Callable, num_logits: int) -> bool:
    """Whether the diagonal of each row's ℓ″ costs no more than the logits, and not K products."""
    return num_logits <= _CHEAP_LOGITS or is_softmax(loss)


def curvature_along(loss: Callable, z, labels, weights, dz) -> jax.Array:
    """``Σ ωᵢ dzᵢᵀ ℓ″(zᵢ, yᵢ) dzᵢ``, ``()``, summed in float64 where 64-bit mode is on."""
    maps = curvature(loss, z, labels)
    return jnp.sum(_wide(jnp.sum(weights[:, None] * (dz * curvature_product(maps, dz)), 1)))


def logit_hessian(loss: Callable, z, labels, weights) -> jax.Array:
    """``Σ ωᵢ ℓ″(zᵢ, yᵢ)``, ``(K, K)``: the Hessian in a shift of all logits."""
    if is_softmax(loss):
        p = softmax(at_offset(z, labels))
        weighted = weights[:, None] * p
        return jnp.diag(jnp.sum(weighted, 0)) - weighted.T @ p
    maps = curvature(loss, z, labels)

    def column(k):
        unit = jnp.broadcast_to((jnp.arange(z.shape[1]) == k).astype(z.dtype), z.shape)
        return weights @ curvature_product(maps, unit)

    return jax.lax.map(column, jnp.arange(z.shape[1]))


def ignores_shifts(maps, z) -> jax.Array:
    """Whether ℓ″ 1 = 0: the loss does not change when all logits of a row rise by the same."""
    moved = curvature_product(maps, jnp.ones_like(z))
    return (z.shape[1] > 1) & (jnp.max(jnp.abs(moved)) < 100 * jnp.finfo(z.dtype).eps)


def hessian_product(features, maps, weights, direction: Affine) -> Affine:
    """``Σ ωᵢ ℓ″ᵢ (D x̃ᵢ) x̃ᵢᵀ`` without the penalty, in one reading of the features."""
    dtype = direction.weights.dtype

    def block(x, maps, weights):
        return block_product(x.astype(dtype), maps, weights, direction)

    return sum_rows(block, features, maps, weights)


def block_product(x, maps, weights, direction: Affine) -> Affine:
    """The part that a block of rows adds to :func:`hessian_product`."""
    s = curvature_product(maps, affine_map(direction)(x)) * weights[:, None]
    return Affine(s.T @ x, None if direction.intercept is None else jnp.sum(s, 0))


def dense_hessian(
    loss: Callable, rows: Rows, z, columns: Any, *, intercept: bool, most: int = 0
) -> jax.Array:
    """``Σ ωᵢ ℓ″ᵢ[k, l] xᵢ[a] xᵢ[b]`` over pairs (k, a), (l, b) of a logit and a feature.

    Args:
      loss: the loss of one example.
      rows: the data.
      z: ``(n, K)`` logits.
      columns: ``(K, m)``, the features taken for each logit; ``None`` for all.
      intercept: whether the intercept is the last parameter of each logit.
      most: of sparse features the most numbers that are stored in the columns of all logits.

    Returns:
      ``(K (m + 1), K (m + 1))``, without the 1 if there is no intercept.
    """
    num_logits = z.shape[1]
    size = rows.features.shape[1] if columns is None else columns.shape[1]

    def block(x, z, labels, weights):
        x = x.astype(z.dtype)
        return block_hessian(loss, x, z, labels, weights, columns, intercept=intercept)

    features: Any = rows.features
    if is_sparse(features):
        at, columns = columns.ravel(), jnp.arange(columns.size).reshape(columns.shape)

        def sparse_block(x, *per_row):  # whose dense blocks have the chosen columns alone
            return sum_own_rows(block, numbers_in(x, at, most), *per_row)

        return sum_rows(sparse_block, features, z, rows.labels, rows.weights)
    held = num_logits * max(num_logits, size + intercept)
    return sum_rows(block, features, z, rows.labels, rows.weights, held=held)


def block_hessian(loss: Callable, x, z, labels, weights, columns, *, intercept: bool) -> jax.Array:
    """The part that a block of rows adds to :func:`dense_hessian`."""
    num_logits = z.shape[1]
    if columns is None:
        chosen = jnp.broadcast_to(x[:, None], (len(x), num_logits, x.shape[1]))
    else:
        chosen = jnp.take(x, columns.ravel(), axis=1).reshape(len(x), num_logits, -1)
    if intercept:
        chosen = jnp.pad(chosen, ((0, 0), (0, 0), (0, 1)), constant_values=1)
    curvature = weights[:, None, None] * logit_hessians(loss, z, labels)

    def of_logit(k):
        return chosen[:, k].T @ (curvature[:, k, :, None] * chosen).reshape(len(x), -1)

    return jax.lax.map(of_logit, jnp.arange(num_logits)).reshape(-1, chosen[0].size)


def logit_hessians(loss: Callable, z, labels) -> jax.Array:
    """``ℓ″(zᵢ, yᵢ)``, ``(n, K, K)``; for the log loss ``diag(p) - p pᵀ`` is written down."""
    if not is_softmax(loss):
        return jax.vmap(jax.hessian(loss))(z, labels)
    p = softmax(at_offset(z, labels))
    return p[:, :, None] * (jnp.eye(z.shape[1], dtype=z.dtype)[None] - p[:, None])


def gram(features, weights, *, intercept: bool) -> jax.Array:
    """``Σ ωᵢ x̃ᵢ x̃ᵢᵀ``, ``(d, d)`` or with the intercept's row and column last ``(d+1, d+1)``."""
    block = partial(block_gram, intercept=intercept)
    return sum_rows(block, DenseBlocks(features) if is_sparse(features) else features, weights)


def gram_diagonal(features, weights, *, intercept: bool) -> jax.Array:
    """The diagonal of :func:`gram`, ``(d,)`` or ``(d + 1,)``."""
    return sum_rows(partial(block_gram_diagonal, intercept=intercept), features, weights)


def block_gram(x, weights, *, intercept: bool) -> jax.Array:
    """The part that a block of rows adds to :func:`gram`."""
    if is_sparse(x):
        return sum_own_rows(partial(block_gram, intercept=intercept), DenseBlocks(x), weights)
    x = x.astype(weights.dtype)
    moments = _symmetric_product(x, x * weights[:, None])
    if not intercept:
        return moments
    # A copy of the rows with a column of ones would take as long as the product.
    sums, total = weights @ x, jnp.sum(weights)
    return jnp.block([[moments, sums[:, None]], [sums[None], total[None, None]]])


def _symmetric_product(x, y) -> jax.Array:
    """``xᵀ y``, known to be symmetric: the block below the diagonal is not multiplied out."""
    d = x.shape[1]
    if d < _WIDE:
        return x.T @ y
    half = d // 2
    above = x[:, :half].T @ y
    last = x[:, half:].T @ y[:, half:]
    return jnp.concatenate([above, jnp.concatenate([above[:, half:].T, last], 1)])


def block_gram_diagonal(x, weights, *, intercept: bool) -> jax.Array:
    """The part that a block of rows adds to :func:`gram_diagonal`."""
    squares = weights @ of_numbers(jnp.square, x.astype(weights.dtype))
    return jnp.append(squares, jnp.sum(weights)) if intercept else squares
