"""A probe on disk: its predictions as CSV, its figures, and its report."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf import metrics
from jaxclf.data import Dataset
from jaxclf.data.tables import harmless
from jaxclf.reports.classifier_figures import draw_calibration, draw_confusion
from jaxclf.reports.numbers import shown
from jaxclf.reports.report import Figure, Section, Table, write_report

_JUDGED = {"log_loss": "log loss", "accuracy": "accuracy"}


def write_predictions(path: Path, probabilities: np.ndarray, data: Dataset) -> None:
    """Writes a line of CSV per row: its class, the predicted class and all probabilities.

    Args:
      path: the file.
      probabilities: ``(n, K)``.
      data: the rows; a text that a spreadsheet would take for a formula is written as text.
    """
    names = [harmless(name) for name in data.class_names]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label", "class", *(f"p({name})" for name in names)])
        for row, (label, called, p) in enumerate(
            zip(data.labels, probabilities.argmax(1), probabilities, strict=True)
        ):
            writer.writerow([row, names[label], names[called], *(f"{x:.6g}" for x in p)])


def draw_predictions(probabilities: np.ndarray, data: Dataset, folder: Path) -> list[Figure]:
    """Draws confusion.png and calibration.png of the rows."""
    predicted = probabilities.argmax(1)
    counts = np.asarray(metrics.confusion_matrix(data.labels, predicted, data.num_classes))
    return [
        draw_confusion(counts, data.class_names, folder / "confusion.png"),
        draw_calibration(probabilities, data.labels, folder / "calibration.png"),
    ]


def write_probe_report(
    path: Path,
    facts: Mapping[str, Any],
    metric: str,
    train: Dataset,
    figures: Sequence[Figure],
) -> None:
    """Writes the report of a probe: the answer, then the classes, then the figures.

    Args:
      path: the HTML file.
      facts: the content of metrics.json.
      metric: the measure that judged the penalties.
      train: the rows that the classifier learned from.
      figures: the figures, in order.
    """
    chosen, measured = facts["chosen"], facts["test"]
    rows = [[name.replace("_", " "), shown(value)] for name, value in measured.items()]
    keys = ("class", "rows", "recall", "precision")
    of_classes = [
        [one["class"], *(shown(one[key]) for key in keys[1:])] for one in facts["classes"]
    ]
    named = [f"{key} = {shown(value)}" if isinstance(value, float) else f"{key} = {value}"
             for key, value in chosen.items() if value]  # fmt: skip
    right, guess = measured["accuracy"], measured["accuracy_of_the_most_frequent_class"]
    error = np.sqrt(right * (1 - right) / measured["rows"])
    text = [
        f"Of {measured['rows']} test rows, which it had not seen, the classifier names "
        f"{right:.1%} right, give or take {error:.1%}. Always naming the most frequent class "
        f"would name {guess:.1%}.",
        f"It learned from {len(train.labels)} rows of {train.features[0].size} features and "
        f"{train.num_classes} classes. Chosen by {_JUDGED[metric]} on held-out rows: "
        f"{', '.join(named) or 'no penalty'}. The model was fitted again to all training rows, "
        "to its certified optimum, and met the test rows once.",
    ]
    if facts["temperature"] != 1:
        text.append(f"Its logits are divided by a temperature of {shown(facts['temperature'])}.")
    write_report(
        path,
        f"Linear probe of {train.name.rpartition('/')[2]}",
        [
            Section("Result", text, Table(["on the test rows", "value"], rows)),
            Section("Classes", [], Table(keys, of_classes)),
            Section("Figures", [], None, figures),
        ],
        f"Source of the data: {train.source}. SHA-256 of the training rows: {train.sha256}.",
    )
