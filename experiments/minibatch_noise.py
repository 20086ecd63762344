"""How noisy is the gradient of a minibatch, and what does that do to training?

Drawn without replacement, the mean gradient g_B of B of n rows has

    E ‖g_B - g‖² = (σ² / B) · (n - B) / (n - 1),   σ² = mean over rows of ‖g_i - g‖²,

the finite-population formula (Cochran, Sampling Techniques, 1977, theorem 2.2). Measured beside it
on real data, at the first weights and after training; then the loss curves of three batch sizes.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table as TerminalTable

from experiments import cli
from jaxclf import Batch, fit, load_dataset, losses, make_batch, make_objective
from jaxclf.data import transforms
from jaxclf.files import atomic_folder, write_json
from jaxclf.models import linear
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table, write_report

TITLE = "The noise of minibatch gradients"


@dataclass(frozen=True)
class Config:
    """Gradient noise against batch size on real data, beside its formula; curves of three sizes."""

    dataset: str = "digits"
    """A dataset, as `jaxclf datasets list` names them."""
    epochs: int = 20
    """Epochs of each curve."""
    draws: int = 400
    """Batches drawn for each batch size."""
    platform: str | None = None
    """cpu, gpu or tpu; JAX's own choice if not given."""
    seed: int = 0
    """Seed of the weights and the draws."""
    out: Path = Path("results/minibatch_noise")
    """Folder for metrics.json, the figures and report.html."""
    quick: bool = False
    """Take a quarter of the draws and of the epochs."""


def noise_formula(variance: float, num_rows: int, batch_size) -> np.ndarray:
    """The expected noise ``(σ² / B) (n - B) / (n - 1)``."""
    batch_size = np.asarray(batch_size, float)
    return variance / batch_size * (num_rows - batch_size) / (num_rows - 1)


@partial(jax.jit, static_argnums=0)
def row_gradients(objective, params, data: Batch) -> jax.Array:
    """The gradient of each row's loss, ``(n, p)``."""

    def gradient(features, label):
        row = Batch(features[None], label[None])
        parts = jax.grad(lambda p: objective.per_example(p, row)[0])(params)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(parts)])

    return jax.vmap(gradient)(data.features, data.labels)


@jax.jit
def squared_error_of_mean(gradients: jax.Array, rows: jax.Array) -> jax.Array:
    """``‖mean of the chosen rows - mean of all‖²`` for each draw ``(draws, B)``."""
    centred = gradients - gradients.mean(0, keepdims=True)
    return jax.lax.map(lambda chosen: jnp.sum(centred[chosen].mean(0) ** 2), rows)


def measure_noise(objective, params, data: Batch, sizes, draws: int, rng) -> dict:
    """Variance of the rows' gradients, and per batch size the measured noise with its error."""
    gradients = row_gradients(objective, params, data)
    n = len(gradients)
    rows_of = np.asarray(gradients, np.float64)
    mean = rows_of.mean(0)
    variance = float(np.mean(np.sum((rows_of - mean) ** 2, 1)))
    measured, errors = [], []
    for size in sizes:
        rows = np.argsort(rng.random((draws, n)), axis=1)[:, :size]
        squares = np.asarray(squared_error_of_mean(gradients, rows))
        measured.append(float(squares.mean()))
        errors.append(float(squares.std(ddof=1) / np.sqrt(draws)))
    formula = noise_formula(variance, n, sizes).tolist()
    mean_square = float(np.sum(mean**2))
    return {
        "variance": variance,
        "squared_norm_of_mean": mean_square,
        "measured": measured,
        "standard_error": errors,
        "formula": formula,
    }


def prepare(config: Config):
    """The standardised rows (at most 2000), the objective and the first weights."""
    dataset = load_dataset(config.dataset, split="train", seed=config.seed)
    if not dataset.num_classes:
        raise ValueError(f"{config.dataset} has no classes: its labels are not whole numbers")
    rows = np.random.default_rng(config.seed).permutation(len(dataset.labels))[:2000]
    features = dataset.features[rows].reshape(len(rows), -1)
    standardiser = transforms.fit_standardiser(features)
    features = np.asarray(transforms.standardise(standardiser, features))
    data = make_batch(features, dataset.labels[rows], num_classes=dataset.num_classes)
    objective = make_objective(linear.logits, losses.categorical_nll)
    key = jax.random.key(config.seed)
    return dataset, data, objective, linear.init(key, features.shape[1], dataset.num_classes)


def run(config: Config) -> None:
    """Runs the experiment; input that cannot be used ends it with one line and status 2."""
    began = time.perf_counter()
    with ExitStack() as stack:
        with cli.input_errors():
            device = cli.choose_device(config.platform)
            stack.enter_context(jax.default_device(device))
            cli.check_seed(config.seed)
            if min(config.epochs, config.draws) < 8:
                raise ValueError("epochs and draws must be at least 8")
            dataset, data, objective, params = prepare(config)
            folder = stack.enter_context(atomic_folder(config.out))
        divisor = 4 if config.quick else 1
        epochs, draws = config.epochs // divisor, config.draws // divisor
        n = len(data.labels)
        sizes = [b for b in (1, 4, 16, 64, 256, 1024) if b < n] + [n]
        curve_sizes = [b for b in (8, 64) if b < n] + [n]
        rng = np.random.default_rng(config.seed)

        with cli.progress_bar() as bar:
            task = bar.add_task("fitting", total=len(curve_sizes) + 2)
            fits = {}
            for size in curve_sizes:
                fits[size] = fit(
                    objective,
                    params,
                    data,
                    optimizer=optax.sgd(0.1),
                    batch_size=size,
                    epochs=epochs,
                    key=jax.random.key(config.seed),
                    evaluate=jax.jit(lambda p: {"risk": objective(p, data)}),
                )
                bar.update(task, advance=1, description="drawing batches")
            noise = {}
            for when, point in (("start", params), ("end", fits[n].params)):
                noise[when] = measure_noise(objective, point, data, sizes, draws, rng)
                bar.update(task, advance=1)

        curves = {b: [float(r["risk"]) for r in f.history] for b, f in fits.items()}
        rows = noise_rows(noise, sizes)
        figures = [
            draw_noise(noise, sizes, folder / "noise.png"),
            draw_curves(curves, n, folder / "curves.png"),
        ]
        facts = {"seconds": round(time.perf_counter() - began, 2), "seed": config.seed}
        facts |= cli.environment(device)
        write_json(
            folder / "metrics.json",
            {
                "run": facts | {"quick": config.quick, "draws": draws},
                "data": {"source": dataset.source, "rows": n},
                "batch_sizes": sizes,
                "noise": noise,
                "risk_per_epoch": {str(b): curve for b, curve in curves.items()},
            },
        )
        header = ["weights", "batch size", "measured", "formula", "ratio"]
        text = [
            "Noise is the mean squared distance of a batch's mean gradient from that of all rows, "
            f"at the first weights (start) and after {epochs} steps over all rows (end). "
            "It falls like 1/B at first, and to zero at B = n, where nothing is left to chance."
        ]
        sections = [
            Section(
                "Noise falls with the batch size, to zero at all rows", text, None, figures[:1]
            ),
            Section("Small batches take more steps", (), None, figures[1:]),
            Section("Measured beside the formula", (), Table(header, rows)),
        ]
        footer = ", ".join(f"{key} {value}" for key, value in facts.items())
        write_report(folder / "report.html", TITLE, sections, footer)
    table = TerminalTable(*header, title=f"{config.dataset}: {n} rows, {draws} draws")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(f"{facts['seconds']} s on {facts['device']}; read {config.out}/report.html")


def noise_rows(noise: dict, sizes) -> list[list[str]]:
    """The table: a row per place and batch size."""
    rows = []
    for where, found in noise.items():
        measured = zip(
            sizes, found["measured"], found["standard_error"], found["formula"], strict=True
        )
        for size, value, error, formula in measured:
            ratio = f"{value / formula:.2f} ± {error / formula:.2f}" if formula else "-"
            # At B = n the noise is zero, and what is measured is the rounding of two means.
            shown = f"{value:.3g}" if formula else "0"
            rows.append([where, f"{size}", shown, f"{formula:.3g}", ratio])
    return rows


def draw_noise(noise: dict, sizes, path: Path) -> Figure:
    """Measured noise and the formula against the batch size."""
    with plots.figure(path, columns=len(noise), size=(9, 3.6), sharey=True) as (_, axes):
        n = sizes[-1]
        grid = np.geomspace(1, n - 1, 200)
        for ax, (where, found) in zip(axes, noise.items(), strict=True):
            ax.loglog(grid, noise_formula(found["variance"], n, grid), color=plots.BLUE,
                      label="(σ²/B)(n - B)/(n - 1)")  # fmt: skip
            ax.loglog(grid, found["variance"] / grid, ":", color=plots.BLACK, lw=1, label="σ²/B")
            spread = 2 * np.array(found["standard_error"][:-1])
            ax.errorbar(sizes[:-1], found["measured"][:-1], spread, fmt="o", color=plots.ORANGE,
                        label="measured, ± 2 errors")  # fmt: skip
            ax.axhline(found["squared_norm_of_mean"], color=plots.GREEN, ls="--", lw=1.2,
                       label="‖g‖², the signal")  # fmt: skip
            ax.set(xlabel="batch size B", title=f"at the {where}")
        axes[0].set_ylabel("E ‖g_B - g‖²")
        axes[0].legend(fontsize=8)
    return Figure(
        path,
        "Gradient noise against batch size, measured and by the finite-population formula. Where "
        "the noise is above the dashed line it is larger than the gradient itself.",
    )


def draw_curves(curves: dict, num_rows: int, path: Path) -> Figure:
    """Risk against epochs and against steps, for each batch size."""
    with plots.figure(path, columns=2, size=(9, 3.6), sharey=True) as (_, axes):
        colors = (plots.ORANGE, plots.GREEN, plots.BLUE)
        for (size, curve), color in zip(curves.items(), colors, strict=False):
            epochs = np.arange(1, len(curve) + 1)
            name = f"B = {size}" + (" (all rows)" if size == num_rows else "")
            axes[0].semilogy(epochs, curve, "o-", ms=3, color=color, label=name)
            axes[1].loglog(epochs * -(-num_rows // size), curve, "o-", ms=3, color=color)
        axes[0].set(xlabel="epoch: passes over the rows", ylabel="risk over all rows (nats)")
        axes[1].set(xlabel="steps")
        axes[0].legend()
    return Figure(
        path,
        "The same step size 0.1. Per pass over the data small batches win, because they take more "
        "steps; per step large batches are at least as good.",
    )


if __name__ == "__main__":
    run(cli.parse(Config, "minibatch_noise"))
