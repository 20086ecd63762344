"""Slices through the graph of an objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp


def landscape_slice(
    function: Callable,
    centre,
    directions: Sequence,
    distances: Sequence,
    *,
    batch_size: int = 32,
) -> jax.Array:
    """``f(centre + Σ_j t_j · direction_j)`` over a grid: a line for one direction, a plane for two.

    Args:
      function: ``params -> ()``.
      centre: any pytree.
      directions: pytrees like the centre.
      distances: for each direction the values of ``t_j``, ``(m_j,)``, in units of its length.
      batch_size: points evaluated at once; bounds the memory.

    Returns:
      ``(m_1, m_2, …)``.
    """
    grid = jnp.stack(jnp.meshgrid(*distances, indexing="ij"), -1)

    def at(coordinates):
        point = centre
        for t, direction in zip(coordinates, directions, strict=True):
            point = jax.tree.map(lambda c, d, t=t: c + t * d, point, direction)
        return function(point)

    values = jax.lax.map(at, grid.reshape(-1, len(directions)), batch_size=batch_size)
    return values.reshape(grid.shape[:-1])
