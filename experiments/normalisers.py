"""Why softmax, of all ways to turn scores into shares?

Answer: a plain sum gives negative shares, and absolute values forget the signs of the scores.
Softmax does neither, keeps the order of the scores, and goes from a decision to a uniform answer
with the temperature.

Question: dividing by the sum, or by the sum of absolute values, also gives numbers that add up to
one. What goes wrong, and what does a temperature do to softmax?

Procedure: three scores of fixed size under all eight patterns of signs, then many normal scores, go
through the library's three normalisers. Softmax of z/T is followed from T = 0.05 to 50, with its
entropy by formula and its derivative by automatic differentiation.

Expected: the plain sum is negative somewhere whenever signs differ, for three symmetric scores in 1
- 2/2³ = 3/4 of all cases, and turns the order around where the sum is negative, in half of all
cases. Absolute values give one output for all eight patterns, in order for two of them. Softmax
gives eight, each in the order of its scores; adding a constant to the scores changes nothing. With
the temperature the entropy grows, from 0 to log K: dH/dT = Var_p(z) / T³ ≥ 0 (nats).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, study
from experiments.study import Claim, Found
from jaxclf.activations import absolute_normaliser, softmax, sum_normaliser
from jaxclf.information import entropy
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

SIZES = np.array([2.0, 1.0, 0.5])
NORMALISERS = {
    "plain sum": sum_normaliser,
    "absolute values": absolute_normaliser,
    "softmax": softmax,
}


@dataclass(frozen=True)
class Config(study.Options):
    """Three normalisers under all signs, and softmax at every temperature."""

    out: Path = Path("results/normalisers")
    """Folder for metrics.json, the figures and report.html."""


def keeps_order(scores: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Whether in each row the larger score of every pair has the larger share."""
    above = scores[:, :, None] > scores[:, None, :]
    return ~(above & ~(shares[:, :, None] > shares[:, None, :])).any((1, 2))


def tempered(scores, temperature):
    """``softmax(z / T)``."""
    return softmax(scores / temperature)


def entropy_slope(scores, temperature):
    """dH/dT by formula, ``Var_p(z) / T³`` at ``p = softmax(z / T)``."""
    p = tempered(scores, temperature)
    mean = p @ scores
    return p @ (scores - mean) ** 2 / temperature**3


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    rng = np.random.default_rng(config.seed)
    count = 20_000 if config.quick else 200_000
    with jax.enable_x64(True):
        advance("eight patterns of signs")
        patterns = np.array(list(product((1, -1), repeat=3))) * SIZES
        shares = {name: np.asarray(f(patterns)) for name, f in NORMALISERS.items()}
        different = {name: len(np.unique(x.round(12), axis=0)) for name, x in shares.items()}
        ordered = {name: int(keeps_order(patterns, x).sum()) for name, x in shares.items()}
        advance("many scores")
        drawn = rng.normal(size=(count, 3))
        by_sum = np.asarray(sum_normaliser(drawn))
        negative = float((by_sum < 0).any(1).mean())
        reversed_ = float(keeps_order(-drawn, by_sum).mean())
        by_softmax = np.asarray(softmax(drawn))
        advance("temperature")
        scores = jnp.asarray([2.0, 1.0, 0.5, -1.0])
        temperatures = np.geomspace(0.05, 50, 121)
        warm = np.asarray(jax.vmap(tempered, (None, 0))(scores, temperatures))
        entropies = np.asarray(entropy(warm, base=math.e))
        slope = jax.grad(lambda T: entropy(tempered(scores, T), base=math.e))
        slopes = np.array([float(slope(T)) for T in temperatures[::10]])
        formula = np.array([float(entropy_slope(scores, T)) for T in temperatures[::10]])
        shift = float(jnp.abs(softmax(scores + 1000.0) - softmax(scores)).max())
    off = float(np.abs(slopes - formula).max())
    error = 4 * np.sqrt(0.25 / count)
    claims = [
        Claim(
            "the plain sum gives negative shares",
            "a share has the sign of score times sum",
            "1 - 2/2³ of symmetric scores",
            f"0.75 ± {error:.2g}",
            f"{negative:.3g} of {count}",
            abs(negative - 0.75) < error,
        ),
        Claim(
            "the plain sum turns the order around where the sum is negative",
            "division by a negative number",
            "½ of symmetric scores",
            f"0.5 ± {error:.2g}",
            f"{reversed_:.3g} of {count}",
            abs(reversed_ - 0.5) < error,
        ),
        Claim(
            "absolute values do not see signs; softmax does",
            "|z| = |-z|",
            "different outputs for 8 patterns",
            "1 and 8",
            f"{different['absolute values']} and {different['softmax']}",
            different["absolute values"] == 1 and different["softmax"] == 8,
        ),
        Claim(
            "softmax keeps the order and is positive",
            "exp is increasing and positive",
            "z_j > z_k ⇒ p_j > p_k > 0, Σ p = 1",
            f"8 of 8, {count} of {count}; absolute values 2 of 8",
            f"{ordered['softmax']} of 8, {int(keeps_order(drawn, by_softmax).sum())} of {count}; "
            f"{ordered['absolute values']} of 8",
            ordered["softmax"] == 8
            and bool(keeps_order(drawn, by_softmax).all() and (by_softmax > 0).all())
            and float(np.abs(by_softmax.sum(1) - 1).max()) < 1e-12
            and ordered["absolute values"] == 2,
        ),
        Claim(
            "a constant added to all scores changes nothing",
            "it cancels",
            "softmax(z + c) = softmax(z)",
            "0 within 1e-12, c = 1000",
            study.off(shift),
            shift < 1e-12,
        ),
        Claim(
            "entropy grows with the temperature, from 0 (one score is the largest) to log K",
            "derivative of the entropy of an exponential family",
            "dH/dT = Var_p(z) / T³ ≥ 0",
            f"formula within 1e-9; from 0 to {math.log(4):.3g}",
            f"within {study.off(off)}; from {study.off(entropies[0])} to {entropies[-1]:.3g}",
            off < 1e-9
            and bool((np.diff(entropies) > -1e-12).all())
            and entropies[0] < 1e-6
            and abs(entropies[-1] - math.log(4)) < 1e-3,
        ),
    ]
    table = Table(
        ["scores", *NORMALISERS],
        [
            [_row(z), *(_row(shares[name][i]) for name in NORMALISERS)]
            for i, z in enumerate(patterns)
        ],
    )
    figures = [
        draw_patterns(patterns, shares, folder / "normalisers.png"),
        draw_temperature(
            scores, temperatures, warm, entropies, folder / "normalisers_temperature.png"
        ),
    ]
    numbers = {
        "shares": {name: x.tolist() for name, x in shares.items()},
        "temperatures": temperatures.tolist(),
        "entropy": entropies.tolist(),
    }
    return Found(
        claims, [Section("Eight patterns, three normalisers", [], table, figures)], numbers
    )


def _row(values) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def draw_patterns(patterns: np.ndarray, shares: dict, path: Path) -> Figure:
    """A panel per normaliser, a group of bars per pattern."""
    colors = (plots.BLUE, plots.ORANGE, plots.GREEN)
    names = ["\n".join("+" if value > 0 else "−" for value in row) for row in patterns]
    with plots.figure(path, columns=3, size=(10.5, 3.2)) as (sheet, axes):
        for ax, (name, values) in zip(axes, shares.items(), strict=True):
            for k in range(3):
                ax.bar(
                    np.arange(8) + (k - 1) * 0.27,
                    values[:, k],
                    0.27,
                    color=colors[k],
                    label=f"score ±{SIZES[k]:g}",
                )
            ax.axhline(0, color=plots.BLACK, lw=0.8)
            ax.set_xticks(range(8), names)
            ax.set(title=name, xlabel="signs of the three scores")
        axes[0].set_ylabel("share")
        handles, labels = axes[0].get_legend_handles_labels()
        sheet.legend(handles, labels, loc="outside lower center", ncols=3)
    return Figure(
        path, "The sum leaves [0, 1], absolute values forget signs, softmax does neither."
    )


def draw_temperature(scores, temperatures, warm, entropies, path: Path) -> Figure:
    """Shares and their entropy against the temperature."""
    colors = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK)
    with plots.figure(path, columns=2, size=(9, 3.3)) as (_, axes):
        for k, color in enumerate(colors):
            axes[0].semilogx(
                temperatures, warm[:, k], color=color, label=f"z = {float(scores[k]):g}"
            )
        axes[0].set(xlabel="temperature T", ylabel="softmax(z / T)")
        axes[0].legend(fontsize=8)
        axes[1].semilogx(temperatures, entropies, color=plots.BLACK)
        axes[1].axhline(math.log(4), color=plots.BLACK, lw=1, ls=":")
        axes[1].set(xlabel="temperature T", ylabel="entropy (nats)")
    return Figure(path, "Cold softmax decides, hot softmax shrugs; dotted, log 4.")


STUDY = study.Study("normalisers", "Ways to turn scores into shares", __doc__, Config, measure)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "normalisers"))
