"""A figure of a path of penalties: the coefficients along λ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as File

import numpy as np

from jaxclf import checks
from jaxclf.reports import plots
from jaxclf.reports.classifier_figures import fit_to_figure
from jaxclf.reports.report import Figure
from jaxclf.solvers.path import Path

_MOST_NAMES = 14
"""The most lines that are named, those that are ever farthest from zero."""
_LONGEST_NAME = 24
_COLORS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.SKY, plots.YELLOW, plots.PINK)
_APART = 0.055
"""The least distance between two names, over the height of the figure."""


def draw_path(
    path: Path,
    file: File | str,
    *,
    names: Sequence[str] | None = None,
    chosen: int | None = None,
) -> Figure:
    """Draws coefficients along λ, from the strongest penalty at the left to the weakest.

    With several logits a line is the norm of a feature's coefficients over them.

    Args:
      path: the result of :func:`jaxclf.minimize_path`, for penalties above zero.
      file: the PNG to write.
      names: the names of the features; by default their numbers.
      chosen: the number of the λ that is marked.

    Raises:
      ValueError: a λ of zero, names of another number than the features, or a number of no λ.
    """
    weights = np.array([np.asarray(result.params.weights, np.float64) for result in path])
    several = weights.ndim == 3
    lines = np.linalg.norm(weights, axis=1) if several else weights
    num_features = lines.shape[1]
    names = [f"feature {j}" for j in range(num_features)] if names is None else list(names)
    checks.check_shape("names", names, (num_features,))
    strengths = path.strengths
    checks.check_number("the λ of a figure", strengths, above=0)
    if chosen is not None and not 0 <= chosen < len(path):
        raise ValueError(f"chosen must be the number of a λ, 0 … {len(path) - 1}, got {chosen}")
    with plots.figure(file, size=(7.4, 4.6)) as (_, ax):
        largest = np.abs(lines).max(0)
        named = [j for j in np.argsort(-largest, kind="stable")[:_MOST_NAMES] if largest[j]]
        rest = np.setdiff1d(np.arange(num_features), named)
        end = np.argmin(strengths)
        ax.plot(strengths, lines[:, rest], color="0.75", lw=0.8)
        heights = _apart(lines[end, named], np.ptp(lines))
        for place, (j, height) in enumerate(zip(named, heights, strict=True)):
            color = _COLORS[place % len(_COLORS)]
            ax.plot(strengths, lines[:, j], color=color, lw=1.4)
            ax.annotate(
                fit_to_figure(str(names[j]), _LONGEST_NAME),
                (strengths.min(), lines[end, j]),
                (1.04, height),
                textcoords=ax.get_yaxis_transform(),
                color=color, fontsize=8, va="center", parse_math=False,
                arrowprops={"arrowstyle": "-", "color": color, "lw": 0.6},
            )  # fmt: skip
        if chosen is not None:
            ax.axvline(strengths[chosen], color=plots.BLACK, ls="--", lw=1)
            ax.annotate(
                f"chosen λ = {strengths[chosen]:.3g}, {np.count_nonzero(lines[chosen])} features",
                (strengths[chosen], 1), (0, 4), xycoords=ax.get_xaxis_transform(),
                textcoords="offset points", ha="center", fontsize=8,
            )  # fmt: skip
        ax.axhline(0, color=plots.BLACK, lw=0.8)
        ax.set(xscale="log", xlim=(strengths.max(), strengths.min()), xlabel="λ")
        ax.set_ylabel("norm of the coefficients over the classes" if several else "coefficient")
    what = "The norm of each feature's coefficients" if several else "The coefficients"
    some = "" if len(rest) == 0 else f", the {len(named)} largest of them named"
    mark = "" if chosen is None else f"; the dashed line marks λ = {strengths[chosen]:.3g}"
    return Figure(File(file), f"{what} along λ, weaker penalties to the right{some}{mark}.")


def _apart(heights: np.ndarray, extent: float) -> np.ndarray:
    """Heights of names so far apart that none covers another, close to where the lines end."""
    least, order = _APART * max(extent, 1e-300), np.argsort(heights)
    moved = heights[order].astype(float)
    for _ in range(100):
        gap = least - np.diff(moved)
        close = gap > 0
        if not close.any():
            break
        moved[:-1] -= np.where(close, gap / 2, 0)
        moved[1:] += np.where(close, gap / 2, 0)
    result = np.empty_like(moved)
    result[order] = moved
    return result
