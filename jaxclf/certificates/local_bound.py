"""A bound on the gap from the Hessian at the point, also where no penalty gives one.

A log loss changes its curvature slowly: ``|D³ℓ[u, v, v]| ≤ M max|u| D²ℓ[v, v]``. Let r be the
smallest subgradient of the objective at the point, H the Hessian of its smooth part, and R the
largest ``M max_k |h x̃ᵢ|ₖ`` over the rows for directions with ``hᵀ H h = 1``. Along any such
direction

    F(θ + t h) - F(θ)  ≥  -ν t + (exp(-R t) + R t - 1) / R²,    ν² = rᵀ H⁻¹ r,

because an L1 penalty is convex, also within bounds on the weights. If ``q = ν R < 1``, the right
side has its minimum at a finite t, so a minimiser exists, and

    F(θ) - min F  ≤  ν² (q + (1 - q) log(1 - q)) / q²,

which is ``ν² / 2`` for small q, and for a quadratic. Directions that no term of the objective sees,
such as one shift of all logits of a softmax, are left out: the gradient has no part along them.

**Rounding.** With T the rounded inverse of a Cholesky factor of the computed H, scaled to a
diagonal of one, ``H ⪰ (1 - η) (Tᵀ T)⁻¹`` where η is the computed ``‖T H Tᵀ - I‖`` and what rounding
may have added to it; the bound takes η, and the rounding of the gradient, into ν and R. Where the
logits of a row are off by δ at most, its Hessian changes by a factor between ``exp(-M δ)`` and
``exp(M δ)``. With ``M δ ≤ 1`` its slope in logit k changes by ``e √ℓ″[k, k] Σ_j δ_j √ℓ″[j, j]`` at
most. The weighted sum of these changes over logits and rows, times the largest ``‖T (e_k ⊗ x̃ᵢ)‖``,
is the most by which they raise ν.

Sources: Bach, Self-concordant analysis for logistic regression, Electron. J. Stat. 4 (2010),
proposition 1; Sun and Tran-Dinh, Generalized self-concordant functions, Math. Program. 178 (2019).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.certificates.duality import (
    EVALUATED,
    FLUSHED,
    UNIT,
    Known,
    Sums,
    logit_errors,
    roundoff,
    squared_sizes,
    sums_block,
)
from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.preconditioner import on_weights, root_of_diagonal
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.penalties import Penalty, not_smooth
from jaxclf.programs import jit_by_shape, programs_by_shape
from jaxclf.scaling.chunks import Chunked
from jaxclf.scaling.sharing import gather_over_mesh, local_rows

LARGEST_HESSIAN = 512
"""With more parameters the factor, and the lengths of all rows in it, take longer than they are
worth."""
_LOOSEST = 0.5
"""The factor is used where η is below this."""


class _Metric(NamedTuple):
    """The metric of the Hessian at a point."""

    inverse_factor: jax.Array
    """T, ``(K (d + 1), K (d + 1))``."""
    decrement: jax.Array
    """``‖T r‖``, rounded upwards."""
    eta: jax.Array
    """η, the error of the factor."""


def local_bound(
    loss: Callable, known: Known, penalty: Penalty, v: Affine, rows: Rows | Chunked
) -> float:
    """A bound on the gap of a point; infinite where q is not below one.

    64-bit mode must be on, and all numbers are in float64. Rows in chunks are read twice.

    Args:
      loss: a loss that takes ``(K,)`` logits.
      known: the facts of the loss.
      penalty: strengths for all weights, ``(1, d)`` or ``(K, d)``.
      v: the point.
      rows: the data, with weights that sum to one.
    """
    facts = known.self_concordance, known.cancellation, known.target_factor
    if isinstance(rows, Chunked):
        return float(_bound_over(loss, known.structure, rows, v, penalty, facts))
    run = _in_memory(loss, known.structure, like=(rows, v))
    return float(run(rows, v, penalty, facts))


@programs_by_shape
def _in_memory(loss: Callable, structure: str) -> Callable:
    return jax.jit(partial(_bound_over, loss, structure))


def _bound_over(loss: Callable, structure: str, rows, v: Affine, penalty: Penalty, facts: tuple):
    intercept, (num_logits, d) = v.intercept is not None, v.weights.shape
    width = d + intercept
    held, size = num_logits * max(num_logits, width), num_logits * width
    block, errors = _curved_block(loss, structure, intercept), roundoff(v)
    curved, _ = blocks.reduce(rows, block, v, None, errors, held=held)
    relative_error = (blocks.depth(rows, held) + EVALUATED) * UNIT
    sums, hessian, changed, curvature = curved
    flushed = UNIT * FLUSHED * curvature**0.5
    metric = _metric(structure, v, sums, hessian, penalty, facts, (relative_error, flushed))
    block = _lengths_block(intercept)
    _, per_row = blocks.reduce(rows, block, v, None, metric.inverse_factor, errors, held=size)
    if isinstance(rows, Chunked):
        used = local_rows(rows.rows.weights) > 0
        most = [np.max(x, where=used, initial=0.0) for x in per_row]
        longest, delta = gather_over_mesh(np.array(most)).max(0)
    else:
        longest, delta = (jnp.max(jnp.where(rows.weights > 0, x, 0)) for x in per_row)
    of_logits = delta, np.e * changed * longest**0.5
    return _bound(metric, longest, of_logits, facts)


@partial(jit_by_shape, static_argnums=0)
def _metric(structure: str, v: Affine, sums: Sums, hessian, penalty, facts, errors) -> _Metric:
    """The metric; ``errors`` are relative ones of sums, and the most that is taken from the length
    of a column of features, weighted by curvatures, where its numbers are taken for zero."""
    relative_error, flushed = errors
    (num_logits, d), intercept = v.weights.shape, v.intercept is not None
    (l1, l2), (_, cancellation, _) = penalty, facts
    width = d + intercept
    size = num_logits * width
    # The smallest subgradient, and how far it may be off.
    w, g = v.weights, lp.with_ridge(sums.gradient, l2, v)
    part = not_smooth(l1)
    smallest, (least, most) = part.smallest_subgradient(w, g.weights), part.subgradients(w)
    steepest = jnp.maximum(*(jnp.where(jnp.isinf(x), 0, jnp.abs(x)) for x in (least, most)))
    slope, rms = jnp.sqrt(sums.squares) + cancellation, jnp.sqrt(sums.moments)
    error = relative_error * slope[:, None] * rms[None] + 4 * UNIT * (steepest + l2 * jnp.abs(w))
    at_zero = (g.weights + error + least <= 0) & (g.weights - error + most >= 0)
    seen = jnp.any(jnp.broadcast_to(l2, w.shape) > 0, 0, keepdims=True)
    if structure == "softmax":
        # Only a penalty sees the same change of a weight of all logits. Without one the gradient
        # itself, whose sum over the logits is zero, is the subgradient with a finite ``rᵀ H⁻¹ r``.
        smallest, at_zero = jnp.where(seen, smallest, g.weights), at_zero & seen
    r, error = g._replace(weights=smallest), jnp.where(at_zero, 0, error)
    error = Affine(error, relative_error * slope if intercept else None)
    r, error = (lp.stacked(x).ravel() for x in (r, error))

    ridge = jnp.broadcast_to(on_weights(l2, d, width), (num_logits, width))
    hessian = hessian + jnp.diag(ridge.ravel()) + unseen(structure, hessian, ridge)
    t, eta = inverse_factor(hessian, relative_error, flushed)
    if structure == "softmax":  # or L1 alone sees it, which the Hessian does not know
        kinked = jnp.any(jnp.broadcast_to(part.l1, w.shape) > 0, 0, keepdims=True)
        eta = jnp.where(jnp.any(kinked & ~seen), jnp.inf, eta)
    rounded = jnp.abs(t) @ (error + size * UNIT * jnp.abs(r))
    return _Metric(t, jnp.linalg.norm(t @ r) + jnp.linalg.norm(rounded), eta)


def inverse_factor(hessian, relative_error, flushed) -> tuple[jax.Array, jax.Array]:
    """T and η of a Hessian whose entries are off by so much of the roots of its diagonal.

    Args:
      hessian: the computed Hessian, ``(P, P)``.
      relative_error: the relative error of sums over the rows.
      flushed: the most that is taken from the length of a column.
    """
    root, size = root_of_diagonal(hessian), len(hessian)
    scaled = hessian / root[:, None] / root[None]
    factor = jax.lax.linalg.cholesky(scaled, symmetrize_input=False)
    identity = jnp.eye(size)
    t = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    spread = jnp.sum(t**2)
    eta = jnp.linalg.norm(t @ scaled @ t.T - identity)
    of_entries = relative_error + size * UNIT + flushed / jnp.min(root)
    return t / root[None], eta + 4 * of_entries * size * spread


@jit_by_shape
def _bound(metric: _Metric, longest, of_logits, facts: tuple):
    concordance, _, target_factor = facts
    delta, added = of_logits  # the largest δ, and the most by which it raises ν
    # The Hessian of a softmax is in proportion to the sum of the target.
    kept = (1 - metric.eta) * jnp.exp(-concordance * delta) / target_factor
    lengths = metric.decrement + added, concordance * jnp.sqrt(longest)
    nu, reach = (x / jnp.sqrt(kept) for x in lengths)
    found = nu**2 * growth(nu * reach) * (1 + 1e-9)
    fine = (metric.eta < _LOOSEST) & (nu * reach < 1) & jnp.isfinite(found)
    fine = fine & (concordance * delta <= 1)
    return jnp.where(fine, found, jnp.inf)


@lru_cache(maxsize=64)
def _curved_block(loss: Callable, structure: str, intercept: bool) -> Callable:
    """The block function of the sums for a bound, the Hessian, the mean of what the rounding of
    logits changes in the slopes of a row, divided by e, and the mean curvature of all logits."""
    sums = sums_block(loss, structure, intercept, True)

    def curved(x, z, labels, weights, errors):
        found, _ = sums(x, z, labels, weights, errors)
        curvatures = jnp.diagonal(lp.logit_hessians(loss, z, labels), axis1=1, axis2=2)
        roots = jnp.sqrt(jnp.maximum(curvatures, 0))
        delta = jnp.sum(roots * logit_errors(squared_sizes(x).sum(1), errors, labels), 1)
        changed = weights @ (jnp.sum(roots, 1) * delta)
        return (*found, changed, weights @ jnp.sum(roots**2, 1)), None

    return curved


@lru_cache(maxsize=2)
def _lengths_block(intercept: bool) -> Callable:
    def lengths(x, z, labels, weights, inverse_factor, errors):
        """The largest ``‖T (e_k ⊗ x̃)‖²`` of each row over its logits k, rounded upwards, and the
        most by which a logit of the row is off."""
        num_logits, size = z.shape[1], len(inverse_factor)
        delta = jnp.max(logit_errors(squared_sizes(x).sum(1), errors, labels), 1)
        x = jnp.pad(x, ((0, 0), (0, intercept)), constant_values=1.0)
        factors = inverse_factor.reshape(size, num_logits, -1)

        def of_logit(k):
            b = factors[:, k]
            exact, error = x @ b.T, size * UNIT * ((jnp.abs(x) + FLUSHED) @ jnp.abs(b).T)
            return jnp.sum((jnp.abs(exact) + error) ** 2, 1)

        return None, (jnp.max(jax.lax.map(of_logit, jnp.arange(num_logits)), 0), delta)

    return lengths


def growth(q):
    """``(q + (1 - q) log(1 - q)) / q²``, rounded upwards: by its series ½ + q/6 + … for small q."""
    small = q < 1e-3
    safe = jnp.where(small | ~(q < 1), 0.5, q)
    exact = (safe + (1 - safe) * jnp.log1p(-safe)) / safe**2 * (1 + 1e-9)
    return jnp.where(small, 0.5 + q / 5, exact)


def unseen(structure: str, hessian, ridge) -> Any:
    """A matrix that gives a curvature to directions that the objective does not see, and no others.

    The penalty alone sees the same change of a weight, or of the intercept, of all logits of a
    softmax.
    """
    num_logits, width = ridge.shape
    if structure != "softmax":
        return jnp.zeros_like(hessian)
    diagonal = jnp.mean(jnp.diagonal(hessian).reshape(num_logits, width), 0)
    missing = jnp.where(jnp.max(ridge, 0) > 0, 0, diagonal)
    ones = jnp.full((num_logits, num_logits), 1 / num_logits)
    return jnp.kron(ones, jnp.diag(missing))
