"""Rows with many more features than rows, in as many coordinates as there are rows.

The weights that minimise an objective with a ridge are combinations of the rows, ``W = A X Λ⁻¹``,
with Λ the ridge's strengths over their mean λ. With ``L Lᵀ = X Λ⁻¹ Xᵀ`` and ``U = A L``

    X Wᵀ = L Uᵀ,   Σⱼ λⱼ ‖wⱼ‖² = λ ‖U‖²,   W = U L⁻¹ X Λ⁻¹,

so the rows of L, which are triangular and ``(n, n)``, stand for the rows of X. The features are
read three times: for the Gram matrix of the rows, for the start and for the result.

Source: Hastie and Tibshirani, Efficient quadratic regularization for expression arrays,
Biostatistics 5 (2004), section 2.
"""

from __future__ import annotations

import weakref
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from jaxclf.linear_algebra.problem import Affine
from jaxclf.programs import jit_by_shape

BEFORE, AFTER = 2, 1
"""Readings of the features before a solve, for the Gram matrix and the start, and after it."""
_FEWEST_NUMBERS = 2**16
"""Features with fewer numbers are read in microseconds as they are."""
_MOST_ROWS = 4096
"""The Gram matrix of n rows takes as long as n / 130 readings of the features."""
_FEATURES_PER_ROW = 2
_MOST_COPIED = 2**26
"""Features with more numbers are taken as they are, not widened or weighed: 256 MiB in float32."""
_MOST_APART = 1e12
"""Rows are weighed by the inverse of each strength, which float32 must hold."""
_STRIPS = 4
"""Strips of rows for which the Gram matrix is made up to the diagonal."""
_LEAST_PIVOT = 1e-5
"""Rows depend on each other where the square of a number on the factor's diagonal is so many times
less than the largest. Rounding leaves some 1e-7 of two equal rows in float32."""


def is_wide(features: jax.Array, dtype: Any, l2: Any) -> bool:
    """Whether a solve in a dtype takes less time in coordinates of the rows.

    It needs a penalty, and room for a copy of the features where their dtype is another one or
    strengths differ.
    """
    (n, d), numbers = features.shape, features.size
    few_rows = n <= min(_MOST_ROWS, d // _FEATURES_PER_ROW)
    copied = features.dtype != dtype or np.size(l2) > 1
    most = _MOST_COPIED if copied else np.inf
    alike = np.max(l2) <= _MOST_APART * np.min(l2) and np.size(l2) in (1, d)
    return few_rows and _FEWEST_NUMBERS <= numbers <= most and bool(np.all(l2 > 0)) and alike


def factor_of(features: jax.Array, l2: Any, start: Affine) -> jax.Array:
    """L, ``(n, n)`` in the dtype of the start.

    With an intercept a constant feature is added, so that rows whose mean is zero have a factor
    too. Its weight is zero at the minimum, because the intercept does the same without a penalty.

    A strength that all features share leaves L as it is. So the factor of the latest features is
    kept as long as they are, for fits with other strengths.
    """
    global _latest
    asked = start.weights.dtype, start.intercept is None
    of, known, factor = _latest
    if of() is features and known == asked and np.size(l2) == 1:
        return factor
    factor = _factor(features, l2, start)
    if np.size(l2) == 1:
        _latest = weakref.ref(features, _forget), asked, factor
    return factor


def is_sound(factor: jax.Array) -> bool:
    """Whether no row depends on the others, as far as rounding can tell."""
    pivots = np.diagonal(np.asarray(factor)) ** 2
    return bool(pivots.min() > _LEAST_PIVOT * pivots.max())  # not so where there is NaN


def _forget(of: Any = None) -> None:
    global _latest
    _latest = (lambda: None), None, None


_forget()


@jit_by_shape
def _factor(features, l2, start):
    x = features.astype(start.weights.dtype)
    gram = _lower_product(x, _over_ridge(x, l2))
    if start.intercept is not None:
        gram = gram + jnp.mean(jnp.diagonal(gram))
    return jnp.linalg.cholesky(gram, symmetrize_input=False)


def _lower_product(x, y) -> jax.Array:
    """``x yᵀ`` with few numbers above the diagonal, which takes two thirds of the time of all."""
    n = len(x)
    ends = [n * part // _STRIPS for part in range(_STRIPS + 1)]
    strips = [x[i:j] @ y[:j].T for i, j in pairwise(ends)]
    return jnp.concatenate([jnp.pad(s, ((0, 0), (0, n - s.shape[1]))) for s in strips])


@jit_by_shape
def inside(features, factor, params: Affine) -> Affine:
    """U of the weights that agree with W on all rows."""
    z = features.astype(factor.dtype) @ params.weights.T
    return params._replace(weights=solve_triangular(factor, z, lower=True).T)


@jit_by_shape
def outside(features, factor, l2, params: Affine) -> Affine:
    """W, ``(K, d)``."""
    a = solve_triangular(factor, params.weights.T, lower=True, trans=1).T
    return params._replace(weights=_over_ridge(a @ features.astype(factor.dtype), l2))


def _over_ridge(x, l2: Any) -> jax.Array:
    """``x Λ⁻¹``."""
    return x if jnp.size(l2) == 1 else x * (jnp.mean(l2) / jnp.reshape(l2, (1, -1))).astype(x.dtype)
