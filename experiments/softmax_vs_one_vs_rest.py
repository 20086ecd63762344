"""One softmax or one sigmoid per class?

Answer: one sigmoid per class does not give a distribution, yet names about as many rows right as
softmax. Where a row has several labels, sigmoids are right and softmax above one half cannot be.

Question: K sigmoids, each trained for one class against the rest, also give K numbers in [0, 1].
Are they a distribution, how good are they, and when are they right where softmax is wrong?

Procedure: the same linear model, W x + b, is fitted to real classes by log loss under softmax and
by the sum of K log losses under sigmoids, with one penalty, both to the certified optimum. On rows
that neither has seen, the K sigmoids are summed, accuracy and calibration are measured, also after
dividing by the sum. Then each row gets several labels at once, the binary digits of its class
number, counted from 1, and both models are fitted to those; softmax to equal shares of a row's
labels.

Expected: softmax sums to one by construction, sigmoids do not. The weights of one-vs-rest are not
those of least log loss. With several labels softmax gives at most one of them a probability above
½, as they share a sum of one, so at that level rows of two and more labels are all missed; a lower
level, chosen on training rows, helps it. Sigmoids give each label a probability of its own.
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
from jaxclf import losses, make_batch, make_objective, metrics, minimize, one_hot, penalties
from jaxclf.activations import sigmoid, softmax, sum_normaliser
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.reports import plots
from jaxclf.reports.classifier_figures import draw_calibration
from jaxclf.reports.report import Figure, Section, Table

PENALTY = 1e-3
LEVELS = tuple(np.linspace(0.05, 0.5, 10).round(2))
"""The levels of probability above which a label is marked."""


@dataclass(frozen=True)
class Config(rows.Options):
    """Softmax beside one sigmoid per class, for one label and for several."""

    out: Path = Path("results/softmax_vs_one_vs_rest")
    """Folder for metrics.json, the figures and report.html."""


def check(config: Config) -> None:
    """Raises ValueError for two classes, where both models are one."""
    found = rows.scaled_rows(config)
    if found.data.num_classes < 3:
        raise ValueError(
            f"{config.dataset} has 2 classes, where one sigmoid is a softmax; give more"
        )


def fitted(loss: Callable, batch: Batch, num_outputs: int):
    """The optimum of the mean loss and the penalty."""
    objective = make_objective(linear.logits, loss, penalties.l2(PENALTY))
    return minimize(objective, rows.zeros(batch, num_outputs), batch, tol=1e-6)


def binary_digits(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The digits of class numbers, ``(n, bits)``, counted from 1 so that every row has a one."""
    return (labels[:, None] + 1 >> np.arange(num_classes.bit_length())) & 1


def share_right(marked: np.ndarray, wanted: np.ndarray) -> float:
    """The share of rows all of whose labels are right."""
    return float((marked == wanted).all(1).mean())


def as_float64(x):
    """The arrays with floating ones widened and others as they are."""
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    train, test, K = found.train, found.test, found.data.num_classes
    labels = np.asarray(test.labels)
    advance("softmax")
    together = fitted(losses.categorical_nll, train, K)
    advance("one sigmoid per class")
    apart = fitted(losses.multilabel_nll, train._replace(labels=one_hot(train.labels, K)), K)
    sigmoids = np.asarray(sigmoid(rows.logits_of_rows(apart.params, test.features)))
    shares = {
        "softmax": np.asarray(softmax(rows.logits_of_rows(together.params, test.features))),
        "one-vs-rest, divided by the sum": np.asarray(sum_normaliser(sigmoids)),
    }
    sums = sigmoids.sum(1)
    off_softmax = float(np.abs(shares["softmax"].sum(1) - 1).max())
    far = float((np.abs(sums - 1) > 0.01).mean())
    quality = {name: qualities(p, labels) for name, p in shares.items()}
    with jax.enable_x64(True):
        objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(PENALTY))
        of_apart = float(objective(*jax.tree.map(as_float64, (apart.params, train))))

    advance("several labels")
    many, wanted = (binary_digits(np.asarray(b.labels), K) for b in (train, test))
    bits = many.shape[1]
    given = make_batch(train.features, many.astype(np.float32))
    equal = train._replace(labels=sum_normaliser(given.labels))
    outputs = {
        "sigmoids": (sigmoid, fitted(losses.multilabel_nll, given, bits).params),
        "softmax": (softmax, fitted(losses.soft_categorical_nll, equal, bits).params),
    }
    on_train, on_test = (
        {
            name: np.asarray(output(rows.logits_of_rows(params, batch.features)))
            for name, (output, params) in outputs.items()
        }
        for batch in (train, test)
    )
    level = max(LEVELS, key=lambda level: share_right(on_train["softmax"] > level, many))
    patterns, counts = np.unique(many, axis=0, return_counts=True)
    several = wanted.sum(1) >= 2
    right = {
        "the most frequent answer": share_right(patterns[counts.argmax()][None], wanted),
        "softmax above ½": share_right(on_test["softmax"] > 0.5, wanted),
        f"softmax above {level:g}, chosen on training rows": share_right(
            on_test["softmax"] > level, wanted
        ),
        "sigmoids above ½": share_right(on_test["sigmoids"] > 0.5, wanted),
    }
    missed = share_right((on_test["softmax"] > 0.5)[several], wanted[several])
    claims = [
        Claim(
            "softmax sums to one, sigmoids do not",
            "definition",
            "Σ_k p_k = 1; Σ_k σ(z_k) is anything in (0, K)",
            "1 within 1e-6; over a range wider than 0.01",
            f"1 within {study.off(off_softmax)}; sums from {sums.min():.2g} to {sums.max():.3g}, "
            f"{far:.0%} of rows more than 0.01 away",
            off_softmax < 1e-6 and np.ptp(sums) > 0.01,
        ),
        Claim(
            "the weights of one-vs-rest are not the optimum of log loss",
            "certified optimum",
            "F(W_softmax) < F(W_ovr), training rows",
            f"more than {together.value:.3g}, certified to {together.gap_bound:.0e}",
            f"{of_apart:.3g} at the weights of one-vs-rest",
            of_apart > together.value + together.gap_bound and together.gap_bound < 1e-4,
        ),
        Claim(
            "as classifiers they are close",
            "Rifkin and Klautau (2004)",
            "accuracy",
            "within 0.1",
            ", ".join(f"{name.split(',')[0]} {q['accuracy']:.3g}" for name, q in quality.items()),
            abs(np.subtract(*(q["accuracy"] for q in quality.values()))) < 0.1,
        ),
        Claim(
            "above a level of one half softmax marks one label at most",
            "Σ_k p_k = 1",
            "two probabilities above ½ exceed one",
            f"right on none of {several.sum()} rows with several labels",
            f"right on {missed:.0%}",
            missed == 0,
        ),
        Claim(
            "one sigmoid per label is right more often than softmax above one half, or one answer",
            "independent Bernoulli variables",
            "all labels of a row right",
            "the largest share of these three",
            "; ".join(f"{name} {share:.1%}" for name, share in right.items()),
            right["sigmoids above ½"]
            > max(right["softmax above ½"], right["the most frequent answer"]),
        ),
    ]
    measures = list(quality["softmax"])
    table = Table(
        ["test rows", *measures],
        [[name, *(f"{q[m]:.3g}" for m in measures)] for name, q in quality.items()],
    )
    figures = [
        draw_sums(sums, folder / "softmax_vs_one_vs_rest_sums.png"),
        *(
            draw_calibration(p, labels, folder / f"softmax_vs_one_vs_rest_{i}.png")._replace(
                caption=f"Confidence and accuracy on the test part: {name}."
            )
            for i, (name, p) in enumerate(shares.items())
        ),
    ]
    text = [
        f"{found.data.source}; {len(labels)} test rows, λ = {PENALTY:g}. As labels of a row serve "
        f"the {many.shape[1]} binary digits of its class number, counted from 1."
    ]
    numbers = {"quality": quality, "sums": sums.tolist(), "several labels": right}
    return Found(claims, [Section("Sums, accuracy, calibration", text, table, figures)], numbers)


def qualities(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, log loss, Brier score and calibration error."""
    logits = jnp.log(probabilities)  # softmax of these are the probabilities
    return {
        "accuracy": float(metrics.accuracy(logits, labels)),
        "log loss": float(metrics.log_loss(logits, labels)),
        "Brier score": float(metrics.brier_score(probabilities, labels)),
        "calibration error": float(metrics.expected_calibration_error(probabilities, labels)),
    }


def draw_sums(sums: np.ndarray, path: Path) -> Figure:
    """A figure of the distribution of the sums."""
    with plots.figure(path) as (_, ax):
        ax.hist(sums, bins=40, color=plots.ORANGE, label="one sigmoid per class")
        ax.axvline(1, color=plots.BLUE, lw=2, ls="--", label="softmax, every row")
        ax.set(xlabel="sum of the K outputs", ylabel="test rows")
        ax.legend()
    return Figure(path, "Sums of K sigmoids on rows that were not trained on: no distribution.")


STUDY = study.Study(
    "softmax_vs_one_vs_rest", "Softmax and one-vs-rest", __doc__, Config, measure, check
)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "softmax_vs_one_vs_rest"))
