"""The parts of a minibatch classifier, by name: losses, optimizers, models.

They are kept, so that a second fit with the same parameters finds its compiled programs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from jaxclf import checks, losses

LOSSES = {
    "log_loss": losses.categorical_nll,
    "hinge": losses.multiclass_hinge,
    "squared_error": losses.onehot_squared_error,
    "softmax_squared_error": losses.softmax_squared_error,
}


def loss_of(loss) -> Callable:
    """The loss of a name, or the loss itself if one is given."""
    if callable(loss):
        return loss
    checks.check_option("loss", loss, LOSSES)
    return LOSSES[loss]


def widths(hidden) -> tuple[int, ...]:
    """The widths of the hidden layers; one number is the width of one layer."""
    found = (hidden,) if np.ndim(hidden) == 0 else tuple(hidden)
    for width in found:
        checks.check_integer("hidden", width)
    return found


def mlp_params(num_features: int, num_classes: int, hidden: tuple, key) -> dict:
    """New parameters of a multilayer perceptron."""
    from flax import nnx

    from jaxclf.models.flax_module import flax_module
    from jaxclf.models.networks import MLP

    network = MLP(num_features, num_classes, hidden=hidden, rngs=nnx.Rngs(key))
    return flax_module(network).params


@lru_cache(maxsize=16)
def mlp_logits(num_features: int, num_classes: int, hidden: tuple) -> Callable:
    """``(params, features of one example) -> (K,)`` of a multilayer perceptron."""
    from flax import nnx

    from jaxclf.models.flax_module import flax_module
    from jaxclf.models.networks import MLP

    return flax_module(MLP(num_features, num_classes, hidden=hidden, rngs=nnx.Rngs(0))).logits


@lru_cache(maxsize=16)
def module_parts(module) -> tuple[Callable, dict]:
    """Logits and parameters of a Flax module."""
    from jaxclf.models.flax_module import flax_module

    model = flax_module(module)
    return model.logits, model.params
