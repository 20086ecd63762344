"""The `jaxclf sweep` command: a grid over a dataset, its table, figures and best model."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxclf import metrics
from jaxclf.commands.console import (
    check_seed,
    input_errors,
    print_table,
    show_measures,
    show_table,
)
from jaxclf.commands.device_options import DeviceOptions
from jaxclf.commands.recipe import Recipe, fit_scaling, load, own_slice
from jaxclf.data import Dataset, TableOptions, transforms
from jaxclf.files import atomic_folder, claimed_folder
from jaxclf.model_file import save_model
from jaxclf.models.classifier import Architecture, Classifier
from jaxclf.models.linear import LinearParams
from jaxclf.objectives import Batch, make_batch
from jaxclf.reports.sweep import (
    best_configurations,
    edges,
    statuses,
    write_sweep,
    write_sweep_report,
)
from jaxclf.sweeps import SweepResult, sweep
from jaxclf.sweeps.selection import Metric

_READING = ("label", "table", "data_dir", "seed")
"""The options of a recipe that say how its data are read."""


@dataclass(frozen=True)
class Sweep:
    """Fit a linear classifier for every configuration of a grid, choose one, report on it."""

    dataset: str
    """Dataset, in the form that `jaxclf fit` takes."""
    grid: tuple[str, ...] = ("l2=1e-6:1e-1:20", "fold=0,1,2,3,4")
    """Axes KEY=VALUE,VALUE,... or KEY=FROM:TO:COUNT, which is spaced evenly in the logarithm."""
    method: Literal["convex", "minibatch"] = "convex"
    """convex solves each fit to its optimum, minibatch trains it for some epochs."""
    validation: float = 0.0
    """Share of the training rows that judges the configurations, where the grid has no folds."""
    metric: Metric = "log_loss"
    """Measure that judges the configurations."""
    rule: Literal["best", "one_standard_error"] = "best"
    """one_standard_error takes the strongest penalty within that error of the best mean."""
    tol: float = 1e-4
    """Largest gap of convex fits to the minimum, in nats."""
    epochs: int = 10
    """Epochs of minibatch fits."""
    halve_every: int | None = None
    """Epochs after which the worse half of the minibatch fits is dropped; by default never."""
    label: str | None = None
    """Label column of a table: its name, its position from 1, or last; by default a good guess."""
    table: TableOptions = field(default_factory=TableOptions)
    data_dir: Path | None = None
    """Folder of TensorFlow Datasets, if not its default."""
    seed: int = 0
    """Seed of the splits."""
    device: DeviceOptions = field(default_factory=DeviceOptions)
    out: Path = Path("results/sweep")
    """Folder for table.csv, sweep.json, figures, report.html and model.npz; the same command goes
    on where it stopped."""
    overwrite: bool = False
    """Replace the results of another run in the folder; else they stay, and a numbered folder
    beside it is used. Files that jaxclf did not write are never replaced."""

    def run(self) -> None:
        with ExitStack() as stack:
            with input_errors():
                check_seed(self.seed)
                grid = parse_grid(self.grid)
                devices = stack.enter_context(self.device.used())
                train, test, scaling = parts_of(self.dataset, self)
                chooses = self.validation > 0 or "fold" in grid
                run = run_of(self, train)
                out = stack.enter_context(claimed_folder(self.out, run, overwrite=self.overwrite))
                result = sweep(
                    grid,
                    own_batch(train, scaling),
                    method=self.method,
                    validation=self.validation,
                    test=own_batch(test, scaling) if chooses else None,
                    metric=self.metric,
                    rule=self.rule,
                    tol=self.tol,
                    epochs=self.epochs,
                    halve_every=self.halve_every,
                    seed=self.seed,
                    devices=devices,
                    checkpoint=out / "lanes",
                    verbose=True,
                )
            if jax.process_index() != 0:
                return
            with input_errors(OSError), atomic_folder(out) as folder:
                write_sweep(result, folder)
                write_sweep_report(result, folder, train, test)
                if result.selection is not None:
                    classifier = classifier_of(result.selection.params, train, scaling)
                    save_model(folder / "model.npz", classifier)
        show(result, test)
        print(f"report, table and model in {out}")


def run_of(command: Any, data: Dataset) -> dict:
    """What tells a run of a command on some data from others, in the values of JSON."""
    facts = {"command": type(command).__name__.lower(), **asdict(command), "data": data.sha256}
    for name in ("out", "overwrite", "device"):
        facts.pop(name)
    return json.loads(json.dumps(facts, default=str))


def parse_grid(axes: tuple[str, ...]) -> dict[str, list]:
    """The grid of axes such as ``l2=1e-3:1:4`` and ``loss=log_loss``.

    Raises:
      ValueError: text that is no axis.
    """
    grid = {}
    for axis in axes:
        key, equals, text = axis.partition("=")
        if not (key and equals and text) or key in grid:
            raise ValueError(
                f"a grid axis is KEY=VALUE,VALUE,... or KEY=FROM:TO:COUNT, each key once; got "
                f"{axis!r}"
            )
        grid[key] = _range(axis, text) if ":" in text else [_value(x) for x in text.split(",")]
    return grid


def _range(axis: str, text: str) -> list[float]:
    try:
        first, last, count = text.split(":")
        first, last, count = float(first), float(last), int(count)
    except ValueError:
        raise ValueError(f"a range is FROM:TO:COUNT, got {axis!r}") from None
    if not (0 < first < np.inf and 0 < last < np.inf and count >= 1):
        raise ValueError(f"a range needs positive ends and a count of at least 1, got {axis!r}")
    return np.geomspace(first, last, count).tolist()


def _value(text: str):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None if text == "none" else text


def parts_of(
    source: str, command: Any, *, several: bool = False
) -> tuple[Dataset, Dataset, transforms.Standardiser | None]:
    """The training and the test part of a dataset, and the scaling that fits the training part.

    Args:
      source: the name of the dataset.
      command: a command with the options of :class:`Recipe` that say how data are read.
      several: whether rows may have several labels.
    """
    recipe = Recipe(source, **{name: getattr(command, name) for name in _READING})
    train = load(recipe, "train", several=several)
    show_table(train)
    test = load(recipe, "test", train.plan, several=several)
    return train, test, fit_scaling(train)


def scaled_batch(data: Dataset, scaling: transforms.Standardiser | None) -> Batch:
    """The rows of a dataset, scaled and flat."""
    features = np.asarray(transforms.scaled(scaling, data.features))
    features = features.reshape(len(data.labels), -1)
    several = data.labels.ndim == 2
    return make_batch(features, data.labels, num_classes=None if several else data.num_classes)


def own_batch(data: Dataset, scaling: transforms.Standardiser | None) -> Batch:
    """The rows of this process, where there are several."""
    own = own_slice(len(data.labels))
    part = data._replace(features=data.features[own], labels=data.labels[own])
    return scaled_batch(part, scaling)


def classifier_of(params: LinearParams, train: Dataset, scaling) -> Classifier:
    """The classifier with one row of weights per class, as model files have it."""
    if np.ndim(params.weights) == 1:
        # Each class gets half, which gives the same difference of logits.
        params = jax.tree.map(lambda x: np.stack([-x / 2, x / 2]), params)
    pixels = str(train.features.dtype) if scaling is None else ""
    architecture = Architecture(
        "linear", train.features.shape[1:], train.num_classes, (), 0.0, pixels
    )
    return Classifier(
        architecture, params, train.class_names, train.feature_names, scaling, train.plan
    )


def show(result: SweepResult, test: Dataset) -> None:
    """Prints the best configurations, and the measures of the one that was chosen."""
    print(statuses(result))
    chosen = result.selection
    if chosen is None:
        return
    best = best_configurations(chosen)
    print_table(best, "the best ten" if len(best.rows) == 10 else None)
    for sentence in edges(chosen):
        print(sentence)
    if chosen.test is not None:
        title = f"chosen, fitted again to all training rows, on {len(test.labels)} test rows:"
        of_shares = metrics.measures_of_shares(test.labels, test.num_classes)
        show_measures(title, dict(chosen.test), of_shares)
