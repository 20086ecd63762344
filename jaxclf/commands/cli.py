"""The `jaxclf` command: fit, sweep, probe, evaluate, predict, explain, datasets."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

import jaxclf
from jaxclf.activations import softmax
from jaxclf.checks import check_option
from jaxclf.commands import recipe as recipes
from jaxclf.commands.console import input_errors, show_measures, show_notes, show_table
from jaxclf.commands.device_options import DeviceOptions
from jaxclf.commands.probe import Probe
from jaxclf.commands.recipe import Recipe, Trained
from jaxclf.commands.sweep import Sweep
from jaxclf.compilation_cache import use_compilation_cache
from jaxclf.data import Dataset, TableOptions, load_dataset
from jaxclf.data.sources import EMBEDDED, KINDS, SPLITS, kind_of
from jaxclf.data.streams import FeatureChunks, feature_chunks
from jaxclf.data.table_plan import TablePlan, plan_of_numbers
from jaxclf.data.tables import harmless, listed
from jaxclf.data.tfds_source import prepare_tfds
from jaxclf.files import (
    atomic_folder,
    atomic_write,
    choose_file,
    claimed_folder,
    set_aside,
    write_json,
)
from jaxclf.model_file import load_model, save_model
from jaxclf.training import jsonl_log, tensorboard_log
from jaxclf.training.callbacks import is_jsonl_log
from jaxclf.training.checkpoints import CheckpointError, remove_checkpoints


@dataclass(frozen=True)
class Source:
    """The dataset and its options."""

    dataset: str
    """Dataset, in the form that `jaxclf fit` takes."""
    label: str | None = None
    """Label column of a table: its name, its position from 1, or last; by default that of the
    model, or a good guess."""
    table: TableOptions = field(default_factory=TableOptions)
    seed: int = 0
    """Seed of the split, where the dataset has no parts of its own: the seed of the training."""
    data_dir: Path | None = None
    """Folder of TensorFlow Datasets, if not its default."""

    def load(self, split: str, plan: TablePlan | None = None) -> Dataset:
        options = {"label": self.label, "table": self.table, "plan": plan}
        options |= {"seed": self.seed, "data_dir": self.data_dir}
        return load_dataset(self.dataset, split=split, **options)


@dataclass(frozen=True)
class Fit:
    """Train a classifier and write model.npz, metrics.json and history.jsonl."""

    recipe: Recipe
    out: Path = Path("results/fit")
    """Folder for results and checkpoints; the same command goes on where it stopped."""
    overwrite: bool = False
    """Start anew, and replace the results of another run in the folder; else they stay, and a
    numbered folder beside it is used. Files that jaxclf did not write are never replaced."""
    device: DeviceOptions = field(default_factory=DeviceOptions)
    verbose: int = 1
    """0 prints nothing while training, 1 shows progress, 2 also a line per epoch."""
    tensorboard: bool = False
    """Write the curves for TensorBoard too, to the folder's tensorboard/."""

    def run(self) -> None:
        with ExitStack() as stack:
            with input_errors():
                devices = stack.enter_context(self.device.used())
                first = jax.process_index() == 0
                train = recipes.prepare(self.recipe, devices)
                # The test part is read before training, so that a failure comes early.
                test = recipes.load(self.recipe, "test")
                run = {**self._run(), "test": test.sha256}
                out = stack.enter_context(claimed_folder(self.out, run, overwrite=self.overwrite))
                callbacks = []
                if first:
                    show_table(test)
                    if self.overwrite:
                        remove_checkpoints(out / "checkpoints")
                    if not is_jsonl_log(out / "history.jsonl"):
                        set_aside(out / "history.jsonl")
                    callbacks.append(jsonl_log(out / "history.jsonl"))
                    if self.tensorboard:
                        log = tensorboard_log(out / "tensorboard")
                        callbacks.append(stack.enter_context(log))
            with input_errors(OSError, CheckpointError):
                trained = train(out / "checkpoints", callbacks, self.verbose if first else 0)
                if trained.result.status == "nonfinite":
                    sys.exit("error: the loss became infinite; try a lower learning rate")
                if first:
                    self._keep(out, trained, test)

    def _run(self) -> dict:
        """What tells this run from others. More epochs go on with a run, unless the schedule of its
        steps depends on their number."""
        recipe = recipes.as_json(self.recipe)
        if self.recipe.schedule == "constant":
            del recipe["epochs"]
        return {"command": "fit", **recipe}

    def _keep(self, out: Path, trained: Trained, test: Dataset) -> None:
        """Writes the model and its measures on the test part, and prints the measures."""
        measured = recipes.evaluate(trained.classifier, test)
        facts = {
            "recipe": recipes.as_json(self.recipe),
            "status": trained.result.status,
            "train": {"rows": len(trained.train.labels), "sha256": trained.train.sha256},
            "test": {"sha256": test.sha256, **measured},
        }
        with atomic_folder(out) as folder:
            save_model(folder / "model.npz", trained.classifier)
            write_json(folder / "metrics.json", facts)
        show_measures(f"{trained.result.status}; on the test part", measured)
        if (fall := recipes.fall_at_the_end(trained.result.history)) > recipes.PLATEAU:
            print(
                f"The loss of the training rows still fell by {fall:.2g} nats in the last fifth of "
                "the epochs: more --epochs may lower it further."
            )
        print(f"model in {out / 'model.npz'}")


@dataclass(frozen=True)
class Evaluate:
    """Accuracy, log loss, Brier score and calibration of a model on a dataset."""

    model: Path
    """A model.npz of `jaxclf fit`."""
    source: Source
    split: str = "test"
    """Part of the dataset: all, train or test."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        with input_errors():
            classifier = load_model(self.model)
            data = self.source.load(self.split, classifier.plan)
            measured = recipes.evaluate(classifier, data)
        if self.json:
            print(json.dumps(measured))
        else:
            show_notes(data.notes)
            show_measures(f"{self.source.dataset}, {self.split}", measured)


@dataclass(frozen=True)
class Predict:
    """Write the class and probabilities of every row as comma-separated text.

    Tables, npy:FILE and npz:FILE with an array features need no labels, and are read and predicted
    some thousand rows at a time.
    """

    model: Path
    """A model.npz, of `jaxclf fit` for instance."""
    source: Source
    out: Path = Path("predictions.csv")
    """File to write."""
    overwrite: bool = False
    """Replace the file if it is there; else a numbered one beside it is written. It never replaces
    the model or the dataset."""
    raw_text: bool = False
    """Write names of classes as they are, also those that a spreadsheet would take for formulas."""
    split: str = "all"
    """Part of the dataset: all, train or test. A part needs labels, and is read as a whole."""

    def run(self) -> None:
        with input_errors():
            classifier = load_model(self.model)
            dataset, plan = self.source.dataset, classifier.plan
            check_option("split", self.split, SPLITS)
            if plan is None and classifier.feature_names:
                plan = plan_of_numbers(classifier.feature_names)
            found = feature_chunks(dataset, plan) if self.split == "all" else None
            if found is None:
                data = self.source.load(self.split, classifier.plan)
                found = FeatureChunks(iter([recipes.matched_columns(classifier, data)]))
            show_notes(found.notes)
            given = Path(kind_of(dataset)[1]).expanduser()
            out = choose_file(self.out, (self.model, given), overwrite=self.overwrite)
            logits_of_rows = recipes.make_predict(classifier, dataset)
            names = [str(name) for name in classifier.class_names]
            names = names if self.raw_text else [harmless(name) for name in names]
            count = 0
            with (
                atomic_write(out) as partial,
                open(partial, "w", newline="", encoding="utf-8") as file,
            ):
                writer = csv.writer(file)
                writer.writerow(["row", "class", *(f"p({name})" for name in names)])
                for features in found.arrays:
                    for p in np.asarray(softmax(logits_of_rows(features))):
                        writer.writerow([count, names[p.argmax()], *(f"{x:.6g}" for x in p)])
                        count += 1
                if count == 0:
                    raise ValueError(f"{dataset}: expected at least one row")
        print(f"{count} rows to {out}")


@dataclass(frozen=True)
class Show:
    """Show the contents of a dataset, and its source."""

    source: Source
    split: str = "all"
    """Part of the dataset: all, train or test."""

    def run(self) -> None:
        with input_errors():
            data = self.source.load(self.split)
        _print_contents(data)
        print(f"sha256    {data.sha256}")


@dataclass(frozen=True)
class Explain:
    """Say what would be done with a table, without fitting: its columns, its labels, its rows."""

    source: Source

    def run(self) -> None:
        with input_errors():
            data = self.source.load("train")
        show_table(data)
        _print_contents(data)
        print("The other rows are kept for testing.")
        if data.num_classes < 2:
            what = "All rows have one label" if data.num_classes else "The labels have fractions"
            print(f"{what}, so there is nothing to classify: --label takes another column.")


@dataclass(frozen=True)
class Prepare:
    """Prepare tfds:mnist, tfds:fashion_mnist or tfds:kmnist, without TensorFlow."""

    dataset: str
    """Dataset, as tfds:NAME."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Folder with the four IDX files; downloaded if not given."""
    data_dir: Path | None = None
    """Folder of TensorFlow Datasets, if not its default."""

    def run(self) -> None:
        with input_errors():
            kind, _, name = self.dataset.partition(":")
            if kind != "tfds" or not name:
                raise ValueError(f"dataset must be tfds:NAME, got {self.dataset!r}")
            folder = prepare_tfds(name, self.source, self.data_dir)
            data = load_dataset(self.dataset, data_dir=self.data_dir)
        print(f"{len(data.labels)} rows in {folder}")


@dataclass(frozen=True)
class List:
    """List the datasets that come with the package, and the kinds of files that are read."""

    def run(self) -> None:
        for name, about in sorted(EMBEDDED.items()):
            print(f"{name:<14} {about}")
        for kind, about in KINDS.items():
            print(f"{kind:<14} {about}")


@dataclass(frozen=True)
class Datasets:
    """Look at datasets and prepare them."""

    command: (
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[Prepare, tyro.conf.subcommand("prepare")]
    )

    def run(self) -> None:
        self.command.run()


def _print_contents(data: Dataset) -> None:
    print(f"source    {data.source}")
    print(f"features  {data.features.dtype} {data.features.shape}")
    if data.num_classes:
        counts = np.bincount(data.labels, minlength=data.num_classes)
        named = [f"{n}: {count}" for n, count in zip(data.class_names, counts, strict=True)]
        print("classes   " + listed(named, quoted=False))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    if (arguments if arguments is not None else sys.argv[1:]) == ["--version"]:
        print(f"jaxclf {jaxclf.__version__}")
        return
    use_compilation_cache()
    command = tyro.extras.subcommand_cli_from_dict(
        {
            "fit": Fit,
            "sweep": Sweep,
            "probe": Probe,
            "evaluate": Evaluate,
            "predict": Predict,
            "explain": Explain,
            "datasets": Datasets,
        },
        prog="jaxclf",
        description="Fit, evaluate and use linear, logistic and softmax classifiers in JAX.",
        args=arguments,
        config=(
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.OmitArgPrefixes,
            tyro.conf.PositionalRequiredArgs,
        ),
    )
    try:
        command.run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
