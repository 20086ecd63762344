"""Feature transforms: what is fitted on the training rows, and the map of one example."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.checks import at_least_float32


class Standardiser(NamedTuple):
    """Mean and scale of each feature, a plain pytree."""

    mean: np.ndarray
    scale: np.ndarray


def fit_standardiser(features) -> Standardiser:
    """Mean and standard deviation of each column, in float64 on the host.

    A constant feature gets scale 1, so it becomes 0 instead of NaN.

    Args:
      features: ``(n, d)`` host array.
    """
    features = np.asarray(features)
    mean = features.mean(0, dtype=np.float64)
    scale = features.std(0, dtype=np.float64)
    # Compared exactly: rounding gives a constant column a small deviation, and a mean beside it.
    constant = features.min(0) == features.max(0)
    mean = np.where(constant, features[0], mean)
    dtype = np.promote_types(features.dtype, np.float32)
    return Standardiser(mean.astype(dtype), np.where(constant, 1, scale).astype(dtype))


def standardise(standardiser: Standardiser, features) -> jax.Array:
    """``(x - mean) / scale`` of one example or many: ``(..., d) -> (..., d)``."""
    x = at_least_float32(features)
    mean, scale = jnp.asarray(standardiser.mean), jnp.asarray(standardiser.scale)
    lead = (None,) * (x.ndim - 1)
    return (x - mean[lead]) / scale[lead]
