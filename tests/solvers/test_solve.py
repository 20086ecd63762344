"""The pure optimum, and its derivatives beside differences of certified refits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn.datasets import load_iris, load_wine

import jaxclf
from jaxclf import check_gradients, losses, make_objective, minimize, penalties
from jaxclf.models import linear
from jaxclf.objectives import Batch


def problem(K):
    x, y = load_wine(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0))[:, :4]
    if K == 2:
        return x[y < 2], 0.05 + 0.9 * y[y < 2], linear.LinearParams(np.zeros(4), np.zeros(()))
    targets = 0.9 * np.eye(3)[y] + 0.1 / 3
    return x, targets, linear.LinearParams(np.zeros((3, 4)), np.zeros(3))


LOSSES = {2: losses.bernoulli_nll, 3: losses.soft_categorical_nll}


def objective_of(K, penalty):
    return make_objective(linear.logits, LOSSES[K], penalty)


def polished(params, batch, l1, l2):
    """Steps of Newton's method in NumPy over the weights that are not zero.

    A certified refit may be off by 1e-8, which a difference of refits would show.
    """
    x, w = np.asarray(batch.features), np.atleast_2d(params.weights)
    K, d = w.shape
    D, shares = np.c_[x, np.ones(len(x))], batch.weights / batch.weights.sum()
    theta = np.c_[w, np.atleast_1d(params.intercept)]
    l1, l2 = (np.c_[np.broadcast_to(s, w.shape), np.zeros(K)] for s in (l1, l2))
    free, targets = (theta != 0).ravel(), np.reshape(batch.labels, (len(x), K))
    for _ in range(3):
        z = D @ theta.T + np.reshape(batch.offset, (len(x), K))
        if K == 1:
            p = special.expit(z)
            maps = (p * (1 - p))[:, :, None]
        else:
            p = special.softmax(z, 1)
            maps = p[:, :, None] * np.eye(K) - p[:, :, None] * p[:, None]
        g = ((p - targets) * shares[:, None]).T @ D + l2 * theta + l1 * np.sign(theta)
        H = np.einsum("nkj,nd,ne->kdje", maps * shares[:, None, None], D, D)
        H = H.reshape(theta.size, -1) + np.diag(l2.ravel())
        step = np.zeros(theta.size)
        step[free] = np.linalg.lstsq(H[np.ix_(free, free)], g.ravel()[free], rcond=1e-12)[0]
        theta = theta - step.reshape(theta.shape)
    shape = np.shape(params.weights)
    return linear.LinearParams(theta[:, :d].reshape(shape), theta[:, d].reshape(shape[:-1]))


PENALTIES = {"l2": {"l1": 0.0, "l2": 0.03}, "l1": {"l1": 0.05, "l2": 0.01}}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("what", ["strength", "factors", "weights", "features", "labels", "offset"])
def test_derivatives_are_those_of_certified_refits(what, K, penalty, x64):
    rng = np.random.default_rng(0)
    x, y, start = problem(K)
    given = {
        "strength": 1.0,
        "factors": rng.uniform(0.5, 2, start.weights.shape) * (np.arange(4) > 0),
        "weights": rng.uniform(0.5, 2, len(x)),
        "features": x,
        "labels": y,
        "offset": rng.normal(size=(len(x), *start.weights.shape[:-1])),
    }
    along = np.asarray(rng.normal(size=np.shape(given[what])))
    if what == "factors":
        along = along * (np.arange(4) > 0)  # the first column is free
    if what == "labels" and K == 3:
        along = along - along.mean(1, keepdims=True)
    cotangent = jax.tree.map(lambda x: np.asarray(rng.normal(size=np.shape(x))), start)

    def parts(t):
        moved = given | {what: given[what] + t * along}
        s = moved["strength"] * (moved["factors"] if what in ("factors", "offset") else 1.0)
        l1, l2 = PENALTIES[penalty].values()
        strengths = penalties.Penalty(s * l1 if l1 else 0.0, s * l2)
        batch = Batch(moved["features"], moved["labels"], moved["weights"], moved["offset"])
        return objective_of(K, strengths), batch

    def probe(params):
        centred = jax.tree.map(lambda c: c - c.mean(0, keepdims=True) if K == 3 else c, cotangent)
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(centred), strict=True)
        return sum(jnp.vdot(p, c) for p, c in pairs)

    def solved(t):
        objective, batch = parts(t)
        return probe(jaxclf.solve(objective, start, batch))

    def refitted(t):
        objective, batch = parts(t)
        result = minimize(objective, start, batch, tol=1e-15)
        assert result.gap_bound < 1e-12
        assert (penalty == "l1") == bool((result.params.weights == 0).any())
        strengths = objective.strengths
        return float(probe(polished(result.params, batch, strengths.l1, strengths.l2)))

    assert float(solved(0.0)) == pytest.approx(refitted(0.0), rel=1e-6)
    # Richardson's extrapolation of central differences.
    near, far = ((refitted(h) - refitted(-h)) / (2 * h) for h in (1e-3, 2e-3))
    differences = (4 * near - far) / 3
    slope, (_, tangent) = jax.grad(solved)(0.0), jax.jvp(solved, (0.0,), (1.0,))
    assert float(slope) == pytest.approx(float(tangent), rel=1e-9)
    assert float(slope) == pytest.approx(differences, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("l1", [0.0, 0.4])
def test_check_gradients_passes(l1, x64):
    """In strengths of features, weights, features, labels and an offset at once."""
    rng = np.random.default_rng(0)
    x, y, start = (part[::5] if isinstance(part, np.ndarray) else part for part in problem(2))
    given = (
        np.array([0.05, 0.1, 0.2, 0.1]),
        rng.uniform(0.5, 2, len(x)),
        x,
        y,
        rng.normal(size=len(x)),
    )

    def norm(strengths, weights, features, labels, offset):
        objective = objective_of(2, penalties.Penalty(l1 * strengths if l1 else 0.0, strengths))
        batch = Batch(features, labels, weights, offset)
        fitted = jaxclf.solve(objective, start, batch).weights
        return jnp.sum(fitted**2)

    report = check_gradients(norm, given, directions=2)
    assert report, report


def test_check_gradients_passes_twice(x64):
    x, y, start = problem(2)

    def norm(strengths, weights):
        def objective(params, batch):
            base = objective_of(2, None)(params, batch)
            return base + jnp.sum(strengths * params.weights**2) / 2

        return jnp.sum(jaxclf.solve(objective, start, Batch(x, y, weights)).weights ** 2)

    report = check_gradients(norm, (np.full(4, 0.1), np.ones(len(x))), order=2, directions=2)
    assert report, report


def test_a_map_over_weights_is_a_loop_of_fits(x64):
    rng = np.random.default_rng(0)
    x, y, start = problem(3)
    lanes = rng.uniform(0, 2, (4, len(x)))
    objective = objective_of(3, penalties.l2(0.01))
    solved = jax.jit(jax.vmap(lambda w: jaxclf.solve(objective, start, Batch(x, y, w))))(lanes)
    for i, w in enumerate(lanes):
        one = minimize(objective, start, Batch(x, y, w), tol=1e-14).params
        np.testing.assert_allclose(solved.weights[i], one.weights, atol=1e-6)


def test_without_a_penalty_a_softmax_has_a_direction_that_nothing_sees(x64):
    x, y, start = problem(3)
    objective = objective_of(3, None)
    solved = jaxclf.solve(objective, start, Batch(x, y))
    one = minimize(objective, start, Batch(x, y), tol=1e-14).params

    def centred(w):
        return np.asarray(w) - np.asarray(w).mean(0)

    np.testing.assert_allclose(centred(solved.weights), centred(one.weights), atol=1e-5)


def test_in_float32_it_is_close():
    x, y, start = problem(2)
    start = jax.tree.map(jnp.float32, start)
    batch = Batch(*(np.asarray(part, np.float32) for part in (x, y)))
    solved = jaxclf.solve(objective_of(2, penalties.l2(0.01)), start, batch)
    assert solved.weights.dtype == jnp.float32
    one = minimize(objective_of(2, penalties.l2(0.01)), start, batch).params
    np.testing.assert_allclose(solved.weights, one.weights, atol=1e-3)


BOXES = {
    2: (np.array([-0.2, 0.0, -np.inf, 0.3]), np.array([0.4, np.inf, 0.1, 0.3])),
    3: (np.zeros((3, 4)), np.where(np.arange(12).reshape(3, 4) % 2, 0.3, np.inf)),
}


@pytest.mark.parametrize("penalty", [{"l2": 0.03}, {"l1": 0.02, "l2": 0.01}], ids=["l2", "l1"])
@pytest.mark.parametrize("K", [2, 3])
def test_derivatives_within_bounds_are_those_of_certified_refits(K, penalty, x64):
    rng = np.random.default_rng(0)
    x, y, start = problem(K)
    along = np.asarray(rng.normal(size=x.shape))
    cotangent = np.asarray(rng.normal(size=start.weights.shape))
    lower, upper = BOXES[K]

    def parts(t):
        strengths = penalties.elastic_net(**{"l1": 0.0, **penalty})
        strengths = penalties.Penalty(*((1 + t) * strength for strength in strengths))
        return (
            objective_of(K, strengths),
            Batch(x + t * along, y),
            (lower, upper + t * (lower < upper)),
        )

    def solved(t):
        objective, batch, bounds = parts(t)
        return jnp.vdot(jaxclf.solve(objective, start, batch, bounds=bounds).weights, cotangent)

    def refitted(t):
        objective, batch, bounds = parts(t)
        result = minimize(objective, start, batch, bounds=bounds, tol=1e-15)
        assert result.gap_bound < 1e-12
        return np.asarray(result.params.weights)

    at_zero = jaxclf.solve(objective_of(K, parts(0.0)[0].penalty), start, parts(0.0)[1],
                           bounds=(lower, upper)).weights  # fmt: skip
    np.testing.assert_allclose(at_zero, refitted(0.0), atol=1e-7)
    assert (at_zero == lower).any()
    assert (at_zero == upper).any()
    assert ((at_zero >= lower) & (at_zero <= upper)).all()
    differences = np.vdot(refitted(1e-4) - refitted(-1e-4), cotangent) / 2e-4
    slope, (_, tangent) = jax.grad(solved)(0.0), jax.jvp(solved, (0.0,), (1.0,))
    assert float(slope) == pytest.approx(float(tangent), rel=1e-9)
    assert float(slope) == pytest.approx(differences, rel=1e-6, abs=1e-9)
    two = jax.vmap(solved)(jnp.array([0.0, 0.1]))
    assert float(two[1]) == pytest.approx(float(solved(0.1)), rel=1e-9)


def test_a_weight_that_is_zero_by_symmetry_has_its_derivative(x64):
    """L1 does not penalise the intercept, which moves also from where it is exactly zero."""
    x, start = np.array([[-1.0], [1.0]]), linear.LinearParams(np.zeros(1), np.zeros(()))

    def intercept(t):
        batch = Batch(x, jnp.full(2, 0.5) + t)
        return jaxclf.solve(objective_of(2, penalties.l1(0.1)), start, batch).intercept

    assert float(intercept(0.0)) == 0
    assert float(jax.grad(intercept)(0.0)) == pytest.approx(4, rel=1e-9)


def test_where_there_is_no_minimum_the_parameters_are_nan(x64):
    x, y = load_iris(return_X_y=True)
    start = linear.LinearParams(np.zeros(4), np.zeros(()))
    batch = Batch(x, (y == 0).astype(float))
    solved = jaxclf.solve(objective_of(2, None), start, batch, max_steps=20)
    assert np.isnan(solved.weights).all()


def test_what_is_refused():
    x, y, start = problem(2)
    with pytest.raises(TypeError, match="floating"):
        jaxclf.solve(objective_of(2, None), jax.tree.map(np.int32, start), Batch(x, y))
    many = linear.LinearParams(np.zeros((10, 784)), np.zeros(10))
    with pytest.raises(ValueError, match="at most 4096 parameters"):
        jaxclf.solve(objective_of(3, None), many, Batch(x, y))
    with pytest.raises(ValueError, match="max_steps"):
        jaxclf.solve(objective_of(2, None), start, Batch(x, y), max_steps=0)
    with pytest.raises(ValueError, match="bounds leave no number between"):
        jaxclf.solve(objective_of(2, None), start, Batch(x, y), bounds=(1.0, 0.0))
    with pytest.raises(TypeError, match="bounds need the logits"):
        jaxclf.solve(lambda w, batch: jnp.sum(w**2), np.zeros(2), Batch(x, y), bounds=(0.0, 1.0))
