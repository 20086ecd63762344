"""Can a gradient choose one penalty for each feature?

Answer: it can. The gradient of the validation loss through the fit, one linear solve, lowers that
loss below the best single penalty of a grid.

Question: a grid over one penalty is easy, and a grid over one for each feature is not. Does the
derivative through the fit take its place?

Procedure: half of the training rows are fitted by ``jaxclf.solve`` with a penalty
``Σ_j exp(s_j) ‖w_j‖² / 2``, and the loss of the other half is lowered by Adam over s, from the best
single penalty of a grid. The test rows are used once, at the end.

Expected: the validation loss falls, and the gradient agrees with central differences to 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
        start = rows.zeros(fitted, found.data.num_classes, float)

        def fit(s):
            def penalised(params, batch):
                return risk(params, batch) + jnp.sum(jnp.exp(s)[None] * params.weights**2) / 2

            return solve(penalised, start, fitted)

        def validation(s):
            return risk(fit(s), held)

        value_and_grad = jax.jit(jax.value_and_grad(validation))
        ones = jnp.ones(x.shape[1])
        advance("a grid of one penalty")
        grid = [float(value_and_grad(s * ones)[0]) for s in GRID]
        best = float(GRID[int(np.argmin(grid))])
        s, optimizer = best * ones, optax.adam(0.2)
        state, path = optimizer.init(s), []
        advance("one penalty for each feature")
        for _ in range(5 if config.quick else config.steps):
            value, slope = value_and_grad(s)
            path.append(float(value))
            updates, state = optimizer.update(slope, state)
            s = s + updates
        value, slope = value_and_grad(s)
        path.append(float(value))
        advance("differences")
        along = jnp.asarray(np.random.default_rng(config.seed).normal(size=x.shape[1]))
        ends = [float(value_and_grad(s + t * along)[0]) for t in (1e-4, -1e-4)]
        difference, exact = (ends[0] - ends[1]) / 2e-4, float(slope @ along)
        error = abs(difference - exact) / (float(jnp.linalg.norm(slope)) + abs(exact))
        tests = [float(risk(fit(t), found.test)) for t in (best * ones, s)]
    claims = [
        Claim("the gradient is that of the validation loss", "implicit function theorem",
              "central differences", "within 1e-6", f"{error:.1g}", error < 1e-6),
        Claim("penalties of features do better than one", "gradient descent",
              "validation loss", f"below {grid[int(np.argmin(grid))]:.3g}", f"{min(path):.3g}",
              min(path) < min(grid)),
    ]  # fmt: skip
    numbers = {"grid": grid, "path": path, "test": {"one": tests[0], "each": tests[1]}}
    text = [
        f"{found.data.source}. Log loss of test rows: {tests[0]:.3g} with the best single penalty, "
        f"{tests[1]:.3g} with one for each feature."
    ]
    figure = draw(path, min(grid), folder / "hypergradient.png")
    return Found(claims, [Section("Validation loss", text, None, [figure])], numbers)


def draw(path: list[float], best: float, where: Path) -> Figure:
    """Draws the validation loss against the steps."""
    with plots.figure(where) as (_, ax):
        ax.plot(path, color=plots.BLUE)
        ax.axhline(best, color=plots.ORANGE, ls="--")
        ax.set(xlabel="step", ylabel="validation loss, nats")
    return Figure(where, "Dashed: the best single penalty of the grid.")


STUDY = study.Study("hypergradient", "A penalty for each feature", __doc__, Config, measure,
                    rows.scaled_rows)  # fmt: skip

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "hypergradient"))
