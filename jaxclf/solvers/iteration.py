"""The part of a loop that all solvers share: it notes a point, and decides whether to go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxclf.solvers.oracle import Point
from jaxclf.solvers.result import Step

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
