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
    """``value - min F`` is at most this, rounding included; infinite where no bound is known, and
    ``reason`` then says why."""
    status: str
    """Read off the bound:

    - ``converged``: it is at most ``tol``;
    - ``stationary``: it is not, but the solver has come as close as was asked by its own estimate,
      or no entry of the gradient is larger than ``gradient_tol``;
    - ``precision_floor``: it is not, because the dtype of the parameters, or float64 sums, hold no
      point that is better by more;
    - ``stalled``: it is not, and no step lowers the objective;
    - ``max_steps``: it is not after so many steps;
    - ``no_finite_minimiser``: the infimum lies at infinity, in ``direction``;
    - ``nonfinite``: a value became NaN or infinite, and ``params`` are the last good ones."""
    solver: str
    """Which one ran, and why it was chosen."""
    steps: int
    passes: float
    trace: tuple[Step, ...]
    direction: Any = None
    """Where there is no finite minimiser: parameters along which no row's own class ever loses its
    lead, and some row's gains; those that are zero stay where they are. Else ``None``."""
    reason: str = ""
    """Why ``gap_bound`` is infinite, if it is and no status says so."""


def gradient_reached(certificate: Any, stop: Any) -> bool:
    """Whether the gradient is as small as was asked, if that was asked."""
    return stop.gradient_tol > 0 and float(certificate.gradient_norm) <= stop.gradient_tol


def status_of(outcome: Any, certificate: Any, at_floor: bool, stop: Any) -> str:
    """The status that a certificate allows.

    Args:
      outcome: of the solver.
      certificate: of the point that is returned, or ``None``.
      at_floor: whether rounding hides what is above the tolerance.
      stop: what was asked.
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
