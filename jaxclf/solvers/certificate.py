"""How good a point is, measured in float64: value, gradient, and a bound on the gap.

Let ``G = Σ αᵢ xᵢᵀ`` with ``αᵢ = ωᵢ ℓ′(zᵢ)``, and h the penalty of one weight. Where b minimises
F(W, ·), ``Σ αᵢ = 0`` and α is a dual point. Fenchel's inequality holds with equality row by row, so
primal minus dual is what it lacks weight by weight, ``Σ h(w) + h*(-g) + w g``:

- ``h = l1 |w| + l2/2 w²``, l2 > 0: ``h*(u) = max(0, |u| - l1)² / (2 l2)``; with l1 = 0 the sum is
  ``‖∇_W F‖² / (2 l2)``.
- ``h = l1 |w|``: h* is 0 for ``|u| ≤ l1``, else infinite. Where α is infeasible, cα is not, with
  ``c = l1 / max |G|``; for a loss ``ℓ ≥ 0``, ``ℓ*(cα) ≤ c ℓ*(α)`` by convexity, as ``ℓ*(0) ≤ 0``,
  so the gap is at most ``(1 - c) L + l1 ‖W‖₁ + c ⟨W, G⟩`` with L the mean loss.

Both are bounds when l1 and l2 are positive; the smaller counts. The intercept is brought to its
minimum by Newton's method on the logits alone, which does not read the features.

Sources: Boyd and Vandenberghe, Convex Optimization (2004), sections 3.3 and 5.1.6; Ndiaye, Fercoq,
Gramfort and Salmon, Gap safe screening rules, J. Mach. Learn. Res. 18 (2017), section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxclf.losses import categorical_nll
from jaxclf.objectives import Batch, Objective
from jaxclf.penalties import Penalty
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.sharing import on_device
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.conjugate_gradients import (
    TRACED,
    Control,
    Solved,
    conjugate_gradients,
    nothing_curved,
)
from jaxclf.solvers.inputs import (
    NONCONVEX,
    NONNEGATIVE,
    normalised_weights,
    underlying,
)
from jaxclf.solvers.linear_problem import Affine, Rows

INTERCEPT_STEPS = 20
_SOUGHT, SETTLED = 1e-12, 1e-9
"""Slope of the intercept, over the mean absolute slope of the rows, that is sought, and that counts
as zero."""
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
    """Infinite without a penalty, and with L1 alone on a loss not known to be nonnegative."""


class _Shifted(NamedTuple):
    """The best shift of the logits so far, and the one that is tried next."""

    shift: jax.Array
    residuals: jax.Array
    """``(n, K)``, α."""
    steepest: jax.Array
    """The largest absolute slope there."""
    tried: jax.Array
    steps: jax.Array
    ended: jax.Array


def certify(objective: Objective, loss: Callable, affine: Affine, batch: Batch) -> Certificate:
    """The certificate of a point of a linear model, however it was found; 64-bit mode must be on.

    Args:
      objective: with a convex loss; for one known not to be, the bound is infinite.
      loss: of the objective, taking ``(K,)`` logits.
      affine: the point.
      batch: the rows.
    """
    known, penalty = underlying(objective.loss), objective.penalty or Penalty()
    weights = normalised_weights(batch)
    rows = Rows(*map(on_device, (batch.features, batch.labels, weights)))
    found = make_certify(loss, like=(rows, affine))(
        rows, affine, float(penalty.l1), float(penalty.l2), known in NONNEGATIVE
    )
    return trusted(objective, found)


def trusted(objective: Objective, found: Certificate) -> Certificate:
    """The certificate, without a bound where the loss is known not to be convex."""
    nonconvex = underlying(objective.loss) in NONCONVEX
    return found._replace(gap_bound=np.inf) if nonconvex else found


@programs_by_shape
def make_certify(loss: Callable) -> Callable:
    """``(rows, affine, l1, l2, nonnegative) -> Certificate`` of one convex loss.

    64-bit mode must be on, and the weights in it. ``nonnegative`` says that the loss is never below
    zero.
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

    def best_shift(z, rows: Rows) -> _Shifted:
        """Newton's method on a shift of all logits, as long as its slope falls."""

        def step(s: _Shifted) -> _Shifted:
            near = z + s.tried[None]
            residuals = lp.slopes(loss, near, rows)
            slope, absolute = jnp.sum(residuals, 0), jnp.sum(jnp.abs(residuals), 0)
            steepest = jnp.max(jnp.abs(slope))
            better = steepest < s.steepest
            shift, kept = (
                jnp.where(better, new, old)
                for new, old in ((s.tried, s.shift), (residuals, s.residuals))
            )
            close = jnp.all(jnp.abs(slope) <= _SOUGHT * absolute)
            tried = s.tried - newton_step(near, rows, slope)
            ended = close | ~better
            return _Shifted(
                shift, kept, jnp.minimum(steepest, s.steepest), tried, s.steps + 1, ended
            )

        def unfinished(s: _Shifted):
            return ~s.ended & (s.steps <= INTERCEPT_STEPS)

        zero = jnp.zeros(z.shape[1], z.dtype)
        start = _Shifted(zero, z, jnp.inf, zero, 0, False)
        return jax.lax.while_loop(unfinished, step, start)

    @jax.jit
    def certify(rows: Rows, affine: Affine, l1, l2, nonnegative) -> Certificate:
        dtype = affine.weights.dtype
        affine = jax.tree.map(lambda x: x.astype(jnp.float64), affine)
        z = lp.logits(rows.features, affine)
        if affine.intercept is None:
            residuals = lp.slopes(loss, z, rows)
            g = lp.transpose_product(rows.features, residuals, intercept=False)
            risk = jnp.sum(rows.weights * lp.losses(loss, z, rows.labels))
            return measured(affine, risk, g, True, l1, l2, nonnegative)
        shift, residuals, *_ = best_shift(z, rows)
        affine = affine._replace(intercept=affine.intercept + shift)
        g = lp.transpose_product(rows.features, residuals, intercept=True)
        settled = jnp.max(jnp.abs(g.intercept)) <= SETTLED * jnp.sum(jnp.abs(residuals))
        # What is returned is rounded to its dtype; that may cost a little.
        rounded = affine.intercept.astype(dtype).astype(jnp.float64)
        shifts = jnp.stack([shift, shift + (rounded - affine.intercept)])
        losses = jax.vmap(lambda shift: lp.losses(loss, z + shift[None], rows.labels))(shifts)
        risk, moved = losses @ rows.weights
        found = measured(affine, risk, g, settled, l1, l2, nonnegative)
        return with_intercept(found, rounded, moved - risk)

    return certify


def measured(affine: Affine, risk, g: Affine, settled, l1, l2, nonnegative) -> Certificate:
    """The certificate of a point whose mean loss and its gradient are known, all in float64."""
    w = affine.weights
    value = risk + l1 * jnp.sum(jnp.abs(w)) + 0.5 * l2 * jnp.sum(w**2)
    smooth = g.weights + l2 * w
    beyond = jnp.maximum(jnp.abs(smooth) - l1, 0)
    subgradient = jnp.where(w == 0, beyond, jnp.abs(smooth + l1 * jnp.sign(w)))
    bound = jnp.where(settled, _gap(risk, w, g.weights, l1, l2, nonnegative), jnp.inf)
    slope = 0.0 if g.intercept is None else jnp.max(jnp.abs(g.intercept))
    return Certificate(affine, value, jnp.maximum(jnp.max(subgradient), slope), bound)


def with_intercept(found: Certificate, intercept, added) -> Certificate:
    """The certificate with another intercept, where the objective is higher by so much."""
    value, bound = found.value + added, found.gap_bound + added
    affine = found.affine._replace(intercept=intercept)
    return found._replace(affine=affine, value=value, gap_bound=bound)


def most_dense(loss: Callable) -> int:
    """Logits up to which the Hessian in their shift is formed, not multiplied with."""
    of_products = underlying(loss) is categorical_nll
    return _MOST_DENSE_BY_PRODUCT if of_products else _MOST_DENSE


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


def _gap(risk, w, g, l1, l2, nonnegative):
    """The duality gap by either conjugate, the smaller of those that hold."""
    absolute, product = l1 * jnp.abs(w), w * g
    over = jnp.maximum(jnp.abs(g) - l1, 0) ** 2
    some = jnp.where(l2 > 0, l2, 1)
    # One term by one, each of them not negative, so that nothing cancels between weights.
    lacking = absolute + 0.5 * l2 * w**2 + over / (2 * some) + product
    ridge = jnp.where(l1 > 0, jnp.sum(lacking), jnp.sum((l2 * w + g) ** 2) / (2 * some))
    scale = jnp.minimum(1, l1 / jnp.maximum(jnp.max(jnp.abs(g)), jnp.finfo(g.dtype).tiny))
    lasso = (1 - scale) * risk + jnp.sum(absolute + 0.5 * l2 * w**2 + scale * product)
    return jnp.minimum(
        jnp.where(l2 > 0, ridge, jnp.inf),
        jnp.where((l1 > 0) & nonnegative, lasso, jnp.inf),
    )
