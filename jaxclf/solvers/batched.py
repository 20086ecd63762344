"""Solves many penalties and weightings of one small problem, one step of all at a time.

The lanes share the rows, so one product with the features serves all of them. The product is made
in the coordinates of :mod:`jaxclf.linear_algebra.whitened`. There the Gram matrix that
:mod:`jaxclf.linear_algebra.preconditioner` factors is a diagonal for every penalty at once,
``diag(s) ⊗ (I + λ/Λ)``.

Each step is a step of :mod:`jaxclf.solvers.newton_cg` with the Hessian of all rows, written for one
lane and mapped over all. It consists of conjugate gradients, in which a lane that is done waits for
the others, and of a search along the line. Logits are ``(lanes, logits, rows)``, so that work done
row by row runs along the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.conjugate_gradients import (
    BATCHED,
    conjugate_gradients,
    gap_left,
    no_pairs,
    saw_enough,
    smallest_eigenvalue,
)
from jaxclf.linear_algebra.problem import Affine
from jaxclf.linear_algebra.whitened import Whitened, inside, outside, penalties_of
from jaxclf.programs import programs_by_shape
from jaxclf.solvers.line_search import line_search
from jaxclf.solvers.newton_cg import ACCURACY, WOLFE_C2
from jaxclf.solvers.newton_cholesky import MOST_PARAMETERS

_MOST_LANES = 32
_MOST_NUMBERS = 2**19
"""The most logits of a stack: 2 MiB in float32, which stay in the cache between two products."""
_MOST_FEATURES = 2**21
"""The most numbers in the features, which are copied in float64 for their coordinates."""


class SolvedLanes(NamedTuple):
    """The result of the lanes."""

    params: Affine
    """The parameters as float64 NumPy arrays, ``(L, K, d)`` and ``(L, K)``."""
    converged: np.ndarray
    """Whether the estimated gap of each lane is at most the tolerance, ``(L,)`` bool. The other
    lanes have to be solved one by one."""
    steps: np.ndarray
    passes: np.ndarray


def most_lanes(num_rows: int, num_features: int, num_logits: int) -> int:
    """The number of lanes that are solved together at this size; 1 where one by one is cheaper.

    Lanes are cheaper one by one where parameters are so few that exact Newton steps are cheap, and
    where rows are so many that the logits of four lanes are too many.
    """
    few = num_logits * (num_features + 1) <= MOST_PARAMETERS
    fit = min(_MOST_LANES, _MOST_NUMBERS // (num_rows * num_logits))
    return 1 if few or fit < 4 or num_rows * num_features > _MOST_FEATURES else fit


def batched_newton(
    loss: Callable, rows: Whitened, weights, l2, start: Affine, *, tol: float, max_steps: int
) -> SolvedLanes:
    """Minimises ``Σᵢ ωᵢ ℓ(W xᵢ + b, yᵢ) + l2/2 ‖W‖²`` for L weightings and penalties.

    Args:
      loss: ``(logits (K,), label) -> ()``, convex, twice differentiable.
      rows: rows from :func:`whiten`.
      weights: ``(L, n)``; the weights of a lane sum to one.
      l2: ``(L,)``, positive.
      start: ``(L, K, d)`` and ``(L, K)``.
      tol: the estimated gap at which a lane is done, as in :func:`jaxclf.minimize`.
      max_steps: the most steps of each lane.
    """
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        run, shared = _programs(loss, like=(rows[:3], start)), _Shared(*rows[:3])
        own = _Own(np.asarray(weights, shared.features.dtype), penalties_of(rows, l2))
        lanes = run.start(shared, own, inside(rows, start))
        metric = run.metric(shared, own, lanes.logits)
        count = len(l2)
        going, converged = np.ones(count, bool), np.zeros(count, bool)
        steps, passes = np.zeros(count, int), np.full(count, 0.5)
        seen = [[] for _ in range(count)]
        for _ in range(max_steps):
            lanes, made = run.step(shared, own, lanes, metric, going)
            made = jax.device_get(made)
            for i in np.flatnonzero(going):
                used = int(made.count[i])
                steps[i] += 1
                passes[i] += 1 + used
                seen[i].append((used, smallest_eigenvalue(used, made.alpha[i], made.beta[i])))
                gap = gap_left(seen[i], made.predicted_decrease[i], made.residual_energy[i])
                moved = bool(made.moved[i])
                # A step that rounding hides is the last one, however few products were made.
                converged[i] = gap <= tol and (saw_enough(seen[i]) or not moved)
                going[i] = moved and not converged[i]
            if not going.any():
                break
        return SolvedLanes(outside(rows, lanes.params), converged, steps, passes)


class _Shared(NamedTuple):
    """The data that all lanes share."""

    features: Any
    transposed: Any
    labels: Any


class _Own(NamedTuple):
    """The data of one lane; all arrays have the lanes first where there are several."""

    weights: Any
    """The weights of the rows, ``(n,)``."""
    penalty: Any
    """λ / Λ, ``(1, r)``."""


class _Lane(NamedTuple):
    """The point where a lane is."""

    params: Affine
    value: Any
    logits: Any
    """The logits, ``(K, n)``."""


class _Metric(NamedTuple):
    diagonal: Affine
    ignores_shifts: Any
    """Whether the loss of the lane ignores a shift of all logits."""


class _Made(NamedTuple):
    """The numbers of a step; :class:`jaxclf.linear_algebra.conjugate_gradients.Solution` explains
    most."""

    count: Any
    predicted_decrease: Any
    residual_energy: Any
    alpha: Any
    beta: Any
    moved: Any


class _Programs(NamedTuple):
    start: Callable
    metric: Callable
    step: Callable


def _by_row(function: Callable, out: int = 0) -> Callable:
    """A function of one row's logits and label, for arrays ``(K, n)`` and ``(n,)``."""
    return jax.vmap(function, (1, 0), out)


def _precondition(metric: _Metric, r: Affine) -> Affine:
    def project(x):
        return x - jnp.where(metric.ignores_shifts, jnp.mean(x, 0, keepdims=True), 0)

    return jax.tree.map(lambda x, m: project(project(x) / m), r, metric.diagonal)


@programs_by_shape
def _programs(loss: Callable) -> _Programs:
    def logits(shared: _Shared, params: Affine):
        return params.weights @ shared.transposed + params.intercept[:, None]

    def transposed(shared: _Shared, residuals) -> Affine:
        return Affine(residuals @ shared.features, jnp.sum(residuals, -1))

    def maps_at(shared: _Shared, z):
        return _by_row(lambda z, y: lp.curvature_map(loss, z, y), -1)(z, shared.labels)

    def curved(maps, u):
        return jax.vmap(lambda product, u: product(u), (-1, 1), 1)(maps, u)

    def start(shared: _Shared, own: _Own, params: Affine) -> _Lane:
        z = logits(shared, params)
        risk = jnp.sum((own.weights * _by_row(loss)(z, shared.labels)).astype(jnp.float64))
        return _Lane(params, risk + _product(own, params.weights, params.weights) / 2, z)

    def metric(shared: _Shared, own: _Own, z) -> _Metric:
        maps, num_logits = maps_at(shared, z), len(z)
        ones = jnp.ones_like(z)
        flat = jnp.max(jnp.abs(curved(maps, ones))) < 100 * jnp.finfo(z.dtype).eps

        def scale(k):
            unit = (jnp.arange(num_logits) == k)[:, None] * ones
            return jnp.sum(curved(maps, unit) * unit, 0) @ own.weights

        s = jax.lax.map(scale, jnp.arange(num_logits))
        s = jnp.maximum(s, 1e-2 * jnp.mean(s)) + jnp.finfo(s.dtype).tiny
        return _Metric(Affine(s[:, None] + own.penalty, s), flat & (num_logits > 1))

    def step(
        shared: _Shared, own: _Own, lane: _Lane, metric: _Metric, active
    ) -> tuple[_Lane, _Made]:
        params, value, z = lane
        maps, labels, weights = maps_at(shared, z), shared.labels, own.weights[None]

        def product(d: Affine) -> Affine:
            h = transposed(shared, curved(maps, logits(shared, d)) * weights)
            return lp.with_ridge(h, own.penalty, d)

        slopes = _by_row(jax.grad(loss), 1)(z, labels)
        g = lp.with_ridge(transposed(shared, slopes * weights), own.penalty, params)
        # A lane that is done has nothing to solve.
        b = jax.tree.map(lambda x: jnp.where(active, -x, 0), g)
        metric_of_lane = Partial(_precondition, metric)
        solved = conjugate_gradients(product, metric_of_lane, b, ACCURACY, no_pairs(b, 0), BATCHED)
        d, slope = solved.d, -2 * solved.predicted_decrease
        dz, w, dw = logits(shared, d), params.weights, d.weights
        square, along, bend = (_product(own, *pair) for pair in ((w, w), (w, dw), (dw, dw)))

        def at(t):
            each = _by_row(jax.value_and_grad(loss), (0, 1))
            losses, slopes = each(z + t.astype(z.dtype) * dz, labels)
            total = jnp.sum((own.weights * losses).astype(jnp.float64))
            rise = jnp.sum((own.weights * jnp.sum(slopes * dz, 0)).astype(jnp.float64))
            total = total + square / 2 + t * along + t * t * bend / 2
            return total, rise + along + t * bend

        noise = float(jnp.finfo(z.dtype).eps) * jnp.abs(value)
        found = line_search(at, value, slope, 1.0, noise=noise, wolfe_c2=WOLFE_C2)
        # A step that rounding hides does not count, and neither does a step to NaN.
        seen = solved.predicted_decrease > noise
        moved = active & seen & (found.length > 0) & jnp.isfinite(found.value)
        length = jnp.where(moved, found.length, 0)
        new = _Lane(
            lp.add_scaled(params, length, d),
            jnp.where(moved, found.value, value),
            z + length.astype(z.dtype) * dz,
        )
        told = solved.predicted_decrease, solved.residual_energy, solved.alpha, solved.beta
        return new, _Made(solved.count, *told, moved)

    def over_lanes(function: Callable) -> Callable:
        return jax.jit(lambda shared, *own: jax.vmap(partial(function, shared))(*own))

    return _Programs(*map(over_lanes, (start, metric, step)))


def _product(own: _Own, a, b) -> jax.Array:
    """The penalty's ``Σ λ/Λ a b``."""
    return jnp.sum((own.penalty * a * b).astype(jnp.float64))
