"""Is squared error or log loss convex in the weights of a classifier, on real data?

Three arms, side by side: log loss, squared error on the probability, and squared error on the raw
logits, which is convex and shows that the link is to blame.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import jax
import numpy as np
from rich.console import Console

from experiments import cli
from experiments.convexity import measure, page
from experiments.convexity.results import as_json, measure_dataset, num_steps
from experiments.convexity.witness_file import write_witness
from jaxclf.data import load_dataset
from jaxclf.files import atomic_folder, write_json
from jaxclf.reports.report import write_report

FULL = measure.Size(40, 200, 30, 16, 300)
QUICK = measure.Size(10, 48, 2, 4, 150)
# A K-class Hessian has K² as many entries, so fewer of them are taken.
FULL_MANY = FULL._replace(weights_per_scale=8, hunt_steps=15, starts_per_scale=5)
QUICK_MANY = QUICK._replace(weights_per_scale=2, starts_per_scale=2)


@dataclass(frozen=True)
class Config:
    """Is squared error or log loss convex in the weights of a classifier? Measured on real data."""

    dataset: tuple[str, ...] = ("breast_cancer", "digits")
    """One or more of breast_cancer, digits, iris, wine."""
    platform: str | None = None
    """cpu, gpu or tpu; JAX's own choice if not given."""
    seed: int = 0
    """Seed of the sampled weights, segments and starts."""
    out: Path = Path("results/convexity")
    """Folder for metrics.json, the figures, report.html and the witnesses, which
    experiments.verify_witness replays."""
    quick: bool = False
    """Take a quarter of the samples."""


def size_for(num_classes: int, quick: bool) -> measure.Size:
    """The sizes of the samples for a dataset."""
    if num_classes == 2:
        return QUICK if quick else FULL
    return QUICK_MANY if quick else FULL_MANY


def run(config: Config) -> None:
    """Runs the experiment; input that cannot be used ends it with one line and status 2."""
    began = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        with cli.input_errors():
            device = cli.choose_device(config.platform)
            stack.enter_context(jax.default_device(device))
            cli.check_seed(config.seed)
            names = dict.fromkeys(config.dataset)
            if not names:
                raise ValueError("dataset needs at least one name")
            problems = [measure.prepare(load_dataset(n, dtype=np.float64)) for n in names]
            folder = stack.enter_context(atomic_folder(config.out))

        # Half the time goes to compilation, which leaves a core idle, so each dataset has a thread.
        # Contexts belong to a thread, so each enters its own.
        def work(problem: measure.Problem, size: measure.Size):
            with jax.enable_x64(True), jax.default_device(device):
                return measure_dataset(problem, size, config.seed, advance)

        sizes = [size_for(p.dataset.num_classes, config.quick) for p in problems]

        with cli.progress_bar() as bar:
            task = bar.add_task("", total=sum(map(num_steps, sizes)) + 1)
            stopped = Event()

            def advance(what: str) -> None:
                if stopped.is_set():
                    raise KeyboardInterrupt  # in a thread, which Ctrl-C does not reach
                bar.update(task, advance=1, description=what)

            with ThreadPoolExecutor(max_workers=2) as pool:
                try:
                    results = dict(zip(names, pool.map(work, problems, sizes), strict=True))
                except BaseException:
                    stopped.set()
                    raise
            bar.update(task, description="drawing")
            try:
                keep(results, folder, config, device, time.perf_counter() - began)
            except OSError:  # the disk may be full, and the work is not to be lost
                stack.callback(page.show, Console(), results)
                raise
            advance("done")

    page.show(Console(), results)
    seconds = time.perf_counter() - began
    print(f"{seconds:.1f} s on {cli.environment(device)['device']}; read {config.out}/report.html")


def keep(results: dict, folder: Path, config: Config, device: jax.Device, seconds: float) -> None:
    """Draws the figures and writes all files."""
    parts = page.sections(results, folder)
    for result in results.values():
        write_witness(result, folder)
    facts = {"seed": config.seed, "quick": config.quick, "seconds": round(seconds, 2)}
    facts |= cli.environment(device)
    measured = {name: as_json(result) for name, result in results.items()}
    write_json(folder / "metrics.json", {"run": facts, "datasets": measured})
    footer = ", ".join(f"{key} {value}" for key, value in facts.items())
    write_report(folder / "report.html", page.TITLE, parts, footer)


if __name__ == "__main__":
    run(cli.parse(Config, "convexity"))
