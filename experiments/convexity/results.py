"""All measurements on one dataset, and the same as JSON."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from experiments.convexity import measure
from jaxclf.analysis.closed_forms import Curvature, curvature
from jaxclf.analysis.negative_curvature import Bent, most_negative_curvature


class Results(NamedTuple):
    """Everything measured on one dataset; dictionaries are keyed by arm."""

    problem: measure.Problem
    bounds: dict[str, Curvature]
    spectra: dict[str, measure.Spectrum]
    violations: dict[str, np.ndarray]
    descents: dict[str, measure.Descent]
    witness: Bent
    slices: measure.Slices
    jensen: measure.Jensen

    @property
    def ridge(self) -> tuple[float, float]:
        """L2 strengths for squared error on the probability: needed at the witness, sufficient."""
        return -self.witness.curvature, -self.bounds["probability"].lower * self.problem.scale


def measure_dataset(
    problem: measure.Problem, size: measure.Size, seed: int, advance: Callable[[str], None]
) -> Results:
    """Runs every measurement on one dataset; ``advance`` is told of each step."""
    rng = np.random.default_rng(seed)
    arms = measure.arms(problem.dataset.num_classes)
    sample = partial(measure.sample_weights, rng, problem)
    weights = sample(measure.SAMPLE_SCALES, size.weights_per_scale)
    segments = sample(measure.SAMPLE_SCALES, 2 * size.segments_per_scale)
    starts = sample(measure.START_SCALES, size.starts_per_scale)
    per_arm: dict[str, dict[str, Any]] = {}
    for arm in arms:
        tell = lambda what, arm=arm: advance(f"{problem.dataset.name}: {arm.title}, {what}")  # noqa: E731
        row = per_arm[arm.key] = {}
        row["bounds"] = curvature(arm.loss, problem.num_outputs)
        row["spectrum"] = measure.spectrum(arm, problem, weights, lambda t=tell: t("eigenvalues"))
        row["midpoints"] = measure.midpoint_violations(arm, problem, segments)
        tell("midpoints")
        row["descent"] = measure.descend(arm, problem, starts, size.descent_steps)
        tell("gradient descent")
    column = lambda key: {arm: row[key] for arm, row in per_arm.items()}  # noqa: E731

    smallest = per_arm["probability"]["spectrum"].smallest
    worst = weights[np.unravel_index(smallest.argmin(), smallest.shape)]
    witness = most_negative_curvature(
        arms[1].loss,
        worst,
        *problem.batch[:2],
        num_steps=size.hunt_steps,
        advance=lambda: advance(f"{problem.dataset.name}: hunting negative curvature"),
    )
    slices = measure.slices(problem, witness, 25)
    advance(f"{problem.dataset.name}: slices")
    jensen = measure.jensen_triple(slices.distances, slices.line("probability"))
    return Results(
        problem, column("bounds"), column("spectrum"), column("midpoints"),
        column("descent"), witness, slices, jensen,
    )  # fmt: skip


def num_steps(size: measure.Size) -> int:
    """The number of times that :func:`measure_dataset` calls ``advance``."""
    return 3 * (len(measure.SAMPLE_SCALES) * size.weights_per_scale + 2) + size.hunt_steps + 2


def as_json(results: Results) -> dict:
    """The measurements as plain numbers; infinite step counts are null."""
    problem = results.problem
    finite = lambda x: [float(v) if np.isfinite(v) else None for v in np.ravel(x)]  # noqa: E731
    arms = {}
    for arm in measure.arms(problem.dataset.num_classes):
        spectrum, run = results.spectra[arm.key], results.descents[arm.key]
        bounds = results.bounds[arm.key]
        arms[arm.key] = {
            "title": arm.title,
            "loss": arm.loss.__name__,
            "curvature_formula": bounds.formula,
            "proof": bounds.proof,
            "curvature_bounds": [bounds.lower, bounds.upper],
            "curvature_attained": list(bounds.attained),
            "convex": bounds.convex,
            "formula_error": spectrum.formula_error,
            "smallest_eigenvalue": spectrum.smallest.min(1).tolist(),
            "largest_eigenvalue": spectrum.largest.max(1).tolist(),
            "eigenvalue_bounds": [
                min(0, bounds.lower) * problem.scale,
                bounds.upper * problem.scale,
            ],
            "rounding": spectrum.rounding,
            "negative_eigenvalues": spectrum.num_negative,
            "sampled_weights": spectrum.smallest.size,
            "midpoint_violations": results.violations[arm.key].tolist(),
            "descent": {
                "step_size": run.step_size,
                "steps": run.values.shape[-1] - 1,
                "risk_of_zero_weights": run.at_zero,
                "median_risk": np.median(run.values[..., -1], 1).tolist(),
                "median_accuracy": np.median(run.accuracies, 1).tolist(),
                "stuck": run.stuck.tolist(),
                "median_steps_to_beat_zero_weights": finite(run.steps_to_zero),
            },
        }
    needed, sufficient = results.ridge
    return {
        "rows": len(problem.dataset.labels),
        "features_with_constant": problem.batch.features.shape[1],
        "classes": problem.dataset.num_classes,
        "source": problem.dataset.source,
        "lambda_max": problem.scale,
        "sample_scales": list(measure.SAMPLE_SCALES),
        "start_scales": list(measure.START_SCALES),
        "arms": arms,
        "ridge_needed": needed,
        "ridge_sufficient": sufficient,
        "most_negative_curvature": results.witness.curvature,
        "jensen": results.jensen._asdict(),
    }
