"""Fits to a few rows of each class, as linear probes of pretrained features are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from jaxclf.checks import check_number
from jaxclf.objectives import Batch
from jaxclf.progress import progress_bar
from jaxclf.promotion import standard_promotion
from jaxclf.sparse_rows import from_csr, is_sparse, to_csr
from jaxclf.sweeps.grid import Lane, lanes_of
from jaxclf.sweeps.options import Options, check_options, check_ranked, num_classes_of
from jaxclf.sweeps.rows import Roles, place_in_class
from jaxclf.sweeps.run import run_lanes
from jaxclf.sweeps.selection import candidates_of, choose
from jaxclf.sweeps.store import Store
from jaxclf.sweeps.task import RANKINGS, make_judge, make_task, measure_one

MOST_JUDGING = 4
"""The most rows of each class that choose a penalty.

Source: Zhou et al., Learning to prompt for vision-language models, IJCV 130 (2022).
"""
_MOST_STEPS = 200


class FewShot(NamedTuple):
    """One fit to a few rows of each class."""

    shots: int
    """The rows of each class that it learned from."""
    seed: int
    """The seed of the order in which rows are taken."""
    lane: Mapping[str, Any]
    """The configuration that was chosen."""
    test: Mapping[str, float]
    """Its measures on the test rows."""


@standard_promotion
def few_shot(
    grid: Mapping[str, Sequence],
    data: Batch,
    test: Batch,
    *,
    shots: Sequence[int] = (1, 2, 4, 8, 16),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    metric: str = "log_loss",
    tol: float = 1e-4,
    verbose: bool = False,
) -> tuple[FewShot, ...]:
    """Chooses and tests a fit for each number of rows of each class and each seed.

    A seed puts the rows of each class in an order. The first ``shots`` rows are learned from; the
    next ones, as many and at most 4, choose the penalty; no other row of ``data`` is read. A class
    with fewer rows gives all that it has.

    Args:
      grid: the axes of :func:`jaxclf.sweep` that are chosen from, ``l2`` for instance.
      data: rows to learn from, labels integers in 0 … K-1.
      test: rows that measure each chosen fit once.
      shots: the numbers of rows of each class, at least 1.
      seeds: the seeds, one for each repetition.
      metric: the measure that chooses, and that is taken on the test rows too.
      tol: the largest gap to the minimum, in nats.
      verbose: show progress on standard error.

    Returns:
      The fits by their number of rows, then by seed.

    Raises:
      ValueError, TypeError: a grid, numbers or data that do not fit.

    Example:
      >>> from jaxclf import load_dataset, make_batch
      >>> from jaxclf.sweeps import few_shot
      >>> train, test = (load_dataset("iris", split=part) for part in ("train", "test"))
      >>> found = few_shot(
      ...     {"l2": [1e-3, 1e-1]},
      ...     make_batch(train.features, train.labels),
      ...     make_batch(test.features, test.labels),
      ...     shots=(1, 8),
      ...     seeds=(0,),
      ... )
      >>> [one.shots for one in found]
      [1, 8]

    Source: the protocol of Radford et al., Learning transferable visual models from natural
    language supervision, ICML 2021, and of Zhou et al., Learning to prompt for vision-language
    models, IJCV 130 (2022).
    """
    options = Options("convex", tol, _MOST_STEPS, 1, None, 0, None)
    check_options(options, metric, "best")
    lanes = lanes_of(grid, "convex")
    if "fold" in grid:
        raise ValueError("the grid must have no folds: further rows of each class choose")
    check_number("seeds", list(seeds), at_least=0)
    if metric in RANKINGS:
        check_ranked(metric, (), np.asarray(data.labels), Roles(None, None), (None, test), None)
    num_classes = num_classes_of(data, None, test, None)
    labels = np.asarray(data.labels)
    shots, found = check_shots(shots, labels, metric), []

    def fitted(learned: Batch, judging: Batch) -> tuple[Lane, Any]:
        """The configuration that is chosen, and its parameters."""
        task = make_task(learned, num_classes, Roles(None, None), None)
        judge = make_judge(task, Roles(None, None), judging, metric)
        done = run_lanes(lanes, task, options, judge, Store(), False)
        table = [{"lane": lane, **one.facts} for lane, one in zip(lanes, done, strict=True)]
        best = choose(candidates_of(table, metric), metric, "best").lane
        return best, done[[row["lane"] for row in table].index(best)].params

    with progress_bar() if verbose else nullcontext() as bar:
        shown = bar and bar.add_task("few rows", total=len(seeds) * len(shots))
        for seed in seeds:
            place = place_in_class(seed, labels)
            pool = np.flatnonzero(place < shots[-1] + MOST_JUDGING)
            place, rows = place[pool], _taken(data, pool)
            for number in shots:
                if bar:
                    text = f"{number} rows of each class, seed {seed}"
                    bar.update(shown, completed=len(found), description=text)
                # The rows of one seed have one shape, for which programs are compiled once.
                learned = _weighed(rows, place < number)
                further = number + min(number, MOST_JUDGING)
                judging = _weighed(rows, (place >= number) & (place < further))
                best, params = fitted(learned, judging)
                measured = measure_one(params, test, None, metric)
                found.append(FewShot(number, seed, best, measured))
        if bar:
            bar.update(shown, completed=len(found))
    return tuple(sorted(found, key=lambda one: (one.shots, one.seed)))


def check_shots(shots: Sequence[int], labels: np.ndarray, metric: str) -> list[int]:
    """The numbers of rows of each class in rising order.

    Args:
      shots: the numbers.
      labels: ``(n,)`` integers.
      metric: the measure that chooses; ROC AUC and average precision need a row of every class.

    Raises:
      ValueError: no numbers, one below 1, or one that leaves no row to choose by.
    """
    for number in shots:
        check_number("shots", number, at_least=1)
    counts = np.bincount(labels)
    which, size = "largest", int(counts.max())
    if metric in RANKINGS:
        which, size = "smallest", int(counts[counts > 0].min())
    if not len(shots) or max(shots) >= size:
        raise ValueError(
            f"shots must be from 1 to {size - 1}, as the {which} class has {size} rows and one "
            f"must be left to choose by; got {', '.join(map(str, shots)) or 'none'}"
        )
    return sorted(set(shots))


def _taken(data: Batch, rows: np.ndarray) -> Batch:
    features = data.features
    if is_sparse(features):
        features = from_csr(to_csr(features)[rows])
    else:
        features = np.asarray(features)[rows]
    return Batch(features, *(None if x is None else np.asarray(x)[rows] for x in data[1:]))


def _weighed(data: Batch, used: np.ndarray) -> Batch:
    """The rows with weight zero for those that are not used."""
    weights = np.ones(len(used), np.float32) if data.weights is None else data.weights
    return data._replace(weights=np.where(used, weights, 0).astype(weights.dtype))
