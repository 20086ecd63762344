"""The rows that train a lane and the rows that judge it: weights on the same rows, never copies."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxclf.data import class_weights
from jaxclf.sweeps.grid import Lane


class Roles(NamedTuple):
    """The roles of the rows in every lane."""

    fold: np.ndarray | None
    """The fold that each row is held out in, ``(n,)``."""
    held: np.ndarray | None
    """The rows that are held out in all lanes, ``(n,)`` bool."""


def assign(labels: np.ndarray, num_folds: int, validation: float, seed: int) -> Roles:
    """Cuts rows into folds, or holds out a share of them, with each class in proportion.

    Raises:
      ValueError: more folds than rows of a class, or a share that leaves none of some class.
    """
    from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

    counts = np.bincount(labels)
    rarest = int(np.argmin(np.where(counts > 0, counts, len(labels) + 1)))
    blank = np.zeros(len(labels))
    if num_folds:
        if counts[rarest] < num_folds:
            raise ValueError(
                f"{num_folds} folds need as many rows of each class, class {rarest} has "
                f"{counts[rarest]}"
            )
        fold = np.zeros(len(labels), np.int32)
        splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
        for number, (_, held) in enumerate(splitter.split(blank, labels)):
            fold[held] = number
        return Roles(fold, None)
    if not validation:
        return Roles(None, None)
    try:
        splitter = StratifiedShuffleSplit(1, test_size=validation, random_state=seed)
        held = np.zeros(len(labels), bool)
        held[next(splitter.split(blank, labels))[1]] = True
    except ValueError as error:
        raise ValueError(
            f"a validation share of {validation} cannot be held out: {error}"
        ) from None
    return Roles(None, held)


def held_rows(lane: Lane, roles: Roles) -> np.ndarray | None:
    """The rows that judge a lane, ``(n,)`` bool; ``None`` where no rows do."""
    return roles.held if lane["fold"] is None else roles.fold == lane["fold"]


def training_weights(
    lane: Lane, labels: np.ndarray, weights: np.ndarray | None, roles: Roles, num_classes: int
) -> np.ndarray:
    """The weight of each row in a lane's objective, ``(n,)``; 0 for rows that have no part in it.

    A ``train_fraction`` below one keeps the first rows of each class in an order that the seed
    gives, so that a larger fraction keeps all rows of a smaller one. Balanced classes have equal
    totals among the rows that are left, before the rows' own weights multiply them.
    """
    held = held_rows(lane, roles)
    used = np.ones(len(labels), bool) if held is None else ~held
    if lane["train_fraction"] < 1:
        counts = np.bincount(labels[used], minlength=num_classes)
        kept = np.ceil(lane["train_fraction"] * counts).astype(int)
        used = place_in_class(lane["seed"], labels, used) < kept[labels]
    dtype = np.float32 if weights is None else np.promote_types(weights.dtype, np.float32)
    result = np.zeros(len(labels), dtype)
    result[used] = 1 if weights is None else weights[used]
    if lane["class_weight"] == "balanced":
        result[used] *= class_weights(labels[used], num_classes)
    return result


def place_in_class(seed: int, labels: np.ndarray, used: np.ndarray | None = None) -> np.ndarray:
    """The place of each row among the rows of its class, in an order that the seed gives.

    Args:
      seed: the seed of the order.
      labels: ``(n,)``.
      used: the rows that are counted, ``(n,)`` bool; by default all.

    Returns:
      ``(n,)`` integers from 0; a row that is not counted comes after all others.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.full(len(labels), len(labels))
    for k in np.unique(labels):
        rows = order[(labels == k)[order]]
        rows = rows if used is None else rows[used[rows]]
        place[rows] = np.arange(len(rows))
    return place
