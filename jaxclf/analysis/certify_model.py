"""Verdicts on the risk of a model that is not affine in its parameters: a witness or nothing.

No rule proves convexity behind a hidden layer, so there is no `Convex` here. A direction of
negative curvature comes from Lanczos iteration at the given parameters and around them; the
objective on it, in float64, must break Jensen's inequality by far more than rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxclf.analysis.certify_risk import Searched
from jaxclf.analysis.convexity import midpoint_test
from jaxclf.analysis.jensen import Jensen
from jaxclf.analysis.spectrum import eigenpairs, hessian_product
from jaxclf.objectives import Batch, Objective

_PERTURBED = (0.0, 0.1, 1.0)
"""Sizes of the changes of the parameters, over their own, at which curvature is sought."""
_REACH = (0.03, 0.1, 0.3, 1.0, 3.0)


def search_model(objective: Objective, params, data: Batch, seed: int) -> Searched:
    """Parameters and a direction in which the objective bends down.

    Args:
      objective: with any logits.
      params: a pytree of floating arrays; they are widened to float64.
      data: the rows.
      seed: of the changes and of Lanczos iteration.
    """
    lowest, witness = np.inf, None
    with jax.enable_x64(True):
        flat, restore = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params))
        product = hessian_product(objective, data)
        size = jnp.sqrt(jnp.mean(flat**2)) + 1e-3
        value = jax.jit(lambda v, data: objective(restore(v), data))
        for i, scale in enumerate(_PERTURBED):
            key = jax.random.fold_in(jax.random.key(seed), i)
            point = flat + scale * size * jax.random.normal(key, flat.shape, flat.dtype)
            try:
                pair = eigenpairs(product, restore(point), 1, key=key, which="smallest", tol=1e-2)
            except RuntimeError:  # Lanczos iteration did not converge: nothing is known here
                continue
            lowest = min(lowest, float(pair.values[0]))
            if witness is None and pair.values[0] < 0:
                direction = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x[0]), pair.vectors))[0]
                witness = _triple(lambda v: value(v, data), point, direction)
    return Searched(witness, lowest, len(_PERTURBED))


def _triple(value, point, direction) -> Jensen | None:
    steps = jnp.asarray(_REACH)[:, None] * direction[None]
    test = midpoint_test(value, point[None] - steps, point[None] + steps, batch_size=1)
    sure = np.asarray(test.excess - test.tolerance)
    best = int(np.argmax(sure))
    if not sure[best] > 0:
        return None
    return Jensen(*(np.asarray(point + side * steps[best]) for side in (-1, 1)), float(sure[best]))
