"""Splits of a dataset into parts in which every class has rows."""

from __future__ import annotations

import math

import numpy as np

from jaxclf.data.dataset import Dataset


def split_dataset(
    dataset: Dataset, fraction: float, *, seed: int, stratified: bool = True
) -> tuple[Dataset, Dataset]:
    """Cuts a dataset in two, for instance to hold out rows for validation.

    Args:
      dataset: a dataset of n rows.
      fraction: share of the rows in the second part, in (0, 1).
      seed: the seed of the shuffle.
      stratified: whether each class keeps its share in both parts.

    Returns:
      The rest and the held-out part.

    Raises:
      ValueError: a fraction outside (0, 1), or that leaves a part without some class.

    Example:
      >>> from jaxclf.data import load_dataset, split_dataset
      >>> train, held_out = split_dataset(load_dataset("iris"), 0.2, seed=0)
      >>> len(train.labels), len(held_out.labels)
      (120, 30)
    """
    from sklearn.model_selection import train_test_split

    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie in (0, 1), got {fraction}")
    # Targets of a regression, and several labels a row, have no classes to keep in proportion.
    has_classes = dataset.num_classes > 0 and dataset.labels.ndim == 1
    strata = dataset.labels if stratified and has_classes else None
    rows = np.arange(len(dataset.labels))
    if strata is not None:
        _check_enough(dataset, fraction)
    try:
        parts = train_test_split(rows, test_size=fraction, stratify=strata, random_state=seed)
    except ValueError as error:
        raise ValueError(f"{dataset.name} cannot be split: {error}") from None
    taken = tuple(_take(dataset, rows) for rows in parts)
    if strata is not None:
        for part in taken:
            check_complete(part)
    return taken


def _check_enough(dataset: Dataset, fraction: float) -> None:
    """Raises ValueError where some class has no row for one of two parts."""
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    for name, count in zip(dataset.class_names, counts, strict=True):
        if count == 1:
            raise ValueError(
                f"{dataset.name} cannot be split: class {name[:60]!r} has one row, and each part "
                "needs one"
            )
    held_out = math.ceil(fraction * len(dataset.labels))
    if min(held_out, len(dataset.labels) - held_out) < np.count_nonzero(counts):
        raise ValueError(
            f"{dataset.name} cannot be split: {len(dataset.labels)} rows are too few for two parts "
            f"with all of {np.count_nonzero(counts)} classes"
        )


def check_complete(dataset: Dataset) -> None:
    """Raises ValueError where some class has no row, unless rows have several labels."""
    if dataset.labels.ndim == 2:
        return
    missing = sorted(set(range(dataset.num_classes)) - set(dataset.labels.tolist()))
    if missing:
        raise ValueError(
            f"{dataset.name}: class {dataset.class_names[missing[0]]!r} has no row in a part of "
            f"{len(dataset.labels)} rows, so nothing can be learned of it"
        )


def _take(dataset: Dataset, rows) -> Dataset:
    return dataset._replace(features=dataset.features[rows], labels=dataset.labels[rows])


def part_of(whole: Dataset, split: str, test_fraction: float, seed: int) -> Dataset:
    """The ``train`` or the ``test`` part of a stratified split."""
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie in (0, 1), got {test_fraction}")
    rest, held_out = split_dataset(whole, test_fraction, seed=seed)
    return rest if split == "train" else held_out
