"""Runs a solver until its point is certified to the tolerance or can be no better.

A solver stops by its own estimate of the gap. Where the certificate does not confirm it, the solver
goes on from its point with a tighter tolerance, in float64: its estimate may have been too good,
and float32 may hold no better point. The result is rounded to its dtype only at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.certificates.certificate import Certificate, as_float64, with_intercept
from jaxclf.linear_algebra.columns import (
    Columns,
    is_moved,
    params_in_units,
    params_out_of_units,
)
from jaxclf.linear_algebra.problem import Affine
from jaxclf.scaling.sharing import to_host
from jaxclf.solvers.result import Outcome, Stop, concatenated, gradient_reached

_ROUNDS = 4
_ROUNDOFFS = 8.0
"""A bound of so many roundoffs of the logits' terms is at the floor: a value has a few of them."""
_TIGHTER, _TIGHTEST = 1e-4, 1e-8
"""The tolerance of a round over the tolerance of the round before, at most and at least."""
_TRIVIAL = 0.99
"""A bound of more than this share of the value above the loss's least value comes from that."""
_MARGIN = 0.5
"""The share of the gradient at which the bound should meet the tolerance that a round stops at."""


class Solvable(NamedTuple):
    """A linear model in units in which its columns keep their digits."""

    solve: Callable
    """The solver ``(start, Stop) -> Outcome``, in the dtype of the start."""
    polish: Callable
    """The solver of later rounds, which start close to the minimum."""
    certify: Callable
    """``(point, *, narrow) -> (Certificate, passes)``; ``narrow`` rounds the intercept to
    float32."""
    locally: Callable
    """``Certificate -> (Certificate, passes)``, with the bound of a dearer method where that is
    smaller."""
    has_dearer: bool
    """Whether the dearer method may have a bound."""
    added: Callable
    """``(point, intercept) -> (float, float)``, the amount by which another intercept raises the
    risk, and the most by which rounding may have changed it."""
    sensitivity: Callable
    """``point -> float``, the effect of relative changes of the logits' terms on the risk."""
    convex: bool
    """Whether the loss is known to be convex."""
    ignores_shifts: bool
    """Whether the loss is known to stay the same when all logits of a row rise by the same."""
    lower_bound: float
    """A number that the loss is never below, which gives a bound by itself."""
    has_l1: bool
    """Whether the penalty has an L1 part. The bound then falls with the largest entry of the
    gradient."""
    gradient_norm: Callable
    """``point -> (float, passes)``, the largest entry of the gradient there in the user's units."""
    runs_away: Callable
    """``point -> bool``, whether the point proves that there is no finite minimiser, as it puts
    every row on the right side of every boundary."""
    columns: Columns | None


class Solved(NamedTuple):
    """The result of a linear model's solver, in the user's units."""

    outcome: Outcome
    certificate: Certificate | None
    """The certificate of the returned point; ``None`` if there is no finite point to certify."""
    at_floor: bool
    """Whether rounding hides what is above the tolerance: the point met the tolerance before it was
    rounded to its dtype, or the bound is no more than the roundoff of that dtype explains."""
    direction: Affine | None = None
    """Parameters that prove that there is no finite minimiser, if they do after rounding."""


def certified(problem: Solvable, start: Affine, stop: Stop, dtypes: Affine) -> Solved:
    """Solves a problem, and certifies the point as it is returned.

    Args:
      problem: the problem to solve.
      start: the start in the problem's units, in the dtype to begin in.
      stop: when to end.
      dtypes: the dtypes of the returned weights and of the returned intercept.
    """
    columns = problem.columns
    narrow = dtypes.intercept == np.float32 and not is_moved(columns)
    outcome, best = _rounds(problem, start, stop, dtypes, narrow)
    if best is None:
        found = params_out_of_units(
            columns, to_host(outcome.point.params), dtypes, centred=problem.ignores_shifts
        )
        point = outcome.point._replace(params=found)
        proven = outcome.status == "no_finite_minimiser"
        proven = proven and problem.runs_away(_in_units(problem, found))
        return Solved(outcome._replace(point=point), None, False, found if proven else None)
    returned, there, passes = _as_returned(problem, best, stop, dtypes, narrow)
    outcome = outcome._replace(passes=outcome.passes + passes)
    bound, reached = float(returned.gap_bound), gradient_reached(returned, stop)
    at_floor = bound > stop.tol >= float(best.gap_bound) and not _is_clipped(returned.affine)
    if bound > stop.tol and not at_floor and not reached and np.isfinite(bound):
        eps = max(float(jnp.finfo(x).eps) for x in jax.tree.leaves(dtypes))
        roundoff = eps * float(problem.sensitivity(there))
        at_floor = bound <= _ROUNDOFFS * roundoff
    return Solved(outcome, returned, at_floor)


def _rounds(
    problem: Solvable, start: Affine, stop: Stop, dtypes: Affine, narrow: bool
) -> tuple[Outcome, Certificate | None]:
    """The outcome of one or more runs of the solver, and the certificate with the smallest bound.

    The solver runs again as long as that brings the bound closer to the tolerance.
    """
    outcome, best, before, aim = None, None, np.inf, stop
    for i in range(_ROUNDS):
        aim = aim._replace(max_steps=stop.max_steps)
        latest = (problem.polish if i else problem.solve)(start, aim)
        outcome = latest if outcome is None else concatenated(outcome, latest)
        if latest.status == "no_finite_minimiser":
            if problem.runs_away(latest.point.params):
                return outcome, None
            latest, outcome = (x._replace(status="stalled") for x in (latest, outcome))
        if latest.status == "nonfinite":
            return outcome, best
        found, passes = latest.certificate, 0
        if found is None:
            found, passes = _certificate_of(problem, latest.point.params, stop, dtypes, narrow)
        found, more = _with_enough(problem, to_host(found), stop)
        outcome = outcome._replace(passes=outcome.passes + passes + more)
        bound = float(found.gap_bound)
        if best is None or bound <= float(best.gap_bound):
            best = found
        stop = stop._replace(max_steps=stop.max_steps + 1 - len(latest.trace))
        done = bound <= stop.tol or gradient_reached(found, stop)
        if done or latest.status == "max_steps" or not problem.convex or stop.max_steps < 1:
            break
        no_better = np.isinf(bound) if np.isinf(before) else bound > before / 2
        if no_better and (i > 0 or not problem.has_dearer):
            break
        start, before, aim = found.affine, bound, _tighter(aim, problem, found, stop)
    return outcome, best


def _certificate_of(
    problem: Solvable, point: Affine, stop: Stop, dtypes: Affine, narrow: bool
) -> tuple[Certificate, int]:
    """The certificate of a solver's point, and the passes that it took.

    A point that is certified to the tolerance as it is returned needs no second certificate.
    """
    is_returned, passes = point.weights.dtype == dtypes.weights, 0
    if not is_returned and problem.columns is None:
        returned = point._replace(weights=np.asarray(point.weights).astype(dtypes.weights))
        found, passes = problem.certify(returned, narrow=narrow)
        if float(found.gap_bound) <= stop.tol:
            return found, passes
    found, more = problem.certify(point, narrow=narrow and is_returned)
    return found, passes + more


def _tighter(aim: Stop, problem: Solvable, found: Certificate, stop: Stop) -> Stop:
    """The tolerances of the round after ``aim``, whose bound is larger than ``stop`` asks for.

    The bound falls with the square of the gradient, as the gap does. With L1 it falls with the
    gradient, and the solver's estimate of the gap falls with the square of the bound. A bound that
    comes from the loss's least value says nothing about the gradient.
    """
    bound = float(found.gap_bound)
    if bound > _TRIVIAL * (float(found.value) - problem.lower_bound):
        return aim._replace(tol=aim.tol * _TIGHTER, gradient_tol=stop.gradient_tol)
    if not np.isfinite(bound):
        return aim._replace(tol=aim.tol * _TIGHTER)
    share = stop.tol / bound
    tighter = np.clip(share**2, _TIGHTEST, _TIGHTER) if problem.has_l1 else _TIGHTER
    less = share if problem.has_l1 else share**0.5
    enough = _MARGIN * less * float(found.gradient_norm)
    return aim._replace(tol=aim.tol * tighter, gradient_tol=max(stop.gradient_tol, enough))


def _with_enough(problem: Solvable, found: Certificate, stop: Stop) -> tuple[Certificate, int]:
    """The certificate, with the dearer bound where it is needed, and the passes that it took.

    Where the gradient is as small as was asked, any finite bound is enough.
    """
    bound, reached = float(found.gap_bound), gradient_reached(found, stop)
    enough = bound <= stop.tol or (reached and np.isfinite(bound))
    return (found, 0) if enough or not problem.has_dearer else problem.locally(found)


def _as_returned(
    problem: Solvable, found: Certificate, stop: Stop, dtypes: Affine, narrow: bool
) -> tuple[Certificate, Affine, int]:
    """The certificate of the point in the user's units, rounded to the returned dtypes; that point
    in the problem's units; and the number of passes."""
    columns, passes = problem.columns, 0
    params = params_out_of_units(columns, found.affine, dtypes, centred=problem.ignores_shifts)
    there = _in_units(problem, params)
    as_narrow = not narrow or np.array_equal(there.intercept, found.affine.intercept)
    if not as_narrow or not np.array_equal(there.weights, found.affine.weights):
        point = found.affine._replace(weights=there.weights)
        rounded, passes = problem.certify(point, narrow=narrow)
        rounded = to_host(rounded)
        # The bound on the minimum from the point before rounding holds for this one too.
        higher = rounded.value - found.value
        through = found.gap_bound + higher + rounded.value_error + found.value_error
        bound = np.maximum(np.fmin(rounded.gap_bound, through), 0)
        found, more = _with_enough(problem, rounded._replace(gap_bound=bound), stop)
        passes += more
        params = params_out_of_units(columns, found.affine, dtypes, centred=problem.ignores_shifts)
        there = _in_units(problem, params)
    moved = not np.array_equal(there.intercept, found.affine.intercept)
    if params.intercept is not None and moved:
        added, error = problem.added(found.affine, there.intercept)
        found = found._replace(value_error=found.value_error + error)
        found = with_intercept(found, there.intercept, added)
    if columns is not None or (params.intercept is not None and moved):
        norm, more = problem.gradient_norm(there)
        found, passes = found._replace(gradient_norm=norm), passes + more
    return found._replace(affine=params), there, passes


def _is_clipped(params: Affine) -> bool:
    """Whether a number was beyond the range of its dtype: then other points are better."""
    return any((abs(x) == jnp.finfo(x.dtype).max).any() for x in jax.tree.leaves(params))


def _in_units(problem: Solvable, params: Affine) -> Affine:
    """Parameters in the problem's units, in float64, in which the weights are exact."""
    wide = jax.tree.map(as_float64, params)
    return params_in_units(problem.columns, wide, centred=problem.ignores_shifts)
