"""The Gram matrix of the features as a metric for every step.

The Hessian of ``Σ ωᵢ ℓ(W x̃ᵢ, yᵢ) + λ/2 ‖W‖²`` is close to ``diag(s) ⊗ M`` in its larger part,
with ``M = Σ ωᵢ cᵢ x̃ᵢ x̃ᵢᵀ + λ I``, where cᵢ is the mean curvature of row i over the logits, and s
the mean curvature of each logit over the rows, in units of its mean. For softmax regression the
Hessian lies below ``½ (I - 11ᵀ/K) ⊗ Σ ωᵢ x̃ᵢ x̃ᵢᵀ + λ I`` (Böhning). The same shift of all logits,
which the loss ignores, is projected out. M is factored once per use:

- up to 4096 features: the Cholesky factor of M, ``(d, d)``. Where a solve with it needs many
  products, there is a factor of ``Σ ωᵢ ℓ″ᵢ[k, k] x̃ᵢ x̃ᵢᵀ + λ I`` for each logit k. These are the
  diagonal blocks of the Hessian. They cost as many times more as there are logits, and are much
  closer where each row lies between few classes;
- more features, up to 4096 rows: through a scaled copy of the rows, by Woodbury's identity, and no
  ``(d, d)``;
- more of both, or where the factor would cost more than 100 products with the Hessian: the diagonal
  of M. Sparse features have that diagonal too, but where M is cheap beside sparse products.

Source: Böhning, Multinomial logistic regression algorithm, Ann. Inst. Stat. Math. 44 (1992).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxclf.linear_algebra.columns import FIXED
from jaxclf.linear_algebra.problem import Affine, gram, gram_diagonal, stacked, unstacked

LARGEST_FACTOR = 4096
_MOST_PRODUCTS = 100
"""A factor may cost as much as so many products with the Hessian."""
_MOST_NUMBERS = 2**25
"""The most numbers in the factors of all logits: 128 MiB in float32."""
_LITTLE_WORK = 2**28
"""With so few multiplications in the factors of all logits, products are quick, and fewer of them
do not pay for two more programs, which take 2 s to compile."""
_DENSE_OVER_SPARSE = 4096
"""Multiplications of M, made of sparse rows, over those of a product with the Hessian."""
_RELATIVE_RIDGE = 1e-5
"""The ridge that M gets, in units of its diagonal, so that float32 can factor a singular M."""


class Preconditioner(NamedTuple):
    """An approximate inverse of the Hessian; apply it with :func:`apply`."""

    scale: Any
    """The scale s of each logit, ``(K,)``."""
    ignores_shifts: Any
    """Whether the loss ignores a shift of all logits, ``()`` bool."""
    inverse_factor: Any = None
    """``L⁻¹`` with ``M = L Lᵀ``, by columns or by rows; by blocks ``(K, d + 1, d + 1)``."""
    rows: Any = None
    """The scaled rows, ``(n, d + 1)``, where M is taken through them."""
    ridge: Any = None
    """The ridge on the diagonal of M beside the rows, ``()``."""
    diagonal: Any = None
    """The diagonal of M, ``(1, d + 1)``, where M is taken as its diagonal; ``(K, d + 1)`` where the
    strengths of logits differ."""


def kind(num_used: int, num_rows: int, num_features: int, num_logits: int) -> str:
    """The way M is factored at this size: ``columns``, ``rows`` or ``diagonal``.

    Forming M of m rows takes ``2 m d²`` operations by columns and ``2 m² d`` by rows. A product
    with the Hessian of all n rows takes ``4 n d K``.
    """
    affordable = 2 * _MOST_PRODUCTS * num_rows * num_logits
    if num_features <= LARGEST_FACTOR and num_used * num_features <= affordable:
        return "columns"
    by_rows = num_used <= LARGEST_FACTOR and num_used**2 <= affordable
    return "rows" if by_rows else "diagonal"


def kind_of_sparse(shape: tuple[int, int], num_stored: int, num_logits: int) -> str:
    """The way M is factored for sparse features: ``columns`` or ``diagonal``.

    M is made of dense blocks of rows, whose products are so much quicker than sparse ones that
    ``4096`` times the multiplications take as long as about ten products with the Hessian.
    """
    n, d = shape
    affordable = n * d**2 <= _DENSE_OVER_SPARSE * num_stored * num_logits
    return "columns" if d <= LARGEST_FACTOR and affordable else "diagonal"


def is_worth_blocks(num_rows: int, num_features: int, num_logits: int) -> bool:
    """Whether a factor for each logit may be worth its work, its memory, and its programs."""
    numbers = num_logits * num_features**2
    few = num_features**2 <= _MOST_PRODUCTS * num_rows and numbers <= _MOST_NUMBERS
    return num_logits > 1 and few and num_rows * numbers > _LITTLE_WORK


def make_preconditioner(
    features, curvatures, scale, l2, ignores_shifts, *, intercept: bool, chosen: str
) -> Preconditioner:
    """The preconditioner that factors M of some rows.

    Args:
      features: ``(n, d)``.
      curvatures: ``(n,)``, ``ωᵢ cᵢ``.
      scale: ``(K,)``, ``Σ ωᵢ ℓ″ᵢ[k, k]``.
      l2: the strength λ: one for all weights, ``(1, d)``, or for the diagonal ``(K, d)``.
      ignores_shifts: whether ℓ″ 1 = 0.
      intercept: whether the model has one.
      chosen: the answer of :func:`kind`.
    """
    n, d = features.shape
    if chosen != "rows":
        product = gram if chosen == "columns" else gram_diagonal
        moments = product(features, curvatures, intercept=intercept)
        return of_moments(moments, scale, l2, ignores_shifts, num_features=d)
    ridge = _ridge(gram_diagonal(features, curvatures, intercept=False), jnp.mean(l2))
    root = jnp.sqrt(curvatures)[:, None]
    x = features.astype(curvatures.dtype) * root
    x = jnp.concatenate([x, root], 1) if intercept else x
    matrix = x @ x.T + ridge * jnp.eye(n, dtype=x.dtype)
    common = _relative(scale), ignores_shifts
    return Preconditioner(*common, inverse_factor=_inverse_factor(matrix), rows=x, ridge=ridge)


def of_moments(moments, scale, l2, ignores_shifts, *, num_features: int) -> Preconditioner:
    """The preconditioner from ``Σ ωᵢ cᵢ x̃ᵢ x̃ᵢᵀ``, or from the diagonal of that sum alone.

    :func:`make_preconditioner` explains the other arguments.
    """
    common = _relative(scale), ignores_shifts
    if moments.ndim == 2:
        matrix = _penalised(moments, l2, num_features)
        return Preconditioner(*common, inverse_factor=_scaled_inverse_factor(matrix))
    # The intercept has a ridge too, so that nothing is divided by zero.
    strengths = _of_each(l2, num_features)
    usual = jnp.mean(jnp.where(strengths < FIXED, strengths, 0), 1, keepdims=True)
    strengths = strengths / common[0][:, None] if len(strengths) > 1 else strengths
    ridge, more = (_ridge(moments[:num_features], x) for x in (strengths, usual))
    more = jnp.broadcast_to(more, (len(ridge), len(moments) - num_features))
    return Preconditioner(*common, diagonal=moments[None] + jnp.concatenate([ridge, more], 1))


def _relative(scale) -> jax.Array:
    scale = scale / jnp.maximum(jnp.mean(scale), jnp.finfo(scale.dtype).tiny)
    # A logit without curvature here is given a hundredth of the mean.
    return jnp.maximum(scale, 1e-2)


def _ridge(squares, l2) -> jax.Array:
    return l2 + _RELATIVE_RIDGE * jnp.mean(squares) + jnp.finfo(squares.dtype).tiny


def block_factor(features, curvatures, places, l2, *, intercept: bool) -> jax.Array:
    """``L⁻¹`` of the diagonal block ``L Lᵀ`` of one logit, made of some rows.

    Args:
      features: ``(n, d)``.
      curvatures: ``(m,)``, ``ωᵢ ℓ″ᵢ[k, k]`` of m rows.
      places: the places of the m rows, ``(m,)``; ``None`` for all rows.
      l2: λ.
      intercept: whether the model has one.
    """
    rows = features if places is None else features[places]
    matrix = gram(rows, curvatures, intercept=intercept)
    return _scaled_inverse_factor(_penalised(matrix, l2, features.shape[1]))


def _penalised(matrix, l2, num_features: int) -> jax.Array:
    return matrix + jnp.diag(on_weights(l2, num_features, len(matrix))[0].astype(matrix.dtype))


def on_weights(l2, num_features: int, size: int) -> jax.Array:
    """The strength of each weight, and zero for an intercept behind them.

    It is ``(1, size)``, or ``(K, size)`` where the strengths of logits differ.
    """
    return jnp.pad(_of_each(l2, num_features), ((0, 0), (0, size - num_features)))


def _of_each(l2, num_features: int) -> jax.Array:
    strengths = jnp.reshape(l2, (-1, jnp.shape(l2)[-1] if jnp.ndim(l2) else 1))
    return jnp.broadcast_to(strengths, (len(strengths), num_features))


def _scaled_inverse_factor(matrix) -> jax.Array:
    root = root_of_diagonal(matrix)
    return _inverse_factor(matrix / root[:, None] / root[None]) / root[None]


def apply(preconditioner: Preconditioner, gradient: Affine) -> Affine:
    """``Π (diag(s) ⊗ M)⁻¹ Π`` times a gradient, where Π projects on what the loss sees."""
    scale, ignores_shifts, inverse_factor, rows, ridge, diagonal = preconditioner

    def project(g):
        # The mean as a product: on a CPU a mean over the first axis takes 25 times as long.
        share = jnp.full((1, len(g)), 1 / len(g), g.dtype)
        return jnp.where(ignores_shifts, g - jnp.matmul(share, g, precision="highest"), g)

    g = project(stacked(gradient)) / scale[:, None]
    if diagonal is not None:
        g = g / diagonal
    elif inverse_factor.ndim == 3:
        inner = jnp.einsum("kij,kj->ki", inverse_factor, g)
        g = jnp.einsum("kij,ki->kj", inverse_factor, inner)
    elif rows is None:
        g = (g @ inverse_factor.T) @ inverse_factor
    else:
        inner = ((g @ rows.T) @ inverse_factor.T) @ inverse_factor
        g = (g - inner @ rows) / ridge
    return unstacked(project(g), gradient)


def root_of_diagonal(matrix) -> jax.Array:
    """The s with which ``A / (s sᵀ)`` has a diagonal of one, or of zero.

    A matrix is factored so scaled, as columns may differ in scale by more than float32 resolves.
    """
    root = jnp.sqrt(jnp.diagonal(matrix))
    return jnp.where(root > 0, root, 1)


def factored(matrix) -> Callable:
    """The map ``b -> A⁻¹ b`` of a symmetric A that is positive definite but for rounding."""
    root = root_of_diagonal(matrix)
    ridge = 10 * float(jnp.finfo(matrix.dtype).eps)
    factor = _cholesky(matrix / root[:, None] / root[None], ridge)
    return lambda b: jax.scipy.linalg.cho_solve((factor, True), b / root) / root


def _inverse_factor(matrix) -> jax.Array:
    """``L⁻¹`` with ``L Lᵀ`` the matrix plus a ridge."""
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    factor = _cholesky(matrix, _RELATIVE_RIDGE)
    return jax.scipy.linalg.solve_triangular(factor, identity, lower=True)


def _cholesky(matrix, ridge: float) -> jax.Array:
    """The Cholesky factor of a matrix plus a ridge, which is raised until there is a factor.

    The ridge is in units of the mean diagonal.
    """
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    size = jnp.trace(matrix) / len(matrix)

    def attempt(state):
        ridge, _ = state
        factor = jax.lax.linalg.cholesky(matrix + ridge * size * identity, symmetrize_input=False)
        return 100 * ridge, factor

    def failed(state):
        ridge, factor = state
        return ~jnp.isfinite(factor).all() & (ridge < 1e3)

    # The loop makes the first attempt too, so that an attempt is compiled once.
    start = jnp.asarray(ridge, matrix.dtype), jnp.full_like(matrix, jnp.nan)
    return jax.lax.while_loop(failed, attempt, start)[1]
