"""jaxclf fits, sweeps and explains linear, logistic and softmax classifiers in JAX.

Pure functions of one example; ``jax.vmap`` makes the batch:

- :mod:`jaxclf.activations`, :mod:`jaxclf.losses`, :mod:`jaxclf.penalties`: the mathematics;
  :mod:`jaxclf.facts`: what is known of a loss.
- :mod:`jaxclf.objectives`: mean loss plus penalty, the scalar that is minimised.
- :mod:`jaxclf.information`, :mod:`jaxclf.metrics`: entropy and its kin; how good a classifier is.
- :mod:`jaxclf.models`, :mod:`jaxclf.data`: what is fitted, and to what.
- :mod:`jaxclf.solvers`: the optimum of a convex problem over all rows, with a bound on the gap.
- :mod:`jaxclf.training`: minibatch training with any optax optimizer, checkpoints, logs.
- :mod:`jaxclf.scaling`: rows shared out over many devices and processes.
- :mod:`jaxclf.sweeps`: many configurations as lanes of few programs, and one chosen honestly.
- :mod:`jaxclf.estimators`: classifiers with scikit-learn's interface.
- :mod:`jaxclf.analysis`: gradient checks; proofs of convexity; curvature and landscapes.
"""

from importlib import import_module

from jaxclf.data import load_dataset as load_dataset
from jaxclf.data import one_hot as one_hot
from jaxclf.facts import state_facts as state_facts
from jaxclf.model_file import load_model as load_model
from jaxclf.model_file import save_model as save_model
from jaxclf.objectives import Batch as Batch
from jaxclf.objectives import make_batch as make_batch
from jaxclf.objectives import make_objective as make_objective
from jaxclf.solvers.minimize import minimize as minimize
from jaxclf.solvers.path import minimize_path as minimize_path
from jaxclf.training import fit as fit

__version__ = "0.1.0"

_LATER = {
    "LinearSVC": "jaxclf.estimators",
    "LogisticRegression": "jaxclf.estimators",
    "LogisticRegressionCV": "jaxclf.estimators",
    "MinibatchClassifier": "jaxclf.estimators",
    "OneVsRestLogisticRegression": "jaxclf.estimators",
    "RidgeClassifier": "jaxclf.estimators",
    "assert_gradients": "jaxclf.analysis.gradcheck",
    "certify_convexity": "jaxclf.analysis.certify",
    "check_gradients": "jaxclf.analysis.gradcheck",
    "sweep": "jaxclf.sweeps",
}
"""Imported when first asked for: scikit-learn takes as long to import as all the rest, and checks
and sweeps a third of what is ours."""


def __getattr__(name: str):
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
