"""Slices through the graph of an objective.

A slice is given by a point and directions: random ones of :func:`filter_normalised`, eigenvectors
of :func:`jaxclf.analysis.spectrum.eigenpairs`, or the difference of two solutions, between which
the distances 0 and 1 lie. Any function of the parameters can be sliced, the smallest eigenvalue of
the Hessian among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np


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
    return _over_grid(lambda t: function(_point(centre, directions, t)), distances, batch_size)


def _point(centre, directions: Sequence, coordinates):
    point = centre
    for t, direction in zip(coordinates, directions, strict=True):
        point = jax.tree.map(lambda c, d, t=t: c + t * d, point, direction)
    return point


def _over_grid(function: Callable, distances: Sequence, batch_size: int) -> jax.Array:
    """A function of the coordinates at every point of a grid."""
    grid = jnp.stack(jnp.meshgrid(*map(jnp.asarray, distances), indexing="ij"), -1)
    grid = grid.astype(jnp.result_type(float, grid))
    values = jax.lax.map(function, grid.reshape(-1, grid.shape[-1]), batch_size=batch_size)
    return values.reshape(grid.shape[:-1])


def filter_normalised(key: jax.Array, params, *, axis: int = 0):
    """A random direction in which every filter is as long as the same filter of the parameters.

    Each slice of an array along ``axis``, the weights of one output, is a normal draw scaled to the
    norm that it has in ``params``; arrays of one number per output, and single numbers, stay zero.
    Slices of models whose weights differ in scale can then be compared.

    Args:
      key: the random key of the draw.
      params: any pytree.
      axis: the axis of the outputs: 0 for ``(K, d)`` weights of :mod:`jaxclf.models.linear`, -1 for
        kernels of Flax.

    Raises:
      ValueError: parameters of which every filter is zero, or none has more than one weight.

    Source: Li, Xu, Taylor, Studer and Goldstein, Visualizing the loss landscape of neural nets,
    NeurIPS 2018, section 4.
    """
    leaves, tree = jax.tree.flatten(params)

    def direction(key, leaf):
        if jnp.ndim(leaf) < 2:
            return jnp.zeros_like(leaf)
        others = tuple(i for i in range(leaf.ndim) if i != axis % leaf.ndim)
        drawn = jax.random.normal(key, leaf.shape, leaf.dtype)
        lengths = [jnp.sqrt(jnp.sum(x**2, others, keepdims=True)) for x in (leaf, drawn)]
        return drawn * (lengths[0] / lengths[1])

    keys = jax.random.split(key, len(leaves))
    directions = list(map(direction, keys, leaves))
    if not any(np.any(np.asarray(x)) for x in directions):
        raise ValueError(
            "every filter of params is zero, or an array of one axis: there is no direction"
        )
    return tree.unflatten(directions)


def plane_curvature(
    function: Callable,
    centre,
    directions: Sequence,
    distances: Sequence,
    *,
    batch_size: int = 32,
) -> jax.Array:
    """The smallest curvature within a slice at each of its points.

    This is the smallest eigenvalue of the Hessian in the coordinates t. Where it is negative the
    function is not convex. Where it is positive the function bends up within this slice, and
    nothing is known of other directions.

    Args:
      The arguments are those of :func:`landscape_slice`.

    Returns:
      ``(m_1, m_2, …)``.
    """

    def smallest(coordinates):
        hessian = jax.hessian(lambda t: function(_point(centre, directions, t)))(coordinates)
        return jnp.linalg.eigvalsh(hessian)[0]

    return _over_grid(smallest, distances, batch_size)
