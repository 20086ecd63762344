"""One look for every figure: colour-blind safe colours, one font size, one way to save."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from jaxclf.extras import require

# Okabe and Ito's palette (Color Universal Design, 2008).
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, YELLOW, PINK, BLACK = "#56B4E9", "#E69F00", "#CC79A7", "#000000"

_STYLE = {
    "figure.dpi": 110,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@contextmanager
def figure(path: Path | str, *, rows: int = 1, columns: int = 1, size=(6.2, 3.9), **options):
    """Yields ``(figure, axes)`` in the common style and writes a PNG when the block ends.

    Args:
      path: the PNG to write.
      rows, columns: the rows and columns of the grid of axes.
      size: inches, (width, height).
      **options: the options of ``Figure.subplots``: ``sharex``, ``sharey``, ``width_ratios``, ...

    Raises:
      ImportError: if the extra ``command`` is not installed.
    """
    require("a figure", "command", "matplotlib")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # A Figure has no global state and needs no display, unlike pyplot. It leaves nothing open if
    # the block raises.
    with mpl.rc_context(_STYLE):
        sheet = Figure(figsize=size, layout="constrained")
        yield sheet, sheet.subplots(rows, columns, **options)
        sheet.savefig(path)
