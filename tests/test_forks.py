"""Workers that are forked after JAX has started say so; other workers work."""

import os
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
LogisticRegression().fit(X, y)
grid = {"C": [0.1, 1.0]}
search = GridSearchCV(LogisticRegression(), grid, cv=2, n_jobs=2, error_score="raise")
with parallel_backend("loky"):
    search.fit(X, y)
print("best", search.best_params_)
"""


FORK = """
import os
import warnings
import numpy as np
from jaxclf import LogisticRegression

warnings.simplefilter("ignore")
X = np.random.default_rng(0).normal(size=(60, 3))
y = np.arange(60) % 2
{first}
if (child := os.fork()) == 0:
    try:
        LogisticRegression().fit(X, y)
    except RuntimeError as error:
        os.write(1, str(error).encode())
    os._exit(0)
os.waitpid(child, 0)
"""


def run(script):
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="other systems do not fork")
@pytest.mark.parametrize(
    "first", ["LogisticRegression().fit(X, y)", "import jax; jax.numpy.zeros(3)"]
)
def test_a_fit_in_a_fork_says_why_it_would_wait(first):
    assert "forked after JAX had started" in run(FORK.format(first=first))


def test_a_search_with_workers_of_loky_works():
    assert "best" in run(SCRIPT)
