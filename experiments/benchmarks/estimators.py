"""Fit and predict of `jaxclf.LogisticRegression` beside scikit-learn's, as their users call them.

Both stop where no entry of the gradient is above the same ``tol``; the gap to the optimum that each
reaches is measured in float64. Compilation is paid in a first fit that is reported apart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression as Reference

from experiments import cli
from experiments.benchmarks import machine
from experiments.benchmarks.sweep import value_of
from experiments.benchmarks.works import letters
from jaxclf import LogisticRegression, load_dataset
from jaxclf.data import transforms
from jaxclf.files import atomic_folder, write_json
from jaxclf.penalties import strength_from_sklearn

EMBEDDED = ("iris", "breast_cancer", "digits")
PREDICTED = 10_000
TOL = 1e-4


@dataclass(frozen=True)
class Config:
    """Seconds to fit and to predict, beside scikit-learn."""

    dataset: str | None = None
    """A large data set, as jaxclf.load_dataset takes it."""
    repeats: int = 5
    """Runs per fit, of which the median counts; a fit of over five seconds runs once."""
    out: Path = Path("results/benchmarks/estimators")
    """Folder for estimators.json."""


def run(config: Config) -> None:
    """Measures every data set, and writes and prints the times."""
    with cli.input_errors():
        if config.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {config.repeats}")
        works = {name: embedded(name) for name in EMBEDDED} | {"letter-like": letters()}
        if config.dataset:
            works["large"] = embedded(config.dataset)
        stage = atomic_folder(config.out)
    measured = {}
    with stage as folder, cli.progress_bar() as bar:
        task = bar.add_task("", total=len(works))
        for name, (features, labels) in works.items():
            bar.update(task, description=name)
            measured[name] = measure(features, labels, config.repeats)
            bar.update(task, advance=1)
        write_json(
            folder / "estimators.json",
            {"machine": machine.describe(), "tol": TOL, "works": measured},
        )
    show(measured)


def embedded(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Scaled float32 features ``(n, d)`` and labels of a data set."""
    data = load_dataset(name, split="train" if ":" in name else "all")
    scaled = np.asarray(transforms.scaled(transforms.fit_scaling(data.features), data.features))
    return scaled.reshape(len(scaled), -1), data.labels


def measure(features: np.ndarray, labels: np.ndarray, repeats: int) -> dict:
    """The numbers of our estimator and of scikit-learn's on one data set."""
    ours, theirs = LogisticRegression(tol=TOL), Reference(tol=TOL, max_iter=10_000)
    exact = LogisticRegression(tol=1e-9, dtype="float64").fit(features, labels)
    best = objective(exact, features, labels)
    rows = np.resize(features, (PREDICTED, features.shape[1]))
    began = time.perf_counter()
    ours.fit(features, labels)
    facts = {"rows, features, classes": [*features.shape, len(ours.classes_)],
             "first_fit_seconds": time.perf_counter() - began}  # fmt: skip
    for name, model in (("jaxclf", ours), ("scikit-learn", theirs)):
        facts[name] = {
            "fit_seconds": machine.median_of_runs(partial(model.fit, features, labels), repeats),
            "gap": objective(model, features, labels) - best,
            "steps": int(np.max(model.n_iter_)),
            f"predict_{PREDICTED}_seconds": machine.median_of_runs(
                partial(model.predict, rows), repeats
            ),
            "predict_one_seconds": machine.median_of_runs(
                partial(model.predict, rows[:1]), 20 * repeats
            ),
        }
    return facts


def objective(model, features: np.ndarray, labels: np.ndarray) -> float:
    """The mean log loss plus the penalty at C = 1, in float64."""
    wide = np.c_[model.coef_, model.intercept_]
    if len(wide) == 1:  # one logit is the second of two, the first being zero
        wide = np.concatenate([np.zeros_like(wide), wide])
    return value_of(wide, features, labels, strength_from_sklearn(1.0, len(labels)))


def show(measured: dict) -> None:
    """Prints our seconds, and scikit-learn's time as a multiple."""
    table = Table(
        "data", "fit", "gap", "scikit-learn's gap", f"predict {PREDICTED}", "predict one",
        title="seconds (how many times scikit-learn takes)",
    )  # fmt: skip
    for name, facts in measured.items():
        ours, theirs = facts["jaxclf"], facts["scikit-learn"]
        timed = [
            f"{ours[key]:.3g} ({theirs[key] / ours[key]:.1f}×)"
            for key in ours
            if key.endswith("seconds")
        ]
        table.add_row(
            name, timed[0], f"{ours['gap']:.1g}", f"{theirs['gap']:.1g}", timed[1], timed[2]
        )
    Console(width=max(110, Console().width)).print(table)


if __name__ == "__main__":
    run(cli.parse(Config, "benchmarks.estimators"))
