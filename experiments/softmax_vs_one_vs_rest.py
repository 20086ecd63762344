"""One softmax or one sigmoid per class?

Question: K sigmoids, each trained for one class against the rest, also give K numbers in [0, 1].
Are they a distribution, how good are they, and when are they right where softmax is wrong?

Procedure: the same linear model, W x + b, is fitted to real classes by log loss under softmax and
by the sum of K log losses under sigmoids, with one penalty, both to the certified optimum. On rows
that neither has seen, the K sigmoids are summed, accuracy and calibration are measured, also after
dividing by the sum. Then each row gets several labels at once, the binary digits of its class
number, counted from 1, and both models are fitted to those; softmax to equal shares of a row's
labels.

Expected: softmax sums to one by construction, sigmoids do not. On training rows the softmax optimum
has the smallest objective of log loss among all weights, those of one-vs-rest included. With
several labels softmax gives at most one of them a probability above ½, as they share a sum of one,
so rows of two and more labels are all missed; sigmoids give each label its own.
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
from jaxclf import losses, make_batch, make_objective, metrics, minimize, penalties, plots
from jaxclf.activations import sigmoid, softmax
from jaxclf.classifier_figures import draw_calibration
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.report import Figure, Section, Table

PENALTY = 1e-3


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
    start = linear.init(jax.random.key(0), batch.features.shape[1], num_outputs, stddev=0)
    return minimize(
        make_objective(linear.logits, loss, penalties.l2(PENALTY)), start, batch, tol=1e-6
    )


def binary_digits(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """``(n, bits)``: the digits of the class numbers counted from 1, so that no row has none."""
    return (labels[:, None] + 1 >> np.arange(num_classes.bit_length())) & 1


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    train, test, K = found.train, found.test, found.data.num_classes
    labels = np.asarray(test.labels)
    logits_of = jax.vmap(linear.logits, (None, 0))
    advance("softmax")
    together = fitted(losses.categorical_nll, train, K)
    advance("one sigmoid per class")
    indicators = np.eye(K, dtype=np.float32)[np.asarray(train.labels)]
    apart = fitted(losses.multilabel_nll, make_batch(train.features, indicators), K)
    sigmoids = np.asarray(sigmoid(logits_of(apart.params, test.features)))
    shares = {
        "softmax": np.asarray(softmax(logits_of(together.params, test.features))),
        "one-vs-rest, divided by the sum": sigmoids / sigmoids.sum(1, keepdims=True),
    }
    sums = sigmoids.sum(1)
    off_softmax = float(np.abs(shares["softmax"].sum(1) - 1).max())
    far = float((np.abs(sums - 1) > 0.01).mean())
    quality = {name: qualities(p, labels) for name, p in shares.items()}
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(PENALTY))
    of_apart = float(objective(apart.params, train))

    advance("several labels")
    many, wanted = (binary_digits(np.asarray(b.labels), K) for b in (train, test))
    own = fitted(
        losses.multilabel_nll, make_batch(train.features, many.astype(np.float32)), many.shape[1]
    )
    equal = (many / many.sum(1, keepdims=True)).astype(np.float32)
    shared = fitted(losses.soft_categorical_nll, make_batch(train.features, equal), many.shape[1])
    marked = {
        "sigmoids": np.asarray(sigmoid(logits_of(own.params, test.features))) > 0.5,
        "softmax": np.asarray(softmax(logits_of(shared.params, test.features))) > 0.5,
    }
    several = wanted.sum(1) >= 2
    exact = {name: float((x == wanted)[several].all(1).mean()) for name, x in marked.items()}
    most = {name: int(x.sum(1).max()) for name, x in marked.items()}
    claims = [
        Claim(
            "softmax sums to one, sigmoids do not",
            "definition",
            "Σ_k p_k = 1; Σ_k σ(z_k) is free",
            "1 within 1e-6; elsewhere on more than a tenth of the rows",
            f"1 within {off_softmax:.0e}; sums from {sums.min():.3f} to {sums.max():.3f}, "
            f"{far:.0%} of rows more than 0.01 away",
            off_softmax < 1e-6 and far > 0.1,
        ),
        Claim(
            "no weights have a lower training objective of log loss than softmax's",
            "certified optimum",
            "F(W_softmax) ≤ F(W_ovr)",
            f"{together.value:.4f}, certified to {together.gap_bound:.0e}",
            f"{of_apart:.4f} at the weights of one-vs-rest",
            together.value - together.gap_bound <= of_apart and together.gap_bound < 1e-4,
        ),
        Claim(
            "as classifiers they are close",
            "Rifkin and Klautau (2004)",
            "accuracy",
            "within 0.05",
            ", ".join(f"{name.split(',')[0]} {q['accuracy']:.4f}" for name, q in quality.items()),
            abs(np.subtract(*(q["accuracy"] for q in quality.values()))) < 0.05,
        ),
        Claim(
            "with several labels softmax marks one at most",
            "Σ_k p_k = 1",
            "two probabilities above ½ exceed one",
            "at most 1; right on 0 % of rows with several",
            f"at most {most['softmax']}; right on {exact['softmax']:.0%}",
            most["softmax"] <= 1 and exact["softmax"] == 0,
        ),
        Claim(
            "sigmoids mark each label for itself",
            "independent Bernoulli variables",
            "all labels right, rows with several",
            f"2 and more; over {1 / 2 ** many.shape[1]:.0%}, which guessing gives",
            f"up to {most['sigmoids']}; right on {exact['sigmoids']:.0%} of {several.sum()} rows",
            most["sigmoids"] >= 2 and exact["sigmoids"] > 1 / 2 ** many.shape[1],
        ),
    ]
    measures = list(quality["softmax"])
    table = Table(
        ["test rows", *measures],
        [[name, *(f"{q[m]:.4f}" for m in measures)] for name, q in quality.items()],
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
    numbers = {"quality": quality, "sums": sums.tolist(), "exact": exact}
    return Found(claims, [Section("Sums, accuracy, calibration", text, table, figures)], numbers)


def qualities(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, log loss, Brier score and calibration error."""
    logits = jnp.log(probabilities)
    return {
        "accuracy": float(metrics.accuracy(logits, labels)),
        "log loss": float(metrics.log_loss(logits, labels)),
        "Brier score": float(metrics.brier_score(probabilities, labels)),
        "calibration error": float(metrics.expected_calibration_error(probabilities, labels)),
    }


def draw_sums(sums: np.ndarray, path: Path) -> Figure:
    """How the sums are distributed."""
    with plots.figure(path) as (_, ax):
        ax.hist(sums, bins=40, color=plots.ORANGE, label="one sigmoid per class")
        ax.axvline(1, color=plots.BLUE, lw=2.5, label="softmax, every row")
        ax.set(xlabel="sum of the K outputs", ylabel="test rows")
        ax.legend()
    return Figure(path, "Sums of K sigmoids on rows that were not trained on: no distribution.")


STUDY = study.Study(
    "softmax_vs_one_vs_rest", "Softmax and one-vs-rest", __doc__, Config, measure, check
)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "softmax_vs_one_vs_rest"))
