"""Seconds of `jaxclf.minimize` on sparse features beside scikit-learn's solvers, at an equal gap.

The objective is the mean log loss with the L2 penalty of C, and the intercept is free. Gaps are
measured in float64 against a fit in float64 that is certified to a hundredth of them. Every solver
of scikit-learn gets ever smaller tolerances until its gap is as small, and the time of that fit
counts. liblinear penalises the intercept, so that it gets a large ``intercept_scaling``.
:mod:`experiments.benchmarks.sparse_l1` has the L1 penalty.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as Reference

from experiments import cli
from experiments.benchmarks import machine
from experiments.benchmarks.full_batch import median_seconds
from experiments.benchmarks.works import text_like
from jaxclf import load_dataset, losses, make_batch, make_objective, minimize, penalties
from jaxclf.files import atomic_folder, write_json
from jaxclf.models import linear
from jaxclf.penalties import strength_from_sklearn

SOLVERS = ("newton-cg", "lbfgs", "liblinear")
TOLERANCES = tuple(10.0**-k for k in range(2, 9))
SLOW = 10.0
"""Seconds of a fit after which a solver gets no smaller tolerance."""


@dataclass(frozen=True)
class Config:
    """Seconds to a gap, beside scikit-learn."""

    files: tuple[str, ...] = ()
    """Sparse data sets of two classes, as jaxclf.load_dataset takes them."""
    strengths: tuple[float, ...] = (1.0, 30.0)
    """The values of C for the files; the text-like problem has C = 1."""
    gap: float = 1e-6
    """The gap for the files; ten times as much for the text-like problem."""
    rows: int = 11_314
    """Rows of the text-like problem."""
    words: int = 130_107
    """Its columns."""
    length: int = 150
    """Words a row, about."""
    classes: int = 20
    repeats: int = 5
    """Runs per fit, of which the median counts; a fit of over five seconds runs once."""
    out: Path = Path("results/benchmarks/sparse")
    """Folder for sparse.json."""


def run(config: Config) -> None:
    """Measures every problem, and writes and prints the times."""
    with cli.input_errors():
        works = {}
        for name in config.files:
            data = load_dataset(name)
            rows = sparse.csr_array(data.features), data.labels
            for C in config.strengths:
                works[f"{Path(name).name}, C = {C:g}"] = (*rows, C, config.gap)
        text = text_like(config.rows, config.words, config.length, config.classes)
        works["text-like"] = (*text, 1.0, 10 * config.gap)
        stage = atomic_folder(config.out)
    measured = {}
    with stage as folder, cli.progress_bar() as bar:
        task = bar.add_task("", total=len(works))
        for name, work in works.items():
            bar.update(task, description=name)
            measured[name] = measure(*work, config.repeats)
            bar.update(task, advance=1)
        write_json(folder / "sparse.json", {"machine": machine.describe(), "works": measured})
    show(measured)


def measure(features, labels: np.ndarray, C: float, gap: float, repeats: int) -> dict:
    """The seconds of each solver on one problem, with the gap that it reached."""
    num_classes, l2 = int(labels.max()) + 1, strength_from_sklearn(C, len(labels))
    loss = losses.bernoulli_nll if num_classes == 2 else losses.categorical_nll
    objective = make_objective(linear.logits, loss, penalties.l2(l2))

    def ours(dtype, tol):
        with jax.enable_x64(dtype == np.float64):
            batch = make_batch(features, labels.astype(np.int32))
            outputs = None if num_classes == 2 else num_classes
            start = linear.init(
                jax.random.key(0), features.shape[1], outputs, stddev=0, dtype=dtype
            )
            return minimize(objective, start, batch, tol=tol)

    exact = ours(np.float64, gap / 100)
    facts = {
        "rows, features, classes": [*features.shape, num_classes],
        "numbers": int(features.nnz),
        "C": C,
        "gap": gap,
        "bound of the optimum": exact.gap_bound,
    }
    began = time.perf_counter()
    found = ours(np.float32, gap)
    first = time.perf_counter() - began
    value = partial(value_of, features=features, labels=labels, l2=l2)
    best = value(exact.params)
    facts["jaxclf"] = {
        "seconds": median_seconds(partial(ours, np.float32, gap), repeats),
        "first_seconds": first,
        "gap": value(found.params) - best,
        "gap_bound": found.gap_bound,
        "status": found.status,
        "passes": found.passes,
    }
    for solver in SOLVERS:
        if solver != "liblinear" or num_classes == 2:
            scaling = 1000.0 if solver == "liblinear" else 1.0
            options = {"C": C, "solver": solver, "max_iter": 10_000, "intercept_scaling": scaling}
            make = partial(Reference, **options)
            facts[solver] = theirs(make, features, labels, gap, value, best, repeats)
    return facts


def theirs(make, features, labels, gap: float, value, best, repeats: int) -> dict:
    """The seconds of the first tolerance at which the gap of ``make(tol=…)`` is small enough."""
    facts, wide = {}, features.astype(np.float64)
    for tol in TOLERANCES:
        model = make(tol=tol)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            began = time.perf_counter()
            model.fit(wide, labels)
            seconds = time.perf_counter() - began
        single = len(model.coef_) == 1
        params = linear.LinearParams(model.coef_, np.atleast_1d(model.intercept_))
        params = jax.tree.map(lambda x: x[0], params) if single else params
        facts = {"seconds": seconds, "tol": tol, "gap": value(params) - best}
        facts["reached"] = bool(facts["gap"] <= gap)
        if facts["reached"]:
            facts["seconds"] = median_seconds(partial(model.fit, wide, labels), repeats)
        if facts["reached"] or seconds > SLOW:
            break
    return facts


def value_of(params, features, labels: np.ndarray, l2: float) -> float:
    """The mean log loss plus the penalty, in float64."""
    w, b = (np.asarray(x, np.float64) for x in params)
    z = features.astype(np.float64) @ w.T + b
    if z.ndim == 1:
        losses = np.logaddexp(0, np.where(labels == 1, -z, z))
    else:
        losses = logsumexp(z, 1) - z[np.arange(len(z)), labels]
    return float(losses.mean() + l2 / 2 * (w**2).sum())


def show(measured: dict) -> None:
    """Prints our seconds, and those of others as multiples."""
    table = Table("data", "jaxclf", "gap", *SOLVERS, title="seconds (times ours)")
    for name, facts in measured.items():
        ours = facts["jaxclf"]
        others = [times(facts.get(x), ours) for x in SOLVERS]
        table.add_row(name, f"{ours['seconds']:.3g}", f"{ours['gap']:.0e}", *others)
    Console(width=max(110, Console().width)).print(table)


def times(theirs: dict | None, ours: dict) -> str:
    """The seconds of another solver as a multiple of ours, with its gap where that is too large."""
    if theirs is None:
        return ""
    late = "" if theirs["reached"] else f", gap {theirs['gap']:.0e}"
    return f"{theirs['seconds'] / ours['seconds']:.2g}×{late}"


if __name__ == "__main__":
    machine.let_blas_choose()
    run(cli.parse(Config, "benchmarks.sparse"))
