"""λ at which all weights are zero, and paths that begin there."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import l1_min_c

from jaxclf import (
    Path,
    lambda_max,
    load_dataset,
    losses,
    make_batch,
    make_objective,
    minimize,
    minimize_path,
    penalties,
)
from jaxclf.models import linear
from jaxclf.models.linear import LinearParams
from jaxclf.solvers import solve_linear
from jaxclf.solvers.continuation import continued


def standardised(name):
    data = load_dataset(name, dtype=np.float64)
    return (data.features - data.features.mean(0)) / data.features.std(0), data.labels


def of(penalty, loss=losses.bernoulli_nll):
    return make_objective(linear.logits, loss, penalty)


def zeros(d, num_classes=None, *, intercept=True, dtype=np.float64):
    outputs = () if num_classes is None else (num_classes,)
    return LinearParams(
        np.zeros((*outputs, d), dtype), np.zeros(outputs, dtype) if intercept else None
    )


SOME = penalties.l1(1.0)


def test_lambda_max_is_the_largest_entry_of_the_gradient_at_zero(x64):
    x, y = standardised("breast_cancer")
    by_hand = np.abs(x.T @ (y.mean() - y)).max() / len(y)
    batch, params = make_batch(x, y), zeros(30)
    assert lambda_max(of(SOME), params, batch) == pytest.approx(by_hand, rel=1e-13)
    assert lambda_max(of(None), params, batch) == pytest.approx(by_hand, rel=1e-13)
    assert lambda_max(of(penalties.l1(7.0)), params, batch) == pytest.approx(by_hand, rel=1e-13)
    quarter = of(penalties.elastic_net(l1=0.1, l2=0.3))
    assert lambda_max(quarter, params, batch) == pytest.approx(4 * by_hand, rel=1e-13)
    bare = zeros(30, intercept=False)
    theirs = 1 / (len(y) * l1_min_c(x, y, loss="log", fit_intercept=False))
    assert lambda_max(of(SOME), bare, batch) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1e6])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_little_below_lambda_max_a_weight_is_not_zero(share, shift, x64):
    x, y = standardised("wine")
    x = x * np.geomspace(1e-3, 1e3, 13) + shift
    weights = np.arange(len(y)) % 3
    offset = np.sin(np.arange(3 * len(y))).reshape(-1, 3)
    batch, params = make_batch(x, y, weights, offset=offset), zeros(13, 3)
    largest = lambda_max(
        of(penalties.elastic_net(l1=share, l2=1 - share), losses.categorical_nll), params, batch
    )
    for factor, found in ((1 + 1e-6, 0), (1 - 1e-3, 1)):
        λ = factor * largest
        penalty = penalties.elastic_net(l1=λ * share, l2=λ * (1 - share))
        result = minimize(of(penalty, losses.categorical_nll), params, batch, tol=1e-13)
        assert np.asarray(result.params.weights).any() == found


@pytest.mark.parametrize("num_classes", [None, 3])
def test_lambda_max_counts_the_slopes_along_which_bounds_let_weights_go(num_classes, x64):
    x, y = standardised("wine" if num_classes else "breast_cancer")
    d, loss = x.shape[1], losses.categorical_nll if num_classes else losses.bernoulli_nll
    targets = np.eye(3)[y] if num_classes else y[:, None]
    g = ((targets.mean(0) - targets).T @ x) / len(y)
    batch, params = make_batch(x, y), zeros(d, num_classes)
    lower = np.where(np.arange(d) % 3, -np.inf, 0.0)
    upper = np.where(np.arange(d) % 2, 0.0, np.inf)
    for bounds, steepest in (
        ((0, np.inf), np.max(-g)),
        ((-np.inf, 0), np.max(g)),
        ((-0.1, 0.1), np.abs(g).max()),
        ((lower, upper), max(np.max(g * (lower < 0)), np.max(-g * (upper > 0)))),
    ):
        for share in (1.0, 0.5):
            penalty = penalties.elastic_net(l1=share, l2=1 - share)
            found = lambda_max(of(penalty, loss), params, batch, bounds=bounds)
            assert found == pytest.approx(steepest / share, rel=1e-12)
        path = minimize_path(
            of(SOME, loss), params, batch, num=2, min_ratio=0.999, bounds=bounds, tol=1e-13
        )
        assert [np.asarray(r.params.weights).any() for r in path] == [False, True]


def test_bounds_of_weights_without_a_penalty_may_exclude_zero(x64):
    """The slopes are those beside the free weight at its bound."""
    x, y = standardised("breast_cancer")
    factors = np.r_[0.0, np.ones(29)]
    bounds = np.r_[-1.0, np.full(29, -np.inf)], np.r_[-0.5, np.zeros(29)]
    batch, params, lasso = make_batch(x, y), zeros(30), penalties.l1(1.0, factors=factors)
    found = lambda_max(of(lasso), params, batch, bounds=bounds)
    bare = minimize(
        of(penalties.l2(1.0, factors=np.r_[0.0, np.full(29, np.inf)])),
        params, batch, bounds=bounds, tol=1e-14,
    )  # fmt: skip
    assert bare.params.weights[0] == -1
    p = 1 / (1 + np.exp(-(x[:, 0] * -1 + float(bare.params.intercept))))
    assert found == pytest.approx((x.T @ (p - y))[1:].max() / len(y), rel=1e-6)
    for excluded in ((0.1, 1.0), (-np.inf, -0.1)):
        with pytest.raises(ValueError, match="no λ makes weights zero, as column 1 has the bounds"):
            lambda_max(of(lasso), params, batch, bounds=excluded)
    with pytest.raises(ValueError, match="give the strengths of the penalties"):
        minimize_path(of(SOME), params, batch, bounds=(0.1, 1.0))
    signs = (x.T @ (y - y.mean()) > 0).astype(float)
    held = np.where(signs, -np.inf, 0), np.where(signs, 0, np.inf)
    assert lambda_max(of(SOME), params, batch, bounds=held) == 0
    with pytest.raises(ValueError, match="a path needs a feature"):
        minimize_path(of(SOME), params, batch, bounds=held)


def test_lambda_max_takes_any_loss_and_narrow_parameters():
    x, y = standardised("breast_cancer")
    batch = make_batch(x.astype(np.float32), 2 * y - 1)
    found = lambda_max(of(SOME, losses.squared_hinge), zeros(30, dtype=np.float32), batch)
    middle = 2 * y.mean() - 1  # at the best intercept every margin is below one
    expected = np.abs(x.T @ (2 * (middle - (2 * y - 1)))).max() / len(y)
    assert found == pytest.approx(expected, rel=1e-5)


def test_what_has_no_lambda_max_is_refused():
    x, y = standardised("wine")
    batch, params = make_batch(x, y == 0), zeros(13, dtype=np.float32)
    with pytest.raises(ValueError, match="lambda_max needs an L1 penalty"):
        lambda_max(of(penalties.l2(1.0)), params, batch)
    with pytest.raises(TypeError, match=r"logits of models\.linear\.logits"):
        lambda_max(make_objective(lambda w, x: w @ x, losses.bernoulli_nll), params, batch)
    with pytest.raises(ValueError, match="the strength of the penalty of a path"):
        minimize_path(of(penalties.l1(0.0)), params, batch)
    with pytest.raises(ValueError, match="min_ratio must be finite, above 0, at most 1, got 2"):
        minimize_path(of(SOME), params, batch, min_ratio=2)
    with pytest.raises(ValueError, match="num must be finite, at least 1, got 0"):
        minimize_path(of(SOME), params, batch, num=0)
    apart = make_batch(np.c_[x, 2.0 * (y == 0) - 1], y == 0)
    by_feature = penalties.l1(1.0, factors=np.append(np.ones(13), 0))
    with pytest.raises(ValueError, match="the columns without a penalty separate the classes"):
        lambda_max(of(by_feature), zeros(14), apart)
    with pytest.raises(ValueError, match="the strength of the penalty of a path"):
        minimize_path(of(penalties.l1(1.0, factors=np.zeros(13))), params, batch)
    empty = make_batch(np.zeros((4, 2)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="a path needs a feature"):
        minimize_path(of(SOME), zeros(2, dtype=np.float32), empty)


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize(
    ("factors", "num_classes"),
    [
        ((0, 1, 2, 1, 0.5, np.inf, 1), None),
        ((0, 1, 2, 1, 0.5, np.inf, 1), 3),
        (((1,) * 7, (0, 1, 1, 1, 1, 2, 1), (0, 3, 1, np.inf, 1, 0, 1)), 3),
        ((0.5,) * 7, None),
    ],
)
def test_with_factors_the_free_weights_are_at_their_optimum(factors, num_classes, share, x64):
    """Just above lambda_max no weight with a factor is there, and just below it one is."""
    x, y = standardised("wine")
    factors = np.array(factors, float)
    penalty = penalties.elastic_net(l1=share, l2=1 - share, factors=factors)
    loss = losses.categorical_nll if num_classes else losses.bernoulli_nll
    labels = y if num_classes else y == 1
    start, batch = zeros(7, num_classes), make_batch(x[:, [0, 2, 3, 4, 8, 10, 11]], labels)
    most = lambda_max(of(penalty, loss), start, batch)
    shrunk = np.broadcast_to(factors > 0, start.weights.shape)
    for ratio, enters in ((1 + 1e-5, False), (1 - 1e-3, True)):
        strength = most * ratio / factors[np.isfinite(factors)].max()
        at = penalties.elastic_net(l1=share * strength, l2=(1 - share) * strength, factors=factors)
        weights = np.asarray(minimize(of(at, loss), start, batch, tol=1e-12).params.weights)
        assert weights[shrunk].any() == enters
        assert (weights[~shrunk] != 0).all()
    path = minimize_path(of(penalty, loss), start, batch, num=3, tol=1e-8)
    assert path.strengths[0] == pytest.approx(most, rel=1e-9)
    assert path.strengths[-1] == pytest.approx(1e-4 * most, rel=1e-9)


def test_factors_of_one_are_no_factors(x64):
    x, y = standardised("wine")
    batch = make_batch(x, y)
    ones = penalties.elastic_net(l1=0.3, l2=0.1, factors=np.ones(13))
    plain = penalties.elastic_net(l1=0.3, l2=0.1)
    found = [lambda_max(of(p, losses.categorical_nll), zeros(13, 3), batch) for p in (ones, plain)]
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_a_path_finds_its_own_strengths_and_the_optima_of_scikit_learn(x64):
    x, y = standardised("breast_cancer")
    batch, params = make_batch(x, y), zeros(30, intercept=False)
    path = minimize_path(of(SOME), params, batch, num=6, min_ratio=1e-2, tol=1e-10)
    assert isinstance(path, Path)
    assert len(path) == 6
    largest = lambda_max(of(SOME), params, batch)
    np.testing.assert_allclose(path.strengths, largest * np.geomspace(1, 1e-2, 6), rtol=1e-12)
    assert not path[0].params.weights.any()
    for λ, result, penalty in zip(path.strengths, path, path.penalties, strict=True):
        assert result.status == "converged"
        peer = LogisticRegression(
            C=1 / (λ * len(y)), l1_ratio=1, solver="liblinear", fit_intercept=False, tol=1e-10,
            max_iter=10**4,
        ).fit(x, y)  # fmt: skip
        theirs = float(of(penalty)(LinearParams(peer.coef_[0], None), batch))
        assert abs(theirs - result.value) < 1e-6
        assert result.value < theirs + 1e-12


SKGLM = {0.1: 0.4773147256773592, 0.03: 0.26931805239634576, 0.003: 0.06955082166402712}
"""λ and the objective at the optimum of skglm 0.5, ``SparseLogisticRegression(tol=1e-10)``, for the
second class of wine."""


def test_a_path_has_the_optima_of_skglm(x64):
    x, y = standardised("wine")
    strengths = [penalties.l1(strength) for strength in SKGLM]
    path = minimize_path(of(None), zeros(13), make_batch(x, y == 1), strengths, tol=1e-10)
    for result, theirs in zip(path, SKGLM.values(), strict=True):
        assert abs(result.value - theirs) < 1e-8


def test_the_default_path_is_longer_where_there_are_more_rows_than_features():
    x, y = standardised("wine")
    options = {"num": 3, "tol": 1e-4}
    params = zeros(13, dtype=np.float32)
    long = minimize_path(of(SOME), params, make_batch(x, y == 0), **options).strengths
    assert long[-1] / long[0] == pytest.approx(1e-4)
    few = make_batch(x[55:65], y[55:65] == 0)
    short = minimize_path(of(SOME), params, few, **options).strengths
    assert short[-1] / short[0] == pytest.approx(1e-2)
    ridge = minimize_path(of(penalties.l2(3.0)), params, make_batch(x, y == 0), **options)
    assert ridge.strengths[0] == pytest.approx(1000 * long[0], rel=1e-6)
    assert [penalty.l1 for penalty in ridge.penalties] == [0, 0, 0]
    one = minimize_path(of(SOME), params, make_batch(x, y == 0), num=1)
    assert [*jax.tree.leaves(one.penalties[0])] == pytest.approx([long[0], 0])


def quadratic_in_log(strength):
    t = np.log(strength)
    return LinearParams(np.array([t, t**2, 3.0]), np.array(1 - t))


def test_solutions_are_continued_by_a_quadratic_in_the_logarithm():
    solved = [(penalties.l2(x), quadratic_in_log(x)) for x in (1.0, 1e-1, 3e-2, 1e-2)]
    found = continued(solved, penalties.l2(4e-3))
    expected = quadratic_in_log(4e-3)
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-12)
    np.testing.assert_allclose(found.intercept, expected.intercept, rtol=1e-12)


@pytest.mark.parametrize(
    ("strengths", "penalty"),
    [
        ([1.0], penalties.l2(0.1)),  # one solution points nowhere
        ([1.0, 0.1], penalties.l2(1e-4)),  # three times as far as the last way
        ([1.0, 0.1], penalties.l2(0.1)),
        ([1.0, 1.0], penalties.l2(0.1)),
        ([1.0, 0.1], penalties.elastic_net(l1=1e-3, l2=0.01)),  # the path has kinks
        ([1.0, 0.1], penalties.l2(0.01, factors=[1, 2, 3])),
        ([1.0, 0.1], penalties.Penalty()),
    ],
)
def test_other_solutions_are_not_continued(strengths, penalty):
    solved = [(penalties.l2(x), quadratic_in_log(x)) for x in strengths]
    assert continued(solved, penalty) is None


def test_a_continuation_beyond_the_dtype_is_no_start():
    huge = [
        (penalties.l2(x), LinearParams(np.float32([scale * 3e38]), None))
        for x, scale in ((1.0, -1), (0.1, 1))
    ]
    assert continued(huge, penalties.l2(0.01)) is None


def test_a_path_of_ridge_penalties_takes_fewer_steps_than_from_the_solution_before():
    x, y = standardised("breast_cancer")
    batch, start = make_batch(x.astype(np.float32), y), zeros(30, dtype=np.float32)
    strengths = [penalties.l2(v) for v in np.geomspace(1e-1, 1e-3, 9)]
    path = minimize_path(of(None), start, batch, strengths, tol=1e-7)
    assert {result.status for result in path} == {"converged"}
    steps = 0
    for penalty in strengths:
        one = minimize(of(penalty), start, batch, tol=1e-7)
        steps, start = steps + one.steps, one.params
    assert sum(result.steps for result in path) < steps


def test_a_path_puts_its_rows_in_units_once(x64, monkeypatch):
    x, y = standardised("breast_cancer")
    batch, start = make_batch(x, y), zeros(30)
    count, made = [], solve_linear.rows_in_memory
    monkeypatch.setattr(
        solve_linear, "rows_in_memory", lambda *args: count.append(1) or made(*args)
    )
    strengths = [penalties.l1(λ) for λ in (0.1, 0.01, 0.05)]
    path = minimize_path(of(None), start, batch, strengths, tol=1e-9)
    assert len(count) == 1
    for penalty, result in zip(strengths, path, strict=True):
        alone = minimize(of(penalty), start, batch, tol=1e-9)
        assert result.status == "converged"
        assert abs(result.value - alone.value) <= result.gap_bound + alone.gap_bound


def test_a_path_of_other_penalties_has_the_optimum_of_each(x64):
    """Penalties whose solutions may be worse starts than zero, and with a column that is fixed."""
    x, y = standardised("wine")
    batch, start = make_batch(x, y == 1), zeros(13)
    fixed = np.where(np.arange(13) == 3, np.inf, 1.0)
    some = [
        penalties.l2(1e-4),
        penalties.l1(0.5),
        penalties.l1(0.05, factors=fixed),
        penalties.l1(0.01),
        penalties.group_lasso(0.01, [[j] for j in range(13)]),
        penalties.elastic_net(l1=0.01, l2=0.01),
    ]
    path = minimize_path(of(None), start, batch, some, tol=1e-9)
    for penalty, result in zip(some, path, strict=True):
        alone = minimize(of(penalty), start, batch, tol=1e-9)
        assert result.status == "converged"
        assert abs(result.value - alone.value) <= result.gap_bound + alone.gap_bound
    assert path[2].params.weights[3] == 0
