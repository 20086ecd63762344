"""The certificate of a point, measured in float64: value, gradient, and a bound on the gap.

The bound comes from :mod:`jaxclf.certificates.duality`. It is tight where the intercept is at its
minimum, so :mod:`jaxclf.certificates.best_intercept` seeks that minimum first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.certificates.best_intercept import at_intercept, best_shift
from jaxclf.certificates.duality import (
    EVALUATED,
    UNIT,
    Known,
    Nearby,
    Sizes,
    Sums,
    gap_bound,
    logit_terms,
    nearby_shifts,
    roundoff,
    sizes_block,
    sums_block,
    value_error,
)
from jaxclf.facts import facts_of
from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.conjugate_gradients import ON_HOST, TRACED, Control
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.penalties import Penalty
from jaxclf.programs import programs_by_shape
from jaxclf.scaling import row_sums
from jaxclf.scaling.chunks import Chunked
from jaxclf.scaling.sharing import on_device, to_host


class Certificate(NamedTuple):
    """The certificate of a point; all numbers are in float64."""

    affine: Affine
    """The point. :func:`certify` moves its intercept to the minimum, but for rounding."""
    value: jax.Array
    gradient_norm: jax.Array
    """The largest absolute entry of the gradient; with L1, of the smallest subgradient."""
    gap_bound: jax.Array
    """A bound on the gap. It is infinite for a loss that is not known to be convex. Without a
    penalty it comes from the lower bound of the loss alone, unless
    :mod:`jaxclf.certificates.local_bound` gives a smaller one."""
    value_error: jax.Array
    """The most by which rounding may have moved the value."""


def certify(
    loss: Callable,
    known: Known,
    penalty: Penalty,
    affine: Affine,
    rows: Rows | Chunked,
    *,
    narrow: bool,
    sizes: Sizes | None = None,
) -> tuple[Certificate, int]:
    """The certificate of a point of a linear model, however it was found; 64-bit mode must be on.

    Args:
      loss: a loss that takes ``(K,)`` logits.
      known: the facts of the loss.
      penalty: the penalty of the objective; strengths for all weights, ``(1, d)`` or
        ``(K, d)``.
      affine: the point.
      rows: the data, with float64 weights that sum to one.
      narrow: whether the intercept is returned in float32.
      sizes: the result of :func:`sizes_of` for rows in memory, which takes half of the time off.

    Returns:
      The certificate, and the number of passes over rows in chunks. With an intercept it takes
      about five passes, and more where logits are so many that no Hessian in their shift is formed.
    """
    numbers = *penalty, known.numbers, narrow
    if isinstance(rows, Chunked):
        affine = jax.tree.map(as_float64, to_host(affine))
        found, passes = _certified(ON_HOST, loss, known.structure, rows, affine, *numbers)
        return trusted(known, to_host(found)), int(passes)
    rows, affine = on_device(rows), jax.tree.map(as_float64, affine)
    run = _in_memory(loss, known.structure, like=(rows, affine, sizes))
    found, _ = run(rows, affine, *numbers, sizes)
    return trusted(known, found), 0


def sizes_of(rows: Rows) -> Sizes:
    """The sizes of the features of rows in memory, in float64."""
    weights = rows.weights.astype(np.float64)
    nowhere = Affine(np.zeros((1, rows.features.shape[1])), None)
    return Sizes(*blocks.reduce(rows, sizes_block, nowhere, weights[:, None]))


def as_float64(x: Any) -> Any:
    """An array of the host, or of devices, in float64."""
    return x.astype(np.float64)


def trusted(known: Known, found: Certificate) -> Certificate:
    """The certificate, without a bound where the loss is not known to be convex."""
    return found if known.convex else found._replace(gap_bound=np.inf)


@programs_by_shape
def _in_memory(loss: Callable, structure: str) -> Callable:
    return jax.jit(partial(_certified, TRACED, loss, structure))


def _certified(
    control: Control,
    loss: Callable,
    structure: str,
    rows: Any,
    v: Affine,
    l1,
    l2,
    bounds,
    narrow,
    sizes: Sizes | None = None,
) -> tuple[Certificate, Any]:
    intercept, passes, products = v.intercept is not None, 1, None
    # Sums without features run over as many rows at once as those with features.
    held = v.weights.shape[1]
    if control is TRACED:
        # An intercept is added where it is used: one that is far off would cost the logits digits.
        products = lp.logits(rows.features, v._replace(intercept=None))
    z = products
    if intercept:
        shift, more = best_shift(control, loss, rows, v, products)
        b = v.intercept + shift
        b = b - jnp.mean(b) if facts_of(loss).ignores_shifts else b
        v, z, passes = *at_intercept(v, products, b), passes + more
    block = sums_block(loss, structure, intercept, False)
    sums, _ = blocks.reduce(rows, block, v, z if sizes is None else (z, sizes.lengths), roundoff(v))
    if sizes is not None:
        sums = sums._replace(moments=sizes.moments)
    if structure == "mixed" and intercept:
        near, _ = blocks.reduce(rows, _nearby_block(loss), v, z, held=held, features=False)
        sums, passes = sums._replace(nearby=near), passes + 1
    depth = blocks.depth(rows)
    depth = depth if z is None else max(depth, row_sums.depth(z, held))
    numbers = v, sums, l1, l2, bounds, depth
    if control is TRACED:
        found = _measured(structure, *numbers)
    else:
        found = _measured_on_host(structure, like=(v, sums))(*numbers)
    if not intercept or (control is ON_HOST and not narrow):
        return found, passes
    # The returned intercept is rounded to its dtype, which may cost a little.
    rounded = v.intercept.astype(np.float32).astype(np.float64)
    rounded = jnp.where(narrow, rounded, v.intercept) if control is TRACED else rounded
    moved = at_intercept(v, products, rounded)
    there, _ = blocks.reduce(rows, blocks.risk_block(loss), *moved, held=held, features=False)
    if control is ON_HOST:
        found, there, sums = to_host((found, there, sums))
    return with_intercept(found, rounded, there - sums.risk), passes + 1


def _measured(structure: str, v, sums, l1, l2, bounds, depth) -> Certificate:
    return measured(v, sums, l1, l2, Known(structure, *bounds), depth)


@programs_by_shape
def _measured_on_host(structure: str) -> Callable:
    return jax.jit(partial(_measured, structure))


@lru_cache(maxsize=64)
def _nearby_block(loss: Callable) -> Callable:
    def nearby(x, z, labels, weights):
        def at(shift):
            slopes = jax.vmap(jax.grad(loss))(z + shift[None], labels)
            return weights @ slopes, weights @ slopes**2

        shifts = nearby_shifts(z.shape[1])
        slopes, squares = jax.lax.map(at, shifts)
        common = jnp.sum(jnp.abs(jnp.sum(lp.slopes(loss, z, labels, weights), 1)))
        return Nearby(slopes, squares, common), None

    return nearby


def measured(affine: Affine, sums: Sums, l1, l2, known: Known, depth) -> Certificate:
    """The certificate of a point from its sums over the rows."""
    w, g = affine.weights, lp.with_ridge(sums.gradient, l2, affine)
    value = sums.risk + jnp.sum(lp.penalty_terms(w, l1, l2))
    subgradient = jnp.abs(lp.smallest_subgradient(w, g.weights, l1))
    slope = 0.0 if g.intercept is None else jnp.max(jnp.abs(g.intercept))
    added = depth + 2 * w.size + 2 * EVALUATED
    error = added * UNIT * (logit_terms(affine, sums) + sums.size + jnp.abs(value))
    error = error + value_error(affine, sums, known) + sums.above_tangent
    # Neither the loss nor the penalty is ever below its lower bound.
    bound = jnp.minimum(
        gap_bound(affine, sums, l1, l2, known, depth), value - known.lower_bound + error
    )
    bound = jnp.where(jnp.isnan(bound), jnp.inf, bound)
    return Certificate(affine, value, jnp.maximum(jnp.max(subgradient), slope), bound, error)


def with_intercept(found: Certificate, intercept, added) -> Certificate:
    """The certificate with another intercept, which makes the objective higher by ``added``, but
    for the rounding of two values."""
    changed = (intercept != found.affine.intercept).any()
    value, bound = found.value + added, found.gap_bound + changed * (added + found.value_error)
    bound = bound * (bound > 0)
    affine = found.affine._replace(intercept=intercept)
    return found._replace(affine=affine, value=value, gap_bound=bound)
