"""A large problem in float64 has its Newton systems solved in float32."""

import numpy as np
import pytest

from jaxclf import losses, make_batch, make_objective, minimize, penalties
from jaxclf.data import synthetic
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.models import linear
from jaxclf.solvers import linear_oracle
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.solvers.newton_cg import newton_cg
from jaxclf.solvers.result import Stop
from tests.solvers.problems import start

ROWS, FEATURES, CLASSES = 900, 100, 3


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(linear_oracle, "_FEWEST_TO_NARROW", 0)


def solved(data, l2):
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(l2))
    batch = make_batch(data.features, data.labels, num_classes=CLASSES)
    begin = start(FEATURES, CLASSES, np.float64)
    return minimize(objective, begin, batch, tol=1e-12, solver="newton_cg")


@pytest.mark.parametrize("l2", [1e-1, 1e-5])
def test_the_optimum_is_that_of_float64(l2, x64, monkeypatch):
    data = synthetic.gaussian_classes(0, ROWS, FEATURES, CLASSES, dtype=np.float64)
    wide = solved(data, l2)
    monkeypatch.setattr(linear_oracle, "_FEWEST_TO_NARROW", 0)
    found = solved(data, l2)
    assert found.status == wide.status == "converged"
    assert found.gap_bound <= 1e-12
    assert found.value == pytest.approx(wide.value, abs=2e-12)
    assert found.params.weights.dtype == np.float64


def oracle(scale):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 4)), rng.integers(0, CLASSES, 60)
    weights = np.full(60, 1 / 60)
    return LinearOracle(
        losses.categorical_nll, Rows(scale * features, labels, weights), 0.1 * scale**2
    )


@pytest.mark.parametrize("scale", [1.0, 1e25])
def test_where_float32_has_no_room_the_curvature_is_in_float64(scale, x64, narrow):
    """Squares of 1e25 are infinite in float32."""
    begin = Affine(np.zeros((CLASSES, 4)), np.zeros(CLASSES))
    assert oracle(scale).is_narrow(begin)
    assert not oracle(scale).exact().is_narrow(begin)
    stop = Stop(1e-10, 0.0, 100, lambda step, point: None)
    found = newton_cg(oracle(scale), begin, stop=stop, rng=np.random.default_rng(0))
    best = newton_cg(oracle(1.0).exact(), begin, stop=stop, rng=np.random.default_rng(0))
    assert found.status == "converged"
    assert len(found.trace) <= len(best.trace) + 2
    assert float(found.point.value) == pytest.approx(float(best.point.value), abs=1e-9)
