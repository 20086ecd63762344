"""The columns that an L1 path keeps: the optimum of solves over all columns, at fewer passes."""

import numpy as np
import pytest

from jaxclf import losses, make_batch, make_objective, minimize, minimize_path, penalties
from jaxclf.models import linear
from jaxclf.models.linear import LinearParams
from jaxclf.solvers import in_memory, path_columns, proximal_newton

N, D = 400, 200


@pytest.fixture(autouse=True)
def keep_columns_of_small_features(monkeypatch):
    monkeypatch.setitem(in_memory._SAMPLED_ABOVE, "proximal_newton", N * D - 1)


def problem(num_logits=None, *, dtype=np.float32, l2=0.0, factors=None):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D))
    x[:, 1:] += 0.5 * x[:, :-1]
    scores = x[:, :: D // 20] @ rng.normal(size=(20, num_logits or 1))
    noisy = scores + rng.logistic(size=scores.shape)
    y = np.argmax(noisy, 1) if num_logits else (noisy[:, 0] > 0).astype(int)
    outputs = () if num_logits is None else (num_logits,)
    start = LinearParams(np.zeros((*outputs, D), dtype), np.zeros(outputs, dtype))
    penalty = penalties.elastic_net(l1=1.0, l2=l2, factors=factors)
    loss = losses.categorical_nll if num_logits else losses.bernoulli_nll
    return make_objective(linear.logits, loss, penalty), start, make_batch(x.astype(dtype), y)


def spy(monkeypatch):
    """The numbers of the columns that are chosen, and how often they are solved over."""
    sizes, solved = [], []
    chosen, over = path_columns._chosen, path_columns.over_columns

    def choosing(*args):
        kept = chosen(*args)
        sizes.append(None if kept is None else len(kept.columns))
        return kept

    monkeypatch.setattr(path_columns, "_chosen", choosing)
    monkeypatch.setattr(
        path_columns, "over_columns", lambda *args: solved.append(args[2]) or over(*args)
    )
    return sizes, solved


@pytest.mark.parametrize(
    ("num_logits", "options"),
    [
        (None, {}),
        (None, {"l2": 0.1}),
        (None, {"factors": np.linspace(0.5, 2, D)}),
        (3, {}),
    ],
)
def test_each_result_is_that_of_a_solve_over_all_columns(num_logits, options, monkeypatch):
    objective, start, batch = problem(num_logits, **options)
    sizes, solved = spy(monkeypatch)
    path = minimize_path(objective, start, batch, num=12, min_ratio=0.1, tol=1e-6)
    assert len(sizes) < 6
    assert len(solved) >= 8
    for penalty, result in zip(path.penalties, path, strict=True):
        assert result.status == "converged"
        alone = minimize(
            make_objective(linear.logits, objective.loss, penalty), start, batch, tol=1e-6
        )
        assert abs(result.value - alone.value) <= result.gap_bound + alone.gap_bound


def test_a_path_takes_fewer_passes_than_over_all_columns(monkeypatch):
    given = problem()
    options = {"num": 30, "min_ratio": 0.2, "tol": 1e-6}
    few = minimize_path(*given, **options)
    monkeypatch.setitem(in_memory._SAMPLED_ABOVE, "proximal_newton", N * D)
    whole = minimize_path(*given, **options)
    assert sum(x.passes for x in few) < 0.7 * sum(x.passes for x in whole)


def test_columns_are_chosen_anew_where_others_want_to_move(monkeypatch):
    objective, start, batch = problem()
    sizes, _ = spy(monkeypatch)
    strengths = [penalties.l1(x) for x in (0.2, 0.15, 0.017)]
    path = minimize_path(objective, start, batch, strengths, tol=1e-6)
    assert len(sizes) > 1
    assert sizes[0] < sizes[-1]
    assert [x.status for x in path] == ["converged"] * 3


def test_all_columns_are_used_where_too_many_want_to_move(monkeypatch):
    objective, start, batch = problem()
    sizes, _ = spy(monkeypatch)
    strengths = [penalties.l1(x) for x in (0.2, 0.001)]
    path = minimize_path(objective, start, batch, strengths, tol=1e-6)
    assert sizes[-1] is None
    assert np.count_nonzero(path[-1].params.weights) > D / 2
    assert path[-1].status == "converged"


def test_steps_are_counted_over_all_columns(monkeypatch):
    objective, start, batch = problem()
    strengths = [penalties.l1(x) for x in (0.2, 0.1, 0.05)]
    steps = []
    path = minimize_path(
        objective, start, batch, strengths, tol=1e-7, callback=steps.append, max_steps=2
    )
    assert all(x.steps <= 2 for x in path)
    assert path[-1].status == "max_steps"
    assert path[-1].gap_bound >= 1e-7
    passes = [x.passes for x in path[-1].trace]
    assert passes == sorted(passes)


def test_a_large_problem_keeps_the_hessian_of_a_step_that_gains_quickly(monkeypatch):
    monkeypatch.setattr(proximal_newton, "SMALL", 0)
    objective, start, batch = problem()
    made, kept = [], []
    pieces = proximal_newton.on_device

    def counted(*args):
        found = pieces(*args)

        def model(*args):
            made.append(1)
            return found.model(*args)

        def renewed(*args):
            kept.append(found.renewed(*args))
            return kept[-1]

        return found._replace(model=model, renewed=renewed)

    monkeypatch.setattr(proximal_newton, "on_device", counted)
    path = minimize_path(objective, start, batch, num=10, min_ratio=0.3, tol=1e-6)
    assert all(x.status == "converged" for x in path)
    assert sum(x is not None for x in kept) > len(made) / 2
