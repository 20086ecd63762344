"""The `jaxclf probe` command: the best penalised linear classifier of some features."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from jaxclf import checks, metrics
from jaxclf.activations import softmax
from jaxclf.calibration import fit_temperature
from jaxclf.commands.console import check_seed, input_errors, print_table
from jaxclf.commands.device_options import DeviceOptions, check_same
from jaxclf.commands.evaluation import predict_logits
from jaxclf.commands.linear_fits import (
    classifier_of,
    own_batch,
    parse_grid,
    parts_of,
    run_of,
    scaled_batch,
    show,
)
from jaxclf.commands.probe_labels import fit_labels, keep_labels, show_labels
from jaxclf.data import Dataset, Standardiser, TableOptions
from jaxclf.files import atomic_folder, claimed_folder, write_json
from jaxclf.messages import shortened
from jaxclf.model_file import save_model
from jaxclf.objectives import Batch
from jaxclf.penalties import strength_from_sklearn
from jaxclf.reports.few_shot import CHOSEN, few_shot_table, write_few_shot
from jaxclf.reports.numbers import shown, titled
from jaxclf.reports.probe import write_predictions, write_probe_report
from jaxclf.reports.sweep import write_sweep
from jaxclf.sparse_rows import is_sparse, to_csr
from jaxclf.sweeps import FewShot, SweepResult, few_shot, sweep
from jaxclf.sweeps.few_shot import check_shots
from jaxclf.sweeps.rows import assign, held_rows
from jaxclf.sweeps.selection import Metric

_FOLDS, _FOLDED = 5, 20_000
_VALIDATION = 0.2
_KEYS = ("C", *CHOSEN)


@dataclass(frozen=True)
class Probe:
    """Choose the penalty of a linear classifier by held-out rows, fit it again, test it once.

    Rows for testing are the test part of the data, or a stratified fifth. By default 17 strengths
    are judged, by 5 folds up to 20000 rows and by a fifth of the training rows beyond.
    """

    features: str
    """A file or a folder: a table, arrays, images; or digits, iris, wine, breast_cancer, tfds:NAME.
    `jaxclf datasets list` tells all kinds."""
    grid: tuple[str, ...] = ("l2=1e-7:10:17",)
    """Axes KEY=VALUE,VALUE,... or KEY=FROM:TO:COUNT, spaced evenly in the logarithm. Keys: l2, or C
    (l2 = 1 / (C rows), as in scikit-learn); l1_ratio; class_weight."""
    folds: int | None = None
    """Folds that judge the penalties; by default 5 up to 20000 rows."""
    validation: float | None = None
    """Share of the training rows that judges the penalties, in place of folds; by default 0.2
    beyond 20000 rows."""
    metric: Metric = "log_loss"
    """Measure that judges the penalties. balanced_accuracy is the mean over classes."""
    rule: Literal["best", "one_standard_error"] = "best"
    """one_standard_error takes the strongest penalty within that error of the best mean."""
    shots: tuple[str, ...] = ()
    """Fit also to so few rows of each class, 1,2,4,8,16 for instance, and show what they reach."""
    tries: int = 5
    """Repetitions of the fits to few rows, each with rows of its own."""
    temperature: bool = False
    """Scale the logits by a temperature that is fitted to the rows that judge."""
    tol: float = 1e-5
    """Largest gap to the minimum, in nats."""
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
    out: Path = Path("results/probe")
    """Folder for model.npz, metrics.json, table.csv, predictions.csv, figures and report.html; the
    same command goes on where it stopped."""
    overwrite: bool = False
    """Replace the results of another run in the folder; else they stay, and a numbered folder
    beside it is used. Files that jaxclf did not write are never replaced."""

    def run(self) -> None:
        with ExitStack() as stack:
            with input_errors():
                self._check()
                devices = stack.enter_context(self.device.used())
                train, test, scaling = parts_of(self.features, self, devices)
                parts = train, test
                several = train.labels.ndim == 2
                shots = self._shots(train, several)
                folds, share = self._judges(len(train.labels))
                grid = self._grid(len(train.labels), folds)
                run = run_of(self, train)
                check_same("the options", run)
                first = jax.process_index() == 0
                out = stack.enter_context(
                    claimed_folder(self.out, run, overwrite=self.overwrite, writes=first)
                )
                rows = (
                    own_batch(train, scaling, self.offset),
                    own_batch(test, scaling, self.offset),
                )
                options = {"validation": share, "metric": self.metric, "rule": self.rule}
                options |= {"tol": self.tol, "seed": self.seed}
                options |= {"devices": devices, "checkpoint": out / "fits"}
                if several:
                    fits = fit_labels(grid, *rows, train.class_names, **options)
                else:
                    result = sweep(grid, rows[0], test=rows[1], verbose=True, **options)
                    few = self._few_shot(shots, grid, rows)
            if not first:
                return
            if several:
                how = f"{titled(self.metric)} on {f'{folds} folds' if folds else 'held-out rows'}"
                with input_errors(OSError):
                    keep_labels(*fits, how, parts, scaling, out)
                show_labels(*fits, len(test.labels))
            else:
                temperature = 1.0
                if self.temperature:
                    whole = scaled_batch(train, scaling, self.offset)
                    held_out = held_out_logits(result, whole, folds, share, self.seed)
                    temperature = fit_temperature(*held_out)
                with input_errors(OSError):
                    self._keep(result, few, temperature, parts, scaling, out)
        print(f"report, model and predictions in {out}")

    def _keep(
        self,
        result: SweepResult,
        few: tuple[FewShot, ...],
        temperature: float,
        parts: tuple[Dataset, Dataset],
        scaling: Standardiser | None,
        out: Path,
    ) -> None:
        """Writes the results into a folder, and prints them."""
        train, test = parts
        classifier = classifier_of(result.selection.params, train, scaling, self.offset)
        params = jax.tree.map(lambda x: x / temperature, classifier.params)
        classifier = classifier._replace(params=params)
        logits = np.asarray(predict_logits(classifier, test))
        facts = {
            "chosen": {key: result.selection.lane[key] for key in CHOSEN},
            "temperature": temperature,
            "test": metrics.measures(logits, test.labels),
            "class_shares": metrics.measures_of_shares(test.labels, test.num_classes),
            "classes": _classes(logits, test),
        }
        with atomic_folder(out) as folder:
            write_sweep(result, folder)
            if few:
                write_few_shot(few, folder / "few_shot.csv")
            probabilities = np.asarray(softmax(logits))
            write_predictions(folder / "predictions.csv", probabilities, test)
            write_json(folder / "metrics.json", facts)
            save_model(folder / "model.npz", classifier)
            write_probe_report(folder, facts, result, classifier, parts, probabilities, few)
        show(result, test)
        if few:
            print_table(few_shot_table(few, self.metric), "fits to few rows, on the test rows")
        if self.temperature:
            after = shown(facts["test"]["log_loss"])
            print(f"temperature {shown(temperature)}; log loss after it {after}")

    def _check(self) -> None:
        """Checks what can be checked before the data are read."""
        check_seed(self.seed)
        checks.check_number("tol", self.tol, above=0)
        checks.check_number("tries", self.tries, at_least=1)
        checks.check_number("folds", self.folds or 2, at_least=2)
        checks.check_number("validation", self.validation or 0.0, at_least=0, at_most=0.9)
        if self.folds and self.validation:
            raise ValueError("the penalties are judged by folds or by validation, not by both")
        self._grid(1, 0)

    def _shots(self, train: Dataset, several: bool) -> list[int]:
        """The numbers of rows of each class that are fitted to as well."""
        given = [text for part in self.shots for text in part.split(",") if text]
        if several and (given or self.temperature):
            raise ValueError("shots and temperature are for data of one label a row")
        if (given or several) and jax.process_count() > 1:
            what = "rows with several labels" if several else "fits to few rows"
            raise ValueError(f"{what} are for one process, got {jax.process_count()}")
        if not all(text.isdecimal() for text in given):
            raise ValueError(f"shots must be whole numbers, got {shortened(' '.join(given))}")
        return check_shots(list(map(int, given)), train.labels, self.metric) if given else []

    def _few_shot(
        self, shots: list[int], grid: dict, rows: tuple[Batch, Batch]
    ) -> tuple[FewShot, ...]:
        if not shots:
            return ()
        return few_shot(
            {key: values for key, values in grid.items() if key != "fold"},
            *rows,
            shots=shots,
            seeds=range(self.seed, self.seed + self.tries),
            metric=self.metric,
            tol=self.tol,
            verbose=True,
        )

    def _judges(self, num_rows: int) -> tuple[int, float]:
        """The number of folds, and the share of the rows; one of them is 0."""
        if self.folds or self.validation:
            return self.folds or 0, self.validation or 0.0
        return (_FOLDS, 0.0) if num_rows <= _FOLDED else (0, _VALIDATION)

    def _grid(self, num_rows: int, folds: int) -> dict:
        grid = parse_grid(self.grid)
        for key in grid:
            checks.check_option("grid key", key, _KEYS)
        if ("C" in grid) == ("l2" in grid):
            raise ValueError("the grid needs an axis of strengths, either C or l2")
        if "C" in grid:
            grid = {"l2": [strength_from_sklearn(C, num_rows) for C in grid.pop("C")], **grid}
        return grid | {"fold": list(range(folds))} if folds else grid


def held_out_logits(
    result: SweepResult, batch, folds: int, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logits ``(n, K)`` and labels of the rows that judged the chosen configuration.

    The logits come from fits that did not see these rows.
    """
    labels = np.asarray(batch.labels)
    roles, features = assign(labels, folds, share, seed), batch.features
    features = to_csr(features) if is_sparse(features) else np.asarray(features)
    logits, found = [], []
    for place, row in enumerate(result.table):
        if {**row["lane"], "fold": None} != result.selection.lane:
            continue
        held = held_rows(row["lane"], roles)
        weights, intercept = jax.tree.map(
            lambda x, place=place: np.asarray(x[place]), result.params
        )
        z = features[held] @ weights.T + intercept
        z = z if batch.offset is None else z + np.asarray(batch.offset)[held]
        logits.append(z if z.ndim == 2 else np.stack([np.zeros_like(z), z], 1))
        found.append(labels[held])
    return np.concatenate(logits), np.concatenate(found)


def _classes(logits: np.ndarray, test: Dataset) -> list[dict]:
    """The name of each class with its rows, recall and precision."""
    of_classes = metrics.by_class(logits.argmax(1), test.labels, test.num_classes)
    return [
        {"class": name, **{key: values[k].item() for key, values in of_classes.items()}}
        for k, name in enumerate(test.class_names)
    ]
