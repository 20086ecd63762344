"""Seconds of a path of penalties beside adelie, skglm and scikit-learn, at an equal gap.

Two paths go from the λ at which all weights are zero down to a share of it: L1 logistic regression
of two classes, and the multinomial group lasso, in which a feature leaves all classes at once. A
peer gets the same λ, one after another from where the one before ended, and ever smaller tolerances
until its largest gap on the path is small enough. Gaps are measured in float64 against the best
value that any solver found. A peer that takes too long stops on the way, and the λ that it has
reached are counted. adelie computes all λ in one call, so that its path is always whole. The file
of results is written anew whenever a solver is done.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import logsumexp

from experiments import cli
from experiments.benchmarks import machine
from jaxclf import load_dataset, losses, make_batch, make_objective, minimize_path, penalties
from jaxclf.checks import check_option
from jaxclf.files import atomic_write, choose_file, write_json
from jaxclf.models import linear

TOLERANCES = tuple(10.0**-k for k in range(3, 9))
L1, GROUPS = "L1, even or odd", "group lasso"


@dataclass(frozen=True)
class Config:
    """Seconds of paths, beside adelie, skglm and scikit-learn where they are installed."""

    data: str = "digits"
    """The data set, as jaxclf.load_dataset takes it; integers are divided by their largest."""
    group_rows: int = 10_000
    """The first rows, which the group lasso takes."""
    num: int = 100
    """The number of λ."""
    min_ratio: float = 0.01
    """The last λ over the first."""
    gap: float = 1e-5
    slowest: float = 120.0
    """Seconds of a path after which a peer stops, and gets no smaller tolerance."""
    peers: tuple[str, ...] = ("adelie", "skglm", "scikit-learn")
    works: tuple[str, ...] = (L1, GROUPS)
    out: Path = Path("results/benchmarks/paths.json")
    """JSON file to write."""


def run(config: Config) -> None:
    """Measures the paths, and writes and prints the times."""
    with cli.input_errors():
        for name in config.works:
            check_option("works", name, (L1, GROUPS))
        data = load_dataset(config.data)
        config.out.parent.mkdir(parents=True, exist_ok=True)
        out = choose_file(config.out, [])
    features = data.features.reshape(len(data.labels), -1)
    features = (features / np.float32(max(1, features.max()))).astype(np.float32)
    labels = np.asarray(data.labels, np.int32)
    rows = slice(config.group_rows)
    works = {L1: (features, labels % 2), GROUPS: (features[rows], labels[rows])}
    facts, measured = machine.describe(), {}
    for name in config.works:
        for so_far in measure(name, *works[name], config):
            measured[name] = so_far
            with atomic_write(out) as file:
                write_json(file, {"machine": facts, "works": measured})
    show(measured)


def measure(name: str, features, labels: np.ndarray, config: Config) -> Iterator[dict]:
    """The seconds of each solver on one path, with its largest gap, whenever one more is known."""
    grouped, d = name == GROUPS, features.shape[1]
    K = int(labels.max()) + 1
    penalty = penalties.group_lasso(1.0, [[j] for j in range(d)]) if grouped else penalties.l1(1.0)
    loss = losses.categorical_nll if grouped else losses.bernoulli_nll
    objective, outputs = make_objective(linear.logits, loss, penalty), (K,) if grouped else ()
    start = linear.LinearParams(np.zeros((*outputs, d), np.float32), np.zeros(outputs, np.float32))
    batch = make_batch(features, labels)

    def ours():
        path = minimize_path(
            objective, start, batch, num=config.num, min_ratio=config.min_ratio, tol=config.gap
        )
        return path, [(r.params.weights, r.params.intercept) for r in path]

    first, _ = _timed(ours)
    seconds, (path, found) = _timed(ours)
    strengths, values = path.strengths, {}
    values["jaxclf"] = _values(found, features, labels, strengths)
    measured = {
        "rows, features, classes": [*features.shape, K if grouped else 2],
        "strengths": [config.num, strengths[0], strengths[-1]],
        "features at the end": int(np.atleast_2d(path[-1].params.weights).any(0).sum()),
        "jaxclf": {
            "seconds": seconds,
            "first_seconds": first,
            "bound": max(result.gap_bound for result in path),
            "converged": sum(result.status == "converged" for result in path),
        },
    }
    _set_gaps(measured, values)
    yield measured
    for peer in config.peers:
        if grouped and peer != "adelie":  # the others have no group lasso of a softmax
            continue
        if find_spec({"scikit-learn": "sklearn"}.get(peer, peer)) is None:
            continue
        solve = {"adelie": _adelie, "skglm": _skglm, "scikit-learn": _scikit_learn}[peer]
        for tol in TOLERANCES:
            began, reached = time.perf_counter(), []
            found = solve(features, labels, strengths, tol, grouped)
            for params in found:
                reached.append(params)
                seconds = time.perf_counter() - began
                if seconds > config.slowest and not isinstance(found, list):
                    break
            values[peer] = _values(reached, features, labels, strengths)
            count = len(reached)
            gap = float(np.max(values[peer] - values["jaxclf"][:count]))
            measured[peer] = {"seconds": seconds, "tol": tol, "strengths": count, "gap": gap}
            if gap <= config.gap or seconds > config.slowest:
                break
        _set_gaps(measured, values)
        yield measured


def _set_gaps(measured: dict, values: dict) -> None:
    """Sets the largest gap of each solver to the best value of any at each λ."""
    for name, found in values.items():
        best = np.min([x[: len(found)] for x in values.values() if len(x) >= len(found)], axis=0)
        measured[name]["gap"] = float(np.max(found - best))


def _timed(work: Callable) -> tuple[float, tuple]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def _values(found, features, labels: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """The objective at each point in float64; the norm of one logit's weight is its size."""
    x, values = features.astype(np.float64), []
    for (w, b), strength in zip(found, strengths, strict=False):
        w = np.atleast_2d(np.asarray(w, np.float64))
        z = x @ w.T + np.asarray(b, np.float64).reshape(-1)
        if len(w) == 1:
            risk = np.logaddexp(0, np.where(labels == 1, -z[:, 0], z[:, 0])).mean()
        else:
            risk = (logsumexp(z, 1) - z[np.arange(len(z)), labels]).mean()
        values.append(risk + strength * np.linalg.norm(w, axis=0).sum())
    return np.array(values)


def _adelie(features, labels, strengths, tol: float, grouped: bool) -> list[tuple]:
    import adelie

    x, d = np.asfortranarray(features, np.float64), features.shape[1]
    options = {"early_exit": False, "progress_bar": False, "tol": tol, "irls_tol": tol}
    if not grouped:
        glm = adelie.glm.binomial(labels.astype(np.float64), dtype=np.float64)
        state = adelie.grpnet(X=x, glm=glm, lmda_path=strengths, **options)
        weights = state.betas.toarray()
    else:
        K = int(labels.max()) + 1
        glm = adelie.glm.multinomial(np.eye(K)[labels], dtype=np.float64)
        # Its mean loss is over the classes too.
        options |= {"lmda_path": strengths / K, "penalty": np.ones(d)}
        state = adelie.grpnet(X=x, glm=glm, **options)
        weights = state.betas.toarray().reshape(-1, d, K).transpose(0, 2, 1)
    return list(zip(weights, state.intercepts, strict=True))


def _skglm(features, labels, strengths, tol: float, grouped: bool) -> Iterator[tuple]:
    from skglm import SparseLogisticRegression

    x = np.asfortranarray(features)
    model = SparseLogisticRegression(tol=tol, warm_start=True)
    for strength in strengths:
        model.set_params(alpha=float(strength)).fit(x, labels)
        yield model.coef_[0].copy(), np.copy(model.intercept_)


def _scikit_learn(features, labels, strengths, tol: float, grouped: bool) -> Iterator[tuple]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        solver="saga", l1_ratio=1, tol=tol, max_iter=10_000, warm_start=True, random_state=0
    )
    for strength in strengths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=1 / (strength * len(labels))).fit(features, labels)
        yield model.coef_[0].copy(), model.intercept_.copy()


def show(measured: dict) -> None:
    """Prints the seconds of each solver, also as multiples of ours, its largest gap, and how many λ
    it has reached in that time."""
    table = Table("path", "solver", "seconds", "times ours", "gap", "λ", title="seconds of a path")
    for name, facts in measured.items():
        ours, num = facts["jaxclf"]["seconds"], facts["strengths"][0]
        for solver, found in facts.items():
            if isinstance(found, dict):
                reached = found.get("strengths", num)
                part = "" if reached == num else "> "  # it would take longer for all of them
                times = f"{part}{found['seconds'] / ours:.3g}"
                seconds, gap = f"{found['seconds']:.3g}", f"{found['gap']:.0e}"
                table.add_row(name, solver, seconds, times, gap, f"{reached} of {num}")
    Console(width=max(100, Console().width)).print(table)


if __name__ == "__main__":
    machine.let_blas_choose()
    run(cli.parse(Config, "benchmarks.paths"))
