"""Columns far from zero, or of scales far apart, in units in which the solvers keep their digits.

    x′ = (x - m) s,   w′ = w / s,   b′ = b + W m,   λ w² = (λ s²) w′²,   λ |w| = (λ s) |w′|

The problem stays the same, because the intercept is not penalised. A column is shifted only where
all of its rows lie on one side of zero and far from zero, so that ``x - m`` is exact. The scale s
is a power of two. So nothing is rounded on the way in. Columns that need neither stay as they are.

Source: Sterbenz, Floating-Point Computation (1974), theorem 4.3.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra.problem import Affine
from jaxclf.penalties import Penalty, not_smooth
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.sharing import all_gather, local_part
from jaxclf.sparse_rows import SparseRows, columns_of_numbers, is_sparse, parts_of, transposed_csr
from jaxclf.stored_rows import StoredRows

_SAMPLED = 4096
"""The number of rows on the host that are looked at. All rows of a column are looked at before it
is shifted. So an end that the sample misses costs digits, never a certificate."""
_AT_ONCE = 2**16
"""The number of rows that are read at a time for the ends of columns that may be shifted."""
_FAR = 3.0
"""A column is far from zero where its middle is so many times half of its range."""
_APART = 2.0**12
"""Columns are scaled where their scales differ by more than this factor."""
_EXTREME = 2.0**20
"""Columns are also scaled where one is larger than this, or smaller than the inverse of this."""

FIXED = 1e30
"""The strength that stands for an infinite one. A weight with it is below 1e-30 times its slope,
and is then set to zero. The finite penalty is never the larger one, so that a bound on the gap for
it holds for the infinite one too."""


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
    low, high = _over_processes(_ends(features), of_many)
    far = _is_far(low, high) & shifted
    if far.any():
        ends = _ends(features, np.flatnonzero(far))
        low[far], high[far] = _over_processes(ends, of_many)
        far = far & _is_far(low, high)
    if np.dtype(features.dtype).kind in "iu":  # they are shifted as integers of 64 bits
        far = far & (np.maximum(np.abs(low), np.abs(high)) < 2.0**62)
    centre = np.where(far, _representable(_middle(low, high), features.dtype), 0.0)
    size = np.maximum(np.abs(low - centre), np.abs(high - centre))
    used = size[(size > 0) & np.isfinite(size)]
    scale = np.ones_like(size)
    if used.size:
        apart = used.max() / _APART > used.min()
        if apart or used.max() > _EXTREME or used.min() < 1 / _EXTREME:
            usable = (size > 0) & np.isfinite(size)
            exponents = -np.round(np.log2(np.where(usable, size, 1)))
            scale = np.where(usable, np.exp2(np.clip(exponents, *_exponents(features.dtype))), 1.0)
    return Columns(centre, scale) if far.any() or (scale != 1).any() else None


def _exponents(dtype) -> tuple[int, int]:
    """The least and the largest exponent of a scale in the dtype that features are widened to.

    Programs take a number below the normal ones for zero. The square of the largest scale must
    leave room for the strength of a penalty in float64.
    """
    info = jnp.finfo(jnp.promote_types(dtype, jnp.float32))
    return int(info.minexp), min(-int(info.minexp), 400)


def _middle(low, high) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return low + (high - low) / 2


def _is_far(low, high) -> np.ndarray:
    """Whether columns with these ends are far from zero."""
    middle = _middle(low, high)
    with np.errstate(over="ignore", invalid="ignore"):
        return (np.abs(middle) > _FAR * (high - low) / 2) & np.isfinite(middle)


def _over_processes(ends: np.ndarray, of_many: bool) -> tuple[np.ndarray, np.ndarray]:
    """The ends of columns over the rows of all processes."""
    ends = all_gather(ends) if of_many else ends[None]
    return ends[:, 0].min(0), ends[:, 1].max(0)


def _ends(features: Any, columns: np.ndarray | None = None) -> np.ndarray:
    """The least and the largest number of each column of this process, ``(2, d)`` float64.

    On the host it looks at a sample of the rows, or at all rows of the columns that are given.
    """
    if is_sparse(features):
        return _ends_of_sparse(features, columns)
    if isinstance(features, jax.Array):
        parts = [shard.data for shard in features.addressable_shards]
    else:
        parts = [features]
    found = [np.asarray(ends, np.float64) for part in parts for ends in _ends_of(part, columns)]
    return np.stack([np.min([low for low, _ in found], 0), np.max([high for _, high in found], 0)])


def _ends_of_sparse(features: Any, columns: np.ndarray | None) -> np.ndarray:
    parts = [transposed_csr(part) for part in parts_of(local_part(features))]
    low = np.min([part.min(1).toarray() for part in parts], 0)
    high = np.max([part.max(1).toarray() for part in parts], 0)
    ends = np.stack([low, high]).astype(np.float64)
    return ends if columns is None else ends[:, columns]


def _ends_of(part: Any, columns: np.ndarray | None) -> Iterator[Any]:
    """The ends in parts of the rows."""
    if isinstance(part, jax.Array) and part.platform() != "cpu":
        ends = _ends_on_device(part)
        yield ends if columns is None else ends[:, columns]
        return
    if isinstance(part, StoredRows):
        yield from _ends_of_stored(part, columns)
        return
    part = np.asarray(part) if isinstance(part, jax.Array) else part
    if columns is None and len(part) <= _SAMPLED:
        blocks = [np.asarray(part[:])]
    elif columns is None:
        places = np.linspace(0, len(part) - 1, _SAMPLED).astype(np.int32)
        blocks = [np.asarray(part[np.unique(places)])]
    else:
        starts = range(0, len(part), _AT_ONCE)
        blocks = (np.asarray(part[i : i + _AT_ONCE])[:, columns] for i in starts)
    for block in blocks:
        yield np.stack([block.min(0), block.max(0)])


def _ends_of_stored(rows: StoredRows, columns: np.ndarray | None) -> Iterator[Any]:
    if columns is None:
        places = np.unique(np.linspace(0, len(rows) - 1, _SAMPLED).astype(np.int64))
        blocks = [rows[places]]
    else:
        starts = range(0, len(rows), _AT_ONCE)
        blocks = (rows[i : i + _AT_ONCE][:, columns] for i in starts)
    for block in blocks:
        yield np.stack([block.min(0).toarray(), block.max(0).toarray()])


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
    if columns is None:
        return features
    if is_sparse(features):  # every row of a column that is shifted has a number in it
        return _moved_numbers(features, *columns)
    return _moved(features, *columns)


@jit_by_shape
def _moved_numbers(x: SparseRows, centre, scale) -> SparseRows:
    both = (
        part._replace(values=_moved(part.values[None], centre[columns], scale[columns])[0])
        for part, columns in zip((x.by_row, x.by_column), columns_of_numbers(x), strict=True)
    )
    return SparseRows(*both, x.shape)


@jit_by_shape
def _moved(x, centre, scale):
    if jnp.issubdtype(x.dtype, jnp.integer) and x.dtype.itemsize >= 4:
        # Float32 does not hold their differences, and float64 not the larger ones themselves.
        differences = x.astype(jnp.int64) - centre.astype(jnp.int64)[None]
        # What is not shifted may be beyond the integers of 64 bits with a sign.
        moved = jnp.where(centre == 0, x.astype(jnp.float64), differences.astype(jnp.float64))
        return moved * scale[None]
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return _scaled(x.astype(dtype), scale) - (centre * scale).astype(dtype)[None]


def _scaled(x, scale) -> jax.Array:
    """``x s``, also where x is below the normal numbers, which programs take for zero."""
    info = jnp.finfo(x.dtype)
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"int{info.bits}"))
    fraction = (bits & (2**info.nmant - 1)).astype(x.dtype) * 2.0**-info.nmant
    below = jnp.where(bits < 0, -fraction, fraction) * (scale * info.smallest_normal)[None]
    exponent = (bits >> info.nmant) & (2**info.nexp - 1)
    return jnp.where(exponent == 0, below.astype(x.dtype), x * scale.astype(x.dtype)[None])


def params_in_units(columns: Columns | None, v: Affine, *, centred: bool = False) -> Affine:
    """w′ and b′, in the dtype of the parameters.

    With ``centred`` a b′ that is made anew has the part taken off that all logits have in common,
    for a loss that ignores it: such a part may be so large that it costs b′ digits.
    """
    if columns is None:
        return v
    dtype = v.weights.dtype
    with np.errstate(over="ignore"):  # a start so far away is left for zero
        weights = (np.asarray(v.weights, np.float64) / columns.scale[None]).astype(dtype)
    if v.intercept is None:
        return Affine(weights, None)
    b = intercept_at(columns, v, 1)
    if centred and is_moved(columns):
        b = intercept_at(columns, v, 1, common=float(np.mean(b)))
    return Affine(weights, b.astype(dtype))


def params_out_of_units(
    columns: Columns | None, v: Affine, dtypes: Affine, *, centred: bool
) -> Affine:
    """w and b from float64 w′ and b′, each rounded once to its dtype; b fits the rounded w.

    With ``centred`` the b that is made anew where columns are shifted has a mean of zero over the
    logits; any other b stays as it is. A number beyond the range of its dtype becomes the largest
    number there.
    """
    if columns is None:
        return jax.tree.map(_rounded, v, dtypes)
    with np.errstate(over="ignore"):
        weights = np.asarray(v.weights, np.float64) * columns.scale[None]
    weights = _rounded(weights, dtypes.weights)
    if v.intercept is None:
        return Affine(weights, None)
    b = intercept_at(columns, Affine(weights, v.intercept), -1)
    if centred and is_moved(columns):
        b = b - np.mean(b)
    return Affine(weights, _rounded(b, dtypes.intercept))


def _rounded(x, dtype) -> np.ndarray:
    largest = float(jnp.finfo(dtype).max)
    return np.clip(np.asarray(x, np.float64), -largest, largest).astype(dtype)


def gradient_out_of_units(columns: Columns | None, g: Affine) -> Affine:
    """The gradient in w and b, ``g_w = g′_w / s + g_b mᵀ``, on the host."""
    if columns is None:
        return g
    weights = g.weights / columns.scale[None]
    if g.intercept is not None:
        weights = weights + g.intercept[:, None] * columns.centre[None]
    return g._replace(weights=weights)


def intercept_at(columns: Columns, v: Affine, side: int, *, common: float = 0.0) -> np.ndarray:
    """``b ± W m - common``, exact sums of exact products, each rounded once: ``(K,)``, float64."""
    used = np.flatnonzero(columns.centre)
    centre = columns.centre[used]
    found = []
    for row, b in zip(np.asarray(v.weights, np.float64)[:, used], v.intercept, strict=True):
        high, low = _exact_products(side * row, centre)
        terms = [float(b), -common, *high.tolist(), *low.tolist()]
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
    """The strengths for the scaled weights: one for all, ``(1, d)`` or ``(K, d)``.

    That of a weight that is fixed at zero is :data:`FIXED`, in ``l2`` and, where ``l1`` is not
    zero, in ``l1``.
    """
    scale = 1.0 if columns is None or (columns.scale == 1).all() else columns.scale[None]

    def scaled(strength, power: int):
        x = np.asarray(strength, np.float64)
        if not x.any():
            return 0.0
        fixed = np.isinf(x)
        for _ in range(power):  # the square of a scale may be below float64
            x = x * scale
        if not np.ndim(x):
            return float(x)
        return np.atleast_2d(np.where(fixed, FIXED, x))

    part = not_smooth(penalty.l1).in_units(scale, partial(scaled, power=1))
    return Penalty(part, scaled(penalty.l2, 2))
