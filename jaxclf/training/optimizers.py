"""Optimizers of optax by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache

from jaxclf import checks


def optimizer_of(optimizer, learning_rate: float):
    """The optimizer of optax of a name, or the optimizer itself if one is given.

    An optimizer of a name is kept, so that a second run finds its compiled programs.
    """
    if not isinstance(optimizer, str):
        return optimizer
    checks.check_number("learning_rate", learning_rate, above=0)
    return _named_optimizer(optimizer, float(learning_rate))


@lru_cache(maxsize=64)
def _named_optimizer(name: str, learning_rate: float):
    return optimizer_factory(name)(learning_rate)


def optimizer_factory(name: str) -> Callable:
    """The function of optax that makes an optimizer of a name from its learning rate.

    Raises:
      ValueError: no such optimizer.
    """
    import optax

    factory = getattr(optax, str(name), None)
    if not callable(factory) or "learning_rate" not in inspect.signature(factory).parameters:
        raise ValueError(
            "optimizer must be one of optax that takes a learning_rate, such as 'sgd' or 'adam'; "
            f"got {name!r}"
        )
    return factory
