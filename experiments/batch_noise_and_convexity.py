"""Does the noise of minibatches leave the bad minima of a loss that is not convex?

Answer: it does. The smaller the batch and the longer the step, the more runs leave a bad minimum;
descent on all rows never leaves one. With log loss, which has one minimum, every run ends there.

Question: stochastic steps fluctuate about a minimum with a variance that goes with step size over
batch size. Does that carry them over the barriers between local minima, and is a convex loss, which
has none, served as well without?

Procedure: one weight w and n = 5 inputs 7.5ⁱ with target 3/4, for which squared error has five
minima and log loss one, trained in the logarithm of w. From every minimum of
squared error, stochastic descent with batches of 1, 2, 3 and all 5 rows, drawn anew at each step
without replacement, 200 runs each. A run has left when a last stretch without noise, by gradient
descent on all rows, ends in another minimum.

Expected: the noise of a batch of B of n rows is σ²/B · (n - B)/(n - 1), and a step η makes of it a
temperature T = η σ² / (2 B) · (n - B)/(n - 1): the share that leaves rises with T (Kramers' rate
exp(-ΔF/T), Physica 7, 1940) and is zero for all rows, where T = 0. With log loss every run of any
batch size ends in the one minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from experiments import cli, study
from experiments.local_minima import LOSSES, TARGET, axis_risk, count, minima
from experiments.study import Claim, Found
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

INPUTS, SPACING = 5, 7.5
BATCHES = (1, 2, 3, 5)
STEPS = (5.0, 10.0, 20.0)
NUM_STEPS = 500
CLIP = 0.5
"""The longest stochastic step in log w; without it a saturated input would throw w anywhere."""
SETTLE = 500


@dataclass(frozen=True)
class Config(study.Options):
    """Count the runs of stochastic descent that leave a local minimum, by batch size and step."""

    out: Path = Path("results/batch_noise_and_convexity")
    """Folder for metrics.json, the figure and report.html."""


@partial(jax.jit, static_argnums=(0, 3, 4))
def descend(loss: Callable, keys, starts, batch: int, num_steps: int, size) -> jax.Array:
    """The ends of runs in log w, ``(runs,)``: stochastic steps, then descent on all rows."""
    inputs = jnp.asarray(SPACING ** np.arange(INPUTS))

    def risk(t, rows):
        return jnp.mean(jax.vmap(lambda x: loss(jnp.exp(t) * x, TARGET))(inputs[rows]))

    slope, bend = jax.grad(risk), jax.grad(jax.grad(risk))

    def one(key, t):
        def noisy(t, key):
            rows = jax.random.permutation(key, INPUTS)[:batch]
            return t - jnp.clip(size * slope(t, rows), -CLIP, CLIP), None

        def exact(t, _):  # downhill by damped Newton steps
            rows = jnp.arange(INPUTS)
            newton = slope(t, rows) / jnp.maximum(jnp.abs(bend(t, rows)), 1e-4)
            return t - jnp.clip(newton, -0.05, 0.05), None

        t = jax.lax.scan(noisy, t, jax.random.split(key, num_steps))[0]
        return jax.lax.scan(exact, t, length=SETTLE)[0]

    return jax.vmap(one)(keys, starts)


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    runs = 40 if config.quick else 200
    squared, log = LOSSES["squared error"], LOSSES["log loss"]
    left: dict[str, dict[str, list[float]]] = {}
    with jax.enable_x64(True):
        advance("the minima, by interval arithmetic")
        places = np.log(minima(count(squared, INPUTS, SPACING)))
        only = np.log(minima(count(log, INPUTS, SPACING)))
        starts = jnp.repeat(jnp.asarray(places), runs)
        keys = jax.random.split(jax.random.key(config.seed), len(starts))
        values = jax.vmap(axis_risk(squared, INPUTS, SPACING, hard=False))(jnp.asarray(places))
        for size in STEPS:
            left[f"{size:g}"] = {}
            for batch in BATCHES:
                advance(f"squared error, batches of {batch}, step {size:g}")
                ends = np.asarray(descend(squared, keys, starts, batch, NUM_STEPS, size))
                stayed = np.abs(ends - np.asarray(starts)) < 0.1
                left[f"{size:g}"][f"{batch}"] = (1 - stayed.reshape(-1, runs).mean(1)).tolist()
        together = 0
        for batch in BATCHES:
            advance(f"log loss, batches of {batch}")
            ends = np.asarray(descend(log, keys, starts, batch, NUM_STEPS, 2.0))
            together += int(np.sum(np.abs(ends - only[0]) < 0.1))
    overall = {
        size: {batch: float(np.mean(x)) for batch, x in row.items()} for size, row in left.items()
    }
    full = max(row[f"{INPUTS}"] for row in overall.values())
    shares = [[row[f"{batch}"] for batch in BATCHES] for row in overall.values()]
    noise = 1 / np.sqrt(runs * len(places))
    falls = all(np.all(np.diff(row) <= 2 * noise) for row in shares)
    temperatures = [
        [size / batch * (INPUTS - batch) / (INPUTS - 1) for batch in BATCHES] for size in STEPS
    ]
    order = float(spearmanr(np.ravel(temperatures), np.ravel(shares)).statistic)
    total = len(BATCHES) * len(starts)
    claims = [
        Claim(
            "minima of squared error, of log loss",
            "Auer, Herbster and Warmuth (1995)",
            f"m = {INPUTS}, and 1",
            f"{INPUTS}, 1",
            f"{len(places)}, {len(only)}, proven by intervals",
            len(places) == INPUTS and len(only) == 1,
        ),
        Claim(
            "descent on all rows never leaves a minimum",
            "T = 0 without noise",
            "(n - B)/(n - 1) = 0",
            "0 %",
            f"{full:.1%} at all step sizes",
            full == 0,
        ),
        Claim(
            "the share that leaves falls with the batch size",
            "T ∝ (n - B) / B",
            "exp(-ΔF/T)",
            "falling from batches of 1 to all rows",
            "; ".join(" ".join(f"{x:.0%}" for x in row) for row in shares),
            bool(falls),
        ),
        Claim(
            "step and batch size count by the temperature alone",
            "Kramers (1940)",
            "T ∝ η (n - B) / (B (n - 1))",
            "rank correlation with T near 1",
            f"{order:.2g} over {np.size(shares)} pairs of step and batch size",
            order > 0.85,
        ),
        Claim(
            "with log loss every run ends in the one minimum",
            "one stationary point, proven by intervals",
            "convex in w",
            f"{total} of {total}",
            f"{together} of {total}",
            together == total,
        ),
    ]
    rows = [
        [f"{np.exp(place):.3g}", f"{float(value):.3g}",
         *(f"{left[f'{size:g}']['1'][i]:.0%}" for size in STEPS)]
        for i, (place, value) in enumerate(zip(places, values, strict=True))
    ]  # fmt: skip
    header = ["minimum at w", "squared error", *(f"left by single rows, step {s:g}" for s in STEPS)]
    section = Section(
        "Which minima are left",
        [f"{runs} runs from each, {NUM_STEPS} stochastic steps."],
        Table(header, rows),
        [draw(overall, folder / "batch_noise_and_convexity.png")],
    )
    return Found(claims, [section], {"left": left, "minima": np.exp(places).tolist()})


def draw(overall: dict, path: Path) -> Figure:
    """A figure of the share of runs that left their minimum, against the batch size."""
    with plots.figure(path) as (_, ax):
        colors = (plots.BLUE, plots.GREEN, plots.ORANGE)
        for (size, row), color in zip(overall.items(), colors, strict=True):
            ax.plot(BATCHES, list(row.values()), "o-", color=color, label=f"step {size}")
        ax.set(xlabel="batch size", ylabel="runs that left their minimum", ylim=(-0.02, 1.02))
        ax.set_xticks(BATCHES, [*map(str, BATCHES[:-1]), "5 (all)"])
        ax.legend()
    return Figure(path, "Squared error: minibatch noise leaves minima, descent on all rows never.")


STUDY = study.Study(
    "batch_noise_and_convexity", "Minibatch noise and local minima", __doc__, Config, measure
)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "batch_noise_and_convexity"))
