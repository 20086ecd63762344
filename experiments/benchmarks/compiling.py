"""The cost of compiling: imports, first fits with and without a cache on disk, and many shapes.

Every number is measured in a process of its own, which has compiled nothing before. The fits are
fits of `jaxclf.LogisticRegression`, on standardised features in float64; large data are divided by
their largest number, in float32.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments import cli
from experiments.benchmarks import machine
from jaxclf.compilation_cache import VARIABLE
from jaxclf.files import atomic_folder, write_json

DATASETS = ("iris", "breast_cancer", "digits")
IMPORTS = {
    "jax": "import jax",
    "scikit-learn's base": "import sklearn.base",
    "jaxclf": "import jaxclf",
    "jaxclf and the estimator": "from jaxclf import LogisticRegression",
}
TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
FIRST_FIT = """
import json, sys, time
import jax
import numpy as np
from jaxclf import LogisticRegression, load_dataset
from jaxclf.compilation_cache import use_compilation_cache

use_compilation_cache()
name, compiled = sys.argv[1], []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **facts: compiled.append(seconds) if "backend_compile" in event else None
)
data = load_dataset(name, split="train" if ":" in name else "all")
X = np.asarray(data.features, np.float32 if ":" in name else np.float64)
X = X.reshape(len(X), -1)
X = X / np.abs(X).max() if ":" in name else (X - X.mean(0)) / np.maximum(X.std(0), 1e-3)
seconds = []
for _ in range(2):
    began = time.perf_counter()
    LogisticRegression().fit(X, data.labels).predict(X[:100])
    seconds.append(time.perf_counter() - began)
print(json.dumps({"first": seconds[0], "second": seconds[1], "programs": len(compiled)}))
"""
MANY_SHAPES = """
import json, sys
from pathlib import Path
import numpy as np
from jaxclf import LogisticRegression

rng, found = np.random.default_rng(0), []
for i in range(int(sys.argv[1])):
    n, d, num_classes = rng.integers((20, 1, 2), (3000, 90, 6))
    X, y = rng.normal(size=(n, d)), np.arange(n) % num_classes
    LogisticRegression(C=0.1).fit(X, y)
    if (i + 1) % 50 == 0:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").open())
        maps = len(Path("/proc/self/maps").read_text().splitlines())
        megabytes = int(status["VmRSS"].split()[0]) // 1024
        found.append({"fits": i + 1, "maps": maps, "resident_megabytes": megabytes})
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Config:
    """Seconds of imports and first fits, and memory of many shapes."""

    dataset: str | None = None
    """A large data set, as jaxclf.load_dataset takes it."""
    shapes: int = 400
    """Shapes that one process fits, one after another; 0 for none."""
    repeats: int = 5
    """Processes per number; the median counts."""
    out: Path = Path("results/benchmarks/compiling")
    """Folder for compiling.json."""


def run(config: Config) -> None:
    """Measures, and writes and prints the numbers."""
    with cli.input_errors():
        if config.repeats < 1 or config.shapes < 0:
            given = f"{config.repeats} and {config.shapes}"
            raise ValueError(f"repeats must be at least 1 and shapes at least 0, got {given}")
        stage = atomic_folder(config.out)
    names = [*DATASETS, *([config.dataset] if config.dataset else [])]
    found = {"machine": machine.describe(), "imports": {}, "first fits": {}}
    with stage as folder, cli.progress_bar() as bar:
        task = bar.add_task("", total=len(IMPORTS) + len(names) + 1)
        for name, statement in IMPORTS.items():
            bar.update(task, description=f"import of {name}", advance=1)
            code = TIMED.format(statement)
            seconds = [float(printed(code)) for _ in range(config.repeats)]
            found["imports"][name] = statistics.median(seconds)
        for name in names:
            bar.update(task, description=f"first fits of {name}", advance=1)
            found["first fits"][name] = first_fits(name, config.repeats)
        bar.update(task, description=f"{config.shapes} shapes", advance=1)
        found["many shapes"] = json.loads(printed(MANY_SHAPES, str(config.shapes)))
        write_json(folder / "compiling.json", found)
    show(found)


def printed(code: str, *arguments: str, cache: str = "off") -> str:
    """The last line that Python prints in a new process with a cache folder, or ``off``."""
    kept = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=kept | {VARIABLE: cache},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


def first_fits(name: str, repeats: int) -> dict:
    """Median seconds of a first fit without a cache and with a full one, and of a second fit."""
    with tempfile.TemporaryDirectory() as folder:
        printed(FIRST_FIT, name, cache=folder)
        cold, warm = (
            [json.loads(printed(FIRST_FIT, name, cache=cache)) for _ in range(repeats)]
            for cache in ("off", folder)
        )
    return {
        "programs": cold[0]["programs"],
        "cold_seconds": statistics.median(fit["first"] for fit in cold),
        "cached_seconds": statistics.median(fit["first"] for fit in warm),
        "second_fit_seconds": statistics.median(fit["second"] for fit in cold),
    }


def show(found: dict) -> None:
    """Prints two tables and the memory."""
    console = Console(width=max(100, Console().width))
    imports = Table("import", "seconds")
    for name, seconds in found["imports"].items():
        imports.add_row(name, f"{seconds:.2f}")
    fits = Table("first fit", "programs", "seconds", "with the cache", "second fit")
    for name, facts in found["first fits"].items():
        fits.add_row(name, *(f"{value:.3g}" for value in facts.values()))
    shapes = Table("fits of other shapes", "maps", "resident MB")
    for row in found["many shapes"]:
        shapes.add_row(*(str(row[key]) for key in ("fits", "maps", "resident_megabytes")))
    console.print(imports, fits, shapes)


if __name__ == "__main__":
    run(cli.parse(Config, "benchmarks.compiling"))
