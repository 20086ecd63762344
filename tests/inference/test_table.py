"""Errors, tests and intervals of coefficients, beside statsmodels and beside each other."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import special
from sklearn.datasets import load_iris

from jaxclf import losses, make_batch, make_objective, minimize, penalties
from jaxclf.inference import infer
from jaxclf.models import linear
from tests.inference.problems import NAMES, rows

STATSMODELS = json.loads(Path(__file__).with_name("statsmodels.json").read_text())
COLUMNS = ("estimate", "standard_error", "z", "p_value", "lower", "upper")


def problem(name, penalty=None, dtype=np.float32, weights=None):
    x, y, clusters = rows(name)
    K = y.max() + 1
    outputs = () if K == 2 else (K,)
    start = linear.LinearParams(np.zeros((*outputs, x.shape[1]), dtype), np.zeros(outputs, dtype))
    loss = losses.bernoulli_nll if K == 2 else losses.categorical_nll
    return make_objective(linear.logits, loss, penalty), start, make_batch(x, y, weights), clusters


@pytest.mark.parametrize("covariance", ["model", "sandwich", "cluster"])
@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_that_of_statsmodels(name, covariance):
    objective, start, batch, clusters = problem(name)
    given = clusters if covariance == "cluster" else None
    found = infer(objective, start, batch, covariance=covariance, clusters=given)
    expected = STATSMODELS[name][covariance]
    for column in COLUMNS:
        np.testing.assert_allclose(
            getattr(found, column), expected[column], 1e-6, 0, err_msg=column
        )


def test_numpy_gives_the_same_covariances():
    """H and Σ g gᵀ from their formulas, with weights of both meanings."""
    x, y, _ = rows("breast_cancer")
    weights = np.random.default_rng(0).integers(0, 4, len(y)).astype(np.float32)
    objective, start, batch, _ = problem("breast_cancer", penalties.l2(0.01), weights=weights)
    design, total = np.c_[x, np.ones(len(x))].astype(np.float64), weights.sum(dtype=np.float64)
    w = weights.astype(np.float64)
    found = {
        kind: infer(objective, start, batch, covariance=kind, weights=meaning)
        for kind, meaning in [("model", "frequency"), ("posterior", "frequency")]
    }
    theta = found["model"].estimate
    p = 1 / (1 + np.exp(-design @ theta))
    H = design.T @ ((w * p * (1 - p))[:, None] * design) / total
    A = H + 0.01 * np.diag([1.0] * 4 + [0.0])
    inverse = np.linalg.inv(A)
    assert abs(design.T @ (w * (p - y)) / total + 0.01 * np.r_[theta[:4], 0]).max() < 1e-12
    np.testing.assert_allclose(found["model"].covariance, inverse @ H @ inverse / total, 1e-7)
    np.testing.assert_allclose(found["posterior"].covariance, inverse / total, 1e-7)
    assert "frequentist" in found["model"].kind
    assert "posterior" in found["posterior"].kind
    g = design * (p - y)[:, None]
    for meaning, each in (("frequency", w), ("sampling", w**2)):
        one = infer(objective, start, batch, covariance="sandwich", weights=meaning)
        expected = inverse @ (g.T * each / total**2 @ g) @ inverse
        np.testing.assert_allclose(one.covariance, expected, 1e-6)


def test_a_row_of_frequency_three_is_three_rows():
    x, y, _ = rows("wine")
    counts = np.arange(len(y)) % 3 + 1
    objective, start, batch, _ = problem("wine", weights=counts.astype(np.float32))
    repeated = make_batch(np.repeat(x, counts, 0), np.repeat(y, counts))
    for covariance in ("model", "sandwich"):
        short = infer(objective, start, batch, covariance=covariance, weights="frequency")
        long = infer(objective, start, repeated, covariance=covariance)
        np.testing.assert_allclose(short.covariance, long.covariance, 1e-7)
        assert short.total == long.total == counts.sum()


def test_clusters_of_one_row_are_the_sandwich():
    objective, start, batch, _ = problem("wine")
    each = infer(
        objective, start, batch, covariance="cluster", clusters=[f"row {i}" for i in range(178)]
    )
    np.testing.assert_allclose(
        each.covariance, infer(objective, start, batch, covariance="sandwich").covariance, 1e-9
    )


@pytest.mark.parametrize("penalty", [None, penalties.l2(0.1)])
def test_contrasts_do_not_depend_on_what_they_are_counted_from(penalty):
    objective, start, batch, _ = problem("wine", penalty)
    centred = infer(objective, start, batch, reference=None)
    rows_of_classes = centred.estimate.reshape(3, 4)
    np.testing.assert_allclose(rows_of_classes.sum(0), 0, atol=1e-9)
    for reference in range(3):
        one = infer(objective, start, batch, reference=reference)
        others = [k for k in range(3) if k != reference]
        T = np.kron(np.eye(3)[others] - np.eye(3)[[reference]], np.eye(4))
        np.testing.assert_allclose(one.estimate, T @ centred.estimate, 1e-9)
        np.testing.assert_allclose(one.covariance, T @ centred.covariance @ T.T, 1e-7)


def test_it_starts_from_a_fit_in_float32_and_leaves_the_settings_alone():
    objective, start, batch, _ = problem("iris_pair")
    fitted = minimize(objective, start, batch)
    assert fitted.params.weights.dtype == np.float32
    found = infer(objective, fitted.params, batch)
    np.testing.assert_allclose(found.estimate, STATSMODELS["iris_pair"]["model"]["estimate"], 1e-6)
    assert not jax.config.jax_enable_x64


def test_what_it_prints_and_writes():
    objective, start, batch, _ = problem("wine")
    named = {"feature_names": ["alcohol", "acid", "ash"], "class_names": ["white", "blue", "red"]}
    found = infer(objective, start, batch, reference=1, level=0.9, **named)
    assert found.names[:3] == ("white: alcohol", "white: acid", "white: ash")
    lines = str(found).splitlines()
    assert lines[0].split()[-4:] == ["90", "%", "from", "to"]
    assert lines[1].startswith("white: alcohol")
    assert "contrasts to blue" in lines[-1]
    assert len(lines) == 10
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["name"] == list(found.names)
    assert plain["upper"] == found.upper.tolist()
    frame = found.to_frame()
    assert frame.loc["red: acid", "z"] == found.z[5]
    assert found.estimate[0] - found.lower[0] == pytest.approx(1.6448536 * found.standard_error[0])


def test_it_refuses_what_has_no_errors():
    objective, start, batch, _ = problem("iris_pair")
    x, y, _ = rows("iris_pair")
    separated = make_batch(np.c_[x[:, :1], y], y)
    short = linear.LinearParams(np.zeros(2, np.float32), np.float32(0))
    with pytest.raises(ValueError, match="no finite maximum of the likelihood"):
        infer(objective, short, separated)
    with pytest.raises(ValueError, match="depend on each other"):
        infer(objective, short, make_batch(np.c_[x[:, 0], 2 * x[:, 0]], y))
    with pytest.raises(ValueError, match="an L1 penalty"):
        infer(objective_with(penalties.l1(0.1)), start, batch)
    with pytest.raises(TypeError, match="logits of"):
        infer(make_objective(lambda p, x: p @ x, losses.bernoulli_nll), start, batch)


def test_bounds_hold_where_no_weight_is_at_its_bound():
    objective, start, batch, _ = problem("iris_pair")
    free = infer(objective, start, batch)
    weights = free.estimate[:-1]
    inside = infer(objective, start, batch, bounds=(weights - 0.1, weights + 0.1))
    np.testing.assert_array_equal(inside.standard_error, free.standard_error)
    sides = np.where(weights > 0, -np.inf, 0), np.where(weights > 0, 0, np.inf)
    for bounds in (sides, (-np.inf, weights)):
        with pytest.raises(ValueError, match="do not hold where a weight is at its bound: without"):
            infer(objective, start, batch, bounds=bounds)


def objective_with(penalty):
    return make_objective(linear.logits, losses.bernoulli_nll, penalty)


def test_it_says_so_where_the_classes_may_be_separated():
    """By its sepals setosa is apart from the others, who overlap."""
    x, y = load_iris(return_X_y=True)
    start = linear.LinearParams(np.zeros((3, 2)), np.zeros(3))
    objective = make_objective(linear.logits, losses.categorical_nll)
    with pytest.raises(ValueError, match="separated"):
        infer(objective, start, make_batch(x[:, :2], y))


def test_it_refuses_options_that_do_not_fit():
    objective, start, batch, clusters = problem("wine")
    weighted = batch._replace(weights=np.linspace(0.5, 1, len(clusters)))
    for options, message in (
        ({"covariance": "HC3"}, "must be one of"),
        ({"covariance": "cluster"}, "clusters are given"),
        ({"clusters": clusters}, "clusters are given"),
        ({"covariance": "cluster", "clusters": clusters[:5]}, "must have shape"),
        ({"covariance": "cluster", "clusters": 0 * clusters}, "at least two"),
        ({"reference": 3}, "a class 0 … 2"),
        ({"level": 1.0}, "level"),
        ({"feature_names": ["a"]}, "3 names"),
        ({"weights": "survey"}, "must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            infer(objective, start, batch, **options)
    for options, message in (
        ({}, "say weights="),
        ({"weights": "frequency"}, "whole numbers"),
        ({"weights": "sampling"}, "independent draws"),
    ):
        with pytest.raises(ValueError, match=message):
            infer(objective, start, weighted, **options)


def count_as_many(monkeypatch):
    """Any number of parameters counts as many."""
    for module in ("fitted", "hessian", "optimum"):
        monkeypatch.setattr(f"jaxclf.inference.{module}.FEW", 1)


def test_a_hessian_of_many_parameters_is_the_same(monkeypatch):
    objective, start, batch, _ = problem("wine", penalties.l2(0.01))
    few = infer(objective, start, batch).covariance
    count_as_many(monkeypatch)
    monkeypatch.setattr("jaxclf.inference.hessian._ROWS_AT_ONCE", 50)
    found = infer(objective, start, batch)
    np.testing.assert_allclose(np.diagonal(found.covariance), np.diagonal(few), 1e-4)
    assert found.gap_bound < 1e-11
    monkeypatch.setattr("jaxclf.inference.optimum._ERROR", 1e-12)
    for covariance in ("model", "sandwich"):
        found = infer(objective, start, batch, covariance=covariance).covariance
        monkeypatch.undo()
        few = infer(objective, start, batch, covariance=covariance).covariance
        np.testing.assert_allclose(found, few, 1e-8)
        count_as_many(monkeypatch)
        monkeypatch.setattr("jaxclf.inference.optimum._ERROR", 1e-12)


def test_an_optimum_is_not_sought_again(monkeypatch):
    objective, start, batch, _ = problem("wine", penalties.l2(0.01))
    fitted, expected = minimize(objective, start, batch).params, infer(objective, start, batch)
    monkeypatch.setattr("jaxclf.inference.fitted.minimize", None)
    found = infer(objective, fitted, batch)
    np.testing.assert_allclose(found.estimate, expected.estimate, 1e-9)
    np.testing.assert_allclose(found.standard_error, expected.standard_error, 1e-8)
    from_zero = infer(objective, start, batch)
    np.testing.assert_allclose(from_zero.estimate, expected.estimate, 1e-9)
    monkeypatch.setattr("jaxclf.inference.optimum._CHEAP", 0)
    found = infer(objective, fitted, batch)
    np.testing.assert_allclose(found.estimate, expected.estimate, 1e-9)
    with pytest.raises(TypeError, match="not callable"):
        infer(objective, start, batch)


def test_an_optimum_of_many_parameters_is_not_sought_again(monkeypatch):
    objective, start, batch, _ = problem("wine", penalties.l2(0.01))
    count_as_many(monkeypatch)
    expected = infer(objective, start, batch, reference=None)
    theta = expected.estimate.reshape(3, 4)
    fitted = linear.LinearParams(theta[:, :3], theta[:, 3])
    monkeypatch.setattr("jaxclf.inference.fitted.minimize", None)
    monkeypatch.setattr("jaxclf.inference.optimum._CHEAP", 0)
    found = infer(objective, fitted, batch, reference=None)
    np.testing.assert_allclose(found.estimate, expected.estimate, 1e-8)
    np.testing.assert_allclose(found.standard_error, expected.standard_error, 1e-4)
    with pytest.raises(TypeError, match="not callable"):
        infer(objective, jax.tree.map(lambda x: 1.001 * x, fitted), batch)


def test_a_column_of_zeros_has_no_error_by_the_model_and_that_of_the_prior_by_the_posterior():
    objective, start, batch, _ = problem("wine", penalties.l2(0.01))
    features = np.asarray(batch.features).copy()
    features[:, 1] = 0
    given = objective, start, batch._replace(features=features)
    found = infer(*given)
    assert found.standard_error[[1, 5]].tolist() == [0, 0]
    assert np.isnan(found.z[1])
    posterior = infer(*given, covariance="posterior").covariance[1, 1]
    assert posterior == pytest.approx(2 / (0.01 * 178))


def errors_of_three_classes(x, y, ridge, estimate):
    """NumPy's standard errors of contrasts to the first class, at estimates of them.

    The contrasts give the probabilities, whatever the shift; what no penalty sees has no inverse.
    """
    D, n = np.c_[x, np.ones(len(x))].astype(np.float64), len(y)
    p = special.softmax(np.c_[np.zeros(n), D @ estimate.reshape(2, 4).T], 1)
    M = p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None]
    H = np.einsum("nkj,nd,ne->kdje", M, D, D).reshape(12, 12) / n
    B = np.linalg.pinv(H + np.diag(ridge.ravel()), rcond=1e-12)
    g = ((p - np.eye(3)[y])[:, :, None] * D[:, None]).reshape(n, 12)
    T = np.kron(np.array([[-1, 1, 0], [-1, 0, 1]]), np.eye(4)) @ B
    meats = {"posterior": H + np.diag(ridge.ravel()), "model": H, "sandwich": g.T @ g / n}
    return {kind: np.sqrt(np.diagonal(T @ meat @ T.T / n)) for kind, meat in meats.items()}


@pytest.mark.parametrize("few", [True, False])
def test_a_column_of_one_row_has_its_small_errors(few, monkeypatch):
    """The ridge holds its coefficients near zero: their variance is 1e-11 of the posterior's."""
    objective, start, batch, _ = problem("wine", penalties.l2(1e-3))
    x = np.asarray(batch.features).copy()
    x[:, 1] = np.where(np.arange(178) == 5, 1e-6, 0)
    if not few:
        count_as_many(monkeypatch)
    given = objective, start, batch._replace(features=x)
    found = {kind: infer(*given, covariance=kind) for kind in ("model", "sandwich")}
    ridge = np.tile([1e-3, 1e-3, 1e-3, 0], (3, 1))
    expected = errors_of_three_classes(x, np.asarray(batch.labels), ridge, found["model"].estimate)
    for kind, table in found.items():
        np.testing.assert_allclose(table.standard_error, expected[kind], 1e-6 if few else 1e-4)


BY_COLUMN = np.array([0.0, 1.0, 4.0])
BY_COEFFICIENT = np.array([[0.0, 1.0, 4.0], [0.0, 0.0, 1.0], [0.0, 2.0, 0.5]])


@pytest.mark.parametrize("factors", [BY_COLUMN, BY_COEFFICIENT])
@pytest.mark.parametrize("few", [True, False])
def test_a_strength_for_each_coefficient(factors, few, monkeypatch):
    if not few:
        count_as_many(monkeypatch)
    objective, start, batch, _ = problem("wine", penalties.l2(0.05, factors=factors))
    x, y, _ = rows("wine")
    ridge = 0.05 * np.c_[np.broadcast_to(factors, (3, 3)), np.zeros(3)]
    kinds = ("model", "posterior", "sandwich")
    found = {kind: infer(objective, start, batch, covariance=kind) for kind in kinds}
    fitted = minimize(objective, start, batch, tol=1e-7).params
    theta = np.c_[fitted.weights, fitted.intercept]
    contrast = (theta[1:] - theta[0]).ravel()
    np.testing.assert_allclose(found["model"].estimate, contrast, rtol=0.02, atol=0.02)
    expected = errors_of_three_classes(x, y, ridge, found["model"].estimate)
    close = 1e-6 if few else 2e-4
    for kind, errors in expected.items():
        np.testing.assert_allclose(found[kind].standard_error, errors, close)
        assert found[kind].gap_bound < 1e-10


def test_a_column_that_is_fixed_is_refused():
    objective, start, batch, _ = problem("wine", penalties.l2(0.1, factors=[1, np.inf, 1]))
    with pytest.raises(ValueError, match="inference takes finite penalty factors"):
        infer(objective, start, batch)
