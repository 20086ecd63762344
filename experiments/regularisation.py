"""What do L2 and L1 prefer, and what does their strength change?

Answer: L2 spreads weight evenly over features that say the same, and L1 does not care but sets
weights to exactly zero. As the penalty weakens, training loss falls and the weights grow; the loss
on test rows need not fall.

Question: of weights that give the same score, which does a penalty choose? How do weights, losses
and the gap between training and test rows go along λ?

Procedure: w·x with x = (1, 1, 1, 1) has to be 1; least squares with a small penalty chooses. Then
softmax or logistic regression on real data, along λ from strong to weak: paths under L2 and L1,
each optimum certified, with the losses on both parts, of which the test part chooses nothing.
`sweep` chooses λ by five folds of the training rows.

Expected: (1, 0, 0, 0) and (¼, ¼, ¼, ¼) have ‖w‖₁ = 1, but ‖w‖² = 1 and ¼: L2 spreads evenly, L1 is
indifferent. Under L1 all weights are exactly 0 if and only if λ ≥ ‖∇L(0)‖∞, with the intercept at
its own optimum; under L2 only those of features that never vary. As λ falls, training loss falls
and ‖W‖ grows, as F(W; λ) ≤ F(W′; λ) and F(W′; λ′) ≤ F(W; λ′) add up; and λ ‖W‖² ≤ 2 log K, since
F(W) ≤ F(0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, rows, study
from experiments.study import Claim, Found
from jaxclf import losses, make_batch, make_objective, metrics, minimize, penalties, sweep
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table
from jaxclf.reports.sweep import draw_path
from jaxclf.solvers.path import minimize_path

TOLERANCE = 1e-6
CERTIFIED = 1e-4
"""A bound on the gap that counts as an optimum."""
FOLDS = 5
SHOWN = 12
"""Weights drawn per path, the largest ones."""


@dataclass(frozen=True)
class Config(rows.Options):
    """Preferences of L2 and L1, and paths of weights and losses along their strength."""

    dataset: str = "breast_cancer"
    """A dataset, as `jaxclf datasets list` names them."""
    out: Path = Path("results/regularisation")
    """Folder for metrics.json, the figures and report.html."""


def check(config: Config) -> None:
    """Raises ValueError where a class has too few rows for the folds."""
    labels = np.asarray(rows.scaled_rows(config).train.labels)
    fewest = np.bincount(labels).min()
    if fewest < FOLDS:
        raise ValueError(f"{FOLDS} folds need as many training rows of each class, got {fewest}")


def split_evenly() -> np.ndarray:
    """The weights that L2 chooses where w·(1, 1, 1, 1) should be 1, scaled to that score."""
    one = make_batch(np.ones((1, 4)), np.ones(1))
    objective = make_objective(linear.logits, losses.squared_error, penalties.l2(1e-6))
    start = linear.LinearParams(jnp.array([1.0, 0.0, 0.0, 0.0]))
    weights = np.asarray(minimize(objective, start, one, tol=1e-15).params.weights)
    return weights / weights.sum()


def zero_from(objective, start, batch: Batch) -> float:
    """The strength of L1 from which on all weights are 0: ``‖∇L(0)‖∞`` at the best intercept."""
    empty = Batch(jnp.zeros_like(batch.features), batch.labels)
    constant = minimize(objective, start, empty, tol=1e-13).params
    return float(jnp.abs(jax.grad(objective)(constant, batch).weights).max())


def along(path, batch: Batch) -> np.ndarray:
    """Log loss of each model of a path."""
    return np.array(
        [
            float(metrics.log_loss(rows.logits_of_rows(one.params, batch.features), batch.labels))
            for one in path
        ]
    )


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    train, test, K = found.train, found.test, max(found.data.num_classes, 2)
    strengths = np.geomspace(1, 1e-6, 13 if config.quick else 25)
    loss = losses.bernoulli_nll if K == 2 else losses.categorical_nll
    start = rows.zeros(train, None if K == 2 else K)
    plain = make_objective(linear.logits, loss)
    advance("equal scores")
    with jax.enable_x64(True):
        even = split_evenly()
    advance("the path of L2")
    under_l2 = minimize_path(
        plain, start, train, [penalties.l2(x) for x in strengths], tol=TOLERANCE
    )
    advance("the strongest L1")
    threshold = zero_from(plain, start, train)
    either = [
        minimize(
            make_objective(linear.logits, loss, penalties.l1(share * threshold)),
            start,
            train,
            tol=1e-9,
        ).params
        for share in (1.01, 0.98)
    ]
    counts = [int(np.count_nonzero(np.asarray(params.weights))) for params in either]
    advance("the path of L1")
    weakest = 1e-3 if config.quick else 1e-4
    l1_strengths = threshold * np.geomspace(0.98, weakest, 10 if config.quick else 20)
    under_l1 = minimize_path(
        plain, start, train, [penalties.l1(x) for x in l1_strengths], tol=TOLERANCE
    )
    advance("choosing by folds")
    chosen = sweep(
        {"l2": strengths, "fold": range(FOLDS)}, train, test=test, seed=config.seed,
        rule="one_standard_error",
    ).selection  # fmt: skip
    facts = {
        "strength": strengths,
        "training": along(under_l2, train),
        "test": along(under_l2, test),
        "norm": np.array(
            [np.linalg.norm(np.asarray(one.params.weights, float)) for one in under_l2]
        ),
    }
    worst = max(one.gap_bound for one in under_l2)
    converged = sum(one.status in ("converged", "precision_floor") for one in under_l1)
    claims = [
        *preferences(even),
        Claim(
            "under L1 all weights are 0 from a known strength on",
            "optimality of 0",
            "λ ≥ ‖∇L(0)‖∞",
            f"none at 1.01 times {threshold:.3g}, some at 0.98 times",
            f"{counts[0]} and {counts[1]} weights are not 0",
            counts[0] == 0 < counts[1],
        ),
        Claim(
            "every optimum is one: certified under L2, converged under L1",
            "duality gap in float64",
            "F - F* ≤ bound",
            f"at most {CERTIFIED:g}; {len(under_l1)} converged",
            f"at most {worst:.1e}; {converged} converged",
            worst <= CERTIFIED and converged == len(under_l1),
        ),
        *monotone(facts, K, worst),
    ]
    table = Table(
        ["λ of L2", "training log loss", "test log loss", "test - training", "‖W‖"],
        [
            [
                f"{x:.2g}",
                f"{fitted:.3g}",
                f"{held_out:.3g}",
                f"{held_out - fitted:+.2g}",
                f"{norm:.3g}",
            ]
            for x, fitted, held_out, norm in zip(*facts.values(), strict=True)
        ],
    )
    weights = {"L2": _flat(under_l2), "L1": _flat(under_l1)}
    figures = [
        draw_weights(strengths, l1_strengths, weights, folder / "regularisation_paths.png"),
        draw_gap(facts, chosen.lane["l2"], folder / "regularisation_gap.png"),
        Figure(
            draw_path(chosen, folder / "regularisation_folds.png"),
            "Held-out log loss with one standard error of the folds. Chosen is the strongest "
            "penalty within one standard error of the best.",
        ),
    ]
    text = [
        f"{found.data.source}. On the test rows, which chose nothing, the model with λ = "
        f"{chosen.lane['l2']:.2g} has accuracy {chosen.test['accuracy']:.3g} and log loss "
        f"{chosen.test['log_loss']:.3g}."
    ]
    numbers = {
        "even": even.tolist(),
        "L1 is zero from": threshold,
        "L1": {"strength": l1_strengths.tolist(),
               "nonzero": np.count_nonzero(weights["L1"], 1).tolist()},
        "L2": {name: values.tolist() for name, values in facts.items()},
        "chosen": {"strength": chosen.lane["l2"], "test": chosen.test},
    }  # fmt: skip
    return Found(claims, [Section("Along the strength", text, table, figures)], numbers)


def _flat(path) -> np.ndarray:
    """The weights of the models of a path, ``(models, weights)``."""
    return np.stack([np.asarray(one.params.weights).ravel() for one in path])


def preferences(even: np.ndarray) -> list[Claim]:
    """The claims about two vectors with one score."""
    one, spread = (linear.LinearParams(w) for w in (jnp.array([1.0, 0, 0, 0]), jnp.full(4, 0.25)))
    l2, l1 = (
        [float(penalties.penalty_value(penalty, w)) for w in (one, spread)]
        for penalty in (penalties.l2(2.0), penalties.l1(1.0))
    )
    return [
        Claim(
            "L2 prefers (¼, ¼, ¼, ¼) to (1, 0, 0, 0), L1 neither",
            "definition",
            "‖w‖²; ‖w‖₁",
            "1 and ¼; 1 and 1",
            f"{l2[0]:g} and {l2[1]:g}; {l1[0]:g} and {l1[1]:g}",
            l2 == [1, 0.25] and l1 == [1, 1],
        ),
        Claim(
            "of all weights with that score L2 chooses the even ones",
            "Cauchy and Schwarz: ‖w‖² ≥ (Σ w)² / 4",
            "argmin ‖w‖², Σ w = 1",
            "¼ each, within 1e-6",
            f"{np.array2string(even, precision=3)}, off by {study.off(np.abs(even - 0.25).max())}",
            bool(np.abs(even - 0.25).max() < 1e-6),
        ),
    ]


def monotone(facts: dict, num_classes: int, tol: float) -> list[Claim]:
    """The claims about what holds along λ, with room for optima known to ``tol`` = ε.

    The two inequalities with ε at each optimum: ``(λ - λ')/2 (‖W‖² - ‖W'‖²) ≤ 2 ε`` and
    ``L(λ') - L(λ) ≤ ε + 2 ε λ' / (λ - λ')`` for λ > λ'.
    """
    strength, loss, square = facts["strength"], facts["training"], facts["norm"] ** 2
    apart = -np.diff(strength)
    rises = np.max(np.diff(loss) - tol * (1 + 2 * strength[1:] / apart))
    shrinks = np.max(-apart / 2 * np.diff(square))
    largest, bound = np.max(strength * square), 2 * np.log(num_classes)
    return [
        Claim(
            "the training loss falls with λ",
            "F(W; λ) + F(W′; λ′) ≤ F(W′; λ) + F(W; λ′)",
            "L(λ′) ≤ L(λ) for λ′ < λ",
            f"no step up beyond what optima known to {tol:.1g} allow",
            f"largest step {np.diff(loss).max():.2g} nats",
            bool(rises <= 0),
        ),
        Claim(
            "‖W‖ grows as λ falls",
            "the same",
            "‖W(λ′)‖ ≥ ‖W(λ)‖",
            f"none shorter beyond what optima known to {tol:.1g} allow",
            f"from {facts['norm'][0]:.3g} to {facts['norm'][-1]:.3g}",
            bool(shrinks <= 2 * tol),
        ),
        Claim(
            "‖W‖ has a bound",
            "F(W) ≤ F(0)",
            "λ ‖W‖² ≤ 2 log K",
            f"at most {bound:.3g}",
            f"{largest:.3g}",
            bool(largest <= bound),
        ),
    ]


def draw_weights(l2, l1, weights: dict, path: Path) -> Figure:
    """The largest weights along both paths."""
    colors = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.SKY, plots.PINK, plots.YELLOW)
    with plots.figure(path, columns=2, size=(9, 3.6)) as (_, axes):
        for ax, strengths, (name, values) in zip(axes, (l2, l1), weights.items(), strict=True):
            largest = np.argsort(-np.abs(values[-1]))[:SHOWN]
            for i, j in enumerate(largest):
                ax.semilogx(strengths, values[:, j], color=colors[i % 6], lw=1.3)
            ax.axhline(0, color=plots.BLACK, lw=0.8)
            ax.set(xlabel=f"λ of {name}", ylabel="weight")
            ax.set_yscale("symlog", linthresh=1)
            ax.invert_xaxis()
        for ax, (name, values) in zip(axes, weights.items(), strict=True):
            zeros = (values == 0).mean(1)
            ax.set_title(f"{name}: {zeros[0]:.0%} zeros at the left, {zeros[-1]:.0%} at the right")
    return Figure(
        path, f"The {SHOWN} weights that end largest, and the share of all that are zero."
    )


def draw_gap(facts: dict, chosen: float, path: Path) -> Figure:
    """Losses on both parts, and the norm."""
    with plots.figure(path, columns=2, size=(9, 3.4)) as (_, axes):
        axes[0].loglog(
            facts["strength"], facts["training"], "o-", ms=3, color=plots.BLUE, label="training"
        )
        axes[0].loglog(
            facts["strength"], facts["test"], "s--", ms=3, color=plots.ORANGE, label="test"
        )
        axes[0].axvline(chosen, color=plots.BLACK, lw=1, ls=":", label="chosen by folds")
        axes[0].set(xlabel="λ of L2", ylabel="log loss (nats)")
        axes[0].legend(fontsize=8)
        axes[1].loglog(facts["strength"], facts["norm"], "o-", ms=3, color=plots.GREEN)
        axes[1].set(xlabel="λ of L2", ylabel="‖W‖")
        for ax in axes:
            ax.invert_xaxis()
    return Figure(
        path, "Training loss and ‖W‖ are monotone in λ; the loss on test rows need not be."
    )


STUDY = study.Study("regularisation", "What a penalty does", __doc__, Config, measure, check)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "regularisation"))
