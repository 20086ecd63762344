"""The probe of several labels a row, on disk: its predictions, its tables, its report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit

from jaxclf.data import Dataset
from jaxclf.data.tables import harmless
from jaxclf.files import write_csv
from jaxclf.reports import plots
from jaxclf.reports.classifier_figures import fit_to_figure
from jaxclf.reports.numbers import shown, titled
from jaxclf.reports.report import Figure, Section, Table, write_data_report
from jaxclf.sweeps.labels import LabelFit

_MOST_BARS = 40
_SHOWN = ("average_precision", "roc_auc", "f1_macro", "log_loss")


def write_label_predictions(path: Path, fits: Sequence[LabelFit], labels: np.ndarray) -> None:
    """Writes a line of CSV per test row: whether it has each label, and its probabilities.

    Args:
      path: the file.
      fits: the fits.
      labels: ``(n, labels)`` of 0 and 1, in the order of the fits.
    """
    names = [harmless(fit.name) for fit in fits]
    p = expit(np.stack([fit.logits for fit in fits], 1).astype(np.float64))
    rows = [
        [row, *map(int, has), *(f"{x:.6g}" for x in of_row)]
        for row, (has, of_row) in enumerate(zip(labels, p, strict=True))
    ]
    write_csv(path, [["row", *names, *(f"p({name})" for name in names)], *rows])


def labels_table(fits: Sequence[LabelFit]) -> Table:
    """The measures of each label, from the best average precision down."""
    header = ["label", "λ", "share of rows", *map(titled, _SHOWN)]
    return Table(header, [
        [fit.name, shown(fit.lane["l2"]), shown(fit.of_shares["average_precision"]),
         *(shown(fit.test[name]) for name in _SHOWN)]
        for fit in ranked(fits)
    ])  # fmt: skip


def means_table(fits: Sequence[LabelFit]) -> Table:
    """The means of the measures over labels, for the models and for the label shares alone."""

    def mean(facts):
        return shown(float(np.mean(facts)))

    return Table(["mean over labels", "model", "label shares alone"], [
        [titled(name), mean([f.test[name] for f in fits]), mean([f.of_shares[name] for f in fits])]
        for name in fits[0].test if name != "rows"
    ])  # fmt: skip


def ranked(fits: Sequence[LabelFit]) -> list[LabelFit]:
    """The fits from the best average precision down."""
    return sorted(fits, key=lambda fit: -fit.test["average_precision"])


def write_labels_report(
    folder: Path,
    fits: Sequence[LabelFit],
    left_out: Sequence[str],
    judged: str,
    parts: tuple[Dataset, Dataset],
) -> None:
    """Writes report.html and labels.png: the means, the labels, and how they were chosen.

    Args:
      folder: the folder.
      fits: the fits.
      left_out: the names of labels with too few rows.
      judged: what chose the penalties, such as ``log loss on 5 folds``.
      parts: the rows that the fits learned from, and the test rows.
    """
    train, test = parts
    mean = np.mean([fit.test["average_precision"] for fit in fits])
    share = np.mean([fit.of_shares["average_precision"] for fit in fits])
    columns = math.prod(train.features.shape[1:])
    text = [
        f"The mean average precision over {len(fits)} labels is {shown(float(mean))} on "
        f"{len(test.labels)} test rows. Labels drawn at random would have {shown(float(share))}.",
        f"Each label has a logistic regression with a penalty of its own, chosen by {judged}. It "
        f"learned from all {len(train.labels)} training rows, of {columns} "
        "features, and met the test rows once.",
    ]
    if left_out:
        text.append(
            f"Labels with too few rows are left out, {len(left_out)} of them: "
            f"{', '.join(fit_to_figure(name) for name in left_out[:_MOST_BARS])}."
        )
    sections = [
        Section("Result", text, means_table(fits)),
        Section("Which labels are found", [], None, [_draw(fits, folder / "labels.png")]),
        Section("Labels", [], labels_table(fits)),
    ]
    write_data_report(folder, "Linear probe of", train, sections)


def _draw(fits: Sequence[LabelFit], path: Path) -> Figure:
    """Draws the average precision of each label, and its share of the rows."""
    best = ranked(fits)
    drawn = best if len(best) <= _MOST_BARS else [*best[:20], *best[-20:]]
    places = np.arange(len(drawn))[::-1]
    with plots.figure(path, size=(6.2, 1.2 + 0.24 * len(drawn))) as (_, ax):
        values = [fit.test["average_precision"] for fit in drawn]
        ax.barh(places, values, color=plots.BLUE, label="average precision")
        shares = [fit.of_shares["average_precision"] for fit in drawn]
        ax.plot(shares, places, "|", ms=9, mew=2, color=plots.ORANGE, label="share of rows")
        ax.set_yticks(places, [fit_to_figure(fit.name) for fit in drawn], parse_math=False)
        ax.set(xlim=(0, 1), xlabel="on the test rows")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    which = "Each label" if len(drawn) == len(best) else "The 20 best and the 20 worst labels"
    return Figure(
        path,
        f"{which}: average precision, and the share of the rows that have the label, which is what "
        "a random order would reach.",
    )
