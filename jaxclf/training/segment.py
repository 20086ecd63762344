"""The compiled part of training: some minibatch steps in one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.extended_reals import times
from jaxclf.objectives import Batch, Objective
from jaxclf.penalties import penalty_value
from jaxclf.scaling.mesh import spread
from jaxclf.scaling.sharing import on_device
from jaxclf.sparse_rows import is_sparse


class TrainState(NamedTuple):
    """Everything a step changes, a plain pytree."""

    params: Any
    previous: Any
    """Parameters before the last step: the last ones whose loss is known to be finite."""
    optimizer_state: Any
    step: Any
    """The number of steps taken, ``()`` int32."""
    finite: Any
    """Whether loss and parameters stayed finite, ``()`` bool; once false, nothing changes any more.
    """


def initial_state(params, optimizer) -> TrainState:
    """The state before the first step; every leaf is an array on the device."""
    params = on_device(params, copy=True)
    none, finite = jax.device_put((np.int32(0), np.True_))
    return TrainState(params, params, optimizer.init(params), none, finite)


def make_segment(
    objective: Objective, optimizer, *, augment: Callable | None = None, accumulation_steps: int = 1
) -> Callable:
    """A program of ``steps`` minibatch steps: ``(state, data, rows, counts, scale, key) -> …``.

    A step over the B real rows of its batch descends

        ``Σᵢ (wᵢ / w̄) lossᵢ / B + penalty``,   w̄ the mean weight of all rows,

    whose mean over the batches of an epoch is the objective over all rows: the last batch, which
    may be smaller, and rows of unequal weight count as they should.

    Args:
      objective: an objective from :func:`jaxclf.make_objective`.
      optimizer: an optax transformation.
      augment: ``(key, features of one example) -> features``, drawn anew for every row and step.
      accumulation_steps: how many parts a batch is cut into, one after another, to hold less in
        memory. Their gradients are added, so the step is the same up to rounding.

    Returns:
      A pure function of the state, a :class:`Batch` of rows on the device, ``rows``
      ``(steps, batch)``, ``counts`` ``(steps,)`` of real rows, ``scale = 1 / w̄`` and a key. It
      returns the new state and the value ``(steps,)`` before each step, 0 for an empty step.
      Sparse features are those of each step, from :func:`jaxclf.sparse_rows.rows_of_steps`.
    """
    import optax

    optimizer = optax.with_extra_args_support(optimizer)

    def partial_mean(params, piece: Batch):
        losses = objective.per_example(params, piece._replace(weights=None))
        return jnp.sum(times(piece.weights, losses))

    def penalty(params):
        if objective.penalty is None:
            return jnp.zeros(())
        return penalty_value(objective.penalty, params)

    def value(params, batch: Batch):
        if accumulation_steps == 1:
            return partial_mean(params, batch) + penalty(params)
        total = jax.lax.map(
            lambda piece: partial_mean(params, piece), _cut(batch, accumulation_steps)
        )
        return jnp.sum(total) + penalty(params)

    def value_and_grad(params, batch: Batch):
        if accumulation_steps == 1:
            return jax.value_and_grad(value)(params, batch)

        def add(total, piece):
            loss, gradient = jax.value_and_grad(partial_mean)(params, piece)
            return jax.tree.map(lambda t, x: t + x.astype(t.dtype), total, (loss, gradient)), ()

        loss, gradient = jax.value_and_grad(penalty)(params)
        start = loss.astype(_value_dtype(params)), gradient
        return jax.lax.scan(add, start, _cut(batch, accumulation_steps))[0]

    def take(data: Batch, rows, count, sparse, scale, key, dtype) -> Batch:
        batch = spread(jax.tree.map(lambda x: x[rows], data))
        real = jnp.arange(len(rows)) < count
        weights = real if batch.weights is None else times(real, batch.weights)
        weights = weights.astype(dtype) * jnp.asarray(scale, dtype) / jnp.maximum(count, 1)
        features = batch.features if sparse is None else sparse
        if augment is not None:
            features = jax.vmap(augment)(jax.random.split(key, len(rows)), features)
        return Batch(features, batch.labels, weights, batch.offset)

    def step(state: TrainState, batch: Batch):
        loss, gradient = value_and_grad(state.params, batch)
        updates, optimizer_state = optimizer.update(
            gradient,
            state.optimizer_state,
            state.params,
            value=loss,
            grad=gradient,
            value_fn=lambda params: value(params, batch),
        )
        moved = optax.apply_updates(state.params, updates)
        known = state.finite & jnp.isfinite(loss)
        fine = known & _all_finite(moved)
        # If the step is not fine, the state stays where the loss was last finite, and the optimizer
        # as it was there.
        stay = _select(known, state.params, state.previous)
        return TrainState(
            params=_select(fine, moved, stay),
            previous=_select(fine, state.params, stay),
            optimizer_state=_select(fine, optimizer_state, state.optimizer_state),
            step=state.step + fine,
            finite=fine,
        ), loss.astype(_value_dtype(state.params))

    def segment(state: TrainState, data: Batch, rows, counts, scale, key):
        sparse = None
        if is_sparse(data.features):
            sparse, data = data.features, data._replace(features=None)

        def body(state, at):
            rows, count, own = at
            step_key = jax.random.fold_in(key, state.step) if augment is not None else key
            dtype = _value_dtype(state.params)

            def taken(state):
                return step(state, take(data, rows, count, own, scale, step_key, dtype))

            def skipped(state):
                return state, jnp.zeros((), dtype)

            # The condition is on the count alone: a condition on the state, mapped over many
            # states, would copy each of them at every step.
            return jax.lax.cond(count > 0, taken, skipped, state)

        return jax.lax.scan(body, state, (rows, counts, sparse))

    return segment


def _cut(batch: Batch, accumulation_steps: int) -> Batch:
    return jax.tree.map(lambda x: x.reshape(accumulation_steps, -1, *x.shape[1:]), batch)


def _value_dtype(params):
    return jnp.result_type(jnp.float32, *jax.tree.leaves(params))


def _all_finite(tree) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _select(condition, one, other):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
