"""Can a gradient choose one penalty for each feature?

Answer: it can. The gradient of the validation loss through the fit, one linear solve, lowers that
loss below the best single penalty of a grid. Many penalties fit the validation rows as many weights
fit their rows: on digits the loss of test rows falls for three steps and then rises, so stop early.

Question: a grid over one penalty is easy, and a grid over one for each feature is not. Does the
derivative through the fit take its place?

Procedure: half of the training rows are fitted by ``jaxclf.solve`` with a penalty
``Σ_j exp(s_j) ‖w_j‖² / 2``, and the loss of the other half is lowered by Adam over s, from the best
single penalty of a grid. The loss of the test rows is measured beside it, and nothing is chosen by
it.

Expected: the validation loss falls, and the gradient agrees with central differences to 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import cli, rows, study
from experiments.study import Claim, Found
from jaxclf import losses, make_objective, solve
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section

GRID = np.linspace(-9, -1, 9)


@dataclass(frozen=True)
class Config(rows.Options):
    """One penalty for each feature, by the gradient through the fit."""

    steps: int = 30
    """The steps of Adam."""
    out: Path = Path("results/hypergradient")
    """Folder for metrics.json, the figure and report.html."""


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    found = rows.scaled_rows(config)
    risk = make_objective(linear.logits, losses.categorical_nll)
    most = 300 if config.quick else 10**9
    with jax.enable_x64(True):
        x, y = (np.asarray(part)[:most] for part in found.train[:2])
        fitted, held = (Batch(jnp.asarray(x[i::2], float), jnp.asarray(y[i::2])) for i in (0, 1))

        @partial(jax.value_and_grad, has_aux=True)
        def validation(s, start):
            def penalised(params, batch):
                return risk(params, batch) + jnp.sum(jnp.exp(s)[None] * params.weights**2) / 2

            params = solve(penalised, start, fitted)
            return risk(params, held), params

        # Each fit starts from the one before, so that few steps of Newton's method are left.
        run = jax.jit(validation)
        test = jax.jit(lambda params: risk(params, found.test))
        ones = jnp.ones(x.shape[1])
        advance("a grid of one penalty")
        grid, tests, params = [], [], rows.zeros(fitted, found.data.num_classes, float)
        for s in GRID:
            (value, params), _ = run(s * ones, params)
            grid.append(float(value))
            tests.append(float(test(params)))
        one = int(np.argmin(grid))
        s, optimizer = float(GRID[one]) * ones, optax.adam(0.2)
        state, path, test_path = optimizer.init(s), [], []
        steps = 5 if config.quick else config.steps
        for count in range(steps + 1):
            advance(f"one penalty for each feature, step {count} of {steps}")
            (value, params), slope = run(s, params)
            path.append(float(value))
            test_path.append(float(test(params)))
            if count < steps:
                updates, state = optimizer.update(slope, state)
                s = s + updates
        advance("differences")
        along = jnp.asarray(np.random.default_rng(config.seed).normal(size=x.shape[1]))
        ends = [float(run(s + t * along, params)[0][0]) for t in (1e-4, -1e-4)]
        difference, exact = (ends[0] - ends[1]) / 2e-4, float(slope @ along)
        error = abs(difference - exact) / (float(jnp.linalg.norm(slope)) + abs(exact))
    claims = [
        Claim("the gradient is that of the validation loss", "implicit function theorem",
              "central differences", "within 1e-6", f"{error:.1g}", error < 1e-6),
        Claim("penalties of features do better than one", "gradient descent",
              "validation loss", f"below {grid[one]:.3g}", f"{min(path):.3g}",
              min(path) < grid[one]),
    ]  # fmt: skip
    numbers = {"grid": grid, "path": path, "log_penalties": np.asarray(s).tolist()}
    numbers |= {"test": {"one": tests[one], "each": test_path}}
    text = [
        f"{found.data.source}. Log loss of test rows: {tests[one]:.3g} with the best single "
        f"penalty, {test_path[-1]:.3g} with one for each feature."
    ]
    figure = draw(
        {"validation rows": path, "test rows": test_path},
        {"validation rows": grid[one], "test rows": tests[one]},
        np.asarray(s) / np.log(10),
        found.data.image_shape,
        folder / "hypergradient.png",
    )
    return Found(claims, [Section("The loss, and the penalties", text, None, [figure])], numbers)


def draw(paths: dict, best: dict, exponents: np.ndarray, shape, where: Path) -> Figure:
    """Draws losses against the steps, and the penalties as an image or in order."""
    caption = "Dashed: the best single penalty of the grid. Right: the penalty of each "
    with plots.figure(where, columns=2, size=(8.6, 3.9), width_ratios=(1.3, 1)) as (sheet, axes):
        for color, (name, path) in zip((plots.BLUE, plots.ORANGE), paths.items(), strict=True):
            axes[0].plot(path, color=color, label=name)
            axes[0].axhline(best[name], color=color, ls="--", lw=1)
        axes[0].set(xlabel="step of Adam", ylabel="log loss, nats")
        axes[0].legend()
        if shape is None:
            axes[1].plot(np.sort(exponents), "o", ms=3, color=plots.BLUE)
            axes[1].set(xlabel="features in order", ylabel="penalty, power of 10")
            return Figure(where, caption + "feature, in order.")
        image = axes[1].imshow(exponents.reshape(shape).squeeze(), cmap="viridis")
        axes[1].set(xticks=[], yticks=[])
        axes[1].grid(visible=False)
        sheet.colorbar(image, ax=axes[1], label="penalty, power of 10", shrink=0.8)
    return Figure(where, caption + "pixel.")


STUDY = study.Study("hypergradient", "A penalty for each feature", __doc__, Config, measure,
                    rows.scaled_rows)  # fmt: skip

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "hypergradient"))
