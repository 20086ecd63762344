"""A probe on disk: its predictions as CSV, its figures, and its report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf import metrics
from jaxclf.data import Dataset
from jaxclf.data.tables import harmless
from jaxclf.files import write_csv
from jaxclf.models.classifier import Classifier
from jaxclf.reports.classifier_figures import MOST_NAMES, draw_calibration, draw_confusion
from jaxclf.reports.coefficient_figures import draw_coefficients
from jaxclf.reports.few_shot import few_shot_section
from jaxclf.reports.numbers import percent, shown, titled
from jaxclf.reports.report import Section, Table, write_data_report
from jaxclf.reports.sweep import (
    best_configurations,
    described,
    draw_choice,
    draw_seconds,
    edges,
    measures_table,
)
from jaxclf.sweeps import SweepResult
from jaxclf.sweeps.few_shot import FewShot

_MOST_CONFUSED = 10
_CERTAINTY = 0.95


def write_predictions(path: Path, probabilities: np.ndarray, data: Dataset) -> None:
    """Writes a line of CSV per row: its class, the predicted class and all probabilities.

    Args:
      path: the file.
      probabilities: ``(n, K)``.
      data: the rows; a text that a spreadsheet would take for a formula is written as text.
    """
    names = [harmless(name) for name in data.class_names]
    found = zip(data.labels, probabilities.argmax(1), probabilities, strict=True)
    rows = [
        [row, names[label], names[called], *(f"{x:.6g}" for x in p)]
        for row, (label, called, p) in enumerate(found)
    ]
    write_csv(path, [["row", "label", "class", *(f"p({name})" for name in names)], *rows])


def write_probe_report(
    folder: Path,
    facts: Mapping[str, Any],
    result: SweepResult,
    classifier: Classifier,
    parts: tuple[Dataset, Dataset],
    probabilities: np.ndarray,
    few: Sequence[FewShot] = (),
) -> None:
    """Writes report.html with its figures: the answer, the classes, the coefficients, the choice.

    Args:
      folder: the folder of the report and of its figures.
      facts: the content of metrics.json.
      result: the fits, of which one was chosen.
      classifier: the model that was chosen.
      parts: the rows that it learned from, and the test rows.
      probabilities: ``(n, K)``, its probabilities of the test rows.
      few: fits to few rows of each class, if there are any.
    """
    train, test = parts
    counts = np.asarray(
        metrics.confusion_matrix(test.labels, probabilities.argmax(1), test.num_classes)
    )
    confusion = draw_confusion(counts, test.class_names, folder / "confusion.png")
    calibration = draw_calibration(probabilities, test.labels, folder / "calibration.png")
    coefficients = []
    if train.image_shape is not None or train.features.ndim == 2:
        path = folder / "coefficients.png"
        coefficients.append(draw_coefficients(classifier, train.image_shape, path))
    measures = measures_table(facts["test"], facts["class_shares"])
    metric, shots = result.selection.metric, []
    if few:
        values = facts["test"][metric], facts["class_shares"][metric]
        shots.append(few_shot_section(few, metric, *values, folder))
    sections = [
        Section("Result", _answer(facts, result, train), measures),
        Section("Which classes are confused", [], None, [confusion]),
        Section("Most frequent confusions", [], most_confused(counts, test.class_names)),
        Section("Classes", [], _classes(facts["classes"], train)),
        Section("Are its probabilities right?", [], None, [calibration]),
        Section("What it looks at", [], None, coefficients),
        Section(
            "How the penalty was chosen",
            _choice(result),
            best_configurations(result.selection),
            draw_choice(result.selection, folder),
        ),
        *shots,
        Section("Time", [], None, [draw_seconds(result.table, folder / "seconds.png")]),
    ]
    write_data_report(folder, "Linear probe of", train, sections)


def interval(accuracy: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of the accuracy on all rows of this kind.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, Journal of
    the American Statistical Association 22 (1927).
    """
    from scipy.stats import binomtest

    found = binomtest(round(accuracy * rows), rows).proportion_ci(_CERTAINTY, method="wilson")
    return float(found.low), float(found.high)


def most_confused(counts: np.ndarray, names) -> Table | None:
    """The confusions of more than two classes that occurred more than once, at most ten."""
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    if len(counts) == 2 or wrong.max() < 2:
        return None
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return Table(
        ["true class", "called", "rows", "share of the true class"],
        [
            [str(names[i]), str(names[j]), str(wrong[i, j]), f"{wrong[i, j] / counts[i].sum():.0%}"]
            for i, j in pairs
            if wrong[i, j] > 1
        ],
    )


def _answer(facts: Mapping[str, Any], result: SweepResult, train: Dataset) -> list[str]:
    measured, chosen = facts["test"], result.selection
    right, guess = measured["accuracy"], facts["class_shares"]["accuracy"]
    low, high = interval(right, measured["rows"])
    choice = ""
    if len(chosen.candidates) > 1:
        choice = (
            f", chosen from {len(chosen.candidates)} configurations by {titled(chosen.metric)} on "
            f"{chosen.judged_by}"
        )
    text = [
        f"The classifier names {percent(right)} of {measured['rows']} test rows right. Always "
        f"naming the most frequent class would name {percent(guess)} right. For all rows of this "
        f"kind the accuracy is between {percent(low)} and {percent(high)}, with {_CERTAINTY:.0%} "
        "certainty.",
        f"Its penalty is {described(chosen.lane)}{choice}. The final fit learned from all "
        f"{len(train.labels)} training rows, of {math.prod(train.features.shape[1:])} features and "
        f"{train.num_classes} classes, and it met the test rows once.",
    ]
    if facts["temperature"] != 1:
        text.append(f"Its logits are divided by a temperature of {shown(facts['temperature'])}.")
    return text + edges(chosen)


def _choice(result: SweepResult) -> list[str]:
    chosen = result.selection
    rule = (
        "the strongest penalty within one standard error of the best"
        if chosen.rule == "one_standard_error"
        else "the best"
    )
    return [
        f"Every configuration was fitted without the rows that judge it, and {rule} by "
        f"{titled(chosen.metric)} was taken."
    ]


def _classes(of_classes: list[dict], train: Dataset) -> Table:
    """The classes with their training rows, their test rows, and how many are found."""
    learned = np.bincount(train.labels, minlength=train.num_classes)
    names = {str(name): k for k, name in enumerate(train.class_names)}
    numbered = len(of_classes) > MOST_NAMES  # as in the figures, which have no names then
    rows = []
    for k, one in enumerate(of_classes):
        number = names.get(str(one["class"]))
        count = 0 if number is None else int(learned[number])
        judged = [shown(one["recall"]) if one["rows"] else "-", shown(one["precision"])]
        share = f"{count / len(train.labels):.2g}"
        rows.append([
            f"{k}: {one['class']}" if numbered else str(one["class"]), str(count), share,
            str(one["rows"]), *judged,
        ])  # fmt: skip
    return Table(["class", "training rows", "share", "test rows", "recall", "precision"], rows)
