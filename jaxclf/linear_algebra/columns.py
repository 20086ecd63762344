"""Columns far from zero, or of scales far apart, in units in which the solvers keep their digits.

    x′ = (x - m) s,   w′ = w / s,   b′ = b + W m,   λ w² = (λ s²) w′²,   λ |w| = (λ s) |w′|

The problem stays the same, because the intercept is not penalised. A column is shifted only where
all of it lies on one side of zero and far from zero, so that ``x - m`` is exact. The scale s is a
power of two. So nothing is rounded on the way in. Columns that need neither stay as they are.

Source: Sterbenz, Floating-Point Computation (1974), theorem 4.3.1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra.problem import Affine
from jaxclf.penalties import Penalty
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.sharing import all_gather

_SAMPLED = 4096
"""The number of rows on the host that are looked at. An end of a column that they miss costs
digits, never a certificate."""
_FAR = 3.0
"""A column is far from zero where its middle is so many times half of its range."""
_APART = 2.0**12
"""Columns are scaled where their scales differ by more than this factor."""
_EXTREME = 2.0**20
"""Columns are also scaled where one is larger than this, or smaller than the inverse of this."""


class Columns(NamedTuple):
    """The shifts and the scales of columns; both are ``(d,)``, float64."""

    centre: np.ndarray
    """The shifts m."""
    scale: np.ndarray
    """The scales s, powers of two."""


def columns_of(features: Any, *, shifted: bool, of_many: bool = False) -> Columns | None:
    """The units for some features, or ``None`` where they are good as they are.

    Args:
      features: ``(n, d)``, on the host or on devices.
      shifted: whether columns may be moved, as a model with an intercept allows.
      of_many: whether each of several processes has its own rows; all get the same answer.
    """
    ends = _ends(features)
    ends = all_gather(ends) if of_many else ends[None]
    low, high = ends[:, 0].min(0), ends[:, 1].max(0)
    with np.errstate(over="ignore", invalid="ignore"):
        middle, reach = low + (high - low) / 2, (high - low) / 2
    far = (np.abs(middle) > _FAR * reach) & np.isfinite(middle) & shifted
    centre = np.where(far, _representable(middle, features.dtype), 0.0)
    size = np.maximum(np.abs(low - centre), np.abs(high - centre))
    used = size[(size > 0) & np.isfinite(size)]
    scale = np.ones_like(size)
    if used.size:
        apart = used.max() > _APART * used.min()
        if apart or used.max() > _EXTREME or used.min() < 1 / _EXTREME:
            usable = (size > 0) & np.isfinite(size)
            scale = np.where(usable, np.exp2(-np.round(np.log2(np.where(usable, size, 1)))), 1.0)
    return Columns(centre, scale) if far.any() or (scale != 1).any() else None


def _ends(features: Any) -> np.ndarray:
    """The least and the largest number of each column, ``(2, d)`` in float64.

    All rows of this process are read on an accelerator, else a sample from all over the features.
    """
    if isinstance(features, jax.Array):
        parts = [shard.data for shard in features.addressable_shards]
    else:
        parts = [features]
    found = [np.asarray(_ends_of_part(part), np.float64) for part in parts]
    return np.stack([np.min([low for low, _ in found], 0), np.max([high for _, high in found], 0)])


def _ends_of_part(part: Any) -> Any:
    if isinstance(part, jax.Array) and part.platform() != "cpu":
        return _ends_on_device(part)
    places = np.linspace(0, len(part) - 1, min(len(part), _SAMPLED)).astype(np.int32)
    part = np.asarray(part) if isinstance(part, jax.Array) else part
    sample = np.asarray(part[np.unique(places)])
    return np.stack([sample.min(0), sample.max(0)])


@jit_by_shape
def _ends_on_device(features):
    return jnp.stack([jnp.min(features, 0), jnp.max(features, 0)])


def _representable(middle: np.ndarray, dtype) -> np.ndarray:
    """The middle as a number of the columns' dtype."""
    if np.dtype(dtype).kind in "iub":
        return np.round(middle)
    return middle.astype(dtype).astype(np.float64)


def is_moved(columns: Columns | None) -> bool:
    """Whether a column is shifted."""
    return columns is not None and bool(columns.centre.any())


def in_units(columns: Columns | None, features: Any) -> Any:
    """x′ of features on a device, in float32 or wider."""
    return features if columns is None else _moved(features, *columns)


@jit_by_shape
def _moved(x, centre, scale):
    # Integers of 32 bits and more have differences that float32 does not hold.
    wide = jnp.issubdtype(x.dtype, jnp.integer) and x.dtype.itemsize >= 4
    dtype = jnp.float64 if wide else jnp.promote_types(x.dtype, jnp.float32)
    return (x.astype(dtype) - centre.astype(dtype)[None]) * scale.astype(dtype)[None]


def params_in_units(columns: Columns | None, v: Affine) -> Affine:
    """w′ and b′, in the dtype of the parameters."""
    if columns is None:
        return v
    dtype = v.weights.dtype
    with np.errstate(over="ignore"):  # a start so far away is left for zero
        weights = (np.asarray(v.weights, np.float64) / columns.scale[None]).astype(dtype)
    if v.intercept is None:
        return Affine(weights, None)
    return Affine(weights, intercept_at(columns, v, 1).astype(dtype))


def params_out_of_units(columns: Columns | None, v: Affine, dtype) -> Affine:
    """w and b from float64 w′ and b′, each rounded once to a dtype; b fits the rounded w."""
    if columns is None:
        return jax.tree.map(lambda x: np.asarray(x, dtype), v)
    with np.errstate(over="ignore"):
        weights = (np.asarray(v.weights, np.float64) * columns.scale[None]).astype(dtype)
    if v.intercept is None:
        return Affine(weights, None)
    return Affine(weights, intercept_at(columns, Affine(weights, v.intercept), -1).astype(dtype))


def intercept_at(columns: Columns, v: Affine, side: int) -> np.ndarray:
    """``b ± W m``, each the exact sum of exact products, rounded once: ``(K,)``, float64."""
    used = np.flatnonzero(columns.centre)
    centre = columns.centre[used]
    found = []
    for row, b in zip(np.asarray(v.weights, np.float64)[:, used], v.intercept, strict=True):
        high, low = _exact_products(side * row, centre)
        terms = [float(b), *high.tolist(), *low.tolist()]
        found.append(math.fsum(terms) if np.isfinite(terms).all() else float(np.sum(terms)))
    return np.array(found)


def _exact_products(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The products ``a b`` as unevaluated sums of two numbers (Dekker, Numer. Math. 18 (1971))."""

    def halves(x):
        big = x * (2.0**27 + 1)
        high = big - (big - x)
        return high, x - high

    product = a * b
    (a1, a2), (b1, b2) = halves(a), halves(b)
    return product, a2 * b2 - (((product - a1 * b1) - a2 * b1) - a1 * b2)


def penalty_in_units(columns: Columns | None, penalty: Penalty) -> Penalty:
    """The strengths for the scaled weights, one for all or ``(1, d)``."""
    l1, l2 = float(penalty.l1), float(penalty.l2)
    if columns is None or (columns.scale == 1).all():
        return Penalty(l1=l1, l2=l2)
    scale = columns.scale[None]
    return Penalty(l1=l1 * scale if l1 > 0 else 0.0, l2=l2 * scale**2 if l2 > 0 else 0.0)
