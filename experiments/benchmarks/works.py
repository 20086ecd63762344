"""The works of the full-batch benchmark: their data, their objectives, and their other solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf import Batch, load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.data import Dataset, transforms
from jaxclf.models import linear
from jaxclf.penalties import strength_from_sklearn

NEWTON_CG = {"newton-cg": (1e-3, 3e-4, 1e-4, 1e-5)}
LBFGS = {"lbfgs": (1e-4, 1e-6)}
NEWTON_CHOLESKY = {"newton-cholesky": (1e-2, 1e-3, 1e-4, 1e-6)}
ALL_SMOOTH = NEWTON_CG | LBFGS | NEWTON_CHOLESKY


class Work(NamedTuple):
    """A problem and the solvers that are run on it beside ours."""

    data: str
    """``large`` for the data set that was given, a name of ours, or ``wide`` for synthetic data."""
    peers: dict[str, tuple[float, ...]]
    """The tolerances of scikit-learn's solvers, or of ``celer``."""
    C: float = 1.0
    l1: float = 0.0
    """The strength of an L1 penalty in place of L2."""
    even_odd: bool = False
    rows: int | None = None
    scaled: bool = True
    intercept: bool = True
    confirmed: bool = True
    """Whether L-BFGS in float64 confirms the optimum. With a weak penalty that takes half an hour,
    so the bound on the gap stands alone."""


WORKS = {
    "softmax": Work("large", NEWTON_CG | LBFGS),
    "softmax C=0.01": Work("large", NEWTON_CG, C=0.01),
    "softmax C=100": Work("large", {"newton-cg": (1e-4, 1e-5, 1e-6)}, C=100.0, confirmed=False),
    "even or odd": Work("large", NEWTON_CG | NEWTON_CHOLESKY, even_odd=True),
    "L1 softmax": Work("large", {"saga": (1e-3, 2e-4)}, l1=1e-3, rows=10_000),
    "L1 even or odd": Work(
        "large", {"celer": (1e-3, 1e-4, 1e-5)}, l1=5e-4, even_odd=True, intercept=False
    ),
    "wide": Work("wide", NEWTON_CG | LBFGS),
    "iris": Work("iris", ALL_SMOOTH),
    "breast_cancer": Work("breast_cancer", ALL_SMOOTH),
    "digits": Work("digits", ALL_SMOOTH),
    "breast_cancer, unscaled": Work("breast_cancer", ALL_SMOOTH, scaled=False),
    "wine, unscaled": Work("wine", ALL_SMOOTH, scaled=False),
}
"""The works. On large data with an L2 penalty scikit-learn's sag and saga, and on softmax
regression its newton-cholesky, are slower than the solvers that are run, and are left out."""


class Problem(NamedTuple):
    """A work with its data."""

    objective: Callable
    start: Any
    features: np.ndarray
    labels: np.ndarray
    batch: Batch


def prepare(work: Work, large: Dataset | None) -> Problem:
    """Float32 features ``(n, d)``, int32 labels, and the objective."""
    if work.data == "wide":
        rng = np.random.default_rng(0)
        features = rng.normal(size=(2000, 20_000)).astype(np.float32)
        scores = features @ rng.normal(size=(20_000, 5)).astype(np.float32) / 50
        labels = np.argmax(scores + rng.gumbel(size=scores.shape), 1)
        classes = 5
    else:
        data = large if work.data == "large" else load_dataset(work.data)
        if not data.num_classes:
            raise ValueError(f"{data.source} has no classes: its labels are not whole numbers")
        features, labels, classes = data.features, data.labels, data.num_classes
        if work.scaled:
            features = np.array(transforms.scaled(transforms.fit_scaling(features), features))
    features = features.reshape(len(labels), -1)[: work.rows]
    labels = labels[: work.rows].astype(np.int32)
    if work.even_odd:
        labels, classes = labels % 2, 2
    loss = losses.bernoulli_nll if classes == 2 else losses.categorical_nll
    l2 = strength_from_sklearn(work.C, len(labels))
    penalty = penalties.l1(work.l1) if work.l1 else penalties.l2(l2)
    start = linear.init(
        jax.random.key(0),
        features.shape[1],
        None if classes == 2 else classes,
        stddev=0,
        intercept=work.intercept,
    )
    batch = make_batch(features, labels, num_classes=classes)
    return Problem(make_objective(linear.logits, loss, penalty), start, features, labels, batch)
