"""Figures of what a linear classifier has learned: its coefficients, by name or as images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from jaxclf.data.table_plan import indicators
from jaxclf.models.classifier import Classifier
from jaxclf.reports import plots
from jaxclf.reports.classifier_figures import MOST_NAMES, fit_to_figure
from jaxclf.reports.report import Figure

_MOST = 20
"""The most features, or the most images, of a figure."""
_LONGEST_NAME = 40


def largest(weights: np.ndarray) -> np.ndarray:
    """The numbers of the features with the largest coefficients of any class, largest first.

    Args:
      weights: ``(K, d)``.
    """
    return np.argsort(-np.abs(weights).max(0), kind="stable")[:_MOST]


def draw_coefficients(
    classifier: Classifier, image_shape: tuple[int, int] | None, path: Path
) -> Figure:
    """Draws the coefficients of a linear classifier.

    Coefficients of pixels are drawn as an image per class. Of other features those with the largest
    coefficients are drawn: as bars for two classes, as shades by class for more.

    Args:
      classifier: a linear classifier, with one row of weights per class.
      image_shape: height and width, if the features are pixels.
      path: the PNG to write.
    """
    weights = np.asarray(classifier.params.weights, np.float64)
    names = [fit_to_figure(str(name)) for name in classifier.class_names]
    # Logits have no origin: what matters is the difference of a class from the others.
    weights = weights[1:] - weights[:1] if len(names) == 2 else weights - weights.mean(0)
    if image_shape is not None:
        return _draw_images(weights.reshape(-1, *image_shape), names, path)
    features = classifier.feature_names or [f"feature {j}" for j in range(weights.shape[1])]
    shown = largest(weights)
    kept = [fit_to_figure(str(features[j]), _LONGEST_NAME) for j in shown]
    some = "The coefficients" if len(kept) == len(features) else (
        f"The largest {len(kept)} of {len(features)} coefficients"
        if len(names) == 2 else f"The coefficients of {len(kept)} of {len(features)} features, "
        "those with the largest,"
    )  # fmt: skip
    unit = _unit(classifier)
    if len(names) == 2:
        _draw_bars(weights[0, shown], kept, f"in the log-odds of class {names[1]}", path)
        what = f"of the log-odds of class {names[1]} against {names[0]}"
    else:
        _draw_shades(weights[:, shown].T, kept, names, path)
        what = "of the logit of each class against the mean of all classes"
    return Figure(path, f"{some} {what}, {unit}.")


def _unit(classifier: Classifier) -> str:
    if classifier.standardiser is None:
        return "per unit of the feature"
    if classifier.plan is not None and indicators(classifier.plan).any():
        return "per standard deviation for a number, and present against absent for a category"
    return "per standard deviation of the feature"


def _draw_bars(weights: np.ndarray, features: list[str], what: str, path: Path) -> None:
    with plots.figure(path, size=(6.2, 1.1 + 0.27 * len(features))) as (_, ax):
        colors = np.where(weights > 0, plots.BLUE, plots.ORANGE)
        places = np.arange(len(features))
        ax.barh(places, weights, color=colors)
        ax.axvline(0, color=plots.BLACK, lw=0.8)
        ax.set_yticks(places, features, parse_math=False)
        ax.set(ylim=(len(features) - 0.5, -0.5))
        ax.set_xlabel(f"coefficient {what}", parse_math=False)
        ax.grid(visible=False, axis="y")


def _draw_shades(weights: np.ndarray, features: list[str], names: list[str], path: Path) -> None:
    """Draws shades of weights ``(features, K)``."""
    bound = float(np.abs(weights).max()) or 1.0
    named = len(names) <= MOST_NAMES
    across = max(0.5 if len(names) <= 12 else 0.3, 0.1) * len(names) if named else 5.0
    size = (4.4 + across, 1.9 + 0.28 * len(features))
    with plots.figure(path, size=size) as (sheet, ax):
        image = ax.imshow(weights, cmap="RdBu", vmin=-bound, vmax=bound, aspect="auto")
        if len(names) <= 12:
            for i, j in np.ndindex(*weights.shape):
                color = "white" if abs(weights[i, j]) > 0.6 * bound else "black"
                ax.text(j, i, f"{weights[i, j]:.2g}", ha="center", va="center", color=color,
                        fontsize=7)  # fmt: skip
        ax.set_yticks(range(len(features)), features, parse_math=False)
        if named:
            turned = 90 if max(map(len, names)) > 2 else 0
            ax.set_xticks(range(len(names)), names, rotation=turned, parse_math=False)
        ax.set(xlabel="class" if named else "number of the class")
        ax.grid(visible=False)
        bar = sheet.colorbar(image, label="coefficient")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _draw_images(images: np.ndarray, names: list[str], path: Path) -> Figure:
    """Draws images ``(classes, height, width)``; one for two classes."""
    shown = images[:_MOST]
    titles = [f"{names[1]} against {names[0]}"] if len(names) == 2 else names
    columns = min(5, len(shown))
    lines = math.ceil(len(shown) / columns)
    bound = float(np.abs(shown).max()) or 1.0
    size = (1.5 + 1.5 * columns, 1.75 * lines)
    with plots.figure(path, rows=lines, columns=columns, size=size, squeeze=False) as (sheet, axes):
        image = None
        for k, ax in enumerate(axes.flat):
            ax.axis("off")
            if k < len(shown):
                image = ax.imshow(shown[k], cmap="RdBu", vmin=-bound, vmax=bound)
                ax.set_title(titles[k], parse_math=False)
        bar = sheet.colorbar(image, ax=axes, shrink=0.8, label="coefficient")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    some = "" if len(shown) == len(images) else f" of the first {_MOST} of {len(images)} classes"
    return Figure(
        path,
        f"The coefficients{some} as images, on one scale: blue pixels speak for the class, red "
        "ones against it.",
    )
