"""What the solvers know of an objective: a point, its gradient, a line through it, its curvature.

A linear model keeps the logits of its point, so that a line search reads no features, and models
its curvature on a sample of rows; any other objective is evaluated as it is. The solvers are the
same for both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxclf.programs import programs_by_shape
from jaxclf.scaling import mesh
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers import preconditioner as pre
from jaxclf.solvers.conjugate_gradients import Solved, conjugate_gradients
from jaxclf.solvers.line_search import line_search
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.sampling import draw, gather

_GRAM_ROWS = 4
"""Rows per feature that the preconditioner is made of."""
_BLOCK_ROWS = 2
"""The same for the factor of each logit, whose rows are drawn for it."""
_FEWEST_ROWS = 1500


class Point(NamedTuple):
    """Where a solver is."""

    params: Any
    value: Any
    gradient: Any = None
    largest: Any = np.inf
    """The largest absolute entry of the gradient."""
    gap_bound: Any = 0.0
    """A bound on the gap where one is known from the gradient alone, else 0."""
    logits: Any = None
    """``(n, K)`` of a linear model in memory."""
    evaluated: Any = None
    """What a pass over rows that are read in chunks has found there."""


class Moved(NamedTuple):
    """A step along a direction."""

    point: Point
    length: Any
    """0 where no length was good."""
    trials: Any
    stretch: Any
    """Curvature along the step over what the quadratic model has; 1 if it is not known."""


class Readings(NamedTuple):
    """How often the features are read by each call."""

    start: float
    ray: float
    """A step along a direction, and the gradient where it ends."""
    trial: float
    product: float


class Problem(NamedTuple):
    """An objective as the solvers see it."""

    start: Callable
    """``params -> Point``."""
    model: Callable
    """``(Point, rows, old model or None, closer) -> (model, readings)``: the curvature there on so
    many rows, if asked with a dearer and closer metric, which later models keep until it is asked
    for again; what the old one holds may be overwritten."""
    direction: Callable
    """``(model, Point, gradient, accuracy, curved) -> Solved``: a truncated Newton step."""
    precondition: Callable
    """``(model, gradient) -> gradient``, a rough inverse of the curvature; may be traced."""
    move: Callable
    """``(Point, direction, slope, flatness, first length) -> Moved``."""
    num_rows: int
    """Rows to sample from; 1 where the curvature is always that of all rows."""
    most_rows: int
    """The largest sample beside all rows."""
    readings: Readings
    noise: float
    """What rounding may do to a value, relative."""


class _Quadratic(NamedTuple):
    rows: Rows
    places: Any
    """Where the rows are among all; ``None`` for all rows."""
    metric: pre.Preconditioner
    closer: bool


def linear_problem(
    loss: Callable, rows: Rows, l2: Any, rng: np.random.Generator, *, newton: bool = False
) -> Problem:
    """``Σ ωᵢ ℓ(W xᵢ + b, yᵢ) + l2/2 ‖W‖²`` with 64-bit mode on for its scalars.

    Args:
      loss: ``(logits (K,), label) -> ()``, convex, twice differentiable.
      rows: the data; weights sum to one.
      l2: λ, of all weights or ``(1, d)``.
      rng: for the samples.
      newton: whether steps only go along minima of the quadratic of all rows, whose curvature along
        themselves is known; otherwise a step measures it.
    """
    run = linear_programs(loss, like=rows)
    n, d = rows.features.shape

    def enough(size: int) -> int:
        """How many rows are used where so many would do. A sample of most rows saves nothing, and
        drawn rows would have to travel between the devices of a mesh: there all are used."""
        return n if mesh.in_use() or 2 * size > n else size

    def blocks(point: Point, ignores_shifts) -> tuple[pre.Preconditioner, float]:
        """A factor for each logit, of rows drawn by their curvature in it."""
        intercept, places = point.params.intercept is not None, None
        used = run.curvatures(point.logits, rows)
        num_logits, fewer = len(used), enough(max(_BLOCK_ROWS * d, _FEWEST_ROWS))
        if fewer < n:
            drawn = [draw(x, x.astype(np.float64), fewer, rng) for x in np.asarray(used)]
            places, used = (np.stack(x) for x in zip(*drawn, strict=True))
        metric = run.block_metric(
            rows.features, used, places, l2, ignores_shifts, intercept=intercept
        )
        return metric, num_logits * fewer / n

    def model(
        point: Point, size: int, old: _Quadratic | None, closer: bool
    ) -> tuple[_Quadratic, float]:
        num_logits, intercept = len(point.params.weights), point.params.intercept is not None
        fewer = enough(max(_GRAM_ROWS * d, _FEWEST_ROWS))
        closer = closer and pre.has_room_for_blocks(d, num_logits)
        if min(size, fewer) < n:
            importance = np.asarray(run.importance(point.logits, rows), np.float64)
        if closer:
            metric, read = blocks(point, old.metric.ignores_shifts)
        elif old is not None and old.closer:
            metric, closer, read = old.metric, True, 0.0
        else:
            few = None if fewer >= n else draw(rows.weights, importance, fewer, rng)
            metric = run.metric(rows, few, point.logits, l2, intercept=intercept)
            read = fewer / n
        if size >= n:
            return _Quadratic(rows, None, metric, closer), read
        drawn = draw(rows.weights, importance, size, rng)
        used = None if old is None or old.places is None else old.rows.features
        sample = gather(rows, drawn, used)
        return _Quadratic(sample, drawn.places, metric, closer), read + size / n

    def direction(model: _Quadratic, point, g, accuracy, curved) -> Solved:
        return run.direction(
            model.rows, model.places, point.logits, g, model.metric, l2, accuracy, curved
        )

    def move(point: Point, d: Affine, slope, flatness, first) -> Moved:
        at = point.params, point.value, point.logits
        return run.move(rows, l2, at, d, slope, flatness, first, newton=newton)

    def start(v: Affine) -> Point:
        """A step from nowhere, of length 1: any value and slope is better than what is there."""
        params, z = run.nowhere(rows, v)
        point = Point(params, np.float64(np.inf), logits=z)
        moved = move(point, v, -np.inf, 1.0, 1.0)
        if float(moved.length) == 1:
            return moved.point._replace(params=v)
        # The search went on because there is no value at the start.
        return moved.point._replace(params=v, value=np.nan, largest=np.nan)

    return Problem(
        start=start,
        model=model,
        direction=direction,
        precondition=_in_metric,
        move=move,
        num_rows=n,
        most_rows=n,
        readings=Readings(start=1.0, ray=1.0, trial=0.0, product=1.0),
        noise=float(jnp.finfo(rows.weights.dtype).eps),
    )


def bound_by_strength(l2, g: Affine) -> jax.Array:
    """``‖∇_W F‖² / (2 λ)``, a bound where the intercept is at its minimum; 0 without a penalty."""
    squares = g.weights.astype(jnp.float64) ** 2 / (2 * jnp.where(l2 > 0, l2, 1))
    return jnp.where(jnp.all(l2 > 0), jnp.sum(squares), 0)


class LinearPrograms(NamedTuple):
    """The compiled pieces for one loss."""

    nowhere: Callable
    curvatures: Callable
    importance: Callable
    metric: Callable
    block_metric: Callable
    direction: Callable
    move: Callable


@programs_by_shape
def linear_programs(loss: Callable) -> LinearPrograms:
    @jax.jit
    def nowhere(rows, v):
        """Parameters and logits that are zero."""
        z = jnp.zeros((len(rows.weights), len(v.weights)), rows.weights.dtype)
        return jax.tree.map(jnp.zeros_like, v), z * rows.weights[:, None]

    def reached(rows, v: Affine, value, z, l2) -> Point:
        """The point with its gradient."""
        residuals = lp.slopes(loss, z, rows)
        g = lp.transpose_product(rows.features, residuals, intercept=v.intercept is not None)
        g = g._replace(weights=g.weights + jnp.asarray(l2, z.dtype) * v.weights)
        return Point(v, value, g, lp.largest(g), bound_by_strength(l2, g), z)

    @jax.jit
    def curvatures(z, rows):
        """``ωᵢ ℓ″ᵢ[k, k]``, ``(K, n)``."""
        maps = lp.curvature(loss, z, rows.labels)
        diagonal = lp.curvature_diagonal(maps, z.shape[1], z.dtype)
        return jnp.maximum(diagonal.T, 0) * rows.weights[None]

    @jax.jit
    def importance(z, rows):
        """The trace of each row's part of the Hessian in the logits."""
        return jnp.sum(curvatures(z, rows), 0)

    @partial(jax.jit, static_argnames="intercept")
    def metric(rows, drawn, z, l2, *, intercept):
        """The preconditioner of some rows at their logits."""
        total = len(z)
        if drawn is not None:
            rows, z = gather(rows, drawn, None), z[drawn.places]
        chosen = pre.kind(len(z), total, rows.features.shape[1], z.shape[1])
        maps = lp.curvature(loss, z, rows.labels)
        diagonal = jnp.maximum(lp.curvature_diagonal(maps, z.shape[1], z.dtype), 0)
        return pre.make_preconditioner(
            rows.features,
            rows.weights * jnp.mean(diagonal, 1),
            rows.weights @ diagonal,
            jnp.asarray(l2, z.dtype),
            lp.ignores_shifts(maps, z),
            intercept=intercept,
            chosen=chosen,
        )

    @partial(jax.jit, static_argnames="intercept")
    def block_metric(features, used, places, l2, ignores_shifts, *, intercept):
        """The preconditioner with a factor for each logit; ``used`` are curvatures ``(K, m)`` of
        the rows at ``places``, or of all rows."""

        def factor(one):
            return pre.block_factor(features, *one, l2, intercept=intercept)

        factors = jax.lax.map(factor, (used, places))
        return pre.Preconditioner(jnp.ones(len(used), used.dtype), ignores_shifts, factors)

    @jax.jit
    def direction(rows, places, z, g, metric, l2, accuracy, curved):
        z = z if places is None else z[places]
        maps, l2 = lp.curvature(loss, z, rows.labels), jnp.asarray(l2, z.dtype)

        def product(d: Affine) -> Affine:
            h = lp.hessian_product(rows.features, maps, rows.weights, d)
            return h._replace(weights=h.weights + l2 * d.weights)

        b = jax.tree.map(jnp.negative, g)
        return conjugate_gradients(product, Partial(pre.apply, metric), b, accuracy, curved)

    @partial(jax.jit, static_argnames="newton")
    def move(rows, l2, at, d, slope, flatness, first, *, newton):
        v, value, z = at
        dz = lp.logits(rows.features, d)
        ww, wd, dd = (_penalty_product(l2, *pair) for pair in ((v, v), (v, d), (d, d)))
        if newton:
            stretch = jnp.ones_like(value)
        else:
            maps = lp.curvature(loss, z, rows.labels)
            bent = jnp.sum(rows.weights[:, None] * (dz * lp.curvature_product(maps, dz)), 1)
            stretch = (jnp.sum(bent.astype(jnp.float64)) + dd) / jnp.abs(slope)

        def along(t):
            near = z + t.astype(z.dtype) * dz
            values = rows.weights * lp.losses(loss, near, rows.labels)
            slopes = jnp.sum(lp.slopes(loss, near, rows) * dz, 1)
            penalty = 0.5 * (ww + 2 * t * wd + t * t * dd)
            risk, rise = (jnp.sum(x.astype(jnp.float64)) for x in (values, slopes))
            return risk + penalty, rise + wd + t * dd

        noise = float(jnp.finfo(z.dtype).eps) * jnp.abs(value)
        # Not beyond the minimum of the parabola with the curvature that is known here.
        first = first / jnp.where(stretch > 1, stretch, 1)
        found = line_search(along, value, slope, first, noise=noise, flatness=flatness)
        new, near = lp.add_scaled(v, found.length, d), lp.add_scaled(z, found.length, dz)
        there = reached(rows, new, found.value, near, l2)
        return Moved(there, found.length, found.trials, stretch)

    return LinearPrograms(nowhere, curvatures, importance, metric, block_metric, direction, move)


def _in_metric(model: _Quadratic, g):
    return pre.apply(model.metric, g)


def _penalty_product(l2, a: Affine, b: Affine):
    """``Σ λ a b`` over the weights, the part that is penalised."""
    return jnp.sum(l2 * (a.weights.astype(jnp.float64) * b.weights.astype(jnp.float64)))
