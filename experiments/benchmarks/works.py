"""The works of the benchmarks of exact fits: data, objectives, and the other solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from jaxclf import Batch, load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.data import Dataset, transforms
from jaxclf.models import linear
from jaxclf.penalties import strength_from_sklearn

NEWTON_CG = {"newton-cg": (1e-3, 3e-4, 1e-4, 1e-5)}
LBFGS = {"lbfgs": (1e-4, 1e-6)}
NEWTON_CHOLESKY = {"newton-cholesky": (1e-2, 1e-3, 1e-4, 1e-6)}
SKLEARNEX = {"sklearnex lbfgs": (1e-4, 1e-6)}
TORCH = {"torch lbfgs": (1e-4, 1e-6)}
ALL_SMOOTH = NEWTON_CG | LBFGS | NEWTON_CHOLESKY | SKLEARNEX
LARGE_BINARY = {
    "sklearnex newton-cg": (1e-3, 1e-4),
    "glum": (1e-3, 1e-4, 1e-5),
    "snapml": (1e-3, 1e-4, 1e-5),
}
LETTERS = (20_000, 16, 26)
"""Rows, features and classes; Frey and Slate's letters have as many."""


class Work(NamedTuple):
    """A problem and the solvers that are run on it beside ours."""

    data: str
    """``large`` for the data set that was given, a name of ours, or a key of ``SYNTHETIC``."""
    peers: dict[str, tuple[float, ...]]
    """The tolerances of the other solvers, by their names in ``peers``."""
    C: float = 1.0
    l1: float = 0.0
    """The strength of an L1 penalty in place of L2."""
    even_odd: bool = False
    rows: int | None = None
    scaled: bool = True
    intercept: bool = True
    dtype: type = np.float32
    """The dtype of the features and the parameters; float64 runs in 64-bit mode."""
    confirmed: bool = True
    """Whether L-BFGS in float64 confirms the optimum. With a weak penalty that takes half an hour,
    so the bound on the gap stands alone."""


WORKS = {
    "softmax": Work("large", NEWTON_CG | LBFGS | SKLEARNEX | TORCH),
    "softmax C=0.01": Work("large", NEWTON_CG | SKLEARNEX, C=0.01),
    "softmax C=100": Work("large", {"newton-cg": (1e-5,)}, C=100.0, confirmed=False),
    "even or odd": Work("large", NEWTON_CG | NEWTON_CHOLESKY | LARGE_BINARY, even_odd=True),
    "L1 softmax": Work("large", {"saga": (1e-3, 2e-4)}, l1=1e-3, rows=10_000),
    "L1 even or odd": Work(
        "large",
        {"celer": (1e-3, 1e-4, 1e-5), "skglm": (1e-3, 1e-4, 1e-5)},
        l1=5e-4,
        even_odd=True,
        intercept=False,
    ),
    "wide": Work("wide", NEWTON_CG | LBFGS),
    "letters": Work("letters", NEWTON_CG | LBFGS | SKLEARNEX, dtype=np.float64),
    "letters, integers": Work(
        "letters, integers", NEWTON_CG | LBFGS | SKLEARNEX, scaled=False, dtype=np.float64
    ),
    "iris": Work("iris", ALL_SMOOTH),
    "breast_cancer": Work("breast_cancer", ALL_SMOOTH | {"glum": (1e-3, 1e-4, 1e-5)}),
    "digits": Work("digits", ALL_SMOOTH),
    "breast_cancer, unscaled": Work("breast_cancer", ALL_SMOOTH, scaled=False),
    "wine, unscaled": Work("wine", ALL_SMOOTH, scaled=False),
}
"""The works. On large data with an L2 penalty scikit-learn's sag and saga, and on softmax
regression its newton-cholesky, are slower than the solvers that are run, and are left out."""


def wide() -> tuple[np.ndarray, np.ndarray]:
    """2000 rows of 20 000 normal features, and five classes drawn from a softmax model of them."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 20_000)).astype(np.float32)
    scores = features @ rng.normal(size=(20_000, 5)).astype(np.float32) / 50
    return features, np.argmax(scores + rng.gumbel(size=scores.shape), 1)


def letters() -> tuple[np.ndarray, np.ndarray]:
    """Normal features, and classes drawn from a softmax model of them."""
    n, d, num_classes = LETTERS
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, d)).astype(np.float32)
    scores = features @ rng.normal(size=(d, num_classes)).astype(np.float32)
    return features, np.argmax(scores + rng.gumbel(size=scores.shape), 1)


def integer_letters() -> tuple[np.ndarray, np.ndarray]:
    """The same with features rounded to the integers from 0 to 15, as Frey and Slate's are."""
    features, labels = letters()
    return np.clip(np.round(2.5 * features + 7), 0, 15), labels


def text_like(
    num_rows: int, num_words: int, length: int, num_classes: int, seed: int = 0
) -> tuple[sparse.csr_array, np.ndarray]:
    """Rows of words, as normalised tf-idf weights in float32, and the classes of the rows.

    The lengths of rows are log-normal. A word has the frequency ``1 / (rank + 10)^1.05``, and in
    one place of ten the rank is that of the class of the row, which has an order of its own.
    """
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum((np.arange(num_words) + 10.0) ** -1.05)
    lengths = np.maximum(5, rng.lognormal(np.log(length) - 0.32, 0.8, num_rows)).astype(int)
    labels = rng.integers(0, num_classes, num_rows)
    rows = np.repeat(np.arange(num_rows), lengths)
    ranks = np.searchsorted(cumulative, rng.random(len(rows)) * cumulative[-1])
    orders = np.stack([rng.permutation(num_words) for _ in range(num_classes)])
    words = np.where(rng.random(len(rows)) < 0.1, orders[labels[rows], ranks], ranks)
    counts = sparse.coo_array((np.ones(len(rows)), (rows, words)), shape=(num_rows, num_words))
    weights = counts.tocsr()
    seen = np.bincount(weights.indices, minlength=num_words)
    idf = np.log((1 + num_rows) / (1 + seen)) + 1
    weights.data = (1 + np.log(weights.data)) * idf[weights.indices]
    norms = np.sqrt(weights.power(2).sum(1))
    weights.data /= np.repeat(norms, np.diff(weights.indptr))
    places = (x.astype(np.int32) for x in (weights.indices, weights.indptr))  # for liblinear
    return sparse.csr_array((weights.data.astype(np.float32), *places), weights.shape), labels


SYNTHETIC = {"wide": wide, "letters": letters, "letters, integers": integer_letters}
"""Features and labels that are drawn."""


class Problem(NamedTuple):
    """A work with its data."""

    objective: Callable
    start: Any
    features: np.ndarray
    labels: np.ndarray
    batch: Batch


def prepare(work: Work, large: Dataset | None) -> Problem:
    """Features ``(n, d)``, int32 labels, and the objective; float64 needs 64-bit mode."""
    if work.data in SYNTHETIC:
        features, labels = SYNTHETIC[work.data]()
        classes = int(labels.max()) + 1
    else:
        data = large if work.data == "large" else load_dataset(work.data)
        if not data.num_classes:
            raise ValueError(f"{data.source} has no classes: its labels are not whole numbers")
        features, labels, classes = data.features, data.labels, data.num_classes
    if work.scaled:
        features = np.array(transforms.scaled(transforms.fit_scaling(features), features))
    features = features.reshape(len(labels), -1)[: work.rows].astype(work.dtype)
    labels = labels[: work.rows].astype(np.int32)
    if work.even_odd:
        labels, classes = labels % 2, 2
    loss = losses.bernoulli_nll if classes == 2 else losses.categorical_nll
    l2 = strength_from_sklearn(work.C, len(labels))
    penalty = penalties.l1(work.l1) if work.l1 else penalties.l2(l2)
    num_logits = () if classes == 2 else (classes,)
    weights = np.zeros((*num_logits, features.shape[1]), work.dtype)
    intercept = np.zeros(num_logits, work.dtype) if work.intercept else None
    batch = make_batch(features, labels, num_classes=classes)
    return Problem(
        make_objective(linear.logits, loss, penalty),
        linear.LinearParams(weights, intercept),
        features,
        labels,
        batch,
    )
