"""How good a point is, measured in float64: value, gradient, and a bound on the gap.

With λ > 0, ``F_W(W) = min_b F(W, b)`` is strongly convex with constant λ, so

    F(W, b) - min F  ≤  ‖∇_W F(W, b)‖² / (2λ)        where b minimises F(W, ·).

It is also the duality gap: with the dual point ``αᵢ = ωᵢ ℓ′(zᵢ)``, feasible as ``Σ αᵢ = 0``,
Fenchel's inequality holds with equality row by row, and what is left of primal minus dual is
``‖λ W + Σ αᵢ xᵢᵀ‖² / (2λ)``. The intercept is brought to its minimum by Newton's method on the
logits alone, which does not read the features.

Sources: Nesterov, Lectures on Convex Optimization (2018), theorem 2.1.10; Boyd and Vandenberghe,
Convex Optimization (2004), section 5.1.6.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.linear_problem import Affine, Rows

_INTERCEPT_STEPS = 8
_MOST_LOGITS = 64
"""With more, an intercept is not brought to its minimum, and no bound is given."""


class Certificate(NamedTuple):
    """All in float64."""

    affine: Affine
    """The point, its intercept at its minimum."""
    value: jax.Array
    gradient_norm: jax.Array
    """Largest absolute entry."""
    gap_bound: jax.Array
    """Infinite without a penalty, and with an intercept of more than 64 logits."""


@lru_cache(maxsize=64)
def make_certify(loss: Callable) -> Callable:
    """``(rows, affine, l2) -> Certificate`` of one loss, compiled; 64-bit mode must be on."""

    def intercept_step(z, rows: Rows, shift):
        """One Newton step of the intercept, from logits moved by ``shift``."""
        moved = z + shift[None]
        gradient = jnp.sum(lp.slopes(loss, moved, rows), 0)
        maps = lp.curvature(loss, moved, rows.labels)

        def column(k):
            unit = jnp.broadcast_to((jnp.arange(z.shape[1]) == k).astype(z.dtype)[None], z.shape)
            return rows.weights @ lp.curvature_product(maps, unit)

        hessian = jax.lax.map(column, jnp.arange(z.shape[1]))
        # The least-squares step leaves alone what the loss ignores, a shift of all logits.
        return shift - jnp.linalg.lstsq(hessian, gradient)[0]

    def total(z, rows: Rows):
        return jnp.sum(rows.weights * lp.losses(loss, z, rows.labels))

    @jax.jit
    def certify(rows: Rows, affine: Affine, l2) -> Certificate:
        affine = jax.tree.map(lambda x: x.astype(jnp.float64), affine)
        rows = rows._replace(weights=rows.weights.astype(jnp.float64))
        rows = rows._replace(weights=rows.weights / jnp.sum(rows.weights))
        z = lp.logits(rows.features, affine)
        polished = affine.intercept is not None and z.shape[1] <= _MOST_LOGITS
        if polished:

            def step(_, shift):
                new = intercept_step(z, rows, shift)
                better = total(z + new[None], rows) <= total(z + shift[None], rows)
                return jnp.where(better, new, shift)

            zero = jnp.zeros(z.shape[1], z.dtype)
            shift = jax.lax.fori_loop(0, _INTERCEPT_STEPS, step, zero)
            affine = affine._replace(intercept=affine.intercept + shift)
            z = z + shift[None]
        residuals = lp.slopes(loss, z, rows)
        intercept = affine.intercept is not None
        g = lp.transpose_product(rows.features, residuals, intercept=intercept)
        g = g._replace(weights=g.weights + l2 * affine.weights)
        square = jnp.sum(g.weights**2)
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(g)]))
        value = total(z, rows) + 0.5 * l2 * jnp.sum(affine.weights**2)
        known = (l2 > 0) & (polished or not intercept)
        bound = jnp.where(known, square / (2 * jnp.where(l2 > 0, l2, 1)), jnp.inf)
        return Certificate(affine, value, largest, bound)

    return certify
