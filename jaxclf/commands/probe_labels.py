"""The results of a probe of several labels a row, as files and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxclf.commands.console import print_table
from jaxclf.commands.recipe import pixels_of
from jaxclf.data import Dataset
from jaxclf.data.transforms import Standardiser
from jaxclf.files import atomic_folder, write_json
from jaxclf.messages import listed
from jaxclf.model_file import save_model
from jaxclf.objectives import Batch
from jaxclf.progress import progress_bar
from jaxclf.reports.probe_labels import (
    labels_table,
    means_table,
    ranked,
    write_label_predictions,
    write_labels_report,
)
from jaxclf.sweeps import LabelFit, sweep_labels

_MOST = 20
"""The most labels that are shown on the terminal."""
_KEPT = ("name", "status", "test", "of_shares")


def fit_labels(
    grid: dict, data: Batch, test: Batch, names: Sequence[str], **options: Any
) -> tuple[list[LabelFit], list[str]]:
    """What :func:`jaxclf.sweeps.sweep_labels` finds, with a bar of progress."""
    with progress_bar() as bar:
        task = bar.add_task("labels", total=len(names))

        def began(k: int) -> None:
            bar.update(task, completed=k, description=f"label {k + 1} of {len(names)}")

        found = sweep_labels(grid, data, test, names, began=began, **options)
        bar.update(task, completed=len(names))
    return found


def keep_labels(
    fits: Sequence[LabelFit],
    left_out: Sequence[str],
    judged: str,
    parts: tuple[Dataset, Dataset],
    scaling: Standardiser | None,
    out: Path,
) -> None:
    """Writes model.npz, metrics.json, predictions.csv and report.html into a folder."""
    from jaxclf.estimators.exchange import to_label_estimator

    train, test = parts
    names = [fit.name for fit in fits]
    params = jax.tree.map(lambda *x: np.stack(x), *(fit.params for fit in fits))
    pixels = pixels_of(train, scaling)
    facts = {
        "mean": {name: float(np.mean([fit.test[name] for fit in fits])) for name in fits[0].test},
        "labels": [
            {"chosen": dict(fit.lane)} | {key: getattr(fit, key) for key in _KEPT} for fit in fits
        ],
        "left_out": list(left_out),
    }
    with atomic_folder(out) as folder:
        save_model(folder / "model.npz", to_label_estimator(params, names, scaling, pixels))
        write_json(folder / "metrics.json", facts)
        columns = [test.class_names.index(name) for name in names]
        write_label_predictions(folder / "predictions.csv", fits, test.labels[:, columns])
        write_labels_report(folder, fits, left_out, judged, parts)


def show_labels(fits: Sequence[LabelFit], left_out: Sequence[str], num_rows: int) -> None:
    """Prints the means over labels, and the labels that are found best."""
    best = ranked(fits)[:_MOST]
    title = f"the best {_MOST} of {len(fits)} labels" if len(fits) > _MOST else None
    print_table(labels_table(best), title)
    print_table(means_table(fits), f"{len(fits)} labels, on {num_rows} test rows")
    if left_out:
        print(f"Labels with too few rows are left out, {len(left_out)} of them: {listed(left_out)}")
    print("model.npz predicts in Python: jaxclf.load_model(path).predict(X)")
