"""An objective of any form as the solvers see it: evaluated as it is, by automatic derivatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxclf.objectives import Objective
from jaxclf.penalties import Penalty, penalty_value
from jaxclf.programs import programs_by_shape
from jaxclf.solvers import linear_problem as lp
from jaxclf.solvers.conjugate_gradients import conjugate_gradients
from jaxclf.solvers.line_search import line_search
from jaxclf.solvers.problem import Moved, Point, Problem, Readings


def generic_problem(objective: Callable, batch: Any) -> Problem:
    """Any differentiable ``objective(params, batch)``, evaluated as it is."""
    if isinstance(objective, Objective):
        data = batch, objective.penalty or Penalty()
        run = _generic_programs(objective.logits_fn, objective.loss, like=data)
    else:
        run, data = _generic_programs(objective, like=batch), batch
    return Problem(
        start=lambda params: run.start(data, params),
        model=lambda point, size, old, closer: (None, 0.0),
        direction=lambda model, *arguments: run.direction(data, *arguments),
        precondition=_as_it_is,
        move=partial(run.move, data),
        num_rows=1,
        most_rows=1,
        readings=Readings(start=2.0, ray=1.0, trial=1.0, product=2.0),
        noise=10 * float(jnp.finfo(jnp.result_type(float)).eps),
    )


class _GenericPrograms(NamedTuple):
    start: Callable
    direction: Callable
    move: Callable


@programs_by_shape
def _generic_programs(function: Callable, loss: Callable | None = None) -> _GenericPrograms:
    """Of an objective; or of logits and a loss, so that a penalty's strength compiles nothing."""

    def value_of(params, data):
        if loss is None:
            return function(params, data)
        batch, penalty = data
        return Objective(function, loss)(params, batch) + penalty_value(penalty, params)

    def reached(data, params, value) -> Point:
        g = jax.grad(value_of)(params, data)
        return Point(params, value, g, lp.largest(g))

    @jax.jit
    def start(data, params):
        return reached(data, params, value_of(params, data))

    @jax.jit
    def direction(data, point, g, accuracy, curved):
        def product(d):
            return jax.jvp(lambda p: jax.grad(value_of)(p, data), (point.params,), (d,))[1]

        b = jax.tree.map(jnp.negative, g)
        return conjugate_gradients(product, Partial(_same), b, accuracy, curved)

    @jax.jit
    def move(data, point, d, slope, flatness, first):
        def at(t):
            near = lp.add_scaled(point.params, t, d)
            return jax.jvp(lambda p: value_of(p, data), (near,), (d,))

        value = point.value
        noise = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)
        found = line_search(at, value, slope, first, noise=noise, flatness=flatness)
        new = reached(data, lp.add_scaled(point.params, found.length, d), found.value)
        return Moved(new, found.length, found.trials, jnp.ones(()))

    return _GenericPrograms(start, direction, move)


def _as_it_is(model: None, g):
    return g


def _same(r):
    return r
