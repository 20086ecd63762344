"""What has guessing with yes and no to do with a loss?

Answer: the fewest yes/no questions in the mean are the entropy. Questions for wrong probabilities
cost the cross-entropy, which is log loss, and the part too much is the Kullback-Leibler divergence:
it is never negative.

Question: how many yes/no questions does it take to find out a thing that was drawn by known
probabilities, how many if they are believed to be others, and what does that make of log loss?

Procedure: the game of twenty questions with four things, once all alike and once with probabilities
½, ¼, ⅛, ⅛. Every tree of questions is tried, things are drawn, and the questions of the best tree
counted; also those of the tree that is best if all were alike. Numbers below 2²⁰ are found by
halving. Then q is fitted to p by descending the cross-entropy in logits, and Jensen's inequality is
looked at on many pairs of distributions.

Expected: the entropies are 2 and 1.75 bits, and those are the mean numbers of questions; the tree
for four equal things costs H(p, q) = 2 bits where p is the other, KL(p ‖ q) = 0.25 more than
needed. Twenty questions tell 2²⁰ = 1048576 things apart. Cross-entropy in q is smallest at q = p,
where it is the entropy. KL(p ‖ q) = E[-log(q/p)] ≥ -log E[q/p] = 0, as -log is convex, and 0 only
for q = p.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, study
from experiments.gradient_descent import gradient_descent
from experiments.study import Claim, Found
from jaxclf.activations import softmax
from jaxclf.information import (
    cross_entropy,
    entropy,
    hartley_information,
    kl_divergence,
)
from jaxclf.losses import soft_categorical_nll
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

EQUAL, UNEQUAL = np.full(4, 1 / 4), np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])


@dataclass(frozen=True)
class Config(study.Options):
    """Twenty questions, cross-entropy, and Jensen's inequality behind KL ≥ 0."""

    out: Path = Path("results/information")
    """Folder for metrics.json, the figures and report.html."""


def trees(things: tuple) -> Iterator:
    """All trees of questions; a tree is a thing, or two trees between which a question decides."""
    if len(things) == 1:
        yield things[0]
    first, rest = things[0], things[1:]
    for chosen in product((False, True), repeat=len(rest)):
        left = (first, *(x for x, here in zip(rest, chosen, strict=True) if here))
        right = tuple(x for x, here in zip(rest, chosen, strict=True) if not here)
        if right:
            yield from product(trees(left), trees(right))


def play(rng, p: np.ndarray, tree, games: int) -> np.ndarray:
    """Questions of each game, ``(games,)``: a thing is drawn by ``p`` and asked for."""
    counts = np.array([questions(tree, thing) for thing in range(len(p))])
    return counts[rng.choice(len(p), size=games, p=p)]


def holds(tree, thing: int) -> bool:
    """Whether the thing is in the tree, which is the answer to a question."""
    return tree == thing if isinstance(tree, int) else any(holds(part, thing) for part in tree)


def questions(tree, thing: int) -> int:
    """The number of questions that are asked until one thing is left."""
    count = 0
    while not isinstance(tree, int):
        tree, count = tree[0] if holds(tree[0], thing) else tree[1], count + 1
    return count


def mean_questions(tree, p: np.ndarray) -> float:
    """The expected number of questions for things drawn by ``p``."""
    return sum(p[thing] * questions(tree, thing) for thing in range(len(p)))


def halvings(secret: int, count: int) -> int:
    """The number of questions that find a number below ``count`` by asking for the upper half."""
    low, high, asked = 0, count, 0
    while high - low > 1:
        middle, asked = (low + high) // 2, asked + 1
        low, high = (middle, high) if secret >= middle else (low, middle)
    return asked


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    rng = np.random.default_rng(config.seed)
    games = 20_000 if config.quick else 200_000
    pairs = 2_000 if config.quick else 50_000
    with jax.enable_x64(True):
        advance("the game")
        bits = {name: float(entropy(p)) for name, p in (("equal", EQUAL), ("unequal", UNEQUAL))}
        ways = list(trees(tuple(range(4))))
        best = {
            name: min(ways, key=lambda tree, p=p: mean_questions(tree, p))
            for name, p in (("equal", EQUAL), ("unequal", UNEQUAL))
        }
        played = {
            "equal": play(rng, EQUAL, best["equal"], games),
            "unequal": play(rng, UNEQUAL, best["unequal"], games),
            "unequal, tree for equal": play(rng, UNEQUAL, best["equal"], games),
        }
        room = 4 * played["unequal"].std() / np.sqrt(games)
        least = {
            name: mean_questions(best[name], p)
            for name, p in (("equal", EQUAL), ("unequal", UNEQUAL))
        }
        asked = {halvings(int(secret), 2**20) for secret in rng.integers(2**20, size=1000)}
        crossed, extra = float(cross_entropy(UNEQUAL, EQUAL)), float(kl_divergence(UNEQUAL, EQUAL))
        twenty = float(hartley_information(2**20))
        advance("descending cross-entropy")
        p = jnp.asarray(UNEQUAL)
        steps = 1000 if config.quick else 4000
        seen = np.unique(np.geomspace(1, steps, 40).astype(int))
        start = jnp.asarray(rng.normal(size=4))
        path = gradient_descent(soft_categorical_nll, start, p, step_size=2.0, num_steps=steps)
        fitted = np.asarray(softmax(path.params))
        values = np.asarray(path.values) / np.log(2)
        advance("Jensen's inequality")
        P, Q = rng.dirichlet(np.ones(6), (2, pairs))
        divergence = np.asarray(kl_divergence(P, Q))
        of_mean = -np.log2(np.sum(P * (Q / P), 1))
        mean_of = np.sum(P * -np.log2(Q / P), 1)
        itself = float(np.abs(np.asarray(kl_divergence(P, P))).max())
        identity = float(np.abs(mean_of - divergence).max())
    claims = [
        Claim(
            "entropy of four equal things, and of ½, ¼, ⅛, ⅛",
            "Shannon (1948)",
            "-Σ p log₂ p",
            "2 and 1.75 bits",
            f"{bits['equal']:.3g} and {bits['unequal']:.3g}",
            abs(bits["equal"] - 2) < 1e-12 and abs(bits["unequal"] - 1.75) < 1e-12,
        ),
        Claim(
            f"the best of all {len(ways)} trees takes as many questions in the mean",
            "Shannon (1948); Huffman (1952)",
            "least E[questions] = H(p), as all p are powers of ½",
            f"2 and 1.75; played 2 and 1.75 ± {room:.1g}",
            f"{least['equal']:.3g} and {least['unequal']:.3g}; {played['equal'].mean():.3g} and "
            f"{played['unequal'].mean():.3g} in {games} games",
            len(ways) == 15
            and least == bits
            and played["equal"].mean() == 2
            and abs(played["unequal"].mean() - 1.75) < room,
        ),
        Claim(
            "a tree for wrong probabilities costs the cross-entropy",
            "Cover and Thomas (2006), theorem 5.4.3",
            "H(p, q) = H(p) + KL(p ‖ q)",
            "2 = 1.75 + 0.25",
            f"{played['unequal, tree for equal'].mean():.3g} played; "
            f"{crossed:.3g} = {bits['unequal']:.3g} + {extra:.3g}",
            played["unequal, tree for equal"].mean() == 2
            and abs(crossed - bits["unequal"] - extra) < 1e-12
            and abs(extra - 0.25) < 1e-12,
        ),
        Claim(
            "twenty questions tell 1048576 things apart",
            "Hartley (1928)",
            "log₂ 2²⁰",
            "20, in every game of halving",
            f"{twenty:g}; asked {', '.join(map(str, sorted(asked)))} in 1000 games",
            abs(twenty - 20) < 1e-12 and asked == {20},
        ),
        Claim(
            "descending the cross-entropy finds p",
            "Gibbs's inequality",
            "argmin_q H(p, q) = p, min = H(p)",
            f"{np.array2string(UNEQUAL)} within 1e-6; {bits['unequal']:.3g} bits",
            f"off by {study.off(np.abs(fitted - UNEQUAL).max())}; "
            f"{study.beside(values[-1], 1.75)} bits",
            float(np.abs(fitted - UNEQUAL).max()) < 1e-6
            and abs(values[-1] - 1.75) < 1e-9
            and bool((np.diff(values) < 1e-14).all()),
        ),
        Claim(
            "KL ≥ 0, and 0 for q = p",
            "Jensen: E[-log(q/p)] ≥ -log E[q/p] = 0",
            "KL = E[-log(q/p)]",
            "smallest above 0; formula within 1e-9; 0",
            f"{divergence.min():.2g} of {pairs} pairs; {study.off(identity)}; {study.off(itself)}",
            bool(
                divergence.min() > 0
                and itself < 1e-12
                and identity < 1e-9
                and (mean_of >= of_mean - 1e-12).all()
                and np.abs(of_mean).max() < 1e-9
            ),
        ),
    ]
    table = Table(
        ["thing", "p", "questions", "p · questions"],
        [
            [
                f"{k + 1}",
                f"{q:g}",
                f"{questions(best['unequal'], k)}",
                f"{q * questions(best['unequal'], k):g}",
            ]
            for k, q in enumerate(UNEQUAL)
        ],
    )
    figures = [
        draw_games(played, folder / "information.png"),
        draw_descent(seen, values, divergence, folder / "information_descent.png"),
    ]
    numbers = {
        "entropies": bits,
        "means": {name: float(x.mean()) for name, x in played.items()},
        "cross-entropy of the steps (bits)": dict(
            zip(map(int, seen), values[seen].tolist(), strict=True)
        ),
    }
    return Found(claims, [Section("The game, and a fit", [], table, figures)], numbers)


def draw_games(played: dict, path: Path) -> Figure:
    """The mean number of questions as games are played."""
    with plots.figure(path) as (_, ax):
        for (name, counts), color in zip(
            played.items(), (plots.BLACK, plots.BLUE, plots.ORANGE), strict=True
        ):
            n = np.unique(np.geomspace(1, len(counts), 300).astype(int))
            ax.semilogx(
                n,
                np.cumsum(counts)[n - 1] / n,
                color=color,
                label=name,
                # Both games that take 2 questions have the same mean, so one line is seen
                # between the dashes of the other.
                ls="--" if name == "equal" else "-",
                zorder=3 if name == "equal" else 2,
            )
        ax.axhline(1.75, color=plots.BLUE, lw=1, ls=":")
        ax.set(xlabel="games", ylabel="mean number of questions", ylim=(0.9, 3.1))
        ax.legend(fontsize=8)
    return Figure(path, "Questions per game; dotted, the entropy of 1.75 bits.")


def draw_descent(seen, values, divergence, path: Path) -> Figure:
    """Cross-entropy above its minimum, and the divergences of random pairs."""
    with plots.figure(path, columns=2, size=(9, 3.3)) as (_, axes):
        above = values[seen] - 1.75
        shown = above > 1e-15
        axes[0].loglog(seen[shown], above[shown], color=plots.BLUE)
        axes[0].set(xlabel="step", ylabel="H(p, q) - H(p) = KL(p ‖ q) (bits)")
        axes[1].hist(np.log10(divergence), bins=50, color=plots.SKY)
        axes[1].set(xlabel="log₁₀ KL of random pairs (bits)", ylabel="pairs")
    return Figure(path, "Left: gradient descent on the logits of q. Right: no pair is below zero.")


STUDY = study.Study("information", "Twenty questions and cross-entropy", __doc__, Config, measure)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "information"))
