"""Workers that are forked after JAX has started say so; other workers work."""

import subprocess
import sys

import pytest

SCRIPT = """
import warnings
import numpy as np
from joblib import parallel_backend
from sklearn.model_selection import GridSearchCV
from jaxclf import LogisticRegression

warnings.simplefilter("ignore")
X = np.random.default_rng(0).normal(size=(60, 3))
y = np.arange(60) % 2
{first}
grid = {{"C": [0.1, 1.0]}}
search = GridSearchCV(LogisticRegression(), grid, cv=2, n_jobs=2, error_score="raise")
with parallel_backend("{backend}"):
    search.fit(X, y)
print("best", search.best_params_)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork")
@pytest.mark.parametrize(
    ("first", "backend", "told"),
    [
        ("LogisticRegression().fit(X, y)", "multiprocessing", "forked after JAX had started"),
        ("import jax; jax.numpy.zeros(3)", "multiprocessing", "forked after JAX had started"),
        ("LogisticRegression().fit(X, y)", "loky", "best"),
    ],
)
def test_a_search_with_workers(first, backend, told):
    command = [sys.executable, "-c", SCRIPT.format(first=first, backend=backend)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert told in done.stdout + done.stderr
    assert (done.returncode == 0) == (told == "best")
