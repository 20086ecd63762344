"""Compiled programs that are given back.

JAX keeps every program that it compiles. A program takes 50 to 150 maps of memory, of which Linux
gives a process 65530, so a process that fits some hundred shapes would crash. Functions that make
jitted programs are therefore cached by the shapes that the programs will see. The cache drops the
programs of the shape that was used longest ago, and JAX frees programs that nobody holds.

Programs are compiled as XLA does by default. Its CPU compiler would be three times as fast without
optimising and with its older emitter of loops (``xla_backend_optimization_level`` of 0 together
with ``xla_cpu_use_fusion_emitters`` off, in jax 0.10), but then some programs give wrong numbers:
an L1 fit of 100 classes got a bound of 0 where 1.9e-7 was left.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Any

import jax

MOST_KEPT = 48
"""The number of results of makers that are kept; each has one or a few programs. A fit of few
parameters needs one or two, a larger fit five. A fit of rows in chunks needs nineteen, many of them
small. With 64 a process that fits many shapes holds 14000 maps, with 96 it holds 19000."""


def shapes_of(*trees: Any) -> Hashable:
    """The structure, shapes, dtypes and devices of arguments, by which a program is compiled."""
    leaves, structure = jax.tree.flatten(trees)
    return structure, tuple(
        (x.shape, x.dtype, _place(x)) if hasattr(x, "shape") else type(x) for x in leaves
    )


def _place(x: Any) -> Hashable:
    """The sharding that an array is bound to; ``None`` for an argument that can go anywhere."""
    is_array = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
    return x.sharding if is_array and x.committed else None


def programs_by_shape(make: Callable) -> Callable:
    """Caches what ``make(*static)`` returns, jitted functions, for the shapes used most recently.

    The cached function takes ``like=``, a pytree of arguments to come. It is not given to ``make``:
    it says which of the cached programs to use.

    Args:
      make: a function of hashable arguments. A function among the arguments is compared by
        identity, so it must live as long as the program, and not be made for each call.
    """

    @wraps(make)
    def cached(*static: Any, like: Any = None) -> Any:
        return _made(make, shapes_of(like), static)

    return cached


@lru_cache(maxsize=MOST_KEPT)
def _made(make: Callable, shapes: Hashable, static: tuple) -> Any:
    return make(*static)


def give_back() -> None:
    """Drops all programs that are kept here."""
    _made.cache_clear()


def jit_by_shape(function: Callable, **options: Any) -> Callable:
    """A :func:`jax.jit` that keeps the programs of the latest shapes and gives back the others."""

    @programs_by_shape
    def make() -> Callable:
        # JAX keeps the programs of a function as long as the function, so each result has a
        # function of its own.
        return jax.jit(wraps(function)(lambda *args, **named: function(*args, **named)), **options)

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, named))):
            return function(*args, **named)  # a part of a larger program
        return make(like=(args, named))(*args, **named)

    return call
