"""Group lasso and sparse group lasso: the optimum of a reference, bounds, paths, statuses."""

import jax
import numpy as np
import pytest

from jaxclf import (
    lambda_max,
    load_dataset,
    losses,
    make_batch,
    make_objective,
    minimize,
    minimize_path,
    penalties,
)
from jaxclf.inference import information_criteria
from jaxclf.models import linear
from jaxclf.models.linear import LinearParams

OF_SIZES = [[0, 3, 5], [1, 2], [4, 6, 7, 8], [9], [10, 11, 12]]
EACH = [[j] for j in range(13)]


def wine():
    data = load_dataset("wine", dtype=np.float64)
    return (data.features - data.features.mean(0)) / data.features.std(0), data.labels


def objective_of(penalty, num_classes):
    loss = losses.categorical_nll if num_classes else losses.bernoulli_nll
    return make_objective(linear.logits, loss, penalty)


def zeros(d, num_classes, dtype=np.float64, *, intercept=True):
    outputs = (num_classes,) if num_classes else ()
    return LinearParams(
        np.zeros((*outputs, d), dtype), np.zeros(outputs, dtype) if intercept else None
    )


def reference(x, y, num_classes, groups, penalty, steps=3000):
    """The least objective that accelerated proximal gradient descent with restarts finds, float64
    NumPy, written from the formulas (Beck and Teboulle, SIAM J. Imaging Sci. 2 (2009))."""
    n, d = x.shape
    K = num_classes or 1
    target = np.eye(K)[y] if num_classes else y[:, None].astype(float)
    x1 = np.c_[x, np.ones(n)]
    lipschitz = (0.5 if num_classes else 0.25) * np.linalg.norm(x1, 2) ** 2 / n + penalty.l2
    strengths = penalty.l1.strength * np.asarray(penalty.l1.weights)

    def value(v):
        z, w = x1 @ v.T, v[:, :-1]
        if num_classes:
            risk = (np.logaddexp.reduce(z, 1) - (z * target).sum(1)).mean()
        else:
            risk = (np.logaddexp(0, z[:, 0]) - y * z[:, 0]).mean()
        norms = np.array([np.linalg.norm(w[:, group]) for group in groups])
        rest = penalty.l1.l1 * np.abs(w).sum() + penalty.l2 / 2 * (w**2).sum()
        return risk + strengths @ norms + rest

    def step(v):
        z = x1 @ v.T
        p = np.exp(z - np.logaddexp.reduce(z, 1)[:, None]) if num_classes else 1 / (1 + np.exp(-z))
        g = (p - target).T @ x1 / n
        g[:, :-1] += penalty.l2 * v[:, :-1]
        new = v - g / lipschitz
        w = new[:, :-1]
        w[:] = np.sign(w) * np.maximum(np.abs(w) - penalty.l1.l1 / lipschitz, 0)
        for group, strength in zip(groups, strengths, strict=True):
            norm = np.linalg.norm(w[:, group])
            w[:, group] *= max(0, 1 - strength / lipschitz / norm) if norm > 0 else 0
        return new

    v = ahead = np.zeros((K, d + 1))
    momentum = 1.0
    for _ in range(steps):
        new = step(ahead)
        if ((ahead - new) * (new - v)).sum() > 0:
            momentum = 1.0
        later = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / later * (new - v)
        v, momentum = new, later
    return value(v)


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("groups", [EACH, OF_SIZES])
@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.02, 0.0), (0.02, 0.01)])
def test_the_optimum_is_that_of_the_reference(num_classes, groups, l1, l2, x64):
    x, y = wine()
    y = y if num_classes else (y == 1).astype(int)
    penalty = penalties.group_lasso(0.02, groups, l1=l1, l2=l2)
    objective, batch = objective_of(penalty, num_classes), make_batch(x, y)
    result = minimize(objective, zeros(13, num_classes), batch, tol=1e-8)
    assert result.status == "converged"
    assert abs(result.value - reference(x, y, num_classes, groups, penalty)) < 1e-8
    assert float(objective(result.params, batch)) == pytest.approx(result.value, abs=1e-13)
    w = np.atleast_2d(result.params.weights)
    norms = np.array([np.linalg.norm(w[:, group]) for group in groups])
    assert (norms > 0).any()
    if groups is EACH:
        assert (norms == 0).any()
    if l1 and groups is OF_SIZES:
        assert any((w[:, group] == 0).any() and w[:, group].any() for group in groups)


@pytest.mark.parametrize("seed", range(12))
def test_the_gap_never_exceeds_the_bound(seed, x64):
    """At points on the way, in float32 too, with columns far from zero and of several scales."""
    rng = np.random.default_rng(seed)
    n, d, num_classes = 40, 8, [None, 3][seed % 2]  # one shape, so that few programs are compiled
    x = rng.normal(size=(n, d)) * 10 ** rng.uniform(-1, 1, d) + (seed % 3 == 0) * 50
    y = rng.integers(0, num_classes or 2, n)
    y[: num_classes or 2] = np.arange(num_classes or 2)
    order, cuts = rng.permutation(d), [[1, 4], [3, 4], [2, 6]][seed % 3]
    groups = [group.tolist() for group in np.split(order, cuts)]
    l1, l2 = 0.02 * (seed % 4 == 1), 0.05 * (seed % 4 == 2)
    penalty = penalties.group_lasso(10 ** rng.uniform(-3, -1), groups, l1=l1, l2=l2)
    objective, intercept = objective_of(penalty, num_classes), seed % 5 != 4
    dtype = [np.float64, np.float32][seed // 2 % 2]
    batch = make_batch(x.astype(dtype), y, rng.uniform(0.5, 2, n))
    exact = zeros(d, num_classes, intercept=intercept)
    best = minimize(objective, exact, batch, tol=1e-12)
    floor = best.value - best.gap_bound
    bounds = []
    for steps in (1, 2, 4, 60):
        start = zeros(d, num_classes, dtype, intercept=intercept)
        result = minimize(objective, start, batch, tol=1e-9, max_steps=steps)
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), result.params)
        value = float(objective(wide, batch._replace(features=batch.features.astype(float))))
        assert abs(value - result.value) < 1e-12 * max(1, value)
        assert value - best.value <= result.gap_bound
        assert value - result.gap_bound <= best.value
        assert floor <= best.value
        bounds.append(result.gap_bound)
    if seed % 3:  # columns far from zero take more steps
        assert bounds[-1] < 1e-6 + 0.1 * bounds[0]


ADELIE = {0.1: 0.5837744308430433, 0.03: 0.28225699993499365, 0.003: 0.058913971659446465}
"""λ and the objective at the optimum of adelie 1.1.52, ``grpnet`` with ``glm.multinomial``,
tolerances of 1e-14 and penalties of one. Its mean loss is over the classes too, so that it was
given λ / 3."""
ADELIE_BINARY = {0.1: 0.5065300936396802, 0.03: 0.2880509171009145, 0.003: 0.07621708894179641}
"""The same of ``glm.binomial`` for the second class, with groups of neighbours and its weights."""
NEIGHBOURS = [[0, 1, 2], [3, 4], [5, 6, 7, 8], [9], [10, 11, 12]]


@pytest.mark.parametrize(
    ("num_classes", "groups", "known"), [(3, EACH, ADELIE), (None, NEIGHBOURS, ADELIE_BINARY)]
)
def test_the_optimum_is_that_of_adelie(num_classes, groups, known, x64):
    x, y = wine()
    batch = make_batch(x, y if num_classes else y == 1)
    strengths = [penalties.group_lasso(strength, groups) for strength in known]
    objective = objective_of(None, num_classes)
    path = minimize_path(objective, zeros(13, num_classes), batch, strengths, tol=1e-7)
    for result, theirs in zip(path, known.values(), strict=True):
        assert abs(result.value - theirs) < 1e-7


def test_groups_of_one_feature_with_one_logit_are_the_lasso(x64):
    x, y = wine()
    batch = make_batch(x, y == 1)
    lasso = minimize(objective_of(penalties.l1(0.03), None), zeros(13, None), batch, tol=1e-11)
    groups = penalties.group_lasso(0.03, EACH)
    found = minimize(objective_of(groups, None), zeros(13, None), batch, tol=1e-11)
    np.testing.assert_allclose(found.params.weights, lasso.params.weights, atol=1e-7)
    both = penalties.group_lasso(0.01, EACH, l1=0.02)
    found = minimize(objective_of(both, None), zeros(13, None), batch, tol=1e-11)
    np.testing.assert_allclose(found.params.weights, lasso.params.weights, atol=1e-7)


@pytest.mark.parametrize("l1", [0.0, 1.0])
def test_lambda_max_of_groups(l1, x64):
    x, y = wine()
    offset = np.sin(np.arange(3 * len(y))).reshape(-1, 3)
    batch, params = make_batch(x, y, offset=offset), zeros(13, 3)
    objective = objective_of(penalties.group_lasso(2.0, OF_SIZES, l1=l1), 3)
    largest = lambda_max(objective, params, batch)
    for factor, found in ((1 + 1e-6, 0), (1 - 1e-3, 1)):
        penalty = penalties.with_strength(objective.penalty, factor * largest)
        result = minimize(objective_of(penalty, 3), params, batch, tol=1e-12)
        assert np.asarray(result.params.weights).any() == found


def test_a_path_of_groups_in_float32_and_its_criteria():
    x, y = wine()
    batch, start = make_batch(x, y), zeros(13, 3, np.float32)
    objective = objective_of(penalties.group_lasso(1.0, EACH), 3)
    path = minimize_path(objective, start, batch, num=6, min_ratio=0.02, tol=1e-5)
    assert {result.status for result in path} == {"converged"}
    counts = [np.asarray(result.params.weights).any(0).sum() for result in path]
    assert counts[0] == 0
    assert counts[-1] > 8
    for result in path:  # a feature leaves all classes at once
        on = np.asarray(result.params.weights) != 0
        assert (on.any(0) == on.all(0)).all()
    found = information_criteria(objective, path, batch)
    assert found.degrees_of_freedom[0] == pytest.approx(2)
    assert (np.diff(found.degrees_of_freedom) > 0).all()
    assert found.degrees_of_freedom[-1] < 3 * counts[-1] + 2


def test_a_loss_without_curvature_is_damped(x64):
    """A squared hinge is flat where every margin is above one."""
    batch = make_batch(np.array([[1.0, 0.5], [-1.0, -0.5]]), np.array([1, -1]))
    objective = make_objective(
        linear.logits, losses.squared_hinge, penalties.group_lasso(10.0, [[0, 1]])
    )
    result = minimize(objective, LinearParams(np.array([5.0, 5.0]), None), batch)
    assert result.status == "converged"
    assert not np.asarray(result.params.weights).any()
