"""Rows that the experiments fit: any dataset in its two parts, scaled by the training part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import study
from jaxclf import load_dataset, make_batch
from jaxclf.data import Dataset, transforms
from jaxclf.models import linear
from jaxclf.objectives import Batch


@dataclass(frozen=True)
class Options(study.Options):
    """The options of an experiment on data."""

    dataset: str = "digits"
    """A dataset, as `jaxclf datasets list` names them."""


class Rows(NamedTuple):
    """A dataset with classes."""

    data: Dataset
    """The training part as it was read."""
    train: Batch
    test: Batch


def scaled_rows(config: Options) -> Rows:
    """Both parts as float32 ``(n, d)``: pixels in [0, 1], other columns of mean 0 and variance 1.

    Raises:
      ValueError, OSError: a dataset that cannot be read, has fewer than two classes, or no feature
        that varies.
    """
    train, test = _parts(config.dataset, config.seed)
    if train.num_classes < 2:
        raise ValueError(
            f"{config.dataset} must have labels of two classes or more, got {train.num_classes}"
        )
    if (train.features == train.features[:1]).all():
        raise ValueError(f"{config.dataset} has no feature that differs between training rows")
    scaling = transforms.fit_scaling(train.features)
    return Rows(train, *(_batch(scaling, part, train.num_classes) for part in (train, test)))


@lru_cache(maxsize=1)
def _parts(dataset: str, seed: int) -> tuple[Dataset, Dataset]:
    """Both parts of a dataset, read once for the check of options and for the measurement."""
    return tuple(load_dataset(dataset, split=part, seed=seed) for part in ("train", "test"))


def zeros(batch: Batch, num_outputs: int | None, dtype=jnp.float32) -> linear.LinearParams:
    """A linear model at zero: one logit for ``None``."""
    outputs = () if num_outputs is None else (num_outputs,)
    return linear.LinearParams(
        jnp.zeros((*outputs, batch.features.shape[1]), dtype), jnp.zeros(outputs, dtype)
    )


def column_name(data: Dataset, column: int) -> str:
    """The name of a feature, or of a pixel by its number."""
    return data.feature_names[column] if data.feature_names else f"pixel {column}"


logits_of_rows = jax.jit(jax.vmap(linear.logits, (None, 0)))
"""The logits of rows, ``(params, (n, d)) -> (n, K)`` or ``(n,)``."""


def _batch(scaling, part: Dataset, num_classes: int) -> Batch:
    features = np.asarray(transforms.scaled(scaling, part.features), np.float32)
    return make_batch(features.reshape(len(features), -1), part.labels, num_classes=num_classes)
