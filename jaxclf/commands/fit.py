"""The `jaxclf fit` command: a classifier trained by minibatches, its measures and its curves."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jax

from jaxclf import metrics
from jaxclf.checks import check_number
from jaxclf.commands import recipe as recipes
from jaxclf.commands.console import input_errors, show_measures, show_table
from jaxclf.commands.device_options import DeviceOptions, check_same
from jaxclf.commands.evaluation import evaluate
from jaxclf.commands.recipe import Recipe, Trained
from jaxclf.data import Dataset
from jaxclf.files import atomic_folder, claimed_folder, set_aside, write_json
from jaxclf.model_file import save_model
from jaxclf.training import jsonl_log, tensorboard_log
from jaxclf.training.callbacks import is_jsonl_log
from jaxclf.training.checkpoints import CheckpointError, remove_checkpoints


@dataclass(frozen=True)
class Fit:
    """Train a classifier and write model.npz, metrics.json and history.jsonl."""

    recipe: Recipe
    out: Path = Path("results/fit")
    """Folder for results and checkpoints; the same command goes on where it stopped."""
    overwrite: bool = False
    """Start anew, and replace the results of another run in the folder; else they stay, and a
    numbered folder beside it is used. Files that jaxclf did not write are never replaced."""
    save_seconds: float = 30.0
    """Seconds between two checkpoints; the first ones come sooner."""
    device: DeviceOptions = field(default_factory=DeviceOptions)
    verbose: Literal[0, 1, 2] = 1
    """0 prints nothing while training, 1 shows progress, 2 also a line per epoch."""
    tensorboard: bool = False
    """Write the curves for TensorBoard too, to the folder's tensorboard/."""

    def run(self) -> None:
        with ExitStack() as stack:
            with input_errors():
                check_number("save_seconds", self.save_seconds, at_least=0)
                devices = stack.enter_context(self.device.used())
                first = jax.process_index() == 0
                check_same("the options", recipes.as_json(self.recipe))
                train = recipes.prepare(self.recipe, devices)
                # The test part is read before training, so that a failure comes early.
                test = recipes.load(self.recipe, "test")
                run = {**self._run(), "test": test.sha256}
                out = stack.enter_context(
                    claimed_folder(self.out, run, overwrite=self.overwrite, writes=first)
                )
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
                verbose = self.verbose if first else 0
                trained = train(out / "checkpoints", callbacks, verbose, self.save_seconds)
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
        measured = evaluate(trained.classifier, test)
        of_shares = metrics.measures_of_shares(test.labels, test.num_classes)
        facts = {
            "recipe": recipes.as_json(self.recipe),
            "status": trained.result.status,
            "train": {"rows": len(trained.train.labels), "sha256": trained.train.sha256},
            "test": {"sha256": test.sha256, **measured},
            "class_shares": of_shares,
        }
        with atomic_folder(out) as folder:
            save_model(folder / "model.npz", trained.classifier)
            write_json(folder / "metrics.json", facts)
        title = f"{trained.result.status}; on {measured['rows']} test rows"
        show_measures(title, measured, of_shares)
        if (fall := recipes.fall_at_the_end(trained.result.history)) > recipes.PLATEAU:
            print(
                f"The loss of the training rows still fell by {fall:.2g} nats in the last fifth of "
                "the epochs: more --epochs may lower it further."
            )
        print(f"model in {out / 'model.npz'}")
