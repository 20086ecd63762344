"""How many local minima has the training of one neuron?

Answer: with squared error a neuron of d weights has as many local minima as there are combinations
of inputs, m^d, and intervals prove that none is missed. With log loss it has one.

Question: with squared error a single sigmoid neuron without bias may have exponentially many in
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, study
from experiments.study import Claim, Found
from jaxclf import losses
from jaxclf.analysis.minima import Stationary, stationary_points
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

TARGET = 0.75
LOSSES = {"squared error": losses.sigmoid_squared_error, "log loss": losses.bernoulli_nll}


@dataclass(frozen=True)
class Config(study.Options):
    """Count the local minima of one sigmoid neuron, with squared error and with log loss."""

    inputs: int = 5
    """m, inputs per axis."""
    spacing: float = 10.0
    """B, the ratio of one input to the next."""
    axes: int = 2
    """d, weights of the neuron."""
    out: Path = Path("results/local_minima")
    """Folder for metrics.json, the figures and report.html."""


def axis_risk(loss, inputs: int, spacing: float, hard: bool):
    """``(log w) -> ()``: the mean loss of a positive weight over the inputs of one axis."""
    x = spacing ** np.arange(inputs)
    shares = {1.0: TARGET, 0.0: 1 - TARGET} if hard else {TARGET: 1.0}

    def risk(log_weight):
        z = jnp.exp(log_weight) * x
        each = (s * jax.vmap(loss)(z, jnp.full(inputs, label)) for label, s in shares.items())
        return sum(map(jnp.mean, each))

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


def merging_spacing(inputs: int, width: float) -> tuple[float, float]:
    """Two spacings that are at most ``width`` apart.

    At the first there are fewer minima than inputs, or their number is not decided. At the second
    there are as many minima as inputs.
    """
    low, high = 1.5, 20.0
    while high - low > width:
        middle = (low + high) / 2
        points = count(losses.sigmoid_squared_error, inputs, middle)
        whole = all(p.kind != "undecided" for p in points) and len(minima(points)) == inputs
        low, high = (low, middle) if whole else (middle, high)
    return low, high


def descended(loss, config: Config, starts: np.ndarray) -> np.ndarray:
    """The ends of damped Newton steps downhill in log w, ``(starts, d)``, without the proof."""
    risk = axis_risk(loss, config.inputs, config.spacing, hard=False)
    slope, bend = jax.grad(risk), jax.grad(jax.grad(risk))

    def settle(t):
        def step(t, _):
            newton = jnp.clip(-slope(t) / jnp.maximum(jnp.abs(bend(t)), 1e-3), -0.1, 0.1)
            return t + newton, None

        return jax.lax.scan(step, t, None, length=2000)[0]

    return np.exp(np.asarray(jax.jit(jax.vmap(jax.vmap(settle)))(jnp.asarray(starts))))


def check(config: Config) -> None:
    if config.inputs < 1 or config.axes < 1 or not 1 < config.spacing <= 100:
        raise ValueError(
            "inputs and axes must be at least 1 and spacing above 1, at most 100; got "
            f"{config.inputs}, {config.axes} and {config.spacing}"
        )


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found, merging = {}, {}
    with jax.enable_x64(True):
        for (name, loss), hard in itertools.product(LOSSES.items(), (False, True)):
            advance(f"{name}, every stationary point")
            key = f"{name}, {'hard labels' if hard else 'targets 3/4'}"
            found[key] = minima(count(loss, config.inputs, config.spacing, hard=hard))
        for inputs in (2,) if config.quick else (2, 3):
            advance(f"spacing at which {inputs} minima merge")
            merging[inputs] = merging_spacing(inputs, 0.1 if config.quick else 0.01)
        advance("descents")
        reached = {name: distinct(loss, config) for name, loss in LOSSES.items()}
        figures = [
            draw_axis(config, found, folder / "minima_axis.png"),
            draw_plane(config, found, folder / "minima_plane.png"),
        ]
    spacings = Table(
        ["inputs", "minima merge below the spacing"],
        [[str(k), f"{high:.3g}"] for k, (_, high) in merging.items()],
    )
    sections = [
        Section("Where the minima are", [], None, figures),
        Section("How far apart the inputs must be", [], spacings),
    ]
    numbers = {
        "minima per axis": found,
        "reached by descents": reached,
        "minima merge at a spacing between": {str(k): v for k, v in merging.items()},
    }
    return Found(verdicts(config, found, reached), sections, numbers)


def num_descents(config: Config) -> int:
    return 1000 if config.quick else 3000


def distinct(loss, config: Config) -> int:
    """The number of different points in which descents from all over the plane end."""
    rng = np.random.default_rng(config.seed)
    reach = (config.inputs - 1) * np.log(config.spacing)
    starts = np.log(np.log(3)) - rng.uniform(
        -0.5, reach + 0.5, size=(num_descents(config), config.axes)
    )
    ends = np.log(descended(loss, config, starts))
    return len(np.unique(np.round(ends, 3), axis=0))


def verdicts(config: Config, found: dict, reached: dict) -> list[Claim]:
    """The claims, with the expectations and the measurements."""
    m, d = config.inputs, config.axes
    squared, log = found["squared error, targets 3/4"], found["log loss, targets 3/4"]
    near = np.sort(np.log(3) / config.spacing ** np.arange(m))
    close = len(squared) == m and np.allclose(np.log(squared), np.log(near), atol=0.3)
    hard_squared, hard_log = (found[f"{name}, hard labels"] for name in LOSSES)
    proven, descents = "interval arithmetic", f"{num_descents(config)} descents from all over"
    rows = [
        ("minima of squared error, one weight", proven, "⌊n/d⌋^d", m, len(squared)),
        (f"minima of squared error, {d} weights", proven, "⌊n/d⌋^d", m**d, len(squared) ** d),
        ("minima of log loss, one weight", proven, "matching loss: convex", 1, len(log)),
        (f"minima of log loss, {d} weights", proven, "matching loss: convex", 1, len(log) ** d),
        ("the same with hard labels, squared error", proven, "⌊n/d⌋^d", m, len(hard_squared)),
        ("the same with hard labels, log loss", proven, "convex", 1, len(hard_log)),
        (f"points that descents of {d} weights end in, squared error", descents, "⌊n/d⌋^d", m**d,
         reached["squared error"]),
        (f"points that descents of {d} weights end in, log loss", descents, "convex", 1,
         reached["log loss"]),
    ]  # fmt: skip
    claims = [
        Claim(what, f"Auer et al. (1995); {how}", formula, str(expected), str(got), expected == got)
        for what, how, formula, expected, got in rows
    ]
    where = Claim(
        "minima lie within a third of log 3 / Bⁱ",
        "Auer et al. (1995); interval arithmetic",
        "log 3 / Bⁱ",
        _joined(near),
        _joined(squared),
        bool(close),
    )
    return [*claims, where]


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
        ax.set(xlabel="log₁₀ of the first weight", ylabel="log₁₀ of the second weight")
        ax.grid(visible=False)
        sheet.colorbar(shown, label="risk")
    return Figure(
        path,
        f"Squared error of two weights: every combination of minima is a minimum, {len(grid)} in "
        "all.",
    )


STUDY = study.Study(
    "local_minima", "Local minima of a single neuron", __doc__, Config, measure, check
)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "local_minima"))
