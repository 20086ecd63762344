"""Which optimiser comes how near to the optimum, in how many passes and seconds?

Answer: methods that use curvature reach the certified minimum to 1e-6 in fewer passes than gradient
descent, and minibatches at a constant rate hover above it.

Question: the objective is convex and its minimum is certified. How do stochastic gradient descent,
momentum, Adam, L-BFGS and Newton's method approach it?

Procedure: softmax regression with an L2 penalty on real data. Gradient descent takes steps of 1/L
on all rows; SGD, momentum and Adam take minibatches through `fit`, at rates that are fixed and not
tuned; L-BFGS and Newton with conjugate gradients go through `minimize`. Each run is made twice and
the second is timed, so that no time is compilation. F* is in float64, from Newton's method at a far
smaller tolerance; the values of L-BFGS and Newton are those of their traces in float32, all others
in float64. A pass is one reading of the rows, and a product with the Hessian counts as one.

Expected: no run ends below F* less its certified gap. Gradient descent obeys F - F* ≤ L ‖w₀ - w*‖²
/ 2t (Beck, 2017, theorem 10.21) with L = λmax(XᵀX/n)/2 + λ, as Böhning's bound says of softmax.
From the optimum itself minibatches with a constant rate lead away, by the noise of their gradients;
Newton's method gains digits faster the nearer it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import cli, rows, study
from experiments.gradient_descent import gradient_descent
from experiments.study import Claim, Found
from jaxclf import fit, losses, make_objective, minimize, penalties
from jaxclf.models import linear
from jaxclf.objectives import Batch, Objective
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

PENALTY = 1e-3
BATCH = 64
"""The rows of a step; a quarter of all rows is taken if there are fewer than 256."""
ROUNDING = 1e-7
"""The rounding of values near one in float32."""
MINIBATCH = {
    "SGD": optax.sgd(0.1),
    "momentum": optax.sgd(0.02, momentum=0.9),
    "Adam": optax.adam(0.01),
}
FULL = {"L-BFGS": "lbfgs", "Newton": "newton_cg"}
COLORS = {
    "gradient descent": plots.BLACK,
    "SGD": plots.SKY,
    "momentum": plots.GREEN,
    "Adam": plots.PINK,
    "L-BFGS": plots.ORANGE,
    "Newton": plots.BLUE,
}
DRIFT = 5
"""The epochs that start from the optimum."""
GAPS = (1e-2, 1e-4, 1e-6)


@dataclass(frozen=True)
class Config(rows.Options):
    """Six optimisers on one convex objective, beside its certified minimum."""

    epochs: int = 100
    """Epochs of the first-order optimisers; at most 30 with --quick."""
    out: Path = Path("results/optimisers")
    """Folder for metrics.json, the figures and report.html."""


class Run(NamedTuple):
    """The points on one optimiser's way, ``(points,)`` each."""

    passes: np.ndarray
    seconds: np.ndarray
    values: np.ndarray
    """The objective in float64."""


def check(config: Config) -> None:
    """Raises ValueError for options that cannot be used."""
    if config.epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {config.epochs}")
    rows.scaled_rows(config)


def value_of(objective: Objective, batch: Batch) -> Callable:
    """``params -> F`` in float64."""
    compiled = jax.jit(objective)

    def value(params) -> float:
        with jax.enable_x64(True):
            wide = lambda x: jnp.asarray(np.asarray(x), jnp.float64)  # noqa: E731
            exact = Batch(wide(batch.features), batch.labels)
            return float(compiled(jax.tree.map(wide, params), exact))

    return value


def by_minibatches(objective, start, batch, optimizer, epochs: int, seed: int, value) -> Run:
    """The run of `fit`, whose history has the seconds of each epoch without the evaluation."""
    size = min(BATCH, max(1, len(batch.labels) // 4))
    history = fit(
        objective, start, batch, optimizer=optimizer, batch_size=size, epochs=epochs,
        key=jax.random.key(seed), evaluate=lambda params: {"objective": value(params)},
    ).history  # fmt: skip
    values = [value(start), *(record["objective"] for record in history)]
    seconds = np.cumsum([0, *(record["seconds"] for record in history)])
    return Run(np.arange(len(values)), seconds, np.array(values))


def by_solver(objective, start, batch, solver: str) -> Run:
    """The run of `minimize`, from the trace that it returns."""
    result = minimize(objective, start, batch, solver=solver, tol=1e-7)
    trace = result.trace
    return Run(
        *(
            np.array([getattr(step, name) for step in trace])
            for name in ("passes", "seconds", "value")
        )
    )


def by_descent(objective, start, batch, lipschitz: float, steps: int) -> Run:
    """The run of gradient descent with steps of 1/L, which are one program and share its time."""
    descend = jax.jit(
        lambda start, batch: (
            gradient_descent(
                objective, start, batch, step_size=1 / lipschitz, num_steps=steps
            ).values
        )
    )
    jax.block_until_ready(descend(start, batch))
    began = time.perf_counter()
    values = np.asarray(descend(start, batch))
    seconds = time.perf_counter() - began
    return Run(np.arange(steps + 1), np.linspace(0, seconds, steps + 1), values)


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    epochs = min(config.epochs, 30) if config.quick else config.epochs
    train, K = found.train, found.data.num_classes
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(PENALTY))
    start = rows.zeros(train, K)
    advance("the certified minimum")
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), start)
        best = minimize(objective, wide, train, solver="newton_cg", tol=1e-12)
        X = np.asarray(linear.append_one(train.features), np.float64)
        lipschitz = float(np.linalg.eigvalsh(X.T @ X / len(X))[-1]) / 2 + PENALTY
        runs = {}
        advance("gradient descent")
        exact = Batch(train.features.astype(jnp.float64), train.labels)
        runs["gradient descent"] = by_descent(objective, wide, exact, lipschitz, epochs)
        stayed = by_descent(objective, best.params, exact, lipschitz, DRIFT)
        distance = float(sum(jnp.sum((a - b) ** 2) for a, b in zip(wide, best.params, strict=True)))
    value = value_of(objective, train)
    for name, optimizer in MINIBATCH.items():
        advance(name)
        for _ in range(2):
            runs[name] = by_minibatches(
                objective, start, train, optimizer, epochs, config.seed, value
            )
    for name, solver in FULL.items():
        advance(name)
        for _ in range(2):
            runs[name] = by_solver(objective, start, train, solver)
    advance("from the optimum")
    optimum = jax.tree.map(lambda x: x.astype(jnp.float32), best.params)
    drifted = {
        name: by_minibatches(objective, optimum, train, optimizer, DRIFT, config.seed, value).values
        for name, optimizer in MINIBATCH.items()
    }
    drifted = {name: float(values[-1]) - best.value for name, values in drifted.items()}
    drifted["gradient descent"] = float(stayed.values[-1]) - best.value
    gaps = {name: run.values - best.value for name, run in runs.items()}
    least_gap = -best.gap_bound - ROUNDING
    claims = claims_of(runs, gaps, drifted, least_gap, lipschitz * distance)
    header = ["optimiser", *(f"passes, seconds to {gap:g}" for gap in GAPS), "gap at the end"]
    table = Table(
        header,
        [
            [
                name,
                *(_reached(run, gaps[name], gap) for gap in GAPS),
                _gap(gaps[name][-1]),
            ]
            for name, run in runs.items()
        ],
    )
    figure = draw(runs, gaps, folder / "optimisers.png")
    text = [
        f"{found.data.source}; {len(train.labels)} rows, λ = {PENALTY:g}, batches of {BATCH}. "
        f"F* = {best.value:.3g}, at most {best.gap_bound:.0e} above the minimum. Rates are fixed, "
        f"not tuned. Seconds are of one machine{study.less_optimised(config)}."
    ]
    numbers = {
        "minimum": best.value,
        "bound": best.gap_bound,
        "from the optimum": drifted,
        "runs": {
            name: {
                "passes": run.passes.tolist(),
                "seconds": run.seconds.tolist(),
                "gap": gaps[name].tolist(),
            }
            for name, run in runs.items()
        },
    }
    return Found(
        claims, [Section("Gap against passes and seconds", text, table, [figure])], numbers
    )


def claims_of(
    runs: dict[str, Run], gaps: dict, drifted: dict, least_gap: float, scale: float
) -> list[Claim]:
    """The claims about the runs.

    Args:
      runs: the runs by name.
      gaps: their values above the minimum.
      drifted: the gaps after some epochs from the optimum.
      least_gap: the gap that no run may be below.
      scale: ``L ‖w₀ - w*‖²``, of the bound of gradient descent.
    """
    lowest = min(float(gap.min()) for gap in gaps.values())
    descent = gaps["gradient descent"][1:]
    share = float(np.max(descent * 2 * np.arange(1, len(descent) + 1) / scale))
    newton = gaps["Newton"]
    # The trace is in float32, so smaller gaps are rounding.
    above = newton[newton > ROUNDING]
    ratios = above[1:] / above[:-1]
    early, late = (
        (float(np.mean(half)) for half in np.array_split(np.log(ratios), 2))
        if len(ratios) > 1
        else (0.0, -np.inf)  # one step, or none, led there
    )
    compared = (*FULL, "gradient descent")
    return [
        Claim(
            "no run ends below the minimum",
            "certificate in float64",
            "F ≥ F* - bound",
            f"gaps above {least_gap:.0e}, what rounds off in float32",
            f"smallest {_gap(lowest)}",
            lowest >= least_gap,
        ),
        Claim(
            "gradient descent keeps its bound",
            "Beck (2017), theorem 10.21",
            "F - F* ≤ L ‖w₀ - w*‖² / 2t",
            "at most 1 times it, at each step",
            f"{share:.2g} times",
            share <= 1,
        ),
        Claim(
            "both methods that use curvature reach 1e-6 in fewer passes than gradient descent",
            "preconditioned curvature",
            "passes to 1e-6",
            "of L-BFGS and Newton fewer",
            ", ".join(f"{name} {_passes(runs[name], gaps[name], 1e-6)}" for name in compared),
            all(
                _reached_at(runs[name], gaps[name], 1e-6)
                < _reached_at(runs["gradient descent"], gaps["gradient descent"], 1e-6)
                for name in FULL
            ),
        ),
        Claim(
            "Newton's method gains digits faster the nearer it is",
            "superlinear convergence (Dembo, Eisenstat and Steihaug, 1982)",
            "gap after a step / gap before",
            "in the later half of the steps smaller, in the geometric mean",
            f"{np.exp(early):.2g}, then {np.exp(late):.2g}, {len(ratios)} steps",
            bool(late < early),
        ),
        Claim(
            "steps on minibatches at a constant rate lead away from the optimum",
            "noise of the gradients",
            f"F - F* from w*, {DRIFT} epochs",
            "above 1e-11; descent on all rows stays below",
            ", ".join(f"{name} {study.off(gap)}" for name, gap in drifted.items()),
            min(drifted[name] for name in MINIBATCH) > 1e-11
            and drifted["gradient descent"] < 1e-11,
        ),
    ]


def _gap(gap: float) -> str:
    """A gap to the minimum; one that float32 cannot tell from zero is shown as that."""
    return f"< {ROUNDING:.0e}" if abs(gap) < ROUNDING else f"{gap:.2g}"


def _first(gaps: np.ndarray, gap: float) -> int | None:
    there = gaps <= gap
    return int(there.argmax()) if there.any() else None


def _reached_at(run: Run, gaps: np.ndarray, gap: float) -> float:
    """The passes after which a run reached the gap; infinite where it did not."""
    at = _first(gaps, gap)
    return np.inf if at is None else float(run.passes[at])


def _passes(run: Run, gaps: np.ndarray, gap: float) -> str:
    passes = _reached_at(run, gaps, gap)
    return f"{passes:.0f}" if np.isfinite(passes) else f"not in {run.passes[-1]:.0f}"


def _reached(run: Run, gaps: np.ndarray, gap: float) -> str:
    at = _first(gaps, gap)
    return "not reached" if at is None else f"{run.passes[at]:.0f}, {run.seconds[at]:.2g} s"


def draw(runs: dict, gaps: dict, path: Path) -> Figure:
    """Gap against passes and against seconds."""
    with plots.figure(path, columns=2, size=(9.5, 3.9), sharey=True) as (_, axes):
        for name, run in runs.items():
            shown = gaps[name] > 1e-10
            for ax, x, floor in ((axes[0], run.passes, 0.5), (axes[1], run.seconds, 1e-3)):
                ax.loglog(
                    np.maximum(x[shown], floor),
                    gaps[name][shown],
                    ".-",
                    ms=4,
                    lw=1.3,
                    color=COLORS[name],
                    label=name,
                )
        axes[0].set(xlabel="passes over the rows", ylabel="F - F* (nats)")
        axes[1].set(xlabel="seconds, without compilation")
        axes[0].legend(fontsize=8)
    return Figure(
        path,
        "How far above the certified minimum each optimiser is. The start is drawn at half a pass, "
        "and what took less than a millisecond at one.",
    )


STUDY = study.Study(
    "optimisers", "Optimisers on one convex objective", __doc__, Config, measure, check
)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "optimisers"))
