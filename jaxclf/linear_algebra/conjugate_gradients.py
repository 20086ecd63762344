"""Conjugate gradients, in which the directions of the last solve precondition the next one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from jaxclf.linear_algebra.problem import add_scaled, dot
from jaxclf.scaling.chunks import python_cond, python_while_loop

MOST_STEPS = 60
_TRUSTED = 8
"""So many products see the small eigenvalues which the estimate of a gap needs."""
_REMEMBERED_NUMBERS = 2**22
"""The most numbers in the directions that one solve hands on: 16 MiB in float32."""
_FEWEST_PAIRS = 4
"""Fewer pairs save no product, and each product would read and write them: with one pair of 2.6
million numbers a solve takes a fifth longer."""


class SecantPairs(NamedTuple):
    """Directions P along which the curvature Q = H P is known: a block of secant pairs."""

    pairs: Any
    """The directions, of curvature ``pᵀ H p = 1``, and their images, ``(2, m, size)``."""
    inverse: Any
    """The inverse of ``P H Pᵀ``, ``(m, m)``; 0 where nothing is known."""


class Solution(NamedTuple):
    """An approximate solution of ``H d = b``."""

    d: Any
    count: jax.Array
    """The number of products with H."""
    predicted_decrease: jax.Array
    """``½ bᵀ d``, the amount by which the quadratic falls."""
    residual_energy: jax.Array
    """``½ rᵀ M⁻¹ r`` of the last residual. Divided by the smallest eigenvalue of ``M⁻¹ H`` it
    bounds how much further the quadratic can fall."""
    alpha: jax.Array
    beta: jax.Array
    """The coefficients α and β of each step: the Lanczos matrix of ``M⁻¹ H``."""
    pairs: jax.Array
    products: jax.Array
    """The matrix ``P H Pᵀ``, which :func:`remembered` needs."""


class Control(NamedTuple):
    """The way loops and branches run: traced, or on the host where a product reads chunks."""

    while_loop: Callable
    cond: Callable | None


TRACED = Control(jax.lax.while_loop, jax.lax.cond)
ON_HOST = Control(python_while_loop, python_cond)
BATCHED = Control(jax.lax.while_loop, None)
"""Loops under ``jax.vmap``, which takes both ways of a branch."""


class _State(NamedTuple):
    """The state of a solve; its vectors hold all parameters."""

    d: Any
    residual: Any
    p: Any
    rz: Any
    limit: Any
    """The value of ``rᵀ M⁻¹ r`` at which there is no further product."""
    count: Any
    """The number of products so far; -1 before the first direction is made."""
    coefficients: Any
    """The coefficients α and β, ``(2, 60)``."""
    pairs: Any


def _most_pairs(size: int) -> int:
    """The number of pairs that are handed on, each of ``size`` numbers."""
    most = min(MOST_STEPS, _REMEMBERED_NUMBERS // size)
    return most if most >= _FEWEST_PAIRS else 0


def no_pairs(like, most: int | None = None, dtype: Any = None) -> SecantPairs:
    """The pairs before the first solve, when nothing is known; with room for ``most``, if given."""
    leaves = jax.tree.leaves(like)
    size = sum(np.size(x) for x in leaves)
    dtype = jnp.result_type(*leaves) if dtype is None else dtype
    keep = _most_pairs(size) if most is None else most
    return SecantPairs(np.zeros((2, keep, size), dtype), np.zeros((keep, keep), dtype))


def remembered(pairs, products) -> SecantPairs:
    """The secant pairs of a solve, for the next solve.

    They are made on the host, where a small inverse needs no program. Pairs that rounding has made
    dependent, or that are not finite, are forgotten: an inverse of zeros changes nothing.
    """
    matrix = np.asarray(products, np.float64)
    used = np.diagonal(matrix) > 0.5  # places that are empty, and pairs of no use, hold zeros
    ridge = 10 * np.finfo(np.asarray(products).dtype).eps
    matrix = (matrix + matrix.T) / 2 + np.diag(np.where(used, ridge, 1.0))
    inverse = np.zeros_like(matrix)
    with suppress(np.linalg.LinAlgError):
        root = np.linalg.inv(np.linalg.cholesky(matrix))
        inverse = np.where(np.outer(used, used), root.T @ root, 0)
    if not np.isfinite(inverse).all():
        inverse = np.zeros_like(matrix)
    return SecantPairs(pairs, inverse.astype(products.dtype))


def conjugate_gradients(
    product: Callable,
    precondition: Partial | None,
    b,
    accuracy,
    known: SecantPairs,
    control: Control = TRACED,
) -> Solution:
    """Solves ``H d = b`` until ``rᵀ M⁻¹ r`` has fallen by ``accuracy²``. It may be traced.

    The metric is ``precondition`` improved by a block BFGS update with the pairs of the last solve:
    with ``D = P H Pᵀ``,

        M⁻¹ = (I - Pᵀ D⁻¹ Q) M₀⁻¹ (I - Qᵀ D⁻¹ P) + Pᵀ D⁻¹ P,

    which inverts H exactly on the span of P. The solve stops at a direction without positive
    curvature, and returns that direction if it is the first.

    Args:
      product: ``d -> H d`` on pytrees like ``b``, symmetric.
      precondition: ``r -> M₀⁻¹ r``, symmetric and positive definite: a
        :class:`jax.tree_util.Partial` of its arrays; ``None`` is the identity.
      b: any pytree.
      accuracy: a number in (0, 1).
      known: pairs of the last solve; older pairs belong to a curvature that may be long gone.
      control: the way loops run; :data:`ON_HOST` where ``product`` cannot be traced.

    Sources: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.1; Morales and Nocedal,
    Automatic preconditioning by limited memory quasi-Newton updating, SIAM J. Optim. 10 (2000);
    Schnabel, Quasi-Newton methods using multiple secant equations (1983).
    """

    def advanced(s: _State, image) -> _State:
        return _advanced(precondition, b, accuracy, known, s, image)

    def step(s: _State) -> _State:
        p = _restored(b, s.p)
        if control.cond is None:
            return advanced(s, product(p))
        # The loop makes the first direction too, so that the metric is compiled once.
        return advanced(s, control.cond(s.count < 0, _nothing, product, p))

    start = _begin(b, known)
    if control.cond is None:
        start = advanced(start, _nothing(b))
    return _ended(b, control.while_loop(_unfinished, step, start))


# The pieces of the loop are compiled where the loop runs on the host.


def _flat(tree: Any) -> jax.Array:
    """All numbers of a pytree, ``(size,)``.

    On a CPU the concatenation of a matrix of 2.6 million numbers with its intercept takes 41 ms,
    and copying both into their places 0.7 ms.
    """
    leaves = jax.tree.leaves(tree)
    flat = jnp.zeros(sum(map(jnp.size, leaves)), jnp.result_type(*leaves))
    start = 0
    for leaf in leaves:
        flat = jax.lax.dynamic_update_slice(flat, jnp.ravel(leaf), (start,))
        start += jnp.size(leaf)
    return flat


@jax.jit
def _begin(like, known: SecantPairs) -> _State:
    b = _flat(like)
    nothing, one = jnp.zeros_like(b), jnp.ones((), jnp.result_type(float))
    coefficients, pairs = jnp.zeros((2, MOST_STEPS), one.dtype), jnp.zeros_like(known.pairs)
    return _State(nothing, b, nothing, one, one, -jnp.ones((), jnp.int32), coefficients, pairs)


@jax.jit
def _nothing(like):
    return jax.tree.map(jnp.zeros_like, like)


@jax.jit
def _restored(like, flat):
    return ravel_pytree(like)[1](flat)


@jax.jit
def _unfinished(s: _State):
    return (s.count < 0) | ((s.count < MOST_STEPS) & (s.rz > s.limit))


@jax.jit
def _advanced(
    precondition: Partial | None, like, accuracy, known: SecantPairs, s: _State, image
) -> _State:
    """The state after the product of H with its direction, which is ``image``."""
    q, restore = _flat(image), ravel_pytree(image)[1]
    first, curvature = s.count < 0, dot(s.p, q)
    positive = curvature > 0
    length = jnp.where(positive, s.rz / curvature, jnp.where(s.count == 0, 1.0, 0.0))
    residual = add_scaled(s.residual, -length, q)

    p, images = known.pairs
    inner = known.inverse @ (p @ residual)
    z = residual - inner @ images
    z = z if precondition is None else _flat(precondition(restore(z)))
    z = z + (inner - known.inverse @ (images @ z)) @ p

    # The loop ends at a direction without curvature.
    rz = jnp.where(positive | first, dot(residual, z), 0)
    beta, pairs = rz / s.rz, s.pairs
    if keep := pairs.shape[1]:
        scale = jax.lax.rsqrt(jnp.where(positive, curvature, jnp.inf)).astype(q.dtype)
        pairs = pairs.at[:, s.count % keep].set(scale * jnp.stack([s.p, q]))
    told = jnp.stack([jnp.where(positive, length, 0), beta])
    here = (np.arange(MOST_STEPS) == s.count)[None]
    return _State(
        add_scaled(s.d, length, s.p),
        residual,
        add_scaled(z, beta, s.p),
        rz,
        jnp.where(first, accuracy**2 * rz, s.limit),
        s.count + 1,
        jnp.where(here, told[:, None], s.coefficients),
        pairs,
    )


@jax.jit
def _ended(like, s: _State) -> Solution:
    b, restore = _flat(like), ravel_pytree(like)[1]
    decrease, energy = dot(b, s.d) / 2, s.rz / 2
    directions, images = s.pairs
    products = directions @ images.T
    return Solution(restore(s.d), s.count, decrease, energy, *s.coefficients, s.pairs, products)


def smallest_eigenvalue(count: int, alpha, beta) -> float:
    """The smallest eigenvalue of ``M⁻¹ H`` seen by ``count`` products; 0 if it is not positive.

    Source: Saad, Iterative Methods for Sparse Linear Systems (2003), section 6.7.3.
    """
    from scipy.linalg import eigvalsh_tridiagonal

    alpha, beta = (np.asarray(x)[:count] for x in (alpha, beta))
    if count == 0 or not (np.isfinite(alpha) & (alpha > 0)).all():
        return 0.0
    diagonal = 1 / alpha
    diagonal[1:] += beta[:-1] / alpha[:-1]
    beside = np.sqrt(np.maximum(beta[:-1], 0)) / alpha[:-1]
    lowest = eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(0, 0))[0]
    return max(float(lowest), 0.0)


def gap_left(
    seen: list[tuple[int, float]], predicted_decrease: float, residual_energy: float
) -> float:
    """The amount by which a quadratic can fall from a point.

    It is the decrease that the last solve promises, and a bound on the decrease that it left. The
    smallest eigenvalue is taken among the last few products, because a short solve has seen only
    the directions that it went along. Where the curvature is small, such a solve alone would take
    the decrease that it left for nothing.

    Args:
      seen: the number of products and the smallest eigenvalue of each solve.
      predicted_decrease, residual_energy: the numbers of the last solve. An energy that rounding
        has made negative counts as unknown.
    """
    products, lowest = 0, np.inf
    for count, smallest in reversed(seen):
        products, lowest = products + count, min(lowest, smallest)
        if products >= _TRUSTED:
            break
    known = lowest > 0 and residual_energy >= 0
    return predicted_decrease + residual_energy / lowest if known else np.inf


def saw_enough(seen: list[tuple[int, float]]) -> bool:
    """Whether there were enough products to trust the estimate of :func:`gap_left`."""
    return sum(count for count, _ in seen) >= _TRUSTED
