"""What every solver's loop does at a point: note it, and see whether to go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxclf.solvers.oracle import Point
from jaxclf.solvers.result import Step

Watch = Callable[[Step, Point | None], str | None]
"""Called at every point with its line of the trace; may end the iteration by returning a status.
There is no point where a compiled program has passed it."""


class Stop(NamedTuple):
    """When an iteration ends; each solver says what its estimate of the gap is."""

    tol: float
    """The estimated gap at which it has converged."""
    gradient_tol: float
    """Largest absolute entry of the gradient at which it has."""
    max_steps: int
    """How many at most."""
    watch: Watch


class Outcome(NamedTuple):
    """Where an iteration stopped."""

    point: Point
    """The last one that was finite."""
    status: str
    passes: float
    trace: tuple[Step, ...]
    certificate: Any = None
    """Of that point, from a solver that has made it on its way."""


def concatenated(first: Outcome, then: Outcome) -> Outcome:
    """Two runs as one: the second began where the first ended, and says how it ended."""
    seconds = first.trace[-1].seconds
    more = (
        step._replace(seconds=seconds + step.seconds, passes=first.passes + step.passes)
        for step in then.trace[1:]
    )
    return then._replace(passes=first.passes + then.passes, trace=(*first.trace, *more))


class Iteration:
    """The trace of an iteration and its last finite point."""

    def __init__(self, start: Point, stop: Stop):
        self.began = time.perf_counter()
        self.good, self.stop = start, stop
        self.passes, self.trace = 0.0, []

    def arrive(self, point: Point, largest: float | None = None, *, reached: bool) -> str | None:
        """Notes a point; returns a status to end with, if the iteration ends there.

        Args:
          point: with its gradient.
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
        """What the solver returns."""
        return Outcome(self.good, status, self.passes, tuple(self.trace))
