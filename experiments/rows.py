"""Rows that the experiments fit: any dataset in its two parts, scaled by the training part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments import study
from jaxclf import load_dataset, make_batch
from jaxclf.data import Dataset, transforms
from jaxclf.objectives import Batch


@dataclass(frozen=True)
class Options(study.Options):
    """Of an experiment on data."""

    dataset: str = "digits"
    """digits, iris, wine, breast_cancer, idx:FOLDER, tfds:NAME, npz:FILE or csv:FILE."""


class Rows(NamedTuple):
    """A dataset with classes."""

    data: Dataset
    """The training part as it was read."""
    train: Batch
    test: Batch


def scaled_rows(config: Options) -> Rows:
    """Both parts as float32 ``(n, d)``: pixels in [0, 1], other columns of mean 0 and variance 1.

    Raises:
      ValueError, OSError: a dataset that cannot be read, or whose labels are not classes.
    """
    train, test = (
        load_dataset(config.dataset, split=part, seed=config.seed) for part in ("train", "test")
    )
    if not train.num_classes:
        raise ValueError(f"{config.dataset} has no classes: its labels are not whole numbers")
    scaling = transforms.fit_scaling(train.features)
    return Rows(train, *(_batch(scaling, part, train.num_classes) for part in (train, test)))


def _batch(scaling, part: Dataset, num_classes: int) -> Batch:
    features = np.asarray(transforms.scaled(scaling, part.features), np.float32)
    return make_batch(features.reshape(len(features), -1), part.labels, num_classes=num_classes)
