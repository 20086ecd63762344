"""Working sets of groups: the optimum of a solve over all columns, and every group that is out."""

import jax
import numpy as np
import pytest

from jaxclf import losses, make_batch, make_objective, minimize, penalties
from jaxclf.models import linear
from jaxclf.models.linear import LinearParams
from jaxclf.solvers import group_columns

D = 200


def data(num_rows=150, num_classes=3):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_rows, D))
    x[:, 1:] += 0.5 * x[:, :-1]
    scores = x[:, :: D // 20] @ rng.normal(size=(20, num_classes))
    return x, np.argmax(scores + rng.gumbel(size=scores.shape), 1)


GROUPS = {
    "each": [[j] for j in range(D)],
    "large": [list(range(70)), *([j, j + 1] for j in range(70, D, 2))],
}


def problem(kind, strength, l1=0.0):
    x, y = data()
    penalty = penalties.group_lasso(strength, GROUPS[kind], l1=l1)
    objective = make_objective(linear.logits, losses.categorical_nll, penalty)
    return objective, LinearParams(np.zeros((3, D)), np.zeros(3)), make_batch(x, y)


@pytest.mark.parametrize(
    ("kind", "strength", "l1"), [("each", 0.05, 0.0), ("each", 0.02, 0.01), ("large", 0.07, 0.0)]
)
def test_the_optimum_is_that_of_a_solve_over_all_columns(kind, strength, l1, x64, monkeypatch):
    given = problem(kind, strength, l1)
    sets, chosen = [], group_columns._columns
    monkeypatch.setattr(
        group_columns, "_columns", lambda *args: sets.append(chosen(*args)) or sets[-1]
    )
    found = minimize(*given, tol=1e-8)
    assert found.status == "converged"
    used = np.asarray(found.params.weights).any(0)
    assert 0 < used.sum() < D
    assert len(sets[0]) < D
    assert set(np.flatnonzero(used)) <= set(sets[-1])
    monkeypatch.setattr(group_columns, "_FEWEST", D)
    whole = minimize(*given, tol=1e-8)
    assert abs(found.value - whole.value) <= found.gap_bound + whole.gap_bound
    np.testing.assert_array_equal(used, np.asarray(whole.params.weights).any(0))


def test_a_start_that_misses_groups_lets_them_in(x64):
    objective, start, batch = problem("each", 0.05)
    rng = np.random.default_rng(1)
    far = start._replace(weights=rng.normal(size=(3, D)) * (np.arange(D) < 10))
    a, b = (minimize(objective, x, batch, tol=1e-8) for x in (start, far))
    assert a.status == b.status == "converged"
    assert abs(a.value - b.value) <= a.gap_bound + b.gap_bound


def test_steps_count_over_all_sets_and_may_run_out(x64):
    objective, start, batch = problem("each", 0.02)
    steps = []
    result = minimize(objective, start, batch, tol=1e-8, callback=steps.append)
    assert result.status == "converged"
    assert [step.value for step in result.trace] == sorted(
        (step.value for step in result.trace), reverse=True
    )
    assert np.all(np.diff([step.passes for step in result.trace]) > 0)
    for count in (1, result.steps - 1):
        short = minimize(objective, start, batch, tol=1e-8, max_steps=count)
        assert short.status == "max_steps"
        assert short.steps == count
        assert result.value - result.gap_bound <= short.value <= result.value + short.gap_bound
    again = minimize(objective, result.params, batch, tol=1e-6)
    assert again.steps == 0
    assert again.status == "converged"


def test_a_penalty_that_is_strong_leaves_all_groups_out():
    objective, start, batch = problem("large", 10.0)
    start = jax.tree.map(lambda x: x.astype(np.float32), start)
    result = minimize(objective, start, batch)
    assert result.status == "converged"
    assert not np.any(result.params.weights)
