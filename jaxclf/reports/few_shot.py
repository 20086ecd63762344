"""Fits to a few rows of each class, on disk: a table, a figure and a section of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxclf.files import write_csv
from jaxclf.reports import plots
from jaxclf.reports.numbers import sentence_case, shown, titled
from jaxclf.reports.report import Figure, Section, Table
from jaxclf.sweeps.few_shot import FewShot

CHOSEN = ("l2", "l1_ratio", "class_weight")
"""The keys of a configuration that a probe chooses."""


def write_few_shot(found: Sequence[FewShot], path: Path) -> None:
    """Writes a line of CSV per fit: its rows of each class, its seed, its penalty, its measures."""
    rows = [
        [one.shots, one.seed, *(one.lane[key] for key in CHOSEN), *one.test.values()]
        for one in found
    ]
    write_csv(path, [["shots", "seed", *CHOSEN, *found[0].test], *rows])


def few_shot_table(found: Sequence[FewShot], metric: str) -> Table:
    """The mean and the spread over seeds of the measures, for each number of rows of a class."""
    names = list(dict.fromkeys([metric, "accuracy"]))
    header = ["rows of each class", *(f"{titled(name)} ± its deviation" for name in names)]
    rows = []
    for shots, values in by_shots(found, names).items():
        cells = [f"{shown(float(x.mean()))}{_spread(x)}" for x in values.T]
        rows.append([str(shots), *cells])
    return Table([*header, "repetitions"], [[*row, str(_tries(found))] for row in rows])


def by_shots(found: Sequence[FewShot], names: Sequence[str]) -> dict[int, np.ndarray]:
    """The measures of the fits for each number of rows of a class, ``(seeds, measures)``."""
    numbers = sorted({one.shots for one in found})
    return {
        shots: np.array([[one.test[name] for name in names] for one in found if one.shots == shots])
        for shots in numbers
    }


def few_shot_section(
    found: Sequence[FewShot], metric: str, all_rows: float, of_shares: float, folder: Path
) -> Section:
    """The section of a report on how few rows are enough, with its figure ``shots.png``.

    Args:
      found: the fits.
      metric: the measure that is shown.
      all_rows: the measure of the fit to all training rows.
      of_shares: the measure of the shares of the classes alone.
      folder: the folder of the figure.
    """
    values = by_shots(found, [metric])
    means = [float(x.mean()) for x in values.values()]
    deviations = [float(x.std(ddof=1)) if len(x) > 1 else 0.0 for x in values.values()]
    path = folder / "shots.png"
    with plots.figure(path) as (_, ax):
        ax.errorbar(list(values), means, deviations, fmt="o-", ms=4, capsize=2, color=plots.BLUE)
        ax.axhline(all_rows, color=plots.BLACK, ls="--", lw=1.2, label="all training rows")
        ax.axhline(of_shares, color=plots.ORANGE, ls=":", lw=1.2, label="class shares alone")
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(values), [str(shots) for shots in values])
        ax.set(xlabel="rows of each class", ylabel=f"{titled(metric)} on the test rows")
        ax.legend()
    text = (
        "Each fit learned from so many rows of each class. As many further rows of each class, at "
        "most 4, chose its penalty, and no other training row was used. A repetition takes other "
        "rows."
    )
    caption = (
        f"{sentence_case(titled(metric))} of fits to a few rows of each class: mean over "
        f"{_tries(found)} repetitions, with one standard deviation."
    )
    return Section(
        "How few rows are enough", [text], few_shot_table(found, metric), [Figure(path, caption)]
    )


def _tries(found: Sequence[FewShot]) -> int:
    return len({one.seed for one in found})


def _spread(values: np.ndarray) -> str:
    return f" ± {values.std(ddof=1):.2g}" if len(values) > 1 else ""
