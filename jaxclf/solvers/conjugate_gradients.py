"""Conjugate gradients that remember: each solve is preconditioned by what the last one learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxclf.solvers.linear_problem import add_scaled, dot

MOST_STEPS = 60
_TRUSTED = 8
"""Products that see the small eigenvalues which the estimate of a gap needs."""
_REMEMBERED_NUMBERS = 2**22
"""Numbers in the directions that one solve hands on: 16 MiB in float32."""


class Curved(NamedTuple):
    """Directions P along which the curvature Q = H P is known: a block of secant pairs."""

    directions: jax.Array
    """``(m, size)``, of curvature ``pᵀ H p = 1``."""
    images: jax.Array
    """``(m, size)``."""
    inverse: jax.Array
    """``(m, m)``, of ``P H Pᵀ``."""


class Solved(NamedTuple):
    """An approximate solution of ``H d = b``."""

    d: Any
    count: jax.Array
    """Products with H."""
    promised: jax.Array
    """``½ bᵀ d``: how much the quadratic falls."""
    left: jax.Array
    """``½ rᵀ M⁻¹ r`` of the last residual; over the smallest eigenvalue of ``M⁻¹ H`` it bounds how
    much further the quadratic can fall."""
    lengths: jax.Array
    turns: jax.Array
    """The coefficients α and β of each step: the Lanczos matrix of ``M⁻¹ H``."""
    curved: Curved
    """For the next solve."""


class _State(NamedTuple):
    """Vectors of all parameters."""

    d: Any
    residual: Any
    p: Any
    rz: Any
    count: Any
    coefficients: Any
    """``(2, 60)``, α and β."""
    curved: Any
    """``(2, m, size)``, directions and images."""


def _remembered(size: int) -> int:
    """How many directions of so many numbers are handed on."""
    return min(MOST_STEPS, _REMEMBERED_NUMBERS // size)


def nothing_curved(like) -> Curved:
    """What is known before the first solve."""
    leaves = jax.tree.leaves(like)
    size, dtype = sum(np.size(x) for x in leaves), jnp.result_type(*leaves)
    keep = _remembered(size)
    memory = np.zeros((keep, size), dtype)
    return Curved(memory, memory, np.eye(keep, dtype=dtype))


def conjugate_gradients(
    product: Callable,
    precondition: Callable,
    b,
    accuracy,
    curved: Curved,
    while_loop: Callable = jax.lax.while_loop,
) -> Solved:
    """Solves ``H d = b`` until ``rᵀ M⁻¹ r`` has fallen by ``accuracy²``. May be traced.

    The metric is ``precondition`` improved by a block BFGS update with the pairs of the last solve:
    with ``D = P H Pᵀ``,

        M⁻¹ = (I - Pᵀ D⁻¹ Q) M₀⁻¹ (I - Qᵀ D⁻¹ P) + Pᵀ D⁻¹ P,

    which inverts H exactly on the span of P. Stops at a direction without positive curvature; if it
    is the first, returns it.

    Args:
      product: ``d -> H d`` on pytrees like ``b``, symmetric.
      precondition: ``r -> M₀⁻¹ r``, symmetric and positive definite.
      b: any pytree.
      accuracy: in (0, 1).
      curved: of the last solve; older pairs belong to a curvature that may be long gone.
      while_loop: another one where ``product`` cannot be traced.

    Sources: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.1; Morales and Nocedal,
    Automatic preconditioning by limited memory quasi-Newton updating, SIAM J. Optim. 10 (2000);
    Schnabel, Quasi-Newton methods using multiple secant equations (1983).
    """
    b, restore = ravel_pytree(b)
    keep = _remembered(b.size)
    memory = jnp.zeros((2, keep, b.size), b.dtype)

    def apply(r):
        return _improved(lambda x: ravel_pytree(precondition(restore(x)))[0], curved, r)

    z0 = apply(b)
    rz0 = dot(b, z0)
    steps = np.arange(MOST_STEPS)

    def step(s: _State) -> _State:
        q = ravel_pytree(product(restore(s.p)))[0]
        curvature = dot(s.p, q)
        positive = curvature > 0
        length = jnp.where(positive, s.rz / curvature, jnp.where(s.count == 0, 1.0, 0.0))
        residual = add_scaled(s.residual, -length, q)
        z = apply(residual)
        # Nothing is left to do without curvature: the loop ends.
        rz = jnp.where(positive, dot(residual, z), 0)
        turn, curved = rz / s.rz, s.curved
        if keep:
            scale = jax.lax.rsqrt(jnp.where(positive, curvature, jnp.inf)).astype(b.dtype)
            curved = curved.at[:, s.count % keep].set(scale * jnp.stack([s.p, q]))
        told = jnp.stack([jnp.where(positive, length, 0), turn])
        return _State(
            add_scaled(s.d, length, s.p),
            residual,
            add_scaled(z, turn, s.p),
            rz,
            s.count + 1,
            jnp.where((steps == s.count)[None], told[:, None], s.coefficients),
            curved,
        )

    def unfinished(s: _State):
        return (s.count < MOST_STEPS) & (s.rz > accuracy**2 * rz0)

    coefficients = jnp.zeros((2, MOST_STEPS), rz0.dtype)
    none = jnp.zeros((), jnp.int32)
    start = _State(jnp.zeros_like(b), b, z0, rz0, none, coefficients, memory)
    end = while_loop(unfinished, step, start)
    decrease = dot(b, end.d) / 2
    return Solved(
        restore(end.d), end.count, decrease, end.rz / 2, *end.coefficients, _block(*end.curved)
    )


def _improved(precondition: Callable, curved: Curved, r):
    p, q, inverse = curved
    inner = inverse @ (p @ r)
    y = precondition(r - inner @ q)
    return y + (inner - inverse @ (q @ y)) @ p


def _block(directions, images) -> Curved:
    """The pairs with their factor; empty places, and pairs of no use, stand for themselves."""
    matrix = directions @ images.T
    matrix = (matrix + matrix.T) / 2
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    empty = jnp.diagonal(matrix) < 0.5
    matrix = matrix + jnp.diag(jnp.where(empty, 1, 10 * jnp.finfo(matrix.dtype).eps))
    factor = jnp.linalg.cholesky(matrix)
    whole = jnp.isfinite(factor).all()
    inverse = jax.scipy.linalg.cho_solve((factor, True), identity)
    # Pairs that rounding has made dependent are forgotten: a block of zeros changes nothing.
    directions, images = (jnp.where(whole, x, 0) for x in (directions, images))
    return Curved(directions, images, jnp.where(whole, inverse, identity))


def smallest_eigenvalue(count: int, lengths, turns) -> float:
    """The smallest eigenvalue of ``M⁻¹ H`` that so many products have seen; 0 if not positive.

    Source: Saad, Iterative Methods for Sparse Linear Systems (2003), section 6.7.3.
    """
    from scipy.linalg import eigvalsh_tridiagonal

    lengths, turns = (np.asarray(x)[:count] for x in (lengths, turns))
    if count == 0 or not (np.isfinite(lengths) & (lengths > 0)).all():
        return 0.0
    diagonal = 1 / lengths
    diagonal[1:] += turns[:-1] / lengths[:-1]
    beside = np.sqrt(np.maximum(turns[:-1], 0)) / lengths[:-1]
    lowest = eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(0, 0))[0]
    return max(float(lowest), 0.0)


def gap_left(seen: list[tuple[int, float]], promised: float, left: float) -> float:
    """What a quadratic can fall from a point: what the last solve promises, and what it left.

    The smallest eigenvalue is taken among the last few products: a short solve has seen only the
    directions that it went along, and by itself would take what is left for nothing where the
    curvature is small.

    Args:
      seen: products and smallest eigenvalue of each solve.
      promised, left: of the last one; what rounding has made negative is not known.
    """
    products, lowest = 0, np.inf
    for count, smallest in reversed(seen):
        products, lowest = products + count, min(lowest, smallest)
        if products >= _TRUSTED:
            break
    return promised + left / lowest if lowest > 0 and left >= 0 else np.inf


def saw_enough(seen: list[tuple[int, float]]) -> bool:
    """Whether there were products enough to trust the estimate of :func:`gap_left`."""
    return sum(count for count, _ in seen) >= _TRUSTED
