"""Arithmetic of several dtypes also where a user has made JAX strict about it.

``jax_numpy_dtype_promotion="strict"`` is for the arithmetic of the user's own program. The solvers
and training loops mix float32 and float64 on purpose, so they run under JAX's standard rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

P = ParamSpec("P")
T = TypeVar("T")


def standard_promotion(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which runs under JAX's standard rules of promotion."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if jax.config.jax_numpy_dtype_promotion == "standard":
            return function(*args, **kwargs)
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return run


@standard_promotion
def wider(a, b) -> np.dtype:
    """The narrowest dtype that holds both, by JAX's standard rules."""
    return jnp.promote_types(a, b)
