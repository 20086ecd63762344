"""What a penalty does: the regularisation path of softmax regression, and its templates.

    F(W, b; λ) = mean log loss + λ/2 ‖W‖²

For every λ of a grid the optimum is found on each fold's training rows. Three things are known
before: as λ falls, the training loss at the optimum falls and ‖W‖ grows, for

    λ < λ'  ⇒  L(λ) ≤ L(λ')  and  ‖W(λ)‖ ≥ ‖W(λ')‖

(add F(W; λ) ≤ F(W'; λ) and F(W'; λ') ≤ F(W; λ')); and λ ‖W‖² ≤ 2 log K, since F(W) ≤ F(0). The
held-out loss is not monotone: its minimum is what the folds are asked for.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from experiments import cli
from jaxclf import load_dataset, make_batch, metrics, plots, sweep
from jaxclf.data import Dataset, transforms
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.report import Figure, Section, Table, staged_folder, write_report
from jaxclf.sweep_report import draw_path, write_sweep
from jaxclf.sweeps import SweepResult

TITLE = "What a penalty does"
SHOWN = 5
"""Places on the path whose templates are drawn."""


@dataclass(frozen=True)
class Config:
    """The regularisation path of softmax regression, its cross-validation and its templates."""

    dataset: str = "digits"
    """digits, iris, wine, breast_cancer, idx:FOLDER, tfds:NAME, npz:FILE or csv:FILE."""
    strengths: int = 20
    """Penalties, from 1e-6 to 1."""
    folds: int = 5
    """Of the cross-validation."""
    tol: float = 1e-5
    """How close to each optimum, in nats."""
    platform: str | None = None
    """cpu, gpu or tpu; JAX's own choice if not given."""
    seed: int = 0
    """Of the splits."""
    out: Path = Path("results/sweep_experiment")
    """Folder for table.csv, sweep.json, the figures and report.html."""


def run(config: Config) -> None:
    """The whole experiment; input that cannot be used ends it with one line and status 2."""
    began = time.perf_counter()
    with ExitStack() as stack:
        with cli.input_errors():
            device = cli.choose_device(config.platform)
            stack.enter_context(jax.default_device(device))
            cli.check_seed(config.seed)
            if min(config.strengths, config.folds) < 2:
                raise ValueError("strengths and folds must be at least 2")
            data, train, test = prepare(config)
            folder = stack.enter_context(staged_folder(config.out))
            grid = {"l2": np.geomspace(1e-6, 1, config.strengths), "fold": range(config.folds)}
            result = sweep(
                grid, train, test=test, tol=config.tol, seed=config.seed, verbose=True,
                rule="one_standard_error",
            )  # fmt: skip
        whole = sweep({"l2": grid["l2"]}, train, tol=config.tol)
        facts = facts_of(whole, train)
        claims = check(facts, int(train.labels.max()) + 1, config.tol)
        write_sweep(result, folder)
        figures = [
            Figure(
                draw_path(result.selection, folder / "path.png"),
                "Held-out log loss with one standard error of the folds. Chosen is the strongest "
                "penalty within one standard error of the best.",
            ),
            draw_facts(facts, folder / "norm.png"),
        ]
        image = image_shape(data)
        if image is not None:
            figures.append(draw_templates(whole, grid["l2"], image, folder / "templates.png"))
        chosen = result.selection
        text = [
            f"{data.source}. Every optimum is certified to {config.tol:g} nats. On the test rows, "
            f"which chose nothing, the model with λ = {chosen.lane['l2']:.2g} has accuracy "
            f"{chosen.test['accuracy']:.4f} and log loss {chosen.test['log_loss']:.4f}."
        ]
        seconds = round(time.perf_counter() - began, 2)
        rows = [[claim, "yes" if holds else "NO", shown] for claim, holds, shown in claims]
        table = Table(["claim", "holds", "measured"], rows)
        footer = ", ".join(f"{k} {v}" for k, v in cli.environment(device).items())
        section = Section("Along the path", text, table, figures)
        write_report(folder / "report.html", TITLE, [section], f"{seconds} s, {footer}")
    for claim, holds, shown in claims:
        print(f"{'holds' if holds else 'FAILS'}  {claim}: {shown}")
    print(f"{seconds} s; read {config.out}/report.html")


def prepare(config: Config) -> tuple[Dataset, Batch, Batch]:
    """The training part as it is, and both parts scaled."""
    parts = [load_dataset(config.dataset, split=s, seed=config.seed) for s in ("train", "test")]
    data = parts[0]
    if not data.num_classes:
        raise ValueError(f"{config.dataset} has no classes: its labels are not whole numbers")
    scaling = transforms.fit_scaling(data.features)
    batches = [
        make_batch(
            np.asarray(transforms.scaled(scaling, part.features)).reshape(len(part.labels), -1),
            part.labels,
            num_classes=data.num_classes,
        )
        for part in parts
    ]
    return data, *batches


def facts_of(result: SweepResult, train: Batch) -> dict[str, np.ndarray]:
    """Training loss and ‖W‖ at each optimum over all training rows."""
    logits_of = jax.vmap(linear.logits, (None, 0))
    losses, norms = [], []
    for i in range(len(result.table)):
        params = jax.tree.map(lambda x, i=i: x[i], result.params)
        losses.append(float(metrics.log_loss(logits_of(params, train.features), train.labels)))
        norms.append(float(np.sqrt(np.sum(np.square(params.weights, dtype=np.float64)))))
    strengths = np.array([row["lane"]["l2"] for row in result.table])
    return {"strength": strengths, "loss": np.array(losses), "norm": np.array(norms)}


def check(facts: dict, num_classes: int, tol: float) -> list[tuple[str, bool, str]]:
    """The three claims, with what was measured, and room for optima known to ``tol`` = ε.

    The algebra of the first lines with ε at each optimum: ``(λ' - λ)/2 (‖W'‖² - ‖W‖²) ≤ 2 ε`` and
    ``L(λ) - L(λ') ≤ ε + 2 ε λ / (λ' - λ)``.
    """
    strength, loss, square = facts["strength"], facts["loss"], facts["norm"] ** 2
    apart = np.diff(strength)
    falls = np.min(np.diff(loss) + tol * (1 + 2 * strength[:-1] / apart))
    grows = np.max(apart / 2 * np.diff(square))
    largest = np.max(strength * square)
    bound, step = 2 * np.log(num_classes), np.diff(loss).min()
    return [
        (
            "the training loss falls with λ",
            falls >= 0,
            f"least step {step:.1e} nats",
        ),
        ("‖W‖ grows as λ falls", grows <= 2 * tol, f"largest step {grows:.1e} nats"),
        ("λ ‖W‖² ≤ 2 log K", largest <= bound, f"{largest:.3g} ≤ {bound:.3g}"),
    ]


def draw_facts(facts: dict, path: Path) -> Figure:
    """Training loss and norm against λ."""
    with plots.figure(path, columns=2, size=(9, 3.6)) as (_, axes):
        axes[0].loglog(facts["strength"], facts["loss"], "o-", ms=4, color=plots.BLUE)
        axes[0].set(xlabel="λ", ylabel="training log loss (nats)")
        axes[1].loglog(facts["strength"], facts["norm"], "o-", ms=4, color=plots.ORANGE)
        axes[1].set(xlabel="λ", ylabel="‖W‖")
    return Figure(path, "Both are monotone in λ, by two lines of algebra.")


def image_shape(data: Dataset) -> tuple[int, int] | None:
    """Height and width if the features are pictures: by shape, or a square of pixels."""
    if data.features.ndim == 3:
        return data.features.shape[1:]
    side = int(np.sqrt(data.features.shape[1]))
    pixels = any("pixel" in name for name in data.feature_names)
    return (side, side) if pixels and side**2 == data.features.shape[1] else None


def draw_templates(result: SweepResult, strengths, shape: tuple[int, int], path: Path) -> Figure:
    """The rows of W as pictures, for some λ."""
    weights = np.asarray(result.params.weights)
    weights = weights[:, None] if weights.ndim == 2 else weights
    places = np.linspace(0, len(strengths) - 1, SHOWN).round().astype(int)
    rows, columns = len(places), weights.shape[1]
    with plots.figure(path, rows=rows, columns=columns, size=(9, 1.05 * rows),
                      squeeze=False) as (_, axes):  # fmt: skip
        for line, i in zip(axes, places, strict=True):
            limit = np.abs(weights[i]).max()
            for k, ax in enumerate(line):
                picture = weights[i, k].reshape(shape)
                ax.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit)
                ax.set(xticks=[], yticks=[])
                ax.grid(visible=False)
            line[0].set_ylabel(f"λ = {strengths[i]:.0e}", fontsize=8)
    return Figure(
        path,
        "Templates of the classes along the path, each row on its own scale. Weak penalties let "
        "single pixels decide; strong ones leave differences of class means.",
    )


if __name__ == "__main__":
    run(cli.parse(Config, "sweep"))
