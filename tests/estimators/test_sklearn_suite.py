"""scikit-learn's own tests of logistic regression, with our classes in the place of its own.

What is excluded is listed here, each with its reason; docs/scikit-learn.md shows the list.
"""

import importlib.util
import os
from pathlib import Path
from unittest import mock

import pytest
import sklearn
from sklearn import linear_model

from jaxclf import LogisticRegression, LogisticRegressionCV

_CALLBACKS = (
    "Callbacks are an experiment of scikit-learn 1.9, which its other solvers do not have either; "
    "`set_callbacks` warns that they are not called."
)
_PRIVATE = "It calls a private function of scikit-learn, and no estimator."
EXCLUDED = {
    "test_logistic_regression_path_convergence_fail": _PRIVATE,
    "test_logistic_regression_path_coefs_multinomial": _PRIVATE,
    "test_logistic_regression_path_init_coefs": _PRIVATE,
    "test_logistic_cv_multinomial_score": "It gives all parameters of the estimator to a private "
    "function of scikit-learn, which does not know `dtype` and `device`.",
    "test_logistic_regression_callback_support": _CALLBACKS,
    "test_logistic_regression_callback_fitted_estimator": _CALLBACKS,
    "test_liblinear_dual_random_state": "It wants fits with two seeds of liblinear to differ; ours "
    "find the same optimum.",
    "test_warm_start_newton_solver[newton-cg]": "It wants two steps to be one step twice; our "
    "truncated Newton steps go on from what the last step has learnt.",
    "test_newton_cholesky_fallback_to_lbfgs": "It wants the steps of L-BFGS where a Hessian is "
    "singular; our Newton steps go on without it.",
    "test_large_sparse_matrix[liblinear]": "It wants 64-bit indices refused; ours are accepted.",
    "test_large_sparse_matrix[sag]": "It wants 64-bit indices refused; ours are accepted.",
    "test_scores_attribute_layout_elasticnet": "It compares fits at `tol=1e-3` to 1e-3 of their "
    "score. There `tol` bounds a change of the weights, here the gradient.",
}
"""The tests that are left out, by name, or by name and a part of the parameters."""
_LIBRARIES = [
    ("numpy", None, None),
    ("jax.numpy", None, "float32"),
    ("array_api_strict", "CPU_DEVICE", "float64"),
    ("torch", "cpu", "float64"),
]
ARRAYS = _LIBRARIES if os.environ.get("SCIPY_ARRAY_API") else []
"""The libraries whose arrays are given with dispatch, which SciPy allows by this variable."""
_DOCS = Path(__file__).parents[2] / "docs" / "scikit-learn.md"


def _tests_of_ours():
    spec = importlib.util.find_spec("sklearn.linear_model.tests.test_logistic")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    ours = {"LogisticRegression": LogisticRegression, "LogisticRegressionCV": LogisticRegressionCV}
    arrays = mock.Mock(return_value=ARRAYS)
    with (
        mock.patch.multiple(linear_model, **ours),
        mock.patch("sklearn.utils._array_api.yield_namespace_device_dtype_combinations", arrays),
    ):
        spec.loader.exec_module(module)
    return {name: x for name, x in vars(module).items() if name.startswith("test_")}


# The suite is that of one version: others have other warnings.
if sklearn.__version__.startswith("1.9."):
    globals().update(_tests_of_ours())
# Warnings are errors only where a test of theirs says so.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def global_random_seed():
    """The seed that scikit-learn's tests have unless another is asked for."""
    return 42


@pytest.fixture(autouse=True)
def _left_out(request):
    name, _, parameters = request.node.name.partition("[")
    for excluded, reason in EXCLUDED.items():
        of, _, part = excluded.partition("[")
        if of == name and part.rstrip("]") in parameters:
            pytest.skip(reason)


def test_the_documentation_lists_what_is_left_out():
    text = _DOCS.read_text()
    for name, reason in EXCLUDED.items():
        assert f"| `{name}` | {reason} |" in text
    assert text.count("\n| `test_") == len(EXCLUDED)
