"""Rows and starts that tests of sweeps share."""

import jax
import numpy as np

from jaxclf import (
    make_batch,
)
from jaxclf.data import synthetic
from jaxclf.models import linear


def data(num_classes=3, num_rows=90, dtype=np.float32):
    made = synthetic.gaussian_classes(0, num_rows, 4, num_classes, dtype=dtype)
    return make_batch(made.features, made.labels, num_classes=num_classes)


def wide_data():
    """Parameters enough for lanes in a batch."""
    made = synthetic.gaussian_classes(0, 200, 60, 5, dtype=np.float32)
    return make_batch(made.features, made.labels, num_classes=5)


def start(num_classes=3, dtype=np.float32):
    outputs = None if num_classes == 2 else num_classes
    return linear.init(jax.random.key(0), 4, outputs, stddev=0, dtype=dtype)
