"""A bound on the gap from the Hessian at the point, also where no penalty gives one.

A log loss changes its curvature slowly: ``|D³ℓ[u, v, v]| ≤ M max|u| D²ℓ[v, v]``. Let r be the
smallest subgradient of the objective at the point, H the Hessian of its smooth part, and R the
largest ``M max_k |h x̃ᵢ|ₖ`` over the rows for directions with ``hᵀ H h = 1``. Along any such
direction

    F(θ + t h) - F(θ)  ≥  -ν t + (exp(-R t) + R t - 1) / R²,    ν² = rᵀ H⁻¹ r,

for an L1 penalty is convex. If ``q = ν R < 1``, the right side has its minimum at a finite t, so a
minimiser exists, and

    F(θ) - min F  ≤  ν² (q + (1 - q) log(1 - q)) / q²,

which is ``ν² / 2`` for small q, and for a quadratic. Directions that no term of the objective sees,
such as one shift of all logits of a softmax, are left out: the gradient has no part along them.

**Rounding.** With T the rounded inverse of a Cholesky factor of the computed H, scaled to a
diagonal of one, ``H ⪰ (1 - η) (Tᵀ T)⁻¹`` where η is the computed ``‖T H Tᵀ - I‖`` and what rounding
may have added to it; the bound takes η, and the rounding of the gradient, into ν and R.

Sources: Bach, Self-concordant analysis for logistic regression, Electron. J. Stat. 4 (2010),
proposition 1; Sun and Tran-Dinh, Generalized self-concordant functions, Math. Program. 178 (2019).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxclf.programs import programs_by_shape
from jaxclf.scaling.row_sums import depth, sum_rows
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.duality import EVALUATED, UNIT, row_sums
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.preconditioner import on_weights

MOST_PARAMETERS = 512
"""Beyond, the factor and the lengths of all rows in it take longer than they are worth."""
_LOOSEST = 0.5
"""η up to which the factor is used."""
_FEWEST_ROWS = 2**20
"""Numbers of whitened rows that are held at once."""


@programs_by_shape
def make_local_bound(loss: Callable, structure: str) -> Callable:
    """``(rows, point, l1, l2, M, cancellation) -> bound`` on the gap of a point, ``()``.

    64-bit mode must be on, all in float64. The bound is infinite where q is not below one.
    """

    @jax.jit
    def local_bound(rows: Rows, v: Affine, l1, l2, concordance, cancellation):
        intercept, (num_logits, d) = v.intercept is not None, v.weights.shape
        width = d + intercept
        size = num_logits * width
        z = lp.logits(rows.features, v)

        def block(x, z, labels, weights):
            x = x.astype(jnp.float64)
            sums = row_sums(loss, structure, x, z, labels, weights, intercept=intercept)
            hessian = lp.block_hessian(loss, x, z, labels, weights, None, intercept=intercept)
            return sums, hessian

        held = num_logits * max(num_logits, width)
        sums, hessian = sum_rows(block, rows.features, z, rows.labels, rows.weights, held=held)
        grown = (depth(rows.features, held) + EVALUATED) * UNIT

        # The smallest subgradient, and how far it may be off.
        w, g = v.weights, sums.gradient.weights + l2 * v.weights
        r = jnp.where(w == 0, jnp.sign(g) * jnp.maximum(jnp.abs(g) - l1, 0), g + l1 * jnp.sign(w))
        slope, rms = jnp.sqrt(sums.squares) + cancellation, jnp.sqrt(sums.moments)
        off = grown * slope[:, None] * rms[None] + 4 * UNIT * (l1 + l2 * jnp.abs(w))
        off = jnp.where((w == 0) & (jnp.abs(g) + off <= l1), 0, off)
        if intercept:
            r = jnp.concatenate([r, sums.gradient.intercept[:, None]], 1)
            off = jnp.concatenate([off, grown * slope[:, None]], 1)
        r, off = r.ravel(), off.ravel()

        ridge = jnp.broadcast_to(on_weights(l2, d, width), (num_logits, width))
        hessian = hessian + jnp.diag(ridge.ravel()) + _unseen(structure, hessian, ridge)
        root = jnp.sqrt(jnp.diagonal(hessian))
        root = jnp.where(root > 0, root, 1)
        scaled = hessian / root[:, None] / root[None]
        factor = jax.lax.linalg.cholesky(scaled, symmetrize_input=False)
        identity = jnp.eye(size)
        t = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
        spread = jnp.sum(t**2)
        eta = jnp.linalg.norm(t @ scaled @ t.T - identity)
        eta = eta + 4 * (grown + size * UNIT) * size * spread
        t = t / root[None]
        rounded = size * UNIT
        decrement = jnp.linalg.norm(t @ r) + jnp.linalg.norm(
            jnp.abs(t) @ (off + rounded * jnp.abs(r))
        )
        blocks = t.reshape(size, num_logits, width)

        def longest(x, used):
            """The largest ``‖T (e_k ⊗ x̃)‖`` of a row."""
            x = jnp.pad(x.astype(jnp.float64), ((0, 0), (0, intercept)), constant_values=1.0)

            def of_logit(k):
                b = blocks[:, k]
                exact, error = x @ b.T, rounded * (jnp.abs(x) @ jnp.abs(b).T)
                return jnp.sum((jnp.abs(exact) + error) ** 2, 1)

            lengths = jax.lax.map(of_logit, jnp.arange(num_logits))
            return jnp.max(jnp.where(used[None], lengths, 0))

        used = rows.weights > 0
        reach = concordance * jnp.sqrt(_over_blocks(longest, size, rows.features, used))
        kept = 1 - eta
        nu, reach = decrement / jnp.sqrt(kept), reach / jnp.sqrt(kept)
        bound = nu**2 * _growth(nu * reach) * (1 + 1e-9)
        fine = (eta < _LOOSEST) & (nu * reach < 1) & jnp.isfinite(bound)
        if structure == "softmax":  # the same change of a weight of all logits is seen by L1 alone
            fine = fine & (jnp.all(l1 == 0) | jnp.all(l2 > 0))
        return jnp.where(fine, bound, jnp.inf)

    return local_bound


def _growth(q):
    """``(q + (1 - q) log(1 - q)) / q²``, rounded upwards: by its series ½ + q/6 + … for small q."""
    small = q < 1e-3
    safe = jnp.where(small | ~(q < 1), 0.5, q)
    exact = (safe + (1 - safe) * jnp.log1p(-safe)) / safe**2 * (1 + 1e-9)
    return jnp.where(small, 0.5 + q / 5, exact)


def _unseen(structure: str, hessian, ridge) -> Any:
    """What gives directions that the objective does not see a curvature, and no others one.

    The same change of a weight, or of the intercept, of all logits of a softmax is seen by the
    penalty alone.
    """
    num_logits, width = ridge.shape
    if structure != "softmax":
        return jnp.zeros_like(hessian)
    diagonal = jnp.mean(jnp.diagonal(hessian).reshape(num_logits, width), 0)
    missing = jnp.where(ridge[0] > 0, 0, diagonal)
    ones = jnp.full((num_logits, num_logits), 1 / num_logits)
    return jnp.kron(ones, jnp.diag(missing))


def _over_blocks(function: Callable, size: int, features, used) -> jax.Array:
    """The largest ``function(block, used)`` over blocks of rows."""
    n = len(features)
    at_once = max(1, min(n, _FEWEST_ROWS // size))
    starts = jnp.minimum(jnp.arange(-(-n // at_once)) * at_once, n - at_once)

    def one(start):
        parts = (jax.lax.dynamic_slice_in_dim(x, start, at_once) for x in (features, used))
        return function(*parts)

    return jnp.max(jax.lax.map(one, starts))
