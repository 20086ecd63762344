"""How hard do two losses push when a prediction is confident and wrong?

Answer: where the right class gets a probability near zero, squared error no longer pushes the
logit, and log loss pushes with all its force.

Question: with q the probability of the right class, squared error is (q - 1)² and log loss -log q.
What do they and their gradients do as q → 0?

Procedure: both losses of the library at logits of which the sigmoid is q, from 0.1 down to 1e-12,
in float64. Their derivatives in q and in the logit come from automatic differentiation.

Expected: squared error stays below 1 and its derivative in q, 2 (q - 1), between -2 and 0; log loss
has no bound, nor has its derivative -1/q. In the logit, which is what a model moves, squared error
has derivative -2 q (1 - q)², which vanishes like -2 q and is never steeper than 8/27, at q = 1/3;
log loss has q - 1, which tends to -1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, study
from experiments.study import Claim, Found
from jaxclf import losses
from jaxclf.activations import logit
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

LOSSES = {"squared error": losses.sigmoid_squared_error, "log loss": losses.bernoulli_nll}
COLORS = {"squared error": plots.ORANGE, "log loss": plots.BLUE}


@dataclass(frozen=True)
class Config(study.Options):
    """Squared error and log loss as the right class becomes improbable."""

    out: Path = Path("results/loss_sensitivity")
    """Folder for metrics.json, the figures and report.html."""


def curves(q) -> dict[str, dict[str, np.ndarray]]:
    """The value of each loss, and its derivatives in q and in the logit."""

    def along(function, x):
        return np.asarray(jax.vmap(function)(x))

    def of(loss):
        right = lambda z: loss(z, 1.0)  # noqa: E731
        return {
            "value": along(right, logit(q)),
            "in q": along(jax.grad(lambda q: right(logit(q))), q),
            "in z": along(jax.grad(right), logit(q)),
        }

    return {name: of(loss) for name, loss in LOSSES.items()}


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    advance("small probabilities")
    with jax.enable_x64(True):
        powers = np.arange(1, 13)
        q = 10.0**-powers
        few = curves(jnp.asarray(q))
        advance("all probabilities")
        grid = np.concatenate(
            [np.logspace(-6, -1, 200)[:-1], np.linspace(0.1, 0.999, 400 if config.quick else 4000)]
        )
        all_of = curves(jnp.asarray(grid))
        steepest = float(jax.grad(LOSSES["squared error"])(logit(jnp.asarray(1 / 3)), 1.0))
    squared, log = few["squared error"], few["log loss"]
    everywhere = all_of["squared error"]
    formulas = {
        "value": ((q - 1) ** 2, -np.log(q)),
        "in q": (2 * (q - 1), -1 / q),
        "in z": (-2 * q * (1 - q) ** 2, q - 1),
    }
    off = {
        name: max(
            float(np.abs(found[name] / formula - 1).max())
            for found, formula in zip((squared, log), pair, strict=True)
        )
        for name, pair in formulas.items()
    }
    claims = [
        Claim(
            "values and both derivatives have their closed forms",
            "calculus",
            "(q - 1)², -log q; 2 (q - 1), -1/q; -2 q (1 - q)², q - 1",
            "within 1e-9, relative, down to q = 1e-12",
            ", ".join(f"{name}: {study.off(worst)}" for name, worst in off.items()),
            max(off.values()) < 1e-9,
        ),
        Claim(
            "squared error and its derivative in q are bounded, those of log loss are not",
            "limits q → 0",
            "|(q - 1)²| ≤ 1, |2 (q - 1)| ≤ 2; 12 log 10 and 1e12 at q = 1e-12",
            f"at most 1 and 2 over all q; {12 * np.log(10):.3g} and 1e+12",
            f"at most {everywhere['value'].max():.3g} and {np.abs(everywhere['in q']).max():.3g}; "
            f"{log['value'][-1]:.3g} and {-log['in q'][-1]:.3g}",
            bool(
                everywhere["value"].max() <= 1
                and np.abs(everywhere["in q"]).max() <= 2
                and abs(log["value"][-1] - 12 * np.log(10)) < 1e-6
                and abs(log["in q"][-1] / -1e12 - 1) < 1e-6
            ),
        ),
        Claim(
            "in the logit squared error no longer pushes, log loss pushes most",
            "limits q → 0",
            "-2 q and -1",
            "-2e-12 and -1",
            f"{squared['in z'][-1]:.3g} and {log['in z'][-1]:.3g}",
            bool(abs(squared["in z"][-1] / -2e-12 - 1) < 1e-6 and abs(log["in z"][-1] + 1) < 1e-6),
        ),
        Claim(
            "squared error pushes most at q = 1/3",
            "d/dq q (1 - q)² = (1 - q)(1 - 3 q)",
            "-8/27",
            f"{-8 / 27:.3g}, within 1e-12",
            f"{study.beside(steepest, -8 / 27)}; steepest of the grid "
            f"{everywhere['in z'].min():.3g}",
            bool(abs(steepest + 8 / 27) < 1e-12 and everywhere["in z"].min() >= steepest - 1e-12),
        ),
    ]
    table = Table(
        ["q", "(q - 1)²", "-log q", "d/dq (q - 1)²", "d/dq -log q", "d/dz (q - 1)²", "d/dz -log q"],
        [
            [
                f"{q[i]:.0e}",
                *(
                    f"{found[name][i]:.3g}"
                    for name in ("value", "in q", "in z")
                    for found in (squared, log)
                ),
            ]
            for i in range(len(q))
        ],
    )
    figure = draw(grid, all_of, folder / "loss_sensitivity.png")
    numbers = {
        "q": q.tolist(),
        **{name: {k: v.tolist() for k, v in found.items()} for name, found in few.items()},
    }
    return Found(claims, [Section("As q falls", [], table, [figure])], numbers)


def draw(q, found: dict, path: Path) -> Figure:
    """Values, and the sizes of both derivatives."""
    with plots.figure(path, columns=3, size=(10.5, 3.3)) as (_, axes):
        for name, curve in found.items():
            axes[0].plot(q, curve["value"], color=COLORS[name], label=name)
            axes[1].loglog(q, -curve["in q"], color=COLORS[name], label=name)
            axes[2].semilogx(q, -curve["in z"], color=COLORS[name], label=name)
        axes[0].set(xlabel="q, probability of the right class", ylabel="loss", ylim=(0, 6))
        axes[1].set(xlabel="q", ylabel="size of the derivative in q", ylim=(1e-3, 1e6))
        axes[2].set(xlabel="q", ylabel="size of the derivative in the logit", ylim=(0, 1.05))
        axes[0].legend()
    return Figure(path, "Right: where the prediction is worst, squared error does not push at all.")


STUDY = study.Study("loss_sensitivity", "Losses of a confident mistake", __doc__, Config, measure)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "loss_sensitivity"))
