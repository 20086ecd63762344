"""Coordinate descent on a quadratic with an L1 penalty, and with bounds on the weights.

It goes weight by weight, so it runs on the host's processor, wherever the rows are. Where the
weights are few and so correlated that epochs stop getting closer, Newton's method on the weights
that are neither zero nor at a bound takes over.

Source: Friedman, Hastie and Tibshirani, Regularization paths for generalized linear models via
coordinate descent, J. Stat. Softw. 33 (2010), section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxclf.linear_algebra.preconditioner import factored
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.sharing import to_host

_EPOCHS = 200
"""The most epochs of a descent."""
_PATIENCE = 10
"""Epochs over the weights that move, after which Newton's method takes over."""
_FEW = 1024
"""The most weights of a working set for Newton's method; a factor of their Hessian takes 3 ms."""
_CROSSINGS = 20
"""Weights that may become zero, or come to a bound, in one go."""
_ACCURACY = 0.1
"""The share of the first epoch's change, in the norm of the diagonal, at which a descent ends."""


class Quadratic(NamedTuple):
    """The model over a working set: all logits one after another, each with its intercept last."""

    hessian: jax.Array
    w: jax.Array
    g: jax.Array
    penalty: jax.Array
    """λ₁ of each weight."""
    ridge: jax.Array
    lower: jax.Array
    upper: jax.Array
    """The bounds of each weight, which may be infinite."""


class Minimum(NamedTuple):
    """The minimum of a quadratic and its penalty."""

    change: jax.Array
    """The change from w to the minimum of quadratic and penalty."""
    predicted_decrease: jax.Array
    """The amount by which quadratic and penalty fall."""
    curvature: jax.Array
    """The curvature ``dᵀ H d`` in the sample, with the ridge."""


class _Descent(NamedTuple):
    u: Any
    r: Any
    """The slope of the quadratic at u, ``g + H (u - w)``."""
    moved: Any
    """The movement ``Σ Hᵢᵢ δᵢ²`` of the last epoch."""
    first: Any
    whole: Any
    """``first`` and ``whole`` are the movements of the first and last epoch over all weights."""
    epochs: Any


def minimum(quadratic: Quadratic) -> Minimum:
    """The minimum of quadratic and penalty, found on the host's processor."""
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return to_host(_descended(to_host(quadratic)))


@jit_by_shape
def _descended(quadratic: Quadratic) -> Minimum:
    hessian, w, g, penalty, *_ = quadratic
    u, _ = coordinate_descent(quadratic)
    change = u - w
    curvature = change @ (hessian @ change)
    lower = jnp.sum((penalty * (jnp.abs(w) - jnp.abs(u))).astype(jnp.float64))
    predicted_decrease = lower - jnp.sum((g * change).astype(jnp.float64)) - curvature / 2
    return Minimum(change, predicted_decrease, curvature)


def coordinate_descent(quadratic: Quadratic):
    """Minimises ``gᵀ(u - w) + ½ (u - w)ᵀ H (u - w) + Σ λ |u|`` within the bounds from w, which lies
    within them, weight by weight.

    ``ridge`` is the part of the penalty in the diagonal of H. Where the weights are few and so
    correlated that epochs stop getting closer, Newton's method finds the minimum among the weights
    with these signs that are not at a bound.
    """
    hessian, w, g, penalty, ridge, lower, upper = quadratic
    data = jnp.diagonal(hessian) - ridge
    # Rounding makes the curvature of a flat direction any small number; such a step is kept short.
    diagonal = jnp.maximum(data, 1e-6 * jnp.max(data) + jnp.finfo(w.dtype).tiny) + ridge

    def one(i, state):
        u, r, moved = state
        target = u[i] - r[i] / diagonal[i]
        new = jnp.sign(target) * jnp.maximum(jnp.abs(target) - penalty[i] / diagonal[i], 0)
        new = jnp.clip(new, lower[i], upper[i])
        change = new - u[i]
        return u.at[i].set(new), r + change * hessian[i], moved + diagonal[i] * change**2

    def epoch(s: _Descent, order, many) -> _Descent:
        def at(k, state):
            return one(order[k], state)

        u, r, moved = jax.lax.fori_loop(0, many, at, (s.u, s.r, jnp.zeros((), w.dtype)))
        return s._replace(u=u, r=r, moved=moved, epochs=s.epochs + 1)

    def among_nonzero(s: _Descent) -> _Descent:
        """Runs epochs over the weights that move, until a hundredth of the move is left."""
        used = moves(s.u)
        order, many = jnp.argsort(~used, stable=True), jnp.sum(used)
        before, most = s.moved, s.epochs + (_PATIENCE if newton else _EPOCHS)

        def unfinished(s):
            return (s.epochs < jnp.minimum(most, _EPOCHS)) & (s.moved > 1e-2 * before)

        s = jax.lax.while_loop(unfinished, lambda s: epoch(s, order, many), s)
        if not newton:
            return s
        slow = s.moved > 1e-2 * before
        return jax.lax.cond(slow, lambda s: _newton_on_support(quadratic, moves, s), lambda s: s, s)

    def moves(u):
        """Whether each weight is where the penalty is smooth."""
        return ((u != 0) | (penalty == 0)) & (lower < u) & (u < upper)

    def round_of(s: _Descent) -> _Descent:
        s = epoch(s, jnp.arange(len(w)), len(w))
        s = s._replace(first=jnp.where(s.epochs == 1, s.moved, s.first), whole=s.moved)
        return among_nonzero(s)

    def unfinished(s: _Descent):
        return (s.epochs < _EPOCHS) & (s.whole > _ACCURACY**2 * s.first)

    newton = len(w) <= _FEW
    zero = jnp.zeros((), w.dtype)
    start = _Descent(w, g, zero, zero, zero + jnp.inf, jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(lambda s: (s.epochs == 0) | unfinished(s), round_of, start)
    return end.u, end.epochs


def _newton_on_support(quadratic: Quadratic, moves: Callable, s: _Descent) -> _Descent:
    """The state at the minimum over the weights that move, with the signs that they have.

    Where a weight becomes zero on the way, or comes to a bound, the search stops there and starts
    once more.
    """
    hessian, *_, penalty, _, lower, upper = quadratic

    def step(state):
        u, r, _, count = state
        used = moves(u)
        both = used[:, None] & used[None]
        one = jnp.eye(len(u), dtype=u.dtype)
        solve = factored(jnp.where(both, hessian, one))
        d = -solve(jnp.where(used, r + penalty * jnp.sign(u), 0))
        # A weight may go as far as its bound, or as zero where its penalty has a kink.
        low = jnp.where((penalty > 0) & (u > 0), jnp.maximum(lower, 0), lower)
        high = jnp.where((penalty > 0) & (u < 0), jnp.minimum(upper, 0), upper)
        end = jnp.where(d > 0, high, low)
        crosses = used & (jnp.abs(d) > jnp.abs(end - u))
        lengths = jnp.where(crosses, (end - u) / jnp.where(crosses, d, 1), jnp.inf)
        length = jnp.minimum(1, jnp.min(lengths))
        stopped = crosses & (lengths <= length)
        new = jnp.where(stopped, end, u + length * d)
        fine = jnp.isfinite(new).all()
        new = jnp.where(fine, new, u)
        return new, r + hessian @ (new - u), (length < 1) & fine, count + 1

    def unfinished(state):
        return state[2] & (state[3] < _CROSSINGS)

    start = (s.u, s.r, jnp.ones((), bool), jnp.zeros((), jnp.int32))
    u, r, *_ = jax.lax.while_loop(unfinished, step, start)
    return s._replace(u=u, r=r)
