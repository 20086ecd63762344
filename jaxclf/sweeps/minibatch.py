"""Minibatch lanes: the compiled steps of `fit`, mapped over configurations."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import penalties
from jaxclf.data import batches
from jaxclf.models import linear
from jaxclf.objectives import Batch, Objective
from jaxclf.programs import programs_by_shape
from jaxclf.scaling.mesh import MODEL
from jaxclf.scaling.sharing import share_model, to_host
from jaxclf.sparse_rows import is_sparse
from jaxclf.sweeps.grid import Lane, hyperparameters
from jaxclf.sweeps.task import Finished, Task, grouped
from jaxclf.training.optimizers import optimizer_factory
from jaxclf.training.segment import TrainState, initial_state, make_segment

_WIDEST = 256
_COPIES = 6
"""The arrays as large as the weights in a step of Adam: the weights before it, at it and after it,
two moments and the gradient."""
_PROGRAM = ("loss", "label_smoothing", "optimizer", "batch_size", "shuffle_seed")
"""Keys that all lanes of a stack share."""


class Trainee(NamedTuple):
    """A lane that is being trained."""

    lane: Lane
    state: TrainState | None = None
    """The state of the training in host arrays; ``None`` before the first epoch."""
    curves: dict[str, tuple[float, ...]] | None = None
    """One number per epoch for each name: ``loss``, the mean value of the epoch's steps, and the
    measures on the held-out rows."""
    seconds: float = 0.0


class _Programs(NamedTuple):
    begin: Callable
    segment: Callable


def _start(seed: int, task: Task) -> linear.LinearParams:
    """The first parameters of the lanes of a seed, as `linear.init` draws them."""
    outputs = None if task.num_classes == 2 else task.num_classes
    dtype = task.start.weights.dtype
    return linear.init(jax.random.key(seed), task.features.shape[1], outputs, dtype=dtype)


@programs_by_shape
def _programs(loss: Callable, optimizer: str) -> _Programs:
    import optax

    factory = optimizer_factory(optimizer)
    masked = "mask" in inspect.signature(factory).parameters
    static = {"mask": penalties.penalised} if masked else {}

    def transformation(numbers: dict):
        return optax.inject_hyperparams(factory, static_args=tuple(static))(**numbers, **static)

    # The numbers that count are in the state: the numbers given here are never read.
    update = transformation(hyperparameters(optimizer))

    def begin(params, numbers: dict) -> TrainState:
        return initial_state(params, transformation(numbers))

    def segment(state, weights, scale, penalty, features, labels, offset, rows, counts):
        run = make_segment(Objective(linear.logits, loss, penalty), update)
        return run(state, Batch(features, labels, weights, offset), rows, counts, scale, None)

    shared = (None,) * 5
    return _Programs(jax.jit(jax.vmap(begin)), jax.jit(jax.vmap(segment, (0, 0, 0, 0, *shared))))


def train(
    lanes: Sequence[Lane],
    task: Task,
    epochs: int,
    halve_every: int | None,
    memory: float,
    judge: Callable | None,
    done: Callable[[Lane, Finished], None],
    known: Callable[[Lane], bool] = lambda lane: False,
) -> None:
    """Trains lanes for some epochs and hands each on at its end.

    Args:
      lanes: complete configurations, all of a sweep: the bits of a lane depend on the lanes beside
        it in its stack.
      task: the data that the lanes share.
      epochs: the epochs of every lane.
      halve_every: after so many epochs the worse half by log loss on the held-out rows is dropped;
        ``None`` never drops.
      memory: bytes that the lanes of a stack may take.
      judge: ``lanes -> stacked params -> {name: (lanes,)}`` on the held-out rows.
      done: a function that is called with each lane that ends.
      known: whether a lane was handed on by an earlier run. A stack of such lanes alone is passed
        over, where no lane is dropped.
    """
    trainees, ended = [Trainee(lane) for lane in lanes], []
    epoch = 0

    def end(trainee: Trainee, status: str) -> None:
        if known(trainee.lane):
            return
        ended.append((trainee.lane, _finished(trainee, status)))
        # With halving all lanes are handed on at once, because a sweep that is taken up again must
        # halve the same lanes.
        if halve_every is None:
            done(*ended.pop())

    while trainees:
        until = epochs if halve_every is None else min(epochs, epoch + halve_every)
        went_on = []
        for group in grouped(trainees, lambda t: [t.lane[key] for key in _PROGRAM]):
            width = _width(task, len(group), memory)
            for first in range(0, len(group), width):
                chunk = group[first : first + width]
                if all(known(trainee.lane) for trainee in chunk):
                    continue
                trained = _train_stack(chunk, width, task, range(epoch, until), judge)
                if until == epochs:
                    for trainee in trained:
                        end(trainee, "completed")
                else:
                    went_on.extend(trained)
        epoch, trainees = until, sorted(went_on, key=_last_log_loss)
        half = (len(trainees) + 1) // 2
        for trainee in trainees[half:]:
            end(trainee, "dropped")
        trainees = trainees[:half]
    for lane, finished in ended:
        done(lane, finished)


def _train_stack(chunk: list[Trainee], width: int, task: Task, epochs, judge):
    """Trains one stack, filled up with its last lane, for some epochs."""
    padded = [chunk[min(i, len(chunk) - 1)] for i in range(width)]
    lanes = [trainee.lane for trainee in padded]
    first = lanes[0]
    like = task.features, task.start
    run = _programs(task.loss_of(first), first["optimizer"], like=like)
    dtype = task.start.weights.dtype
    if chunk[0].state is None:
        seeds = {lane["seed"] for lane in lanes}
        drawn = {seed: _start(seed, task) for seed in seeds}
        starts = [drawn[lane["seed"]] for lane in lanes]
        names = hyperparameters(first["optimizer"])
        numbers = {name: jnp.array([lane[name] for lane in lanes], dtype) for name in names}
        state = run.begin(_stack(starts), numbers)
    else:
        state = _stack([trainee.state for trainee in padded])
    weights = np.stack([task.weights_of(lane) for lane in lanes])
    scale = (1 / weights.mean(1, dtype=np.float64)).astype(dtype)
    ratio, strength = (np.array([lane[k] for lane in lanes], dtype) for k in ("l1_ratio", "l2"))
    strengths = np.stack([ratio * strength, (1 - ratio) * strength])
    if (factors := task.penalty_factors) is not None:
        strengths = np.multiply.outer(strengths, factors.astype(dtype))
    penalty = penalties.Penalty(*strengths)
    data = Batch(task.features, task.device_labels, offset=task.device_offset)
    plan = batches.make_plan(data, min(first["batch_size"], len(task.labels)), len(task.labels))
    order_key, _ = jax.random.split(jax.random.key(first["shuffle_seed"]))
    state, penalty = share_model((state, penalty), task.mesh)
    weights = task.placed(weights.astype(dtype))
    measure = (lambda params: {}) if judge is None else judge(lanes)
    records, began = [], time.perf_counter()
    for epoch in epochs:
        order = task.places[batches.epoch_order(order_key, epoch, plan.num_rows)]
        sums = np.zeros(width)
        for segment in batches.resident_segments(data, plan, order):
            state, losses = run.segment(
                state,
                weights,
                scale,
                penalty,
                *segment.data[:2],
                segment.data.offset,
                segment.rows,
                segment.counts,
            )
            sums += to_host(losses).astype(np.float64) @ segment.counts
        records.append({"loss": sums / plan.num_rows, **measure(state.params)})
    seconds = (time.perf_counter() - began) / len(chunk)
    state = to_host(state)
    result = []
    for i, trainee in enumerate(chunk):
        old = trainee.curves or dict.fromkeys(records[0], ())
        curves = {name: (*old[name], *(float(r[name][i]) for r in records)) for name in old}
        own = jax.tree.map(lambda x, i=i: x[i], state)
        result.append(Trainee(trainee.lane, own, curves, trainee.seconds + seconds))
    return result


def _finished(trainee: Trainee, status: str) -> Finished:
    failed = not trainee.state.finite
    curves = {name: list(curve) for name, curve in trainee.curves.items()}
    measured = {name: curve[-1] for name, curve in curves.items() if name != "loss"}
    facts = measured | {
        "status": "nonfinite" if failed else status,
        "objective": float("nan") if failed else curves["loss"][-1],
        "steps": int(trainee.state.step),
        "epochs": len(curves["loss"]),
        "seconds": trainee.seconds,
        "curves": curves,
    }
    return Finished(trainee.state.params, facts)


def _last_log_loss(trainee: Trainee) -> float:
    value = trainee.curves["log_loss"][-1]
    return value if trainee.state.finite and np.isfinite(value) else np.inf


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _width(task: Task, num_lanes: int, memory: float) -> int:
    """The number of lanes in a stack.

    A lane takes memory for its weights, and for the logits of all rows while it is measured. Where
    the memory decides, the number is a power of two: a run that is taken up again then finds the
    same, although another amount is free.
    """
    n = len(task.features)
    held = 4 * n * (2 + 3 * (1 if task.num_classes == 2 else task.num_classes))
    if is_sparse(task.features):  # whose columns may be more than the rows
        held += 4 * _COPIES * task.start.weights.size
    width = min(num_lanes, _WIDEST)
    if memory // held < width:
        width = 2 ** int(np.log2(max(1.0, memory // held)))
    parts = 1 if task.mesh is None else task.mesh.shape.get(MODEL, 1)
    return -(-width // parts) * parts
