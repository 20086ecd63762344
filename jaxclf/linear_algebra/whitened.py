"""Features in coordinates of mean zero and second moment I, for rows that fit in memory twice.

    x = μ + Q Λ^½ x′,  W = W′ Λ^(-½) Qᵀ,  b = b′ - W μ,  λ ‖W‖² = Σ_j (λ / Λ_j) ‖w′_j‖²

where the centred rows have the moments Λ and the axes Q. A ridge stays a diagonal.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.linear_algebra.problem import Affine


class Whitened(NamedTuple):
    """Rows in coordinates of mean zero and second moment I."""

    features: jax.Array
    """The coordinates, ``(n, r)``, where r is the rank of the centred features."""
    transposed: jax.Array
    """A transposed copy of the coordinates, ``(r, n)``, so that each product has a good layout."""
    labels: jax.Array
    inverse_moments: jax.Array
    """1 / Λ, ``(r,)``."""
    mean: np.ndarray
    """The mean μ, ``(d,)`` float64."""
    basis: np.ndarray
    """The axes Q, ``(d, r)`` float64."""
    roots: np.ndarray
    """The roots Λ^½, ``(r,)`` float64."""


def whiten(features, labels, dtype) -> Whitened | None:
    """The coordinates of ``(n, d)`` features, in ``dtype``.

    The result is ``None`` where there are no such coordinates: the features are not finite, or all
    the same, or so small that 1 / Λ is beyond the dtype; or LAPACK fails.
    """
    x = np.asarray(features, np.float64)
    if not np.isfinite(x).all():
        return None
    mean = x.mean(0)
    # Eigenvectors of the moments would not do: squares hide what is 1e-8 of the largest.
    try:
        left, sizes, right = np.linalg.svd(x - mean, full_matrices=False)
    except np.linalg.LinAlgError:
        return None
    spans = sizes > max(x.shape) * np.finfo(np.float64).eps * sizes[0]
    roots = sizes[spans] / np.sqrt(len(x))
    if not len(roots) or roots[-1] ** -2 > np.sqrt(float(jnp.finfo(dtype).max)):
        return None
    white = (left[:, spans] * np.sqrt(len(x))).astype(dtype)
    with jax.enable_x64(True):
        arrays = (white, np.ascontiguousarray(white.T), labels, (roots**-2).astype(dtype))
        return Whitened(*map(jax.device_put, arrays), mean, right[spans].T, roots)


def penalties_of(rows: Whitened, l2) -> np.ndarray:
    """λ / Λ of every lane, ``(L, 1, r)``."""
    strengths = np.asarray(l2, rows.features.dtype)
    return strengths[:, None, None] * np.asarray(rows.inverse_moments)[None, None]


def inside(rows: Whitened, params: Affine) -> Affine:
    """W′ and b′ of lanes, in the dtype of the rows. Parts of W outside the rows' span are lost."""
    dtype = rows.features.dtype
    weights = np.asarray(params.weights, np.float64)
    intercept = np.asarray(params.intercept, np.float64) + weights @ rows.mean
    return Affine(((weights @ rows.basis) * rows.roots).astype(dtype), intercept.astype(dtype))


def outside(rows: Whitened, params: Affine) -> Affine:
    """W and b of lanes, in float64."""
    weights, intercept = (np.asarray(x, np.float64) for x in params)
    weights = (weights / rows.roots) @ rows.basis.T
    return Affine(weights, intercept - weights @ rows.mean)
