"""Steps of proximal Newton by SciPy: the numbers of the compiled steps."""

import jax
import numpy as np
import pytest
import scipy.sparse as sp

from jaxclf import losses, make_batch, make_objective, minimize, penalties
from jaxclf.linear_algebra.coordinate_descent import minimum
from jaxclf.linear_algebra.problem import Affine, Offset, Rows, with_offset
from jaxclf.models.linear import LinearParams, logits
from jaxclf.solvers import proximal_newton as pn
from jaxclf.solvers import solve_linear, sparse_on_host
from jaxclf.solvers.inputs import of_logits
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.sparse_rows import read_sparse
from tests.solvers.test_sparse import text_like

D = 60


def oracle_of(l2, *, offset=False):
    x, labels = text_like(num_classes=2)
    weights = np.random.default_rng(1).random(len(x))
    loss = of_logits(losses.bernoulli_nll, LinearParams(np.zeros(D), None))
    if offset:
        loss, labels = with_offset(loss), Offset(labels, np.sin(np.arange(len(x)))[:, None])
    return LinearOracle(loss, Rows(read_sparse("x", sp.csr_array(x)), labels, weights), l2)


@pytest.mark.parametrize("dense", [0.0, 1.0])
@pytest.mark.parametrize(
    ("intercept", "offset", "l1", "l2"),
    [
        (True, True, 0.003, 0.1),
        (False, False, np.linspace(0.001, 0.005, D)[None], np.linspace(0, 0.2, D)[None]),
    ],
)
def test_every_part_of_a_step_is_that_of_the_compiled_one(
    intercept, offset, l1, l2, dense, x64, monkeypatch
):
    monkeypatch.setattr(sparse_on_host, "_DENSE", dense)
    oracle, rng = oracle_of(l2, offset=offset), np.random.default_rng(2)
    w = rng.normal(size=(1, D)) * (rng.random((1, D)) < 0.3)
    v = Affine(w, np.array([0.2]) if intercept else None)
    found = []
    for make in (sparse_on_host.pieces_on_host, pn.on_device):
        run = make(oracle, l1, 0.0)
        point = run.start(v)
        slope = run.slope(point)
        quadratic, chosen = run.model(oracle, point, slope, 32)
        columns = np.ravel(chosen[0] if isinstance(chosen, tuple) else chosen)
        order = np.argsort(columns)
        order = np.append(order, 32) if intercept else order
        parts = quadratic.hessian[np.ix_(order, order)], *(x[order] for x in quadratic[1:])
        new, length, curvature = run.move(point, chosen, minimum(quadratic))
        ends = new.params, new.value, length, curvature
        found.append((point.value, slope, np.sort(columns), parts, ends))
    for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)


def test_places_that_no_weight_wants_stay_empty(x64):
    oracle = oracle_of(0.0)
    run = sparse_on_host.pieces_on_host(oracle, 50.0, 0.0)
    point = run.start(Affine(np.zeros((1, D)), np.zeros(1)))
    slope = run.slope(point)
    assert 0 < slope.most_wanted < 16
    quadratic, (columns, _) = run.model(oracle, point, slope, 32)
    assert set(columns) == set(np.flatnonzero(slope.steepness))
    change = minimum(quadratic).change
    assert change[: len(columns)].any()
    assert not change[len(columns) : 32].any()
    strong = sparse_on_host.pieces_on_host(oracle, 1000.0, 0.0)
    quadratic, _ = strong.model(oracle, point, strong.slope(point), 32)
    assert not minimum(quadratic).change[:32].any()


def test_a_step_that_gains_too_little_is_halved(x64):
    oracle = oracle_of(0.1)
    run = sparse_on_host.pieces_on_host(oracle, 0.01, 0.0)
    point = run.start(Affine(np.zeros((1, D)), None))
    quadratic, chosen = run.model(oracle, point, run.slope(point), 32)
    solved = minimum(quadratic)
    new, length, _ = run.move(point, chosen, solved._replace(change=64 * solved.change))
    assert 0 < length < 1
    assert new.value < point.value


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_keep_their_dtype_and_one_certificate_is_enough(dtype, monkeypatch):
    x, labels = text_like(num_classes=2, dtype=dtype)
    count, certify = [], solve_linear.certify
    monkeypatch.setattr(
        solve_linear, "certify", lambda *args, **named: count.append(1) or certify(*args, **named)
    )
    objective = make_objective(logits, losses.bernoulli_nll, penalties.l1(0.01))
    with jax.enable_x64(dtype == np.float64):
        start = LinearParams(np.zeros(D, dtype), np.zeros((), dtype))
        result = minimize(objective, start, make_batch(sp.csr_array(x), labels), tol=1e-6)
    assert result.status == "converged"
    assert result.params.weights.dtype == result.params.intercept.dtype == dtype
    assert len(count) == 1
