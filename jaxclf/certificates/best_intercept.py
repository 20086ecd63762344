"""The intercept at which the mean loss of a linear model is least, for given weights.

Newton's method seeks it. For rows in memory the search takes their logits alone; for rows in chunks
every step is a pass over them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxclf.certificates.duality import UNIT
from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.conjugate_gradients import (
    TRACED,
    Control,
    conjugate_gradients,
    no_pairs,
)
from jaxclf.linear_algebra.problem import Affine
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.sharing import to_host

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


def best_shift(control: Control, loss: Callable, rows: Any, v: Affine, products) -> tuple[Any, Any]:
    """The shift from a point's intercept to the best one, and the number of readings of the rows.

    A step of Newton's method is shortened where the risk or the slope rises. ``products`` are
    ``X Wᵀ``, where they are known.
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
        near, near_z = at_intercept(v, products, v.intercept + s.tried)
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


def at_intercept(v: Affine, products, intercept) -> tuple[Affine, Any]:
    """The point with another intercept, and its logits where the products ``X Wᵀ`` are known."""
    z = None if products is None else products + intercept[None]
    return v._replace(intercept=intercept), z


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
