"""Gradient descent with a fixed step, which is a yardstick and not the solver to use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxclf.checks import at_least_float32


class DescentPath(NamedTuple):
    """The path of gradient descent."""

    params: Any
    """The last point."""
    values: jax.Array
    """The objective before each step and after the last, ``(num_steps + 1,)``."""
    gradient_norms: jax.Array
    """The Euclidean norms of the gradient at the same points, ``(num_steps + 1,)``."""


def gradient_descent(
    objective: Callable, params, batch, *, step_size, num_steps: int
) -> DescentPath:
    """The path of ``w ← w - step_size · ∇F(w)``, taken ``num_steps`` times.

    On a convex F whose gradient has Lipschitz constant L, step 1/L lowers F at every step and
    ``F - F* <= L ‖w₀ - w*‖² / (2 num_steps)``. It may be vmapped over starts and step sizes.

    Args:
      objective: ``(params, batch) -> ()``.
      params: the start, any pytree.
      batch: the data that the objective takes.
      step_size: ``()``.
      num_steps: the number of steps, static.

    Raises:
      ValueError: if ``num_steps`` is negative.

    Source: Beck, First-Order Methods in Optimization (2017), theorem 10.21.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must not be negative, got {num_steps}")
    value_and_grad = jax.value_and_grad(objective)

    def evaluate(params):
        value, gradient = value_and_grad(params, batch)
        leaves = [at_least_float32(g) for g in jax.tree.leaves(gradient)]
        square = sum(jnp.vdot(g, g) for g in leaves)
        return value, gradient, jnp.sqrt(square)

    def step(params, _):
        value, gradient, norm = evaluate(params)
        moved = jax.tree.map(lambda w, g: (w - step_size * g).astype(w.dtype), params, gradient)
        return moved, (value, norm)

    params, (values, norms) = jax.lax.scan(step, params, length=num_steps)
    value, _, norm = evaluate(params)
    return DescentPath(params, jnp.append(values, value), jnp.append(norms, norm))
