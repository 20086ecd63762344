"""A linear model over rows that are read in chunks: no logits are kept, nor the features.

A pass over the rows gives value and gradient, and what each row's curvature is. The Hessian is that
of rows drawn by it, as many as fit in memory beside their logits, so that conjugate gradients read
no file; where they do not suffice, or so few would fit that they say nothing, every product is a
pass. Within a chunk the logits are those of a block of rows, so that n × K numbers are never held,
whatever the number of classes.
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
from jaxclf.scaling.chunks import Chunked, python_while_loop, room_for, sum_chunks
from jaxclf.scaling.row_sums import sum_and_map_rows
from jaxclf.scaling.sharing import placed
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers import preconditioner as pre
from jaxclf.solvers.conjugate_gradients import ON_HOST, Solved, conjugate_gradients
from jaxclf.solvers.line_search import line_search
from jaxclf.solvers.linear_problem import Affine, Rows
from jaxclf.solvers.problem import (
    Moved,
    Point,
    Problem,
    Readings,
    bound_by_strength,
    linear_problem,
)
from jaxclf.solvers.sampling import Drawn, draw, gather
from jaxclf.solvers.separation import margins_of
from jaxclf.solvers.start import ignores_shifts

_FEWEST_PER_UNKNOWN = 2
"""Rows per feature and per logit, below which a sample says little."""
_TAKEN_AT_ONCE = 4096
"""Rows of a sample that are read at once."""
_ARRAYS_OF_LOGITS = 6
"""That a problem of drawn rows may hold at once."""


class Evaluated(NamedTuple):
    """What a pass over the rows finds at a point."""

    scale: jax.Array | None
    """``(K,)``, ``Σ ωᵢ ℓ″ᵢ[k, k]``; ``None`` where it would cost much and was not asked for."""
    curvatures: np.ndarray | None
    """``(n,)``, the mean of each row's ``ℓ″ᵢ[k, k]``, then too."""


class _Model(NamedTuple):
    """The curvature: that of drawn rows as a problem of their own, or of all rows."""

    problem: Problem | None
    curvature: Any
    """The problem's model, or the metric for all rows."""


def streamed_problem(
    loss: Callable, source: Chunked, l2: Any, rng: np.random.Generator, *, dtype, most_rows: int
) -> Problem:
    """``Σ ωᵢ ℓ(W xᵢ + b, yᵢ) + l2/2 ‖W‖²`` with 64-bit mode on for its scalars.

    Args:
      loss: ``(logits (K,), label) -> ()``, convex, twice differentiable.
      source: of :class:`Rows`, with float64 weights that sum to one.
      l2: λ, of all weights or ``(1, d)``.
      rng: for the samples.
      dtype: to compute in.
      most_rows: of a sample; with more, or where a sample cannot be had, all rows are read for
        every product.
    """
    run, rows = streamed_programs(loss, like=source.rows), source.rows
    n, d = rows.features.shape
    taken = _make_take(rows, most_rows, dtype)

    def take(drawn: Drawn) -> Rows:
        sample = taken(drawn)
        on_host = not isinstance(rows.features, jax.Array)
        return source.adapted(sample) if on_host and source.adapted is not None else sample

    def evaluated(v: Affine, curved: bool = False) -> Point:
        curved = curved or lp.curvature_is_cheap(loss, len(v.weights))
        sums, curvatures = sum_chunks(partial(run.evaluate, curved=curved), source, v)
        risk, g, scale = sums
        found = run.penalised(risk, g, v, l2)
        return Point(v, *found, evaluated=Evaluated(scale, curvatures))

    def sampled(point: Point, sample: Rows) -> Point:
        return point._replace(logits=run.logits(sample.features, point.params))

    def model(point: Point, size: int, old: _Model | None, closer: bool) -> tuple[_Model, float]:
        read = 0.0
        if point.evaluated.scale is None:
            point, read = evaluated(point.params, curved=True), 1.0
        if size < n:
            weights = np.asarray(rows.weights)
            drawn = draw(weights, weights * point.evaluated.curvatures, size, rng)
            sample = take(drawn)
            problem = linear_problem(loss, sample, l2, rng)
            before = None if old is None or old.problem is None else old.curvature
            curvature, share = problem.model(sampled(point, sample), size, before, closer)
            return _Model(problem, curvature), read + (1 + share) * size / n
        v, scale = point.params, point.evaluated.scale
        chosen = "columns" if pre.kind(n, n, d, len(scale)) == "columns" else "diagonal"
        moments = partial(run.second_moments, chosen=chosen)
        matrix, _ = sum_chunks(moments, source, v)
        ignored = ignores_shifts(loss, v, rows.labels)
        metric = run.of_moments(matrix, scale, np.asarray(l2, dtype), ignored, num_features=d)
        return _Model(None, metric), read + 1

    def direction(model: _Model, point: Point, g, accuracy, curved) -> Solved:
        if model.problem is not None:
            at = sampled(point, model.curvature.rows)
            return model.problem.direction(model.curvature, at, g, accuracy, curved)

        def product(d: Affine) -> Affine:
            summed, _ = sum_chunks(run.product, source, point.params, d)
            return run.ridged(summed, d, l2)

        b, precondition = jax.tree.map(jnp.negative, g), Partial(pre.apply, model.curvature)
        return conjugate_gradients(product, precondition, b, accuracy, curved, ON_HOST)

    def move(point: Point, d: Affine, slope, flatness, first) -> Moved:
        tried = {}

        def at(t):
            there = evaluated(lp.add_scaled(point.params, t, d))
            rise = run.dot(there.gradient, d)
            tried[float(t)] = there, float(rise)
            return there.value, rise

        noise = float(jnp.finfo(dtype).eps) * abs(float(point.value))
        found = line_search(
            at,
            point.value,
            slope,
            first,
            noise=noise,
            flatness=flatness,
            while_loop=python_while_loop,
        )
        length = float(found.length)
        if length == 0:
            return Moved(point, length, found.trials, 1.0)
        new, rise = tried[length]
        return Moved(new, length, found.trials, (rise - slope) / (length * abs(slope)))

    return Problem(
        start=evaluated,
        model=model,
        direction=direction,
        precondition=_in_metric,
        move=move,
        num_rows=n,
        most_rows=most_rows,
        readings=Readings(start=1.0, ray=0.0, trial=1.0, product=1.0),
        noise=float(jnp.finfo(dtype).eps),
    )


def _in_metric(model: _Model, g):
    return pre.apply(model.curvature, g)


def most_rows(source: Chunked, num_logits: int, memory: float) -> int:
    """Rows of a sample that takes so many bytes at most; 0 where so few say nothing, and where rows
    would have to travel between devices."""
    rows, d = source.rows, source.rows.features.shape[1]
    row_bytes = rows.features.dtype.itemsize * d + 4 * _ARRAYS_OF_LOGITS * num_logits
    most = min(len(rows.features), int(memory // row_bytes))
    enough = most >= _FEWEST_PER_UNKNOWN * max(d, num_logits)
    return most if enough and source.mesh is None else 0


def _make_take(rows: Rows, most_rows: int, dtype) -> Callable:
    """``drawn -> rows`` on the device, which are overwritten by the next ones."""
    if isinstance(rows.features, jax.Array):
        return lambda drawn: gather(rows, drawn._replace(weights=drawn.weights.astype(dtype)), None)
    rooms = []  # for the largest sample, once there is one

    def take(drawn: Drawn) -> Rows:
        places = np.asarray(drawn.places)
        room = rooms[0] if rooms else room_for(most_rows, rows.features)
        rooms[:] = [room]
        for first in range(0, len(places), _TAKEN_AT_ONCE):
            some, which = np.unique(places[first : first + _TAKEN_AT_ONCE], return_inverse=True)
            room[first : first + len(which)] = rows.features[some][which]
        features, labels = (placed(x, None) for x in (room[: len(places)], rows.labels[places]))
        return Rows(features, labels, drawn.weights.astype(dtype))

    return take


class StreamedPrograms(NamedTuple):
    """The compiled pieces for one loss; they compute in the dtype of the parameters."""

    evaluate: Callable
    risk: Callable
    penalised: Callable
    second_moments: Callable
    product: Callable
    margins: Callable
    logits: Callable
    dot: Callable
    ridged: Callable
    of_moments: Callable
    sensitivity: Callable


def over_blocks(function: Callable, rows: Rows, v: Affine) -> tuple[Any, Any]:
    """``function(logits, rows) -> (sums, each)`` over blocks of rows, in the dtype of v."""
    dtype, multiply = v.weights.dtype, lp.multiplier(v)

    def block(x, labels, weights):
        x = x.astype(dtype)
        return function(multiply(x), Rows(x, labels, weights.astype(dtype)))

    return sum_and_map_rows(block, *rows, held=len(v.weights))


@programs_by_shape
def streamed_programs(loss: Callable) -> StreamedPrograms:
    def curvatures(z, labels):
        diagonal = lp.curvature_diagonal(lp.curvature(loss, z, labels), z.shape[1], z.dtype)
        return jnp.maximum(diagonal, 0)

    @partial(jax.jit, static_argnames="curved")
    def evaluate(rows, v, *, curved):
        """``(Σ ωᵢ ℓᵢ, its gradient, Σ ωᵢ ℓ″ᵢ[k, k])``, and each row's mean ``ℓ″ᵢ[k, k]``; both of
        the curvature only if asked for."""

        def block(z, rows):
            risk = jnp.sum((rows.weights * lp.losses(loss, z, rows.labels)).astype(jnp.float64))
            residuals = lp.slopes(loss, z, rows)
            offset = None if v.intercept is None else jnp.sum(residuals, 0)
            gradient = Affine(residuals.T @ rows.features, offset)
            if not curved:
                return (risk, gradient, None), None
            each = curvatures(z, rows.labels)
            return (risk, gradient, rows.weights @ each), jnp.mean(each, 1)

        return over_blocks(block, rows, v)

    @jax.jit
    def risk(rows, v):
        def block(z, rows):
            losses = rows.weights * lp.losses(loss, z, rows.labels)
            return jnp.sum(losses.astype(jnp.float64)), None

        return over_blocks(block, rows, v)

    @jax.jit
    def penalised(risk, g, v, l2):
        """The value, its gradient with its largest entry, and a bound on the gap."""
        g = g._replace(weights=lp.add_scaled(g.weights, l2, v.weights))
        value = risk + 0.5 * jnp.sum(l2 * v.weights.astype(jnp.float64) ** 2)
        return value, g, lp.largest(g), bound_by_strength(l2, g)

    @partial(jax.jit, static_argnames="chosen")
    def second_moments(rows, v, *, chosen):
        """Of the features, each row weighed by its curvature."""

        def mean(z, rows):
            return None, jnp.mean(curvatures(z, rows.labels), 1)

        weights = rows.weights.astype(v.weights.dtype) * over_blocks(mean, rows, v)[1]
        product = lp.gram if chosen == "columns" else lp.gram_diagonal
        return product(rows.features, weights, intercept=v.intercept is not None), None

    @jax.jit
    def product(rows, v, d):
        multiply = lp.multiplier(d)

        def block(z, rows):
            maps = lp.curvature(loss, z, rows.labels)
            s = lp.curvature_product(maps, multiply(rows.features)) * rows.weights[:, None]
            return Affine(s.T @ rows.features, None if d.intercept is None else jnp.sum(s, 0)), None

        return over_blocks(block, rows, v)

    @jax.jit
    def ridged(product, d, l2):
        return product._replace(weights=lp.add_scaled(product.weights, l2, d.weights))

    @jax.jit
    def margins(rows, v):
        return over_blocks(lambda z, rows: (None, margins_of(z, rows.labels)), rows, v)

    @jax.jit
    def sensitivity(rows, v):
        return lp.sensitivity(loss, rows, v), None

    return StreamedPrograms(
        evaluate, risk, penalised, second_moments, product, margins, jax.jit(lp.logits),
        jax.jit(lp.dot), ridged, jax.jit(pre.of_moments, static_argnames="num_features"),
        sensitivity,
    )  # fmt: skip
