"""Seconds of `jaxclf.minimize` on sparse features beside scikit-learn's solvers, at an equal gap.

The objective is the mean log loss with the L2 penalty of C, and the intercept is free. Gaps are
measured in float64 against a fit in float64 that is certified to a hundredth of them. Every solver
of scikit-learn gets ever smaller tolerances until its gap is as small, and the time of that fit
counts. liblinear penalises the intercept, so that it gets a large ``intercept_scaling``. The memory
of the text-like problem is what a fit, in a process of its own, holds at most beyond what the
process held before. An epoch takes minibatches of the same rows, beside torch with sparse CSR
batches; both update all parameters in every step. Cross-validation fits 50 values of C on 5 folds
of a file, each library with its own tolerance of 1e-4.
:mod:`experiments.benchmarks.sparse_l1` has the L1 penalty.
"""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from scipy import sparse
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.linear_model import LogisticRegressionCV as ReferenceCV

from experiments import cli
from experiments.benchmarks import machine
from experiments.benchmarks.works import text_like
from jaxclf import (
    LogisticRegressionCV,
    fit,
    load_dataset,
    losses,
    make_batch,
    make_objective,
    minimize,
    penalties,
)
from jaxclf.files import atomic_folder, write_json
from jaxclf.models import linear
from jaxclf.penalties import strength_from_sklearn
from jaxclf.solvers.result import SolverResult

SOLVERS = ("newton-cg", "lbfgs", "liblinear")
TOLERANCES = tuple(10.0**-k for k in range(2, 9))
STRENGTHS, FOLDS = 50, 5
"""The values of C, and the folds, of the cross-validation."""
SLOW = 10.0
"""Seconds of a fit after which a solver gets no smaller tolerance."""


@dataclass(frozen=True)
class Works:
    """What the benchmarks of sparse features have in common."""

    files: tuple[str, ...] = ()
    """Sparse data sets of two classes, as jaxclf.load_dataset takes them."""
    gap: float = 1e-6
    """The gap to the optimum; ten times as much for the text-like problem of many classes."""
    rows: int = 11_314
    """Rows of the text-like problem; 0 leaves it out."""
    words: int = 130_107
    """Its columns."""
    length: int = 150
    """Words a row, about."""
    classes: int = 20
    """Its classes; with L1 one of them is fitted against the rest."""
    repeats: int = 5
    """Runs per fit, of which the median counts; a fit of over five seconds runs once."""

    def data(self) -> dict[str, tuple[sparse.csr_array, np.ndarray]]:
        """The features and labels of the files and of the text-like problem."""
        found = {}
        for name in self.files:
            data = load_dataset(name)
            found[Path(name).name] = sparse.csr_array(data.features), data.labels
        if self.rows:
            found["text-like"] = text_like(self.rows, self.words, self.length, self.classes)
        return found


@dataclass(frozen=True)
class Config(Works):
    """Seconds to a gap, beside scikit-learn."""

    strengths: tuple[float, ...] = (1.0, 30.0)
    """The values of C for the files; the text-like problem has C = 1."""
    batch_size: int = 256
    """Rows of a minibatch of the text-like problem."""
    out: Path = Path("results/benchmarks/sparse")
    """Folder for sparse.json."""


def run(config: Config) -> None:
    """Measures every problem, and writes and prints the times."""
    with cli.input_errors():
        works = {}
        for name, rows in config.data().items():
            text = name == "text-like"
            for C in (1.0,) if text else config.strengths:
                work = (*rows, C, 10 * config.gap if text else config.gap, config.repeats)
                works[name if text else f"{name}, C = {C:g}"] = partial(measure, *work)
            if not text:
                works[f"{name}, cross-validation"] = partial(cross_validations, *rows)
            else:
                works["text-like, memory"] = partial(memory_in_a_process, config)
                works["text-like, an epoch"] = partial(epochs, *rows, config)
    show(measured(works, config.out, "sparse.json"))


def measured(works: dict[str, Callable[[], dict]], out: Path, name: str) -> dict:
    """The facts of each work, which are written to a file in a folder."""
    with cli.input_errors():
        stage = atomic_folder(out)
    facts = {}
    with stage as folder, cli.progress_bar() as bar:
        task = bar.add_task("", total=len(works))
        for title, work in works.items():
            bar.update(task, description=title)
            facts[title] = work()
            bar.update(task, advance=1)
        found = {"machine": machine.describe(), "works": facts}
        write_json(folder / name, found)
    return facts


def measure(features, labels: np.ndarray, C: float, gap: float, repeats: int) -> dict:
    """The seconds of each solver on one problem, with the gap that it reached."""
    ours = partial(fitted, features, labels, C)
    num_classes, l2 = int(labels.max()) + 1, strength_from_sklearn(C, len(labels))
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
        "seconds": machine.median_of_runs(partial(ours, np.float32, gap), repeats),
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


def fitted(features, labels: np.ndarray, C: float, dtype: Any, tol: float) -> SolverResult:
    """The fit by ``minimize``, from the matrix of SciPy on."""
    num_classes, l2 = int(labels.max()) + 1, strength_from_sklearn(C, len(labels))
    loss = losses.bernoulli_nll if num_classes == 2 else losses.categorical_nll
    objective = make_objective(linear.logits, loss, penalties.l2(l2))
    with jax.enable_x64(dtype == np.float64):
        batch = make_batch(features, labels.astype(np.int32))
        outputs = None if num_classes == 2 else num_classes
        start = linear.init(jax.random.key(0), features.shape[1], outputs, stddev=0, dtype=dtype)
        return minimize(objective, start, batch, tol=tol)


def cross_validations(features, labels: np.ndarray) -> dict:
    """The seconds of each solver's cross-validation, with the C that it chose and its accuracy."""
    options = {"Cs": np.geomspace(1e-4, 1e4, STRENGTHS), "cv": FOLDS, "max_iter": 1000}
    options |= {"l1_ratios": (0.0,), "scoring": "accuracy", "use_legacy_attributes": False}
    makers = {"jaxclf": LogisticRegressionCV}
    makers |= {solver: partial(ReferenceCV, solver=solver) for solver in SOLVERS}
    facts, wide = {}, features.astype(np.float64)
    for name, make in makers.items():
        model = make(**options)
        if name == "jaxclf":  # which compiles its programs
            model.fit(wide, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            began = time.perf_counter()
            model.fit(wide, labels)
        facts[name] = {
            "seconds": time.perf_counter() - began,
            "C": float(model.C_),
            "accuracy": float(model.scores_.mean(0).max()),
        }
    return {"values of C, folds": [STRENGTHS, FOLDS], "by solver": facts}


def memory_in_a_process(config: Config) -> dict:
    """The result of :func:`memory` in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(memory, config).result()


def memory(config: Config) -> dict:
    """The most bytes that a fit of the text-like problem holds, beyond what was there before.

    A first fit has compiled the programs.
    """
    features, labels = text_like(config.rows, config.words, config.length, config.classes)
    fit = partial(fitted, features, labels, 1.0, np.float32, 10 * config.gap)
    fit()
    before = machine.reset_peak_memory()
    fit()
    stored = features.data.nbytes + features.indices.nbytes + features.indptr.nbytes
    facts = {"csr_bytes": stored, "weights_bytes": 4 * config.words * config.classes}
    if before is not None:
        facts["peak_bytes"] = machine.peak_memory() - before
    return facts


def epochs(features, labels: np.ndarray, config: Config) -> dict:
    """The seconds of an epoch of minibatches, the median of those after the first."""
    libraries = {"jaxclf": our_epochs} | ({"torch": torchs_epochs} if find_spec("torch") else {})
    count = config.repeats + 1
    found = {}
    for optimizer, rate in (("sgd", 0.1), ("adam", 0.01)):
        for name, run in libraries.items():
            seconds = run(features, labels, optimizer, rate, config.batch_size, count)
            found[f"{name}, {optimizer}"] = float(np.median(seconds[1:]))
    return {"batch_size": config.batch_size, "seconds": found}


def our_epochs(features, labels, optimizer: str, rate: float, size: int, count: int) -> np.ndarray:
    marks = [time.perf_counter()]

    def mark(progress) -> None:
        if progress.epoch_ended:
            jax.block_until_ready(progress.params)
            marks.append(time.perf_counter())

    num_classes = int(labels.max()) + 1
    objective = make_objective(linear.logits, losses.categorical_nll)
    start = linear.init(jax.random.key(0), features.shape[1], num_classes, stddev=0)
    data = make_batch(features, labels, num_classes=num_classes)
    options = {"batch_size": size, "epochs": count, "key": 0, "callbacks": [mark]}
    fit(objective, start, data, optimizer=getattr(optax, optimizer)(rate), **options)
    return np.diff(marks)


def torchs_epochs(features, labels, optimizer: str, rate: float, size: int, count: int) -> list:
    """Epochs with a sparse CSR tensor for each batch, in which SciPy gathers the rows."""
    import torch

    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    (n, d), num_classes = features.shape, int(labels.max()) + 1
    weights = torch.zeros(d, num_classes, requires_grad=True)
    intercept = torch.zeros(num_classes, requires_grad=True)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
    steps, targets = kind([weights, intercept], lr=rate), torch.from_numpy(labels)
    seconds = []
    for epoch in range(count):
        order = np.random.default_rng(epoch).permutation(n)
        began = time.perf_counter()
        for first in range(0, n, size):
            rows = order[first : first + size]
            some = features[rows]
            parts = (torch.from_numpy(x) for x in (some.indptr, some.indices, some.data))
            x = torch.sparse_csr_tensor(*parts, size=some.shape)
            loss = torch.nn.functional.cross_entropy(x @ weights + intercept, targets[rows])
            steps.zero_grad()
            loss.backward()
            steps.step()
        seconds.append(time.perf_counter() - began)
    return seconds


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
            facts["seconds"] = machine.median_of_runs(partial(model.fit, wide, labels), repeats)
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
    fits = {name: facts for name, facts in measured.items() if "jaxclf" in facts}
    for name, facts in fits.items():
        ours = facts["jaxclf"]
        others = [times(facts.get(x), ours) for x in SOLVERS]
        table.add_row(name, f"{ours['seconds']:.3g}", f"{ours['gap']:.0e}", *others)
    console = Console(width=max(110, Console().width))
    console.print(table)
    for name in measured.keys() - fits.keys():
        console.print(f"{name}: {measured[name]}")


def times(theirs: dict | None, ours: dict) -> str:
    """The seconds of another solver as a multiple of ours, with its gap where that is too large."""
    if theirs is None:
        return ""
    late = "" if theirs["reached"] else f", gap {theirs['gap']:.0e}"
    return f"{theirs['seconds'] / ours['seconds']:.2g}×{late}"


if __name__ == "__main__":
    machine.let_blas_choose()
    run(cli.parse(Config, "benchmarks.sparse"))
