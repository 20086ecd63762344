"""Problems, starts and optima that tests of solvers share."""

import jax
import numpy as np

from jaxclf import load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.data import synthetic
from jaxclf.models import linear
from jaxclf.solvers.minimize import minimize

LAMBDA = 0.01
SMOOTH = ("newton_cg", "newton_cholesky", "lbfgs")


def problem(name, dtype=np.float64, l2=None):
    """Data as they are, unscaled; the objective of scikit-learn's C = 1; a start at zero."""
    data = load_dataset(name, dtype=dtype)
    binary = data.num_classes == 2
    loss = losses.bernoulli_nll if binary else losses.categorical_nll
    strength = 1 / len(data.labels) if l2 is None else l2
    objective = make_objective(linear.logits, loss, penalties.l2(strength))
    batch = make_batch(data.features, data.labels, num_classes=data.num_classes)
    return (
        objective,
        start(data.features.shape[1], None if binary else data.num_classes, dtype),
        batch,
    )


def start(num_features, num_outputs=None, dtype=np.float32, **options):
    return linear.init(
        jax.random.key(0), num_features, num_outputs, stddev=0, dtype=dtype, **options
    )


def small(dtype=np.float32, num_rows=80, num_features=5, num_classes=3):
    data = synthetic.gaussian_classes(1, num_rows, num_features, num_classes, dtype=dtype)
    return make_batch(data.features, data.labels, num_classes=num_classes)


SOFTMAX = make_objective(linear.logits, losses.categorical_nll, penalties.l2(LAMBDA))


def optimum(batch, params):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        features = np.asarray(batch.features, np.float64)
        return minimize(SOFTMAX, wide, batch._replace(features=features), tol=1e-14).value
