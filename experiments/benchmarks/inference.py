"""Seconds and accuracy of what is computed at an optimum: covariances, refits, rows left out.

``covariances`` times :func:`jaxclf.inference.infer` on a softmax with a ridge, for each kind of
covariance, from a fit. ``refits`` times the bootstrap beside a loop over statsmodels' ``Logit``,
where that is installed. ``rows left out`` compares :func:`jaxclf.inference.leave_one_out` with fits
of scikit-learn without each row, by the mean log loss of the row that was left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import logsumexp
from sklearn import datasets
from sklearn.linear_model import LogisticRegression

from experiments import cli
from experiments.benchmarks import machine
from jaxclf import inference, load_dataset, losses, make_batch, make_objective, minimize, penalties
from jaxclf.checks import check_option
from jaxclf.files import atomic_write, choose_file, write_json
from jaxclf.models import linear

COVARIANCES, REFITS, LEFT_OUT = "covariances", "refits", "rows left out"
KINDS = ("posterior", "model", "sandwich", "cluster")
COLUMNS = (0, 1, 4, 8)
"""Four columns of breast_cancer with which no drawn sample is separated."""
EVERY = {"breast_cancer": 1, "digits": 29}
"""The distance between the rows that are left out, as a fit of digits takes long."""


@dataclass(frozen=True)
class Config:
    """Seconds of inference, and its error where it is an approximation."""

    data: str = "digits"
    """The data set of the covariances; integers are divided by their largest."""
    draws: int = 1000
    """The refits of a bootstrap."""
    repeats: int = 9
    """The runs of a bootstrap whose median is taken."""
    refitted: tuple[int, ...] = (0, 10, 50)
    """The numbers of rows that leave_one_out refits."""
    works: tuple[str, ...] = (COVARIANCES, REFITS, LEFT_OUT)
    out: Path = Path("results/benchmarks/inference.json")
    """JSON file to write."""


def run(config: Config) -> None:
    """Measures the works, and writes and prints what was found."""
    with cli.input_errors():
        for name in config.works:
            check_option("works", name, (COVARIANCES, REFITS, LEFT_OUT))
        config.out.parent.mkdir(parents=True, exist_ok=True)
        out = choose_file(config.out, [])
    measure = {COVARIANCES: covariances, REFITS: refits, LEFT_OUT: rows_left_out}
    facts, measured = machine.describe(), {}
    for name in config.works:
        measured[name] = measure[name](config)
        with atomic_write(out) as file:
            write_json(file, {"machine": facts, "works": measured})
    show(measured)


def covariances(config: Config) -> dict:
    """The seconds and the memory of a table of coefficients, by kind of covariance."""
    with cli.input_errors():
        data = load_dataset(config.data)
    x = data.features.reshape(len(data.labels), -1)
    x = (x / np.float32(max(1, x.max()))).astype(np.float32)
    objective, start, batch = _ridge(x, data.labels, data.num_classes)
    params, clusters, found = minimize(objective, start, batch).params, np.arange(len(x)) % 1000, {}
    for kind in KINDS:
        before, began = machine.reset_peak_memory(), time.perf_counter()
        table = inference.infer(
            objective, params, batch, covariance=kind, reference=None,
            clusters=clusters if kind == "cluster" else None,
        )  # fmt: skip
        seconds, errors = time.perf_counter() - began, table.standard_error
        if not np.isfinite(errors).all():
            raise RuntimeError(f"{kind}: a standard error is not finite")
        memory = None if before is None else machine.peak_memory() - before
        found[kind] = {"seconds": seconds, "peak_bytes": memory, "gap_bound": table.gap_bound}
    return {"rows, features, classes": [*x.shape, data.num_classes], "by kind": found}


def refits(config: Config) -> dict:
    """The seconds of a bootstrap of breast_cancer and of as many fits of statsmodels."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    x = x[:, COLUMNS].astype(np.float32)
    objective, start, batch = _ridge(x, y, 2, None)
    facts: dict = {"draws": config.draws, "rows, features": list(x.shape)}
    bounds, seconds = [], []
    for key in jax.random.split(jax.random.key(0), config.repeats + 1):
        taken, found = _timed(
            lambda key=key: inference.bootstrap(objective, start, batch, key, draws=config.draws)
        )
        seconds.append(taken)
        bounds.append(float(found.gap_bounds.max()))
    facts["jaxclf"] = {
        "seconds": float(np.median(seconds[1:])),
        "first_seconds": seconds[0],
        "largest bound": max(bounds),
    }
    if find_spec("statsmodels") is not None:
        samples = np.random.default_rng(0).integers(0, len(y), (config.draws, len(y)))
        seconds = [_timed(lambda: _statsmodels(x, y, samples))[0] for _ in range(config.repeats)]
        facts["statsmodels"] = {"seconds": float(np.median(seconds))}
    return facts


def rows_left_out(config: Config) -> dict:
    """The error of the mean log loss without each row, as a share of what leaving it out adds."""
    return {
        "breast_cancer": _left_out("breast_cancer", *_standardised(), config),
        "digits": _left_out("digits", *_sixteenths(), config),
    }


def _left_out(name: str, x: np.ndarray, y: np.ndarray, config: Config) -> dict:
    K, rows = int(y.max()) + 1, np.arange(0, len(y), EVERY[name])
    model = LogisticRegression(C=1, solver="newton-cholesky", tol=1e-10)

    def log_loss(z):
        z = np.c_[np.zeros(len(z)), z] if K == 2 else z
        return float((logsumexp(z, 1) - z[np.arange(len(z)), y[rows]]).mean())

    exact = np.empty((len(rows), *(() if K == 2 else (K,))))
    seconds, _ = _timed(lambda: _refit_without(model, x.astype(float), y, rows, exact))
    true, on_all = (
        log_loss(exact),
        log_loss(model.fit(x.astype(float), y).decision_function(x)[rows]),
    )
    problem, found = _ridge(x, y, K), {}
    for count in config.refitted:
        taken, z = _timed(lambda count=count: inference.leave_one_out(*problem, refits=count))
        error = abs(log_loss(z[rows]) - true) / (true - on_all)
        found[str(count)] = {"error": error, "seconds": taken}
    losses_ = {"on all rows": on_all, "without the row": true}
    return {"rows": len(rows), **losses_, "refits_seconds": seconds, "by rows refitted": found}


def _refit_without(model, x, y, rows, out) -> None:
    for i, row in enumerate(rows):
        rest = np.arange(len(y)) != row
        out[i] = model.fit(x[rest], y[rest]).decision_function(x[row : row + 1])[0]


def _statsmodels(x, y, samples) -> None:
    import statsmodels.api as sm

    columns = sm.add_constant(x.astype(float))
    for rows in samples:
        sm.Logit(y[rows], columns[rows]).fit(disp=0)


def _standardised() -> tuple[np.ndarray, np.ndarray]:
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32), y


def _sixteenths() -> tuple[np.ndarray, np.ndarray]:
    x, y = datasets.load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y


def _ridge(x, y, num_classes: int, C: float | None = 1.0) -> tuple:
    """The objective with the ridge of scikit-learn's C or without one, a start, and the batch."""
    outputs = () if num_classes == 2 else (num_classes,)
    loss = losses.categorical_nll if outputs else losses.bernoulli_nll
    penalty = None if C is None else penalties.l2(penalties.strength_from_sklearn(C, len(x)))
    start = linear.LinearParams(np.zeros((*outputs, x.shape[1])), np.zeros(outputs))
    batch = make_batch(x, y, num_classes=num_classes)
    return make_objective(linear.logits, loss, penalty), start, batch


def _timed(work: Callable) -> tuple:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def show(measured: dict) -> None:
    """Prints the seconds of each work, and the errors of the rows left out."""
    table = Table("work", "of", "seconds", "", title="inference at an optimum")
    for kind, facts in measured.get(COVARIANCES, {}).get("by kind", {}).items():
        memory = facts["peak_bytes"]
        peak = "" if memory is None else f"{memory / 2**30:.3g} GiB"
        table.add_row(COVARIANCES, kind, f"{facts['seconds']:.3g}", peak)
    for solver in ("jaxclf", "statsmodels"):
        if facts := measured.get(REFITS, {}).get(solver):
            seconds = facts["seconds"]
            times = f"{seconds / measured[REFITS]['jaxclf']['seconds']:.3g} times"
            table.add_row(REFITS, solver, f"{seconds:.3g}", times)
    for name, facts in measured.get(LEFT_OUT, {}).items():
        table.add_row(LEFT_OUT, f"{name}, scikit-learn", f"{facts['refits_seconds']:.3g}", "")
        for count, found in facts["by rows refitted"].items():
            of, error = f"{name}, {count} refitted", f"off by {found['error']:.2%}"
            table.add_row(LEFT_OUT, of, f"{found['seconds']:.3g}", error)
    Console(width=max(100, Console().width)).print(table)


if __name__ == "__main__":
    machine.let_blas_choose()
    run(cli.parse(Config, "benchmarks.inference"))
