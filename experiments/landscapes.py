"""What do the losses of softmax regression look like around a solution and between two points?

Answer: log loss and squared error on raw logits bend up everywhere. Squared error on the
probabilities bends down around the same point and lies above its chord between two solutions.

Question: log loss, squared error on the probabilities and on the raw logits, as functions of the
650 weights of softmax regression on the digits: where does each bend down?

Procedure: planes through the optimum of log loss with a small ridge, along two random directions
with each class's weights as long as the optimum's (Li et al., NeurIPS 2018), and along the
eigenvectors of the largest and smallest curvature of the loss drawn; at 51 × 51 points the value,
on coarser grids the smallest curvature within the plane and the smallest eigenvalue of the whole
Hessian. Then the line between where descent ends from two far and wrong starts.

Expected: log loss and squared error on raw logits are convex: no plane bends down, no Hessian has a
negative eigenvalue, and between two points the loss lies below the chord. Squared error on the
probabilities is bounded and not constant, and must bend down somewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, study
from experiments.gradient_descent import gradient_descent
from experiments.study import Claim, Found
from jaxclf import load_dataset, losses, make_batch, make_objective, minimize, penalties
from jaxclf.analysis.curvature import linear_risk_hessian, logit_hessians
from jaxclf.analysis.landscape import filter_normalised, landscape_slice, plane_curvature
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table
from jaxclf.reports.surface import Surface

LOSSES = {
    "log loss": losses.categorical_nll,
    "squared error on the probabilities": losses.softmax_squared_error,
    "squared error on the raw logits": losses.onehot_squared_error,
}
RIDGE = 1e-3


@dataclass(frozen=True)
class Config(study.Options):
    """Planes and lines through the losses of softmax regression on the digits."""

    points: int = 51
    """Points along each axis of a plane."""
    out: Path = Path("results/landscapes")
    """Folder for metrics.json, the figures and report.html."""


class Plane(NamedTuple):
    """A slice of a loss, with the curvature in it."""

    values: np.ndarray
    curvature: np.ndarray
    """The smallest curvature within the plane, on a coarser grid."""
    lowest: np.ndarray
    """The smallest eigenvalue of the whole Hessian, on a grid that is coarser still."""
    seconds: float
    """The seconds for the values, once compiled."""


@partial(jax.jit, static_argnums=0)
def values_on(loss: Callable, centre, directions, distances, batch: Batch):
    """The risk on a grid of the plane."""
    risk = partial(make_objective(linear.logits, loss), batch=batch)
    return landscape_slice(risk, centre, directions, (distances, distances), batch_size=64)


@partial(jax.jit, static_argnums=0)
def curvature_on(loss: Callable, centre, directions, distances, batch: Batch):
    """The smallest curvature of the risk within the plane, on a grid."""
    risk = partial(make_objective(linear.logits, loss), batch=batch)
    return plane_curvature(risk, centre, directions, (distances, distances), batch_size=16)


@partial(jax.jit, static_argnums=0)
def risk_hessian(loss: Callable, params, batch: Batch) -> jax.Array:
    """The Hessian of the risk in the weights, ``(640, 640)``."""
    z = jax.vmap(linear.logits, (None, 0))(params, batch.features)
    return linear_risk_hessian(logit_hessians(loss, z, batch.labels), batch.features)


@partial(jax.jit, static_argnums=0)
def lowest_on(loss: Callable, centre, directions, distances, batch: Batch):
    """The smallest eigenvalue of the risk's Hessian in the weights."""

    def smallest(params):
        return jnp.linalg.eigvalsh(risk_hessian(loss, params, batch))[0]

    return landscape_slice(smallest, centre, directions, (distances, distances), batch_size=1)


@partial(jax.jit, static_argnums=(0, 2))
def solutions(loss: Callable, starts, num_steps: int, size, batch: Batch):
    """The ends of gradient descent from stacked starts."""
    objective = make_objective(linear.logits, loss)

    def descend(start):
        return gradient_descent(objective, start, batch, step_size=size, num_steps=num_steps).params

    return jax.lax.map(descend, starts)


def prepare() -> Batch:
    """All digits, with pixels in [0, 1]."""
    data = load_dataset("digits", dtype=np.float64)
    features = np.asarray(data.features).reshape(len(data.labels), -1)
    return make_batch(features / features.max(), data.labels, num_classes=10)


def plane_of(loss, centre, directions, config: Config, batch: Batch) -> Plane:
    fine = jnp.linspace(-1.5, 1.5, config.points)
    values_on(loss, centre, directions, fine, batch).block_until_ready()
    began = time.perf_counter()
    values = np.asarray(values_on(loss, centre, directions, fine, batch))
    seconds = time.perf_counter() - began
    fewer, few = (jnp.linspace(-1.5, 1.5, m) for m in ((11, 3) if config.quick else (25, 9)))
    bend = np.asarray(curvature_on(loss, centre, directions, fewer, batch))
    lowest = np.asarray(lowest_on(loss, centre, directions, few, batch))
    return Plane(values, bend, lowest, seconds)


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    steps = 500 if config.quick else 3000
    key, planes, lines = jax.random.key(config.seed), {}, {}
    with jax.enable_x64(True):
        batch = prepare()
        advance("the optimum")
        objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(RIDGE))
        zero = linear.LinearParams(jnp.zeros((10, 64)), jnp.zeros(10))
        centre = jax.tree.map(jnp.asarray, minimize(objective, zero, batch).params)
        random = [filter_normalised(k, centre) for k in jax.random.split(key, 2)]
        for name, loss in LOSSES.items():
            advance(f"{name}, random directions")
            planes[name, "random"] = plane_of(loss, centre, random, config, batch)
            advance(f"{name}, eigenvectors")
            vectors = np.linalg.eigh(np.asarray(risk_hessian(loss, centre, batch)))[1]
            along = [
                linear.LinearParams(
                    jnp.asarray(v.reshape(10, 64)) * norm(centre) / 2, zero.intercept
                )
                for v in (vectors[:, -1], vectors[:, 0])
            ]
            planes[name, "eigenvector"] = plane_of(loss, centre, along, config, batch)
            advance(f"{name}, between two ends of descent")
            lines[name] = between(loss, centre, key, steps, batch)
    claims = [claim for name in LOSSES for claim in claims_of(name, planes, lines[name])]
    slowest = max(plane.seconds for plane in planes.values())
    text = [
        f"The values at the {config.points} × {config.points} points of a plane, each over 1797 "
        f"rows, took {slowest:.2g} s at most after compilation, on this "
        f"machine{study.less_optimised(config)}."
    ]
    figures = [draw_planes(planes, folder / "landscapes.png"),
               draw_lines(lines, folder / "landscape_lines.png")]  # fmt: skip
    surfaces = [
        Surface(
            f"Around the optimum of log loss along {along} directions; each on its own scale.",
            {name: planes[name, along].values for name in LOSSES},
            (1.5, 1.5),
            ("first direction", "second direction"),
        )
        for along in ("random", "eigenvector")
    ]
    rows = [
        [name, along, study.zero_within(plane.curvature.min(), rounding_of(plane)),
         f"{np.mean(plane.curvature < -rounding_of(plane)):.0%}",
         study.zero_within(plane.lowest.min(), rounding_of(plane))]
        for (name, along), plane in planes.items()
    ]  # fmt: skip
    header = ["loss", "directions", "smallest curvature in the plane", "points where it is below 0",
              "smallest eigenvalue of the Hessian"]  # fmt: skip
    section = Section("Planes and lines", text, Table(header, rows), figures, surfaces)
    numbers = {
        "planes": {
            f"{name}, {along}": {
                "smallest curvature": float(plane.curvature.min()),
                "smallest eigenvalue": float(plane.lowest.min()),
                "seconds": plane.seconds,
            }
            for (name, along), plane in planes.items()
        },
        "lines": {name: line.tolist() for name, line in lines.items()},
    }
    return Found(claims, [section], numbers)


def between(loss, centre, key, steps: int, batch: Batch) -> np.ndarray:
    """The risk from one end of descent (0) to another (1), and somewhat beyond both."""
    keys = jax.random.split(key, 2)
    starts = [scaled(filter_normalised(k, centre), 20 * norm(centre)) for k in keys]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    ends = solutions(loss, stacked, steps, 0.5 if loss is not losses.onehot_squared_error else 0.02,
                     batch)  # fmt: skip
    first, second = (jax.tree.map(lambda x, i=i: x[i], ends) for i in (0, 1))
    direction = jax.tree.map(jnp.subtract, second, first)
    risk = partial(make_objective(linear.logits, loss), batch=batch)
    distances = jnp.linspace(-0.25, 1.25, 61)
    return np.asarray(landscape_slice(risk, first, [direction], [distances]))


def norm(params: Any) -> float:
    return float(jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(params))))


def scaled(direction: Any, length: float) -> Any:
    """The direction, scaled to a length."""
    return jax.tree.map(lambda x: x * (length / norm(direction)), direction)


def rounding_of(*planes: Plane) -> float:
    """A curvature below which rounding hides the sign."""
    return 1e-9 * max(float(np.abs(plane.curvature).max()) for plane in planes)


def claims_of(name: str, planes: dict, line: np.ndarray) -> list[Claim]:
    """The claims about a loss, convex or not, with what its slices show."""
    own = [plane for (other, _), plane in planes.items() if other == name]
    convex = LOSSES[name] is not losses.softmax_squared_error
    rounding = rounding_of(*own)
    bend = min(plane.curvature.min() for plane in own)
    lowest = min(plane.lowest.min() for plane in own)
    chord = line[10] + (line[50] - line[10]) * np.linspace(0, 1, 41)
    above = float(np.max(line[10:51] - chord))
    if convex:
        return [
            Claim(
                f"{name}: no plane bends down, no eigenvalue is negative",
                "convex in the weights",
                "∇²F ⪰ 0",
                f"≥ 0 but for rounding, {rounding:.0e}",
                f"least in planes {study.zero_within(bend, rounding)}, "
                f"least eigenvalue {study.zero_within(lowest, rounding)}",
                bend >= -rounding and lowest >= -rounding,
            ),
            Claim(
                f"{name}: below the chord between two ends of descent",
                "Jensen's inequality",
                "F((1-t) a + t b) ≤ (1-t) F(a) + t F(b)",
                "never above",
                f"at most {study.off(max(above, 0))} above",
                above <= 1e-12,
            ),
        ]
    return [
        Claim(
            f"{name}: some plane bends down",
            "bounded and not constant",
            "λmin(∇²F) < 0",
            "< 0",
            f"least in planes {bend:.2g}, least eigenvalue {lowest:.2g}",
            bend < -rounding and lowest < -rounding,
        ),
        Claim(
            f"{name}: above the chord between two ends of descent",
            "not convex",
            "F above its chord",
            "> 0",
            f"{above:.2g} above",
            above > 1e-3,
        ),
    ]


def draw_planes(planes: dict, path: Path) -> Figure:
    """Contours of each loss on both planes; hatched where the plane bends down."""
    with plots.figure(path, rows=2, columns=3, size=(9.5, 6.2)) as (_, axes):
        for row, along in zip(axes, ("random", "eigenvector"), strict=True):
            for ax, name in zip(row, LOSSES, strict=True):
                plane = planes[name, along]
                grid = np.linspace(-1.5, 1.5, len(plane.values))
                ax.contourf(grid, grid, plane.values.T, 24, cmap="viridis")
                down = np.less(plane.curvature.T, -rounding_of(plane))
                fewer = np.linspace(-1.5, 1.5, len(plane.curvature))
                if down.any():
                    ax.contourf(fewer, fewer, down, [0.5, 1.5], colors="none", hatches=["//"])
                coarse = np.linspace(-1.5, 1.5, len(plane.lowest))
                x, y = np.meshgrid(coarse, coarse, indexing="ij")
                negative = plane.lowest < -1e-9
                ax.plot(x[negative], y[negative], "o", color=plots.ORANGE, ms=3)
                ax.plot(x[~negative], y[~negative], "o", color="white", ms=3)
                ax.plot(0, 0, "+", color=plots.BLACK)
                ax.grid(visible=False)
                ax.set(title=name.replace(" on the ", "\non the "), xticks=[-1, 0, 1],
                       yticks=[-1, 0, 1])  # fmt: skip
            row[0].set_ylabel(f"along {along} directions")
    return Figure(
        path,
        "Planes through the optimum of log loss (+), each on its own scale from low (dark) to high "
        "(bright). Hatched: the plane bends down. Dots: the "
        "Hessian's smallest eigenvalue is negative (orange) or not (white).",
    )


def draw_lines(lines: dict, path: Path) -> Figure:
    """Each loss along the line between its two solutions."""
    with plots.figure(path, columns=3, size=(9.5, 3.2)) as (_, axes):
        distances = np.linspace(-0.25, 1.25, 61)
        colors = (plots.BLUE, plots.ORANGE, plots.GREEN)
        for ax, (name, line), color in zip(axes, lines.items(), colors, strict=True):
            ax.plot(distances, line, color=color)
            ax.plot([0, 1], line[[10, 50]], "o--", color=plots.BLACK, lw=1, ms=4)
            ax.set(title=name.replace(" on the ", "\non the "), xlabel="from one to the other")
    return Figure(
        path, "Between where descent ends from two far and wrong starts; dashed, the chord."
    )


STUDY = study.Study("landscapes", "Landscapes of three losses", __doc__, Config, measure)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "landscapes"))
