"""Fits to a few rows of each class, as linear probes of pretrained features are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf.checks import check_number
from jaxclf.objectives import Batch
from jaxclf.sweeps.options import num_classes_of
from jaxclf.sweeps.rows import MOST_JUDGING, first_rows
from jaxclf.sweeps.run import sweep
from jaxclf.sweeps.selection import candidates_of, choose
from jaxclf.sweeps.task import measure_one


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

    Raises:
      ValueError, TypeError: a grid, numbers or data that do not fit.

    Source: the protocol of Radford et al., Learning transferable visual models from natural
    language supervision, ICML 2021, and of Zhou et al., Learning to prompt for vision-language
    models, IJCV 130 (2022).
    """
    shots = sorted(set(shots))
    for number in shots:
        check_number("shots", number, at_least=1)
    num_classes_of(data, None, test, None)
    found = []
    for seed in seeds:
        pool = _pool(data, seed, shots[-1] + MOST_JUDGING)
        axes = {**grid, "shots": shots, "seed": [seed]}
        result = sweep(axes, pool, metric=metric, tol=tol, verbose=verbose)
        for number in shots:
            places = [i for i, row in enumerate(result.table) if row["lane"]["shots"] == number]
            rows = [result.table[i] for i in places]
            best = choose(candidates_of(rows, metric), metric, "best").lane
            place = places[[row["lane"] for row in rows].index(best)]
            params = jax.tree.map(lambda x, place=place: x[place], result.params)
            found.append(FewShot(number, seed, best, measure_one(params, test, None, metric)))
    return tuple(sorted(found, key=lambda one: (one.shots, one.seed)))


def _pool(data: Batch, seed: int, most: int) -> Batch:
    """At most so many rows of each class, those that come first in the order of a seed."""
    labels = np.asarray(data.labels)
    kept = first_rows(seed, labels, None, 0, most)
    weights = None if data.weights is None else np.asarray(data.weights)[kept]
    return Batch(np.asarray(data.features)[kept], labels[kept], weights)
