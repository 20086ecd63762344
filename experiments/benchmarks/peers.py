"""Solvers of other libraries for the works of the full-batch benchmark, each as one function.

A name is a library and, where it has several, one of its solvers: ``"glum"``,
``"sklearnex lbfgs"``. A name without a library is a solver of scikit-learn.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxclf.penalties import strength_from_sklearn

Fit = Callable[[], tuple[Any, Any]]
"""Fits once, and returns the weights and the intercept."""


def is_installed(name: str) -> bool:
    """Whether the library of a solver is installed."""
    return importlib.util.find_spec(_module(name)) is not None


def make_fit(name: str, work, tol: float, features: np.ndarray, labels: np.ndarray) -> Fit:
    """A fit of a work, with the features already in the form that suits the solver best."""
    return MAKERS[_module(name)](name.split()[-1], work, tol, features, labels)


def _module(name: str) -> str:
    library = name.split()[0]
    return library if library in MAKERS else "sklearn"


def _fitted(model, features, labels) -> Fit:
    """The fit of a model with scikit-learn's names."""

    def fit():
        model.fit(features, labels)
        return model.coef_, model.intercept_

    return fit


def _of_sklearn(solver: str, work, tol: float, features, labels) -> Fit:
    from sklearn.linear_model import LogisticRegression

    return _fitted(
        LogisticRegression(**_sklearn_options(solver, work, tol, labels)), features, labels
    )


def _of_sklearnex(solver: str, work, tol: float, features, labels) -> Fit:
    from sklearnex.linear_model import LogisticRegression

    return _fitted(
        LogisticRegression(**_sklearn_options(solver, work, tol, labels)), features, labels
    )


def _sklearn_options(solver: str, work, tol: float, labels) -> dict:
    return {
        "C": strength_from_sklearn(work.l1, len(labels)) if work.l1 else work.C,
        "l1_ratio": 1.0 if work.l1 else 0.0,
        "tol": tol,
        "solver": solver,
        "max_iter": 100_000,
        "fit_intercept": work.intercept,
    }


def _of_celer(solver: str, work, tol: float, features, labels) -> Fit:
    from celer import LogisticRegression

    # Its objective is the sum of the losses, and it takes columns in float64 only.
    C = 1 / (work.l1 * len(labels))
    model = LogisticRegression(C=C, tol=tol, max_iter=200, fit_intercept=work.intercept)
    return _fitted(model, np.asfortranarray(features, np.float64), labels)


def _of_skglm(solver: str, work, tol: float, features, labels) -> Fit:
    from skglm import SparseLogisticRegression

    model = SparseLogisticRegression(alpha=work.l1, tol=tol, fit_intercept=work.intercept)
    return _fitted(model, np.asfortranarray(features, np.float64), labels)


def _of_glum(solver: str, work, tol: float, features, labels) -> Fit:
    from glum import GeneralizedLinearRegressor

    model = GeneralizedLinearRegressor(
        family="binomial",
        alpha=work.l1 or strength_from_sklearn(work.C, len(labels)),
        l1_ratio=1.0 if work.l1 else 0.0,
        gradient_tol=tol,
        fit_intercept=work.intercept,
    )
    return _fitted(model, np.asfortranarray(features), labels.astype(features.dtype))


def _of_snapml(solver: str, work, tol: float, features, labels) -> Fit:
    from snapml import LogisticRegression

    # The constant column by which it fits an intercept is penalised; the gap includes that.
    model = LogisticRegression(
        regularizer=1 / work.C, tol=tol, max_iter=10_000, n_jobs=2, fit_intercept=work.intercept
    )
    return _fitted(model, np.ascontiguousarray(features), labels)


def _of_torch(solver: str, work, tol: float, features, labels) -> Fit:
    import torch

    x, y = torch.from_numpy(np.array(features)), torch.from_numpy(labels).long()
    strength = strength_from_sklearn(work.C, len(labels))
    num_classes = int(labels.max()) + 1

    def fit():
        model = torch.nn.Linear(x.shape[1], num_classes)
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        optimizer = torch.optim.LBFGS(
            model.parameters(), max_iter=1000, history_size=10, tolerance_grad=tol,
            tolerance_change=0, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def evaluate():
            optimizer.zero_grad()
            penalty = strength / 2 * (model.weight**2).sum()
            value = torch.nn.functional.cross_entropy(model(x), y) + penalty
            value.backward()
            return value

        optimizer.step(evaluate)
        return model.weight.detach().numpy(), model.bias.detach().numpy()

    return fit


MAKERS = {
    "sklearn": _of_sklearn,
    "sklearnex": _of_sklearnex,
    "celer": _of_celer,
    "skglm": _of_skglm,
    "glum": _of_glum,
    "snapml": _of_snapml,
    "torch": _of_torch,
}
"""The maker of each library's fits, by the name of its module."""
