"""Which losses ask for a margin, and which go on for ever?

Answer: both hinges are zero once every margin is 1, with gradient zero. Log loss falls for ever,
and squared error punishes rows for being right by more than the margin. Zero-one loss alone is not
convex.

Question: hinge, squared hinge, logistic, squared and zero-one loss all look at the margin m = y·z,
y = ±1. How do they differ, and what does that do to a classifier that already gets every row right?

Procedure: the library's losses and their derivatives over a grid of margins; the verdict of
``certify_convexity`` on each. Then the rows of real data that a fitted model gets right, and its
weights times growing factors c: log loss and the multiclass hinge of Weston and Watkins, with their
gradients. Last, both at weights zero.

Expected: all but zero-one are convex; hinge, squared hinge, squared error (1 - m)² and logistic /
log 2 lie above zero-one. Hinge and squared hinge are exactly 0 from m = 1 on, squared error rises
again, logistic loss falls for ever, like exp(-m). So along c the multiclass hinge reaches 0, with
gradient 0, once every margin is 1, and log loss never does. At zero weights log loss is log K and
the hinge K - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, rows, study
from experiments.study import Claim, Found
from jaxclf import certify_convexity, losses, make_objective, minimize, penalties
from jaxclf.analysis.certify import Convex
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

LOSSES = {
    "zero-one": losses.zero_one,
    "hinge": losses.hinge,
    "squared hinge": losses.squared_hinge,
    "logistic": losses.logistic_margin,
    "squared": losses.squared_error,  # (z - y)² = (1 - m)² for y = ±1
}
COLORS = dict(
    zip(LOSSES, (plots.BLACK, plots.ORANGE, plots.YELLOW, plots.BLUE, plots.GREEN), strict=True)
)
PENALTY = 1e-3
DEEPEST = 600.0
"""The largest log-odds whose probability is still a float64."""


@dataclass(frozen=True)
class Config(rows.Options):
    """Losses on one axis of margins, and what they say of rows that are right."""

    dataset: str = "wine"
    """A dataset, as `jaxclf datasets list` names them."""
    out: Path = Path("results/margins")
    """Folder for metrics.json, the figures and report.html."""


class Right(NamedTuple):
    """Rows whose own class has the highest score, by more than rounding."""

    batch: Batch
    least: float
    """The smallest margin: own score less the next."""
    widest: float
    """The largest own score less another."""


def right_rows(params: linear.LinearParams, batch: Batch) -> Right:
    """The rows of a batch that a model gets right."""
    scores = np.array(rows.logits_of_rows(params, batch.features), np.float64)
    labels = np.asarray(batch.labels)
    behind = scores[np.arange(len(labels)), labels][:, None] - scores
    behind[np.arange(len(labels)), labels] = np.inf
    margins = behind.min(1)
    kept = margins > 1e-3
    features = jnp.asarray(np.asarray(batch.features)[kept])
    others = np.where(np.isinf(behind[kept]), -np.inf, behind[kept])
    right = Batch(features, jnp.asarray(labels[kept]))
    return Right(right, float(margins[kept].min()), float(others.max()))


def along_ray(risk: Callable, factors, direction, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The risk of ``c · direction`` for each factor c and the norm of its gradient, ``(n,)``."""

    @jax.jit
    def at(c, direction, batch):
        value, gradient = jax.value_and_grad(risk)(jax.tree.map(lambda x: c * x, direction), batch)
        return value, jnp.sqrt(sum(jnp.vdot(g, g) for g in gradient))

    values, norms = zip(*(at(c, direction, batch) for c in factors), strict=True)
    return np.array(values), np.array(norms)


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    K = max(found.data.num_classes, 2)
    advance("five losses")
    with jax.enable_x64(True):
        m = jnp.arange(-600, 1201) / 200  # 0 and 1 are among them without rounding
        values = {name: np.asarray(jax.vmap(f, (0, None))(m, 1.0)) for name, f in LOSSES.items()}
        slopes = {
            name: np.asarray(jax.vmap(jax.grad(f), (0, None))(m, 1.0)) for name, f in LOSSES.items()
        }
        advance("verdicts")
        verdicts = {
            name: type(certify_convexity(f, labels=[1.0], seed=config.seed)).__name__
            for name, f in LOSSES.items()
        }
    margins = np.asarray(m)
    beyond = margins >= 1
    above = {
        name: float(
            (values[name] / (np.log(2) if name == "logistic" else 1) - values["zero-one"]).min()
        )
        for name in LOSSES
        if name != "zero-one"
    }
    tail = margins > 5
    decay = float(np.polyfit(margins[tail], np.log(values["logistic"][tail]), 1)[0])

    advance("a classifier that is right")
    start = rows.zeros(found.train, K)
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(PENALTY))
    fitted = minimize(objective, start, found.train, tol=1e-6)
    right = right_rows(fitted.params, found.train)
    risks = {
        "multiclass hinge": make_objective(linear.logits, losses.multiclass_hinge),
        "log loss": make_objective(linear.logits, losses.categorical_nll),
    }
    grid = np.geomspace(0.05, max(20, 2 / right.least), 60 if config.quick else 240)
    edges = [(1 - 1e-4) / right.least, (1 + 1e-4) / right.least]
    factors = {
        "multiclass hinge": np.sort([*grid, *edges]),
        "log loss": grid[grid * right.widest < DEEPEST],
    }
    with jax.enable_x64(True):
        exact = Batch(right.batch.features.astype(jnp.float64), right.batch.labels)
        direction = jax.tree.map(lambda x: x.astype(jnp.float64), fitted.params)
        along, steepness = {}, {}
        for name, risk in risks.items():
            advance(f"{name} along the ray")
            along[name], steepness[name] = along_ray(risk, factors[name], direction, exact)
        at_zero = {name: float(risk(start, found.train)) for name, risk in risks.items()}
    hinge, log = along["multiclass hinge"], along["log loss"]
    done = hinge == 0
    reached = float(factors["multiclass hinge"][done.argmax()]) if done.any() else float("nan")
    claims = [
        Claim(
            "every loss but zero-one is convex",
            "certify_convexity",
            "proof or witness",
            "4 proofs, 1 witness",
            ", ".join(f"{name}: {verdict}" for name, verdict in verdicts.items()),
            all(
                (verdict == Convex.__name__) == (name != "zero-one")
                for name, verdict in verdicts.items()
            )
            and verdicts["zero-one"] != "Unknown",
        ),
        Claim(
            "each lies above zero-one",
            "surrogate losses",
            "φ(m) ≥ [m ≤ 0]; logistic / log 2",
            "smallest difference at least 0",
            ", ".join(f"{name} {study.off(least)}" for name, least in above.items()),
            min(above.values()) >= 0,
        ),
        Claim(
            "past the margin hinge and squared hinge are 0, squared error grows, logistic falls",
            "definition",
            "slopes for m > 1",
            "0, 0, > 0, < 0",
            f"{abs(slopes['hinge'][beyond][1:]).max():g}, "
            f"{abs(slopes['squared hinge'][beyond]).max():g}, "
            f"≥ {slopes['squared'][beyond][1:].min():.2g}, "
            f"≤ {slopes['logistic'][beyond].max():.2g}",
            bool(
                (values["hinge"][beyond] == 0).all()
                and (slopes["hinge"][beyond][1:] == 0).all()
                and (values["squared hinge"][beyond] == 0).all()
                and (slopes["squared"][beyond][1:] > 0).all()
                and (slopes["logistic"] < 0).all()
            ),
        ),
        Claim(
            "logistic loss falls like exp(-m)",
            "log(1 + exp(-m)) ~ exp(-m)",
            "slope of its logarithm",
            "-1 within 0.01",
            f"{decay:.3g} for m in 5 … 6",
            abs(decay + 1) < 0.01,
        ),
        Claim(
            "with every row right, the hinge is done at a finite factor, log loss never",
            "homogeneity",
            "hinge(c W) = 0 for c ≥ 1/min margin",
            f"hinge 0 from c = {1 / right.least:.3g} on, with gradient 0; log loss always falling",
            f"hinge 0 from c = {reached:.3g} on; log loss from {log[0]:.3g} to {log[-1]:.2g} "
            f"at c = {factors['log loss'][-1]:.3g}",
            bool(
                done.any()
                and abs(reached * right.least - 1) < 1e-3
                and done[done.argmax() :].all()
                and (steepness["multiclass hinge"][done] == 0).all()
                and (log > 0).all()
                and (np.diff(log) < 0).all()
            ),
        ),
        Claim(
            "losses at zero weights",
            "uniform probabilities; every wrong class misses the margin by 1",
            "log K and K - 1",
            f"{np.log(K):.3g} and {K - 1}, within 1e-6",
            f"{study.beside(at_zero['log loss'], np.log(K))}; "
            f"{study.beside(at_zero['multiclass hinge'], K - 1)}",
            abs(at_zero["log loss"] - np.log(K)) < 1e-6
            and abs(at_zero["multiclass hinge"] - (K - 1)) < 1e-6,
        ),
    ]
    shown = [0, 400, 600, 800, 1000, 1800]
    table = Table(
        ["loss", *(f"m = {margins[i]:g}" for i in shown)],
        [[name, *(f"{values[name][i]:.3g}" for i in shown)] for name in LOSSES],
    )
    figures = [
        draw_losses(margins, values, folder / "margins.png"),
        draw_ray(factors, along, reached, folder / "margins_ray.png"),
    ]
    text = [
        f"{found.data.source}; {len(right.batch.labels)} of {len(found.train.labels)} rows are "
        "right."
    ]
    numbers = {
        name: {"factors": factors[name].tolist(), "loss": along[name].tolist()} for name in risks
    }
    return Found(claims, [Section("One axis of margins", text, table, figures)], numbers)


def draw_losses(margins, values: dict, path: Path) -> Figure:
    """The five losses."""
    with plots.figure(path) as (_, ax):
        shown = margins <= 3
        for name, color in COLORS.items():
            dashed = "--" if name == "squared" else "-"  # it lies over squared hinge below 1
            ax.plot(margins[shown], values[name][shown], dashed, color=color, label=name)
        ax.set(xlabel="margin y·z", ylabel="loss", ylim=(-0.1, 5))
        ax.axvline(1, color=plots.BLACK, lw=0.8, ls=":")
        ax.legend()
    return Figure(path, "Dotted: the margin of 1 that the hinges ask for.")


def draw_ray(factors: dict, along: dict, reached: float, path: Path) -> Figure:
    """Both multiclass losses as the weights grow."""
    with plots.figure(path) as (_, ax):
        for name, color in (("multiclass hinge", plots.ORANGE), ("log loss", plots.BLUE)):
            alive = along[name] > 1e-16
            ax.loglog(factors[name][alive], along[name][alive], color=color, label=name)
        ax.axvline(reached, color=plots.ORANGE, lw=1, ls=":")
        ax.set(xlabel="factor of the weights", ylabel="mean loss of rows that are right")
        ax.set_ylim(1e-16, None)
        ax.legend()
    return Figure(path, "From the dotted line on the hinge is exactly zero; log loss goes on.")


STUDY = study.Study("margins", "Losses of the margin", __doc__, Config, measure, rows.scaled_rows)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "margins"))
