"""How many programs are compiled, and that they are given back."""

import json
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxclf
from jaxclf import Batch, fit, losses, make_batch, make_objective, minimize, penalties, sweep
from jaxclf.calibration import fit_temperature
from jaxclf.models import linear
from jaxclf.programs import MOST_KEPT, programs_by_shape, shapes_of
from jaxclf.training import make_evaluation

FIRST_FITS = """
import json, sys
import jax
import numpy as np
from sklearn import datasets
from jaxclf import LogisticRegression

compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **facts: compiled.append(event) if "backend_compile" in event else None
)
counts = {}
for name in ("iris", "breast_cancer", "digits"):
    X, y = getattr(datasets, "load_" + name)(return_X_y=True)
    X = (X - X.mean(0)) / np.maximum(X.std(0), 1e-9)
    compiled.clear()
    LogisticRegression().fit(X, y).predict(X)
    counts[name] = len(compiled)
print(json.dumps(counts))
"""


def test_a_first_fit_compiles_few_programs():
    found = subprocess.run(
        [sys.executable, "-c", FIRST_FITS], capture_output=True, text=True, check=True
    )
    counts = json.loads(found.stdout)
    assert counts["iris"] == counts["breast_cancer"] == 1
    assert counts["digits"] <= 8


FEATURES = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
LABELS = np.arange(90, dtype=np.int32) % 3
SGD = optax.sgd(0.1)


def start():
    return linear.LinearParams(np.zeros((3, 4), np.float32), np.zeros(3, np.float32))


def objective(penalty=None, logits=linear.logits):
    return make_objective(logits, losses.categorical_nll, penalty or penalties.l2(1e-2))


def test_shapes_that_come_back_compile_nothing(compiled):
    """Rows that are held and rows in chunks: the programs of as many shapes are kept."""

    def solve_all():
        for num_rows in (70, 90):
            batch = Batch(FEATURES[:num_rows], LABELS[:num_rows])
            for stream in (False, True):
                minimize(objective(), start(), batch, solver="newton_cg", stream=stream)

    solve_all()
    compiled.clear()
    solve_all()
    assert compiled == []


def own_logits(params, x):
    return linear.logits(params, x)


def trained(strength):
    return fit(
        objective(penalties.l2(strength)), start(), make_batch(FEATURES, LABELS),
        optimizer=SGD, batch_size=30, epochs=1, key=jax.random.key(0),
    )  # fmt: skip


def estimator(name, **options):
    model = getattr(jaxclf, name)(**options)
    return model.fit(FEATURES, LABELS).predict(FEATURES)


CALLS = {
    **{
        solver: lambda solver=solver: minimize(
            objective(), start(), make_batch(FEATURES, LABELS), solver=solver
        )
        for solver in ("newton_cg", "newton_cholesky", "lbfgs")
    },
    "l1": lambda: minimize(objective(penalties.l1(1e-2)), start(), make_batch(FEATURES, LABELS)),
    "chunks": lambda: minimize(objective(), start(), Batch(FEATURES, LABELS), stream=True),
    "any objective": lambda: minimize(
        objective(logits=own_logits), start(), make_batch(FEATURES, LABELS)
    ),
    "fit": lambda: trained(1e-2),
    "temperature": lambda: fit_temperature(FEATURES[:, :3], LABELS),
    "sweep": lambda: sweep({"l2": [0.01, 0.1], "fold": [0, 1]}, make_batch(FEATURES, LABELS)),
    "minibatch sweep": lambda: sweep(
        {"learning_rate": [0.1, 0.2]}, make_batch(FEATURES, LABELS), method="minibatch",
        validation=0.2, epochs=1,
    ),
    "evaluation": lambda: make_evaluation(linear.logits, make_batch(FEATURES, LABELS))(start()),
    **{
        name: partial(estimator, name)
        for name in ("LogisticRegression", "RidgeClassifier", "OneVsRestLogisticRegression")
    },
    "LogisticRegressionCV": partial(
        estimator,
        "LogisticRegressionCV",
        Cs=2,
        cv=2,
        l1_ratios=(0,),
        scoring="accuracy",
        use_legacy_attributes=False,
    ),
    "MinibatchClassifier": partial(estimator, "MinibatchClassifier", epochs=1),
    "early stopping": partial(
        estimator, "MinibatchClassifier", epochs=2, early_stopping=True, random_state=0
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_what_was_compiled_once_is_not_compiled_again(name, compiled):
    """Objectives, models and batches are new objects each time; only a number may differ."""
    CALLS[name]()
    compiled.clear()
    CALLS[name]()
    assert compiled == []


def test_a_penalty_is_an_argument_of_training(compiled):
    trained(1e-2)
    compiled.clear()
    trained(1e-1)
    assert compiled == []


def test_shapes_are_what_a_program_depends_on():
    one = {"x": np.zeros((2, 3)), "y": None}
    narrow = np.zeros((2, 3), np.float32)
    assert shapes_of(narrow) == shapes_of(jnp.zeros((2, 3)))  # on the host or the device
    assert shapes_of(one) == shapes_of({"x": np.ones((2, 3)), "y": None})
    assert shapes_of(one) != shapes_of({"x": np.ones((2, 4)), "y": None})
    assert shapes_of(one) != shapes_of({"x": np.ones((2, 3), np.float32), "y": None})
    assert shapes_of(one) != shapes_of({"x": np.ones((2, 3)), "y": 1.0})


def test_programs_of_the_latest_shapes_are_kept():
    made = []

    @programs_by_shape
    def make(name):
        made.append(name)
        return object()

    first = make("a", like=np.zeros(1))
    assert make("a", like=np.ones(1)) is first
    assert make("b", like=np.zeros(1)) is not first
    for size in range(2, MOST_KEPT):
        make("a", like=np.zeros(size))
        assert make("a", like=np.zeros(1)) is first  # in use, so it stays
    for size in range(MOST_KEPT, 2 * MOST_KEPT + 1):
        make("a", like=np.zeros(size))
    assert make("a", like=np.zeros(1)) is not first


MANY_SHAPES = """
import gc
import jax.numpy as jnp
import numpy as np
from jaxclf.programs import MOST_KEPT, jit_by_shape

double = jit_by_shape(lambda x: jnp.cumsum(2 * x))
print(MOST_KEPT)
for size in range(1, 8 * MOST_KEPT + 1):
    double(np.ones(size, np.float32))
    if size == 1 or size % (2 * MOST_KEPT) == 0:
        gc.collect()  # a long-lived process gets there by itself
        print(len(open("/proc/self/maps").readlines()))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="counts maps as Linux has them")
def test_programs_are_given_back_with_their_memory():
    found = subprocess.run(
        [sys.executable, "-c", MANY_SHAPES], capture_output=True, text=True, check=True
    )
    kept, first, *later = map(int, found.stdout.split())
    assert later[0] - first > 2 * kept
    # Without it four times as many programs would hold four times as many maps.
    assert max(later) - later[0] < later[0] - first
