"""Full-batch fits: exact optima, honest bounds, every status, every branch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxclf import Batch, load_dataset, losses, make_batch, make_objective, penalties
from jaxclf.data import synthetic, transforms
from jaxclf.models import linear
from jaxclf.programs import give_back
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers import preconditioner, solve_linear
from jaxclf.solvers.conjugate_gradients import gap_left
from jaxclf.solvers.minimize import minimize
from jaxclf.solvers.separation import make_separated

LAMBDA = 0.01
SMOOTH = ("newton_cg", "newton_cholesky", "lbfgs")


def problem(name, dtype=np.float64, l2=None):
    """Data as they are, unscaled; the objective of scikit-learn's C = 1; a start at zero."""
    data = load_dataset(name, dtype=dtype)
    binary = data.num_classes == 2
    loss = losses.bernoulli_nll if binary else losses.categorical_nll
    strength = 1 / len(data.labels) if l2 is None else l2
    objective = make_objective(linear.logits, loss, penalties.l2(strength))
    batch = make_batch(data.features, data.labels, num_classes=data.num_classes)
    return (
        objective,
        start(data.features.shape[1], None if binary else data.num_classes, dtype),
        batch,
    )


def start(num_features, num_outputs=None, dtype=np.float32, **options):
    return linear.init(
        jax.random.key(0), num_features, num_outputs, stddev=0, dtype=dtype, **options
    )


def small(dtype=np.float32, num_rows=80, num_features=5, num_classes=3):
    data = synthetic.gaussian_classes(1, num_rows, num_features, num_classes, dtype=dtype)
    return make_batch(data.features, data.labels, num_classes=num_classes)


SOFTMAX = make_objective(linear.logits, losses.categorical_nll, penalties.l2(LAMBDA))


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        ("iris", "newton_cholesky"),
        ("wine", "newton_cg"),
        ("wine", "newton_cholesky"),
        ("breast_cancer", "newton_cg"),
    ],
)
def test_the_optimum_is_that_of_scikit_learn_on_unscaled_data(name, solver, x64):
    objective, params, batch = problem(name)
    result = minimize(objective, params, batch, tol=1e-10, solver=solver)
    assert result.status == "converged"
    assert result.solver == f"{solver}: as asked"
    assert result.gap_bound < 1e-9
    theirs = "newton-cholesky" if params.weights.ndim == 1 else "newton-cg"
    peer = LogisticRegression(tol=1e-10, max_iter=10**5, solver=theirs)
    peer.fit(np.asarray(batch.features), np.asarray(batch.labels))
    shape = np.shape(params.weights)
    theirs = linear.LinearParams(peer.coef_.reshape(shape), peer.intercept_.reshape(shape[:-1]))
    assert abs(float(objective(theirs, batch)) - result.value) < 1e-9
    np.testing.assert_allclose(result.params.weights, theirs.weights, rtol=1e-4, atol=1e-6)


def test_all_solvers_agree(x64):
    objective, params, batch = problem("iris")
    standardiser = transforms.fit_standardiser(np.asarray(batch.features))
    features = jnp.asarray(transforms.standardise(standardiser, np.asarray(batch.features)))
    scaled = batch._replace(features=features)
    results = [minimize(objective, params, scaled, tol=1e-12, solver=s) for s in SMOOTH]
    for result in results:
        assert result.status == "converged"
        assert abs(result.value - results[0].value) < 1e-9
        assert result.gap_bound < 1e-9


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        ("iris", "newton_cg"),
        ("wine", "newton_cholesky"),
        ("wine", "newton_cg"),
        ("breast_cancer", "newton_cholesky"),
    ],
)
def test_in_single_precision_it_comes_as_close_as_rounding_allows(name, solver):
    objective, params, batch = problem(name, np.float32)
    result = minimize(objective, params, batch, tol=1e-7, solver=solver)
    assert result.status in ("converged", "precision_floor")
    assert result.params.weights.dtype == np.float32
    with jax.enable_x64(True):
        best = minimize(*problem(name), tol=1e-13).value
    assert -1e-8 < result.value - best < 1e-6


def test_what_a_solve_left_is_not_trusted_where_rounding_made_it_negative():
    # With it a step far from the optimum was taken for converged.
    assert gap_left([(9, 0.5)], 76.0, -4412.0) == np.inf
    assert gap_left([(9, 0.5)], 76.0, 1.0) == 78.0


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("solver", SMOOTH)
def test_a_start_whose_classes_do_not_add_up_to_zero(solver, intercept, x64):
    # The log loss does not see what all classes have in common; the penalty does.
    data, objective = (
        small(np.float64),
        make_objective(linear.logits, losses.categorical_nll, penalties.l2(0.1)),
    )
    away = linear.init(jax.random.key(0), 5, 3, stddev=3.0, intercept=intercept, dtype=np.float64)
    result = minimize(objective, away, data, solver=solver, tol=1e-9)
    assert result.status == "converged"
    assert result.gap_bound < 1e-7
    near = minimize(objective, jax.tree.map(jnp.zeros_like, away), data, solver=solver, tol=1e-9)
    assert result.value == pytest.approx(near.value, abs=1e-7)


@pytest.mark.parametrize("solver", ["newton_cg", "newton_cholesky"])
def test_a_feature_a_hundred_million_times_the_others(solver):
    objective, params, batch = problem("iris", np.float32)
    scaled = batch._replace(features=batch.features * jnp.array([[1e8, 1, 1, 1]]))
    result = minimize(objective, params, scaled, tol=1e-7, solver=solver)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        exact = scaled._replace(features=np.asarray(scaled.features, np.float64))
        best = minimize(objective, wide, exact, tol=1e-9)
    assert best.status == "converged"
    assert result.value - best.value < 1e-6


@pytest.mark.parametrize("solver", ["newton_cg", "newton_cholesky"])
def test_the_bound_is_a_bound_at_every_step(solver, x64):
    objective, params, batch = problem("wine")
    best = minimize(objective, params, batch, tol=1e-14).value
    for steps in range(1, 9):
        result = minimize(objective, params, batch, tol=1e-14, max_steps=steps, solver=solver)
        assert result.steps == len(result.trace) - 1 <= steps
        gap = result.value - best
        assert -1e-12 < gap <= result.gap_bound
        # The value is that of the parameters which are returned.
        assert float(objective(result.params, batch)) == pytest.approx(result.value, abs=1e-13)
    values = [step.value for step in result.trace]
    assert values == sorted(values, reverse=True)


LOSSES = {
    "bernoulli": (losses.bernoulli_nll, "01"),
    "soft bernoulli": (losses.bernoulli_nll, "probability"),
    "smoothed": (partial(losses.categorical_nll, smoothing=0.1), "class"),
    "soft categorical": (losses.soft_categorical_nll, "distribution"),
    "multilabel": (losses.multilabel_nll, "several"),
    "squared error": (losses.squared_error, "number"),
    "squared hinge": (losses.squared_hinge, "sign"),
    "logistic margin": (losses.logistic_margin, "sign"),
}


def labels_of(kind, n, rng):
    draws = rng.uniform(size=(n, 3))
    return {
        "01": (draws[:, 0] > 0.5).astype(np.int32),
        "probability": draws[:, 0],
        "class": rng.integers(0, 3, n).astype(np.int32),
        "distribution": draws / draws.sum(1, keepdims=True),
        "several": (draws > 0.5).astype(np.float64),
        "number": rng.normal(size=n),
        "sign": np.where(draws[:, 0] > 0.5, 1, -1).astype(np.int32),
    }[kind]


@pytest.mark.parametrize(
    ("name", "intercept", "solver"),
    [(name, name != "smoothed", "newton_cholesky") for name in LOSSES]
    + [("soft bernoulli", False, "newton_cg"), ("multilabel", True, "newton_cg")],
)
def test_any_convex_loss_reaches_a_point_where_its_gradient_is_zero(name, intercept, solver, x64):
    loss, kind = LOSSES[name]
    rng = np.random.default_rng(3)
    batch = Batch(rng.normal(size=(60, 4)), labels_of(kind, 60, rng), rng.uniform(0, 2, 60))
    outputs = 3 if kind in ("class", "distribution", "several") else None
    params = start(4, outputs, np.float64, intercept=intercept)
    objective = make_objective(linear.logits, loss, penalties.l2(LAMBDA))
    result = minimize(objective, params, batch, tol=1e-13, solver=solver)
    assert result.status == "converged"
    gradient = jax.grad(objective)(result.params, batch)
    assert max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(gradient)) < 1e-6
    assert jax.tree.structure(result.params) == jax.tree.structure(params)


def test_least_squares_without_a_penalty_is_the_normal_equations(x64):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    objective = make_objective(linear.logits, losses.squared_error)
    result = minimize(objective, start(3, dtype=np.float64), Batch(x, y), tol=1e-15)
    expected = np.linalg.lstsq(np.c_[x, np.ones(40)], y)[0]
    np.testing.assert_allclose(result.params.weights, expected[:3], atol=1e-7)
    assert result.status in ("stationary", "precision_floor")
    assert result.gap_bound < 1e-12


def test_weights_are_repeated_rows(x64):
    batch = small(np.float64)
    counts = np.arange(80) % 3
    weighted = batch._replace(weights=jnp.asarray(counts, jnp.float64))
    repeated = jax.tree.map(lambda x: jnp.repeat(x, counts, axis=0), batch)
    params = start(5, 3, np.float64)
    a, b = (minimize(SOFTMAX, params, data, tol=1e-14) for data in (weighted, repeated))
    np.testing.assert_allclose(a.params.weights, b.params.weights, atol=1e-7)
    assert a.value == pytest.approx(b.value, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.int32])
def test_features_of_other_dtypes_are_widened(dtype):
    rng = np.random.default_rng(0)
    features = rng.integers(0, 9, (90, 4)).astype(dtype)
    labels = rng.integers(0, 3, 90).astype(np.int32)
    narrow, wide = (
        minimize(
            SOFTMAX,
            start(4, 3),
            Batch(jnp.asarray(x), jnp.asarray(labels)),
            tol=1e-9,
            solver="newton_cg" if dtype == np.uint8 else "auto",
        )
        for x in (features, features.astype(np.float32))
    )
    np.testing.assert_allclose(narrow.params.weights, wide.params.weights, atol=1e-4)
    assert narrow.value == pytest.approx(wide.value, abs=1e-7)


@pytest.mark.parametrize("solver", ["newton_cg", "newton_cholesky"])
def test_separable_data_without_a_penalty_have_no_minimiser(solver):
    data = load_dataset("iris")
    keep = data.labels < 2  # setosa and versicolor can be told apart by a line
    batch = make_batch(data.features[keep], data.labels[keep], num_classes=2)
    objective = make_objective(linear.logits, losses.bernoulli_nll)
    result = minimize(objective, start(4), batch, solver=solver)
    assert result.status == "no_finite_minimiser"
    logits = jax.vmap(linear.logits, (None, 0))(result.direction, batch.features)
    assert (jnp.sign(logits) == 2 * batch.labels - 1).all()
    # Twice as far along the direction is better still, and so on.
    further = jax.tree.map(lambda w: 2 * w, result.params)
    assert objective(further, batch) < objective(result.params, batch)
    # A penalty, or a loss that is zero beyond a margin, has a minimiser on the same data.
    penalised = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(1e-3))
    assert minimize(penalised, start(4), batch).status == "converged"
    signs = batch._replace(labels=2 * batch.labels - 1)
    hinge = minimize(make_objective(linear.logits, losses.squared_hinge), start(4), signs)
    assert hinge.status == "converged"
    assert hinge.value < 1e-9


def test_least_squares_is_never_taken_for_separated(x64):
    x, y = jnp.array([[1.0], [-1.0]]), jnp.array([100, -100])
    near = linear.LinearParams(jnp.array([0.01]), None)
    result = minimize(make_objective(linear.logits, losses.squared_error), near, Batch(x, y))
    assert result.status == "converged"
    assert float(result.params.weights[0]) == pytest.approx(100)
    # Targets that are all alike are no single class.
    same = minimize(make_objective(linear.logits, losses.squared_error), near, Batch(x, y * y))
    assert same.status in ("converged", "stationary", "precision_floor")
    assert same.gap_bound < 1e-10 * same.value


def test_a_loss_that_is_not_convex_has_no_bound(x64):
    objective = make_objective(linear.logits, losses.sigmoid_squared_error, penalties.l2(0.1))
    batch = small(np.float64, num_classes=2)
    assert minimize(objective, start(5, None, np.float64), batch).gap_bound == np.inf


def test_the_value_is_that_of_the_rounded_intercept():
    batch = small()
    result = minimize(SOFTMAX, start(5, 3), batch, tol=1e-9)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), result.params)
        features = np.asarray(batch.features, np.float64)
        again = float(SOFTMAX(wide, batch._replace(features=features)))
    assert result.value == pytest.approx(again, abs=1e-14)


def test_separation_of_several_classes_is_by_the_smallest_margin(x64):
    separated = make_separated(losses.categorical_nll)
    rows = lp.Rows(None, jnp.array([0, 2, 1]), jnp.full(3, 1 / 3))
    z = jnp.array([[2.0, 1.0, 0.0], [0.0, 1.0, 1.5], [0.0, 0.1, 0.0]])
    assert separated(None, z, rows)
    assert not separated(None, z.at[2, 1].set(0.0), rows)  # a tie
    assert not separated(None, z.at[0, 2].set(3.0), rows)
    assert separated(None, z.at[0, 2].set(3.0), rows._replace(weights=jnp.array([0, 0.5, 0.5])))
    smoothed = partial(losses.categorical_nll, smoothing=0.1)
    assert not make_separated(smoothed)(None, z, rows)  # it rises again at infinity


@pytest.mark.parametrize("solver", SMOOTH)
def test_the_other_statuses(solver):
    batch = small()
    few = minimize(SOFTMAX, start(5, 3), batch, max_steps=1, tol=1e-9, solver=solver)
    assert few.status == "max_steps"
    assert few.steps == 1
    floor = minimize(SOFTMAX, start(5, 3), batch, tol=1e-30, solver=solver)
    assert floor.status == "precision_floor"
    huge = batch._replace(features=batch.features * 1e30, labels=batch.features[:, 0])
    objective = make_objective(linear.logits, losses.squared_error)
    far = linear.LinearParams(jnp.full(5, 1e10), jnp.zeros(()))
    found = minimize(objective, far, huge, solver=solver)
    # The columns are scaled, and zero is a better start.
    assert found.status == "converged"
    assert found.value < 1.5
    endless = batch._replace(features=batch.features * np.inf)
    with pytest.raises(ValueError, match="features must be finite"):
        minimize(objective, start(5), endless, solver=solver)


def optimum(batch, params):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        features = np.asarray(batch.features, np.float64)
        return minimize(SOFTMAX, wide, batch._replace(features=features), tol=1e-14).value


@pytest.mark.parametrize("solver", [*SMOOTH, "proximal_newton"])
def test_stops_where_the_gradient_is_small_enough(solver):
    l1 = 0.02 * (solver == "proximal_newton")
    objective = make_objective(
        linear.logits, losses.categorical_nll, penalties.elastic_net(l1=l1, l2=LAMBDA)
    )
    options = {"solver": solver, "tol": 1e-30}
    loose, tight = (
        minimize(objective, start(5, 3), small(), gradient_tol=g, **options) for g in (1e-2, 1e-4)
    )
    assert loose.status == tight.status == "stationary"
    assert loose.gradient_norm <= 1.01e-2
    assert tight.gradient_norm <= 1.01e-4
    assert loose.steps < tight.steps
    # Steps with the exact Hessian go on until the bound on the gap is as small.
    above = [step.gradient_norm > 1e-4 for step in tight.trace[:-1]]
    assert all(above[:-3] if solver == "newton_cholesky" else above)
    assert solver != "newton_cholesky" or tight.gap_bound <= 1e-4
    with pytest.raises(ValueError, match="gradient_tol must be finite, at least 0"):
        minimize(SOFTMAX, start(5, 3), small(), gradient_tol=-1.0)


@pytest.mark.parametrize("l2", [1e-7, 1e-5, 1e-3])
def test_nearly_separable_data_are_solved_to_the_tolerance(l2):
    """There the curvature changes by orders of magnitude from step to step."""
    data = load_dataset("digits", dtype=np.float32)
    standardiser = transforms.fit_standardiser(data.features)
    batch = make_batch(transforms.standardise(standardiser, data.features), data.labels)
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(l2))
    with jax.enable_x64(True):
        wide = batch._replace(features=jnp.asarray(batch.features, np.float64))
        best = minimize(objective, start(64, 10, np.float64), wide, tol=1e-13)
    assert best.gap_bound < 1e-6
    for tol in (1e-2, 1e-4):
        result = minimize(objective, start(64, 10), batch, tol=tol, solver="newton_cg")
        assert result.status == "converged"
        assert result.value - best.value <= 2 * tol


def test_more_features_than_a_factor_may_have(monkeypatch):
    batch = small(num_rows=40, num_features=60)
    expected = optimum(batch, start(60, 3))
    monkeypatch.setattr(preconditioner, "LARGEST_FACTOR", 50)
    give_back()
    result = minimize(SOFTMAX, start(60, 3), batch, tol=1e-7, solver="newton_cg")
    give_back()
    assert result.status == "converged"
    assert result.value - expected < 1e-6


@pytest.mark.parametrize("solver", ["newton_cg", "newton_cholesky"])
def test_columns_that_repeat_and_columns_that_are_constant(solver):
    batch = small()
    features = jnp.concatenate([batch.features, batch.features, jnp.ones((80, 2))], 1)
    repeated = batch._replace(features=features)
    result = minimize(SOFTMAX, start(12, 3), repeated, tol=1e-8, solver=solver)
    assert result.value - optimum(repeated, start(12, 3)) < 1e-7
    twice = result.params.weights
    np.testing.assert_allclose(twice[:, :5], twice[:, 5:10], atol=1e-4)


def test_sampled_hessians_reach_the_same_optimum(monkeypatch):
    batch = small(num_rows=3000, num_features=8)
    expected = optimum(batch, start(8, 3))
    monkeypatch.setitem(solve_linear._SAMPLED_ABOVE, "newton_cg", 100)
    options = {"tol": 1e-7, "solver": "newton_cg"}
    result = minimize(SOFTMAX, start(8, 3), batch, **options)
    assert "sampled" in result.solver
    assert result.value - expected < 1e-6
    again = minimize(SOFTMAX, start(8, 3), batch, **options)
    np.testing.assert_array_equal(result.params.weights, again.params.weights)


def test_many_logits_are_certified_with_an_intercept(x64):
    rng = np.random.default_rng(0)
    batch = Batch(rng.normal(size=(200, 3)), (np.arange(200) % 70).astype(np.int32))
    result = minimize(SOFTMAX, start(3, 70, np.float64), batch, tol=1e-11)
    assert result.status == "converged"
    assert result.gap_bound < 1e-9
    gradient = jax.grad(SOFTMAX)(result.params, batch)
    assert max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(gradient)) < 1e-5


@pytest.mark.parametrize("solver", SMOOTH)
def test_a_second_fit_compiles_nothing(solver):
    traces = []

    def counted(logits, label):
        traces.append(1)
        return losses.categorical_nll(logits, label)

    batch = small()
    for strength in (0.1, 0.01):
        objective = make_objective(linear.logits, counted, penalties.l2(strength))
        minimize(objective, start(5, 3), batch, solver=solver)
        if strength == 0.1:
            first = len(traces)
    assert len(traces) == first


@pytest.mark.parametrize("solver", SMOOTH)
def test_the_callback_sees_every_step(solver):
    seen = []
    result = minimize(SOFTMAX, start(5, 3), small(), callback=seen.append, solver=solver)
    assert tuple(seen) == result.trace
    assert seen[-1].passes <= result.passes


LASSO = make_objective(linear.logits, losses.categorical_nll, penalties.l1(0.1))
NOT_LINEAR = make_objective(lambda p, x: jnp.tanh(p["w"]) * x[:3], losses.categorical_nll)
NOT_LINEAR_L1 = make_objective(NOT_LINEAR.logits_fn, losses.categorical_nll, penalties.l1(1.0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"objective": 3}, TypeError, "must be a function of params and batch, got int"),
        ({"objective": NOT_LINEAR, "solver": "newton_cholesky"}, ValueError,
         r"solver 'newton_cholesky' needs the logits of models\.linear\.logits"),
        ({"objective": NOT_LINEAR_L1}, ValueError, "an L1 penalty is only solved for the logits"),
        ({"objective": NOT_LINEAR, "params": {"w": jnp.arange(3)}}, TypeError, "must be floating"),
        ({"objective": LASSO, "solver": "lbfgs"}, ValueError,
         "solver 'lbfgs' takes no L1 penalty; proximal_newton does"),
        ({"solver": "proximal_newton"}, ValueError, "needs an L1 penalty; newton_cg, newton_chole"),
        ({"solver": "saga"}, ValueError, "solver must be one of auto, newton_cg, .* got 'saga'"),
        ({"batch": small()._replace(labels=jnp.full(80, 2))}, ValueError,
         "labels hold one class only, 2: a classifier needs two"),
        ({"batch": small()._replace(features=jnp.full((80, 5), jnp.nan))}, ValueError,
         "features must be finite, got nan"),
        ({"objective": make_objective(linear.logits, losses.categorical_nll,
                                      penalties.Penalty(l2=-1.0))}, ValueError,
         "l2 must be finite, at least 0, got -1"),
        ({"params": start(4, 3)}, ValueError, r"features must have shape \(any, 4\), got \(80, 5"),
        ({"params": start(5, 1)}, ValueError, "one logit has weights"),
        ({"params": linear.LinearParams(jnp.zeros((3, 5), jnp.int32))}, TypeError, "floating"),
        ({"params": start(5, 3)._replace(weights=jnp.full((3, 5), jnp.inf))}, ValueError,
         r"params\.weights must be finite"),
        ({"params": start(5, 3)._replace(intercept=jnp.zeros(2))}, ValueError,
         r"intercept must have shape \(3,\), got \(2,\)"),
        ({"tol": 0}, ValueError, "tol must be finite, above 0, got 0"),
        ({"max_steps": 0}, ValueError, "max_steps must be finite, at least 1, got 0"),
    ],
)  # fmt: skip
def test_bad_input(change, error, message):
    arguments = {"objective": SOFTMAX, "params": start(5, 3), "batch": small()} | change
    with pytest.raises(error, match=message):
        minimize(arguments.pop("objective"), arguments.pop("params"), arguments.pop("batch"),
                 **arguments)  # fmt: skip
    weights = jnp.zeros(80).at[3].set(-1.0)
    with pytest.raises(ValueError, match="and non-negative, got -1 in row 3"):
        minimize(SOFTMAX, start(5, 3), small()._replace(weights=weights))


@pytest.mark.parametrize("solver", SMOOTH)
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_the_bound_is_one_on_the_parameters_that_are_returned(solver, offset):
    """They are rounded to float32, which costs most where the intercept is large."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3)).astype(np.float32)
    targets = (features[:, 0] + rng.normal(size=400) + offset).astype(np.float32)
    objective = make_objective(linear.logits, losses.squared_error, penalties.l2(1.0))
    begin = linear.LinearParams(np.zeros(3, np.float32), np.float32(0))
    result = minimize(objective, begin, Batch(features, targets), solver=solver, tol=1e-10)
    w, b = (np.asarray(x, np.float64) for x in result.params)
    x, y = features.astype(np.float64), targets.astype(np.float64)

    def value(w, b):
        return np.mean((x @ w + b - y) ** 2) + w @ w / 2

    centred = x - x.mean(0)
    best = np.linalg.solve(2 * centred.T @ centred / 400 + np.eye(3), 2 * centred.T @ y / 400)
    least = value(best, y.mean() - x.mean(0) @ best)
    assert result.value == pytest.approx(value(w, b), rel=1e-12)
    assert value(w, b) - least <= result.gap_bound + 1e-12 * least


@pytest.mark.parametrize("solver", ["newton_cg", "lbfgs"])
def test_a_start_without_a_value_is_left_for_zero(solver, x64):
    def barrier(z, y):
        return -jnp.log(1 - z**2) + 0.3 * (2 * y - 1) * z

    batch = Batch(np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2)
    begin = linear.LinearParams(np.zeros(2), np.array(2.0))
    objective = make_objective(linear.logits, barrier, penalties.l2(1e-2))
    result = minimize(objective, begin, batch, solver=solver)
    assert result.status == "stationary"
    assert "not known to be convex" in result.reason
    assert abs(float(result.params.intercept)) < 1
    assert result.gradient_norm < 1e-3


@pytest.mark.parametrize("solver", ["newton_cg", "lbfgs"])
def test_a_loss_without_curvature_at_zero_starts_where_it_was_told(solver, x64):
    def poisson(z, y):
        return z - (y + 0.5) * jnp.log(z)

    batch = Batch(0.1 * np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2)
    begin = linear.LinearParams(np.zeros(2), np.array(1.0))
    objective = make_objective(linear.logits, poisson, penalties.l2(1e-2))
    result = minimize(objective, begin, batch, solver=solver, tol=1e-8)
    assert result.trace[0].value == pytest.approx(1)
    assert result.status == "stationary"
    assert result.gradient_norm < 1e-3


def test_results_are_not_the_memory_of_the_start():
    raw = np.zeros(64 + 64, np.uint8)
    aligned = -raw.ctypes.data % 64  # so that the device could use this memory as it is
    weights = raw[aligned : aligned + 64].view(np.float32)[:4]
    weights[:] = 0.25  # a stationary point, so that the start itself is returned
    batch = Batch(np.zeros((6, 4), np.float32), np.arange(6) % 2)
    objective = make_objective(linear.logits, losses.bernoulli_nll)
    begin = linear.LinearParams(weights, np.float32(0))
    result = minimize(objective, begin, batch, solver="newton_cg")
    weights[:] = 7
    np.testing.assert_array_equal(result.params.weights, np.full(4, 0.25, np.float32))
