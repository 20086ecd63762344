"""Verdicts on the risk of a model that is not affine in its parameters: a witness or nothing.

No rule proves convexity behind a hidden layer, so there is no `Convex` here. A direction of
negative curvature is sought at the given parameters and around them. The dense Hessian finds it for
few parameters, and Lanczos iteration for many. Along the direction the objective must break
Jensen's inequality by far more than rounding in the narrowest floating dtype that it computes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxclf.analysis.certify_risk import Searched
from jaxclf.analysis.convexity import midpoint_test
from jaxclf.analysis.jensen import Jensen
from jaxclf.analysis.spectrum import dense_eigenpairs, eigenpairs, hessian_product
from jaxclf.objectives import Batch, Objective

_PERTURBED = (0.0, 0.1, 1.0)
"""The sizes of the changes of the parameters at which curvature is sought, in units of the size of
the parameters."""
_REACH = (0.03, 0.1, 0.3, 1.0, 3.0)
_DENSE = 256
"""The most parameters for which the Hessian is written down."""
_RESTARTS = 50


def search_model(objective: Objective, params, data: Batch, seed: int) -> Searched:
    """Searches for parameters and a direction in which the objective bends down.

    Args:
      objective: an objective with any logits.
      params: a pytree of floating arrays; they are widened to float64.
      data: the rows.
      seed: the seed of the changes and of Lanczos iteration.
    """
    lowest, witness = np.inf, None
    with jax.enable_x64(True):
        flat, restore = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params))
        product = hessian_product(objective, data)
        size = jnp.sqrt(jnp.mean(flat**2)) + 1e-3
        value = jax.jit(lambda v, data: objective(restore(v), data))
        epsilon = _coarsest(jax.make_jaxpr(value)(flat, data).jaxpr)
        for i, scale in enumerate(_PERTURBED):
            key = jax.random.fold_in(jax.random.key(seed), i)
            point = flat + scale * size * jax.random.normal(key, flat.shape, flat.dtype)
            bend, direction = _smallest(product, restore(point), key)
            lowest = min(lowest, bend)
            if witness is None and bend < 0:
                witness = _triple(lambda v: value(v, data), point, direction, epsilon)
    return Searched(witness, lowest, len(_PERTURBED))


def _smallest(product: Callable, params, key) -> tuple[float, jax.Array]:
    """The smallest eigenvalue of the Hessian, and its eigenvector.

    Where the iteration fails they are the curvature along a random direction, and the direction.
    """
    flat, restore = ravel_pytree(params)
    if flat.size <= _DENSE:
        columns = [ravel_pytree(product(params, restore(unit)))[0] for unit in jnp.eye(flat.size)]
        hessian = np.asarray(jnp.stack(columns))
        values, vectors = dense_eigenpairs((hessian + hessian.T) / 2)
        return float(values[0]), jnp.asarray(vectors[:, 0])
    try:
        pair = eigenpairs(
            product, params, 1, key=key, which="smallest", tol=1e-2, max_restarts=_RESTARTS
        )
    except RuntimeError:
        direction = jax.random.normal(key, flat.shape, flat.dtype)
        direction = direction / jnp.linalg.norm(direction)
        return float(direction @ ravel_pytree(product(params, restore(direction)))[0]), direction
    vector = jax.tree.map(lambda x: jnp.asarray(x[0]), pair.vectors)
    return float(pair.values[0]), ravel_pytree(vector)[0]


def _triple(value: Callable, point, direction, epsilon: float) -> Jensen | None:
    steps = jnp.asarray(_REACH)[:, None] * direction[None]
    test = midpoint_test(value, point[None] - steps, point[None] + steps, batch_size=1)
    coarser = epsilon / np.finfo(np.float64).eps
    sure = np.asarray(test.excess - coarser * test.tolerance)
    best = int(np.argmax(sure))
    if not sure[best] > 0:
        return None
    return Jensen(*(np.asarray(point + side * steps[best]) for side in (-1, 1)), float(sure[best]))


def _coarsest(jaxpr) -> float:
    """The spacing at 1 of the narrowest floating dtype in a program."""
    floating = (dtype for dtype in _dtypes(jaxpr) if jnp.issubdtype(dtype, jnp.floating))
    return max((float(jnp.finfo(dtype).eps) for dtype in floating), default=np.finfo(float).eps)


def _dtypes(jaxpr) -> Iterator:
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield variable.aval.dtype
        for parameter in equation.params.values():
            for part in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    yield from _dtypes(inner)
