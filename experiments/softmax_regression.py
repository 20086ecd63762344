"""The classic run: softmax regression by minibatch descent, on any dataset and model.

Batch 256, SGD with step 0.1, weights that start normal with σ = 0.01, 10 epochs. What comes out:
the curves, the confusion matrix, each class's weights as an image, and the rows it gets wrong.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from experiments import cli
from jaxclf import metrics
from jaxclf.activations import softmax
from jaxclf.commands import evaluation, recipe
from jaxclf.commands.recipe import Recipe
from jaxclf.data import Dataset
from jaxclf.files import atomic_folder, write_json
from jaxclf.reports import plots
from jaxclf.reports.classifier_figures import draw_confusion
from jaxclf.reports.numbers import percent, shown, titled
from jaxclf.reports.report import Figure, Section, write_report
from jaxclf.reports.sweep import measures_table
from jaxclf.training import FitResult

TITLE = "Softmax regression by minibatch descent"
WRONG_ROWS = 24


@dataclass(frozen=True)
class Config:
    """Train a classifier by minibatch descent; look at what it learned and what it gets wrong."""

    recipe: Recipe = field(
        default_factory=lambda: Recipe("digits", validation=0.1, epochs=10, batch_size=256)
    )
    platform: str | None = None
    """cpu, gpu or tpu; JAX's own choice if not given."""
    out: Path = Path("results/softmax_regression")
    """Folder for metrics.json, the figures and report.html."""
    quick: bool = False
    """Run two epochs."""


def run(config: Config) -> None:
    """Runs the experiment; input that cannot be used ends it with one line and status 2."""
    began = time.perf_counter()
    plan = dataclasses.replace(config.recipe, epochs=2) if config.quick else config.recipe
    with ExitStack() as stack:
        with cli.input_errors():
            device = cli.choose_device(config.platform)
            stack.enter_context(jax.default_device(device))
            train = recipe.prepare(plan)
            test = recipe.load(plan, "test")
            folder = stack.enter_context(atomic_folder(config.out))
        trained = train(verbose=2)
        classifier, result = trained.classifier, trained.result
        if not result.history:
            sys.exit("error: the loss became infinite; try a lower learning rate")
        measured = evaluation.evaluate(classifier, test)
        logits = np.asarray(evaluation.predict_logits(classifier, test))
        counts = np.asarray(
            metrics.confusion_matrix(test.labels, logits.argmax(1), test.num_classes)
        )
        figures = [
            draw_curves(result, folder / "curves.png"),
            draw_confusion(counts, test.class_names, folder / "confusion.png"),
        ]
        shape = test.image_shape
        if shape and plan.model == "linear":
            weights = np.asarray(result.params.weights).reshape(-1, *shape)
            figures.append(draw_templates(weights, test.class_names, folder / "templates.png"))
        wrong = np.flatnonzero(logits.argmax(1) != test.labels)
        if shape and len(wrong):
            figures.append(draw_wrong(test, logits, wrong, shape, folder / "wrong.png"))

        facts = {"seconds": round(time.perf_counter() - began, 2), **cli.environment(device)}
        write_json(
            folder / "metrics.json",
            {
                "run": facts | {"quick": config.quick},
                "recipe": recipe.as_json(plan),
                "data": {"source": test.source, "sha256": test.sha256},
                "status": result.status,
                "history": result.history,
                "test": measured,
                "confusion_matrix": counts.tolist(),
            },
        )
        of_shares = metrics.measures_of_shares(test.labels, test.num_classes)
        table = measures_table(measured, of_shares)
        num_rows = len(trained.train.labels)
        right, guess = measured["accuracy"], of_shares["accuracy"]
        text = [
            f"The classifier names {percent(right)} of {measured['rows']} test rows right; always "
            f"naming the most frequent class would name {percent(guess)}.",
            f"{plan.model} on {test.source}: {num_rows} training rows, batch "
            f"{recipe.batch_size_of(plan, num_rows)}, {plan.optimizer} with learning rate "
            f"{plan.learning_rate:g}, "
            f"{len(result.history)} epochs, {result.status}. The held-out curve is measured on "
            "rows kept from training; the test part is used once, at the end.",
        ]
        sections = [Section("Result", text, table), Section("Figures", (), None, figures)]
        footer = ", ".join(f"{key} {value}" for key, value in facts.items())
        write_report(folder / "report.html", TITLE, sections, footer)
    for name, value in measured.items():
        print(f"{titled(name):<38}{shown(value)}")
    print(f"{facts['seconds']} s on {facts['device']}; read {config.out}/report.html")


def draw_curves(result: FitResult, path: Path) -> Figure:
    """Loss and accuracy against the epoch."""
    history = result.history
    epochs = [record["epoch"] + 1 for record in history]
    measured = "accuracy" in history[0]
    with plots.figure(path, columns=1 + measured, size=(4.2 * (1 + measured), 3.4)) as (_, axes):
        axes = np.atleast_1d(axes)
        axes[0].plot(epochs, [r["loss"] for r in history], "o-", color=plots.BLUE, label="training")
        axes[0].set(xlabel="epoch", ylabel="loss (nats)", title="Loss", ylim=(0, None))
        if measured:
            held_out = [r["log_loss"] for r in history]
            axes[0].plot(epochs, held_out, "s--", color=plots.ORANGE, label="held out")
            accuracies = [r["accuracy"] for r in history]
            axes[1].plot(epochs, accuracies, "s--", color=plots.ORANGE)
            axes[1].set(xlabel="epoch", ylabel="accuracy", title="Accuracy on held-out rows")
        axes[0].legend()
        for ax in axes:
            ax.xaxis.get_major_locator().set_params(integer=True)
    return Figure(
        path,
        "Mean loss of the steps of each epoch, taken before each step, so that the first epoch "
        "starts from new weights; and log loss and accuracy on held-out rows after it.",
    )


def draw_templates(weights: np.ndarray, names, path: Path) -> Figure:
    """Each class's weights as an image, all on one scale."""
    columns = min(5, len(weights))
    rows = math.ceil(len(weights) / columns)
    limit = np.abs(weights).max()
    size = (1.7 * columns, 1.9 * rows)
    with plots.figure(path, rows=rows, columns=columns, size=size) as (_, axes):
        for ax in np.ravel(axes):
            ax.axis("off")
        for ax, image, name in zip(np.ravel(axes), weights, names, strict=False):
            ax.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit)
            ax.set_title(name)
    return Figure(path, "Weights of each class: red pixels speak for it, blue ones against it.")


def draw_wrong(test: Dataset, logits, wrong, shape, path: Path) -> Figure:
    """The wrong predictions that the model was surest of, with both classes in words."""
    probabilities = np.asarray(softmax(logits))
    surest = wrong[np.argsort(-probabilities[wrong].max(1))][:WRONG_ROWS]
    columns = 6
    rows = math.ceil(len(surest) / columns)
    with plots.figure(path, rows=rows, columns=columns, size=(9.6, 2.1 * rows)) as (_, axes):
        for ax in np.ravel(axes):
            ax.axis("off")
        for ax, row in zip(np.ravel(axes), surest, strict=False):
            ax.imshow(test.features[row].reshape(shape), cmap="gray_r")
            called = probabilities[row].argmax()
            ax.set_title(
                f"is {test.class_names[test.labels[row]]}\n"
                f"called {test.class_names[called]} ({probabilities[row, called]:.0%})",
                fontsize=8,
            )
    return Figure(
        path,
        f"The {len(surest)} wrong predictions of which the model was surest, of {len(wrong)} wrong "
        f"among {len(test.labels)} test rows.",
    )


if __name__ == "__main__":
    run(cli.parse(Config, "softmax_regression"))
