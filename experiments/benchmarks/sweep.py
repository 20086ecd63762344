"""Sweeps of softmax regression, ours as lanes, others' one fit after another.

Convex lanes are judged by their gap F - F* in float64, where F* comes from `sweep` in float64 with
its bound. Minibatch lanes take the same number of the same steps. Compilation is paid before the
clock starts.
"""

from __future__ import annotations

import importlib.util
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")  # read by Keras when it is imported

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import logsumexp

from experiments import cli
from experiments.benchmarks import machine
from jaxclf import Batch, load_dataset, make_batch, sweep
from jaxclf.data import transforms
from jaxclf.files import atomic_folder, write_json
from jaxclf.reports import plots
from jaxclf.sweeps import rows

BATCH, GAP = 256, 1e-4
RATES, DECAYS = np.geomspace(1e-3, 1, 13), (0.0, 1e-5, 1e-4, 1e-3)
LANES = (1, 8, 32, 128)
STRENGTHS = np.geomspace(1e-5, 1e-1, 20)
NUM_FOLDS = 5


@dataclass(frozen=True)
class Config:
    """Seconds of whole sweeps, beside other libraries."""

    dataset: str | None = None
    """The large data set, as jaxclf.load_dataset takes it; without it only the folds of digits."""
    work: tuple[str, ...] = ("folds", "heads", "lanes", "path")
    """Works to run."""
    repeats: int = 3
    """Runs per number, of which the median counts."""
    out: Path = Path("results/benchmarks/sweep")
    """Folder for sweep.json and sweep.png."""


def run(config: Config) -> None:
    """Runs the works, prints their tables, and writes their times."""
    works = {"folds": folds, "heads": heads, "lanes": lanes, "path": path}
    with cli.input_errors():
        for name in config.work:
            if name not in works:
                raise ValueError(f"work must be one of {', '.join(works)}; got {name!r}")
        if config.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {config.repeats}")
        large = None if config.dataset is None else floats(config.dataset)
        names = [name for name in config.work if name == "folds" or large is not None]
        if not names:
            raise ValueError(f"work {config.work[0]!r} needs --dataset")
        stage = atomic_folder(config.out)
    with stage as folder:
        measured = {}
        for name in names:
            print(f"{name} …", flush=True)
            data = floats("digits") if name == "folds" else large
            measured[name] = works[name](data, config.repeats)
            show(name, measured[name])
        facts = machine.describe()
        write_json(folder / "sweep.json", {"machine": facts, "works": measured})
        if "lanes" in measured:
            draw_lanes(measured["lanes"], facts, folder / "sweep.png")


def floats(name: str) -> Batch:
    """The training rows in float32, with pixels in [0, 1] and standardised columns."""
    data = load_dataset(name, split="train")
    scaling = transforms.fit_scaling(data.features)
    features = np.asarray(transforms.scaled(scaling, data.features))
    return make_batch(
        features.reshape(len(features), -1), data.labels, num_classes=data.num_classes
    )


def folds(data: Batch, repeats: int) -> dict:
    """20 penalties by 5 equal folds, for `sweep` and for `LogisticRegressionCV(n_jobs=2)`."""
    from sklearn.linear_model import LogisticRegressionCV

    grid = {"l2": STRENGTHS, "fold": range(NUM_FOLDS)}
    optima = optima_of(grid, data)
    runs = {}
    for tol in (1e-3, GAP):
        result = sweep(grid, data, tol=tol)
        gaps = np.array([row["objective"] for row in result.table]) - optima
        seconds = machine.median_seconds(lambda tol=tol: sweep(grid, data, tol=tol), repeats)
        runs[f"jaxclf.sweep, tol {tol:g}"] = facts_of(seconds, gaps)
    features, labels = np.asarray(data.features), np.asarray(data.labels)
    number = rows.assign(labels, NUM_FOLDS, 0.0, 0).fold
    splits = [(np.flatnonzero(number != k), np.flatnonzero(number == k)) for k in range(NUM_FOLDS)]
    # C depends on the number of rows that are trained on, which is the same but for a few.
    C = 1 / (STRENGTHS * np.mean([len(train) for train, _ in splits]))
    for tol in (1e-4, 1e-6):
        model = LogisticRegressionCV(
            Cs=C, cv=splits, n_jobs=2, tol=tol, max_iter=100_000, scoring="neg_log_loss",
            l1_ratios=(0.0,), use_legacy_attributes=False,
        )  # fmt: skip
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(features, labels)
        seconds = time.perf_counter() - began
        gaps = [
            value_of(coefficients, features[train], labels[train], strength)
            for (train, _), along in zip(splits, model.coefs_paths_, strict=True)
            for strength, coefficients in zip(STRENGTHS, along[0], strict=True)
        ]
        # Our lanes are in the order of the grid: all folds of one strength after another.
        gaps = np.reshape(gaps, (NUM_FOLDS, -1)).T.ravel() - optima
        runs[f"LogisticRegressionCV, tol {tol:g}"] = facts_of(seconds, gaps)
    return {"lanes": len(optima), "runs": runs}


def value_of(coefficients, features, labels, strength: float) -> float:
    """F in float64 of weights with the intercept in their last column."""
    wide = np.asarray(coefficients, np.float64)
    z = features.astype(np.float64) @ wide[:, :-1].T + wide[:, -1]
    risk = np.mean(logsumexp(z, axis=1) - z[np.arange(len(z)), labels])
    return float(risk + strength / 2 * np.sum(wide[:, :-1] ** 2))


def optima_of(grid: dict, data: Batch) -> np.ndarray:
    """F* of every lane, certified in float64."""
    with jax.enable_x64(True):
        wide = Batch(jax.numpy.asarray(np.asarray(data.features, np.float64)), data.labels)
        table = sweep(grid, wide, tol=1e-12, max_steps=500).table
    worst = max(row["gap_bound"] for row in table)
    if worst > GAP / 100:
        raise RuntimeError(f"an optimum is only known to {worst:.1e}")
    return np.array([row["objective"] for row in table])


def facts_of(seconds: float, gaps: np.ndarray) -> dict:
    """The reported facts of a convex sweep."""
    return {
        "seconds": round(seconds, 4),
        "largest_gap": float(gaps.max()),
        "median_gap": float(np.median(gaps)),
    }


def path(data: Batch, repeats: int) -> dict:
    """45 penalties with C from 1e-6 to 1e5, for `sweep`, and seven of them for scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    n, C = len(data.labels), np.logspace(-6, 5, 45)
    strengths = 1 / (C * n)
    sweep({"l2": strengths[::11]}, data, tol=GAP)  # compiles
    began = time.perf_counter()
    result = sweep({"l2": strengths}, data, tol=GAP)
    seconds = time.perf_counter() - began
    found = {
        "seconds": round(seconds, 2),
        "lanes": [
            {"C": float(c), **{k: row[k] for k in ("seconds", "gap_bound", "passes", "status")}}
            for c, row in zip(C, result.table, strict=True)
        ],
    }
    features, labels = np.asarray(data.features), np.asarray(data.labels)
    runs = {"jaxclf.sweep": {"seconds": found["seconds"]}}
    others = {"newton-cg": [], "lbfgs": []}
    for solver, lanes in others.items():
        for i in np.linspace(0, 44, 7).round().astype(int):
            # At this tolerance both stop above the gap where C is large, which favours them.
            model = LogisticRegression(C=C[i], solver=solver, tol=1e-4, max_iter=1000)
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(features, labels)
            taken = time.perf_counter() - began
            wide = np.c_[model.coef_, model.intercept_]
            value = value_of(wide, features, labels, strengths[i])
            above = value - result.table[i]["objective"]
            lanes.append({"C": float(C[i]), "seconds": round(taken, 2), "above_ours": above})
            print(f"  {solver}, C = {C[i]:.1e}: {taken:.1f} s, {above:+.1e} from ours", flush=True)
        mean = float(np.mean([one["seconds"] for one in lanes]))
        runs[f"{solver}, 45 times the mean of 7"] = {"seconds": round(45 * mean, 1)}
    return {"lanes": 45, "runs": runs, "ours": found["lanes"], **others}


def heads(data: Batch, repeats: int) -> dict:
    """13 learning rates by 4 decays, SGD with momentum, one epoch; also for torch and Keras."""
    grid = {"learning_rate": RATES, "l2": DECAYS, "momentum": [0.9]}
    options = {"method": "minibatch", "epochs": 1}
    lanes = len(RATES) * len(DECAYS)
    seconds = machine.median_seconds(lambda: sweep(grid, data, **options), repeats)
    table = sweep(grid, data, **options).table
    runs = {"jaxclf.sweep": {"seconds": round(seconds, 3), "objectives": objectives(table)}}
    if importlib.util.find_spec("torch"):
        name = f"torch, {lanes} heads in one loop"
        runs[name] = {"seconds": round(torch_heads(data), 2)}
    if importlib.util.find_spec("keras"):
        alone = keras_seconds(data, repeats)
        name = f"Keras on JAX, {lanes} times one"
        runs[name] = {"seconds": round(lanes * alone, 1), "one": round(alone, 3)}
    return {"lanes": lanes, "runs": runs}


def objectives(table: Sequence[dict]) -> list[float]:
    """The mean loss of the epoch, lane by lane."""
    return [round(row["objective"], 4) for row in table]


def torch_heads(data: Batch) -> float:
    """One epoch of all heads on each batch in turn, as probes of frozen networks are trained."""
    import torch

    torch.manual_seed(0)
    x = torch.from_numpy(np.array(data.features))
    y = torch.from_numpy(np.array(data.labels)).long()
    num_classes = int(y.max()) + 1
    models = [torch.nn.Linear(x.shape[1], num_classes) for _ in range(len(RATES) * len(DECAYS))]
    optimizers = []
    settings = [(rate, decay) for rate in RATES for decay in DECAYS]
    for model, (rate, decay) in zip(models, settings, strict=True):
        groups = [{"params": [model.weight], "weight_decay": decay}, {"params": [model.bias]}]
        optimizers.append(torch.optim.SGD(groups, float(rate), momentum=0.9))
    began = time.perf_counter()
    order = torch.randperm(len(x))
    for start in range(0, len(x), BATCH):
        chosen = order[start : start + BATCH]
        features, labels = x[chosen], y[chosen]
        for optimizer in optimizers:
            optimizer.zero_grad()
        total = sum(torch.nn.functional.cross_entropy(m(features), labels) for m in models)
        total.backward()
        for optimizer in optimizers:
            optimizer.step()
    return time.perf_counter() - began


def keras_seconds(data: Batch, repeats: int) -> float:
    """Seconds of an epoch of one model; the first epoch is not counted."""
    import keras

    features, labels = np.asarray(data.features), np.asarray(data.labels)
    model = keras.Sequential(
        [keras.layers.Input(features.shape[1:]), keras.layers.Dense(int(labels.max()) + 1)]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    options = {"batch_size": BATCH, "epochs": 1, "verbose": 0}
    return machine.median_seconds(lambda: model.fit(features, labels, **options), repeats)


def lanes(data: Batch, repeats: int) -> dict:
    """An epoch of 1 to 128 lanes, with ten classes and with two (even or odd)."""
    runs, work = {}, {}
    two = data._replace(labels=data.labels % 2)
    for kind, batch in (("ten classes", data), ("two classes", two)):
        num_logits = 1 if kind == "two classes" else int(np.max(np.asarray(data.labels))) + 1
        for count in LANES:
            grid = {"learning_rate": np.geomspace(1e-3, 1, count)}
            seconds = machine.median_seconds(
                lambda grid=grid, batch=batch: sweep(grid, batch, method="minibatch", epochs=1),
                repeats,
            )
            runs[f"{kind}, {count} lanes"] = {
                "seconds": round(seconds, 4),
                "ms_per_lane": round(1e3 * seconds / count, 3),
            }
        work[kind] = 4 * data.features.size * num_logits
    return {"lanes": max(LANES), "runs": runs, "flops_per_lane": work}


def draw_lanes(measured: dict, facts: dict, path: Path) -> None:
    """A figure of the cost of a lane against the number of lanes, beside matrix products alone."""
    with plots.figure(path) as (_, ax):
        colors = (plots.BLUE, plots.ORANGE)
        for (kind, flops), color in zip(measured["flops_per_lane"].items(), colors, strict=True):
            costs = [measured["runs"][f"{kind}, {count} lanes"]["ms_per_lane"] for count in LANES]
            ax.loglog(LANES, costs, "o-", color=color, label=kind)
            limit = 1e3 * flops / (facts["gemm_gflops"] * 1e9)
            ax.axhline(limit, color=color, ls="--", lw=1, label=f"{kind}: matrix products at peak")
        ax.set(xlabel="lanes", ylabel="ms per lane and epoch")
        ax.set_xticks(LANES, [str(count) for count in LANES])
        ax.legend(fontsize=8)


def show(name: str, measured: dict) -> None:
    """Prints the table of one work."""
    table = Table(
        "", "seconds", "× ours", "largest gap", title=f"{name}: {measured['lanes']} lanes"
    )
    ours = next(iter(measured["runs"].values()))["seconds"]
    for who, facts in measured["runs"].items():
        gap = f"{facts['largest_gap']:.1e}" if "largest_gap" in facts else ""
        table.add_row(who, f"{facts['seconds']:.4g}", f"{facts['seconds'] / ours:.1f}", gap)
    Console(width=max(90, Console().width)).print(table)


if __name__ == "__main__":
    run(cli.parse(Config, "benchmarks.sweep"))
