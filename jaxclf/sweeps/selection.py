"""Choosing a configuration honestly: by rows that no lane was trained on, and the test rows last.

Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), section 7.10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from jaxclf.sweeps.grid import Lane

RULES = ("best", "one_standard_error")
Metric = Literal[
    "log_loss", "accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "average_precision"
]
METRICS: dict[str, int] = {name: 1 if name == "log_loss" else -1 for name in get_args(Metric)}
"""The measures that lanes are judged by; 1 where lower is better, -1 where higher is."""


class Candidate(NamedTuple):
    """A configuration with the measure of its folds, or of its single lane."""

    lane: Lane
    """The configuration without its fold."""
    mean: float
    error: float
    """Standard error of the mean over folds; NaN without folds."""


class Selection(NamedTuple):
    """The lane that was chosen, how it was chosen, and its measures on the test rows."""

    lane: Lane
    rule: str
    metric: str
    judged_by: str
    candidates: tuple[Candidate, ...]
    params: Any = None
    """The parameters of the lane, trained anew with the held-out rows."""
    facts: Mapping[str, Any] | None = None
    """The facts of that training, such as its status, as in a row of the table."""
    test: Mapping[str, float] | None = None


def candidates_of(rows: Sequence[Mapping], metric: str) -> tuple[Candidate, ...]:
    """The configurations of a table, folds taken together; NaN for one that failed in a fold."""
    found: dict[tuple, list] = {}
    for row in rows:
        lane = {**row["lane"], "fold": None}
        good = row["status"] not in ("nonfinite", "no_finite_minimiser", "dropped")
        value = row[metric] if good else math.nan
        found.setdefault(tuple(lane.items()), []).append(value)
    return tuple(
        Candidate(dict(key), float(np.mean(values)), _standard_error(values))
        for key, values in found.items()
    )


def choose(candidates: Sequence[Candidate], metric: str, rule: str) -> Candidate:
    """The candidate of the best mean, or of the strongest penalty within a standard error of it.

    Raises:
      ValueError: no configuration has a finite mean.
    """
    sign = METRICS[metric]
    finite = [c for c in candidates if math.isfinite(c.mean)]
    if not finite:
        raise ValueError("no configuration of the sweep ended well, so there is none to choose")
    best = min(finite, key=lambda c: sign * c.mean)
    if rule == "best" or not math.isfinite(best.error):
        return best
    near = [c for c in finite if sign * c.mean <= sign * best.mean + best.error]
    return max(near, key=lambda c: (c.lane["l2"], -sign * c.mean))


def _standard_error(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
