"""Coordinate descent on a quadratic with an L1 penalty, and with bounds on the weights.

It goes weight by weight, so it runs on the host's processor, wherever the rows are. Where the
weights are few and so correlated that epochs stop getting closer, Newton's method on the weights
that are neither zero nor at a bound takes over.

Source: Friedman, Hastie and Tibshirani, Regularization paths for generalized linear models via
coordinate descent, J. Stat. Softw. 33 (2010), section 2.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import cho_factor, cho_solve

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

    hessian: Any
    w: Any
    g: Any
    penalty: Any
    """λ₁ of each weight."""
    ridge: Any
    lower: Any
    upper: Any
    """The bounds of each weight, which may be infinite."""


class Minimum(NamedTuple):
    """The minimum of a quadratic and its penalty."""

    change: Any
    """The change from w to the minimum of quadratic and penalty."""
    predicted_decrease: Any
    """The amount by which quadratic and penalty fall."""
    curvature: Any
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
    hessian, w, g, penalty, *_ = quadratic = to_host(quadratic)
    u, _ = coordinate_descent(quadratic)
    change = u - w
    curvature = change @ (hessian @ change)
    lower = np.sum(penalty * (abs(w) - abs(u)), dtype=np.float64)
    return Minimum(change, lower - np.sum(g * change, dtype=np.float64) - curvature / 2, curvature)


def coordinate_descent(quadratic: Quadratic) -> tuple[np.ndarray, int]:
    """Minimises ``gᵀ(u - w) + ½ (u - w)ᵀ H (u - w) + Σ λ |u|`` within the bounds from w, which lies
    within them, weight by weight.

    ``ridge`` is the part of the penalty in the diagonal of H. Where the weights are few and so
    correlated that epochs stop getting closer, Newton's method finds the minimum among the weights
    with these signs that are not at a bound.

    Returns:
      The minimum, and the number of epochs.
    """
    zero = np.zeros((), quadratic.w.dtype)
    s = _Descent(quadratic.w, quadratic.g, zero, zero, zero + np.inf, np.zeros((), np.int32))
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        while True:
            s, slow = to_host(_rounds(quadratic, s))
            if slow:
                u, r = _newton_on_support(quadratic, s.u, s.r)
                s = s._replace(u=u, r=r)
            if s.epochs >= _EPOCHS or s.whole <= _ACCURACY**2 * s.first:
                return s.u, int(s.epochs)


@jit_by_shape
def _rounds(quadratic: Quadratic, start: _Descent) -> tuple[_Descent, jax.Array]:
    """Rounds of one epoch over all weights and some over those that move, until they are close
    enough, or get hardly closer, of which the second result tells."""
    hessian, w, _, penalty, ridge, lower, upper = quadratic
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

    def among_moving(s: _Descent) -> tuple[_Descent, jax.Array]:
        """Runs epochs over the weights that move, until a hundredth of the move is left."""
        used = _moves(quadratic, s.u)
        order, many = jnp.argsort(~used, stable=True), jnp.sum(used)
        before, most = s.moved, s.epochs + (_PATIENCE if newton else _EPOCHS)

        def unfinished(s):
            return (s.epochs < jnp.minimum(most, _EPOCHS)) & (s.moved > 1e-2 * before)

        s = jax.lax.while_loop(unfinished, lambda s: epoch(s, order, many), s)
        return s, (s.moved > 1e-2 * before) & newton

    def round_of(state):
        s = epoch(state[0], jnp.arange(len(w)), len(w))
        s = s._replace(first=jnp.where(s.epochs == 1, s.moved, s.first), whole=s.moved)
        return *among_moving(s), jnp.zeros((), bool)

    def unfinished(state):
        s, slow, fresh = state
        return fresh | ((s.epochs < _EPOCHS) & (s.whole > _ACCURACY**2 * s.first) & ~slow)

    newton = len(w) <= _FEW
    state = start, jnp.zeros((), bool), jnp.ones((), bool)
    return jax.lax.while_loop(unfinished, round_of, state)[:2]


def _moves(quadratic: Quadratic, u) -> Any:
    """Whether each weight is where the penalty is smooth."""
    *_, penalty, _, lower, upper = quadratic
    return ((u != 0) | (penalty == 0)) & (lower < u) & (u < upper)


def _newton_on_support(quadratic: Quadratic, u, r) -> tuple[np.ndarray, np.ndarray]:
    """u and r at the minimum over the weights that move, with the signs that they have.

    Where a weight becomes zero on the way, or comes to a bound, the search stops there and starts
    once more.
    """
    hessian, *_, penalty, _, lower, upper = quadratic
    for _ in range(_CROSSINGS):
        used = np.flatnonzero(_moves(quadratic, u))
        own, limit = u[used], penalty[used] > 0
        slope = r[used] + penalty[used] * np.sign(own)
        d = -_solved(hessian[np.ix_(used, used)], slope)
        if not (len(used) and np.isfinite(d).all()):
            break
        # A weight may go as far as its bound, or as zero where its penalty has a kink.
        low = np.where(limit & (own > 0), np.maximum(lower[used], 0), lower[used])
        high = np.where(limit & (own < 0), np.minimum(upper[used], 0), upper[used])
        end = np.where(d > 0, high, low)
        crosses = abs(d) > abs(end - own)
        lengths = np.where(crosses, abs(end - own) / np.where(crosses, abs(d), 1), np.inf)
        length = min(1.0, lengths.min())
        new = np.where(lengths <= length, end, own + length * d).astype(u.dtype)
        r = r + hessian[:, used] @ (new - own)
        u = u.copy()
        u[used] = new
        if length == 1:
            break
    return u, r


def _solved(matrix: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``A⁻¹ b`` of a symmetric A that is positive definite but for rounding; NaN if it is not."""
    root = np.sqrt(np.maximum(np.diagonal(matrix), np.finfo(matrix.dtype).tiny))
    scaled = matrix / root[:, None] / root[None]
    for ridge in np.finfo(matrix.dtype).eps * np.array([10.0, 1e3, 1e5]):
        with suppress(np.linalg.LinAlgError):
            lifted = scaled + ridge.astype(matrix.dtype) * np.eye(len(b), dtype=matrix.dtype)
            return cho_solve(cho_factor(lifted, lower=True), b / root) / root
    return np.full_like(b, np.nan)
