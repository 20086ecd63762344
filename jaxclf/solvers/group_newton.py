"""Proximal Newton with working sets of groups, for penalties with norms of groups.

The model of a step has one curvature for all logits of a row, a bound on the largest eigenvalue of
``ℓ″``: for one logit that is ``ℓ″`` itself. The Hessian of the model is then one matrix over the
features of the working set, however many logits there are. Descent goes group by group on it and
reads no features. Where the objective has curved less than the model along the last step, the next
model is scaled down. Where the groups that are not zero have most to gain, a step is one of
truncated Newton over their weights, in which the objective is smooth. After such a step that had to
be shortened, as a group crossed zero, the next one takes the model.

Sources: Lee, Sun and Saunders, Proximal Newton-type methods, SIAM J. Optim. 24 (2014); Friedman,
Hastie and Tibshirani, Regularization paths for generalized linear models via coordinate descent,
J. Stat. Softw. 33 (2010), section 4; Yuan and Lin, J. R. Stat. Soc. B 68 (2006).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxclf import group_norms
from jaxclf.certificates.duality import gap_but_for_rounding
from jaxclf.group_norms import GroupNorms
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.conjugate_gradients import conjugate_gradients, no_pairs
from jaxclf.linear_algebra.group_descent import GroupModel, Groups, minimum
from jaxclf.linear_algebra.preconditioner import factored
from jaxclf.linear_algebra.problem import Affine
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.row_sums import sum_rows
from jaxclf.scaling.sharing import to_host
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.solvers.result import Iteration, Outcome, Stop
from jaxclf.solvers.steps import SHORTEST, point_at, step_along

_ROOM = 2.0
"""Features in a working set for each feature of a group that is not zero."""
_FEWEST = 32
MARGIN = 0.5
"""The share of the tolerance to which the bound on the gap is brought."""
_ACCURACY = 0.03
"""The accuracy of a step of truncated Newton, in the norm of its preconditioner."""
_LEAST_SCALE = 0.05
"""The least scale of a model whose objective curves less than it."""


class _Slope(NamedTuple):
    smooth: Affine
    """The gradient of all but the norms."""
    largest: jax.Array
    """The largest entry of the smallest subgradient."""
    used: jax.Array
    """Whether the weights of a group are not all zero, ``(G,)``."""
    steepness: jax.Array
    """The norm of the smallest subgradient of each group over its weight, ``(G,)``."""
    gap: jax.Array
    """The bound on the gap by duality, but for rounding and for the slope in the intercept."""


class Programs(NamedTuple):
    """The compiled pieces for one loss."""

    start: Callable
    slope: Callable
    model: Callable
    newton: Callable
    spread: Callable
    move: Callable


@programs_by_shape
def programs(loss: Callable) -> Programs:
    @jax.jit
    def slope(rows, point, norms, l2, lower_bound) -> _Slope:
        v, z = point.params, point.kept
        values, slopes = lp.losses_and_slopes(loss, z, rows.labels)
        risk = jnp.sum((rows.weights * values).astype(jnp.float64))
        residuals, intercept = slopes * rows.weights[:, None], v.intercept is not None
        bare = lp.transpose_product(rows.features, residuals, intercept=intercept)
        gap = gap_but_for_rounding(v.weights, bare.weights, risk, norms, l2, lower_bound)
        g = lp.with_ridge(bare, l2, v)
        smallest = lp.smallest_subgradient(v.weights, g.weights, norms)
        steepness = group_norms.norms_of(norms, smallest) / jnp.asarray(
            norms.weights, smallest.dtype
        )
        used = group_norms.norms_of(norms, (v.weights != 0).astype(smallest.dtype)) > 0
        return _Slope(g, lp.largest(g._replace(weights=smallest)), used, steepness, gap)

    @jax.jit
    def model(rows, point, columns, slope: _Slope, l2) -> GroupModel:
        """The model over the columns, after the intercept and before rows of zeros."""
        v, z = point.params, point.kept
        intercept = v.intercept is not None
        curvatures = _largest_curvatures(loss, z, rows.labels)
        real = columns >= 0

        def block(x, weights):
            x = jnp.where(real[None], jnp.take(x, columns, axis=1), 0).astype(weights.dtype)
            x = jnp.pad(x, ((0, 0), (int(intercept), 0)), constant_values=1)
            return x.T @ (x * weights[:, None])

        hessian = sum_rows(block, rows.features, rows.weights * curvatures, held=len(columns))

        def over_set(x: Affine) -> jax.Array:
            chosen = jnp.where(real[None], jnp.take(x.weights, columns, axis=1), 0)
            return (jnp.c_[x.intercept, chosen] if intercept else chosen).T

        ridge = jnp.where(real, jnp.asarray(l2, z.dtype), 0)
        ridge = jnp.pad(ridge, (int(intercept), 0))
        return GroupModel(hessian + jnp.diag(ridge), over_set(v), over_set(slope.smooth))

    @jax.jit
    def newton(oracle: LinearOracle, point, slope: _Slope, norms):
        """The direction of truncated Newton over the weights that are not zero, its promise, and
        the number of products with the Hessian."""
        v, z, rows, l2 = point.params, point.kept, oracle.rows, oracle.l2
        intercept, w = v.intercept is not None, v.weights
        used, multiply = w != 0, oracle.product(point)

        def product(d: Affine) -> Affine:
            h = multiply(d)
            curved = h.weights + group_norms.curvature_product(norms, w, d.weights)
            return h._replace(weights=jnp.where(used, curved, 0))

        # The metric has the mean curvature of the logits, and the strength over the norm.
        mean = jnp.mean(lp.curvatures(loss, z, rows.labels), 1)
        found = group_norms.norms_of(norms, w)
        pull = norms.strengths(w.dtype) / jnp.where(found > 0, found, 1)
        ridge = jnp.asarray(l2, w.dtype) + group_norms.by_feature(norms, pull, w)[0]
        inside, ridge = (jnp.pad(x, (0, int(intercept))) for x in (used.any(0), ridge))
        inside = inside | (jnp.arange(len(inside)) >= w.shape[1])
        moments = lp.gram(rows.features, rows.weights * mean, intercept=intercept)
        both = inside[:, None] & inside[None]
        solve = factored(jnp.where(both, moments, 0) + jnp.diag(jnp.where(inside, ridge, 1)))
        inverse = jax.vmap(solve)(jnp.eye(len(inside), dtype=w.dtype))
        # The loss may ignore what all logits have in common. The norms alone count along that.
        ignored = lp.ignores_shifts(lp.curvature(loss, z, rows.labels), z)
        alone = jnp.where(ridge > 0, 1 / jnp.where(ridge > 0, ridge, 1), 0)

        # Norms do not curve along the groups themselves, where the features alone count.
        unit = w / group_norms.by_feature(norms, jnp.where(found > 0, found, 1), w)
        d, numbers = w.shape[1], jnp.asarray(norms.numbers)
        overlap = jnp.where(both, moments, 0)[:d, :d] * (unit.T @ unit)
        radial = (
            jnp.zeros((len(found),) * 2, w.dtype).at[numbers[:, None], numbers[None]].add(overlap)
        )
        solve_radial = factored(
            radial + jnp.diag(jnp.where(found > 0, jnp.asarray(l2, w.dtype), 1))
        )

        def along(x):
            return jnp.zeros(len(found), x.dtype).at[numbers].add(jnp.sum(unit * x, 0))

        def across(x):
            return x - unit * along(x)[numbers][None]

        def metric(r: Affine) -> Affine:
            each = lp.stacked(r._replace(weights=across(r.weights)))
            common = jnp.where(ignored, jnp.mean(each, 0, keepdims=True), 0)
            solved = lp.unstacked((each - common) @ inverse + common * alone[None], r)
            lengths = solve_radial(along(r.weights))[numbers]
            weights = across(solved.weights) + unit * lengths[None]
            return solved._replace(weights=jnp.where(used, weights, 0))

        smallest = lp.smallest_subgradient(w, slope.smooth.weights, norms)
        g = slope.smooth._replace(weights=jnp.where(used, smallest, 0))
        b = jax.tree.map(jnp.negative, g)
        solved = conjugate_gradients(product, Partial(metric), b, _ACCURACY, no_pairs(b, 1))
        return solved.d, solved.predicted_decrease, solved.count

    @jax.jit
    def spread(columns, change, v: Affine) -> Affine:
        """A change of the working set ``(m, K)`` as a direction of all parameters."""
        change = change.T
        at_columns = change if v.intercept is None else change[:, 1:]
        places = jnp.where(columns >= 0, columns, v.weights.shape[1])
        weights = jnp.zeros_like(v.weights).at[:, places].set(at_columns, mode="drop")
        return Affine(weights, None if v.intercept is None else change[:, 0])

    start, move = (jax.jit(partial(f, loss)) for f in (point_at, step_along))
    return Programs(start, slope, model, newton, spread, move)


def _largest_curvatures(loss: Callable, z, labels) -> jax.Array:
    """A bound on the largest eigenvalue of each row's ``ℓ″``, by Gershgorin's discs: ``(n,)``."""
    if z.shape[1] == 1:
        return lp.curvatures(loss, z, labels)[:, 0]
    if lp.is_softmax(loss):
        return 2 * jnp.max(lp.curvatures(loss, z, labels), 1)
    return jnp.max(jnp.sum(jnp.abs(lp.logit_hessians(loss, z, labels)), 2), 1)


def group_newton(
    oracle: LinearOracle,
    start: Affine,
    norms: GroupNorms,
    *,
    stop: Stop,
    lower_bound: float = -np.inf,
) -> Outcome:
    """Minimises the objective of a linear model plus norms of groups, with 64-bit mode on.

    Args:
      oracle: the oracle of rows in memory; its loss must be convex and twice differentiable.
      start: parameters in the dtype to compute in.
      norms: the norms of the groups.
      stop: the end, as in :func:`~jaxclf.solvers.proximal_newton.proximal_newton`.
      lower_bound: a number that the loss is never below. A model that promises more than there is
        above it has no curvature somewhere, and is damped.
    """
    rows, l2, run = oracle.rows, oracle.l2, programs(oracle.loss, like=oracle.rows)
    noise = float(jnp.finfo(start.weights.dtype).eps)
    members = _members(norms)
    point = run.start(rows, start, norms, l2)
    iteration, tol = Iteration(point, stop), stop.tol
    iteration.passes += 0.5
    promised_enough, steepest, scale = False, np.inf, 1.0
    may_be_smooth = True

    while True:
        slope = run.slope(rows, point, norms, l2, lower_bound)
        iteration.passes += 0.5
        largest, gap = float(slope.largest), float(slope.gap)
        reached = gap <= MARGIN * tol if np.isfinite(gap) else promised_enough
        if status := iteration.arrive(point, largest, reached=reached):
            return iteration.end(status)
        falling, steepest = largest < steepest / 2, min(largest, steepest)
        if may_be_smooth and _is_smooth(slope):
            d, promised, count = run.newton(oracle, point, slope, norms)
            new, length, _ = run.move(rows, point, d, promised, norms, l2)
            iteration.passes += float(count) + 1
            may_be_smooth = float(length) == 1
            gains = falling or float(promised) > noise * abs(float(point.value))
            if gains and float(length) > SHORTEST:
                point = new
                continue
        columns, groups, whole = _working_set(members, norms, slope, start)
        model = to_host(run.model(rows, point, columns, slope, l2))
        iteration.passes += 1
        value = float(point.value)
        solved = minimum(model._replace(hessian=scale * model.hessian), groups)
        if not float(solved.predicted_decrease) <= value - lower_bound:
            most = max(value - lower_bound, float(np.finfo(np.float32).tiny))
            damping = np.sum(np.asarray(model.g, np.float64) ** 2) / most
            damped = model.hessian + np.eye(len(model.g), dtype=model.g.dtype) * damping
            solved = minimum(model._replace(hessian=damped.astype(model.g.dtype)), groups)
        promised = float(solved.predicted_decrease)
        if not np.isfinite(promised):
            return iteration.end("nonfinite")
        if promised <= noise * abs(value) and not falling:
            return iteration.end("converged" if promised <= tol and whole else "precision_floor")
        d = run.spread(columns, solved.change, point.params)
        new, length, curvature = run.move(rows, point, d, promised, norms, l2)
        iteration.passes += 0.5
        if float(length) <= SHORTEST:
            return iteration.end("precision_floor")
        promised_enough, point, may_be_smooth = promised <= tol and whole, new, True
        if float(solved.curvature) > 0:
            ratio = scale * float(curvature) / float(solved.curvature)
            scale = float(np.clip(ratio, _LEAST_SCALE, 1.0))


def _is_smooth(slope: _Slope) -> bool:
    """Whether there is most to gain in the groups that are not zero, where the norms are smooth."""
    used, steepness = np.asarray(slope.used), np.asarray(slope.steepness)
    others = steepness.max(initial=0, where=~used)
    return bool(used.any()) and steepness.max(initial=0, where=used) >= others


def _members(norms: GroupNorms) -> tuple[np.ndarray, np.ndarray]:
    """The columns in the order of their groups, and the place where each group ends."""
    numbers = np.asarray(norms.numbers)
    return np.argsort(numbers, kind="stable"), np.cumsum(
        np.bincount(numbers, minlength=len(norms.weights))
    )


def _working_set(members, norms: GroupNorms, slope: _Slope, like: Affine):
    """The columns of a working set, its groups, and whether every group that wants to move is in
    it. Columns of -1 fill up, so that few sizes are compiled."""
    order, ends = members
    sizes = np.diff(ends, prepend=0)
    used, steepness = np.asarray(slope.used), np.asarray(slope.steepness)
    wanted = used | (steepness > 0)
    most = max(_FEWEST, int(_ROOM * sizes[used].sum()))
    ranked = np.lexsort((-steepness, ~used))[: wanted.sum()]
    fitting = np.searchsorted(np.cumsum(sizes[ranked]), most, side="right")
    chosen = ranked[: max(used.sum() + 1, fitting)]  # one more, however large
    chosen = np.union1d(chosen, np.flatnonzero(used)).astype(int)
    longest, count = int(sizes.max()), int(sizes[chosen].sum())
    room = _FEWEST
    while room < count:
        room *= 2
    room = min(room, len(order)) + longest
    columns = np.full(room, -1, np.int32)
    columns[:count] = np.concatenate([order[ends[g] - sizes[g] : ends[g]] for g in chosen] or [[]])
    first = int(like.intercept is not None)
    starts = first + np.cumsum(sizes[chosen]) - sizes[chosen]
    strengths = float(norms.strength) * np.asarray(norms.weights)[chosen]
    l1 = np.full(len(chosen), float(norms.l1))
    filled = max(1, 1 << (len(chosen) + first - 1).bit_length()) if len(chosen) + first else 1
    parts = (
        np.r_[np.zeros(first, int), starts],
        np.r_[np.ones(first, int), sizes[chosen]],
        np.r_[np.zeros(first), strengths],
        np.r_[np.zeros(first), l1],
    )
    dtype = like.weights.dtype
    types = (np.int32, np.int32, dtype, dtype)
    starts, lengths, strengths, l1 = (
        np.pad(x, (0, filled - len(x))).astype(t) for x, t in zip(parts, types, strict=True)
    )
    groups = Groups(starts, lengths, strengths, l1, np.int32(len(chosen) + first), longest)
    return columns, groups, len(chosen) >= wanted.sum()
