"""Figures of a classifier's predictions on rows it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxclf.reports import plots
from jaxclf.reports.report import Figure

MOST_NAMES = 30
"""The most classes for which a figure has names and numbers."""
_LONGEST_NAME = 24
_BINS = 15
_FEW = 10
"""Bins of fewer rows are faded: the standard error of a share is then 0.1 or more, as wide as the
bins are."""
_FADED = 0.3


def draw_confusion(counts: np.ndarray, names, path: Path) -> Figure:
    """Draws the confusion matrix: shares of each true class as shades, counts as numbers.

    Args:
      counts: ``(K, K)``, true classes by predicted ones.
      names: the names of the classes.
      path: the PNG to write.
    """
    rows = counts.sum(1)
    shares = np.where(rows > 0, 1, np.nan)[:, None] * counts / np.maximum(rows, 1)[:, None]
    names = [fit_to_figure(str(name)) for name in names]
    named = len(names) <= MOST_NAMES
    cell = max(0.45, 2.4 / len(names)) if len(names) <= 15 else 0.34
    letters = 0.09 * max(map(len, names))
    body = cell * len(names)
    size = (2.4 + letters + body, 0.9 + letters + body) if named else (6.2, 5.2)
    with plots.figure(path, size=size) as (sheet, ax):
        image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        ax.set(xlabel="predicted class", ylabel="true class (its rows)")
        if named:
            for i, j in np.argwhere(counts):
                color = "white" if shares[i, j] > 0.5 else "black"
                ax.text(j, i, counts[i, j], ha="center", va="center", color=color, fontsize=8)
            places = range(len(names))
            turned = 90 if max(map(len, names)) > 2 else 0
            ax.set_xticks(places, names, rotation=turned, parse_math=False)
            counted = [f"{name} ({n})" for name, n in zip(names, rows, strict=True)]
            ax.set_yticks(places, counted, parse_math=False)
        else:
            ax.set(xlabel="number of the predicted class", ylabel="number of the true class")
        ax.grid(visible=False)
        bar = sheet.colorbar(image, shrink=0.8, label="share of the rows of the true class")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    inside = (
        "a number is a count of rows, and beside the name of a true class is the number of its rows"
        if named
        else "the classes are numbered from 0 in the order of the table of classes"
    )
    empty = "" if rows.all() else " A class without a row has no shade."
    caption = "Confusion matrix of the test rows. A shade is a share of the rows of the true class"
    return Figure(path, f"{caption}; {inside}.{empty}")


def fit_to_figure(name: str, most: int = _LONGEST_NAME) -> str:
    """A name on one line that leaves room for the figure."""
    name = " ".join(name.split())
    return name if len(name) <= most else name[: most - 1] + "…"


class Bins(NamedTuple):
    """Confidences in bins of equal width; empty bins are left out."""

    middle: np.ndarray
    confidence: np.ndarray
    """The mean confidence in each bin."""
    accuracy: np.ndarray
    error: np.ndarray
    """The standard error of each accuracy."""
    count: np.ndarray
    few: np.ndarray
    """Whether the rows of a bin are too few for its accuracy to mean much."""


def calibration_bins(probabilities: np.ndarray, labels: np.ndarray) -> Bins:
    """The accuracy in each bin of confidence, the probability of the predicted class.

    Source: Agresti and Coull, Approximate is better than exact, The American Statistician 52
    (1998), for the errors.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    index = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    count = np.bincount(index, minlength=_BINS)
    used = np.flatnonzero(count)
    count = count[used]
    mean = np.bincount(index, confidence, _BINS)[used] / count
    accuracy = np.bincount(index, right, _BINS)[used] / count
    # Two right and two wrong rows are added, because a bin of few rows that are all right is not
    # certain.
    near = (accuracy * count + 2) / (count + 4)
    error = np.sqrt(near * (1 - near) / (count + 4))
    return Bins((used + 0.5) / _BINS, mean, accuracy, error, count, count < _FEW)


def draw_calibration(probabilities: np.ndarray, labels: np.ndarray, path: Path) -> Figure:
    """Draws how often predictions of each confidence are right, and how many there are.

    Args:
      probabilities: ``(n, K)``.
      labels: ``(n,)`` integers.
      path: the PNG to write.

    Source: Guo et al., On calibration of modern neural networks, ICML 2017, figure 1.
    """
    bins = calibration_bins(probabilities, labels)
    heights = {"height_ratios": (3, 1), "sharex": True}
    lowest = max(0, 1 / probabilities.shape[1] - 0.05)  # no prediction is less confident
    with plots.figure(path, rows=2, size=(5.6, 5.4), **heights) as (_, (above, below)):
        above.plot([0, 1], [0, 1], color=plots.BLACK, lw=1, ls=":", label="calibrated")
        above.plot(bins.confidence, bins.accuracy, color=plots.BLUE, lw=1, alpha=_FADED)
        for faded in (False, True):
            of = bins.few == faded
            if not of.any():
                continue
            alpha = _FADED if faded else 1
            label = f"measured on fewer than {_FEW} rows" if faded else "measured"
            above.errorbar(bins.confidence[of], bins.accuracy[of], bins.error[of], fmt="o", ms=5,
                           color=plots.BLUE, alpha=alpha, label=label)  # fmt: skip
            below.bar(bins.middle[of], bins.count[of], 0.9 / _BINS, color=plots.BLUE, alpha=alpha)
        above.set(ylabel="share that is right", ylim=(0, 1.02), xlim=(lowest, 1.02))
        above.legend()
        below.set(xlabel="confidence: probability of the predicted class", ylabel="rows")
    return Figure(
        path,
        "Calibration on the test rows: how often predictions of a confidence are right, with "
        f"standard errors. Bins of fewer than {_FEW} rows are faded. Below: the rows in each bin.",
    )
