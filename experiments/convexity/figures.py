"""The figures of the convexity experiment: each says one thing, with which its caption begins."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from experiments.convexity.measure import (
    SAMPLE_SCALES,
    START_SCALES,
    Descent,
    Jensen,
    Slices,
    Spectrum,
    arms,
)
from jaxclf.analysis.negative_curvature import Bent
from jaxclf.reports.plots import BLACK, BLUE, GREEN, ORANGE, PINK, SKY, YELLOW, figure
from jaxclf.reports.report import Figure

COLOURS = {"log_loss": BLUE, "probability": ORANGE, "raw": GREEN}
MARKERS = {"log_loss": "o", "probability": "v", "raw": "s"}


def curvature(folder: Path) -> Figure:
    """Second derivative in the logit: the formula as a line, ``jax.hessian`` as points."""
    path = folder / "curvature.png"
    logits = np.linspace(-6, 6, 241)
    with figure(path) as (_, axes):
        for arm in arms(2):
            ones = np.ones_like(logits)
            formula = jax.jit(jax.vmap(arm.closed_form))(logits, ones)
            measured = jax.jit(jax.vmap(jax.hessian(arm.loss)))(logits[::12], ones[::12])
            axes.plot(logits, formula, color=COLOURS[arm.key], label=arm.title)
            axes.plot(logits[::12], measured, MARKERS[arm.key], color=COLOURS[arm.key], ms=4)
        axes.axhline(0, color=BLACK, lw=0.8)
        axes.axvline(-np.log(2), color=ORANGE, lw=0.8, ls=":", label="z = -log 2")
        axes.set_yscale("symlog", linthresh=0.3)
        axes.set_ylim(-0.25, 12)
        axes.set_yticks([-0.2, -0.1, 0, 0.1, 0.2, 2], ["-0.2", "-0.1", "0", "0.1", "0.2", "2"])
        axes.set(xlabel="logit z (nats)", ylabel="d²loss/dz²  (loss per nat²)")
        axes.legend(loc="upper left", ncols=2, fontsize=9)
    return Figure(
        path,
        "Squared error on the probability bends down where it is wrong. Drawn is the curvature of "
        "one example's loss in its logit, for label 1: lines are the closed forms, "
        "points are jax.hessian of the loss. Below zero the loss is not convex. The scale is "
        "linear up to 0.3 and logarithmic above.",
    )


def eigenvalues(
    folder: Path, name: str, spectra: dict[str, Spectrum], scale: float, lower: float
) -> Figure:
    """Smallest eigenvalue at every sampled weight, against the size of the logits."""
    path = folder / f"{name}_eigenvalues.png"
    with figure(path) as (_, axes):
        axes.axhline(0, color=BLACK, lw=0.8)
        for shift, arm in zip((0.92, 1.0, 1.08), arms(2), strict=True):
            smallest = spectra[arm.key].smallest / scale
            x = np.repeat(SAMPLE_SCALES, smallest.shape[1]) * shift
            axes.plot(
                x, smallest.ravel(), MARKERS[arm.key], color=COLOURS[arm.key], ms=4, alpha=0.6,
                label=arm.title,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(SAMPLE_SCALES, [f"{s:g}" for s in SAMPLE_SCALES])
        axes.set_xticks([], minor=True)
        lowest = min(s.smallest.min() for s in spectra.values()) / scale
        axes.set_ylim(1.25 * lowest, -0.6 * lowest)
        if lower > 1.25 * lowest:
            axes.axhline(lower, color=ORANGE, ls="--", lw=1.2, label="theoretical lower bound")
        axes.set(
            xlabel="root mean square of the logits at the sampled weights (nats)",
            ylabel="smallest eigenvalue of the risk's Hessian\n(in units of λmax(XᵀX/n))",
        )
        axes.legend(fontsize=9, loc="upper right")
    return Figure(
        path,
        f"{name}: only squared error on the probability has negative eigenvalues. Drawn is the "
        "smallest eigenvalue of the risk's Hessian at random weights. Theory allows "
        f"squared error on the probability no less than {lower:.3g}, the others none below 0.",
    )


def slice_figure(folder: Path, name: str, slices: Slices, witness: Bent, jensen: Jensen) -> Figure:
    """The three risks along the direction in which the squared error curves down most."""
    path = folder / f"{name}_slice.png"
    with figure(path, columns=3, size=(10, 3.4)) as (_, row):
        for axes, arm in zip(row, arms(2), strict=True):
            line = slices.line(arm.key)
            axes.plot(slices.distances, line, color=COLOURS[arm.key], label="risk")
            middle = len(line) // 2
            ends = np.flatnonzero(np.isclose(np.abs(slices.distances), jensen.distance))
            axes.plot(slices.distances[ends], line[ends], color=BLACK, lw=1, ls="--", label="chord")
            axes.plot(0, line[middle], MARKERS[arm.key], color=BLACK, ms=5, label="witness")
            axes.set_title(arm.title)
            axes.set_xlabel("distance along the direction\n(units of weight)")
            axes.set_ylabel("risk (nats)" if arm.key == "log_loss" else "risk (squared error)")
            axes.legend(fontsize=8)
    return Figure(
        path,
        f"{name}: on the same line the squared error on the probability bends down, the others "
        "bend up. Drawn are the three risks along one line: through the weights, and along the "
        "eigenvector, of the most negative eigenvalue found for squared error on the probability "
        f"({witness.curvature:.3g}). A convex function stays below its chords; the chord drawn is "
        "the one that squared error on the probability rises above the most.",
    )


def surface(folder: Path, name: str, slices: Slices) -> Figure:
    """Level lines of two risks on the plane of worst and steepest curvature."""
    path = folder / f"{name}_surface.png"
    distances = slices.distances
    shown = [arm for arm in arms(2) if arm.key != "raw"]
    with figure(path, columns=2, size=(10, 4.2), sharey=True) as (sheet, row):
        for axes, arm in zip(row, shown, strict=True):
            plane = slices.planes[arm.key]
            filled = axes.contourf(distances, distances, plane, levels=18, cmap="cividis")
            axes.contour(distances, distances, plane, levels=18, colors="white", linewidths=0.4)
            axes.plot(0, 0, "o", color="white", mec=BLACK, ms=6, label="witness")
            axes.set_title(arm.title)
            axes.set_xlabel("along the steepest direction\n(units of weight)")
            axes.legend(loc="upper right", fontsize=8, frameon=True, framealpha=0.9)
            unit = "nats" if arm.key == "log_loss" else "squared error"
            sheet.colorbar(filled, ax=axes, label=f"risk ({unit})")
            axes.grid(visible=False)
        row[0].set_ylabel("along the direction of negative curvature\n(units of weight)")
    return Figure(
        path,
        f"{name}: the level sets of log loss are convex, those of squared error on the probability "
        "are not. Drawn is the same plane of weights under two losses, around the witness: "
        "vertically the direction of most negative curvature of the squared error, horizontally "
        "that of its largest.",
    )


def descent(folder: Path, name: str, descents: dict[str, Descent]) -> Figure:
    """The objective along gradient descent, relative to a model that knows nothing."""
    path = folder / f"{name}_descent.png"
    colours = dict(zip(START_SCALES, (SKY, YELLOW, PINK), strict=True))
    with figure(path, columns=3, size=(10, 3.4), sharey=True) as (_, row):
        for axes, arm in zip(row, arms(2), strict=True):
            run = descents[arm.key]
            steps = np.arange(run.values.shape[-1])
            for scale, values in zip(START_SCALES, run.values / run.at_zero, strict=True):
                axes.plot(steps, values.T, color=colours[scale], lw=0.9, alpha=0.7)
                axes.plot([], [], color=colours[scale], label=f"starts with logits of {scale:g}")
            axes.axhline(1, color=BLACK, lw=1, ls="--", label="knows nothing (zero weights)")
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.set_title(arm.title)
            axes.set_xlabel("gradient steps of 1/L")
        row[0].set_ylabel("risk / risk of zero weights")
        row[-1].legend(fontsize=8)
    return Figure(
        path,
        f"{_what_descent_does(name, descents)} Drawn is gradient descent from random "
        "starts, each arm with its own step 1/L. The size of a start "
        "is the root mean square of its logits. A start is on a plateau if it ends worse than a "
        "model that knows nothing (dashed) and less than a tenth below where it began.",
    )


def _what_descent_does(name: str, descents: dict[str, Descent]) -> str:
    steps = descents["probability"].values.shape[-1] - 1
    stuck = {key: run.stuck[-1] for key, run in descents.items()}
    far = f"{name}, far starts (logits of {START_SCALES[-1]:g}), {steps} steps"
    return (
        f"{far}: on a plateau are {stuck['log_loss']:.0%} under log loss, "
        f"{stuck['probability']:.0%} under squared error on the probability, and "
        f"{stuck['raw']:.0%} under squared error on the raw logits."
    )
