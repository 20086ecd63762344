"""The bound beside coefficients without a penalty: never below the gap, and close to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_array

from jaxclf import Batch, losses, make_batch, make_objective, minimize, penalties
from jaxclf.bounded_l1 import BoundedL1
from jaxclf.certificates.duality import Known
from jaxclf.certificates.free_coefficients import free_bound, free_columns
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.models import linear
from jaxclf.penalties import Penalty

N, D = 60, 8
KINDS = {
    1: (lambda z, y: losses.bernoulli_nll(z[0], y), Known(
        "separable", 0.0, 0.0, convex=True, self_concordance=1.0)),
    3: (losses.categorical_nll, Known(
        "softmax", 0.0, 0.0, convex=True, ignores_shifts=True, self_concordance=2.0)),
}  # fmt: skip
STRENGTHS = {
    "L1": (0.05, 0.0),
    "L2": (0.0, 0.02),
    "elastic net": (0.02, 0.01),
    "bounds": (BoundedL1(0.0, -0.1, 0.2), 0.0),
}


def problem(num_logits, name, sided):
    rng = np.random.default_rng(num_logits)
    x = rng.normal(size=(N, D)) + 0.3
    y = np.argmax(x[:, :3] + rng.gumbel(size=(N, 3)), 1)
    y = y if num_logits == 3 else (y > 0).astype(int)
    weights = rng.random(N) * (rng.random(N) < 0.9)
    l1, l2 = STRENGTHS[name]
    part = l1 if isinstance(l1, BoundedL1) else BoundedL1(l1)
    shape, free = (num_logits, D), np.arange(D) < 2
    l1, lower, upper = (np.array(np.broadcast_to(end, shape)) for end in part)
    l1[:, free], lower[:, free], upper[:, free] = 0, 0.1 if sided else -np.inf, np.inf
    l2 = np.where(free, 0, l2) * np.ones(shape)
    rows = Rows(x, y, weights / weights.sum())
    return rows, Penalty(BoundedL1(l1, lower, upper), l2)


def optimum(num_logits, rows, penalty):
    """Proximal gradients in float64: the parameters, and the least value."""
    loss, _ = KINDS[num_logits]
    l1, l2 = penalty

    def risk(v):
        z = rows.features @ v.weights.T + v.intercept[None]
        return rows.weights @ lp.losses(loss, z, rows.labels)

    step = 1 / 3
    start = np.array(np.broadcast_to(np.clip(0.0, l1.lower, l1.upper), (num_logits, D)))
    v = Affine(start, np.zeros(num_logits))

    def moved(_, state):
        v, ahead, t = state
        g, shrunk = jax.grad(risk)(ahead), 1 + step * l2
        w = l1.proximal_map((ahead.weights - step * g.weights) / shrunk, step / shrunk)
        new = Affine(w, ahead.intercept - step * g.intercept)
        t = jnp.where(jnp.sum((ahead.weights - w) * (w - v.weights)) > 0, 1.0, t)
        later = (1 + (1 + 4 * t * t) ** 0.5) / 2
        return new, jax.tree.map(lambda a, b: a + (t - 1) / later * (a - b), new, v), later

    v, *_ = jax.jit(lambda v: jax.lax.fori_loop(0, 4000, moved, (v, v, 1.0)))(v)
    return v, lambda v: float(risk(v) + lp.penalty_terms(v.weights, l1, l2).sum())


@pytest.mark.parametrize("sided", [False, True])
@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("num_logits", KINDS)
def test_the_bound_is_never_below_the_gap(num_logits, name, sided, x64):
    (loss, known), (rows, penalty) = KINDS[num_logits], problem(num_logits, name, sided)
    v, value = optimum(num_logits, rows, penalty)
    columns = free_columns(known, penalty, N, (num_logits, D))
    np.testing.assert_array_equal(columns, [0, 1])
    assert free_bound(loss, known, penalty, v, rows, columns) < 1e-9
    rng, found = np.random.default_rng(0), []
    for size in 10.0 ** np.arange(-7, 1):
        for only_free in (False, True):
            d = size * rng.normal(size=(num_logits, D)) * (v.weights != 0)
            w = v.weights + d * ((np.arange(D) < 2)[None] if only_free else 1)
            w = np.clip(w, penalty.l1.lower, penalty.l1.upper)
            moved = Affine(w, v.intercept + size * rng.normal(size=num_logits))
            gap = value(moved) - value(v)
            bound = free_bound(loss, known, penalty, moved, rows, columns)
            assert gap <= bound + 1e-15
            found.append(bound)
    assert np.isfinite(found).sum() >= 8
    assert max(found) == np.inf


@pytest.mark.parametrize(
    ("kind", "num_classes", "sparse"), [("L1", 2, True), ("L2", 2, False), ("L1", 3, False)]
)
def test_many_other_coefficients_cost_nothing(kind, num_classes, sparse):
    """With more features than rows, of which two are free, no Hessian of all has a bound."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 700)) * (rng.random((80, 700)) < 0.3)
    y = np.argmax(x[:, :num_classes] + rng.gumbel(size=(80, num_classes)), 1)
    factors = np.where(np.arange(700) < 2, 0.0, 1.0)
    penalty = {"L1": penalties.l1, "L2": penalties.l2}[kind](0.1, factors=factors)
    outputs, loss = ((), losses.bernoulli_nll)
    if num_classes == 3:
        outputs, loss = (3,), losses.categorical_nll
    objective = make_objective(linear.logits, loss, penalty)
    with jax.enable_x64(True):
        batch = make_batch(csr_array(x) if sparse else x, y)
        start = linear.LinearParams(np.zeros((*outputs, 700)), np.zeros(outputs))
        found = minimize(objective, start, batch, tol=1e-9)
        closer = minimize(objective, found.params, batch, tol=1e-13)
    assert found.status == "converged"
    assert found.value - closer.value <= found.gap_bound <= 1e-9
    assert (np.asarray(found.params.weights)[..., :2] != 0).all()


def test_where_there_is_no_such_bound_there_are_no_columns():
    penalty, known = Penalty(np.array([[1.0, 0.0]]), 0.0), KINDS[1][1]
    np.testing.assert_array_equal(free_columns(known, penalty, 10, (1, 2)), [1])
    for other in (known._replace(convex=False), known._replace(self_concordance=None),
                  known._replace(structure="mixed")):  # fmt: skip
        assert not len(free_columns(other, penalty, 10, (1, 2)))
    assert not len(free_columns(known, penalty, 2**34, (1, 2)))
    assert not len(free_columns(known, Penalty(), 10, (1, 2048)))
    assert len(free_columns(known, Penalty(), 10, (1, 2047))) == 2047
    held = Penalty(BoundedL1(0.0, -1.0, 1.0), 0.0)
    assert not len(free_columns(known, held, 10, (1, 2)))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    batch = Batch(x, np.where(x[:, 0] + rng.normal(size=50) > 0, 1, -1))
    start = linear.LinearParams(np.zeros(3), np.zeros(()))
    penalty = penalties.l2(0.1, factors=np.array([0.0, 1, 1]))
    found = minimize(make_objective(linear.logits, losses.squared_hinge, penalty), start, batch)
    assert found.status == "stationary"
    assert found.gap_bound > 0.1  # it comes from the least value of the loss
