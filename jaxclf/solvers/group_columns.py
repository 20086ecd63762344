"""Working sets of groups: the columns of all other groups stay out of the products of a solve.

A solve over a set reads its columns alone. Then one pass over all columns bounds the gap of the
whole problem, and finds the groups that the next set has to hold.

Source: Massias, Gramfort and Salmon, Celer, ICML (2018).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from jaxclf.group_norms import GroupNorms
from jaxclf.linear_algebra.problem import Affine
from jaxclf.programs import jit_by_shape
from jaxclf.scaling import mesh
from jaxclf.scaling.sharing import to_host
from jaxclf.solvers.group_newton import MARGIN, group_newton, programs
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.solvers.result import Outcome, Stop, concatenated, over_columns

_FEWEST = 64
"""The columns of the smallest set. As few are solved all at once."""
_MOST = 0.75
"""A set of more than this share of the columns has all of them."""
_ROOM = 1.2
"""Columns in a set for each that is not zero or wants to move."""
_CLOSER = 0.1
"""The share of the gap to which a solve over a set brings it."""


def solve_groups(
    oracle: LinearOracle, start: Affine, norms: GroupNorms, *, stop: Stop, lower_bound: float
) -> Outcome:
    """:func:`~jaxclf.solvers.group_newton.group_newton`, one working set after another."""
    rows, l2, d = oracle.rows, oracle.l2, start.weights.shape[1]
    if d <= _FEWEST or mesh.in_use():
        return group_newton(oracle, start, norms, stop=stop, lower_bound=lower_bound)
    run = programs(oracle.loss, like=rows)
    point, outcome, steps = run.start(rows, start, norms, l2), None, stop.max_steps
    before, tol, moved = np.array([]), np.inf, True
    while True:
        slope = run.slope(rows, point, norms, l2, lower_bound)
        gap, largest = float(slope.gap), float(slope.largest)
        columns = _columns(norms, np.asarray(slope.smooth.weights), np.asarray(slope.used))
        if outcome is not None:
            reached = gap <= MARGIN * stop.tol or largest <= stop.gradient_tol
            more = tol > stop.tol or not np.isin(columns, before).all()
            left = steps + 1 - len(outcome.trace)
            if outcome.status == "converged" and not reached and left < 1:
                outcome = outcome._replace(status="max_steps")
            going = outcome.status in ("converged", "precision_floor") and more and moved
            if reached or not going:
                return outcome._replace(status="converged") if reached else outcome
            stop = stop._replace(max_steps=left)
        v, whole = to_host(point.params), len(columns) == d
        features = rows.features if whole else _gathered(rows.features, v.weights, columns)
        tol = max(_CLOSER * gap, stop.tol) if np.isfinite(gap) else stop.tol
        part = replace(oracle, rows=rows._replace(features=features))
        solve = partial(group_newton, part, norms=_few(norms, columns), lower_bound=lower_bound)
        found = over_columns(solve, v, columns, stop._replace(tol=tol))
        outcome = found if outcome is None else concatenated(outcome, found)
        point = found.point
        before, moved = columns, len(found.trace) > 1


def _columns(norms: GroupNorms, g: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The columns of a working set, group by group, or all; -1 fills up.

    The groups that are not zero come first, then those with the steepest slope. The set has one of
    few sizes, so that few programs are compiled.
    """
    numbers, d = np.asarray(norms.numbers), g.shape[1]
    soft = np.maximum(abs(g.astype(np.float64)) - float(norms.l1), 0)
    strengths = float(norms.strength) * np.asarray(norms.weights)
    steepness = np.sqrt(np.bincount(numbers, (soft**2).sum(0), len(strengths))) / strengths
    sizes, order = np.bincount(numbers, minlength=len(strengths)), np.lexsort((-steepness, ~used))
    in_use, first = sizes[used].sum(), sizes[order[: used.sum() + 1]].sum()
    wanted = min(sizes[used | (steepness > 1)].sum(), max(_FEWEST / _ROOM, 2 * in_use))
    room = _FEWEST
    while room < max(_ROOM * wanted, first):  # one more group, however large
        room *= 2
    if room > _MOST * d:
        return np.arange(d)
    chosen = order[: np.searchsorted(np.cumsum(sizes[order]), room, side="right")]
    place = np.full(len(sizes), len(sizes))
    place[chosen] = np.arange(len(chosen))
    by_group = np.argsort(place[numbers], kind="stable")[: sizes[chosen].sum()]
    return np.pad(by_group, (0, room - len(by_group)), constant_values=-1)


def _few(norms: GroupNorms, columns: np.ndarray) -> GroupNorms:
    """The norms of the groups of some columns; each column of -1 is a group of its own."""
    if len(columns) == len(norms.numbers):
        return norms
    numbers = np.where(
        columns >= 0, np.asarray(norms.numbers)[columns], -1 - np.arange(len(columns))
    )
    _, first, own = np.unique(numbers, return_index=True, return_inverse=True)
    weights = np.ones(len(columns))
    given = np.asarray(norms.weights)[np.maximum(numbers[first], 0)]
    weights[: len(first)] = np.where(numbers[first] >= 0, given, 1)
    return norms._replace(numbers=own.astype(np.int32), weights=weights)


@jit_by_shape
def _gathered(features, like, columns):
    taken = jnp.take(features, columns, axis=1, mode="clip").astype(like.dtype)
    return jnp.where((columns >= 0)[None], taken, 0)
