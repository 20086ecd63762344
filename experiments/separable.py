"""What does log loss do where a hyperplane separates the classes, and what does L2 change?

Answer: without a penalty there is no optimum: the weights grow like the logarithm of time, towards
the direction of the largest margin. With L2 there is one optimum, of finite norm, which tends to
the same direction as the penalty weakens.

Question: on separable rows log loss has no minimiser. Gradient descent should let the weights grow
without end, in the direction of the largest margin, as slowly as a logarithm.

Procedure: iris, setosa against the others, standardised, with a constant feature and no free
intercept. The hard-margin solution ŵ, min ‖w‖ with yᵢ wᵀxᵢ ≥ 1, comes from sequential quadratic
programming. Gradient flow w′ = -∇F is followed by descent whose steps are 1 / (F max ‖xᵢ‖²), as the
Hessian is at most F max ‖xᵢ‖²; its time t is their sum, and soon astronomic. Beside it the optima
of F + λ/2 ‖w‖² for λ from 1 down to 1e-12, each certified.

Expected: w(t) = ŵ log t + O(1): ‖w‖ grows by ‖ŵ‖ for every factor e of time, and the angle to ŵ
falls like 1 / log t (Soudry, Hoffer, Nacson, Gunasekar and Srebro, JMLR 19, 2018, theorem 3). With
λ > 0 there is one optimum, of finite norm, whose direction tends to ŵ as λ falls (Rosset, Zhu and
Hastie, NIPS 2003).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, study
from experiments.study import Claim, Found
from jaxclf import load_dataset, losses, make_batch, make_objective, minimize, penalties
from jaxclf.data import transforms
from jaxclf.models import linear
from jaxclf.objectives import Batch, Objective
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section
from jaxclf.solvers.path import minimize_path


@dataclass(frozen=True)
class Config(study.Options):
    """Log loss on separable rows: growth, direction, and what a penalty changes."""

    out: Path = Path("results/separable")
    """Folder for metrics.json, the figures and report.html."""


class Flow(NamedTuple):
    """Gradient flow from zero at some times."""

    log_time: np.ndarray
    weights: np.ndarray
    """The weights, ``(times, d)``."""


def separable_rows() -> Batch:
    """The rows of iris with the labels setosa or not; the last feature is 1."""
    data = load_dataset("iris", dtype=np.float64)
    features = transforms.standardise(transforms.fit_standardiser(data.features), data.features)
    return make_batch(linear.append_one(features), (data.labels == 0).astype(int))


def hard_margin(batch: Batch) -> np.ndarray:
    """ŵ, the shortest w with yᵢ wᵀxᵢ ≥ 1."""
    from scipy.optimize import minimize as minimise_constrained

    signed = np.asarray(batch.features) * (2 * np.asarray(batch.labels) - 1)[:, None]
    found = minimise_constrained(
        lambda w: w @ w / 2,
        np.linalg.lstsq(signed, np.ones(len(signed)), rcond=None)[0],
        jac=lambda w: w,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda w: signed @ w - 1, "jac": lambda w: signed},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    if not found.success:
        raise RuntimeError(f"the hard margin was not found: {found.message}")
    return found.x


def flow(objective: Objective, batch: Batch, num_steps: int) -> Flow:
    """Gradient flow at 100 times that are at least 10."""
    largest = np.max(np.sum(np.asarray(batch.features) ** 2, 1))
    risk = jax.value_and_grad(lambda w, batch: objective(linear.LinearParams(w), batch))

    def step(_, state):
        w, time, batch = state
        value, slope = risk(w, batch)
        size = 1 / (value * largest)
        return w - size * slope, time + size, batch

    @jax.jit
    def follow(w, batch):
        def some(state, _):
            state = jax.lax.fori_loop(0, num_steps // 100, step, state)
            return state, state[:2]

        return jax.lax.scan(some, (w, 0.0, batch), length=100)[1]

    weights, time = map(np.asarray, follow(jnp.zeros(batch.features.shape[1]), batch))
    late = time > 10
    return Flow(np.log(time[late]), weights[late])


def angle(weights: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Radians between rows and a direction."""
    cosine = weights @ direction / np.linalg.norm(weights, axis=-1) / np.linalg.norm(direction)
    return np.arccos(np.clip(cosine, -1, 1))


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    with jax.enable_x64(True):
        batch, objective = separable_rows(), make_objective(linear.logits, losses.bernoulli_nll)
        zero = linear.LinearParams(jnp.zeros(batch.features.shape[1]))
        advance("the hard margin")
        target = hard_margin(batch)
        advance("minimize without a penalty")
        unpenalised = minimize(objective, zero, batch)
        advance("gradient flow")
        found = flow(objective, batch, 10_000 if config.quick else 20_000)
        advance("the path of penalties")
        strengths = np.geomspace(1, 1e-12, 13)
        path = minimize_path(
            objective, zero, batch, [penalties.l2(x) for x in strengths], tol=1e-15
        )
        regularised = np.array([np.asarray(one.params.weights) for one in path])
    norms, half = np.linalg.norm(found.weights, axis=1), len(found.log_time) // 2
    growth = float(np.polyfit(found.log_time[half:], norms[half:], 1)[0])
    angles, path_angles = angle(found.weights, target), angle(regularised, target)
    falling = angles * found.log_time
    solved = [one.gap_bound < 1e-9 for one in path]
    lengths = np.linalg.norm(regularised, axis=1)
    claims = [
        Claim(
            "log loss without a penalty has no minimiser",
            "the rows are separable",
            "inf F = 0, never attained",
            "no_finite_minimiser",
            unpenalised.status,
            unpenalised.status == "no_finite_minimiser",
        ),
        Claim(
            "growth of ‖w‖ for every factor e of time",
            "Soudry et al. (2018), theorem 3",
            "‖ŵ‖ = 1 / margin",
            f"{np.linalg.norm(target):.3g}",
            f"{growth:.3g}, from log t = {found.log_time[half]:.0f} to {found.log_time[-1]:.0f}",
            abs(growth / np.linalg.norm(target) - 1) < 0.02,
        ),
        Claim(
            "the direction tends to that of the largest margin",
            "Soudry et al. (2018), theorem 3",
            "angle · log t stays bounded",
            "the angle falls, angle · log t does not grow",
            f"angle from {angles[0]:.2g} to {angles[-1]:.2g}, "
            f"angle · log t at most {falling.max():.3g}, at the end {falling[-1]:.3g}",
            bool(angles[-1] < angles[half] and falling[-1] < 1.02 * falling[half:].max()),
        ),
        Claim(
            "with L2 there is one optimum, of finite norm",
            "λ-strong convexity",
            "‖w‖² ≤ 2 log 2 / λ",
            "converged, below the bound, at all 13 penalties",
            f"{sum(solved)} of 13; ‖w‖ from {lengths[0]:.3g} to {lengths[-1]:.3g}",
            all(solved)
            and bool(
                (lengths**2 <= 2 * np.log(2) / strengths + 1e-9).all()
            ),
        ),
        Claim(
            "as λ falls, its direction tends to the largest margin",
            "Rosset, Zhu and Hastie (2003), theorem 3",
            "angle → 0",
            "falls with λ, below 0.1 at 1e-12",
            f"from {path_angles[0]:.2g} to {path_angles[-1]:.2g}",
            bool(path_angles[-1] < 0.1 and (np.diff(path_angles[6:]) < 0).all()),
        ),
    ]  # fmt: skip
    figure = draw(found, strengths, regularised, target, folder / "separable.png")
    numbers = {
        "hard margin": target.tolist(),
        "log time": found.log_time.tolist(),
        "norms": norms.tolist(),
        "angles": angles.tolist(),
        "penalties": strengths.tolist(),
        "norms of optima": lengths.tolist(),
        "angles of optima": path_angles.tolist(),
    }
    return Found(claims, [Section("Growth and direction", [], None, [figure])], numbers)


def draw(found: Flow, strengths, regularised, target, path: Path) -> Figure:
    """Norm and angle along gradient flow and along the path of penalties."""
    with plots.figure(path, columns=2, size=(9, 3.6)) as (_, axes):
        norms = np.linalg.norm(found.weights, axis=1)
        axes[0].plot(found.log_time, norms, color=plots.BLUE, label="gradient flow")
        line = norms[-1] + np.linalg.norm(target) * (found.log_time - found.log_time[-1])
        axes[0].plot(found.log_time, line, "--", color=plots.BLACK, lw=1, label="slope ‖ŵ‖")
        lengths, log = np.linalg.norm(regularised, axis=1), -np.log(strengths)
        axes[0].plot(log, lengths, "s", ms=4, color=plots.ORANGE, label="optimum with λ")
        axes[0].set(xlabel="log t, or log 1/λ", ylabel="‖w‖")
        axes[0].legend(fontsize=8)
        axes[1].semilogy(found.log_time, angle(found.weights, target), color=plots.BLUE)
        axes[1].semilogy(log, angle(regularised, target), "s", ms=4, color=plots.ORANGE)
        axes[1].set(xlabel="log t, or log 1/λ", ylabel="angle to the largest margin (radians)")
        axes[1].yaxis.set_major_formatter("{x:g}")
        axes[1].yaxis.set_minor_formatter("")
    return Figure(
        path,
        "Left: without a penalty the norm grows like the logarithm of time; with one it is finite. "
        "Right: both directions tend to that of the largest margin, slowly.",
    )


STUDY = study.Study("separable", "Log loss on separable rows", __doc__, Config, measure)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "separable"))
