"""The figure of intervals, known as a forest plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.reports import plots
from jaxclf.reports.classifier_figures import fit_to_figure
from jaxclf.reports.report import Figure

_MOST = 40
"""The most coefficients of a figure."""
_LONGEST_NAME = 40


def draw_intervals(inference: Any, path: Path) -> Figure:
    """Draws the estimates and intervals of a table, one line for each coefficient.

    Intercepts are left out. Of many coefficients those with the largest z are drawn.

    Args:
      inference: a table of :mod:`jaxclf.inference`.
      path: the PNG to write.

    Raises:
      ValueError: a table of intercepts alone.
    """
    slopes = np.flatnonzero(~inference.intercepts)
    if not len(slopes):
        raise ValueError("the table has intercepts alone")
    ranked = sorted(slopes, key=lambda i: -abs(inference.z[i]))[:_MOST]
    shown = sorted(ranked) if len(ranked) == len(slopes) else ranked
    names = [fit_to_figure(inference.names[i], _LONGEST_NAME) for i in shown]
    middle, low, high = (
        np.asarray(x)[shown] for x in (inference.estimate, inference.lower, inference.upper)
    )
    places = np.arange(len(shown))
    apart = (low > 0) | (high < 0)
    with plots.figure(path, size=(6.2, 1.1 + 0.27 * len(shown))) as (_, ax):
        for sure, color in ((True, plots.BLUE), (False, plots.ORANGE)):
            kept = apart == sure
            spread = np.stack([middle - low, high - middle])[:, kept]
            ax.errorbar(middle[kept], places[kept], xerr=spread, fmt="o", ms=4, color=color)
        ax.axvline(0, color=plots.BLACK, lw=0.8)
        ax.set_yticks(places, names, parse_math=False)
        ax.set(ylim=(len(shown) - 0.5, -0.5), xlabel="coefficient")
        ax.grid(visible=False, axis="y")
    some = "" if len(shown) == len(slopes) else f"the {len(shown)} of {len(slopes)} largest |z|; "
    return Figure(
        path,
        f"Estimates and {100 * inference.level:g} % intervals: {some}errors {inference.kind}. "
        "Intervals that hold zero are orange.",
    )
