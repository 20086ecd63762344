"""Figures of a classifier's predictions on rows it was not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxclf.reports import plots
from jaxclf.reports.report import Figure

_MOST_NAMES = 30
"""The most classes for which a confusion matrix has names and numbers."""
_LONGEST_NAME = 24
_BINS = 15


def draw_confusion(counts: np.ndarray, names, path: Path) -> Figure:
    """Draws the confusion matrix: shares of each true class as shades, counts as numbers.

    Args:
      counts: ``(K, K)``, true classes by predicted ones.
      names: the names of the classes.
      path: the PNG to write.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [_shortened(str(name)) for name in names]
    side = 2.2 + 0.45 * min(len(names), _MOST_NAMES)
    with plots.figure(path, size=(side, side)) as (_, ax):
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if len(names) <= _MOST_NAMES:
            for i, j in np.argwhere(counts):
                color = "white" if shares[i, j] > 0.5 else "black"
                ax.text(j, i, counts[i, j], ha="center", va="center", color=color, fontsize=8)
            places = range(len(names))
            turned = 90 if max(map(len, names)) > 2 else 0
            ax.set_xticks(places, names, rotation=turned, parse_math=False)
            ax.set_yticks(places, names, parse_math=False)
        ax.set(xlabel="predicted", ylabel="true", title="Test rows")
        ax.grid(visible=False)
    return Figure(path, "Confusion matrix of the test part: a row per true class.")


def _shortened(name: str) -> str:
    """A name on one line that leaves room for the figure."""
    name = " ".join(name.split())
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def draw_calibration(probabilities: np.ndarray, labels: np.ndarray, path: Path) -> Figure:
    """Draws how often predictions of each confidence are right, and how many there are.

    Args:
      probabilities: ``(n, K)``.
      labels: ``(n,)`` integers.
      path: the PNG to write.

    Sources: Guo et al., On calibration of modern neural networks, ICML 2017, figure 1; Agresti and
    Coull, Approximate is better than exact, The American Statistician 52 (1998), for the errors.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    index = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    count = np.bincount(index, minlength=_BINS)
    used = count > 0
    mean = np.bincount(index, confidence, _BINS)[used] / count[used]
    accuracy = np.bincount(index, right, _BINS)[used] / count[used]
    # Two right and two wrong rows are added, because a bin of few rows that are all right is not
    # certain.
    near = (accuracy * count[used] + 2) / (count[used] + 4)
    error = np.sqrt(near * (1 - near) / (count[used] + 4))
    heights = {"height_ratios": (3, 1), "sharex": True}
    with plots.figure(path, rows=2, size=(5.0, 5.4), **heights) as (_, (above, below)):
        above.plot([0, 1], [0, 1], color=plots.BLACK, lw=1, ls=":", label="calibrated")
        above.errorbar(mean, accuracy, error, fmt="o-", ms=4, color=plots.BLUE, label="measured")
        above.set(ylabel="share that is right", ylim=(0, 1.02), xlim=(0, 1.02))
        above.legend()
        below.bar((np.arange(_BINS) + 0.5) / _BINS, count, 0.9 / _BINS, color=plots.SKY)
        below.set(xlabel="confidence: probability of the predicted class", ylabel="rows")
    return Figure(
        path, "Confidence and accuracy on the test part, with standard errors; below, the rows."
    )
