"""A bound on the gap of a point where some coefficients have no penalty, by duality.

The entry of ``G = Σ αᵢ xᵢᵀ`` of such a coefficient must be zero for α to be feasible for the dual
problem of :mod:`jaxclf.certificates.duality`, as ``Σ αᵢ`` must be for the intercept. Let f be these
coefficients and the intercept, s their gradient, and H the Hessian of the mean loss in them. One
step of Newton's method in α makes their entries exactly zero: with ``c = -H⁻¹ s`` and the change
``uᵢ`` by c of the logits of row i,

    α′ᵢ = αᵢ + ωᵢ ℓ″ᵢ uᵢ.

This α′ is in the domain of the conjugate, whose value is at most
``ℓ*(αᵢ) + ⟨α′ᵢ - αᵢ, zᵢ⟩ + ωᵢ uᵢᵀ ℓ″ᵢ uᵢ``:

- one logit, or a sum of functions of one logit each, with ``|ℓ‴| ≤ M ℓ″`` and ``M |u| ≤ 1``: the
  slope ``ℓ′(z) + ℓ″ u`` is that at a point closer than ``-log(1 - M |u|) / M``, and the integral of
  that distance over the slopes on the way is at most ``ℓ″ u²``.
- softmax with ``|u_k| ≤ 1/2``: ``p′ = p + p ∘ (u - pᵀu)`` is a distribution, and
  ``KL(p′ ‖ p) ≤ χ²(p′ ‖ p) = uᵀ ℓ″ u``.

Summed over the rows the last term is ``‖c‖² = sᵀ H⁻¹ s``, which is what the coefficients cost. The
other entries of G move by at most ``(Σ ωᵢ ℓ″ᵢ[k, k] xᵢ²)^½ ‖c‖``, by Cauchy and Schwarz. There may
be any number of other coefficients. A coefficient that is at its only bound, with its slope towards
that bound, needs no step: its conjugate is finite.

The rounding of H and of s is that of :mod:`jaxclf.certificates.local_bound`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.bounded_l1 import BoundedL1
from jaxclf.certificates.duality import (
    EVALUATED,
    FLUSHED,
    UNIT,
    Known,
    certain,
    logit_terms,
    roundoff,
    squared_sizes,
    sums_block,
    value_error,
)
from jaxclf.certificates.local_bound import inverse_factor, unseen
from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.penalties import Penalty, not_smooth
from jaxclf.programs import programs_by_shape

_LARGEST = 2048
"""The most coefficients without a penalty, whose Hessian is factored."""
_MOST_WORK = 2**35
"""The most rows times squared coefficients."""
_CHANGE = 0.5
"""The largest change of a logit, times the constant of self-concordance where that is above one."""
_LOOSEST = 0.5
"""The factor is used where η is below this."""


def free_columns(known: Known, penalty: Penalty, num_rows: int, shape: tuple) -> np.ndarray:
    """The columns with a coefficient that has neither a penalty nor two bounds, where they have a
    bound on the gap; else none.

    Args:
      known: the facts of the loss.
      penalty: the penalty, with strengths for all weights, ``(1, d)`` or ``(K, d)``.
      num_rows: the number of rows.
      shape: the shape of the weights, ``(K, d)``.
    """
    found = np.flatnonzero(np.broadcast_to(_free(*penalty), shape).any(0))
    size = shape[0] * (len(found) + 1)
    fine = known.convex and known.self_concordance is not None and known.structure != "mixed"
    fine = fine and size <= _LARGEST and num_rows * size**2 <= _MOST_WORK
    return found if fine else found[:0]


def _free(l1: Any, l2: Any) -> Any:
    part = not_smooth(l1)
    return part.free(l2) & (np.isinf(part.lower) | np.isinf(part.upper))


def free_bound(
    loss: Callable, known: Known, penalty: Penalty, v: Affine, rows: Rows, columns: np.ndarray
) -> float:
    """A bound on the gap of a point; infinite where a logit changes too much.

    64-bit mode must be on, and all numbers are in float64.

    Args:
      loss: a loss that takes ``(K,)`` logits.
      known: the facts of the loss.
      penalty: the penalty, L1 with or without bounds and a ridge.
      v: the point.
      rows: the data in memory, with weights that sum to one.
      columns: the columns of :func:`free_columns`.
    """
    free = np.broadcast_to(_free(*penalty), v.weights.shape)
    facts = known.numbers, known.self_concordance
    run = _in_memory(loss, known.structure, like=(rows, v, columns))
    return float(run(rows, v, penalty, free, columns, facts))


@programs_by_shape
def _in_memory(loss: Callable, structure: str) -> Callable:
    return jax.jit(partial(_bound_over, loss, structure))


def _bound_over(loss: Callable, structure: str, rows, v: Affine, penalty, free, columns, facts):
    (l1, l2), intercept, w = penalty, v.intercept is not None, v.weights
    numbers, concordance = facts
    known = Known(structure, *numbers)
    num_logits, width = len(w), len(columns) + intercept
    held = num_logits * max(num_logits, width)
    block = _curved_block(loss, structure, intercept)
    found, _ = blocks.reduce(rows, block, v, None, roundoff(v), columns, held=held)
    sums, hessian, moments, curvatures = found
    depth = blocks.depth(rows, held)

    relative_error = (depth + EVALUATED) * UNIT
    g, rms = sums.gradient.weights, jnp.sqrt(sums.moments)
    slope = jnp.sqrt(sums.squares) + known.cancellation
    error = relative_error * slope[:, None] * rms[None]
    part = not_smooth(l1)
    settled = ((w <= part.lower) & (g > error)) | ((w >= part.upper) & (g < -error))
    equal = free & ~settled

    def of_free(of_weights, of_intercept):
        chosen = of_weights[:, columns]
        return jnp.c_[chosen, of_intercept].ravel() if intercept else chosen.ravel()

    inside = of_free(equal, jnp.ones(num_logits, bool))
    s = jnp.where(inside, of_free(g, sums.gradient.intercept), 0)
    off = relative_error * (sums.absolute + known.cancellation)
    off = jnp.where(inside, of_free(error, off), 0) + len(s) * UNIT * jnp.abs(s)
    hessian = jnp.where(inside[:, None] & inside[None], hessian, 0)
    others = jnp.where(inside, 0.0, 1.0)
    hessian = hessian + jnp.diag(others)
    hessian = hessian + unseen(structure, hessian, others.reshape(num_logits, width))
    flushed = UNIT * FLUSHED * jnp.sqrt(jnp.sum(curvatures))
    t, eta = inverse_factor(hessian, relative_error, flushed)
    kept = jnp.sqrt((1 - eta) / known.target_factor)
    step = (jnp.linalg.norm(t @ s) + jnp.linalg.norm(jnp.abs(t) @ off)) / kept

    # The largest change of a logit is at most the sum of the largest changes of its terms.
    reach = (jnp.linalg.norm(t, axis=0) / kept).reshape(num_logits, width)
    block = _lengths_block(intercept)
    _, lengths = blocks.reduce(rows, block, v, None, reach, columns, held=held)
    change = jnp.max(jnp.where(rows.weights > 0, lengths, 0)) * step

    moved = jnp.sqrt(moments * known.target_factor) * step
    for_others = BoundedL1(
        jnp.where(equal, 1.0, part.l1),
        jnp.where(equal, -jnp.inf, part.lower),
        jnp.where(equal, jnp.inf, part.upper),
    )
    alone = (jnp.where(equal, 0, x) for x in (w, g, error + moved, l2))
    total = certain(sums.risk, known.lower_bound, *for_others.dual_sums(*alone))
    of_logits = logit_terms(v, sums) + jnp.sum(jnp.abs(w) * moved)
    b = 0.0 if v.intercept is None else jnp.abs(v.intercept)
    of_logits = of_logits + jnp.sum((1 + b) * jnp.sqrt(curvatures * known.target_factor)) * step
    rounded = 2 * (w.shape[1] + 4) * UNIT * of_logits + sums.above_tangent
    rounded = rounded + value_error(v, sums, known) + jnp.sum(jnp.abs(w) * error)
    bound = (jnp.maximum(total, 0) + step**2 + rounded) * (1 + 1e-9)
    fine = (eta < _LOOSEST) & (jnp.maximum(concordance, 1) * change <= _CHANGE)
    return jnp.where(fine & jnp.isfinite(bound), bound, jnp.inf)


@lru_cache(maxsize=64)
def _curved_block(loss: Callable, structure: str, intercept: bool) -> Callable:
    """The block function of the sums for a bound, the Hessian in some columns and the intercept,
    the mean squared features weighted by the curvature of each logit, and those curvatures, which
    count an offset as a feature."""
    sums = sums_block(loss, structure, intercept, False)

    def curved(x, z, labels, weights, errors, columns):
        found, _ = sums(x, z, labels, weights, errors)
        places = jnp.broadcast_to(columns, (z.shape[1], len(columns)))
        hessian = lp.block_hessian(loss, x, z, labels, weights, places, intercept=intercept)
        curvatures = lp.curvatures(loss, z, labels) * weights[:, None]
        whole = jnp.sum(curvatures * (1 + lp.offset_size(z, labels) ** 2), 0)
        return (found, hessian, curvatures.T @ squared_sizes(x), whole), None

    return curved


@lru_cache(maxsize=2)
def _lengths_block(intercept: bool) -> Callable:
    def lengths(x, z, labels, weights, reach, columns):
        """The largest ``Σⱼ |x̃ᵢⱼ| rₖⱼ`` of each row over its logits k."""
        size = jnp.pad(jnp.abs(x[:, columns]), ((0, 0), (0, intercept)), constant_values=1.0)
        return None, jnp.max(size @ reach.T, 1)

    return lengths
