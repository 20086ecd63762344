"""Inputs that a full-batch fit refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import Batch, losses, make_objective, minimize_path, penalties
from jaxclf.models import linear
from jaxclf.objectives import with_checked_labels
from jaxclf.solvers.minimize import minimize
from tests.solvers.problems import SOFTMAX, small, start

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
        ({"solver": "proximal_newton"}, ValueError,
         "needs an L1 penalty or a bound on weights; newton_cg, newton_chole"),
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


@pytest.mark.parametrize("unused", [-1, 3, 255])
def test_a_row_of_weight_zero_may_have_any_label(unused):
    """The loss of such a label is no number, and the row does not count."""
    batch = small()
    labels = batch.labels.at[5].set(unused)
    weights = jnp.ones(len(labels)).at[5].set(0.0)
    one, other = (
        minimize(SOFTMAX, start(5, 3), batch._replace(labels=y, weights=weights), tol=1e-9)
        for y in (batch.labels, labels)
    )
    assert other.status == "converged"
    assert other.value == pytest.approx(one.value, abs=1e-8)
    assert labels[5] == unused
    with pytest.raises(ValueError, match=f"classes 0 … 2, got {unused} in row 5"):
        minimize(SOFTMAX, start(5, 3), batch._replace(labels=labels))


@pytest.mark.parametrize(
    ("loss", "unused"), [(losses.logistic_margin, 0.0), (losses.bernoulli_nll, 2.0)]
)
def test_nor_do_other_labels_that_the_loss_does_not_take(loss, unused):
    x = np.array([[1.0], [2.0], [-1.0], [0.5], [3.0]], np.float32)
    labels = np.array([1, 1, unused, -1, 1] if unused == 0 else [1, 1, unused, 0, 1], np.float32)
    batch = Batch(x, labels, np.array([1, 1, 0, 1, 1], np.float32))
    objective = make_objective(linear.logits, loss, penalties.l2(0.1))
    assert minimize(objective, start(1), batch).status == "converged"


@pytest.mark.parametrize("strengths", [[1.0, 0.1], []])
def test_a_path_is_of_penalties(strengths):
    with pytest.raises((TypeError, ValueError), match=r"penalties|at least one penalty"):
        minimize_path(SOFTMAX, start(5, 3), small(), strengths)
    one = minimize_path(SOFTMAX, start(5, 3), small(), penalties.l2(0.1))
    assert len(one) == 1


def test_labels_in_64_bits_stay_so(x64):
    """A label that is no number is replaced outside 64-bit mode too."""
    y = 1e8 + np.arange(6.0)
    y[2] = np.nan
    weights = np.isfinite(y).astype(float)
    batch = Batch(jnp.asarray(np.eye(6)[:, :2]), jnp.asarray(y), jnp.asarray(weights))
    with jax.enable_x64(False):
        made = with_checked_labels(batch, losses.squared_error, 1)
    np.testing.assert_array_equal(np.asarray(made.labels)[3:], y[3:])
