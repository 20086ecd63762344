"""Offsets: every solver adds them to the logits, and reaches the optimum that SciPy finds."""

import jax
import numpy as np
import pytest
from scipy.sparse import csr_array

from jaxclf import Batch, losses, make_batch, make_objective, minimize, penalties, solve
from jaxclf.models import linear
from tests.solvers.references import least

L2 = 0.02
SMOOTH = ("newton_cg", "newton_cholesky", "lbfgs")


def data(num_logits, num_rows=90, num_features=5):
    """Rows with an offset that decides as much as the features do."""
    rng = np.random.default_rng(num_logits)
    outputs = () if num_logits == 1 else (num_logits,)
    x = rng.normal(size=(num_rows, num_features)) + 1
    offset = 2 * rng.normal(size=(num_rows, *outputs))
    z = x @ rng.normal(size=(num_features, *outputs)) + offset
    noise = rng.gumbel(size=(num_rows, max(num_logits, 2)))
    both = np.stack([np.zeros_like(z), z], 1) if num_logits == 1 else z
    return Batch(x, (both + noise).argmax(1), rng.uniform(0.2, 2, num_rows), offset)


def objective(num_logits, penalty):
    loss = losses.bernoulli_nll if num_logits == 1 else losses.categorical_nll
    return make_objective(linear.logits, loss, penalty)


def start(batch, num_logits):
    outputs = () if num_logits == 1 else (num_logits,)
    return linear.LinearParams(np.zeros((*outputs, batch.features.shape[1])), np.zeros(outputs))


def fitted(num_logits, batch, penalty, **options):
    with jax.enable_x64(True):
        begin = start(batch, num_logits)
        return minimize(objective(num_logits, penalty), begin, batch, tol=1e-11, **options)


@pytest.mark.parametrize("num_logits", [1, 3])
@pytest.mark.parametrize("solver", [*SMOOTH, "stream", "mesh", "rows"])
def test_every_solver_reaches_the_optimum(num_logits, solver):
    batch = data(num_logits) if solver != "rows" else data(num_logits, 70, 1200)
    options = {
        "stream": {"stream": True},
        "mesh": {"devices": 1},
        "rows": {"solver": "newton_cg"},
    }.get(solver, {"solver": solver})
    found = fitted(num_logits, batch, penalties.l2(L2), **options)
    if solver == "rows":
        assert "coordinates of the rows" in found.solver
    assert found.status == "converged"
    assert found.value == pytest.approx(least(num_logits, batch, L2), abs=1e-8)


def test_sparse_features_take_an_offset():
    batch = data(3)
    x = np.where(np.abs(batch.features) > 1, batch.features, 0)
    with jax.enable_x64(True):
        rows = make_batch(csr_array(x), batch.labels, batch.weights, offset=batch.offset)
    found = fitted(3, rows, penalties.l2(L2))
    assert found.status == "converged"
    assert found.value == pytest.approx(least(3, batch._replace(features=x), L2), abs=1e-8)


@pytest.mark.parametrize("num_logits", [1, 3])
def test_l1_reaches_the_optimum(num_logits):
    batch = data(num_logits)
    found = fitted(num_logits, batch, penalties.elastic_net(l1=0.02, l2=L2))
    assert found.status == "converged"
    assert found.value == pytest.approx(least(num_logits, batch, L2, 0.02), abs=1e-8)


@pytest.mark.parametrize("num_logits", [1, 3])
def test_without_a_penalty_the_bound_comes_from_the_hessian(num_logits):
    batch = data(num_logits)
    found = fitted(num_logits, batch, None)
    assert found.status == "converged"
    assert found.value == pytest.approx(least(num_logits, batch, 0.0), abs=1e-7)


def test_float32_and_an_offset_of_another_dtype():
    batch = data(3)
    narrow = Batch(*(np.asarray(x, np.float32) for x in batch))
    narrow = narrow._replace(labels=batch.labels, offset=batch.offset)
    begin = jax.tree.map(np.float32, start(batch, 3))
    found = minimize(objective(3, penalties.l2(L2)), begin, narrow, tol=1e-6)
    assert found.status == "converged"
    assert found.value == pytest.approx(least(3, batch, L2), abs=1e-6)


def test_an_offset_is_a_feature_of_weight_one():
    """A fit beside the logits of another fit finds what is missing in them."""
    batch = data(1)._replace(offset=None)
    shrunk, exact = (
        np.asarray(fitted(1, batch, penalty).params.weights) for penalty in (penalties.l2(L2), None)
    )
    found = fitted(1, batch._replace(offset=batch.features @ shrunk), None)
    np.testing.assert_allclose(np.asarray(found.params.weights) + shrunk, exact, atol=1e-5)


@pytest.mark.parametrize("num_logits", [1, 3])
def test_solve_agrees_and_has_a_derivative_in_the_offset(num_logits):
    batch, penalty = data(num_logits), penalties.l2(L2)
    fun = objective(num_logits, penalty)
    with jax.enable_x64(True):
        begin = start(batch, num_logits)
        exact = fitted(num_logits, batch, penalty).params

        def first(offset):
            return solve(fun, begin, batch._replace(offset=offset)).weights.ravel()[0]

        found, slopes = jax.value_and_grad(first)(batch.offset)
        assert float(found) == pytest.approx(float(np.ravel(exact.weights)[0]), abs=1e-6)
        step = np.zeros_like(batch.offset)
        step.flat[4] = 1e-4
        change = float(first(batch.offset + step) - first(batch.offset - step)) / 2e-4
    assert float(np.ravel(slopes)[4]) == pytest.approx(change, rel=1e-4)


def test_an_offset_does_not_make_separated_classes_finite():
    x = np.linspace(-1, 1, 20)[:, None]
    batch = Batch(x, (x[:, 0] > 0).astype(int), None, 3 * np.sin(np.arange(20.0)))
    with jax.enable_x64(True):
        found = minimize(objective(1, None), start(batch, 1), batch)
    assert found.status == "no_finite_minimiser"


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (np.zeros(90), r"the offset must have shape \(90, 3\), a number for .*, got \(90,\)"),
        (np.zeros((90, 2)), r"the offset must have shape \(90, 3\), .*, got \(90, 2\)"),
        (np.zeros((80, 3)), r"offset \(80, 3\)"),
        (np.full((90, 3), np.inf), "offset must be finite, got .* in row 0"),
    ],
)
def test_an_offset_that_does_not_fit_is_refused(offset, message):
    batch = data(3)._replace(offset=offset)
    with pytest.raises(ValueError, match=message):
        fitted(3, batch, penalties.l2(L2))
