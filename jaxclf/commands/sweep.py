"""The `jaxclf sweep` command: a grid over a dataset, its table, figures and best model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jax

from jaxclf.commands.console import (
    check_seed,
    input_errors,
)
from jaxclf.commands.device_options import DeviceOptions, check_same
from jaxclf.commands.linear_fits import (
    classifier_of,
    own_batch,
    parse_grid,
    parts_of,
    run_of,
    show,
)
from jaxclf.commands.recipe import check_one_label
from jaxclf.data import TableOptions
from jaxclf.files import atomic_folder, claimed_folder
from jaxclf.model_file import save_model
from jaxclf.reports.sweep import (
    write_sweep,
    write_sweep_report,
)
from jaxclf.sweeps import sweep
from jaxclf.sweeps.selection import Metric


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
    offset: str | None = None
    """Column of a table whose numbers are added to the logit of the second of two classes."""
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
                train, test, scaling = parts_of(self.dataset, self, devices)
                check_one_label(train)
                chooses = self.validation > 0 or "fold" in grid
                run = run_of(self, train)
                check_same("the options", run)
                first = jax.process_index() == 0
                out = stack.enter_context(
                    claimed_folder(self.out, run, overwrite=self.overwrite, writes=first)
                )
                result = sweep(
                    grid,
                    own_batch(train, scaling, self.offset),
                    method=self.method,
                    validation=self.validation,
                    test=own_batch(test, scaling, self.offset) if chooses else None,
                    metric=self.metric,
                    rule=self.rule,
                    tol=self.tol,
                    epochs=self.epochs,
                    halve_every=self.halve_every,
                    seed=self.seed,
                    devices=devices,
                    checkpoint=out / "fits",
                    verbose=True,
                )
            if not first:
                return
            with input_errors(OSError), atomic_folder(out) as folder:
                write_sweep(result, folder)
                write_sweep_report(result, folder, train, test)
                if result.selection is not None:
                    params = result.selection.params
                    classifier = classifier_of(params, train, scaling, self.offset)
                    save_model(folder / "model.npz", classifier)
        show(result, test)
        print(f"report, table and model in {out}")
