"""Verdicts on the risk of a linear model over given rows, with a ridge.

With logits ``W x`` and a loss whose Hessian in the logits is at least -c_y I for rows of label y,

    ∇²F ⪰ (λ - r) I,   r = λmax(Σᵢ ωᵢ c_{yᵢ} xᵢ xᵢᵀ),

so a ridge of r makes the risk convex, and a larger one makes it strongly convex. Below r a point is
sought where the Hessian has a negative eigenvalue. The witness is three weights along the
eigenvector that break Jensen's inequality for the whole objective, in interval arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from mpmath import iv, mp

from jaxclf.analysis.intervals import enclosure, precision
from jaxclf.analysis.jaxpr_walk import traced
from jaxclf.analysis.jensen import Jensen
from jaxclf.analysis.negative_curvature import most_negative_curvature

_SCALES = (0.3, 1.0, 3.0)
"""The root mean squares of the logits at the starts of the search."""
_DRAWS = 3
_HUNT = 12
_FEW = 256
"""The most weights for which a descent on the eigenvalue is cheap. With more weights the descent
takes fewer steps."""
_MOST = 4096
"""The most weights for which the Hessian is written down."""
_REACH = (4.0, 2.0, 1.0, 0.5)
"""The root mean squares of the changes of the logits over which Jensen's inequality is tried."""
_DIGITS = 30
"""The binary digits that weights keep, counted from the largest weight. The middle of two weights
is exact then."""


class Rows(NamedTuple):
    """The rows that a risk is a mean over."""

    features: np.ndarray
    """The features of the rows, ``(n, d)`` float64."""
    labels: np.ndarray
    shares: np.ndarray
    """The share of each row in the mean, ``(n,)``; the shares sum to one."""


class Searched(NamedTuple):
    """The result of a search for negative curvature."""

    witness: Jensen | None
    curvature: float
    """The smallest eigenvalue of the objective's Hessian that was seen."""
    points: int


def second_moment_extremes(rows: Rows, scales) -> tuple[float, float]:
    """Bounds from below and above on the eigenvalues of ``Σᵢ ωᵢ scaleᵢ xᵢ xᵢᵀ``, scales ≥ 0.

    Rounded sums are off by at most n ε times the trace, and their eigenvalues by a few d ε times
    the trace. The bounds leave room for eight times both.
    """
    weighted = rows.features * (rows.shares * scales)[:, None]
    matrix = rows.features.T @ weighted
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    room = 8 * sum(rows.features.shape) * np.finfo(float).eps * np.trace(matrix)
    return max(0.0, float(values[0] - room)), float(values[-1] + room)


def search(loss: Callable, num_logits: int | None, rows: Rows, ridge: float, seed: int) -> Searched:
    """Looks for weights and a direction in which the objective with this ridge bends down."""
    outputs = () if num_logits is None else (num_logits,)
    size = rows.features.shape[1] * (num_logits or 1)
    if size > _MOST:
        raise ValueError(f"a search takes at most {_MOST} weights, got {size}")
    steps = _HUNT if size <= _FEW else _HUNT // 4
    rng = np.random.default_rng(seed)
    lowest, points = np.inf, 0
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x) for x in rows]
        for scale in np.repeat(_SCALES, _DRAWS):
            start = rng.normal(size=(*outputs, rows.features.shape[1]))
            start *= scale / np.sqrt(np.mean((rows.features @ start.T) ** 2))
            found = most_negative_curvature(loss, start, *arrays, num_steps=steps)
            points += steps + 1
            lowest = min(lowest, found.curvature + ridge)
            if found.curvature + ridge < 0:
                witness = _triple(loss, rows, ridge, found.weights, found.direction)
                if witness is not None:
                    return Searched(witness, float(lowest), points)
    return Searched(None, float(lowest), points)


def _triple(loss, rows: Rows, ridge: float, middle, direction) -> Jensen | None:
    """Weights around the middle that provably break Jensen's inequality, or ``None``."""
    unit = 1 / np.sqrt(np.mean((rows.features @ direction.T) ** 2))
    for reach in _REACH:
        ends = [middle + side * reach * unit * direction for side in (-1, 1)]
        grid = 2.0 ** (np.frexp(np.max(np.abs(ends)))[1] - _DIGITS)
        a, b = (np.round(end / grid) * grid for end in ends)
        at = [_objective(loss, rows, ridge, w) for w in (a, b, (a + b) / 2)]
        if at[2] - (at[0] + at[1]) / 2 <= 1e-12 * abs(at[2]):
            continue  # not worth an interval
        proven = [_enclosed(loss, rows, ridge, w) for w in (a, b, (a + b) / 2)]
        if None in proven:
            return None
        with precision():
            excess = proven[2] - (proven[0] + proven[1]) / 2
            low = np.nextafter(float(mp.mpf(excess.a)), -np.inf)
        if low > 0:
            return Jensen(a, b, float(low))
    return None


def _objective(loss, rows: Rows, ridge: float, weights) -> float:
    each = jax.vmap(loss)(jnp.asarray(rows.features @ weights.T), jnp.asarray(rows.labels))
    return float(rows.shares @ np.asarray(each)) + ridge / 2 * float(np.sum(weights**2))


def _enclosed(loss, rows: Rows, ridge: float, weights):
    """The objective as an interval; the shares enter as they are, whatever they sum to."""
    shape = weights.shape[:-1]
    formulas = {
        label: traced(lambda z, y=label: loss(z, y), shape)
        for label in np.unique(rows.labels).tolist()
    }
    exact = np.vectorize(iv.mpf, otypes=[object])
    with precision():
        w, total = exact(np.atleast_2d(weights)), iv.mpf(0)
        for x, label, share in zip(rows.features, rows.labels.tolist(), rows.shares, strict=True):
            logits = (w @ exact(x)).reshape(shape)
            value = enclosure(formulas[label], logits)
            if value is None:
                return None
            total += value * iv.mpf(float(share))
        return total + iv.mpf(float(ridge)) / 2 * np.sum(w * w)
