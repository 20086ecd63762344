"""When a fit stops, and what it then says."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclf import losses, make_objective, penalties
from jaxclf.models import linear
from jaxclf.solvers.minimize import minimize
from tests.solvers.problems import LAMBDA, SMOOTH, SOFTMAX, small, start


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
