"""What a full-batch solver returns."""

from __future__ import annotations

from typing import Any, NamedTuple


class Step(NamedTuple):
    """One line of the trace."""

    value: float
    """The objective before the step."""
    gradient_norm: float
    """Largest absolute entry of its gradient there."""
    seconds: float
    """From the start until it was known, compilation included. Steps of one compiled program are
    known together."""
    passes: float
    """Readings of the features so far; a product with some of the rows counts as its share."""


class SolverResult(NamedTuple):
    """Where a solver stopped, and how good that is."""

    params: Any
    """Like the start that was given."""
    value: float
    """The objective there, summed in float64."""
    gradient_norm: float
    """Largest absolute entry of the gradient there."""
    gap_bound: float
    """An upper bound on ``value - min F`` of a convex loss; infinite where nothing is known."""
    status: str
    """``converged``, by the solver's estimate of the gap; ``precision_floor``: rounding hides what
    is left to gain; ``max_steps``; ``no_finite_minimiser``: the infimum lies at infinity, in
    ``direction``; ``nonfinite``: a value became NaN or infinite, and ``params`` are the last good
    ones."""
    solver: str
    """Which one ran, and why it was chosen."""
    steps: int
    passes: float
    trace: tuple[Step, ...]
    direction: Any = None
    """Where there is no finite minimiser: parameters that separate the classes, else ``None``."""
