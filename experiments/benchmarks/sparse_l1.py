"""Seconds of `jaxclf.minimize` with L1 on sparse features beside other libraries, at an equal gap.

The objective is the mean log loss of two classes plus ``λ ‖w‖₁``, without an intercept, which
celer does not have. A path goes from the λ at which all weights are zero to a hundredth of it, in
50 steps; the λ of one fit is the first of them at which one weight in a hundred is not zero, or the
last. The text-like problem and the search for a tolerance are those of
:mod:`experiments.benchmarks.sparse`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse as sp
from sklearn.linear_model import LogisticRegression as Reference

from experiments import cli
from experiments.benchmarks import machine, sparse
from jaxclf import (
    losses,
    make_batch,
    make_objective,
    minimize,
    minimize_path,
    penalties,
)
from jaxclf.models import linear

STEPS = 50
"""The strengths of a path."""
SHARE = 0.01
"""The share of weights that are not zero."""


@dataclass(frozen=True)
class Config(sparse.Works):
    """Seconds to a gap with L1, beside other libraries."""

    out: Path = Path("results/benchmarks/sparse_l1")
    """Folder for sparse_l1.json."""


def run(config: Config) -> None:
    """Measures every problem, and writes and prints the times."""
    with cli.input_errors():
        data = config.data()
        if "text-like" in data:
            features, classes = data["text-like"]
            data["text-like"] = features, (classes == 0).astype(np.int32)
    works = {
        name: partial(measure, *rows, config.gap, config.repeats) for name, rows in data.items()
    }
    show(sparse.measured(works, config.out, "sparse_l1.json"))


def measure(features: sp.csr_array, labels: np.ndarray, gap: float, repeats: int) -> dict:
    """The seconds of one fit and of a path, for each library, with the gaps that they reached."""
    n, d = features.shape
    steepest = abs(features.T.astype(np.float64) @ (labels - 0.5)).max() / n
    strengths = steepest * 0.01 ** (np.arange(1, STEPS + 1) / STEPS)
    objective = make_objective(linear.logits, losses.bernoulli_nll)

    def path(dtype, tol):
        with jax.enable_x64(dtype == np.float64):
            start = linear.init(jax.random.key(0), d, stddev=0, dtype=dtype, intercept=False)
            options = [penalties.l1(strength) for strength in strengths]
            return minimize_path(objective, start, make_batch(features, labels), options, tol=tol)

    exact = path(np.float64, gap / 100)
    best = np.array([value_of(found.params.weights, features, labels, strength)
                     for found, strength in zip(exact, strengths, strict=True)])  # fmt: skip
    counts = [int(np.count_nonzero(found.params.weights)) for found in exact]
    chosen = int(np.argmax(np.array(counts) >= min(SHARE * d, counts[-1])))
    strength = float(strengths[chosen])
    one = make_objective(linear.logits, losses.bernoulli_nll, penalties.l1(strength))

    def ours():
        start = linear.init(jax.random.key(0), d, stddev=0, intercept=False)
        return minimize(one, start, make_batch(features, labels), tol=gap)

    began = time.perf_counter()
    found = ours()
    first = time.perf_counter() - began
    weights, support = np.asarray(found.params.weights), np.asarray(exact[chosen].params.weights)
    facts = {
        "rows, features": [n, d],
        "numbers": int(features.nnz),
        "strength": strength,
        "nonzero": counts[chosen],
        "gap": gap,
        "bound of the optimum": exact[chosen].gap_bound,
        "jaxclf": {
            "seconds": machine.median_of_runs(ours, repeats),
            "first_seconds": first,
            "gap": value_of(weights, features, labels, strength) - best[chosen],
            "gap_bound": found.gap_bound,
            "status": found.status,
            "other support": int(np.sum((weights != 0) != (support != 0))),
        },
    }

    def value(params):
        return value_of(params[0], features, labels, strength)

    for name, make in peers(strength, n).items():
        if name in ("celer", "skglm"):  # numba compiles in the first fit
            make(tol=1.0).fit(features.astype(np.float64), labels)
        facts[name] = sparse.theirs(make, features, labels, gap, value, best[chosen], repeats)
    results = path(np.float32, gap)
    facts["path"] = {
        "strengths": [float(strengths[0]), float(strengths[-1]), STEPS],
        "nonzero at the end": counts[-1],
        "jaxclf": {
            "seconds": machine.median_of_runs(partial(path, np.float32, gap), repeats),
            "gap": max(
                value_of(result.params.weights, features, labels, strength) - lowest
                for result, strength, lowest in zip(results, strengths, best, strict=True)
            ),
            "statuses": sorted({result.status for result in results}),
        },
    }
    if find_spec("celer"):
        facts["path"]["celer"] = celers_path(features, labels, strengths, gap, best, repeats)
    return facts


def peers(strength: float, num_rows: int) -> dict:
    """For each solver a function of ``tol`` that makes its estimator."""
    common = {"C": 1 / (strength * num_rows), "fit_intercept": False}
    reference = partial(Reference, l1_ratio=1.0, max_iter=2000, **common)
    found = {name: partial(reference, solver=name) for name in ("liblinear", "saga")}
    if find_spec("celer"):
        from celer import LogisticRegression

        found["celer"] = partial(LogisticRegression, **common)
    if find_spec("skglm"):
        from skglm import SparseLogisticRegression

        found["skglm"] = partial(SparseLogisticRegression, alpha=strength, fit_intercept=False)
    return found


def celers_path(features, labels, strengths, gap: float, best, repeats: int) -> dict:
    """The seconds of celer's path at the first tolerance at which all gaps are small enough."""
    from celer import celer_path

    wide, signs, facts = features.astype(np.float64).tocsc(), 2.0 * labels - 1, {}
    for tol in sparse.TOLERANCES:
        options = {"pb": "logreg", "alphas": strengths * len(labels), "tol": tol}
        run = partial(celer_path, wide, signs, **options)
        began = time.perf_counter()
        weights = run()[1].T
        seconds = time.perf_counter() - began
        gaps = [value_of(*of, labels, strength) - lowest for of, strength, lowest in
                zip(((w, features) for w in weights), strengths, best, strict=True)]  # fmt: skip
        facts = {
            "seconds": seconds,
            "tol": tol,
            "gap": max(gaps),
            "reached": bool(max(gaps) <= gap),
        }
        if facts["reached"]:
            facts["seconds"] = machine.median_of_runs(run, repeats)
        if facts["reached"] or seconds > sparse.SLOW:
            break
    return facts


def value_of(weights, features, labels: np.ndarray, l1: float) -> float:
    """The mean log loss plus the penalty, in float64."""
    w = np.asarray(weights, np.float64).ravel()
    params = w, np.float64(0)
    return sparse.value_of(params, features, labels, 0.0) + l1 * float(np.abs(w).sum())


def show(measured: dict) -> None:
    """Prints our seconds, and those of others as multiples."""
    names = ("liblinear", "saga", "celer", "skglm")
    table = Table("data", "jaxclf", "gap", *names, title="L1: seconds (times ours)")
    for data, facts in measured.items():
        for work, found in ((data, facts), (f"{data}, path", facts["path"])):
            ours = found["jaxclf"]
            table.add_row(work, f"{ours['seconds']:.3g}", f"{ours['gap']:.0e}",
                          *(sparse.times(found.get(name), ours) for name in names))  # fmt: skip
    Console(width=max(110, Console().width)).print(table)


if __name__ == "__main__":
    machine.let_blas_choose()
    run(cli.parse(Config, "benchmarks.sparse_l1"))
