"""Solves many penalties and weightings of one small problem, one step of all at a time.

The lanes share the rows, so one product with the features serves all of them. The product is made
in the coordinates of :mod:`jaxclf.linear_algebra.whitened`. There the Gram matrix that
:mod:`jaxclf.linear_algebra.preconditioner` factors is a diagonal for every penalty at once,
``diag(s) ⊗ (I + λ/Λ)``.

Each step is a step of :mod:`jaxclf.solvers.newton_cg` with the Hessian of all rows. It consists of
conjugate gradients, in which a lane that is done waits for the others, and of a search along the
line. Arrays are ``(lanes, logits, rows)``, so that work done row by row runs along the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.conjugate_gradients import (
    MOST_STEPS,
    gap_left,
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


class Solved(NamedTuple):
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
) -> Solved:
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
        run, dtype = _programs(loss, like=(rows[:3], start)), rows.features.dtype
        data = _Data(*rows[:3], np.asarray(weights, dtype), penalties_of(rows, l2))
        lanes = run.start(data, inside(rows, start))
        metric = run.metric(data, lanes.logits)
        count = len(l2)
        going, converged = np.ones(count, bool), np.zeros(count, bool)
        steps, passes = np.zeros(count, int), np.full(count, 0.5)
        seen = [[] for _ in range(count)]
        for _ in range(max_steps):
            lanes, made = run.step(data, lanes, metric, going)
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
        return Solved(outside(rows, lanes.params), converged, steps, passes)


class _Data(NamedTuple):
    features: Any
    transposed: Any
    labels: Any
    weights: Any
    penalty: Any


class _Lanes(NamedTuple):
    """The points where the lanes are."""

    params: Affine
    value: Any
    logits: Any
    """The logits, ``(L, K, n)``."""


class _Metric(NamedTuple):
    diagonal: Affine
    ignores_shifts: Any
    """Whether the loss of each lane ignores a shift of all logits, ``(L,)`` bool."""


class _Made(NamedTuple):
    """The numbers of a step, lane by lane; :class:`conjugate_gradients.Solved` explains most."""

    count: Any
    predicted_decrease: Any
    residual_energy: Any
    alpha: Any
    beta: Any
    moved: Any


class _Search(NamedTuple):
    d: Affine
    residual: Affine
    p: Affine
    rz: Any
    going: Any
    count: Any
    alpha: Any
    beta: Any


class _Programs(NamedTuple):
    start: Callable
    metric: Callable
    step: Callable


def _by_row(function: Callable, *axes) -> Callable:
    """A function of one row's logits and label, for arrays ``(L, K, n)`` and ``(n,)``."""
    return jax.vmap(jax.vmap(function, (1, 0), *axes), (0, None))


def _for_each(number, x):
    """One number of each lane, in a shape that broadcasts over an array of all lanes."""
    return number.reshape(-1, *(1,) * (x.ndim - 1))


def _scaled(factor, tree: Affine) -> Affine:
    """Each lane times its factor."""
    return jax.tree.map(lambda x: _for_each(factor, x).astype(x.dtype) * x, tree)


def _plus(a: Affine, b: Affine) -> Affine:
    return jax.tree.map(jnp.add, a, b)


_dot = jax.vmap(lp.dot)


@programs_by_shape
def _programs(loss: Callable) -> _Programs:
    def logits(data: _Data, params: Affine):
        lanes, num_logits, rank = params.weights.shape
        z = params.weights.reshape(-1, rank) @ data.transposed
        return z.reshape(lanes, num_logits, -1) + params.intercept[..., None]

    def transposed(data: _Data, residuals) -> Affine:
        lanes, num_logits, n = residuals.shape
        w = residuals.reshape(-1, n) @ data.features
        return Affine(w.reshape(lanes, num_logits, -1), jnp.sum(residuals, -1))

    def penalty_of(data: _Data, a, b):
        return jnp.sum((data.penalty * a * b).astype(jnp.float64), (1, 2))

    def maps_at(z, data: _Data):
        return _by_row(lambda z, y: lp.curvature_map(loss, z, y), -1)(z, data.labels)

    def curved(maps, u):
        return jax.vmap(jax.vmap(lambda product, u: product(u), (-1, 1), 1))(maps, u)

    @jax.jit
    def start(data: _Data, params: Affine) -> _Lanes:
        z = logits(data, params)
        losses = data.weights * _by_row(loss)(z, data.labels)
        square = penalty_of(data, params.weights, params.weights)
        return _Lanes(params, jnp.sum(losses.astype(jnp.float64), -1) + square / 2, z)

    @jax.jit
    def metric(data: _Data, z) -> _Metric:
        maps, num_logits = maps_at(z, data), z.shape[1]
        ones = jnp.ones_like(z)
        flat = jnp.max(jnp.abs(curved(maps, ones)), (1, 2)) < 100 * jnp.finfo(z.dtype).eps

        def scale(k):
            unit = (jnp.arange(num_logits) == k)[None, :, None] * ones
            return jnp.sum(jnp.sum(curved(maps, unit) * unit, 1) * data.weights, -1)

        s = jax.lax.map(scale, jnp.arange(num_logits)).T
        tiny = jnp.finfo(s.dtype).tiny
        s = jnp.maximum(s, 1e-2 * jnp.mean(s, 1, keepdims=True)) + tiny
        return _Metric(Affine(s[..., None] + data.penalty, s), flat & (num_logits > 1))

    def precondition(metric: _Metric, r: Affine) -> Affine:
        def project(x):
            mean = jnp.mean(x, 1, keepdims=True)
            return x - jnp.where(_for_each(metric.ignores_shifts, x), mean, 0)

        return jax.tree.map(lambda x, m: project(project(x) / m), r, metric.diagonal)

    def solve(product, metric, b: Affine, active) -> _Search:
        z = precondition(metric, b)
        first = _dot(b, z)
        numbers = jnp.zeros((len(first), MOST_STEPS))
        none = jnp.zeros(len(first), jnp.int32)

        def step(s: _Search) -> _Search:
            q = product(s.p)
            curvature = _dot(s.p, q)
            # Without curvature the step is zero, but the first direction is taken whole.
            alone = jnp.where(s.count == 0, 1.0, 0.0)
            length = jnp.where(curvature > 0, s.rz / curvature, alone)
            length = jnp.where(s.going, length, 0)
            residual = _plus(s.residual, _scaled(-length, q))
            z = precondition(metric, residual)
            rz = jnp.where(s.going, _dot(residual, z), s.rz)
            beta = jnp.where(s.going, rz / s.rz, 0)
            p = _plus(z, _scaled(beta, s.p))
            kept = jax.tree.map(lambda a, b: jnp.where(_for_each(s.going, a), a, b), p, s.p)
            at = jnp.max(s.count)
            return _Search(
                _plus(s.d, _scaled(length, s.p)),
                residual,
                kept,
                rz,
                s.going & (curvature > 0) & (rz > ACCURACY**2 * first),
                s.count + s.going,
                s.alpha.at[:, at].set(jnp.where(curvature > 0, length, 0)),
                s.beta.at[:, at].set(beta),
            )

        def unfinished(s: _Search):
            return s.going.any() & (jnp.max(s.count) < MOST_STEPS)

        zeros = jax.tree.map(jnp.zeros_like, b)
        begin = _Search(zeros, b, z, first, active & (first > 0), none, numbers, numbers)
        return jax.lax.while_loop(unfinished, step, begin)

    def search(z, dz, weights, labels, value, slope, penalty, along, bend):
        """The length of one lane's step, and the value there.

        The last three arguments are what the penalty adds to φ(0), φ′(0) and φ″.
        """
        each = jax.vmap(jax.value_and_grad(loss), (1, 0), (0, 1))

        def at(t):
            losses, slopes = each(z + t.astype(z.dtype) * dz, labels)
            total = jnp.sum((weights * losses).astype(jnp.float64))
            rise = jnp.sum((weights * jnp.sum(slopes * dz, 0)).astype(jnp.float64))
            return total + penalty + t * along + t * t * bend / 2, rise + along + t * bend

        noise = float(jnp.finfo(z.dtype).eps) * jnp.abs(value)
        found = line_search(at, value, slope, 1.0, noise=noise, wolfe_c2=WOLFE_C2)
        return found.length, found.value

    @jax.jit
    def step(data: _Data, lanes: _Lanes, metric: _Metric, active) -> tuple[_Lanes, _Made]:
        params, value, z = lanes
        maps, weights = maps_at(z, data), data.weights[:, None]

        def penalised(h: Affine, d: Affine) -> Affine:
            return h._replace(weights=h.weights + data.penalty * d.weights)

        def product(d: Affine) -> Affine:
            return penalised(transposed(data, curved(maps, logits(data, d)) * weights), d)

        slopes = _by_row(jax.grad(loss), 1)(z, data.labels)
        g = penalised(transposed(data, slopes * weights), params)
        solved = solve(product, metric, jax.tree.map(jnp.negative, g), active)
        d, slope = solved.d, _dot(g, solved.d)
        dz = logits(data, d)
        w, dw = params.weights, d.weights
        square, along, bend = (penalty_of(data, *pair) for pair in ((w, w), (w, dw), (dw, dw)))
        each = jax.vmap(search, (0, 0, 0, None, 0, 0, 0, 0, 0))
        length, reached = each(
            z, dz, data.weights, data.labels, value, slope, square / 2, along, bend
        )
        # A step that rounding hides does not count, and neither does a step to NaN.
        seen = -slope / 2 > float(jnp.finfo(z.dtype).eps) * jnp.abs(value)
        moved = active & seen & (length > 0) & jnp.isfinite(reached)
        length = jnp.where(moved, length, 0)
        new = _Lanes(
            _plus(params, _scaled(length, d)),
            jnp.where(moved, reached, value),
            z + _for_each(length, z).astype(z.dtype) * dz,
        )
        made = _Made(solved.count, -slope / 2, solved.rz / 2, solved.alpha, solved.beta, moved)
        return new, made

    return _Programs(start, metric, step)
