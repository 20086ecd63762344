"""How good a point is, measured in float64: value, gradient, and a bound on the gap.

The bound is that of :mod:`jaxclf.solvers.duality`. It is tight where the intercept is at its
minimum, which is sought first by Newton's method on the logits alone, without reading the features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxclf.penalties import Penalty
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.row_sums import depth, sum_rows
from jaxclf.scaling.sharing import on_device
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.conjugate_gradients import (
    TRACED,
    Control,
    Solved,
    conjugate_gradients,
    nothing_curved,
)
from jaxclf.solvers.duality import (
    EVALUATED,
    UNIT,
    Known,
    Nearby,
    Sums,
    gap_bound,
    logit_terms,
    nearby_shifts,
    row_sums,
    value_error,
)
from jaxclf.solvers.linear_problem import Affine, Rows

INTERCEPT_STEPS = 20
SOUGHT = 1e-12
"""Slope of the intercept, over the mean absolute slope of the rows, at which its search ends."""
_CLOSE = 1e-9
"""The same where a step that does not lessen it ends the search too."""
_MOST_DENSE, _MOST_DENSE_BY_PRODUCT = 64, 2048
"""Logits up to which the Hessian in their shift is formed; the second where it is one product."""
_ACCURACY = 1e-3
"""Of a Newton step on the shift of more logits."""


class Certificate(NamedTuple):
    """All in float64."""

    affine: Affine
    """The point, its intercept at its minimum but for rounding to the dtype it came in."""
    value: jax.Array
    gradient_norm: jax.Array
    """Largest absolute entry of the gradient, or with L1 of the smallest subgradient."""
    gap_bound: jax.Array
    """Infinite without a penalty, and for a loss that is not known to be convex."""
    off: jax.Array
    """How far rounding may have moved the value."""


class _Shifted(NamedTuple):
    """The best shift of the logits so far, and the one that is tried next."""

    shift: jax.Array
    risk: jax.Array
    steepest: jax.Array
    """The largest absolute slope there."""
    tried: jax.Array
    steps: jax.Array
    ended: jax.Array


def certify(
    loss: Callable, known: Known, penalty: Penalty, affine: Affine, rows: Rows, *, narrow: bool
) -> Certificate:
    """The certificate of a point of a linear model, however it was found; 64-bit mode must be on.

    Args:
      loss: taking ``(K,)`` logits.
      known: of it.
      penalty: of the objective; strengths of all weights, or ``(1, d)``.
      affine: the point.
      rows: the data, with float64 weights that sum to one.
      narrow: whether the intercept is returned in float32.
    """
    rows, affine = Rows(*map(on_device, rows)), jax.tree.map(as_float64, affine)
    run = make_certify(loss, known.structure, like=(rows, affine))
    bounds = known.lower_bound, known.cancellation
    return trusted(known, run(rows, affine, *penalty, *bounds, narrow))


def as_float64(x: Any) -> Any:
    """An array of the host, or of devices, in float64."""
    return x.astype(np.float64)


def trusted(known: Known, found: Certificate) -> Certificate:
    """The certificate, without a bound where the loss is not known to be convex."""
    return found if known.convex else found._replace(gap_bound=np.inf)


@programs_by_shape
def make_certify(loss: Callable, structure: str) -> Callable:
    """``(rows, affine, l1, l2, lower bound of the loss, cancellation in it, narrow) ->
    Certificate`` of a convex loss.

    64-bit mode must be on, all in float64. ``narrow`` rounds the intercept to float32.
    """

    def newton_step(z, rows: Rows, slope):
        """``H⁻¹ s`` of the Hessian in a shift of all logits."""
        if z.shape[1] > most_dense(loss):
            maps = lp.curvature(loss, z, rows.labels)
            curvature = rows.weights @ lp.curvature_diagonal(maps, z.shape[1], z.dtype)

            def product(d):
                moved = jnp.broadcast_to(d[None], z.shape)
                return rows.weights @ lp.curvature_product(maps, moved)

            return shift_by_products(product, curvature, slope).d
        return shift_by_hessian(lp.logit_hessian(loss, z, rows), slope)

    def best_shift(z, rows: Rows):
        """Newton's method on a shift of all logits, shortened where the risk or the slope rises."""

        def step(s: _Shifted) -> _Shifted:
            near = z + s.tried[None]
            losses, slopes = jax.vmap(jax.value_and_grad(loss))(near, rows.labels)
            residuals = slopes * rows.weights[:, None]
            risk = jnp.sum(losses * rows.weights)
            slope, absolute = jnp.sum(residuals, 0), jnp.sum(jnp.abs(residuals), 0)
            steepest = jnp.max(jnp.abs(slope))
            # Rounding may raise the risk by so little that it says nothing.
            lower = risk <= s.risk + len(z) * UNIT * jnp.abs(s.risk)
            better = lower & (steepest < s.steepest) & jnp.isfinite(risk)
            shift = jnp.where(better, s.tried, s.shift)
            newton = s.tried - newton_step(near, rows, slope)
            tried = jnp.where(better, newton, s.shift + (s.tried - s.shift) / 4)
            close = jnp.all(jnp.abs(slope) <= SOUGHT * absolute)
            settled = ~better & (s.steepest <= _CLOSE * jnp.max(absolute))
            ended = close | settled | ~jnp.all(jnp.isfinite(tried))
            return _Shifted(
                shift,
                jnp.where(better, risk, s.risk),
                jnp.where(better, steepest, s.steepest),
                tried,
                s.steps + 1,
                ended,
            )

        def unfinished(s: _Shifted):
            return ~s.ended & (s.steps <= INTERCEPT_STEPS)

        zero = jnp.zeros(z.shape[1], z.dtype)
        start = _Shifted(zero, jnp.inf, jnp.inf, zero, 0, False)
        return jax.lax.while_loop(unfinished, step, start).shift

    def nearby(z, rows: Rows) -> Nearby:
        def at(shift):
            slopes = jax.vmap(jax.grad(loss))(z + shift[None], rows.labels)
            return rows.weights @ slopes, rows.weights @ slopes**2

        shifts = nearby_shifts(z.shape[1])
        slopes, squares = jax.lax.map(at, shifts)
        common = jnp.sum(jnp.abs(jnp.sum(lp.slopes(loss, z, rows), 1)))
        return Nearby(shifts, slopes, squares, common)

    @jax.jit
    def certify(
        rows: Rows, affine: Affine, l1, l2, lower_bound, cancellation, narrow
    ) -> Certificate:
        known = Known(structure, lower_bound, cancellation)
        intercept, z = affine.intercept is not None, lp.logits(rows.features, affine)
        if intercept:
            shift = best_shift(z, rows)
            affine, z = affine._replace(intercept=affine.intercept + shift), z + shift[None]

        def block(x, z, labels, weights):
            x = x.astype(jnp.float64)
            return row_sums(loss, structure, x, z, labels, weights, intercept=intercept)

        sums = sum_rows(block, rows.features, z, rows.labels, rows.weights)
        added = depth(rows.features)
        if structure == "mixed" and intercept:
            sums = sums._replace(nearby=nearby(z, rows))
        found = measured(affine, sums, l1, l2, known, added)
        if not intercept:
            return found
        # What is returned is rounded to its dtype; that may cost a little.
        rounded = affine.intercept.astype(jnp.float32).astype(jnp.float64)
        rounded = jnp.where(narrow, rounded, affine.intercept)
        there = lp.losses(loss, z + (rounded - affine.intercept)[None], rows.labels)
        return with_intercept(found, rounded, there @ rows.weights - sums.risk)

    return certify


def measured(affine: Affine, sums: Sums, l1, l2, known: Known, depth) -> Certificate:
    """The certificate of a point from its sums over the rows."""
    w, g = affine.weights, sums.gradient
    value = sums.risk + jnp.sum(l1 * jnp.abs(w) + 0.5 * l2 * w**2)
    smooth = g.weights + l2 * w
    beyond = jnp.maximum(jnp.abs(smooth) - l1, 0)
    subgradient = jnp.where(w == 0, beyond, jnp.abs(smooth + l1 * jnp.sign(w)))
    slope = 0.0 if g.intercept is None else jnp.max(jnp.abs(g.intercept))
    added = depth + w.shape[1] + 2 * EVALUATED
    off = added * UNIT * (logit_terms(affine, sums) + sums.size + jnp.abs(value))
    off = off + value_error(affine, sums, known)
    # Neither the loss nor the penalty is ever below its lower bound.
    bound = jnp.minimum(
        gap_bound(affine, sums, l1, l2, known, depth), value - known.lower_bound + off
    )
    return Certificate(affine, value, jnp.maximum(jnp.max(subgradient), slope), bound, off)


def with_intercept(found: Certificate, intercept, added) -> Certificate:
    """The certificate with another intercept, where the objective is higher by so much."""
    value, bound = found.value + added, jnp.maximum(found.gap_bound + added, 0)
    affine = found.affine._replace(intercept=intercept)
    return found._replace(affine=affine, value=value, gap_bound=bound)


def most_dense(loss: Callable) -> int:
    """Logits up to which the Hessian in their shift is formed, not multiplied with."""
    return _MOST_DENSE_BY_PRODUCT if lp.is_softmax(loss) else _MOST_DENSE


def shift_by_hessian(hessian, slope):
    """``H⁻¹ s``."""
    # A loss may ignore a shift of all logits; the gradient has no part along it.
    ridge = 1e-12 * jnp.trace(hessian) * jnp.eye(len(hessian))
    factor = jax.lax.linalg.cholesky(hessian + ridge, symmetrize_input=False)
    return jax.scipy.linalg.cho_solve((factor, True), slope)


def shift_by_products(product: Callable, curvature, slope, control: Control = TRACED) -> Solved:
    """``H⁻¹ s`` by conjugate gradients in the metric of the diagonal of H."""
    known = jnp.maximum(curvature, 1e-9 * jnp.max(curvature))
    metric, nothing = Partial(jnp.multiply, 1 / known), nothing_curved(slope)
    return conjugate_gradients(product, metric, slope, _ACCURACY, nothing, control)
