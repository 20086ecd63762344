"""Random problems of every kind: is any bound on the gap false, or any status?

Each problem is solved again by another method in 80-bit floats; some are evaluated with 50 digits.
A bound is false if that method finds a point that is lower by more. A status is false if it says
``converged`` where more than the tolerance is left, or ``precision_floor`` where ten times what the
dtype of the parameters may round away is left.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import cli
from experiments.benchmarks import exact, exact_groups, machine
from jaxclf import checks, losses, make_objective, minimize, penalties, sweep
from jaxclf.facts import state_facts
from jaxclf.files import atomic_folder, write_json
from jaxclf.group_norms import GroupNorms
from jaxclf.models.linear import LinearParams, logits
from jaxclf.objectives import Batch

SHAPES = ((40, 3), (15, 30), (120, 8))
TOLS = (1e-4, 1e-6, 1e-9)
STRENGTHS = (0.0, 1e-12, 1e-8, 1e-4, 1e-2, 1.0, 1e3, 1e6)
SOLVERS = ("newton_cholesky", "newton_cg", "lbfgs", "stream", "l1", "bounds", "groups")
SWEPT = {
    "log loss": "log_loss",
    "softmax": "log_loss",
    "softmax of 10": "log_loss",
    "one-hot squares": "onehot_squared_error",
}
"""The kinds that a sweep has too, with its name for each loss. Every lane is judged."""
LANES = 5
COUNTS = ("false bounds", "false converged", "false floors", "false values", "negative bounds",
          "outside", "exceptions")  # fmt: skip
_MOST_PARAMETERS = 300
_NOISE = 1e-15
"""The relative error that the reference may have, by rounding and by its method."""


class Kind(NamedTuple):
    """A loss with its labels and its formula."""

    loss: Callable
    num_logits: int
    labels: Callable
    """``(rng, n, K) -> labels, targets of the formula``."""
    formula: Callable
    cancels: bool = False
    """Whether logits cancel in the formula of the loss."""


def _bits(rng, n, _):
    y = rng.integers(0, 2, n)
    y[:2] = 0, 1
    return y.astype(np.float32), y


def _soft_bits(rng, n, _):
    y = rng.random(n).astype(np.float32)
    return y, y


def _signs(rng, n, _):
    y = 2 * _bits(rng, n, 1)[1] - 1
    return y.astype(np.float32), y


def _numbers(rng, n, _):
    y = rng.normal(size=n).astype(np.float32)
    return y, y


def _far_numbers(rng, n, _):
    y = (rng.choice([3, 30, 1e3]) + 3 * rng.normal(size=n)).astype(np.float32)
    return y, y


def _classes(rng, n, num_classes, *, smoothing: float = 0.0):
    y = rng.integers(0, num_classes, n)
    y[: min(n, num_classes)] = np.arange(num_classes)[:n]
    hard = np.eye(num_classes)[y]
    return y.astype(np.int32), (1 - smoothing) * hard + smoothing / num_classes


def _distributions(rng, n, num_classes):
    # Hand-rounded targets sum to a little more or less than one.
    sums = rng.choice([1, 0.9993, 1.0007])
    t = (sums * rng.dirichlet(np.full(num_classes, 0.5), n)).astype(np.float32)
    return t, t


def _several(rng, n, num_classes):
    t = rng.integers(0, 2, (n, num_classes)).astype(np.float32)
    t[0], t[1] = 0, 1
    return t, t


def _own_log_loss(z, y):
    """A log loss that the library does not know, so that it has to prove convexity."""
    return jax.numpy.logaddexp(0.0, z) - y * z


def _own_huber(z, y):
    """A straight line where a solver starts from zero: it has no curvature there."""
    r = jax.numpy.abs(z - y)
    return jax.numpy.where(r < 1, r * r / 2, r - 0.5)


KINDS = {
    "log loss": Kind(losses.bernoulli_nll, 1, _bits, exact.bernoulli),
    "log loss, soft": Kind(losses.bernoulli_nll, 1, _soft_bits, exact.bernoulli),
    "log loss of a user": Kind(_own_log_loss, 1, _bits, exact.bernoulli, cancels=True),
    "margin": Kind(losses.logistic_margin, 1, _signs, exact.logistic_margin),
    "squared hinge": Kind(losses.squared_hinge, 1, _signs, exact.squared_hinge),
    "squared error": Kind(losses.squared_error, 1, _numbers, exact.squared),
    "Huber of a user": Kind(
        state_facts(_own_huber, convex=True, lower_bound=0.0), 1, _far_numbers, exact.huber,
        cancels=True,
    ),
    "softmax": Kind(losses.categorical_nll, 3, _classes, exact.softmax),
    "softmax of 10": Kind(losses.categorical_nll, 10, _classes, exact.softmax),
    "softmax of 100": Kind(losses.categorical_nll, 100, _classes, exact.softmax),
    "smoothed": Kind(
        partial(losses.categorical_nll, smoothing=0.25), 3, partial(_classes, smoothing=0.25),
        exact.softmax,
    ),
    "distributions": Kind(losses.soft_categorical_nll, 4, _distributions, exact.softmax),
    "several labels": Kind(losses.multilabel_nll, 3, _several, exact.bernoulli),
    "one-hot squares": Kind(losses.onehot_squared_error, 3, _classes, exact.squared),
}  # fmt: skip


DTYPES = [
    (jax.numpy.bfloat16, jax.numpy.bfloat16),
    (np.float64, np.float32),
    (np.float32, jax.numpy.bfloat16),
]
"""Dtypes of weights and intercept that are narrow, or differ, beside those of the features."""

_CASES = [
    (name, solver, dtype)
    for name in KINDS
    for solver in SOLVERS
    for dtype in (np.float64, np.float32)
] + [(name, "sweep", dtype) for name in SWEPT for dtype in (np.float64, np.float32)]


def _features(rng, n: int, d: int) -> tuple[str, np.ndarray]:
    """Random columns of one kind, with its name: plain ones, or ones with a common difficulty."""
    x = rng.normal(size=(n, d))
    kind = rng.choice(
        ["plain", "scaled", "scales", "far", "collinear", "constant", "heavy", "bits", "cells"]
    )
    if kind == "scaled":
        x *= 10 ** rng.uniform(-8, 8)
    elif kind == "scales":
        x *= 10 ** rng.uniform(-8, 8, d)
    elif kind == "far":
        x += 10 ** rng.uniform(1, 12)
    elif kind == "collinear":
        x[:, 1:] = x[:, :1] * rng.normal(size=d - 1) + 1e-9 * x[:, 1:]
    elif kind == "constant":
        x[:, 0] = rng.choice([0.0, 1.0, 1e6])
    elif kind == "heavy":
        x = np.exp(4 * x) * rng.choice([-1, 1], (n, d))
    elif kind == "bits":
        x = (x > 0.5).astype(float)
    elif kind == "cells":
        x[rng.integers(0, n, 6), rng.integers(0, d, 6)] = 1e14
    return str(kind), x


def _weights(rng, n: int) -> np.ndarray:
    kind = rng.integers(0, 3)
    if kind == 0:
        return np.ones(n)
    if kind == 1:
        w = rng.uniform(0, 1, n) * (rng.random(n) < 0.7)
    else:
        w = 10.0 ** rng.uniform(-12, 0, n)
    w[:2] = 1
    return w


def _offset(rng, shape: tuple[int, ...], dtype) -> tuple[np.ndarray | None, float]:
    """An offset of random size, or none, and its size."""
    if rng.random() < 0.5:
        return None, 0.0
    size = 10.0 ** rng.uniform(-3, 3)
    common = rng.choice([0, 0, 1]) * rng.normal()
    return (size * (common + rng.normal(size=shape))).astype(dtype), size


def _factors(rng, shape: tuple[int, ...]) -> tuple[str, np.ndarray | None]:
    """Penalty factors by feature or by coefficient, or none: free, weighed and fixed weights."""
    which = str(rng.choice(["none", "none", "by feature", "by coefficient"]))
    if which == "none":
        return which, None
    shape = shape[-1:] if which == "by feature" else shape
    weighed = 10 ** rng.uniform(-2, 2, shape)
    # The reference has no weight that is fixed for some classes only.
    fixed = 0.1 if len(shape) == 1 else 0.0
    kinds = rng.choice(4, shape, p=[0.1, 0.7 - fixed, 0.2, fixed])
    return which, np.choose(kinds, [0.0, 1.0, weighed, np.inf])


def _bounds(rng, shape: tuple[int, ...], x: np.ndarray, fixed: Any) -> tuple:
    """Bounds of every kind on the weights: none, a sign, a box, a box without zero, one number.

    The bounds of a weight that a factor fixes have zero between them.
    """
    sizes = 10 ** rng.uniform(-2, 1) / np.maximum(np.abs(x).mean(0), 1e-30)
    a, b = np.sort(sizes * rng.normal(size=(2, *shape)), 0)
    inf, zero = np.full(shape, np.inf), np.zeros(shape)
    pairs = (-inf, inf), (zero, inf), (-inf, zero), (a, inf), (-inf, b), (a, b), (a, a)
    kinds = rng.choice(len(pairs), shape, p=[0.2, 0.2, 0.1, 0.1, 0.1, 0.25, 0.05])
    lower, upper = (np.choose(kinds, ends) for ends in zip(*pairs, strict=True))
    fixed = np.broadcast_to(fixed, shape)
    return np.where(fixed, np.minimum(lower, 0), lower), np.where(
        fixed, np.maximum(upper, 0), upper
    )


def _groups(rng, d: int) -> dict:
    """Groups of features of random sizes, with weights of their own or without."""
    numbers = rng.integers(0, rng.integers(1, d + 1), d)
    groups = [np.flatnonzero(numbers == number).tolist() for number in np.unique(numbers)]
    weights = 10 ** rng.uniform(-1, 1, len(groups)) if rng.random() < 0.5 else None
    return {"groups": groups, "weights": weights}


@dataclass(frozen=True)
class Config:
    """Counts of false certificates over random problems."""

    problems: int = 2000
    """Problems to solve."""
    digits: int = 40
    """Problems that are evaluated with 50 digits too."""
    processes: int = 2
    """The number of processes that solve them."""
    seed: int = 0
    """Seed of the problems."""
    out: Path = Path("results/benchmarks/certificates")
    """Folder for certificates.json."""


def run(config: Config) -> None:
    """Solves, judges, writes the counts and prints them."""
    with cli.input_errors():
        checks.check_number("problems", config.problems, at_least=1)
        checks.check_number("digits", config.digits, at_least=0)
        checks.check_number("processes", config.processes, at_least=1)
        stage = atomic_folder(config.out)
    with stage as folder, cli.progress_bar() as bar:
        task = bar.add_task("cases", total=len(_CASES))
        found = battery(
            config.problems,
            config.seed,
            config.digits,
            processes=config.processes,
            advance=lambda: bar.update(task, advance=1),
        )
        write_json(folder / "certificates.json", {"machine": machine.describe(), **found})
    show(found)


def battery(
    num_problems: int,
    seed: int,
    digits: int,
    *,
    processes: int = 1,
    advance: Callable = lambda: None,
) -> dict:
    """The counts of false bounds and statuses over random problems.

    Problems of one loss, solver and dtype have one shape and follow each other, so that few
    programs are compiled.
    """
    judge = partial(_judged_case, num_problems, seed, digits)
    places, counts, statuses, failures, checked = range(len(_CASES)), Counter(), Counter(), [], 0
    with ExitStack() as stack:
        if processes > 1:
            spawn = multiprocessing.get_context("spawn")
            judge_all = stack.enter_context(spawn.Pool(processes)).imap_unordered(judge, places)
        else:
            judge_all = map(judge, places)
        for found in judge_all:
            counts += found.counts
            statuses += found.statuses
            failures += found.failures
            checked += found.checked
            advance()
    return {
        "problems": num_problems,
        "solutions": statuses.total(),
        "seed": seed,
        "with 50 digits": checked,
        "counts": {what: counts[what] for what in COUNTS},
        "statuses": dict(sorted(statuses.items())),
        "failures": sorted(failures, key=lambda failure: failure["problem"])[:50],
    }


class _Found(NamedTuple):
    counts: Counter
    statuses: Counter
    failures: list[dict]
    checked: int
    """How many solutions were evaluated with 50 digits."""


def _judged_case(num_problems: int, seed: int, digits: int, place: int) -> _Found:
    """What is found of the problems of one loss, solver and dtype."""
    name, solver, dtype = _CASES[place]
    counts, statuses, failures, checked = Counter(), Counter(), [], 0
    fit = [shape for shape in SHAPES if shape[1] * KINDS[name].num_logits <= _MOST_PARAMETERS]
    for i in range(num_problems):
        if i * len(_CASES) // num_problems != place:
            continue
        rng = np.random.default_rng([seed, i])
        case = _case(rng, name, fit[place % len(fit)], solver, dtype)
        with_digits = digits > 0 and i % max(1, num_problems // digits) == 0
        with_digits = with_digits and case.kind.formula in _WITH_DIGITS
        for wrong, status in _judged(case, with_digits):
            checked += with_digits
            statuses[status] += 1
            for what, detail in wrong.items():
                counts[what] += 1
                failures.append({"problem": i, "what": what, "case": case.described, **detail})
    return _Found(counts, statuses, failures, checked)


_WITH_DIGITS = (exact.bernoulli, exact.softmax)


class _Case(NamedTuple):
    kind: Kind
    batch: Batch
    targets: np.ndarray
    penalty: penalties.Penalty
    start: LinearParams
    tol: float
    options: dict
    described: str


def _case(rng, name: str, shape, solver: str, dtype) -> _Case:
    kind, (n, d) = KINDS[name], shape
    features, x = _features(rng, n, d)
    labels, targets = kind.labels(rng, n, kind.num_logits)
    l2 = float(rng.choice(STRENGTHS))
    l1 = float(rng.choice(STRENGTHS[1:6])) if solver == "l1" else 0.0
    l2 = l2 if solver != "l1" or rng.random() < 0.5 else 0.0
    scale = 0.0 if solver == "sweep" else float(rng.choice([0, 0, 1, 1e2, 1e4]))
    intercept = solver == "sweep" or bool(rng.random() < 0.8)
    outputs = () if kind.num_logits == 1 else (kind.num_logits,)
    own = [(dtype, dtype)] if rng.random() < 0.7 else DTYPES
    of_weights, of_intercept = own[rng.integers(len(own))]
    weights = scale * rng.normal(size=(*outputs, d))
    start = LinearParams(
        weights.astype(of_weights), np.zeros(outputs, of_intercept) if intercept else None
    )
    tol = float(rng.choice(TOLS))
    options = {"stream": True, "solver": "newton_cg"} if solver == "stream" else {"solver": solver}
    options = {"solver": "auto"} if solver == "l1" else options
    if solver == "sweep":
        strengths = sorted(map(float, rng.choice(STRENGTHS, LANES, replace=False)))
        ratio = float(rng.choice([0, 0, 0, 0.5]))
        options = {"grid": {"l2": strengths, "l1_ratio": ratio, "loss": SWEPT[name]}}
    own_offset, own_factors, own_bounds, own_groups = rng.spawn(4)
    offset, size = _offset(own_offset, (n, *outputs), dtype)
    which, factors = _factors(own_factors, (*outputs, d))
    if solver in ("sweep", "groups"):
        which, factors = "none", None
    if solver == "bounds":
        fixed = False if factors is None else np.isinf(factors)
        ends = _bounds(own_bounds, (*outputs, d), x, fixed)
        options = {"solver": "auto", "bounds": tuple(end.astype(of_weights) for end in ends)}
        l1 = float(own_bounds.choice([0.0, 0.0, *STRENGTHS[1:6]]))
    described = (
        f"{name}, {n} × {d} {features}, {np.dtype(dtype)}, {solver}, l1 {l1:g}, l2 {l2:g}, start "
        f"{scale:g}, tol {tol:g}{'' if intercept else ', no intercept'}, offset {size:g}, "
        f"factors {which}, parameters {np.dtype(of_weights)} and {np.dtype(of_intercept)}"
    )
    batch = Batch(x.astype(dtype), labels, _weights(rng, n), offset)
    penalty = penalties.elastic_net(l1=l1, l2=l2, factors=factors)
    if solver == "groups":
        options, l1 = {"solver": "auto"}, float(own_groups.choice([0.0, 0.0, *STRENGTHS[3:6]]))
        strength = float(own_groups.choice(STRENGTHS[1:6]))
        described += f", groups {strength:g} beside l1 {l1:g}"
        penalty = penalties.group_lasso(strength, **_groups(own_groups, d), l1=l1, l2=l2)
    return _Case(kind, batch, targets, penalty, start, tol, options, described)


def _judged(case: _Case, with_digits: bool) -> list[tuple[dict[str, dict], str]]:
    """The false claims of each solution, and its status."""
    try:
        with jax.enable_x64(True), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            solutions = _swept(case) if "grid" in case.options else [_solved(case)]
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:300]
        return [({"exceptions": {"error": said}}, "exception")]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reference may meet a singular Hessian
        return [(_false(one, with_digits), one.status) for one in solutions]


class _Solution(NamedTuple):
    case: _Case
    params: LinearParams
    value: float
    gap_bound: float
    status: str


def _solved(case: _Case) -> _Solution:
    objective = make_objective(logits, case.kind.loss, case.penalty)
    found = minimize(objective, case.start, case.batch, tol=case.tol, **case.options)
    params = jax.tree.map(np.asarray, found.params)
    return _Solution(case, params, found.value, found.gap_bound, found.status)


def _swept(case: _Case) -> list[_Solution]:
    labels = case.batch.labels.astype(np.int32)
    found = sweep(case.options["grid"], case.batch._replace(labels=labels), tol=case.tol)
    solutions = []
    for i, row in enumerate(found.table):
        l2, ratio = row["lane"]["l2"], row["lane"]["l1_ratio"]
        penalty = penalties.elastic_net(l1=ratio * l2, l2=(1 - ratio) * l2)
        params = jax.tree.map(lambda x, i=i: np.asarray(x[i]), found.params)
        facts = (row["objective"], row["gap_bound"], row["status"])
        solutions.append(_Solution(case._replace(penalty=penalty), params, *facts))
    return solutions


def _false(result: _Solution, with_digits: bool) -> dict[str, dict]:
    case, (x, _, weights, offset) = result.case, result.case.batch
    bounds = case.options.get("bounds", (-np.inf, np.inf))
    l1, groups = case.penalty.l1, ()
    if isinstance(l1, GroupNorms):
        each = np.float64(l1.strength) * np.asarray(l1.weights, np.float64)
        groups = [(np.flatnonzero(l1.numbers == g), exact.WIDE(v)) for g, v in enumerate(each)]
        l1 = l1.l1
    problem = exact.make_problem(
        x, case.targets, weights, case.kind.formula, l1, case.penalty.l2,
        intercept=case.start.intercept is not None, offset=offset, bounds=bounds, groups=groups,
    )  # fmt: skip
    here = exact.point_of(problem, *result.params)
    zero = exact.Point(np.zeros_like(here.weights), np.zeros_like(here.intercept))
    best = (exact_groups if groups else exact).minimise(problem, [here, zero])
    value, least = (exact.value_of(problem, v) for v in (here, best))
    gap = float(value - least)
    if with_digits:
        gap = max(gap, float(exact.exactly(problem, here) - exact.exactly(problem, best)))
    bound, noise = float(result.gap_bound), _NOISE * (1 + abs(float(value)))
    detail = {"gap": gap, "bound": bound, "value": float(value), "status": result.status}
    wrong = {}
    if not bound >= 0:
        wrong["negative bounds"] = detail
    if not ((bounds[0] <= result.params.weights) & (result.params.weights <= bounds[1])).all():
        wrong["outside"] = detail
    if result.status not in ("nonfinite", "no_finite_minimiser"):
        if gap > bound + noise:
            wrong["false bounds"] = detail
        rounded = exact.rounding_of(problem, here, result.params, 1e-14, cancels=case.kind.cancels)
        if abs(float(result.value) - float(value)) > rounded + noise:
            wrong["false values"] = {**detail, "said": float(result.value)}
    if result.status == "converged" and gap > case.tol + noise:
        wrong["false converged"] = detail
    if result.status == "precision_floor":
        eps = max(float(jax.numpy.finfo(x.dtype).eps) for x in jax.tree.leaves(result.params))
        floor = exact.rounding_of(problem, here, result.params, eps)
        if gap > 10 * floor + noise:
            wrong["false floors"] = {**detail, "floor": floor}
    return wrong


def show(found: dict[str, Any]) -> None:
    """Prints the counts, the statuses and the false claims."""
    console = Console(width=max(100, Console().width))
    counts = Table("solutions", *COUNTS)
    counts.add_row(str(found["solutions"]), *(str(found["counts"][what]) for what in COUNTS))
    statuses = Table(*found["statuses"])
    statuses.add_row(*map(str, found["statuses"].values()))
    console.print(counts, statuses)
    for failure in found["failures"][:10]:
        console.print(failure)


if __name__ == "__main__":
    run(cli.parse(Config, "benchmarks.certificates"))
