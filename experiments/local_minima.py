"""How many local minima has the training of one neuron?

Hypothesis: with squared error a single sigmoid neuron without bias may have exponentially many in
the number of its weights; with log loss, which matches the sigmoid, it has one (Auer, Herbster and
Warmuth, Exponentially many local minima for single neurons, NIPS 1995).

Procedure: along each of d axes lie m inputs Bⁱ, i = 0 … m-1, with the target 3/4, or three labels 1
and one 0, which differs by a constant. The risk is a sum over axes of the same function of one
weight, so its minima are all combinations of minima of that function. Outside the weights from
log 3 / B^(m-1) to log 3 every term slopes to the same side; inside, interval arithmetic finds every
stationary point and cannot miss one.

Expected: with squared error m minima per axis, at about log 3 / Bⁱ, and m^d in all; with log
loss 1. Where the inputs are too close to each other, below some spacing B, minima merge.
"""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table as TerminalTable

from experiments import cli
from jaxclf import losses, plots
from jaxclf.analysis.minima import Stationary, stationary_points
from jaxclf.report import Figure, Section, Table, staged_folder, write_json, write_report

TITLE = "Local minima of a single neuron"
TARGET = 0.75
LOSSES = {"squared error": losses.sigmoid_squared_error, "log loss": losses.bernoulli_nll}


@dataclass(frozen=True)
class Config:
    """Count the local minima of one sigmoid neuron, with squared error and with log loss."""

    inputs: int = 5
    """m, inputs per axis."""
    spacing: float = 10.0
    """B, the ratio of one input to the next."""
    axes: int = 2
    """d, weights of the neuron."""
    seed: int = 0
    """Of the starts of descents, which look for the minima from outside."""
    platform: str | None = None
    """cpu, gpu or tpu; JAX's own choice if not given."""
    out: Path = Path("results/local_minima")
    """Folder for metrics.json, the figures and report.html."""
    quick: bool = False
    """The spacing at which minima merge for two inputs only, not for three."""


def axis_risk(loss, inputs: int, spacing: float, hard: bool):
    """``(log w) -> ()``: the mean loss of a positive weight over the inputs of one axis."""
    x = spacing ** np.arange(inputs)
    labels = (1.0, 1.0, 1.0, 0.0) if hard else (TARGET,)

    def risk(log_weight):
        z = jnp.exp(log_weight) * x
        each = [jax.vmap(loss)(z, jnp.full(inputs, label)) for label in labels]
        return sum(map(jnp.mean, each)) / len(labels)

    return risk


def count(loss, inputs: int, spacing: float, *, hard: bool = False) -> tuple[Stationary, ...]:
    """The stationary points of one axis, in the logarithm of the weight.

    A non-positive weight gives every input at most 1/2, less than the target, and so a slope
    towards larger weights; the ends are a little outside those where every term slopes alike.
    """
    low = np.log(np.log(3)) - (inputs - 1) * np.log(spacing) - 0.1
    high = np.log(np.log(3)) + 0.1
    return stationary_points(axis_risk(loss, inputs, spacing, hard), float(low), float(high))


def minima(points: tuple[Stationary, ...]) -> list[float]:
    """The weights at the minima; fails if a box was left undecided."""
    if any(point.kind == "undecided" for point in points):
        raise RuntimeError("the count is not decided: two stationary points nearly coincide")
    return [float(np.exp((p.low + p.high) / 2)) for p in points if p.kind == "minimum"]


def merging_spacing(inputs: int) -> tuple[float, float]:
    """Two spacings at most 0.01 apart: at the first there are fewer minima than inputs, or their
    number is not decided; at the second there are as many."""
    low, high = 1.5, 20.0
    while high - low > 0.01:
        middle = (low + high) / 2
        points = count(losses.sigmoid_squared_error, inputs, middle)
        whole = all(p.kind != "undecided" for p in points) and len(minima(points)) == inputs
        low, high = (low, middle) if whole else (middle, high)
    return low, high


def descended(loss, config: Config, starts: np.ndarray) -> np.ndarray:
    """Where damped Newton steps downhill in log w end, ``(starts, d)``: found without the proof."""
    risk = axis_risk(loss, config.inputs, config.spacing, hard=False)
    slope, bend = jax.grad(risk), jax.grad(jax.grad(risk))

    def settle(t):
        def step(t, _):
            newton = jnp.clip(-slope(t) / jnp.maximum(jnp.abs(bend(t)), 1e-3), -0.1, 0.1)
            return t + newton, None

        return jax.lax.scan(step, t, None, length=2000)[0]

    return np.exp(np.asarray(jax.jit(jax.vmap(jax.vmap(settle)))(jnp.asarray(starts))))


def run(config: Config) -> None:
    """The whole experiment; input that cannot be used ends it with one line and status 2."""
    began = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        with cli.input_errors():
            device = cli.choose_device(config.platform)
            stack.enter_context(jax.default_device(device))
            cli.check_seed(config.seed)
            if config.inputs < 1 or config.axes < 1 or not 1 < config.spacing <= 100:
                raise ValueError(
                    "inputs and axes must be at least 1 and spacing above 1, at most 100; got "
                    f"{config.inputs}, {config.axes} and {config.spacing}"
                )
            folder = stack.enter_context(staged_folder(config.out))
        with cli.progress_bar() as bar:
            numbers = (2,) if config.quick else (2, 3)
            task = bar.add_task("", total=5 + len(numbers))
            found = {}
            for (name, loss), hard in itertools.product(LOSSES.items(), (False, True)):
                bar.update(task, advance=1, description=f"{name}, every stationary point")
                key = f"{name}, {'hard labels' if hard else 'targets 3/4'}"
                found[key] = minima(count(loss, config.inputs, config.spacing, hard=hard))
            merging = {}
            for inputs in numbers:
                bar.update(task, advance=1, description=f"spacing at which {inputs} minima merge")
                merging[inputs] = merging_spacing(inputs)
            bar.update(task, advance=1, description="descents")
            reached = {name: distinct(loss, config) for name, loss in LOSSES.items()}
            figures = [
                draw_axis(config, found, folder / "axis.png"),
                draw_plane(config, found, folder / "plane.png"),
            ]
        claims = verdicts(config, found, reached)
        seconds = time.perf_counter() - began
        facts = {"seconds": round(seconds, 1), **cli.environment(device)}
        content = {
            "run": facts,
            "minima per axis": found,
            "reached by descents": reached,
            "minima merge at a spacing between": {str(k): v for k, v in merging.items()},
            "claims": [dict(zip(("claim", "expected", "measured", "agree"), c, strict=True))
                       for c in claims],
        }  # fmt: skip
        write_json(folder / "metrics.json", content)
        spacings = Table(
            ["inputs", "minima merge below the spacing"],
            [[str(k), f"{high:.4g}"] for k, (_, high) in merging.items()],
        )
        header = ["claim", "expected", "measured", "agree"]
        rows = [[c[0], str(c[1]), str(c[2]), "yes" if c[3] else "no"] for c in claims]
        what, procedure, expected = __doc__.split("\n\n")[1:]
        sections = [
            Section("What was asked", [what, procedure, expected]),
            Section("What was found", [], Table(header, rows), figures),
            Section("How far apart the inputs must be", [], spacings),
        ]
        footer = ", ".join(f"{key} {value}" for key, value in facts.items())
        write_report(folder / "report.html", TITLE, sections, footer)
    table = TerminalTable(*header, title=TITLE)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    for inputs, (_, high) in merging.items():
        print(f"{inputs} inputs: minima merge below a spacing of {high:.4g}")
    print(f"{seconds:.1f} s; read {config.out}/report.html")


def distinct(loss, config: Config) -> int:
    """How many different points descents from all over the plane end in."""
    rng = np.random.default_rng(config.seed)
    reach = (config.inputs - 1) * np.log(config.spacing)
    starts = np.log(np.log(3)) - rng.uniform(-0.5, reach + 0.5, size=(3000, config.axes))
    ends = np.log(descended(loss, config, starts))
    return len(np.unique(np.round(ends, 3), axis=0))


def verdicts(config: Config, found: dict, reached: dict) -> list[tuple]:
    """Claims with what was expected and measured."""
    m, d = config.inputs, config.axes
    squared, log = found["squared error, targets 3/4"], found["log loss, targets 3/4"]
    near = np.sort(np.log(3) / config.spacing ** np.arange(m))
    close = len(squared) == m and np.allclose(np.log(squared), np.log(near), atol=0.3)
    rows = [
        ("minima of squared error, one weight", m, len(squared)),
        (f"minima of squared error, {d} weights", m**d, len(squared) ** d),
        ("minima of log loss, one weight", 1, len(log)),
        (f"minima of log loss, {d} weights", 1, len(log) ** d),
        ("the same with hard labels, squared error", m, len(found["squared error, hard labels"])),
        ("the same with hard labels, log loss", 1, len(found["log loss, hard labels"])),
        (f"ends of 3000 descents of {d} weights, squared error", m**d, reached["squared error"]),
        (f"ends of 3000 descents of {d} weights, log loss", 1, reached["log loss"]),
    ]
    claims = [(what, expected, measured, expected == measured) for what, expected, measured in rows]
    near_and_found = _joined(near), _joined(squared)
    return [*claims, ("minima lie within a third of log 3 / Bⁱ", *near_and_found, bool(close))]


def _joined(weights) -> str:
    return ", ".join(f"{w:.3g}" for w in weights)


def draw_axis(config: Config, found: dict, path: Path) -> Figure:
    """The risk of one weight on a logarithmic axis, with the proven minima."""
    reach = (config.inputs - 1) * np.log10(config.spacing)
    weights = np.logspace(np.log10(np.log(3)) - reach - 1, 1.5, 1200)
    with plots.figure(path, rows=2, sharex=True, size=(7.0, 5.0)) as (_, axes):
        for ax, (name, loss), color in zip(
            axes, LOSSES.items(), (plots.ORANGE, plots.BLUE), strict=True
        ):
            risk = axis_risk(loss, config.inputs, config.spacing, hard=False)
            values = np.asarray(jax.vmap(risk)(jnp.log(weights)))
            ax.semilogx(weights, values, color=color)
            lowest = np.array(found[f"{name}, targets 3/4"])
            ax.plot(lowest, jax.vmap(risk)(jnp.log(lowest)), "o", color=plots.BLACK, ms=5)
            ax.set(
                ylabel=name, title=f"{len(lowest)} local minim{'um' if len(lowest) == 1 else 'a'}"
            )
            if name == "log loss":
                ax.set_yscale("log")
        axes[-1].set(xlabel="weight")
    return Figure(path, "The risk of one weight; dots are the minima that intervals prove.")


def draw_plane(config: Config, found: dict, path: Path) -> Figure:
    """Squared error of two weights, with its minima."""
    reach = (config.inputs - 1) * np.log10(config.spacing)
    exponents = np.linspace(np.log10(np.log(3)) - reach - 0.7, 0.8, 300)
    risk = axis_risk(losses.sigmoid_squared_error, config.inputs, config.spacing, hard=False)
    values = np.asarray(jax.vmap(risk)(jnp.asarray(exponents * np.log(10))))
    lowest = np.log10(found["squared error, targets 3/4"])
    with plots.figure(path, size=(5.6, 4.8)) as (sheet, ax):
        shown = ax.contourf(exponents, exponents, values[:, None] + values, 30, cmap="viridis")
        grid = np.array(list(itertools.product(lowest, lowest)))
        ax.plot(*grid.T, "o", color="white", ms=4)
        ax.set(
            xlabel="log₁₀ of the first weight",
            ylabel="log₁₀ of the second weight",
            title=f"Squared error of two weights: {len(grid)} local minima",
        )
        ax.grid(visible=False)
        sheet.colorbar(shown, label="risk")
    return Figure(path, "Squared error of two weights: every combination of minima is a minimum.")


if __name__ == "__main__":
    run(cli.parse(Config, "local_minima"))
