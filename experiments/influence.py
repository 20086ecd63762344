"""Which labels are wrong? The influence of rows says where to look.

Answer: rows whose labels were changed at random are among those that a fit without them would get
most wrong, and nearly all of them are in the first tenth of that list.

Question: 5 % of the labels are changed to another class at random. Can a linear classifier that was
fitted to them find them, without a clean row?

Procedure: a softmax is fitted with a ridge. ``jaxclf.inference.leave_one_out`` gives the logits of
each row by the fit without it, and rows are ranked by their loss there. The rows that head the
list are drawn.

Expected: more than half of the changed labels are in the first tenth of the list, where a random
order has a tenth of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from experiments import cli, rows, study
from experiments.study import Claim, Found
from jaxclf import losses, make_batch, make_objective, penalties
from jaxclf.inference import leave_one_out
from jaxclf.models import linear
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section

_DRAWN = 40


@dataclass(frozen=True)
class Config(rows.Options):
    """Labels that were changed at random, and the rows that stand out."""

    most_rows: int = 10_000
    """The most rows that are fitted."""
    changed: float = 0.05
    """The share of the labels that are changed."""
    l2: float = 0.01
    """The strength of the ridge."""
    out: Path = Path("results/influence")
    """Folder for metrics.json, the figure and report.html."""


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    rng = np.random.default_rng(config.seed)
    K, most = found.data.num_classes, min(config.most_rows, 500 if config.quick else 10**9)
    x, y = (np.asarray(part)[:most] for part in found.train[:2])
    wrong = np.zeros(len(y), bool)
    wrong[rng.choice(len(y), round(config.changed * len(y)), replace=False)] = True
    given = np.where(wrong, (y + rng.integers(1, K, len(y))) % K, y)
    advance("the fit, and the fit without each row")
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(config.l2))
    start = linear.LinearParams(np.zeros((K, x.shape[1])), np.zeros(K))
    z = leave_one_out(objective, start, make_batch(x, given, num_classes=K))
    surprise = -log_softmax(z, 1)[np.arange(len(y)), given]
    order = np.argsort(-surprise)
    share = float(wrong[order[: len(y) // 10]].sum() / wrong.sum())
    claim = Claim(
        "changed labels stand out",
        "leave-one-out loss (Rad and Maleki, 2020)",
        "share of them in the first tenth of the rows by loss",
        "more than 0.5; a random order has 0.1",
        f"{share:.2g}",
        share > 0.5,
    )
    figures = []
    if shape := found.data.image_shape:
        images = found.data.features[order[:_DRAWN]].reshape(-1, *shape)
        figures = [draw(images, given[order], y[order], folder / "influence.png")]
    text = [f"{found.data.source}; {len(y)} rows, of which {wrong.sum()} labels were changed."]
    section = Section("The rows that stand out", text, None, figures)
    return Found([claim], [section], {"share_in_first_tenth": share, "rows": len(y)})


def draw(images, given, true, path: Path) -> Figure:
    """Draws the first rows as images under their labels."""
    with plots.figure(path, rows=5, columns=8, size=(7.2, 5.6)) as (_, axes):
        for ax, image, label, was in zip(np.ravel(axes), images, given, true, strict=False):
            ax.imshow(image, cmap="gray_r")
            color = plots.ORANGE if label != was else plots.BLUE
            ax.set_title(str(label), color=color, fontsize=9)
            ax.axis("off")
    return Figure(
        path,
        "The rows of largest loss without themselves; orange labels were changed, blue ones not.",
    )


STUDY = study.Study("influence", "Wrong labels", __doc__, Config, measure, rows.scaled_rows)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "influence"))
