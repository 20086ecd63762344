"""A sweep on disk: its table as CSV and JSON, and its figures."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxclf.files import write_json
from jaxclf.reports import plots
from jaxclf.sweeps.grid import varying
from jaxclf.sweeps.run import SweepResult
from jaxclf.sweeps.selection import Selection

_MEASURES = (
    "status", "log_loss", "accuracy", "objective", "gap_bound", "gradient_norm", "steps", "passes",
    "epochs", "seconds",
)  # fmt: skip


def write_sweep(result: SweepResult, folder: Path) -> tuple[Path, ...]:
    """Writes table.csv, sweep.json and the figures that the grid has data for.

    Returns:
      The paths of the figures.
    """
    write_csv(result, folder / "table.csv")
    facts = {"lanes": [_finite(row) for row in result.table]}
    if result.selection is not None:
        chosen = result.selection._asdict()
        del chosen["params"]
        chosen["candidates"] = [_finite(c._asdict()) for c in result.selection.candidates]
        facts["selection"] = _finite(chosen)
    write_json(folder / "sweep.json", facts)
    return _draw(result, folder)


def write_csv(result: SweepResult, path: Path) -> None:
    """Writes one line per lane: the keys that vary, then the measures."""
    keys = varying([row["lane"] for row in result.table])
    measures = [name for name in _MEASURES if any(name in row for row in result.table)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*keys, *measures])
        for row in result.table:
            measured = [row.get(name) for name in measures]
            writer.writerow([*(row["lane"].get(key) for key in keys), *measured])


def _finite(value):
    """The value with ``None`` for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _draw(result: SweepResult, folder: Path) -> tuple[Path, ...]:
    drawn = []
    chosen = result.selection
    if chosen is not None:
        keys = set(varying([c.lane for c in chosen.candidates]))
        if keys == {"l2"}:
            drawn.append(draw_path(chosen, folder / "path.png"))
        if keys == {"l2", "learning_rate"}:
            drawn.append(draw_heat(chosen, folder / "heat.png"))
    drawn.append(draw_seconds(result.table, folder / "seconds.png"))
    return tuple(drawn)


def draw_path(chosen: Selection, path: Path) -> Path:
    """Draws the metric against the strength of the penalty, with the spread of the folds."""
    candidates = sorted(chosen.candidates, key=lambda c: c.lane["l2"])
    strengths = np.array([c.lane["l2"] for c in candidates])
    means, errors = (np.array([getattr(c, name) for c in candidates]) for name in ("mean", "error"))
    with plots.figure(path) as (_, ax):
        spread = None if np.isnan(errors).all() else errors
        ax.errorbar(strengths, means, spread, fmt="o-", ms=4, capsize=2, color=plots.BLUE)
        label = f"chosen: λ = {chosen.lane['l2']:.2g}"
        ax.axvline(chosen.lane["l2"], color=plots.ORANGE, ls="--", lw=1.2, label=label)
        ax.set(
            xscale="log" if (strengths > 0).all() else "linear",
            xlabel="λ",
            ylabel=f"{chosen.metric.replace('_', ' ')} on {chosen.judged_by}",
        )
        if chosen.metric == "log_loss":
            ax.set_yscale("log")
        ax.legend()
    return path


def draw_heat(chosen: Selection, path: Path) -> Path:
    """Draws the metric over learning rate and strength; lanes that failed are blank."""
    rates = sorted({c.lane["learning_rate"] for c in chosen.candidates})
    strengths = sorted({c.lane["l2"] for c in chosen.candidates})
    grid = np.full((len(strengths), len(rates)), np.nan)
    for c in chosen.candidates:
        grid[strengths.index(c.lane["l2"]), rates.index(c.lane["learning_rate"])] = c.mean
    with plots.figure(path) as (sheet, ax):
        shown = ax.imshow(grid, origin="lower", aspect="auto", cmap="viridis")
        ax.set_xticks(range(len(rates)), [f"{x:.2g}" for x in rates])
        ax.set_yticks(range(len(strengths)), [f"{x:.2g}" for x in strengths])
        place = rates.index(chosen.lane["learning_rate"]), strengths.index(chosen.lane["l2"])
        ax.plot(*place, "o", mfc="none", mec=plots.ORANGE, mew=2, ms=14)
        ax.set(xlabel="learning rate", ylabel="λ", title="circle: chosen")
        ax.grid(visible=False)
        sheet.colorbar(shown, label=f"{chosen.metric.replace('_', ' ')} on {chosen.judged_by}")
    return path


def draw_seconds(table: Sequence[dict], path: Path) -> Path:
    """Draws the seconds of every lane, in the order of the grid."""
    with plots.figure(path) as (_, ax):
        ax.semilogy([row["seconds"] for row in table], "o", ms=4, color=plots.BLUE)
        total = sum(row["seconds"] for row in table)
        ax.set(xlabel="lane", ylabel="seconds", title=f"{len(table)} lanes in {total:.3g} s")
    return path
