"""Proximal Newton with working sets, for L1, elastic net and bounds on the weights.

A step minimises the quadratic of the smooth part plus the penalty itself over a working set. For
each logit the set has the weights that are neither zero nor at a bound, and those of the others
whose slope moves them, the steepest first. The Hessian over the set is a small dense matrix, formed
from sampled rows where there are many rows. Coordinate descent on it reads no features. A search
then goes along the direction to that minimum, and the logits of the direction are computed once.

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

from jaxclf.certificates.duality import gap_but_for_rounding
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.coordinate_descent import Minimum, Quadratic, minimum
from jaxclf.linear_algebra.problem import Affine
from jaxclf.penalties import not_smooth
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.sharing import most_in_columns, to_host
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.solvers.newton_cg import FALL, STALE, TOO_SMALL
from jaxclf.solvers.oracle import Point
from jaxclf.solvers.result import Iteration, Outcome, Stop
from jaxclf.solvers.steps import SHORTEST, point_at, step_along
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
_QUICK = 0.1
"""The Hessian of a large problem is kept for the next step after the first step, and after one that
promised at most this share of what the step before it had promised."""
_MARGIN = 0.5
"""The share of the tolerance to which the bound on the gap is brought."""


class Slope(NamedTuple):
    """The slopes at a point, and what a working set has to hold."""

    smooth: Affine
    """The gradient of all but the L1 penalty."""
    steepness: Any
    """The absolute value of the smallest subgradient, ``(K, d)``."""
    largest: Any
    used: Any
    """Whether each weight is neither zero nor at a bound, ``(K, d)``."""
    most_used: Any
    """The number of weights that are used, of the logit that has most."""
    most_wanted: Any
    """The number of weights that are used or whose slope moves them, of the logit with most."""
    gap: Any
    """The bound on the gap by duality, but for rounding and for the slope in the intercept."""


class Pieces(NamedTuple):
    """The parts of a step that read rows."""

    start: Callable
    """``v -> Point``."""
    slope: Callable
    """``Point -> Slope``."""
    model: Callable
    """``(sample, Point, Slope, size) -> (Quadratic, chosen)``: the model over a working set of so
    many weights of each logit, from the oracle of a sample or of all rows, and that set."""
    move: Callable
    """``(Point, chosen, Minimum) -> (Point, length, curvature)``: the step to the minimum of a
    model, as :func:`~jaxclf.solvers.steps.step_along` makes it."""
    renewed: Callable = lambda *_: None
    """``(Quadratic, chosen, Point, Slope) -> Quadratic or None``: the model at another point with
    the Hessian that it had, if its set has all weights that are used or want to move."""


class Programs(NamedTuple):
    """The compiled pieces for one loss."""

    start: Callable
    slope: Callable
    working_set: Callable
    quadratic: Callable
    renewed: Callable
    move: Callable


@programs_by_shape
def programs(loss: Callable) -> Programs:
    @jax.jit
    def slope(rows, point, l1, l2, lower_bound) -> Slope:
        v, z = point.params, point.kept
        w, intercept = v.weights, v.intercept is not None
        values, slopes = lp.losses_and_slopes(loss, z, rows.labels)
        risk = jnp.sum((rows.weights * values).astype(jnp.float64))
        residuals = slopes * rows.weights[:, None]
        bare = lp.transpose_product(rows.features, residuals, intercept=intercept)
        g = lp.with_ridge(bare, l2, v)
        gap = gap_but_for_rounding(w, bare.weights, risk, l1, l2, lower_bound)
        l1 = jax.tree.map(lambda x: jnp.asarray(x, w.dtype), l1)
        steepness = jnp.abs(lp.smallest_subgradient(w, g.weights, l1))
        largest = jnp.max(steepness)
        if intercept:
            largest = jnp.maximum(largest, jnp.max(jnp.abs(g.intercept)))
        used = (w != 0) & jnp.equal(*not_smooth(l1).subgradients(w))
        counts = (jnp.max(jnp.sum(x, 1)) for x in (used, used | (steepness > 0)))
        return Slope(g, steepness, largest, used, *counts, gap)

    @partial(jax.jit, static_argnames="size")
    def working_set(slope: Slope, *, size: int) -> jax.Array:
        """The ``size`` columns of each logit."""
        # Weights that are used come first where there is room for them, then the steepest.
        ahead = jnp.where(slope.most_used < size, 1 + jnp.max(slope.steepness), 0)
        order = jnp.where(slope.used, ahead, 0) + slope.steepness
        return jax.lax.top_k(order, size)[1]

    @partial(jax.jit, static_argnames="most")
    def quadratic(
        rows, places, columns, z, v: Affine, slope: Slope, l1, l2, *, most: int
    ) -> Quadratic:
        """The model over a working set, in whose columns sparse features store at most ``most``
        numbers."""
        z = z if places is None else z[places]
        num_logits, dtype = len(v.weights), v.weights.dtype
        over_set = partial(_over_set, columns)

        def of_penalty(x, of_intercept: float) -> jax.Array:
            x = jnp.broadcast_to(jnp.asarray(x, dtype), v.weights.shape)
            intercept = None if v.intercept is None else jnp.full(num_logits, of_intercept, dtype)
            return over_set(Affine(x, intercept))

        w, g = map(over_set, (v, slope.smooth))
        parts = (*not_smooth(l1), l2), (0.0, -jnp.inf, jnp.inf, 0.0)
        penalty, lower, upper, ridge = map(of_penalty, *parts)
        if rows.features.size * num_logits > SMALL:
            z, rows = z.astype(_MODEL), rows._replace(weights=rows.weights.astype(_MODEL))
        options = {"intercept": v.intercept is not None, "most": most}
        hessian = lp.dense_hessian(loss, rows, z, columns, **options)
        hessian = hessian.astype(dtype) + jnp.diag(ridge)
        return Quadratic(hessian, w, g, penalty, ridge, lower, upper)

    @jax.jit
    def renewed(model: Quadratic, columns, v: Affine, slope: Slope) -> tuple[Quadratic, jax.Array]:
        w, g = (_over_set(columns, x) for x in (v, slope.smooth))
        wanted = slope.used | (slope.steepness > 0)
        inside = jnp.take_along_axis(wanted, columns, 1)
        return model._replace(w=w, g=g), jnp.sum(wanted) == jnp.sum(inside)

    @jax.jit
    def move(rows, point, columns, solved: Minimum, l1, l2):
        v = point.params
        change = lp.unstacked(solved.change.reshape(len(columns), -1), v)
        at_columns = jnp.arange(len(columns))[:, None], columns
        d = change._replace(weights=jnp.zeros_like(v.weights).at[at_columns].set(change.weights))
        return step_along(loss, rows, point, d, solved.predicted_decrease, l1, l2)

    return Programs(jax.jit(partial(point_at, loss)), slope, working_set, quadratic, renewed, move)


def _over_set(columns, x: Affine) -> jax.Array:
    """The numbers of a working set and of the intercept, logit by logit."""
    chosen = x._replace(weights=jnp.take_along_axis(x.weights, columns, 1))
    return lp.stacked(chosen).ravel()


def on_device(oracle: LinearOracle, l1: Any, lower_bound: float) -> Pieces:
    """The pieces for rows on the device, each a compiled program or two."""
    rows, l2, run = oracle.rows, oracle.l2, programs(oracle.loss, like=oracle.rows)
    features: Any = rows.features
    lengths = most_in_columns(features) if is_sparse(features) else None

    def model(sample: LinearOracle, point: Point, slope: Slope, size: int):
        columns = run.working_set(slope, size=size)
        at = columns, point.kept, point.params, slope, l1, l2
        most = 0 if lengths is None else _room(int(lengths[np.asarray(columns)].sum()))
        return run.quadratic(sample.rows, sample.places, *at, most=most), columns

    def renewed(model: Quadratic, columns, point: Point, slope: Slope) -> Quadratic | None:
        found, whole = run.renewed(model, columns, point.params, slope)
        return found if whole else None

    return Pieces(
        lambda v: run.start(rows, v, l1, l2),
        lambda point: run.slope(rows, point, l1, l2, lower_bound),
        model,
        lambda point, columns, solved: run.move(rows, point, columns, solved, l1, l2),
        renewed,
    )


def proximal_newton(
    oracle: LinearOracle,
    start: Affine,
    l1: Any,
    *,
    stop: Stop,
    first_size: int,
    rng: np.random.Generator,
    lower_bound: float = -np.inf,
    pieces: Callable | None = None,
) -> Outcome:
    """Minimises the objective of a linear model plus ``l1 ‖W‖₁``, with 64-bit mode on; also within
    bounds on the weights.

    Args:
      oracle: the oracle of rows in memory; its loss must be convex and twice differentiable.
      start: parameters in the dtype to compute in, within the bounds if there are any.
      l1: λ₁, one for all weights, ``(1, d)`` or ``(K, d)``, or
        :class:`~jaxclf.bounded_l1.BoundedL1`.
      stop: the end. The bound on the gap by duality is then at most half of ``tol``, but for
        rounding. Where duality gives no bound, the last step promises to gain at most ``tol``, with
        every weight that wants to move in the working set. The gradient is the smallest
        subgradient.
      first_size: rows in the first sample.
      rng: the generator for the samples.
      lower_bound: a number that the loss is never below. A model that promises more than there is
        above it has no curvature somewhere, as of a piecewise loss, and is damped.
      pieces: the maker of the parts of a step that read rows, ``(oracle, l1, lower_bound) ->
        Pieces``; by default they are compiled programs.
    """
    run = (pieces or on_device)(oracle, l1, lower_bound)
    n, d = oracle.rows.features.shape
    num_logits = len(start.weights)
    noise = float(jnp.finfo(start.weights.dtype).eps)
    size, fresh, sample = min(first_size, n), True, oracle
    point = run.start(start)
    iteration, tol = Iteration(point, stop), stop.tol
    iteration.passes += 0.5
    made_at, promised_enough, steepest = np.inf, False, np.inf
    quadratic, chosen, quick, before = None, None, False, np.inf
    large = oracle.rows.features.size * num_logits > SMALL

    while True:
        slope = run.slope(point)
        iteration.passes += 0.5
        largest, gap = float(slope.largest), float(slope.gap)
        reached = gap <= _MARGIN * tol if np.isfinite(gap) else promised_enough
        if status := iteration.arrive(point, largest, reached=reached):
            return iteration.end(status)
        # Slopes tell of progress when values no longer do.
        falling, steepest = largest < steepest / 2, min(largest, steepest)

        if fresh and size < n:
            sample = oracle.sampled(point, size, sample, rng)
        elif size == n:
            sample = oracle
        places = _places(int(slope.most_used), int(slope.most_wanted), d, num_logits)
        keeps = large and quick and not fresh
        kept = run.renewed(quadratic, chosen, point, slope) if keeps else None
        if kept is None:
            quadratic, chosen = run.model(sample, point, slope, places)
            iteration.passes += size / n
        else:
            quadratic = kept
        solved = minimum(quadratic)
        predicted_decrease, value = float(solved.predicted_decrease), float(point.value)
        most = value - lower_bound
        if not predicted_decrease <= most:  # there is no curvature where there is a slope
            solved = minimum(_damped(quadratic, slope, most))
            predicted_decrease = float(solved.predicted_decrease)
        if not np.isfinite(predicted_decrease):
            return iteration.end("nonfinite")
        whole = kept is not None or places >= int(slope.most_wanted)
        if predicted_decrease <= noise * abs(value) and not falling:
            return iteration.end(
                "converged" if predicted_decrease <= tol and whole else "precision_floor"
            )
        new, length, curvature = run.move(point, chosen, solved)
        iteration.passes += 0.5
        if float(length) <= SHORTEST:
            return iteration.end("precision_floor")
        promised_enough = predicted_decrease <= tol and whole
        quick = predicted_decrease <= _QUICK * before
        before = predicted_decrease
        model_curvature = max(float(solved.curvature), np.finfo(np.float64).tiny)
        point, curvature_ratio = new, float(curvature) / model_curvature
        if fresh:
            made_at = predicted_decrease
        if size < n and fresh and curvature_ratio > TOO_SMALL:
            size = min(2 * size, n)
        else:
            stale = predicted_decrease < made_at / FALL or curvature_ratio > STALE
            fresh = stale and not quick


def _damped(quadratic: Quadratic, slope: Slope, most: float) -> Quadratic:
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
