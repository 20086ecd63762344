"""Proximal Newton with working sets, for L1 and elastic net.

A step minimises the quadratic of the smooth part plus the penalty itself over a working set. For
each logit the set has the weights that are not zero, and the weights at zero whose slope exceeds
l1, the steepest first. The Hessian over the set is a small dense matrix, formed from sampled rows
where there are many rows. Coordinate descent on it reads no features. A search then goes along the
direction to that minimum, and the logits of the direction are computed once.

Sources: Lee, Sun and Saunders, Proximal Newton-type methods, SIAM J. Optim. 24 (2014); Massias,
Gramfort and Salmon, Celer, ICML (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.coordinate_descent import Minimum, Quadratic, minimum
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.sharing import most_in_columns, to_host
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.solvers.newton_cg import FALL, STALE, TOO_SMALL
from jaxclf.solvers.oracle import Point
from jaxclf.solvers.result import Iteration, Outcome, Stop
from jaxclf.sparse_rows import is_sparse

_LARGEST_SET = 8192
"""The most weights in a working set; its Hessian takes 256 MiB in float32. A larger support is
worked on in parts, the steepest first."""
_ROOM = 1.2
"""Places in a working set for each weight that is not zero."""
SMALL = 2**20
"""The most features times logits for which a solve in float64 takes milliseconds."""
_MODEL = np.float32
"""The dtype of the Hessian of larger problems: in float64 it takes twice as long, and a model that
is off by a millionth costs no step."""
_SHARE_OF_PROMISE = 0.1
_SHORTEST = 1e-6


class _Slope(NamedTuple):
    smooth: Affine
    """The gradient of all but the L1 penalty."""
    steepness: jax.Array
    """The absolute value of the smallest subgradient, ``(K, d)``."""
    largest: jax.Array
    most_used: jax.Array
    """The number of weights that are not zero, of the logit that has most."""
    most_wanted: jax.Array
    """The number of weights that are not zero or whose slope exceeds l1, of the logit with most."""


class _Programs(NamedTuple):
    """The compiled pieces for one loss."""

    start: Callable
    slope: Callable
    working_set: Callable
    quadratic: Callable
    move: Callable


@programs_by_shape
def _programs(loss: Callable) -> _Programs:
    def total(z, rows: Rows, w, l1, l2):
        risk = jnp.sum((rows.weights * lp.losses(loss, z, rows.labels)).astype(jnp.float64))
        return risk + jnp.sum(lp.penalty_terms(w.astype(jnp.float64), l1, l2))

    @jax.jit
    def start(rows, v, l1, l2):
        z = lp.logits(rows.features, v)
        return Point(v, total(z, rows, v.weights, l1, l2), kept=z)

    @jax.jit
    def slope(rows, point, l1, l2) -> _Slope:
        v, z = point.params, point.kept
        w, residuals = v.weights, lp.slopes(loss, z, *rows[1:])
        g = lp.transpose_product(rows.features, residuals, intercept=v.intercept is not None)
        g = lp.with_ridge(g, l2, v)
        steepness = jnp.abs(lp.smallest_subgradient(w, g.weights, jnp.asarray(l1, w.dtype)))
        largest = jnp.max(steepness)
        if v.intercept is not None:
            largest = jnp.maximum(largest, jnp.max(jnp.abs(g.intercept)))
        used, wanted = w != 0, (w != 0) | (steepness > 0)
        return _Slope(g, steepness, largest, *(jnp.max(jnp.sum(x, 1)) for x in (used, wanted)))

    @partial(jax.jit, static_argnames="size")
    def working_set(v: Affine, slope: _Slope, *, size: int) -> jax.Array:
        """The ``size`` columns of each logit."""
        # Weights that are not zero come first where there is room for them, then the steepest.
        ahead = jnp.where(slope.most_used < size, 1 + jnp.max(slope.steepness), 0)
        order = jnp.where(v.weights != 0, ahead, 0) + slope.steepness
        return jax.lax.top_k(order, size)[1]

    @partial(jax.jit, static_argnames="most")
    def quadratic(
        rows, places, columns, z, v: Affine, slope: _Slope, l1, l2, *, most: int
    ) -> Quadratic:
        """The model over a working set, in whose columns sparse features store at most ``most``
        numbers."""
        z = z if places is None else z[places]
        num_logits, dtype = len(v.weights), v.weights.dtype
        l1, l2 = (jnp.broadcast_to(jnp.asarray(x, dtype), v.weights.shape) for x in (l1, l2))
        none = None if v.intercept is None else jnp.zeros(num_logits, dtype)
        each = (v, slope.smooth, Affine(l1, none), Affine(l2, none))

        def over_set(x: Affine) -> jax.Array:
            chosen = x._replace(weights=jnp.take_along_axis(x.weights, columns, 1))
            return lp.stacked(chosen).ravel()

        w, g, penalty, ridge = map(over_set, each)
        if rows.features.size * num_logits > SMALL:
            z, rows = z.astype(_MODEL), rows._replace(weights=rows.weights.astype(_MODEL))
        options = {"intercept": v.intercept is not None, "most": most}
        hessian = lp.dense_hessian(loss, rows, z, columns, **options)
        hessian = hessian.astype(dtype) + jnp.diag(ridge)
        return Quadratic(hessian, w, g, penalty, ridge)

    @jax.jit
    def move(rows, point, columns, solved: Minimum, l1, l2):
        """The point along the direction, at a length of one, halved until enough is gained."""
        v, value, z = point.params, point.value, point.kept
        change = lp.unstacked(solved.change.reshape(len(columns), -1), v)
        at_columns = jnp.arange(len(columns))[:, None], columns
        d = change._replace(weights=jnp.zeros_like(v.weights).at[at_columns].set(change.weights))
        dz = lp.logits(rows.features, d)
        noise = float(jnp.finfo(z.dtype).eps) * jnp.abs(value)
        curvature = lp.curvature_along(loss, z, *rows[1:], dz) + jnp.sum(l2 * d.weights**2)

        def at(length) -> Point:
            new = lp.add_scaled(v, length, d)
            near = z + length.astype(z.dtype) * dz
            return Point(new, total(near, rows, new.weights, l1, l2), kept=near)

        def poor(state):
            length, new = state
            enough = value - _SHARE_OF_PROMISE * length * solved.predicted_decrease + noise
            return ~(new.value <= enough) & (length > _SHORTEST)

        def shorter(state):
            length = 0.5 * state[0]
            return length, at(length)

        one = jnp.ones((), jnp.float64)
        length, new = jax.lax.while_loop(poor, shorter, (one, at(one)))
        return new, length, curvature / solved.curvature

    return _Programs(start, slope, working_set, quadratic, move)


def proximal_newton(
    oracle: LinearOracle,
    start: Affine,
    l1: Any,
    *,
    stop: Stop,
    first_size: int,
    rng: np.random.Generator,
    lower_bound: float = -np.inf,
) -> Outcome:
    """Minimises the objective of a linear model plus ``l1 ‖W‖₁``, with 64-bit mode on.

    Args:
      oracle: the oracle of rows in memory; its loss must be convex and twice differentiable.
      start: parameters in the dtype to compute in.
      l1: λ₁ > 0, one for all weights or ``(1, d)``.
      stop: the end. The last step promises to gain at most ``tol``, with every weight that wants to
        move in the working set. The gradient is the smallest subgradient.
      first_size: rows in the first sample.
      rng: the generator for the samples.
      lower_bound: a number that the loss is never below. A model that promises more than there is
        above it has no curvature somewhere, as of a piecewise loss, and is damped.
    """
    rows, l2, run = oracle.rows, oracle.l2, _programs(oracle.loss, like=oracle.rows)
    n, d = rows.features.shape
    num_logits = len(start.weights)
    noise = float(jnp.finfo(start.weights.dtype).eps)
    size, fresh, sample = min(first_size, n), True, oracle
    features: Any = rows.features
    lengths = most_in_columns(features) if is_sparse(features) else None
    point = run.start(rows, start, l1, l2)
    iteration, tol = Iteration(point, stop), stop.tol
    iteration.passes += 0.5
    made_at, reached, steepest = np.inf, False, np.inf

    while True:
        slope = run.slope(rows, point, l1, l2)
        iteration.passes += 0.5
        largest = float(slope.largest)
        if status := iteration.arrive(point, largest, reached=reached):
            return iteration.end(status)
        # Slopes tell of progress when values no longer do.
        falling, steepest = largest < steepest / 2, min(largest, steepest)

        if fresh and size < n:
            sample = oracle.sampled(point, size, sample, rng)
        elif size == n:
            sample = oracle
        places = _places(int(slope.most_used), int(slope.most_wanted), d, num_logits)
        columns = run.working_set(point.params, slope, size=places)
        at = columns, point.kept, point.params, slope, l1, l2
        most = 0 if lengths is None else _room(int(lengths[np.asarray(columns)].sum()))
        quadratic = run.quadratic(sample.rows, sample.places, *at, most=most)
        iteration.passes += size / n
        solved = minimum(quadratic)
        predicted_decrease, value = float(solved.predicted_decrease), float(point.value)
        most = value - lower_bound
        if not predicted_decrease <= most:  # there is no curvature where there is a slope
            solved = minimum(_damped(quadratic, slope, most))
            predicted_decrease = float(solved.predicted_decrease)
        if not np.isfinite(predicted_decrease):
            return iteration.end("nonfinite")
        whole = places >= int(slope.most_wanted)
        if predicted_decrease <= noise * abs(value) and not falling:
            return iteration.end(
                "converged" if predicted_decrease <= tol and whole else "precision_floor"
            )
        new, length, curvature_ratio = run.move(rows, point, columns, solved, l1, l2)
        iteration.passes += 0.5
        if float(length) <= _SHORTEST:
            return iteration.end("precision_floor")
        reached = predicted_decrease <= tol and whole
        point, curvature_ratio = new, float(curvature_ratio)
        if fresh:
            made_at = predicted_decrease
        if size < n and fresh and curvature_ratio > TOO_SMALL:
            size = min(2 * size, n)
        else:
            fresh = predicted_decrease < made_at / FALL or curvature_ratio > STALE


def _damped(quadratic: Quadratic, slope: _Slope, most: float) -> Quadratic:
    """The model with a ridge, by which a straight line down the gradient falls by ``most``."""
    gradient = to_host(slope)
    squares = np.sum(gradient.steepness.astype(np.float64) ** 2)
    if gradient.smooth.intercept is not None:
        squares += np.sum(gradient.smooth.intercept.astype(np.float64) ** 2)
    dtype = quadratic.hessian.dtype
    damping = jnp.asarray(squares / max(most, float(jnp.finfo(dtype).tiny)), dtype)
    ridge = quadratic.ridge + damping
    hessian = quadratic.hessian + damping * jnp.eye(len(ridge), dtype=dtype)
    return quadratic._replace(hessian=hessian, ridge=ridge)


def _room(count: int) -> int:
    """The room for so many stored numbers: one of few sizes, so that few are compiled."""
    return 1 << max(10, (count - 1).bit_length())


def _places(used: int, wanted: int, num_features: int, num_logits: int) -> int:
    """The places per logit in the working set: one of few sizes, so that few are compiled."""
    size = 32
    while size < max(_ROOM * used, min(wanted, 2 * used)):
        size *= 2
    return max(1, min(size, num_features, _LARGEST_SET // num_logits))
