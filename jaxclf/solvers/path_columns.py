"""The columns that the solutions of a path with L1 use, kept from one penalty to the next.

The next penalty is solved over the columns that are kept, whose copy takes at most half of the
memory of the features. Then one pass over all columns bounds the gap of the whole problem. Where
other columns want to move, the columns are chosen anew, and the solve goes on.

Source: Massias, Gramfort and Salmon, Celer, ICML (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.bounded_l1 import BoundedL1
from jaxclf.linear_algebra.problem import Affine
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.sharing import to_host
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.solvers.proximal_newton import Slope, programs
from jaxclf.solvers.result import Outcome, Stop, concatenated, over_columns

_FEWEST = 64
"""The fewest columns that are kept. Their number doubles, so that few programs are compiled."""
_ROOM = 1.5
"""Columns that are kept for each that is used or wants to move."""
_MOST = 0.5
"""The solve takes all columns where it would keep more than this share of them."""


class Kept(NamedTuple):
    """Some columns of the features."""

    columns: np.ndarray
    features: jax.Array
    """The features in these columns, ``(n, m)``."""


def solve_over_kept(
    solve: Callable,
    oracle: LinearOracle,
    start: Affine,
    l1: BoundedL1,
    *,
    stop: Stop,
    lower_bound: float,
    kept: Kept | None,
) -> tuple[Outcome, Kept | None]:
    """The outcome of a solver for L1, and the columns that it is to be called with for the next
    penalty.

    Args:
      solve: the solver, ``(oracle, start, *, l1, stop) -> Outcome``.
      oracle: the oracle of dense rows in memory.
      start: a point that is close to the minimum.
      l1: the part of the penalty that is not smooth.
      stop: the end.
      lower_bound: a number that the loss is never below.
      kept: the columns of the penalty before.
    """
    rows, l2 = oracle.rows, oracle.l2
    run = programs(oracle.loss, like=rows)
    v, outcome = to_host(start), None
    if kept is None or not np.isin(np.flatnonzero(v.weights.any(0)), kept.columns).all():
        point = run.start(rows, v, l1, l2)
        kept = _chosen(oracle, v, run.slope(rows, point, l1, l2, lower_bound), l1)
    while kept is not None:
        columns = kept.columns
        part = replace(oracle, rows=rows._replace(features=kept.features), l2=_taken(l2, columns))
        few = BoundedL1(*(_taken(x, columns) for x in l1))
        found = over_columns(partial(solve, part, l1=few), v, columns, stop)
        outcome = found if outcome is None else concatenated(outcome, found)
        point = found.point
        if found.status not in ("converged", "precision_floor"):
            return outcome, kept
        slope = run.slope(rows, point, l1, l2, lower_bound)
        others = np.asarray(slope.steepness).max(0) > 0
        others[columns] = False
        stop = stop._replace(max_steps=stop.max_steps + 1 - len(found.trace))
        reached = float(slope.gap) <= stop.tol or float(slope.largest) <= stop.gradient_tol
        if reached or not others.any() or stop.max_steps < 1:
            return outcome, kept
        v = to_host(point.params)
        kept = _chosen(oracle, v, slope, l1)
    whole = solve(oracle, v, l1=l1, stop=stop)
    return whole if outcome is None else concatenated(outcome, whole), None


def _chosen(oracle: LinearOracle, v: Affine, slope: Slope, l1: BoundedL1) -> Kept | None:
    """The columns that are not zero or want to move, and those that are next to move; ``None``
    where they are too many."""
    g = np.asarray(slope.smooth.weights)
    needed, d = (v.weights != 0) | (np.asarray(slope.steepness) > 0), g.shape[1]
    count = int(needed.any(0).sum())
    room = _FEWEST
    while room < _ROOM * count:
        room *= 2
    room = min(room, int(_MOST * d))
    if room < count:
        return None
    strengths = np.maximum(np.asarray(l1.l1, g.dtype), np.finfo(g.dtype).tiny)
    near = np.where(needed, np.inf, abs(g) / strengths).max(0)
    columns = np.sort(np.argpartition(-near, room - 1)[:room])
    return Kept(columns, _gathered(oracle.rows.features, columns))


def _taken(x: Any, columns: np.ndarray) -> Any:
    """The strengths of some columns, or their bounds."""
    return x[:, columns] if np.ndim(x) == 2 else x


@jit_by_shape
def _gathered(features, columns):
    return jnp.take(features, columns, axis=1)
