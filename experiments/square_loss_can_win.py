"""Can squared error on raw outputs be as good as log loss, or better, on test rows?

Answer: yes. Squared error on raw outputs, tuned as fairly, is ahead of log loss on some data and
models, so convexity in the link does not decide test accuracy by itself.

Question: convexity and matching links speak for log loss. Hui and Belkin (Evaluation of neural
architectures trained with square loss vs cross-entropy in classification tasks, ICLR 2021) trained
networks with squared error on raw outputs and found them as good or better on most tasks. Is that
so of linear models and of a small network?

Procedure: both losses on the same rows and the same splits, drawn anew for every seed: a fifth to
test, a quarter of the rest to choose. Linear models are solved to their certified optimum for every
λ of a grid; networks of one hidden layer of 64 are trained by Adam for every step size of a grid.
For each loss by itself the best on the held-out rows, by accuracy, is measured once on the test's;
the linear one after it was solved anew on all others.

Expected: no theorem says which wins. Hui and Belkin report squared error ahead on most tasks of
language and speech, a little behind on images. A linear model of least squares may mask a class
behind others (Hastie, Tibshirani and Friedman, 2009, section 4.2), so there log loss should lead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx

from experiments import cli, study
from experiments.study import Claim, Found
from jaxclf import fit, load_dataset, losses, make_batch, make_objective, sweep
from jaxclf.data import transforms
from jaxclf.metrics import accuracy
from jaxclf.models.flax_module import flax_module
from jaxclf.models.networks import MLP
from jaxclf.objectives import Batch, Objective
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

LINEAR = {"log loss": "log_loss", "squared error": "onehot_squared_error"}
DEEP = {"log loss": losses.categorical_nll, "squared error": losses.onehot_squared_error}
STRENGTHS = np.geomspace(1e-6, 1, 13)
RATES = (1e-3, 3e-3, 1e-2)


@dataclass(frozen=True)
class Config(study.Options):
    """Test accuracy of squared error on raw outputs against log loss, fairly tuned."""

    dataset: tuple[str, ...] = ("digits", "wine", "iris")
    """Data of more than two classes, as jaxclf.load_dataset takes them."""
    seeds: int = 10
    """Splits of the rows."""
    out: Path = Path("results/square_loss_can_win")
    """Folder for metrics.json, the figure and report.html."""


def check(config: Config) -> None:
    if config.seeds < 2:
        raise ValueError(f"seeds must be at least 2 for an error bar, got {config.seeds}")
    for name in config.dataset:
        data = load_dataset(name)
        if not data.num_classes or data.num_classes < 3:
            raise ValueError(f"{name} needs more than two classes, it has {data.num_classes}")


def split(name: str, seed: int) -> tuple[Batch, Batch, Batch]:
    """Rows to train on, to choose by and to test on, scaled by the rows of the first two."""
    data = load_dataset(name)
    features = np.asarray(data.features, np.float32).reshape(len(data.labels), -1)
    order = np.random.default_rng(seed).permutation(len(features))
    test, rest = np.split(order, [len(order) // 5])
    scaling = transforms.fit_scaling(features[rest])
    features = np.asarray(transforms.scaled(scaling, features))
    choose, train = np.split(rest, [len(rest) // 4])
    parts = (make_batch(features[rows], data.labels[rows], num_classes=data.num_classes)
             for rows in (train, choose, test))  # fmt: skip
    return tuple(parts)


def linear_accuracy(loss: str, train: Batch, choose: Batch, test: Batch) -> float:
    """The test accuracy with the penalty that is best on the held-out rows."""
    grid = {"l2": STRENGTHS, "loss": [loss]}
    found = sweep(grid, train, validation=choose, test=test, metric="accuracy", tol=1e-6)
    return float(found.selection.test["accuracy"])


@lru_cache(maxsize=8)
def network(num_features: int, num_classes: int) -> tuple[Callable, dict[str, Objective]]:
    """``seed -> params`` and the objective of each loss; made once, so that they compile once."""

    def made(seed: int):
        rngs = nnx.Rngs(seed)
        return flax_module(MLP(num_features, num_classes, hidden=(64,), rngs=rngs))

    logits = made(0).logits
    return lambda seed: made(seed).params, {
        name: make_objective(logits, loss) for name, loss in DEEP.items()
    }


OPTIMIZERS = [optax.adam(rate) for rate in RATES]


def network_accuracy(loss: str, seed: int, epochs: int, *parts: Batch) -> float:
    """The test accuracy of one hidden layer with the step size that is best on held-out rows."""
    train, choose, test = parts
    classes = int(max(np.max(np.asarray(part.labels)) for part in parts)) + 1
    start, objectives = network(train.features.shape[1], classes)
    objective = objectives[loss]

    def right(params, rows: Batch) -> float:
        logits = jax.vmap(objective.logits_fn, (None, 0))(params, rows.features)
        return float(accuracy(logits, rows.labels))

    trained = [
        fit(
            objective, start(seed), train, optimizer=optimizer, batch_size=32, epochs=epochs,
            key=jax.random.key(seed),
        ).params
        for optimizer in OPTIMIZERS
    ]  # fmt: skip
    return right(max(trained, key=lambda params: right(params, choose)), test)


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    seeds = min(config.seeds, 3) if config.quick else config.seeds
    names = config.dataset[-1:] if config.quick else config.dataset
    epochs = 20 if config.quick else 40
    found: dict[str, dict[str, list[float]]] = {}
    for name in names:
        linear = found[f"{name}, linear"] = {loss: [] for loss in LINEAR}
        deep = found[f"{name}, one hidden layer"] = {loss: [] for loss in DEEP}
        for seed in range(config.seed, config.seed + seeds):
            parts = split(name, seed)
            advance(f"{name}, split {seed}")
            for loss in LINEAR:
                linear[loss].append(linear_accuracy(LINEAR[loss], *parts))
                deep[loss].append(network_accuracy(loss, seed, epochs, *parts))
    claims, rows = [], []
    for name, both in found.items():
        square, log = (np.array(both[loss]) for loss in ("squared error", "log loss"))
        ahead = square - log
        error = float(ahead.std(ddof=1) / np.sqrt(seeds))
        rows.append(
            [name, *(f"{x.mean():.1%} ± {x.std(ddof=1) / np.sqrt(seeds):.1%}"
                     for x in (log, square)), f"{ahead.mean():+.1%} ± {error:.1%}"]
        )  # fmt: skip
    networks = {name: both for name, both in found.items() if "hidden" in name}
    differences = {
        name: float(np.mean(both["squared error"]) - np.mean(both["log loss"]))
        for name, both in found.items()
    }
    ahead_most = max(differences, key=differences.get)
    good = sum(differences[name] > -0.01 for name in networks)
    claims = [
        Claim(
            "networks with squared error are within 1 % of log loss, or ahead",
            "Hui and Belkin (2021), table 1",
            "difference of mean test accuracy, paired splits",
            f"on most of {len(networks)} data sets",
            ", ".join(f"{name.split(',')[0]} {differences[name]:+.1%}" for name in networks),
            good > len(networks) / 2,
        ),
        Claim(
            "squared error wins somewhere: convexity in the link does not decide by itself",
            "the counter-evidence",
            "difference ≥ 0 on some data set and model",
            f"at least one of {len(differences)}",
            f"{differences[ahead_most]:+.1%} on {ahead_most}",
            differences[ahead_most] >= 0,
        ),
    ]  # fmt: skip
    header = ["data and model", "log loss", "squared error", "squared error ahead by"]
    section = Section(
        "Test accuracy",
        [f"Mean over {seeds} splits ± its standard error; the last column is of paired splits."],
        Table(header, rows),
        [draw(found, folder / "square_loss_can_win.png")],
    )
    return Found(claims, [section], {"accuracy": found})


def draw(found: dict, path: Path) -> Figure:
    """A figure of the lead of squared error, with two standard errors."""
    with plots.figure(path, size=(6.2, 1 + 0.45 * len(found))) as (_, ax):
        for place, (_, both) in enumerate(found.items()):
            ahead = 100 * (np.array(both["squared error"]) - np.array(both["log loss"]))
            spread = 2 * ahead.std(ddof=1) / np.sqrt(len(ahead))
            ax.errorbar(ahead.mean(), -place, xerr=spread, fmt="o", color=plots.BLUE, capsize=3)
        ax.axvline(0, color=plots.BLACK, lw=1)
        ax.set_yticks(-np.arange(len(found)), list(found))
        ax.set_ylim(0.5 - len(found), 0.5)
        ax.set(xlabel="points of test accuracy that squared error is ahead")
    return Figure(path, "Squared error on raw outputs less log loss, ± 2 standard errors.")


STUDY = study.Study(
    "square_loss_can_win",
    "Squared error on raw outputs against log loss",
    __doc__,
    Config,
    measure,
    check,
)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "square_loss_can_win"))
