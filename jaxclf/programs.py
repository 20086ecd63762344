"""Compiled programs that are given back.

JAX keeps every program that it compiles. One takes about 45 maps of memory, of which Linux gives a
process 65530, so a process that fits some hundred shapes would crash. Functions that make jitted
programs are therefore cached by the shapes that these will see; the programs of the shape that was
used longest ago are dropped, and JAX frees what nobody holds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Any

import jax

MOST_SHAPES = 16
"""Shapes whose programs one maker keeps: with some 25 programs for a shape, which is what a
multiclass fit with L1 and a sweep need together, that is 18000 maps at most."""


def shapes_of(*trees: Any) -> Hashable:
    """What a compiled program depends on in its arguments: structure, shapes, dtypes, devices."""
    leaves, structure = jax.tree.flatten(trees)
    return structure, tuple(
        (x.shape, x.dtype, getattr(x, "sharding", None)) if hasattr(x, "shape") else type(x)
        for x in leaves
    )


def programs_by_shape(make: Callable) -> Callable:
    """Caches what ``make(*static)`` returns, jitted functions, for the shapes used most recently.

    The cached function takes ``like=``, a pytree of arguments to come. It is not given to ``make``:
    it says which of the cached programs to use.

    Args:
      make: of hashable arguments. A function among them must be one that lives as long as the
        program, not one made for each call: it is compared by identity.
    """

    @lru_cache(maxsize=MOST_SHAPES)
    def made(shapes: Hashable, *static: Any) -> Any:
        return make(*static)

    @wraps(make)
    def cached(*static: Any, like: Any = None) -> Any:
        return made(shapes_of(like), *static)

    cached.cache_clear = made.cache_clear
    return cached
