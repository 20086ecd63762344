"""Time to the optimum of penalised logistic and softmax regression, ours and others'.

Tolerances mean something else in every solver, so each solver runs at several tolerances and is
judged by its gap F - F*. F is the objective of the returned weights, computed in float64. F* comes
from `minimize` in float64 with its bound; with L2 a second solver confirms it. Compilation is paid
before the clock starts, and reported apart.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Column, Table

from experiments import cli
from experiments.benchmarks import machine, peers
from experiments.benchmarks.works import WORKS, Problem, Work, prepare
from jaxclf import (
    Batch,
    load_dataset,
    minimize,
)
from jaxclf.data import Dataset
from jaxclf.files import atomic_folder, write_json
from jaxclf.models import linear
from jaxclf.reports import plots

GAPS = (1e-3, 1e-4, 1e-5, 1e-6)
OURS = "jaxclf.minimize"
OUR_TOLERANCES = (1e-2, 2e-4, 1e-5, 1e-6)
COMPILED = ("skglm",)
"""Solvers whose first fit compiles."""


@dataclass(frozen=True)
class Config:
    """Seconds to a gap of 1e-3 … 1e-6, ours and others', in one run."""

    dataset: str | None = None
    """The large data set, as jaxclf.load_dataset takes it; without it only the small works run."""
    work: tuple[str, ...] = tuple(WORKS)
    """Works to run."""
    repeats: int = 5
    """Runs at each tolerance, of which the median counts; a run of over five seconds is not
    repeated."""
    out: Path = Path("results/benchmarks/full_batch")
    """Folder for full_batch.json and full_batch.png."""


def run(config: Config) -> None:
    """Runs every solver, writes its times, and prints the seconds to each gap."""
    with cli.input_errors():
        for name in config.work:
            if name not in WORKS:
                raise ValueError(f"work must be one of {', '.join(WORKS)}; got {name!r}")
        if config.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {config.repeats}")
        names = [n for n in config.work if config.dataset or WORKS[n].data != "large"]
        if not names:
            raise ValueError(f"work {config.work[0]!r} needs --dataset")
        large = load_dataset(config.dataset, split="train") if config.dataset else None
        stage = atomic_folder(config.out)
    facts, measured = machine.describe(), {}
    with stage as folder, cli.progress_bar() as bar:
        task = bar.add_task("", total=sum(2 + len(WORKS[name].peers) for name in names))
        for name in names:

            def tell(what: str, name=name) -> None:
                bar.update(task, advance=1, description=f"{name}: {what}")

            measured[name] = measure(WORKS[name], large, config.repeats, facts, tell)
            show(name, measured[name])
        write_json(folder / "full_batch.json", {"machine": facts, "works": measured})
        drawn = next((name for name in names if WORKS[name].data == "large"), names[0])
        draw(drawn, measured[drawn]["runs"], folder / "full_batch.png")


def measure(work: Work, large: Dataset | None, repeats: int, facts: dict, tell: Callable) -> dict:
    """The numbers of all solvers on one work; solvers that are not installed have none."""
    tell(OURS)
    with jax.enable_x64(work.dtype == np.float64):
        problem = prepare(work, large)
        points, compile_seconds, peak = time_ours(problem, repeats)
    num_logits = np.size(problem.start.weights) // problem.features.shape[1]
    limit = machine.least_seconds(facts, problem.features, num_logits)
    for point in points:
        point["share_of_limit"] = round(point["passes"] * limit / point["seconds"], 3)
    tell("optimum in float64")
    best = optimum(problem, work)
    runs = {OURS: points}
    for name in work.peers:
        tell(name)
        if peers.is_installed(name):
            runs[name] = time_peer(name, work, problem, repeats)
    for points in runs.values():
        for point in points:
            point["gap"] = point.pop("value") - best["value"]
    return {
        "rows, features, logits": [*problem.features.shape, num_logits],
        "C": work.C if work.l1 == 0 else None,
        "l1": work.l1,
        "optimum": best,
        "compile_seconds": round(compile_seconds, 2),
        "growth_mb": peak,
        "features_mb": round(problem.features.nbytes / 2**20, 1),
        "seconds_to_gap": {name: seconds_to_gaps(points) for name, points in runs.items()},
        "runs": runs,
    }


def wide(problem: Problem) -> tuple[Any, Batch]:
    """The start and the batch in float64, for use in 64-bit mode."""
    start = jax.tree.map(lambda w: np.asarray(w, np.float64), problem.start)
    features = jax.numpy.asarray(problem.features, np.float64)
    return start, Batch(features, jax.numpy.asarray(problem.labels))


def optimum(problem: Problem, work: Work) -> dict:
    """F* in float64, with the bound that certifies it and the value that another solver found."""
    with jax.enable_x64(True):
        start, batch = wide(problem)
        result = minimize(problem.objective, start, batch, tol=1e-11 if work.l1 else 1e-13)
        facts = {"value": result.value, "gap_bound": result.gap_bound, "status": result.status}
        if not work.l1 and work.confirmed:
            second = minimize(
                problem.objective, start, batch, tol=1e-11, solver="lbfgs", max_steps=3000
            )
            facts["second solver's value"] = second.value
            if abs(second.value - result.value) > 1e-8:
                raise RuntimeError(f"two solvers disagree: {result.value!r}, {second.value!r}")
    return facts


def time_ours(problem: Problem, repeats: int) -> tuple[list[dict], float, float | None]:
    """Seconds and value of `minimize` at each tolerance, and the cost of its first call.

    The cost is the seconds that the first call took more, and the MiB by which the process grew in
    it. The growth tells the memory that is needed for the first work of a run alone, because later
    works find memory that others have left.
    """
    points, compile_seconds, peak = [], 0.0, None
    for tol in OUR_TOLERANCES:

        def work(tol=tol):
            return minimize(problem.objective, problem.start, problem.batch, tol=tol)

        before = machine.reset_peak_memory()
        began = time.perf_counter()
        result = work()
        first = time.perf_counter() - began
        if peak is None and before is not None:
            peak = round((machine.peak_memory() - before) / 2**20, 1)
        median = machine.median_of_runs(work, repeats)
        compile_seconds = max(compile_seconds, first - median)
        points.append(
            {
                "tol": tol,
                "seconds": round(median, 5),
                "value": result.value,
                "gap_bound": result.gap_bound,
                "status": result.status,
                "solver": result.solver,
                "steps": result.steps,
                "passes": round(result.passes, 1),
                "nonzero": int(np.count_nonzero(result.params.weights)),
            }
        )
    return points, compile_seconds, peak


def time_peer(name: str, work: Work, problem: Problem, repeats: int) -> list[dict]:
    """Seconds and float64 value of another solver at each of its tolerances."""
    start = problem.start
    with jax.enable_x64(True):
        _, batch = wide(problem)
        value_of = jax.jit(problem.objective)
    points = []
    for tol in work.peers[name]:
        fit = peers.make_fit(name, work, tol, problem.features, problem.labels)
        fitted = []

        def run(fit=fit, fitted=fitted):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the gap says what the solver's warnings would
                fitted[:] = fit()

        if name in COMPILED:
            run()
        seconds = machine.median_of_runs(run, repeats)
        weights = np.asarray(fitted[0], np.float64).reshape(np.shape(start.weights))
        intercept = None
        if work.intercept:
            intercept = np.asarray(fitted[1], np.float64).reshape(np.shape(start.intercept))
        with jax.enable_x64(True):
            value = float(value_of(linear.LinearParams(weights, intercept), batch))
        points.append(
            {
                "tol": tol,
                "seconds": round(seconds, 5),
                "value": value,
                "nonzero": int(np.count_nonzero(weights)),
            }
        )
    return points


def seconds_to_gaps(points: list[dict]) -> dict[str, float | None]:
    """The least seconds in which any run came as close as each gap; null where none did."""
    reached = {}
    for gap in GAPS:
        seconds = [point["seconds"] for point in points if point["gap"] <= gap]
        reached[f"{gap:g}"] = min(seconds, default=None)
    return reached


def draw(name: str, runs: dict, path: Path) -> None:
    """Draws the gap against the least seconds in which a run came as close, both logarithmic."""
    from matplotlib.ticker import LogLocator, NullFormatter

    colors = plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK, plots.SKY, plots.YELLOW, plots.BLACK
    with plots.figure(path) as (_, ax):
        for (solver, points), color in zip(runs.items(), colors[: len(runs)], strict=True):
            gaps = sorted((point["gap"] for point in points), reverse=True)
            seconds = [min(p["seconds"] for p in points if p["gap"] <= gap) for gap in gaps]
            ax.loglog(seconds, np.maximum(gaps, 1e-12), "o-", color=color, label=solver)
        ax.set(xlabel="seconds", ylabel="F - F*, float64", title=f"Gap against time: {name}")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.legend()


def show(name: str, facts: dict) -> None:
    """Prints the table of one work."""
    shape = " × ".join(map(str, facts["rows, features, logits"]))
    table = Table(
        Column("seconds to gap", no_wrap=True),
        *(f"{gap:g}" for gap in GAPS),
        title=f"{name}, {shape}",
    )
    ours = facts["seconds_to_gap"][OURS]
    for solver, reached in facts["seconds_to_gap"].items():
        cells = []
        for gap, seconds in reached.items():
            if seconds is None:
                cells.append("-")
            elif solver == OURS or ours[gap] is None:
                cells.append(f"{seconds:.3g}")
            else:
                cells.append(f"{seconds:.3g} ({seconds / ours[gap]:.1f}×)")
        table.add_row(solver, *cells)
    Console(width=max(100, Console().width)).print(table)


if __name__ == "__main__":
    run(cli.parse(Config, "benchmarks.full_batch"))
