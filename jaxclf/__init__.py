"""jaxclf fits, sweeps and explains linear, logistic and softmax classifiers in JAX.

Losses and models are pure functions of one example, and ``jax.vmap`` makes the batch. The modules:

- :mod:`jaxclf.activations`, :mod:`jaxclf.losses`, :mod:`jaxclf.penalties`: the mathematics;
  :mod:`jaxclf.facts`: what is known of a loss.
- :mod:`jaxclf.objectives`: mean loss plus penalty, the scalar that is minimised.
- :mod:`jaxclf.information`, :mod:`jaxclf.metrics`: entropy and its kin; how good a classifier is.
- :mod:`jaxclf.models`, :mod:`jaxclf.data`: what is fitted, and to what.
- :mod:`jaxclf.solvers`: the optimum of a convex problem over all rows, with a bound on the gap.
- :mod:`jaxclf.training`: minibatch training with any optax optimizer, checkpoints, logs.
- :mod:`jaxclf.scaling`: rows shared out over many devices and processes.
- :mod:`jaxclf.sweeps`: many configurations as lanes of few programs, and one chosen honestly.
- :mod:`jaxclf.inference`: what the coefficients mean: errors, tests, intervals, influence.
- :mod:`jaxclf.estimators`: classifiers with scikit-learn's interface.
- :mod:`jaxclf.analysis`: gradient checks; proofs of convexity; curvature and landscapes.
- :mod:`jaxclf.reports`, :mod:`jaxclf.commands`: figures and pages; the ``jaxclf`` command.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxclf.analysis.certify import Convex, NonConvex, Unknown, certify_convexity
    from jaxclf.analysis.gradcheck import GradientReport, assert_gradients, check_gradients
    from jaxclf.data import load_dataset, one_hot
    from jaxclf.estimators import (
        LinearSVC,
        LogisticRegression,
        LogisticRegressionCV,
        MinibatchClassifier,
        OneVsRestLogisticRegression,
        RidgeClassifier,
    )
    from jaxclf.facts import state_facts
    from jaxclf.model_file import load_model, save_model
    from jaxclf.objectives import Batch, make_batch, make_objective
    from jaxclf.solvers.mcp import minimize_mcp
    from jaxclf.solvers.minimize import minimize
    from jaxclf.solvers.path import Path, lambda_max, minimize_path
    from jaxclf.solvers.result import SolverResult, Step
    from jaxclf.solvers.solve import solve
    from jaxclf.sweeps import SweepResult, sweep
    from jaxclf.training import FitResult, fit

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Convex",
    "FitResult",
    "GradientReport",
    "LinearSVC",
    "LogisticRegression",
    "LogisticRegressionCV",
    "MinibatchClassifier",
    "NonConvex",
    "OneVsRestLogisticRegression",
    "Path",
    "RidgeClassifier",
    "SolverResult",
    "Step",
    "SweepResult",
    "Unknown",
    "assert_gradients",
    "certify_convexity",
    "check_gradients",
    "fit",
    "lambda_max",
    "load_dataset",
    "load_model",
    "make_batch",
    "make_objective",
    "minimize",
    "minimize_mcp",
    "minimize_path",
    "one_hot",
    "save_model",
    "solve",
    "state_facts",
    "sweep",
]

_PLACES = {
    "analysis.certify": ("Convex", "NonConvex", "Unknown", "certify_convexity"),
    "analysis.gradcheck": ("GradientReport", "assert_gradients", "check_gradients"),
    "data": ("load_dataset", "one_hot"),
    "estimators": (
        "LinearSVC", "LogisticRegression", "LogisticRegressionCV", "MinibatchClassifier",
        "OneVsRestLogisticRegression", "RidgeClassifier",
    ),
    "facts": ("state_facts",),
    "model_file": ("load_model", "save_model"),
    "objectives": ("Batch", "make_batch", "make_objective"),
    "solvers.mcp": ("minimize_mcp",),
    "solvers.minimize": ("minimize",),
    "solvers.path": ("Path", "lambda_max", "minimize_path"),
    "solvers.result": ("SolverResult", "Step"),
    "solvers.solve": ("solve",),
    "sweeps": ("SweepResult", "sweep"),
    "training": ("FitResult", "fit"),
}  # fmt: skip
_LATER = {name: f"jaxclf.{place}" for place, names in _PLACES.items() for name in names}
"""The module of each name, which is imported when the name is first asked for: a command says its
first line, and a script that needs a loss begins, before JAX and scikit-learn are there."""
_MODULES = (
    "activations", "analysis", "calibration", "checks", "data", "estimators", "facts",
    "inference", "information", "losses", "metrics", "models", "objectives", "penalties",
    "reports", "scaling", "solvers", "sweeps", "training",
)  # fmt: skip
"""Modules that ``import jaxclf`` makes reachable, each imported when first asked for."""


def __getattr__(name: str):
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    if name in _MODULES:
        return import_module(f"jaxclf.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "__version__"])
