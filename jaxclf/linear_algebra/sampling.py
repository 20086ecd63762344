"""Rows drawn by importance, for a Hessian of fewer rows."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from jaxclf.linear_algebra.problem import Rows
from jaxclf.programs import jit_by_shape


class Drawn(NamedTuple):
    """The rows that were drawn, and the weight of each."""

    places: np.ndarray
    """The places of the rows, ``(size,)``, never falling. Where fewer were drawn, the last one is
    repeated without weight."""
    weights: np.ndarray
    """Each row's weight over its probability, ``(size,)``."""


def draw(weights, importance: np.ndarray, size: int, rng: np.random.Generator) -> Drawn:
    """``size`` rows with probability ``min(1, τ sᵢ)``, by systematic sampling.

    A sum over the rows, each with the weight it gets here, has the sum over all rows as its mean.

    Args:
      weights: ``(n,)``, ω.
      importance: ``(n,)``, s >= 0.
      size: the number of rows, below n.
      rng: the generator for the random start.
    """
    dtype, weights = weights.dtype, np.asarray(weights, np.float64)
    # A floor keeps every row with a weight possible, and its weight in the sample bounded.
    total = importance.sum()
    importance = importance + 1e-3 * weights * total if total > 0 else weights
    certain = np.zeros(len(weights), bool)
    while True:
        rest = importance[~certain].sum()
        tau = (size - certain.sum()) / rest if rest > 0 else 0.0
        share = np.where(certain, 1.0, tau * importance)
        if not (share > 1).any():
            break
        certain |= share >= 1
    marks = np.floor(np.cumsum(share) + rng.random())
    chosen = np.flatnonzero(np.diff(marks, prepend=0.0) > 0)[:size]
    places = np.pad(chosen, (0, size - len(chosen)), mode="edge").astype(np.int32)
    shares = np.where(np.arange(size) < len(chosen), weights[places] / share[places], 0)
    return Drawn(places, shares.astype(dtype))


def gather(rows: Rows, drawn: Drawn, used: jax.Array | None) -> Rows:
    """The drawn rows, their features in the memory of ``used`` where it has the same size.

    New memory costs several times what copying the rows does: the system clears every page of it.
    """
    size = len(drawn.places)
    if used is None or len(used) != size:
        features = _take(rows.features, drawn.places)
    else:
        features = _take_into(rows.features, drawn.places, used)
    return Rows(features, _take(rows.labels, drawn.places), drawn.weights)


@jit_by_shape
def _take(array, places):
    """The rows at some places of an array, or of each array in a pytree."""
    return jax.tree.map(lambda x: x.at[places].get(mode="promise_in_bounds"), array)


@partial(jit_by_shape, donate_argnums=2, keep_unused=True)
def _take_into(array, places, used):
    return array.at[places].get(mode="promise_in_bounds")
