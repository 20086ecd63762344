"""Numerical derivatives along a line, each with an estimate of its own error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Steps shrink by 4 from 1/2 to 5e-10, in units of the direction. The range is wide enough for a
# curvature of 1e8, and each Richardson column then removes a factor 16, 256, ...
NUM_LEVELS = 16
LEVELS = 0.5 * 4.0 ** -np.arange(NUM_LEVELS)
STEPS = np.concatenate([[0.0], LEVELS, -LEVELS])


class LineValues(NamedTuple):
    """A function along one line, at ``STEPS``."""

    at_zero: float
    ahead: np.ndarray
    """The values ``F(theta + h u)``, ``(levels,)``."""
    behind: np.ndarray
    """The values ``F(theta - h u)``, ``(levels,)``."""
    noise: float
    """Standard deviation of the function's own rounding, in its units."""


def line_values(values: np.ndarray, noise: float) -> LineValues:
    """Splits the values at ``STEPS``; steps that overflow or leave the domain become NaN."""
    values = np.where(np.isfinite(values), values, np.nan)
    return LineValues(float(values[0]), values[1 : NUM_LEVELS + 1], values[NUM_LEVELS + 1 :], noise)


class Estimate(NamedTuple):
    """A derivative, an estimate of its error, and the step at which it was best."""

    value: float
    error: float
    step: float


def central_difference(line: LineValues) -> Estimate:
    """``dF/dh`` at 0 by central differences, Richardson-extrapolated over every step.

    Column m of the table combines m+1 steps and removes the error terms up to ``h^(2m)``. The
    entry with the smallest error estimate wins. The estimate is the entry's change from the
    previous column and row, plus the noise carried by its smallest step. The distance to the best
    entry of another row guards against two entries agreeing by chance.

    Source: Ridders, Adv. Eng. Software 4 (1982); Press et al., Numerical Recipes, section 5.7.
    """
    first = (line.ahead - line.behind) / (2 * LEVELS)
    return _extrapolate(first, line.noise / LEVELS, order=2)


def one_sided_differences(line: LineValues) -> tuple[Estimate, Estimate]:
    """``F'(0-)`` and ``F'(0+)`` along the line, extrapolated in powers of h."""
    left = (line.at_zero - line.behind) / LEVELS
    right = (line.ahead - line.at_zero) / LEVELS
    noise = 2 * line.noise / LEVELS
    return _extrapolate(left, noise, order=1), _extrapolate(right, noise, order=1)


def _extrapolate(first: np.ndarray, noise: np.ndarray, order: int) -> Estimate:
    columns = 5
    table = np.full((len(first), columns), np.nan)
    table[:, 0] = first
    best, change = [], np.full((len(first), columns), np.inf)
    for k in range(1, len(first)):
        for m in range(1, min(k + 1, columns)):
            factor = 4.0 ** (order * m)
            table[k, m] = (factor * table[k, m - 1] - table[k - 1, m - 1]) / (factor - 1)
            moved = np.abs(table[k, m] - np.array([table[k, m - 1], table[k - 1, m - 1]])).max()
            change[k, m] = moved if np.isfinite(moved) else np.inf
        m = int(np.argmin(change[k]))
        best.append(Estimate(float(table[k, m]), float(change[k, m] + noise[k]), float(LEVELS[k])))
    chosen = int(np.argmin([e.error for e in best]))
    winner = best[chosen]
    # Steps that are too large can agree with each other and be wrong together, across a fast
    # oscillation say. A smaller step that contradicts them by more than its own error raises the
    # error of the estimate.
    doubt = [
        abs(e.value - winner.value) - change[k].min() - 10 * noise[k]
        for k, e in enumerate(best[chosen + 1 :], chosen + 2)
    ]
    return winner._replace(error=max([winner.error, *(d for d in doubt if np.isfinite(d))]))


NOISE_POINTS = len(STEPS)


def noise_level(evaluate, size: float, dtype=np.float64) -> float:
    """The rounding noise of a function of one variable near 0.

    Differences of order k of equally spaced values remove the smooth part and leave noise:
    ``σ² = (k!)² / (2k)! · mean (Δᵏ)²``. The spacing grows until the values differ, so that a
    function that rounds its argument to float32 inside shows the steps of that rounding.

    Args:
      evaluate: ``(m,) steps -> (m,) values``.
      size: a floor, the rounding of the value itself.
      dtype: the dtype that the function computes in; a narrow dtype has wide steps.

    Source: Moré and Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011).
    """
    widest = 1e-5 if np.dtype(dtype) == np.float64 else 1e-2
    for spacing in (s for s in (1e-13, 1e-11, 1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 1e-2) if s <= widest):
        values = evaluate(spacing * (np.arange(NOISE_POINTS) - NOISE_POINTS // 2))
        if not np.isfinite(values).all():
            break
        if len(np.unique(values)) > NOISE_POINTS // 2:
            differences, levels = values, []
            for k in range(1, 7):
                differences = np.diff(differences)
                factor = np.prod([j / (k + j) for j in range(1, k + 1)])
                levels.append(np.sqrt(factor * np.mean(differences**2)))
            # Higher orders have removed more of the smooth part; they agree once it is gone.
            return max(float(min(levels[3:])), size)
    return size


class Taylor(NamedTuple):
    """The fall of a Taylor remainder as the step shrinks."""

    order: float
    """The power of h by which the remainder falls between the smallest two steps that show it; NaN
    if no steps show it."""
    leftover: float
    """The term of one power less that a wrong coefficient leaves in the remainder; 0 if there is no
    such term."""


def taylor(
    line: LineValues, tolerance: float, slope: float, curvature: float | None = None
) -> Taylor:
    """The order of ``F(h) - F(0) - h slope [- h²/2 curvature]`` in h; it is 2 for a right slope.

    With the curvature the order is 3. A wrong coefficient of ``h^q`` leaves a remainder whose
    quotient by ``h^q`` stays the same at all small steps, on both sides alike. The quotient of a
    right coefficient falls with h, and a corner nearby leaves a quotient on its own side only. The
    coefficient is judged at the smallest three steps at which the noise would let an error of
    ``tolerance`` show.

    Source: Farrell et al., Automated derivation of the adjoint, SIAM J. Sci. Comput. 35 (2013).
    """
    power = 1 if curvature is None else 2
    # The model itself is rounded: h · slope to its last digits.
    floor = 100 * (line.noise + np.finfo(np.float64).eps * LEVELS * abs(slope))
    sides = []
    for values, steps in ((line.ahead, LEVELS), (line.behind, -LEVELS)):
        remainder = values - line.at_zero - steps * slope - steps**2 / 2 * (curvature or 0.0)
        shown = np.isfinite(remainder) & (np.abs(remainder) > floor)
        sides.append(np.where(shown, remainder, 0) / steps**power)
    ahead, behind = sides

    order = np.nan
    visible = np.flatnonzero(ahead)
    if len(visible) > 1 and visible[-1] - visible[-2] == 1:
        falls = abs(ahead[visible[-2]] / ahead[visible[-1]])
        order = float(power + np.log(falls) / np.log(4))
    last = np.flatnonzero(floor / LEVELS**power < tolerance)[-3:]
    if len(last) < 3:
        return Taylor(order, 0.0)
    both = np.where(ahead * behind > 0, np.minimum(np.abs(ahead), np.abs(behind)), 0)[last]
    leftover = both.min() if both.max() < 2 * both.min() else 0.0
    return Taylor(order, float(leftover))


def kink(line: LineValues, tolerance: float) -> tuple[float, float] | None:
    """The one-sided derivatives if the line has a kink at 0, else ``None``.

    Where F is smooth the one-sided difference quotients approach each other in proportion to the
    step; at a kink they keep their distance. The line is judged at the smallest three steps at
    which the noise leaves the distance visible.

    Args:
      line: the function along the line.
      tolerance: distances below this are no kink.
    """
    right = (line.ahead - line.at_zero) / LEVELS
    left = (line.at_zero - line.behind) / LEVELS
    gap = np.abs(right - left)
    least = np.maximum(tolerance, 100 * line.noise / LEVELS)
    visible = np.flatnonzero(np.isfinite(gap) & (gap > least))
    if len(visible) < 3 or visible[-1] - visible[-3] != 2:
        return None
    a, b, c = gap[visible[-3:]]
    if not (0.7 < c / b < 1.4 and 0.7 < b / a < 1.4):
        return None
    # Smooth functions that only look kinked at these steps smooth out at smaller ones, where the
    # noise hides them; a kink reaches down until the noise itself is as large as the gap.
    if visible[-1] < NUM_LEVELS - 1 and 100 * line.noise / LEVELS[visible[-1] + 1] < 0.5 * c:
        return None
    before, after = one_sided_differences(line)
    return before.value, after.value
