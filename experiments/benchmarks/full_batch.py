"""Time to the optimum of L2-penalised logistic and softmax regression, ours and scikit-learn's.

Tolerances mean something else in every solver, so each is run at several and judged by its gap
F - F*: F of the weights it returned, computed in float64, and F* from `minimize` in float64 with
its bound. Compilation is paid before the clock starts, and reported apart.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import cli
from experiments.benchmarks import machine
from jaxclf import (
    Batch,
    load_dataset,
    losses,
    make_batch,
    make_objective,
    minimize,
    penalties,
    plots,
)
from jaxclf.data import Dataset, transforms
from jaxclf.models import linear
from jaxclf.penalties import strength_from_sklearn
from jaxclf.report import staged_folder, write_json

GAPS = (1e-3, 1e-4, 1e-5, 1e-6)
TOLERANCES = {
    "jaxclf.minimize": (1e-3, 1e-4, 1e-5, 1e-6),
    "lbfgs": (1e-3, 1e-4, 1e-5, 1e-6),
    "newton-cg": (1e-2, 1e-3, 1e-4, 1e-5),
    "newton-cholesky": (1e-2, 1e-4, 1e-6),
}
SLOW_SECONDS = 5.0


@dataclass(frozen=True)
class Config:
    """Seconds to a gap of 1e-3 … 1e-6, ours and scikit-learn's, in one run."""

    dataset: str = "digits"
    """As jaxclf.load_dataset takes it; numbers are standardised, pixels divided by 255."""
    C: float = 1.0
    """scikit-learn's inverse penalty."""
    binary: bool = False
    """Even against odd classes instead of all of them."""
    solver: tuple[str, ...] = ("newton-cg", "lbfgs")
    """scikit-learn's solvers to run: lbfgs, newton-cg, newton-cholesky."""
    repeats: int = 5
    """Runs at each tolerance, of which the median counts; runs of over five seconds are not
    repeated."""
    out: Path = Path("results/benchmarks/full_batch")
    """Folder for full_batch.json and full_batch.png."""


def run(config: Config) -> None:
    """Runs every solver, writes what it took, and prints the seconds to each gap."""
    with cli.input_errors():
        for name in config.solver:
            if name not in TOLERANCES or name == "jaxclf.minimize":
                raise ValueError(
                    f"solver must be lbfgs, newton-cg or newton-cholesky; got {name!r}"
                )
        if config.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {config.repeats}")
        features, labels, num_classes = prepare(config)
        l2 = strength_from_sklearn(config.C, len(labels))
        stage = staged_folder(config.out)
    loss = losses.bernoulli_nll if num_classes == 2 else losses.categorical_nll
    objective = make_objective(linear.logits, loss, penalties.l2(l2))
    outputs = None if num_classes == 2 else num_classes
    start = linear.init(jax.random.key(0), features.shape[1], outputs, stddev=0)
    batch = make_batch(features, labels, num_classes=num_classes)

    with stage as folder, cli.progress_bar() as bar:
        task = bar.add_task("optimum in float64", total=2 + len(config.solver))
        best = optimum(objective, start, features, labels)
        bar.update(task, advance=1, description="jaxclf.minimize")
        runs, compile_seconds = time_ours(objective, start, batch, config.repeats)
        runs = {"jaxclf.minimize": runs}
        bar.update(task, advance=1)
        for name in config.solver:
            bar.update(task, description=f"scikit-learn {name}")
            peer = time_peer(name, objective, start, features, labels, config)
            runs[f"scikit-learn {name}"] = peer
            bar.update(task, advance=1)
        for points in runs.values():
            for point in points:
                point["gap"] = point.pop("value") - best["value"]
        times = {name: seconds_to_gaps(points) for name, points in runs.items()}
        shape = [*features.shape, num_classes]
        write_json(
            folder / "full_batch.json",
            {
                "work": {"dataset": config.dataset.split(":")[0], "shape": shape, "C": config.C},
                "machine": machine.describe(),
                "optimum": best,
                "compile_seconds": round(compile_seconds, 2),
                "seconds_to_gap": times,
                "runs": runs,
            },
        )
        draw(runs, folder / "full_batch.png")
    show(times, shape, config.C)


def prepare(config: Config) -> tuple[np.ndarray, np.ndarray, int]:
    """Float32 features ``(n, d)``, int32 labels, and how many classes."""
    data: Dataset = load_dataset(config.dataset, split="train")
    if not data.num_classes:
        raise ValueError(f"{config.dataset} has no classes: its labels are not whole numbers")
    if np.issubdtype(data.features.dtype, np.unsignedinteger):
        features = np.array(transforms.to_float(data.features))
    else:
        standardiser = transforms.fit_standardiser(data.features)
        features = np.array(transforms.standardise(standardiser, data.features))
    labels = data.labels % 2 if config.binary else data.labels
    classes = 2 if config.binary else data.num_classes
    return features.reshape(len(labels), -1), labels.astype(np.int32), classes


def optimum(objective, start, features, labels) -> dict:
    """F* in float64, with the bound that certifies it."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda w: np.asarray(w, np.float64), start)
        batch = Batch(jax.numpy.asarray(features, np.float64), jax.numpy.asarray(labels))
        result = minimize(objective, wide, batch, tol=1e-13)
    return {"value": result.value, "gap_bound": result.gap_bound, "status": result.status}


def time_ours(objective, start, batch, repeats: int) -> tuple[list[dict], float]:
    """Seconds and value of `minimize` at each tolerance, and what its first call took more."""
    points, compile_seconds = [], None
    for tol in TOLERANCES["jaxclf.minimize"]:
        began = time.perf_counter()
        result = minimize(objective, start, batch, tol=tol)
        first = time.perf_counter() - began
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            result = minimize(objective, start, batch, tol=tol)
            seconds.append(time.perf_counter() - began)
            if seconds[-1] > SLOW_SECONDS:
                break
        median = float(np.median(seconds))
        if compile_seconds is None:
            compile_seconds = first - median
        points.append(
            {
                "tol": tol,
                "seconds": round(median, 5),
                "value": result.value,
                "gap_bound": result.gap_bound,
                "status": result.status,
                "steps": result.steps,
                "passes": round(result.passes, 1),
            }
        )
    return points, compile_seconds


def time_peer(name: str, objective, start, features, labels, config: Config) -> list[dict]:
    """Seconds and float64 value of a solver of scikit-learn at each of its tolerances."""
    from sklearn.linear_model import LogisticRegression

    with jax.enable_x64(True):
        batch = Batch(jax.numpy.asarray(features, np.float64), jax.numpy.asarray(labels))
        value_of = jax.jit(objective)
    points = []
    for tol in TOLERANCES[name]:
        model = LogisticRegression(C=config.C, tol=tol, solver=name, max_iter=100_000)
        seconds = []
        for _ in range(config.repeats):
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the gap says what the solver's warnings would
                model.fit(features, labels)
            seconds.append(time.perf_counter() - began)
            if seconds[-1] > SLOW_SECONDS:
                break
        with jax.enable_x64(True):
            found = linear.LinearParams(
                np.asarray(model.coef_, np.float64).reshape(np.shape(start.weights)),
                np.asarray(model.intercept_, np.float64).reshape(np.shape(start.intercept)),
            )
            value = float(value_of(found, batch))
        points.append({"tol": tol, "seconds": round(float(np.median(seconds)), 5), "value": value})
    return points


def seconds_to_gaps(points: list[dict]) -> dict[str, float | None]:
    """The least seconds in which any run came as close as each gap; null where none did."""
    reached = {}
    for gap in GAPS:
        seconds = [point["seconds"] for point in points if point["gap"] <= gap]
        reached[f"{gap:g}"] = min(seconds, default=None)
    return reached


def draw(runs: dict, path: Path) -> None:
    """Gap against seconds, both logarithmic."""
    colors = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK)
    with plots.figure(path) as (_, ax):
        for (name, points), color in zip(runs.items(), colors, strict=False):
            points = sorted(points, key=lambda point: point["seconds"])
            gaps = [max(point["gap"], 1e-12) for point in points]
            seconds = [point["seconds"] for point in points]
            ax.loglog(seconds, gaps, "o-", color=color, label=name)
        ax.set(xlabel="seconds", ylabel="F - F*, float64", title="Closer to the optimum, by when")
        ax.legend()


def show(times: dict, shape: list[int], C: float) -> None:
    """The table in the terminal."""
    title = f"seconds to a gap, {' × '.join(map(str, shape))}, C = {C:g}"
    table = Table("", *(f"{gap:g}" for gap in GAPS), title=title)
    ours = times["jaxclf.minimize"]
    for name, reached in times.items():
        cells = []
        for gap, seconds in reached.items():
            if seconds is None:
                cells.append("-")
            elif name == "jaxclf.minimize" or ours[gap] is None:
                cells.append(f"{seconds:.3g}")
            else:
                cells.append(f"{seconds:.3g} ({seconds / ours[gap]:.1f}×)")
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    run(cli.parse(Config, "benchmarks.full_batch"))
