"""Any Flax NNX module as plain parameters and pure functions of one example.

``nnx.split`` happens once; what is trained is a nested dict, which plain ``jax.jit`` and ``vmap``
handle at a fraction of the cost per step of ``nnx.jit``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax


class FlaxModel(NamedTuple):
    """A module, taken apart."""

    params: dict
    """Nested dict of arrays. Leaves named ``bias`` are never penalised."""
    logits: Callable
    """``(params, features of one example) -> logits``, in evaluation mode without dropout."""
    stochastic_logits: Callable
    """``(params, (features, key)) -> logits``, in training mode: dropout is drawn from the key. It
    is made for ``fit`` with ``augment=transforms.with_key``."""


def flax_module(module) -> FlaxModel:
    """Parameters and pure functions of a Flax NNX module.

    Args:
      module: an ``nnx.Module`` whose ``__call__`` maps the features of one example to its logits;
        those of Flax do, with or without a batch axis. It is copied, not changed.

    Raises:
      TypeError: not an NNX module.
      ValueError: a module with other state than parameters and random keys, such as the running
        means of ``BatchNorm``: they make one example's logits depend on the others'.
    """
    from flax import nnx

    if not isinstance(module, nnx.Module):
        raise TypeError(f"expected a flax.nnx.Module, got {type(module).__name__}")

    def take_apart(mode: str):
        copy = nnx.clone(module)
        getattr(copy, mode)()
        return nnx.split(copy, nnx.Param, nnx.RngState, ...)

    graph, params, rngs, rest = take_apart("eval")
    training_graph, _, training_rngs, _ = take_apart("train")
    if leaves := nnx.to_flat_state(rest):
        path, variable = next(iter(leaves))
        raise ValueError(
            f"the module keeps {type(variable).__name__} state at {'.'.join(map(str, path))}, "
            "which a pure function of one example cannot; use LayerNorm or GroupNorm instead of "
            "BatchNorm"
        )

    def with_params(plain: dict):
        state = jax.tree.map(lambda x: x, params)
        nnx.replace_by_pure_dict(state, plain)
        return state

    def logits(plain: dict, features) -> jax.Array:
        return nnx.merge(graph, with_params(plain), rngs, copy=True)(features)

    def stochastic_logits(plain: dict, features_and_key) -> jax.Array:
        features, key = features_and_key
        drawn = _reseeded(training_rngs, key)
        return nnx.merge(training_graph, with_params(plain), drawn, copy=True)(features)

    return FlaxModel(nnx.to_pure_dict(params), logits, stochastic_logits)


def _reseeded(rngs, key):
    """The state with each of its random keys replaced by a new one, drawn from ``key``."""
    from flax import nnx

    flat = nnx.to_flat_state(rngs)
    fresh = []
    for i, (path, variable) in enumerate(flat):
        is_key = isinstance(variable, nnx.RngKey)
        fresh.append((path, variable.replace(jax.random.fold_in(key, i)) if is_key else variable))
    return nnx.from_flat_state(fresh)
