"""A sweep on disk: its table as CSV and JSON, its figures, and its report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxclf import metrics
from jaxclf.data import Dataset
from jaxclf.files import write_csv, write_json
from jaxclf.reports import plots
from jaxclf.reports.numbers import percent, sentence_case, shown, titled
from jaxclf.reports.report import Figure, Section, Table, write_data_report
from jaxclf.sweeps.grid import COMMON, MINIBATCH, Lane, varying
from jaxclf.sweeps.run import SweepResult
from jaxclf.sweeps.selection import METRICS, Candidate, Selection

_MEASURES = (
    "status", *METRICS, "objective", "gap_bound", "gradient_norm", "steps", "passes",
    "epochs", "seconds",
)  # fmt: skip


_BEST = 10
_MOST_LINES = 6
_WIDE = 20
"""The ratio of the largest to the smallest loss from which their axis is logarithmic."""
_COLORS = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK, plots.YELLOW, plots.SKY)


def write_sweep(result: SweepResult, folder: Path) -> None:
    """Writes table.csv and sweep.json."""
    write_csv(folder / "table.csv", _lines_of(result))
    facts = {"fits": [_finite(row) for row in result.table]}
    if result.selection is not None:
        chosen = result.selection._asdict()
        del chosen["params"]
        chosen["candidates"] = [_finite(c._asdict()) for c in result.selection.candidates]
        facts["selection"] = _finite(chosen)
    write_json(folder / "sweep.json", facts)


def write_sweep_report(result: SweepResult, folder: Path, train: Dataset, test: Dataset) -> None:
    """Writes report.html and its figures: what was chosen, by what, and the best configurations."""
    chosen, counts = result.selection, statuses(result)
    seconds = draw_seconds(result.table, folder / "seconds.png")
    about = (
        f"The configurations were fitted to {len(train.labels)} rows of "
        f"{math.prod(train.features.shape[1:])} features and {train.num_classes} classes. {counts}."
    )
    if chosen is None:
        none = "No configuration was chosen, because no folds or validation rows judge them."
        sections = [Section("Result", [none, about])]
    else:
        text = [
            f"Chosen from {len(chosen.candidates)} configurations by {titled(chosen.metric)} on "
            f"{chosen.judged_by}: {described(chosen.lane)}.",
        ]
        measures = None
        if chosen.test is not None:
            of_shares = metrics.measures_of_shares(test.labels, test.num_classes)
            guess = of_shares["accuracy"]
            text.append(
                f"Fitted again to all {len(train.labels)} training rows, it names "
                f"{percent(chosen.test['accuracy'])} of {len(test.labels)} test rows right. Always "
                f"naming the most frequent class would name {percent(guess)} right."
            )
            measures = measures_table(chosen.test, of_shares)
        sections = [
            Section("Result", [*text, *edges(chosen), about], measures),
            Section("The choice", [], None, draw_choice(chosen, folder)),
            Section("The best configurations", [], best_configurations(chosen)),
        ]
    sections.append(Section("Time", [], None, [seconds]))
    write_data_report(folder, "Sweep over", train, sections)


def statuses(result: SweepResult) -> str:
    """The number of fits, and how many of them ended in each way."""
    ended = Counter(row["status"] for row in result.table)
    ways = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in ended.items())
    return f"{len(result.table)} fits: {ways}"


def measures_table(measured: Mapping[str, float], of_shares: Mapping[str, float]) -> Table:
    """Measures of the test rows, for the model and for one that knows the class shares alone."""
    header = ["on the test rows", "model", "their class shares alone"]
    return Table(header, [
        [titled(name), shown(value), shown(of_shares[name])]
        for name, value in measured.items() if name != "rows"
    ])  # fmt: skip


def described(lane: Lane) -> str:
    """What is chosen by a configuration, in words: the penalty, and keys that are not usual."""
    words = [f"λ = {shown(lane['l2'])}" if lane["l2"] else "no penalty"]
    words += [f"{titled(key)} = {cell(value)}" for key, value in lane.items()
              if key != "l2" and key in COMMON and value != COMMON[key]]  # fmt: skip
    words += [f"{titled(key)} = {cell(lane[key])}" for key in MINIBATCH if key in lane]
    return ", ".join(words)


def cell(value) -> str:
    """A value of a configuration as text."""
    return shown(value) if isinstance(value, float) else str(value).replace("None", "none")


def best_configurations(chosen: Selection) -> Table:
    """The ten best configurations by the keys that vary, with the measure that judged them."""
    sign = METRICS[chosen.metric]
    finite = [c for c in chosen.candidates if math.isfinite(c.mean)]
    keys = varying([c.lane for c in chosen.candidates])
    rows = []
    for c in sorted(finite, key=lambda c: sign * c.mean)[:_BEST]:
        spread = f" ± {c.error:.2g}" if math.isfinite(c.error) else ""
        mark = "yes" if c.lane == chosen.lane else ""
        rows.append([*(cell(c.lane[key]) for key in keys), f"{shown(c.mean)}{spread}", mark])
    measure = f"{titled(chosen.metric)} on {chosen.judged_by}"
    if any(math.isfinite(c.error) for c in finite):
        measure += " ± its standard error"
    return Table([*("λ" if key == "l2" else titled(key) for key in keys), measure, "chosen"], rows)


def edges(chosen: Selection) -> list[str]:
    """A sentence where the chosen strength is the weakest or the strongest of its grid."""
    strengths = sorted({c.lane["l2"] for c in chosen.candidates})
    place = strengths.index(chosen.lane["l2"])
    if len(strengths) < 3 or 0 < place < len(strengths) - 1 or chosen.lane["l2"] == 0:
        return []
    end, further = ("weakest", "weaker") if place == 0 else ("strongest", "stronger")
    return [f"The chosen penalty is the {end} of the grid: {further} ones may be better."]


def _lines_of(result: SweepResult) -> list[list]:
    """A line per fit, after one of names: the keys that vary, then the measures."""
    keys = varying([row["lane"] for row in result.table])
    measures = [name for name in _MEASURES if any(name in row for row in result.table)]
    rows = [
        [*(row["lane"].get(key) for key in keys), *(row.get(name) for name in measures)]
        for row in result.table
    ]
    return [[*keys, *measures], *rows]


def _finite(value):
    """The value with ``None`` for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def draw_choice(chosen: Selection, folder: Path) -> list[Figure]:
    """Draws what the rows that judge say of the configurations, where the grid has a figure."""
    keys = set(varying([c.lane for c in chosen.candidates]))
    measure = f"{titled(chosen.metric)} on {chosen.judged_by}"
    if keys == {"l2", "learning_rate"}:
        path = draw_heat(chosen, folder / "heat.png")
        caption = (
            f"{sentence_case(measure)} over learning rate and strength of the penalty. The circle "
            "is the configuration that was chosen; one that failed is blank."
        )
        return [Figure(path, caption)]
    if "l2" not in keys or len(_lines(chosen)) > _MOST_LINES:
        return []
    path = draw_path(chosen, folder / "path.png")
    spread = any(math.isfinite(c.error) for c in chosen.candidates)
    errors = ", with one standard error of their mean" if spread else ""
    return [
        Figure(path, f"{sentence_case(measure)} against the strength λ of the penalty{errors}.")
    ]


def _lines(chosen: Selection) -> dict[str, list[Candidate]]:
    """The candidates by all that varies but the strength, each from the weakest strength on."""
    keys = [key for key in varying([c.lane for c in chosen.candidates]) if key != "l2"]
    lines = {}
    for c in sorted(chosen.candidates, key=lambda c: c.lane["l2"]):
        name = ", ".join(f"{titled(key)} = {cell(c.lane[key])}" for key in keys)
        lines.setdefault(name, []).append(c)
    return lines


def draw_path(chosen: Selection, path: Path) -> Path:
    """Draws the metric against the strength of the penalty, with the spread of the folds.

    There is a line for each combination of the other keys that vary.
    """
    strengths = np.array([c.lane["l2"] for c in chosen.candidates])
    finite = [c.mean for c in chosen.candidates if math.isfinite(c.mean)]
    with plots.figure(path) as (_, ax):
        # Dashes let a line be seen below another that is the same.
        lines = zip(
            _lines(chosen).items(), _COLORS, ("-", "--", ":", "-.", "-", "--"), strict=False
        )
        for (name, line), color, dashes in lines:
            means, errors = (np.array([getattr(c, key) for c in line]) for key in ("mean", "error"))
            spread = None if np.isnan(errors).all() else errors
            ax.errorbar([c.lane["l2"] for c in line], means, spread, fmt="o", ls=dashes, ms=4,
                        capsize=2, color=color, label=name or None)  # fmt: skip
        label = f"chosen: λ = {shown(chosen.lane['l2'])}"
        ax.axvline(chosen.lane["l2"], color=plots.BLACK, ls="--", lw=1.2, label=label)
        ax.set(
            xscale="log" if (strengths > 0).all() else "linear",
            xlabel="λ",
            ylabel=f"{titled(chosen.metric)} on {chosen.judged_by}",
        )
        if chosen.metric == "log_loss" and max(finite) > _WIDE * min(finite) > 0:
            ax.set_yscale("log")
        ax.legend()
    return path


def draw_heat(chosen: Selection, path: Path) -> Path:
    """Draws the metric over learning rate and strength; configurations that failed are blank."""
    rates = sorted({c.lane["learning_rate"] for c in chosen.candidates})
    strengths = sorted({c.lane["l2"] for c in chosen.candidates})
    grid = np.full((len(strengths), len(rates)), np.nan)
    for c in chosen.candidates:
        grid[strengths.index(c.lane["l2"]), rates.index(c.lane["learning_rate"])] = c.mean
    with plots.figure(path) as (sheet, ax):
        image = ax.imshow(grid, origin="lower", aspect="auto", cmap="viridis")
        ax.set_xticks(range(len(rates)), [f"{x:.2g}" for x in rates])
        ax.set_yticks(range(len(strengths)), [f"{x:.2g}" for x in strengths])
        place = rates.index(chosen.lane["learning_rate"]), strengths.index(chosen.lane["l2"])
        ax.plot(*place, "o", mfc="none", mec=plots.ORANGE, mew=2, ms=14)
        ax.set(xlabel="learning rate", ylabel="λ")
        ax.grid(visible=False)
        sheet.colorbar(image, label=f"{titled(chosen.metric)} on {chosen.judged_by}")
    return path


def draw_seconds(table: Sequence[dict], path: Path) -> Figure:
    """Draws the seconds of every fit, in the order of the grid."""
    seconds = [row["seconds"] for row in table]
    with plots.figure(path, size=(6.2, 3.0)) as (_, ax):
        ax.plot(seconds, "o", ms=4, color=plots.BLUE)
        if max(seconds) > _WIDE * min(seconds) > 0:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("")
        else:
            ax.set_ylim(0, None)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set(xlabel="fit, in the order of the grid", ylabel="seconds")
    return Figure(
        path,
        f"Seconds of each of the {len(table)} fits, {shown(float(sum(seconds)))} s together. The "
        "first fits of a kind also wait for their programs to be compiled.",
    )
