"""The list of experiments and the question of each; nothing heavy is imported for it."""

from __future__ import annotations

import ast
from pathlib import Path

TOUR = (
    "step_vs_sigmoid",
    "maximum_likelihood",
    "loss_sensitivity",
    "normalisers",
    "softmax_vs_one_vs_rest",
    "margins",
    "regularisation",
    "linear_templates",
    "linear_regression",
    "information",
    "parameter_counts",
    "optimisers",
)
"""The experiments of the tour from a step function to softmax regression."""
LABORATORY = (
    "verdicts",
    "convexity",
    "local_minima",
    "landscapes",
    "square_loss_can_win",
    "batch_noise_and_convexity",
    "brier_by_classes",
    "saturation",
    "separable",
)
"""The experiments about convexity; the long ones come first, so that no process waits for long."""
WORKSHOP = (
    "softmax_regression",
    "minibatch_noise",
    "hypergradient",
    "laplace",
    "influence",
    "gradient_check_power",
    "verify_witness",
    "benchmarks.full_batch",
    "benchmarks.sparse_l1",
    "benchmarks.sweep",
    "benchmarks.estimators",
    "benchmarks.minibatch",
    "benchmarks.scaling",
    "benchmarks.compiling",
    "benchmarks.certificates",
    "benchmarks.faults",
    "benchmarks.sparse",
    "benchmarks.paths",
    "benchmarks.inference",
    "benchmarks.accelerator",
)
"""Worked examples, tools and timings, with options and results of their own."""


def question(name: str) -> str:
    """The first line of an experiment's docstring."""
    where = Path(__file__).parent / name.replace(".", "/")
    inside = (where / name for name in ("study.py", "__main__.py"))
    source = next((path for path in inside if path.exists()), where.with_suffix(".py"))
    return ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))).splitlines()[0]
