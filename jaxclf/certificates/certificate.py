"""The certificate of a point, measured in float64: value, gradient, and a bound on the gap.

The bound comes from :mod:`jaxclf.certificates.duality`. It is tight where the intercept is at its
minimum, so Newton's method seeks that minimum first. For rows in memory the search takes their
logits alone; for rows in chunks every step is a pass over them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

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
from jaxclf.linear_algebra.conjugate_gradients import (
    ON_HOST,
    TRACED,
    Control,
    conjugate_gradients,
    no_pairs,
)
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.penalties import Penalty
from jaxclf.programs import jit_by_shape, programs_by_shape
from jaxclf.scaling import row_sums
from jaxclf.scaling.chunks import Chunked
from jaxclf.scaling.sharing import on_device, to_host

_INTERCEPT_STEPS = 20
_SOUGHT = 1e-12
"""The search for the intercept ends at this slope, over the mean absolute slope of the rows."""
_CLOSE = 1e-9
"""Below this slope, over the mean absolute slope of the rows, a step that does not lessen the slope
ends the search."""
_MOST_DENSE, _MOST_DENSE_BY_PRODUCT = 64, 2048
"""The most logits for which the Hessian in their shift is formed. The second number applies where
the Hessian is one product."""
_ACCURACY = 1e-3
"""The accuracy of a Newton step on the shift of so many logits that no Hessian is formed."""


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


class _Shifted(NamedTuple):
    """The best shift of the logits so far, and the one that is tried next."""

    shift: jax.Array
    risk: jax.Array
    steepest: jax.Array
    """The largest absolute slope at the best shift."""
    tried: jax.Array
    steps: jax.Array
    passes: jax.Array
    ended: jax.Array


class _Judged(NamedTuple):
    """The judgement of a trial."""

    better: jax.Array
    ended: jax.Array
    """Whether the search can gain no more."""
    steepest: jax.Array


class _Slope(NamedTuple):
    """The mean loss as a function of a shift of all logits, at one shift."""

    risk: jax.Array
    slope: jax.Array
    """The slope, ``(K,)``."""
    absolute: jax.Array
    """The mean absolute slope of the rows, ``(K,)``."""
    hessian: jax.Array | None
    """The Hessian in the shift, ``(K, K)``, where logits are few."""
    diagonal: jax.Array | None
    """The diagonal of the Hessian, ``(K,)``, where logits are many."""


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
        shift, more = _best_shift(control, loss, rows, v, products)
        b = v.intercept + shift
        b = b - jnp.mean(b) if facts_of(loss).ignores_shifts else b
        v, z, passes = *_at_intercept(v, products, b), passes + more
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
    moved = _at_intercept(v, products, rounded)
    there, _ = blocks.reduce(rows, blocks.risk_block(loss), *moved, held=held, features=False)
    if control is ON_HOST:
        found, there, sums = to_host((found, there, sums))
    return with_intercept(found, rounded, there - sums.risk), passes + 1


def _at_intercept(v: Affine, products, intercept) -> tuple[Affine, Any]:
    """The point with another intercept, and its logits where the products ``X Wᵀ`` are known."""
    z = None if products is None else products + intercept[None]
    return v._replace(intercept=intercept), z


def _measured(structure: str, v, sums, l1, l2, bounds, depth) -> Certificate:
    return measured(v, sums, l1, l2, Known(structure, *bounds), depth)


@programs_by_shape
def _measured_on_host(structure: str) -> Callable:
    return jax.jit(partial(_measured, structure))


def _best_shift(
    control: Control, loss: Callable, rows: Any, v: Affine, products
) -> tuple[Any, Any]:
    """The best shift of all logits, by Newton's method.

    A step is shortened where the risk or the slope rises.

    Returns:
      The shift, and the number of readings of the rows.
    """

    def newton_step(near: Affine, near_z, found: _Slope) -> tuple[Any, Any]:
        """``H⁻¹ s`` with the Hessian in the shift, and the number of products that it took."""
        if found.hessian is not None:
            return _shift_by_hessian(found.hessian, found.slope), 0

        def product(d):
            block = _shift_product_block(loss)
            return blocks.reduce(rows, block, near, near_z, d, features=False)[0]

        metric = Partial(jnp.multiply, _inverse(found.diagonal))
        nothing = no_pairs(found.slope)
        solved = conjugate_gradients(product, metric, found.slope, _ACCURACY, nothing, control)
        return solved.d, solved.count

    def step(s: _Shifted) -> _Shifted:
        near, near_z = _at_intercept(v, products, v.intercept + s.tried)
        found, _ = blocks.reduce(rows, _slope_block(loss), near, near_z, features=False)
        judged = _judged(s, found, blocks.depth(rows))
        if control is TRACED:
            return _after(s, found, judged, *newton_step(near, near_z, found))
        # A Newton step may take passes over the rows, so it is made only where it is wanted.
        wanted = bool(judged.better & ~judged.ended)
        newton = newton_step(near, near_z, found) if wanted else (np.zeros_like(zero), 0)
        return to_host(_after(s, found, judged, *newton))

    zero = np.zeros(len(v.weights))
    start = _Shifted(zero, np.inf, np.inf, zero, 0, 0, False)
    found = control.while_loop(_unfinished, step, start)
    return found.shift, found.passes


@jit_by_shape
def _judged(s: _Shifted, found: _Slope, depth) -> _Judged:
    steepest = jnp.max(jnp.abs(found.slope))
    # A rise of the risk that is no more than rounding says nothing.
    lower = found.risk <= s.risk + depth * UNIT * jnp.abs(s.risk)
    better = lower & (steepest < s.steepest) & jnp.isfinite(found.risk)
    close = jnp.all(jnp.abs(found.slope) <= _SOUGHT * found.absolute)
    settled = ~better & (s.steepest <= _CLOSE * jnp.max(found.absolute))
    return _Judged(better, close | settled, steepest)


@jit_by_shape
def _after(s: _Shifted, found: _Slope, judged: _Judged, newton, products) -> _Shifted:
    """The search after a trial, from which the Newton step is ``newton``."""
    better = judged.better
    tried = jnp.where(better, s.tried - newton, s.shift + (s.tried - s.shift) / 4)
    return _Shifted(
        jnp.where(better, s.tried, s.shift),
        jnp.where(better, found.risk, s.risk),
        jnp.where(better, judged.steepest, s.steepest),
        tried,
        s.steps + 1,
        s.passes + 1 + products,
        judged.ended | ~jnp.all(jnp.isfinite(tried)),
    )


@jit_by_shape
def _unfinished(s: _Shifted):
    return ~s.ended & (s.steps <= _INTERCEPT_STEPS)


@jit_by_shape
def _inverse(diagonal):
    return 1 / jnp.maximum(diagonal, 1e-9 * jnp.max(diagonal))


@jit_by_shape
def _shift_by_hessian(hessian, slope):
    """``H⁻¹ s``."""
    # A loss may ignore a shift of all logits; the gradient then has no part along that shift.
    ridge = 1e-12 * jnp.trace(hessian) * jnp.eye(len(hessian))
    factor = jax.lax.linalg.cholesky(hessian + ridge, symmetrize_input=False)
    return jax.scipy.linalg.cho_solve((factor, True), slope)


def _most_dense(loss: Callable) -> int:
    """The most logits for which the Hessian in their shift is formed, not multiplied with."""
    return _MOST_DENSE_BY_PRODUCT if lp.is_softmax(loss) else _MOST_DENSE


# These functions are summed over blocks of rows. Each is made once for a loss, so that its programs
# are kept.


@lru_cache(maxsize=64)
def _slope_block(loss: Callable) -> Callable:
    def slope(x, z, labels, weights):
        losses, slopes = lp.losses_and_slopes(loss, z, labels)
        residuals = slopes * weights[:, None]
        sums = losses @ weights, jnp.sum(residuals, 0), jnp.sum(jnp.abs(residuals), 0)
        if z.shape[1] <= _most_dense(loss):
            return _Slope(*sums, lp.logit_hessian(loss, z, labels, weights), None), None
        maps = lp.curvature(loss, z, labels)
        diagonal = weights @ lp.curvature_diagonal(maps, z.shape[1], z.dtype)
        return _Slope(*sums, None, diagonal), None

    return slope


@lru_cache(maxsize=64)
def _shift_product_block(loss: Callable) -> Callable:
    def product(x, z, labels, weights, d):
        maps = lp.curvature(loss, z, labels)
        moved = jnp.broadcast_to(d[None], z.shape)
        return weights @ lp.curvature_product(maps, moved), None

    return product


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
