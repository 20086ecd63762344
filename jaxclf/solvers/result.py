"""The iteration of a full-batch solver, and its result.

Every solver notes its points in an :class:`Iteration`, which decides whether to go on, and returns
the :class:`Outcome`. The certificate of the outcome gives the status of the :class:`SolverResult`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra.problem import Affine
from jaxclf.solvers.oracle import Point


class Step(NamedTuple):
    """One line of the trace."""

    value: float
    """The objective before the step."""
    gradient_norm: float
    """The largest absolute entry of the gradient before the step."""
    seconds: float
    """Seconds from the start until the step was known, compilation included. Steps of one compiled
    program are known together."""
    passes: float
    """Readings of the features so far; a product with some of the rows counts as its share."""


Watch = Callable[[Step, Point | None], str | None]
"""A function called at every point with its line of the trace. It may end the iteration by
returning a status. The point is ``None`` where a compiled program has already passed it."""


class Stop(NamedTuple):
    """The conditions that end an iteration; each solver says what its estimate of the gap is."""

    tol: float
    """The estimated gap at which the iteration has converged."""
    gradient_tol: float
    """The largest absolute entry of the gradient at which the iteration has converged."""
    max_steps: int
    """The most steps."""
    watch: Watch


class Outcome(NamedTuple):
    """The result of an iteration."""

    point: Point
    """The last finite point."""
    status: str
    """``converged`` by the solver's own estimate, ``precision_floor`` where no step helps,
    ``max_steps``, ``no_finite_minimiser`` or ``nonfinite``."""
    passes: float
    """Readings of the features."""
    trace: tuple[Step, ...]
    certificate: Any = None
    """The certificate of the point, from a solver that has made one on its way."""


def concatenated(first: Outcome, then: Outcome) -> Outcome:
    """Two runs as one; the second began where the first ended, and gives point and status."""
    seconds = first.trace[-1].seconds
    more = (
        step._replace(seconds=seconds + step.seconds, passes=first.passes + step.passes)
        for step in then.trace[1:]
    )
    return then._replace(passes=first.passes + then.passes, trace=(*first.trace, *more))


def over_columns(solve: Callable, start: Affine, columns: np.ndarray, stop: Stop) -> Outcome:
    """The outcome of a solve over some columns, with zeros in the others.

    It comes after a pass over all columns, of which its passes are counted as their share.

    Args:
      solve: the solver over these columns, ``(start, *, stop) -> Outcome``.
      start: the start on the host, with weights for all columns.
      columns: the columns, ``(m,)``; -1 is a column of zeros, which fills up.
      stop: the end.
    """
    share, real = len(columns) / start.weights.shape[1], columns >= 0

    def counted(step: Step) -> Step:
        return step._replace(passes=1 + share * step.passes)

    inside = np.where(real, start.weights[:, columns], 0).astype(start.weights.dtype)
    aim = stop._replace(watch=lambda step, at: stop.watch(counted(step), at))
    found = solve(start._replace(weights=inside), stop=aim)
    few = np.asarray(found.point.params.weights)
    weights = np.zeros(start.weights.shape, few.dtype)
    weights[:, columns[real]] = few[:, real]
    params = found.point.params._replace(weights=jnp.asarray(weights))
    return found._replace(
        point=found.point._replace(params=params),
        passes=1 + share * found.passes,
        trace=tuple(map(counted, found.trace)),
    )


class Iteration:
    """The trace of an iteration and its last finite point.

    The solver adds the readings of the features that it makes to ``passes``.
    """

    def __init__(self, start: Point, stop: Stop):
        self.began = time.perf_counter()
        self.good, self.stop = start, stop
        self.passes, self.trace = 0.0, []

    def arrive(self, point: Point, largest: float | None = None, *, reached: bool) -> str | None:
        """Notes a point; returns a status to end with, if the iteration ends there.

        Args:
          point: the point, with its gradient.
          largest: the largest entry of the gradient, where the point does not have it.
          reached: whether the point is as good as was asked, as far as the solver knows.
        """
        value = float(point.value)
        largest = float(point.largest) if largest is None else largest
        self._note(value, largest)
        if not (math.isfinite(value) and math.isfinite(largest)):
            return "nonfinite"
        self.good = point
        if status := self.stop.watch(self.trace[-1], point):
            return status
        if reached or largest <= self.stop.gradient_tol:
            return "converged"
        return "max_steps" if len(self.trace) > self.stop.max_steps else None

    def pass_by(self, value: float, largest: float) -> None:
        """Notes a point that was finite, and left behind before it could be seen."""
        self._note(value, largest)
        self.stop.watch(self.trace[-1], None)

    def _note(self, value: float, largest: float) -> None:
        seconds = time.perf_counter() - self.began
        self.trace.append(Step(value, largest, seconds, self.passes))

    def end(self, status: str) -> Outcome:
        """The outcome that the solver returns."""
        return Outcome(self.good, status, self.passes, tuple(self.trace))


class SolverResult(NamedTuple):
    """The point where a solver stopped, and how good the point is."""

    params: Any
    """The parameters, in the form of the start."""
    value: float
    """The objective at the parameters, for a linear model summed in float64."""
    gradient_norm: float
    """The largest absolute entry of the gradient at the parameters, before the intercept is rounded
    to float32; with L1, of the smallest subgradient."""
    gap_bound: float
    """A bound on ``value - min F``, rounding included. It is infinite where no bound is known, and
    ``reason`` then says why."""
    status: str
    """The status, which follows from the bound on the gap:

    - ``converged``: the bound is at most ``tol``;
    - ``stationary``: the bound is larger, but the solver has come as close as was asked by its own
      estimate, or no entry of the gradient is larger than ``gradient_tol``;
    - ``precision_floor``: the bound is larger because the point was rounded to the dtype of the
      parameters, or is no larger than roundoff explains;
    - ``stalled``: the bound is larger, and no step lowers the objective;
    - ``max_steps``: the bound is larger after so many steps;
    - ``no_finite_minimiser``: the infimum lies at infinity, in ``direction``;
    - ``nonfinite``: a value became NaN or infinite, and ``params`` are the last good ones."""
    solver: str
    """The solver that ran, and why it was chosen."""
    steps: int
    passes: float
    trace: tuple[Step, ...]
    direction: Any = None
    """Parameters that prove that there is no finite minimiser; ``None`` where there may be one, or
    where rounding to the dtype of ``params`` has cost the proof. Along them no row's own class ever
    loses its lead, and some row's own class gains. An entry that is zero in the direction does not
    move along it."""
    reason: str = ""
    """The reason why ``gap_bound`` is infinite, if it is and the status does not say so."""


def gradient_reached(certificate: Any, stop: Stop) -> bool:
    """Whether the gradient is as small as was asked, if that was asked."""
    return stop.gradient_tol > 0 and float(certificate.gradient_norm) <= stop.gradient_tol


def status_of(outcome: Outcome, certificate: Any, at_floor: bool, stop: Stop) -> str:
    """The status that a certificate allows.

    Args:
      outcome: the outcome of the solver.
      certificate: the certificate of the returned point, or ``None``.
      at_floor: whether rounding hides what is above the tolerance.
      stop: the tolerances that were asked for.
    """
    if outcome.status in ("nonfinite", "no_finite_minimiser"):
        return outcome.status
    if certificate is not None:
        if float(certificate.gap_bound) <= stop.tol:
            return "converged"
        if gradient_reached(certificate, stop):
            return "stationary"
        if at_floor:
            return "precision_floor"
    if outcome.status == "precision_floor":
        return "stalled"
    return "stationary" if outcome.status == "converged" else outcome.status
