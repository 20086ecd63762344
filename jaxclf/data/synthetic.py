"""Data drawn from a formula, where the truth is known."""

from __future__ import annotations

import numpy as np

from jaxclf.data.dataset import Dataset, invented_names


def gaussian_classes(
    seed: int,
    num_rows: int,
    num_features: int,
    num_classes: int,
    *,
    separation: float = 1.0,
    dtype=np.float32,
) -> Dataset:
    """Normal classes of unit covariance whose means are ``separation``-scaled normal draws.

    Softmax regression is the true model: ``log p(k | x) = μ_k · x - ‖μ_k‖² / 2 + const``.

    Args:
      seed: the seed of the draw.
      num_rows: n, cut evenly over the classes.
      num_features: d.
      num_classes: K.
      separation: standard deviation of each coordinate of a mean.
      dtype: the dtype of the features.
    """
    rng = np.random.default_rng(seed)
    means = separation * rng.normal(size=(num_classes, num_features))
    labels = rng.permutation(np.arange(num_rows) % num_classes).astype(np.int32)
    features = (means[labels] + rng.normal(size=(num_rows, num_features))).astype(dtype)
    return Dataset(
        name="gaussian_classes",
        features=features,
        labels=labels,
        class_names=tuple(f"class {k}" for k in range(num_classes)),
        feature_names=invented_names(num_features),
        source=f"normal classes, separation {separation:g}, seed {seed}",
    )


def sales(seed: int, num_rows: int, *, noise: float = 1.0, dtype=np.float32) -> Dataset:
    """``sales = 10·temperature - 2·humidity + 20·discount + 4 + noise``: linear regression.

    Args:
      seed: the seed of the draw.
      num_rows: n.
      noise: standard deviation of the normal noise, in units sold.
      dtype: the dtype of features and labels.

    Returns:
      Temperature in °C (15 to 35), humidity in % (20 to 80), discount as a share (0 to 0.5), and
      the units sold as labels.
    """
    rng = np.random.default_rng(seed)
    low, high = np.array([15, 20, 0.0]), np.array([35, 80, 0.5])
    features = rng.uniform(low, high, size=(num_rows, 3))
    labels = features @ [10, -2, 20] + 4 + noise * rng.normal(size=num_rows)
    return Dataset(
        name="sales",
        features=features.astype(dtype),
        labels=labels.astype(dtype),
        class_names=(),
        feature_names=("temperature (°C)", "humidity (%)", "discount (share)"),
        source=f"10·temperature - 2·humidity + 20·discount + 4, noise {noise:g}, seed {seed}",
    )
