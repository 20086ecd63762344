"""Do probabilities that know how sure the coefficients are need no temperature?

Answer: they do. On digits, with more coefficients than rows, the normal approximation of the
posterior is far too wide, and averaged probabilities are far too timid. One temperature from
leave-one-out logits is better for every penalty, and takes no further rows.

Question: a fit to few rows with a weak penalty is too sure of itself. A temperature divides all of
its logits by one number, for which it needs logits of rows that were not fitted. The last-layer
Laplace approximation divides the logits of each row by a number that comes from the covariance of
the coefficients. Which of the two gives the better probabilities?

Procedure: a softmax is fitted to few rows, over a grid of C = 1 / (l2 · rows), and judged by the
other rows. Beside the plain probabilities are those of ``jaxclf.inference.predictive``, by MacKay's
formula and by draws, and those of a temperature, fitted to a fifth of the rows that the fit then
lacks, or to the logits of ``jaxclf.inference.leave_one_out``.

Expected: MacKay's formula is the mean of a sigmoid under a normal logit to 0.02. Averaged
probabilities are less sure. For every C a temperature from leave-one-out logits has a lower log
loss than they have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from scipy.special import expit, softmax
from sklearn.model_selection import train_test_split

from experiments import cli, rows, study
from experiments.study import Claim, Found
from jaxclf import checks, losses, make_batch, make_objective, penalties
from jaxclf.calibration import fit_temperature
from jaxclf.inference import infer, leave_one_out, predictive
from jaxclf.metrics import expected_calibration_error
from jaxclf.models import linear
from jaxclf.reports import plots
from jaxclf.reports.numbers import shown
from jaxclf.reports.report import Figure, Section, Table

CS = (0.1, 1.0, 10.0, 100.0, 1000.0)
DRAWS = 200
COLORS = {
    "plain": plots.BLACK,
    "averaged by MacKay's formula": plots.BLUE,
    f"averaged over {DRAWS} draws": plots.SKY,
    "temperature, a fifth held out": plots.YELLOW,
    "temperature, leave one out": plots.ORANGE,
}


@dataclass(frozen=True)
class Config(rows.Options):
    """Probabilities averaged over the posterior, beside a temperature."""

    fitted: int = 200
    """The number of rows that are fitted; the other training rows judge."""
    tries: int = 2
    """Repetitions with other rows, over which measures are averaged."""
    out: Path = Path("results/laplace")
    """Folder for metrics.json, the figure and report.html."""


def check(config: Config) -> None:
    checks.check_number("tries", config.tries, at_least=1)
    train = rows.scaled_rows(config).train
    most = len(train.labels) // 2
    checks.check_number("fitted", config.fitted, at_least=20, at_most=most)


def mackay_error() -> float:
    """The largest error of MacKay's formula for the mean of a sigmoid, by Gauss and Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    z, variance = np.meshgrid(np.linspace(0, 10, 101), np.geomspace(1e-2, 1e2, 41))
    exact = expit(z[..., None] + np.sqrt(variance)[..., None] * nodes) @ weights
    return float(np.abs(expit(z / np.sqrt(1 + np.pi / 8 * variance)) - exact).max())


def probabilities(x, y, fitted, judged, C: float, seed: int) -> list[np.ndarray]:
    """Probabilities of the rows that judge, in the order of ``COLORS``."""
    K = int(y.max()) + 1
    start = linear.LinearParams(np.zeros((K, x.shape[1])), np.zeros(K))
    ridge = make_objective(
        linear.logits, losses.categorical_nll, penalties.l2(1 / (C * len(fitted)))
    )

    def table(chosen):
        batch = make_batch(x[chosen], y[chosen], num_classes=K)
        found = infer(ridge, start, batch, covariance="posterior", reference=None)
        theta = found.estimate.reshape(K, -1)
        return batch, linear.LinearParams(theta[:, :-1], theta[:, -1]), found.covariance

    def logits(params, chosen):
        return x[chosen] @ params.weights.T + params.intercept

    batch, params, covariance = table(fitted)
    z = logits(params, judged)
    temperature = fit_temperature(leave_one_out(ridge, params, batch), y[fitted])
    most, held = train_test_split(fitted, test_size=0.2, stratify=y[fitted], random_state=seed)
    fewer = table(most)[1]
    held_out = fit_temperature(logits(fewer, held), y[held])
    key = jax.random.key(seed)
    return [
        softmax(z, 1),
        predictive(params, covariance, x[judged]),
        predictive(params, covariance, x[judged], draws=DRAWS, key=key),
        softmax(logits(fewer, judged) / held_out, 1),
        softmax(z / temperature, 1),
    ]


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    x, y = (np.asarray(part) for part in found.train[:2])
    grid, tries = (CS[2:3], 1) if config.quick else (CS, config.tries)
    measured = np.zeros((tries, len(grid), len(COLORS), 3))
    for t in range(tries):
        fitted, judged = train_test_split(
            np.arange(len(y)), train_size=config.fitted, stratify=y, random_state=config.seed + t
        )
        for i, C in enumerate(grid):
            advance(f"try {t + 1} of {tries}, C = {C:g}")
            for j, p in enumerate(probabilities(x, y, fitted, judged, C, config.seed + t)):
                loss = -np.log(p[np.arange(len(judged)), y[judged]]).mean()
                off = float(expected_calibration_error(p, y[judged]))
                measured[t, i, j] = loss, off, p.max(1).mean()
    loss, off, sure = np.moveaxis(measured.mean(0), -1, 0)
    error = mackay_error()
    claims = [
        Claim("MacKay's formula is the mean of a sigmoid of a normal logit",
              "MacKay (1992); σ(z / √(1 + π s / 8))", "Gauss and Hermite's quadrature",
              "within 0.02", shown(error), error < 0.02),
        Claim("averaged probabilities are less sure", "the variance of the logits is above zero",
              f"mean largest probability, C = {grid[-1]:g}", f"below {shown(sure[-1, 0])}",
              shown(sure[-1, 2]), bool((sure[:, 1:3] < sure[:, :1]).all())),
        Claim("one temperature is better on the dataset", "leave-one-out logits",
              "largest log loss over C", f"below {shown(loss[:, 1:3].min())}, the least averaged",
              shown(loss[:, 4].max()), bool(loss[:, 4].max() < loss[:, 1:3].min())),
    ]  # fmt: skip
    header = ["", *(f"C = {C:g}" for C in grid)]
    lines = [
        [name, *(f"{shown(loss[i, j])}, {off[i, j]:.1%}" for i in range(len(grid)))]
        for j, name in enumerate(COLORS)
    ]
    text = [
        f"{found.data.source}; {config.fitted} rows are fitted, mean of {tries} tries: log loss in "
        "nats and calibration error on the other rows."
    ]
    figures = [draw(grid, loss, off, folder / "laplace.png")]
    numbers = {"C": list(grid), "kinds": list(COLORS), "log_loss": loss.tolist()}
    numbers |= {"calibration_error": off.tolist(), "mean_confidence": sure.tolist()}
    return Found(claims, [Section("Both measures", text, Table(header, lines), figures)], numbers)


def draw(grid, loss: np.ndarray, off: np.ndarray, path: Path) -> Figure:
    """Draws both measures against C."""
    with plots.figure(path, columns=2, size=(8.6, 4.2)) as (sheet, axes):
        for ax, values, name in zip(
            axes, (loss, off), ("log loss, nats", "calibration error"), strict=True
        ):
            for j, (kind, color) in enumerate(COLORS.items()):
                ax.semilogx(grid, values[:, j], "o-", ms=4, color=color, label=kind)
            ax.set(xlabel="C, the penalty is weaker to the right", ylabel=name, ylim=(0, None))
        sheet.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return Figure(path, "Means over the tries, on rows that were not fitted.")


STUDY = study.Study("laplace", "Averaged probabilities", __doc__, Config, measure, check)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "laplace"))
