"""A small problem that the tests of training share."""

import jax
import numpy as np
import optax

from jaxclf import losses, make_batch, make_objective, penalties
from jaxclf.data import synthetic
from jaxclf.models import linear

_data = synthetic.gaussian_classes(0, 100, 4, 3, separation=2.0)
TRAIN = make_batch(_data.features[:72], _data.labels[:72], num_classes=3)
VALIDATION = make_batch(_data.features[72:], _data.labels[72:], num_classes=3)
OBJECTIVE = make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.01))
START = jax.tree.map(np.asarray, linear.init(jax.random.key(1), 4, 3))


def options(**changes):
    """Arguments of `fit`, five steps an epoch."""
    defaults = {
        "optimizer": optax.sgd(0.1),
        "batch_size": 16,
        "epochs": 1,
        "key": jax.random.key(0),
    }
    return defaults | changes
