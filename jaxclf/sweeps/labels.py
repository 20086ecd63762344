"""Several labels a row: a logistic regression for each label, with a penalty of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclf import checks, metrics
from jaxclf.models.linear import LinearParams
from jaxclf.objectives import Batch
from jaxclf.promotion import standard_promotion
from jaxclf.sparse_rows import is_sparse, to_csr
from jaxclf.sweeps.grid import Lane
from jaxclf.sweeps.run import sweep


class LabelFit(NamedTuple):
    """The chosen fit of one label."""

    name: str
    lane: Lane
    params: LinearParams
    """The weights ``(d,)`` and the intercept."""
    status: str
    logits: np.ndarray
    """The logits of the test rows, ``(n,)``."""
    test: Mapping[str, float]
    """All measures of the test rows, as :func:`jaxclf.metrics.measures` takes them."""
    of_shares: Mapping[str, float]
    """The measures of the share of the label alone."""


@standard_promotion
def sweep_labels(
    grid: Mapping[str, Sequence],
    data: Batch,
    test: Batch,
    names: Sequence[str],
    *,
    validation: float = 0.0,
    metric: str = "log_loss",
    rule: str = "best",
    tol: float = 1e-4,
    seed: int = 0,
    devices: Any = None,
    checkpoint: Path | None = None,
    began: Callable[[int], None] = lambda k: None,
) -> tuple[list[LabelFit], list[str]]:
    """Chooses and tests a logistic regression for each label that has rows enough.

    Args:
      grid: the axes that are chosen from, as in :func:`jaxclf.sweep`.
      data: the rows to learn from, labels ``(n, K)`` of 0 and 1.
      test: the rows that measure each chosen fit once.
      names: the names of the labels.
      validation, metric, rule, tol, seed, devices: as in :func:`jaxclf.sweep`.
      checkpoint: a folder in which finished fits are kept, a folder in it for each label.
      began: a function that is called with the number of each label as its fits begin.

    Returns:
      The fits, and the names of labels that are left out. A label needs two rows with it and two
      without it, or as many as there are folds, and a test row of each.

    Raises:
      ValueError, TypeError: as :func:`jaxclf.sweep`, and where no label has rows enough.
    """
    options = {"validation": validation, "metric": metric, "rule": rule}
    options |= {"tol": tol, "seed": seed, "devices": devices}
    labels, tested = np.asarray(data.labels), np.asarray(test.labels)
    for what, given in (("data", labels), ("test", tested)):
        checks.check_shape(f"{what} labels", given, (None, len(names)))
        if not ((given == 0) | (given == 1)).all():
            raise ValueError(f"{what} labels must be zeros and ones")
    needed = max(2, len(grid.get("fold", ())))
    fits, left_out = [], []
    for k, name in enumerate(names):
        own, other = (x[:, k].astype(np.int32) for x in (labels, tested))
        if min(np.bincount(own, minlength=2)) < needed or len(np.unique(other)) < 2:
            left_out.append(name)
            continue
        began(k)
        rows = data._replace(labels=own), test._replace(labels=other)
        folder = None if checkpoint is None else Path(checkpoint) / str(k)
        fits.append(_fit(name, grid, *rows, checkpoint=folder, **options))
    if not fits:
        raise ValueError(
            f"no label has {needed} training rows with it and {needed} without it, and a test row "
            "of each"
        )
    return fits, left_out


def _fit(name: str, grid: Mapping, data: Batch, test: Batch, **options: Any) -> LabelFit:
    chosen = sweep(grid, data, test=test, **options).selection
    if chosen is None:
        raise ValueError("a choice needs folds or validation rows")
    features = test.features
    features = to_csr(features) if is_sparse(features) else np.asarray(features)
    logits = features @ chosen.params.weights + chosen.params.intercept
    logits = logits if test.offset is None else logits + np.asarray(test.offset)
    both = np.stack([np.zeros_like(logits), logits], 1)
    measured = metrics.measures(both, test.labels), metrics.measures_of_shares(test.labels, 2)
    return LabelFit(name, chosen.lane, chosen.params, chosen.facts["status"], logits, *measured)
