"""The result of a full-batch solver."""

from __future__ import annotations

from typing import Any, NamedTuple


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


def gradient_reached(certificate: Any, stop: Any) -> bool:
    """Whether the gradient is as small as was asked, if that was asked."""
    return stop.gradient_tol > 0 and float(certificate.gradient_norm) <= stop.gradient_tol


def status_of(outcome: Any, certificate: Any, at_floor: bool, stop: Any) -> str:
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
