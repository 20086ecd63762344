"""Feature transforms: pure functions of one example; random ones take a key first."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import issparse

from jaxclf.checks import at_least_float32, check_number
from jaxclf.mapped_files import check_unchanged
from jaxclf.sparse_rows import check_dense


class Standardiser(NamedTuple):
    """Mean and scale of each feature, a plain pytree."""

    mean: np.ndarray
    scale: np.ndarray


def fit_standardiser(features) -> Standardiser:
    """Mean and standard deviation of each column, in float64 on the host.

    A constant feature gets scale 1, so it becomes 0 instead of NaN.

    Args:
      features: ``(n, d)``, or ``(n, h, w)`` images, on the host.

    Raises:
      ValueError: a column whose deviation float64 does not hold.
    """
    check_dense("fit_standardiser", features)
    features = np.asarray(features)
    check_unchanged(features)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = features.mean(0, dtype=np.float64)
        scale = features.std(0, dtype=np.float64)
    # Columns are compared exactly: rounding gives a constant column a small deviation, and a mean
    # beside its value.
    constant = features.min(0) == features.max(0)
    mean = np.where(constant, features[0], mean)
    wrong = ~(constant | ((scale > 0) & np.isfinite(scale)))
    if wrong.any():
        column = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"column {column[0] if len(column) == 1 else column} of the features is too large or "
            "too small for its deviation to be computed in float64"
        )
    dtype = np.promote_types(features.dtype, np.float32)
    return Standardiser(mean.astype(dtype), np.where(constant, 1, scale).astype(dtype))


def largest_numbers(features) -> Standardiser:
    """The largest size of a number in each column of a SciPy matrix as its scale, without a mean.

    A zero stays zero, so that sparse features stay sparse.
    """
    largest = abs(features).max(0).toarray().ravel()
    return Standardiser(np.zeros_like(largest), np.where(largest > 0, largest, 1))


def keeps_zeros(standardiser: Standardiser | None) -> bool:
    """Whether a zero stays zero."""
    return standardiser is None or not np.any(standardiser.mean)


def standardise(standardiser: Standardiser, features) -> jax.Array:
    """``(x - mean) / scale`` of one example or many: ``(..., d) -> (..., d)``, or images.

    A matrix of SciPy, which the standardiser must leave its zeros, stays one.

    Host arrays of numbers that float32 does not hold, float64 and integers of 32 bits or more, are
    standardised in float64 before they are narrowed: a column of seconds since 1970 keeps its
    digits.
    """
    if issparse(features):
        return features.multiply(1 / standardiser.scale).tocsr()
    if standardises_wide(standardiser, features):
        wide = features.astype(np.float64)
        wide = (wide - standardiser.mean) / standardiser.scale
        return jnp.asarray(wide.astype(jax.dtypes.canonicalize_dtype(np.float64)))
    x = at_least_float32(features)
    mean, scale = jnp.asarray(standardiser.mean), jnp.asarray(standardiser.scale)
    lead = (None,) * (x.ndim - mean.ndim)
    return (x - mean[lead]) / scale[lead]


def is_wide(features) -> bool:
    """Whether features are a host array of a dtype whose numbers float32 does not hold."""
    return isinstance(features, np.ndarray) and not np.can_cast(features.dtype, np.float32)


def standardises_wide(standardiser: Standardiser | None, features) -> bool:
    """Whether features are standardised in float64: they are wide, and so is their standardiser."""
    mean = None if standardiser is None else standardiser.mean
    return isinstance(mean, np.ndarray) and mean.dtype == np.float64 and is_wide(features)


def are_pixels(dtype) -> bool:
    """Whether features of a dtype are taken for pixels: uint8 or uint16."""
    return jnp.issubdtype(dtype, jnp.unsignedinteger) and jnp.dtype(dtype).itemsize <= 2


def to_float(features) -> jax.Array:
    """Pixels as numbers in [0, 1]: uint8 and uint16 times one over their largest number.

    Other numbers are widened to at least float32 and keep their value.
    """
    dtype = jnp.result_type(features)
    x = at_least_float32(features)
    if not are_pixels(dtype):
        return x
    # A product is within a rounding of the quotient, and makes epochs a tenth shorter.
    return x * jnp.asarray(1 / jnp.iinfo(dtype).max, x.dtype)


def fit_scaling(features) -> Standardiser | None:
    """The scaling that :func:`scaled` applies: ``None`` for pixels, else a standardiser."""
    if issparse(features):
        return largest_numbers(features)
    return None if are_pixels(np.asarray(features).dtype) else fit_standardiser(features)


def scaled(scaling: Standardiser | None, features) -> jax.Array:
    """Pixels in [0, 1], or columns standardised, of one example or many."""
    return to_float(features) if scaling is None else standardise(scaling, features)


def flatten(features) -> jax.Array:
    """One example as a vector ``(d,)``."""
    return jnp.ravel(features)


def resize(image, height: int, width: int) -> jax.Array:
    """A grey ``(h, w)`` or coloured ``(h, w, c)`` image at another size, by bilinear interpolation.

    Shrinking averages over the pixels it drops, so that fine patterns do not alias.

    Returns:
      ``(height, width)`` or ``(height, width, c)``, float32 or wider, in the units of the input.
    """
    _check_image(image)
    shape = (height, width, *jnp.shape(image)[2:])
    return jax.image.resize(at_least_float32(image), shape, "bilinear")


def random_horizontal_flip(key, image, probability: float = 0.5) -> jax.Array:
    """An image ``(h, w)`` or ``(h, w, c)``, left and right swapped with a probability."""
    _check_image(image)
    check_number("probability", probability, at_least=0, at_most=1)
    image = jnp.asarray(image)
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def random_crop(key, image, padding: int) -> jax.Array:
    """The image moved by up to ``padding`` pixels each way, with zeros moving in.

    Source: the augmentation of He et al., Deep residual learning (2016), section 4.2.
    """
    _check_image(image)
    if padding < 0:
        raise ValueError(f"padding must not be negative, got {padding}")
    image = jnp.asarray(image)
    margins = [(padding, padding)] * 2 + [(0, 0)] * (image.ndim - 2)
    start = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    corner = (start[0], start[1], *[0] * (image.ndim - 2))
    return jax.lax.dynamic_slice(jnp.pad(image, margins), corner, image.shape)


def with_key(key, features) -> tuple:
    """``(features, key)``, which a model with randomness of its own, such as dropout, takes.

    Source: :attr:`jaxclf.models.flax_module.FlaxModel.stochastic_logits`.
    """
    return features, key


def _check_image(image) -> None:
    if jnp.ndim(image) not in (2, 3):
        raise ValueError(
            f"an image must have shape (height, width) or (height, width, channels), "
            f"got {jnp.shape(image)}"
        )
