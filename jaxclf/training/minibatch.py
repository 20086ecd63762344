"""Minibatch training: the one loop over epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf.data import batches
from jaxclf.forks import refuse_fork
from jaxclf.models.linear import is_linear
from jaxclf.objectives import Batch, Objective, check_rows, check_takes_sparse
from jaxclf.programs import programs_by_shape
from jaxclf.promotion import standard_promotion
from jaxclf.scaling.mesh import make_mesh, using
from jaxclf.scaling.sharing import on_device, row_places, share_model, to_host
from jaxclf.signals import ends_in_order
from jaxclf.sparse_rows import is_sparse
from jaxclf.stored_rows import StoredRows
from jaxclf.training import checkpoints
from jaxclf.training.callbacks import Progress, show_progress
from jaxclf.training.inputs import (
    check_arguments,
    check_early_stopping,
    check_whole_rows,
    labels_checked,
    over_mean_weight,
    placed,
)
from jaxclf.training.optimizers import optimizer_of
from jaxclf.training.run import (
    EarlyStopping,
    Run,
    end_epoch,
    fingerprint,
    judge,
    progress_of,
    resume,
    save,
)
from jaxclf.training.segment import TrainState, initial_state, make_segment

_LEARNING_RATE = 1e-3
"""The learning rate of an optimizer that is given by name, which is that of Adam's authors."""
_FIRST_SAVE, _SAVE_SHARE = 1.0, 10
"""Seconds of training until the first checkpoint, and how many times as long as a save takes the
training goes on until the next one, where ``save_seconds`` allows it."""


class FitResult(NamedTuple):
    """The result of training."""

    params: Any
    """The best parameters by the monitored measure with early stopping, else the last ones. They
    are always finite."""
    status: str
    """``completed``, ``stopped_early``, or ``nonfinite``: a loss or a parameter became NaN or
    infinite, and ``params`` are the last parameters whose loss was finite."""
    history: tuple[dict, ...]
    """One record per epoch: ``epoch`` from 0, ``loss`` (the mean value of its steps, penalty
    included), ``seconds``, and what ``evaluate`` returned."""
    state: TrainState
    """The state after the last step, that of the optimizer included."""


@standard_promotion
def fit(
    objective: Objective,
    params,
    data: Batch,
    *,
    optimizer,
    batch_size: int,
    epochs: int,
    key,
    augment: Callable | None = None,
    accumulation_steps: int = 1,
    evaluate: Callable | None = None,
    early_stopping: EarlyStopping | None = None,
    stream: bool | None = None,
    devices: Any = None,
    checkpoint: Path | str | None = None,
    save_seconds: float = 30.0,
    callbacks: Sequence[Callable[[Progress], None]] = (),
    verbose: int = 0,
) -> FitResult:
    """Minimises an objective by steps over minibatches, each epoch in a new order.

    A step over the B rows of a batch descends ``Σᵢ (wᵢ / w̄) lossᵢ / B + penalty``, with w̄ the mean
    weight of all rows; see :func:`jaxclf.training.segment.make_segment`. The steps are traced once.
    The same arguments give the same bits, whether the run was stopped and resumed or not.

    Args:
      objective: an objective from :func:`jaxclf.make_objective`.
      params: the start, any pytree of floating arrays; or the ``state`` of an earlier result with
        the same optimizer, which goes on from there.
      data: rows of :func:`jaxclf.make_batch`, or a :class:`Batch` of host arrays, memory maps for
        instance, which are copied to the device if they take less than half of what is free there,
        and else are read as they are needed, as sparse :class:`jaxclf.data.StoredRows` always are.
        Sparse features need a linear model, and neither ``augment``, ``accumulation_steps`` nor
        ``devices``.
      optimizer: an optax transformation, schedules included, or the name of one, such as
        ``adam``, whose learning rate is then 1e-3. A transformation that asks for the value or for
        a value function gets the one of the batch.
      batch_size: rows of a step; all rows if it is larger than their number.
      epochs: passes over the rows.
      key: a JAX random key, or a whole number that makes one, for the order of the rows and for
        ``augment``.
      augment: ``(key, features of one example) -> features``, in training only.
      accumulation_steps: parts of a batch that are worked on one after another. They must divide
        the batch size, and do not change the step but for rounding.
      evaluate: ``params -> {name: number}`` after each epoch, such as
        :func:`jaxclf.training.make_evaluation`.
      early_stopping: when to stop before the last epoch; off by default.
      stream: whether to read rows as they are needed; by default decided by size.
      devices: the devices over which the rows of each batch are shared out: ``"all"``, a number or
        a mesh of :func:`jaxclf.scaling.make_mesh`, which may share out the classes of a linear
        model too; by default one. The rows are then held by the devices, so ``stream`` must be off.
        Where several processes run, each gives its own rows, and all else must be the same; rows
        are numbered process by process.
      checkpoint: a folder. The run is saved there now and then, and when it ends or is interrupted
        by Ctrl-C or SIGTERM, and is taken up from there if it is found there. Raise ``epochs`` to
        train on.
      save_seconds: least time between two checkpoints. The first one comes after a second, and the
        time to the next doubles until it is this long.
      callbacks: functions that are called with a :class:`Progress` after every few steps.
      verbose: 0 prints nothing, 1 shows progress, 2 also a line per epoch.

    Raises:
      ValueError, TypeError: arguments that do not fit, or bad data.
      CheckpointError: a damaged checkpoint, or one of another run: with other rows, start, batch
        size, key or kind of optimizer, or with more than ``epochs``. Another objective or step size
        is not noticed.
      OSError: a checkpoint that cannot be written.

    Source: Bottou, Curtis and Nocedal, Optimization methods for large-scale machine learning, SIAM
    Review 60 (2018), section 3.
    """
    refuse_fork()
    optimizer = optimizer_of(optimizer, _LEARNING_RATE)
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        key = jax.random.key(key)
    sizes = {"batch_size": batch_size, "epochs": epochs, "accumulation_steps": accumulation_steps}
    check_arguments(objective, params, data, optimizer, key, sizes)
    mesh = None if devices is None else make_mesh(devices)
    check_rows(data)
    stored = isinstance(data.features, StoredRows)
    if stored or is_sparse(data.features):
        check_takes_sparse(objective.logits_fn)
        check_whole_rows(augment, accumulation_steps, stream and not stored, mesh)
    count = len(data.features)
    given = labels_checked(objective, params, data, augment, key)
    data, streamed = placed(given, stream, mesh)
    places = np.arange(count, dtype=np.int32) if mesh is None else row_places(count, mesh)
    # A batch larger than the data holds all rows, rounded up to a multiple of accumulation_steps.
    batch_size = min(batch_size, math.ceil(len(places) / accumulation_steps) * accumulation_steps)
    plan = batches.make_plan(given, batch_size, len(places))
    scale = over_mean_weight(given)
    order_key, augment_key = jax.random.split(key)
    run_segment = _compiled_segment(
        objective.logits_fn,
        objective.loss,
        optimizer,
        augment,
        accumulation_steps,
        like=(data, params),
    )
    segments_of = batches.streamed_segments if streamed else batches.resident_segments

    def train_epoch(run: Run, tell: Callable) -> Run:
        mark = time.perf_counter()
        order = places[batches.epoch_order(order_key, run.epoch, plan.num_rows)]
        for segment in segments_of(data, plan, order, run.segment):
            state, losses = run_segment(objective.penalty, run.state, *segment, scale, augment_key)
            sums = np.asarray(to_host(losses), np.float64) @ segment.counts
            now = time.perf_counter()
            run = run._replace(
                state=state,
                segment=run.segment + 1,
                rows=run.rows + int(segment.counts.sum()),
                loss_sum=run.loss_sum + float(sums),
                seconds=run.seconds + now - mark,
            )
            if not state.finite:
                return run._replace(status="nonfinite")
            if run.segment < plan.segments:
                tell(run)
            mark = time.perf_counter()
        params = run.state.params if mesh is None else to_host(run.state.params)
        measured = {} if evaluate is None else evaluate(params)
        run = end_epoch(run, {name: float(value) for name, value in measured.items()})
        return judge(run, early_stopping)

    if isinstance(params, TrainState):
        state = on_device(params._replace(finite=np.True_), copy=True)
        params = state.params
    else:
        state = initial_state(params, optimizer)
    run = Run(state, None if early_stopping is None else state.params)
    check_early_stopping(evaluate, early_stopping, state.params)
    with ExitStack() as stack:
        stack.enter_context(using(mesh))
        tellers = [*callbacks, stack.enter_context(show_progress(verbose, epochs))]
        store, about = None, {}
        if checkpoint is not None:
            about = fingerprint(given, plan, key, params)
            stack.enter_context(ends_in_order())
            store = stack.enter_context(checkpoints.open_checkpoints(checkpoint))
            run = judge(resume(store, run, about, epochs), early_stopping, resumed=True)
        run = run._replace(state=_share_classes(run.state, objective, mesh))
        saved, latest, wait = time.monotonic(), run, min(_FIRST_SAVE, save_seconds)

        def tell(run: Run) -> None:
            nonlocal saved, latest, wait
            latest = run
            for teller in tellers:
                teller(progress_of(run, epochs, plan.num_rows))
            if store is not None and (began := time.monotonic()) - saved >= wait:
                save(store, run, plan, about)
                saved = time.monotonic()
                wait = min(max(2 * wait, _SAVE_SHARE * (saved - began)), save_seconds)

        try:
            while run.status is None and run.epoch < epochs:
                run = train_epoch(run, tell)
                if run.status != "nonfinite":
                    tell(run)
        finally:
            # A run that is interrupted is saved too, and a run that diverged as it was before.
            if store is not None:
                save(store, latest, plan, about)
    best = run.state.params if run.best is None else run.best
    found = best, run.state
    best, state = found if mesh is None else on_device(to_host(found))
    return FitResult(best, run.status or "completed", run.history, state)


def _share_classes(state: TrainState, objective: Objective, mesh) -> TrainState:
    """Shares the classes of a linear model out over the axis ``model`` of a mesh. The state of the
    optimizer follows them."""
    if mesh is None or not is_linear(objective.logits_fn):
        return state
    if state.params.weights.ndim == 1:
        return state
    params, previous = share_model((state.params, state.previous), mesh)
    return state._replace(params=params, previous=previous)


@programs_by_shape
def _compiled_segment(
    logits_fn: Callable,
    loss: Callable,
    optimizer,
    augment: Callable | None,
    accumulation_steps: int,
) -> Callable:
    """A compiled segment, kept so that training on with these parts or another penalty compiles
    nothing."""

    def segment(penalty, *arguments):
        objective = Objective(logits_fn, loss, penalty)
        return make_segment(
            objective, optimizer, augment=augment, accumulation_steps=accumulation_steps
        )(*arguments)

    return jax.jit(segment)
