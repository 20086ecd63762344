"""Truncated Newton for linear models: few readings of the features, whatever the conditioning.

Every step solves ``∇²F d = -∇F`` by conjugate gradients in the metric of the Gram matrix, to a
modest accuracy, and searches along d, for which the logits of d are computed once and the features
are not read again. On large data the Hessian is that of a sample: rows whose curvature is nearly
zero hardly count in it. A row is drawn with probability ``min(1, τ sᵢ)``, sᵢ the trace of its
``ωᵢ ℓ″ᵢ``, and weighs one over that, so the sampled Hessian is unbiased and the rows that matter
are in it exactly. Gradients are always those of all rows. The sample is drawn anew as the steps
shrink, and grows, up to all rows, when they gain too little.

Sources: Nocedal and Wright, Numerical Optimization (2006), section 7.1; Byrd, Chin, Neveitt and
Nocedal, On the use of stochastic Hessian information, SIAM J. Optim. 21 (2011).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers import preconditioner as pre
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.result import Step

_SAMPLED_ABOVE = 2**23
"""Features with fewer numbers are cheap to read as a whole."""
_FIRST_SHARE = 3
"""The first sample is one in so many rows."""
_GRAM_ROWS = 8
"""Rows per feature that the preconditioner is made of."""
_INNER_STEPS = 60
_SHARE_OF_SLOPE = 0.25
"""A step must gain this share of what the slope promises; the best one of a parabola gains half.
Another length costs no reading of the features, so a poor one is not accepted."""


class Outcome(NamedTuple):
    """Where the iteration stopped."""

    affine: Affine
    value: float
    status: str
    steps: int
    passes: float
    trace: tuple[Step, ...]
    sampled: bool
    """Whether any Hessian was that of a sample."""


class _Inner(NamedTuple):
    """Conjugate gradients on ``H d = -g`` in a metric M."""

    d: Affine
    residual: Affine
    p: Affine
    rz: Any
    """``rᵀ M⁻¹ r``."""
    count: Any
    lengths: Any
    turns: Any
    """The coefficients α and β of each step: the Lanczos matrix of ``M⁻¹ H``."""


class _Programs(NamedTuple):
    """The compiled pieces of an iteration, for one loss."""

    logits: Callable
    evaluate: Callable
    gradient: Callable
    importance: Callable
    prepare: Callable
    metric_norm: Callable
    direction: Callable


@lru_cache(maxsize=64)
def _programs(loss: Callable) -> _Programs:
    def evaluate(z, dz, v, dv, step, labels, weights, l2):
        """Value and slope at ``v + step · dv`` and the logits there."""
        z = z + jnp.asarray(step, z.dtype) * dz
        v = lp.add_scaled(v, step, dv)
        value = jnp.sum((weights * lp.losses(loss, z, labels)).astype(jnp.float64))
        return value + 0.5 * l2 * lp.dot(Affine(v.weights, None), Affine(v.weights, None)), z, v

    def gradient(features, labels, weights, z, v, l2):
        residuals = lp.slopes(loss, z, Rows(None, labels, weights))
        g = lp.transpose_product(features, residuals, intercept=v.intercept is not None)
        g = g._replace(weights=g.weights + jnp.asarray(l2, z.dtype) * v.weights)
        return g, jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(g)]))

    def importance(z, labels, weights):
        maps = lp.curvature(loss, z, labels)
        diagonal = lp.curvature_diagonal(maps, z.shape[1], z.dtype)
        return weights * jnp.maximum(jnp.sum(diagonal, 1), 0)

    @partial(jax.jit, static_argnames="intercept")
    def prepare(rows, z, l2, *, intercept):
        """The preconditioner of some rows at their logits."""
        maps = lp.curvature(loss, z, rows.labels)
        diagonal = jnp.maximum(lp.curvature_diagonal(maps, z.shape[1], z.dtype), 0)
        l2 = jnp.asarray(l2, z.dtype)
        return pre.make_preconditioner(
            rows.features,
            rows.weights,
            diagonal,
            l2,
            lp.ignores_shifts(maps, z),
            intercept=intercept,
        )

    def metric_norm(metric, g):
        return lp.dot(g, pre.apply(metric, g))

    def direction(rows, z, g, preconditioner, l2, accuracy):
        """Conjugate gradients on ``H d = -g`` until the preconditioned residual has fallen."""
        maps = lp.curvature(loss, z, rows.labels)
        l2 = jnp.asarray(l2, z.dtype)

        def product(d: Affine) -> Affine:
            h = lp.hessian_product(rows.features, maps, rows.weights, d)
            return h._replace(weights=h.weights + l2 * d.weights)

        residual = jax.tree.map(jnp.negative, g)
        z0 = pre.apply(preconditioner, residual)
        rz0 = lp.dot(residual, z0)
        start = (jax.tree.map(jnp.zeros_like, g), residual, z0, rz0, jnp.zeros((), jnp.int32))

        def unfinished(state):
            return (state.count < _INNER_STEPS) & (state.rz > accuracy**2 * rz0)

        def step(state: _Inner) -> _Inner:
            q = product(state.p)
            curvature = lp.dot(state.p, q)
            # A direction without curvature: stop with what there is, or with itself at first.
            flat = jnp.where(state.count == 0, 1.0, 0.0)
            length = jnp.where(curvature > 0, state.rz / curvature, flat)
            residual = lp.add_scaled(state.residual, -length, q)
            y = pre.apply(preconditioner, residual)
            rz = jnp.where(curvature > 0, lp.dot(residual, y), 0)
            return _Inner(
                d=lp.add_scaled(state.d, length, state.p),
                residual=residual,
                p=lp.add_scaled(y, rz / state.rz, state.p),
                rz=rz,
                count=state.count + 1,
                lengths=state.lengths.at[state.count].set(length),
                turns=state.turns.at[state.count].set(rz / state.rz),
            )

        zeros = jnp.zeros(_INNER_STEPS)
        start = _Inner(
            jax.tree.map(jnp.zeros_like, g),
            residual,
            z0,
            rz0,
            jnp.zeros((), jnp.int32),
            zeros,
            zeros,
        )
        end = jax.lax.while_loop(unfinished, step, start)
        return end, lp.dot(g, end.d)

    return _Programs(
        jax.jit(lp.logits),
        jax.jit(evaluate),
        jax.jit(gradient),
        jax.jit(importance),
        prepare,
        jax.jit(metric_norm),
        jax.jit(direction),
    )


def newton_cg(
    loss: Callable,
    rows: Rows,
    start: Affine,
    l2: float,
    *,
    tol: float,
    max_steps: int,
    rng: np.random.Generator,
    watch: Callable[[Step, Any, Affine], str | None],
) -> Outcome:
    """Minimises ``Σ ωᵢ ℓ(W xᵢ + b, yᵢ) + l2/2 ‖W‖²``, with 64-bit mode on for its scalars.

    Args:
      loss: ``(logits (K,), label) -> ()``, twice differentiable, convex.
      rows: the data; weights sum to one.
      start: parameters in the dtype to compute in.
      l2: λ.
      tol: stop when ``½ gᵀ H⁻¹ g``, estimated from above in the metric, is below; it is
        ``F - min F`` up to third order.
      max_steps: how many at most.
      rng: for the samples.
      watch: called before every step with the trace's line, the logits and the parameters; may end
        the iteration by returning a status.
    """
    began, run = time.perf_counter(), _programs(loss)
    features, labels, weights = rows
    n, d = features.shape
    # Values are sums in float64 of losses in the computing dtype.
    noise = float(jnp.finfo(start.weights.dtype).eps)
    size = first = n // _FIRST_SHARE if n * d > _SAMPLED_ABOVE else n
    z = run.logits(features, start)
    value, z, v = run.evaluate(z, z, start, start, 0.0, labels, weights, l2)
    value, passes, trace = float(value), 1.0, []
    whole, sample, metric = _Sample(None, rows), None, None
    promised = drawn_at = np.inf
    lowest, trusted = 0.0, False

    def outcome(status: str) -> Outcome:
        steps = len(trace) - 1
        return Outcome(v, value, status, steps, passes, tuple(trace), first < n)

    while True:
        g, largest = run.gradient(features, labels, weights, z, v, l2)
        passes, largest = passes + 0.5, float(largest)
        trace.append(Step(value, largest, time.perf_counter() - began, passes))
        if not (np.isfinite(value) and np.isfinite(largest)):
            return outcome("nonfinite")
        if ended := watch(trace[-1], z, v):
            return outcome(ended)
        if largest == 0:
            return outcome("converged")
        if metric is not None and lowest > 0:
            # ½ gᵀ H⁻¹ g is at most ½ gᵀ M⁻¹ g over the smallest eigenvalue of M⁻¹ H.
            estimate = float(run.metric_norm(metric, g)) / (2 * lowest)
            if estimate <= tol:
                return outcome("converged")
        if len(trace) > max_steps:
            return outcome("max_steps")

        if sample is None:
            drawn_at, fewer = promised, max(_GRAM_ROWS * d, 2000)
            if min(size, fewer) < n:
                importance = np.asarray(run.importance(z, labels, weights), np.float64)
            sample = whole if size >= n else _draw(rows, importance, size, rng)
            few = whole if fewer >= n else _draw(rows, importance, fewer, rng)
            metric = run.prepare(few.rows, few.logits(z), l2, intercept=v.intercept is not None)
            passes += len(few.rows.weights) / n
        accuracy = 0.1 if trusted else 0.3
        inner, slope = run.direction(sample.rows, sample.logits(z), g, metric, l2, accuracy)
        passes += int(inner.count) * len(sample.rows.weights) / n
        dv, lowest, before = inner.d, _lowest_ritz(inner), promised
        slope = float(slope)
        promised = -slope / 2
        if not np.isfinite(slope):
            return outcome("nonfinite")
        if promised <= noise * abs(value):
            return outcome("precision_floor")

        dz, length = run.logits(features, dv), 1.0
        passes += 0.5
        while True:
            new, new_z, new_v = run.evaluate(z, dz, v, dv, length, labels, weights, l2)
            new = float(new)
            if new <= value + _SHARE_OF_SLOPE * length * slope + noise * abs(value):
                break
            if length < 1e-6:
                return outcome("precision_floor")
            # The minimum of the parabola through what is known, kept from the ends.
            parabola = -slope * length**2 / (2 * (new - value - slope * length))
            length *= min(max(parabola / length, 0.1), 0.6) if np.isfinite(new) else 0.1
        if trusted and promised > before / 2 and size < n:
            # The step before went as its model said, yet little was won: the sample is too small.
            size, sample = min(2 * size, n), None
        elif size < n and (promised < drawn_at / 8 or length < 0.5):
            sample = None
        trusted = length == 1.0 and value - new > promised / 2
        value, z, v = new, new_z, new_v


def _lowest_ritz(inner: _Inner) -> float:
    """The smallest eigenvalue of ``M⁻¹ H`` that the iteration has seen.

    Source: Saad, Iterative Methods for Sparse Linear Systems (2003), section 6.7.3.
    """
    from scipy.linalg import eigvalsh_tridiagonal

    count = int(inner.count)
    lengths, turns = (np.asarray(x)[:count] for x in (inner.lengths, inner.turns))
    if count == 0 or not (lengths > 0).all():
        return 0.0
    diagonal = 1 / lengths
    diagonal[1:] += turns[:-1] / lengths[:-1]
    beside = np.sqrt(np.maximum(turns[:-1], 0)) / lengths[:-1]
    return float(eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(0, 0))[0])


class _Sample(NamedTuple):
    """Some rows, each weighing one over its probability; or all of them."""

    places: jax.Array | None
    rows: Rows

    def logits(self, z):
        return z if self.places is None else z[self.places]


def _draw(rows: Rows, traces: np.ndarray, size: int, rng: np.random.Generator) -> _Sample:
    """``size`` rows with probability ``min(1, τ sᵢ)``, by systematic sampling."""
    n, weights = len(rows.weights), np.asarray(rows.weights, np.float64)
    # A floor keeps every row with a weight possible, and its weight in the sample bounded.
    importance = traces + 1e-3 * weights * traces.sum()
    share, certain = np.zeros(n), np.zeros(n, bool)
    while True:
        rest = importance[~certain].sum()
        tau = (size - certain.sum()) / rest if rest > 0 else 0.0
        share = np.where(certain, 1.0, tau * importance)
        if not (share > 1).any():
            break
        certain |= share >= 1
    marks = np.floor(np.cumsum(share) + rng.random())
    chosen = np.flatnonzero(np.diff(marks, prepend=0.0) > 0)[:size]
    places = jnp.asarray(np.resize(chosen, size).astype(np.int32))
    shares = np.where(np.arange(size) < len(chosen), weights[places] / share[places], 0)
    shares = jnp.asarray(shares, rows.weights.dtype)
    return _Sample(places, Rows(rows.features[places], rows.labels[places], shares))
