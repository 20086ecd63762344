"""How does gradient descent find a line, and what does its step size do?

Answer: descent finds the four numbers at a step of 1/L. Steps that are ten times shorter are far
off when it is there, and steps beyond 2/L diverge, each as the eigenvalues predict.

Question: sales follow 10·temperature - 2·humidity + 20·discount + 4 with noise. Does descent on
squared error find the four numbers, and which learning rates are too small, right, too large?

Procedure: rows drawn from the formula, features standardised, with a constant one. Squared error is
a quadratic, F = F* + ½ (w - w*)ᵀ H (w - w*) with H = 2 XᵀX/n, so that every step of size η
multiplies the error along each eigenvector of H by 1 - η λᵢ. Descent runs with sizes from 0.01/L to
2.05/L, L = λmax; the closed form and its weights in the units of the data stand beside it.

Expected: least squares finds the formula within four standard errors; descent at η = 1/L gets
there, at any η < 2/L it would, at 2.05/L the error grows by the factor |1 - 2.05| per step. After t
steps the excess is Σ ½ λᵢ (1 - η λᵢ)²ᵗ cᵢ², with cᵢ the error at the start along eigenvector i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, study
from experiments.gradient_descent import gradient_descent
from experiments.study import Claim, Found
from jaxclf import losses, make_batch, make_objective
from jaxclf.data import transforms
from jaxclf.data.synthetic import sales
from jaxclf.models import linear
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

TRUE = np.array([10.0, -2.0, 20.0, 4.0])
NOISE = 1.0
SIZES = {"too small": 0.01, "small": 0.1, "right": 1.0, "too large": 2.05}
"""The step sizes, in units of 1/L."""
COLORS = dict(zip(SIZES, (plots.SKY, plots.BLUE, plots.GREEN, plots.ORANGE), strict=True))


@dataclass(frozen=True)
class Config(study.Options):
    """A line recovered by gradient descent at several learning rates."""

    out: Path = Path("results/linear_regression")
    """Folder for metrics.json, the figures and report.html."""


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    steps, count = (200, 500) if config.quick else (1000, 5000)
    with jax.enable_x64(True):
        data = sales(config.seed, count, noise=NOISE, dtype=np.float64)
        scaling = transforms.fit_standardiser(data.features)
        batch = make_batch(
            linear.append_one(transforms.standardise(scaling, data.features)), data.labels
        )
        objective = make_objective(linear.logits, losses.squared_error)
        advance("closed form")
        X, y = np.asarray(batch.features), np.asarray(batch.labels)
        hessian = 2 * X.T @ X / count
        optimum = np.linalg.solve(hessian, 2 * X.T @ y / count)
        eigenvalues, vectors = np.linalg.eigh(hessian)
        largest = eigenvalues[-1]
        zero = linear.LinearParams(jnp.zeros(4))
        least = float(objective(linear.LinearParams(jnp.asarray(optimum)), batch))
        start = vectors.T @ -optimum
        descend = jax.jit(
            lambda size: gradient_descent(objective, zero, batch, step_size=size, num_steps=steps)
        )
        paths, predicted = {}, {}
        for name, size in SIZES.items():
            advance(f"learning rate {size:g}/L")
            path = descend(size / largest)
            paths[name] = (np.asarray(path.values), np.asarray(path.params.weights))
            shrink = (1 - size / largest * eigenvalues) ** (2 * np.arange(steps + 1)[:, None])
            predicted[name] = least + (shrink * eigenvalues / 2 * start**2).sum(1)
    found = in_units(paths["right"][1], scaling)
    errors = standard_errors(np.column_stack([data.features, np.ones(count)]))
    off = {
        name: float(np.max(np.abs(values / predicted[name] - 1)))
        for name, (values, _) in paths.items()
    }
    steepest = vectors[:, -1] @ (paths["too large"][1] - optimum)
    growth = float(abs(steepest / start[-1]) ** (1 / steps))
    values = {name: values for name, (values, _) in paths.items()}
    falling = ("too small", "small", "right")
    there = int(np.argmax(values["right"] - least < 1e-9 * (values["right"][0] - least)))

    def left(name: str) -> float:
        return (values[name][there] - least) / (values[name][0] - least)

    claims = [
        Claim(
            "descent with the right rate recovers the formula",
            "least squares",
            "standard errors: σ² (XᵀX)⁻¹",
            "10, -2, 20, 4, each within 4 standard errors",
            "; ".join(f"{w:.3g} ± {e:.1g}" for w, e in zip(found, errors, strict=True))
            + f"; at most {np.max(np.abs(found - TRUE) / errors):.2g} errors away",
            bool((np.abs(found - TRUE) < 4 * errors).all()),
        ),
        Claim(
            "it is the closed form",
            "normal equations",
            "XᵀX w = Xᵀy",
            f"F = {least:.3g}, at least; that within 1e-9",
            study.beside(values["right"][-1], least),
            abs(values["right"][-1] / least - 1) < 1e-9,
        ),
        Claim(
            "every step of every run is as the eigenvalues say",
            "F is a quadratic",
            "F* + Σ ½ λᵢ (1 - η λᵢ)²ᵗ cᵢ²",
            "within 1e-8, relative, at each step",
            ", ".join(f"{name} {study.off(worst)}" for name, worst in off.items()),
            max(off.values()) < 1e-8,
        ),
        Claim(
            "a rate above 2/L diverges",
            "|1 - η L| > 1",
            "error along the steepest eigenvector, growth per step |1 - 2.05|",
            "1.05 within 1e-6",
            f"{study.beside(growth, 1.05)}; F from {values['too large'][0]:.3g} to "
            f"{values['too large'][-1]:.3g}",
            abs(growth - 1.05) < 1e-6 and values["too large"][-1] > values["too large"][0],
        ),
        Claim(
            "rates too small fall at every step, and are far off when the right one is there",
            "0 < 1 - η λ < 1",
            f"excess after {there} steps, of that at the start",
            "below 1e-9 at the right rate; 1000 times that at 0.1/L, and more at 0.01/L",
            ", ".join(f"{name} {left(name):.2g}" for name in falling),
            all(bool((np.diff(values[name]) <= 1e-9).all()) for name in falling)
            and left("too small") > left("small") > 1e3 * left("right"),
        ),
    ]
    table = Table(
        ["learning rate", "η L", "F after a tenth", "F at the end"],
        [
            [name, f"{SIZES[name]:g}", f"{v[steps // 10]:.3g}", f"{v[-1]:.3g}"]
            for name, v in values.items()
        ],
    )
    figures = [
        draw_descent(values, least, folder / "linear_regression.png"),
        draw_fit(data, found, folder / "linear_regression_fit.png"),
    ]
    text = [f"{data.source}; {count} rows, {steps} steps, L = {largest:.3g}."]
    numbers = {
        "found": found.tolist(),
        "standard errors": errors.tolist(),
        "least": least,
        "values": {name: v[:: steps // 100].tolist() for name, v in values.items()},
    }
    return Found(claims, [Section("Four learning rates", text, table, figures)], numbers)


def in_units(weights: np.ndarray, scaling: transforms.Standardiser) -> np.ndarray:
    """Weights and intercept for features before they are standardised."""
    slopes = weights[:-1] / np.asarray(scaling.scale, float)
    return np.append(slopes, weights[-1] - slopes @ np.asarray(scaling.mean, float))


def standard_errors(features: np.ndarray) -> np.ndarray:
    """The standard errors ``σ √diag((XᵀX)⁻¹)``."""
    return NOISE * np.sqrt(np.diag(np.linalg.inv(features.T @ features)))


def draw_descent(values: dict, least: float, path: Path) -> Figure:
    """The excess of each run."""
    with plots.figure(path) as (_, ax):
        for name, series in values.items():
            excess = series - least
            alive = excess > 1e-10
            ax.semilogy(
                np.flatnonzero(alive),
                excess[alive],
                color=COLORS[name],
                label=f"{name}, η = {SIZES[name]:g}/L",
            )
        ax.set(xlabel="step", ylabel="mean squared error above the least", ylim=(1e-10, 1e8))
        ax.legend(fontsize=8)
    return Figure(path, "The same descent with four learning rates.")


def draw_fit(data, found: np.ndarray, path: Path) -> Figure:
    """Predicted beside true sales."""
    predicted = data.features @ found[:3] + found[3]
    with plots.figure(path, size=(4.6, 4.0)) as (_, ax):
        ax.plot(predicted, data.labels, ".", ms=3, color=plots.BLUE, alpha=0.5)
        ends = [predicted.min(), predicted.max()]
        ax.plot(ends, ends, color=plots.BLACK, lw=1)
        ax.set(xlabel="predicted sales", ylabel="sales")
    return Figure(path, "What the recovered line predicts; off the diagonal is the noise.")


STUDY = study.Study("linear_regression", "A line by gradient descent", __doc__, Config, measure)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "linear_regression"))
