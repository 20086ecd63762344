"""Why does a classifier end in a sigmoid and not in a step?

Answer: a step decides but gives descent nothing to go by: its derivative is zero. The sigmoid has
the same decisions, a gradient everywhere, and probabilities that tell apart models of one accuracy.

Question: the step function decides; why is it not what is trained? And what do probabilities say of
a model that its accuracy does not?

Procedure: one neuron, z = w·x + b, on two classes and two features of real data. Its output is once
the unit step of z and once the sigmoid. The derivatives of both come from automatic differentiation
and from differences; gradient descent on squared error is tried through the step, and log loss is
minimised through the sigmoid. Then the weights are multiplied by factors, which moves no decision.

Expected: the step has derivative zero wherever it has one, so that descent never moves, and its
output jumps from 0 to 1 across the boundary. σ′(z) = σ(z) σ(-z) is positive, and the output changes
by at most ‖w‖/4 per unit of distance. Models with weights c·(w, b) decide alike for every c > 0,
and their log losses differ; at the optimum c = 1 is the best of them. On the line w·x + b = 0 the
probability is one half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, rows, study
from experiments.gradient_descent import gradient_descent
from experiments.study import Claim, Found
from jaxclf import losses, make_objective, metrics, minimize, penalties
from jaxclf.activations import sigmoid, unit_step
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

OUTPUTS = {"step": unit_step, "sigmoid": sigmoid}
COLORS = {"step": plots.ORANGE, "sigmoid": plots.BLUE}
SMALL = 1e-5
"""The step h of differences."""
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""The factors of the weights."""
TINY = 1e-3
"""A step across the boundary, in standard deviations of the features."""


@dataclass(frozen=True)
class Config(rows.Options):
    """Outputs, gradients and boundaries of a step and of a sigmoid."""

    dataset: str = "iris"
    """A dataset, as `jaxclf datasets list` names them."""
    classes: tuple[int, int] = (1, 2)
    """The two classes; the second one is called 1."""
    features: tuple[int, int] = (2, 3)
    """The two columns."""
    out: Path = Path("results/step_vs_sigmoid")
    """Folder for metrics.json, the figures and report.html."""


def check(config: Config) -> None:
    """Raises ValueError where the dataset lacks a class or a column that is asked for."""
    found = rows.scaled_rows(config)
    columns = np.asarray(found.train.features)
    for name, asked, count in (
        ("classes", config.classes, found.data.num_classes),
        ("features", config.features, columns.shape[1]),
    ):
        if len(set(asked)) != 2 or not set(asked) <= set(range(count)):
            raise ValueError(
                f"{name} must be two different numbers in 0 … {count - 1} for {config.dataset}, "
                f"got {asked}"
            )
    train = np.asarray(two_of(found.train, config).features)
    for place, column in enumerate(config.features):
        if np.ptp(train[:, place]) == 0:
            raise ValueError(
                f"features must differ between the rows of both classes; column {column} of "
                f"{config.dataset} does not"
            )


def two_of(batch: Batch, config: Config) -> Batch:
    """The rows of two classes and two columns, labels 0 and 1."""
    labels = np.asarray(batch.labels)
    kept = np.isin(labels, config.classes)
    features = np.asarray(batch.features)[kept][:, list(config.features)]
    return Batch(jnp.asarray(features), jnp.asarray(labels[kept] == config.classes[1], jnp.int32))


def scaled_by(factor: float, params: linear.LinearParams) -> linear.LinearParams:
    return jax.tree.map(lambda x: factor * x, params)


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    train, test = two_of(found.train, config), two_of(found.test, config)
    names = [rows.column_name(found.data, j) for j in config.features]

    advance("derivatives")
    with jax.enable_x64(True):
        z = jnp.linspace(-6, 6, 1202)  # an even number of points: none is at the jump
        slopes = {name: np.asarray(jax.vmap(jax.grad(f))(z)) for name, f in OUTPUTS.items()}
        differences = {
            name: np.asarray((f(z + SMALL) - f(z - SMALL)) / (2 * SMALL))
            for name, f in OUTPUTS.items()
        }
    off = max(float(np.abs(slopes[name] - differences[name]).max()) for name in OUTPUTS)

    advance("descent through the step")
    through_step = make_objective(
        lambda params, x: unit_step(linear.logits(params, x)), losses.squared_error
    )
    start = linear.init(jax.random.key(config.seed), 2)
    stuck = gradient_descent(
        through_step, start, train._replace(labels=train.labels.astype(jnp.float32)),
        step_size=1.0, num_steps=100,
    )  # fmt: skip
    moved = max(float(jnp.abs(a - b).max()) for a, b in zip(start, stuck.params, strict=True))

    advance("log loss through the sigmoid")
    penalty = penalties.l2(1e-4)  # also where the classes can be separated there is an optimum
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalty)
    best = minimize(objective, start, train, tol=1e-7)
    scaled = []
    for factor in FACTORS:
        params = scaled_by(factor, best.params)
        on_test, on_train = (rows.logits_of_rows(params, b.features) for b in (test, train))
        accuracy = float(metrics.accuracy(on_test, test.labels))
        loss = float(metrics.log_loss(on_train, train.labels))
        scaled.append((factor, accuracy, loss, float(objective(params, train))))

    advance("the boundary")
    point, direction = linear.decision_boundary(best.params)
    along = point[None] + jnp.outer(jnp.linspace(-3, 3, 101), direction)
    half = float(jnp.abs(sigmoid(rows.logits_of_rows(best.params, along)) - 0.5).max())
    length = float(jnp.linalg.norm(best.params.weights))
    normal = best.params.weights / length
    either = jnp.stack([point - TINY / 2 * normal, point + TINY / 2 * normal])
    jumps = {name: float(jnp.diff(f(rows.logits_of_rows(best.params, either)))[0])
             for name, f in (("step", unit_step), ("sigmoid", sigmoid))}  # fmt: skip
    claims = [
        Claim(
            "the step's derivative is zero, the sigmoid's is σ(z) σ(-z)",
            "differences (f(z + h) - f(z - h)) / 2h, h = 1e-5",
            "H′ = 0, σ′ = σ (1 - σ)",
            "0 and within 1e-9",
            f"{np.abs(slopes['step']).max():g}; both within {off:.1e} of differences",
            bool((slopes["step"] == 0).all()) and off < 1e-9,
        ),
        Claim(
            "descent through the step never moves; through the sigmoid it finds the optimum",
            "chain rule",
            "∇ (H(z) - y)² = 2 (H - y) H′ x = 0",
            "moved 0 in 100 steps; converged",
            f"moved {moved:g}; {best.status}, {best.gap_bound:.0e} above the minimum at most",
            moved == 0 and best.gap_bound < 1e-5,
        ),
        Claim(
            f"the step jumps across {TINY:g} of distance, the sigmoid changes smoothly",
            "mean value theorem",
            f"1, and at most ‖w‖ {TINY:g} / 4",
            f"1, at most {length * TINY / 4:.3g}",
            f"{jumps['step']:g}, {jumps['sigmoid']:.3g}",
            jumps["step"] == 1 and 0 < jumps["sigmoid"] <= length * TINY / 4 * (1 + 1e-3),
        ),
        Claim(
            "models of one accuracy differ in log loss",
            "sign(c z) = sign(z)",
            "c (w, b), c > 0",
            "one accuracy, several log losses; the objective is smallest at c = 1",
            f"accuracy {' and '.join(f'{x:.3g}' for x in sorted({row[1] for row in scaled}))}; "
            f"log loss {min(row[2] for row in scaled):.3g} to {max(row[2] for row in scaled):.3g}",
            len({row[1] for row in scaled}) == 1
            and min(scaled, key=lambda row: row[3])[0] == 1
            and len({round(row[2], 3) for row in scaled}) > 1,
        ),
        Claim(
            "on the boundary the probability is one half",
            "σ(0) = ½",
            "w·x + b = 0",
            "½ within 1e-5",
            f"½ within {half:.1e}",
            half < 1e-5,
        ),
    ]  # fmt: skip
    table = Table(
        ["weights times", "test accuracy", "training log loss", "objective"],
        [[f"{c:g}", f"{a:.3g}", f"{loss:.3g}", f"{value:.3g}"] for c, a, loss, value in scaled],
    )
    figures = [
        draw_outputs(np.asarray(z, np.float32), slopes, folder / "step_vs_sigmoid.png"),
        draw_boundary(best.params, train, names, folder / "step_vs_sigmoid_boundary.png"),
    ]
    called = [found.data.class_names[k] for k in config.classes]
    text = [f"{found.data.source}; {called[0]} (0) or {called[1]} (1), {len(train.labels)} rows."]
    numbers = {"scaled": scaled, "boundary": [point.tolist(), direction.tolist()]}
    return Found(claims, [Section("One accuracy, many losses", text, table, figures)], numbers)


def draw_outputs(z, slopes: dict, path: Path) -> Figure:
    """Both functions and their derivatives."""
    with plots.figure(path, columns=2, size=(9, 3.2)) as (_, axes):
        for name, f in OUTPUTS.items():
            axes[0].plot(z, f(z), color=COLORS[name], label=name)
            axes[1].plot(z, slopes[name], color=COLORS[name], label=name)
        axes[0].set(xlabel="logit z", ylabel="output")
        axes[1].set(xlabel="logit z", ylabel="derivative")
        axes[0].legend()
    return Figure(path, "The step decides and gives descent nothing to go by.")


def draw_boundary(params: linear.LinearParams, batch: Batch, names, path: Path) -> Figure:
    """Both outputs over the plane of the two features."""
    x = np.asarray(batch.features)
    low, high = x.min(0) - 0.4, x.max(0) + 0.4
    across, up = np.meshgrid(*(np.linspace(low[j], high[j], 200) for j in range(2)))
    logits = rows.logits_of_rows(params, np.stack([across, up], -1).reshape(-1, 2))
    with plots.figure(path, columns=2, size=(9, 3.9), sharey=True) as (sheet, axes):
        for ax, f, title in zip(axes, OUTPUTS.values(), OUTPUTS, strict=True):
            shade = np.asarray(f(logits)).reshape(across.shape)
            image = ax.imshow(
                shade, origin="lower", extent=(low[0], high[0], low[1], high[1]), aspect="auto",
                cmap="PuOr_r", vmin=-0.15, vmax=1.15, alpha=0.75,
            )  # fmt: skip
            ax.contour(across, up, shade, [0.5], colors=[plots.BLACK], linewidths=1)
            for label, marker, color in ((0, "o", plots.YELLOW), (1, "s", plots.PINK)):
                rows_of = x[np.asarray(batch.labels) == label]
                ax.plot(*rows_of.T, marker, ms=4, color=color, mec=plots.BLACK, mew=0.4, ls="")
            ax.set(xlabel=f"{names[0]}, standardised", title=title)
            ax.grid(visible=False)
        axes[0].set_ylabel(f"{names[1]}, standardised")
        sheet.colorbar(image, ax=axes, label="output", boundaries=np.linspace(0, 1, 101),
                       ticks=[0, 0.5, 1])  # fmt: skip
    return Figure(
        path, "The same weights: a hard boundary, and a probability that says how near it is."
    )


STUDY = study.Study("step_vs_sigmoid", "Step and sigmoid", __doc__, Config, measure, check)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "step_vs_sigmoid"))
