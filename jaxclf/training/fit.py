"""Minibatch training: the one loop over epochs."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.data import batches
from jaxclf.objectives import Batch, Objective, check_rows, make_batch
from jaxclf.training import checkpoints
from jaxclf.training.callbacks import Progress, show_progress
from jaxclf.training.segment import TrainState, initial_state, make_segment


class EarlyStopping(NamedTuple):
    """Stop when a measure has not improved for some epochs, and return the best parameters."""

    monitor: str = "log_loss"
    """A name that ``evaluate`` returns, or ``loss``, the mean over the epoch's training steps."""
    mode: str = "min"
    """``min`` if lower is better, ``max`` if higher is."""
    patience: int = 5
    """Epochs without improvement."""
    min_delta: float = 0.0
    """What counts as an improvement."""


class FitResult(NamedTuple):
    """What training gives."""

    params: Any
    """The best by the monitored measure with early stopping, else the last; always finite."""
    status: str
    """``completed``, ``stopped_early``, or ``nonfinite``: a loss or a parameter became NaN or
    infinite, and ``params`` are the last whose loss was finite."""
    history: tuple[dict, ...]
    """Per epoch: ``epoch`` from 0, ``loss`` (the mean value of its steps, penalty included),
    ``seconds``, and what ``evaluate`` returned."""
    state: TrainState
    """Of the optimizer, after the last step."""


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
    pieces: int = 1,
    evaluate: Callable | None = None,
    early_stopping: EarlyStopping | None = None,
    stream: bool | None = None,
    checkpoint: Path | str | None = None,
    save_seconds: float = 30.0,
    callbacks: Sequence[Callable[[Progress], None]] = (),
    verbose: int = 0,
) -> FitResult:
    """Minimises an objective by steps over minibatches, each epoch in a new order.

    A step over the B rows of a batch descends ``Σᵢ (wᵢ / w̄) lossᵢ / B + penalty``, with w̄ the mean
    weight of all rows; see :func:`jaxclf.training.segment.make_segment`. The steps are traced once.
    The result is a function of the arguments alone: the same key gives the same bits,
    whether the run was stopped and resumed or not.

    Args:
      objective: from :func:`jaxclf.make_objective`.
      params: the start, any pytree of floating arrays.
      data: from :func:`jaxclf.make_batch`, or a :class:`Batch` of host arrays, memory maps for
        instance, which are copied to the device if they take less than half of what is free there,
        and else are read as they are needed.
      optimizer: an optax transformation, schedules included. A transformation that asks for the
        value or for a value function gets that of the batch.
      batch_size: rows of a step; all rows if it is larger than their number.
      epochs: passes over the rows.
      key: a JAX random key, for the order of the rows and for ``augment``.
      augment: ``(key, features of one example) -> features``, in training only.
      pieces: parts of a batch that are worked on one after another (gradient accumulation). It must
        divide the batch size, and does not change the step but for rounding.
      evaluate: ``params -> {name: number}`` after each epoch, such as
        :func:`jaxclf.training.make_evaluation`.
      early_stopping: when to stop before the last epoch; off by default.
      stream: whether to read rows as they are needed; by default decided by size.
      checkpoint: a folder. The run is saved there every ``save_seconds`` and when it ends, and is
        taken up from there if it is found there. Raise ``epochs`` to train on.
      save_seconds: least time between two checkpoints.
      callbacks: called with a :class:`Progress` after every few steps.
      verbose: 0 prints nothing, 1 shows progress, 2 also a line per epoch.

    Raises:
      ValueError, TypeError: arguments that do not fit, bad data, a checkpoint of another run.
      OSError: a checkpoint that cannot be written.

    Source: Bottou, Curtis and Nocedal, Optimization methods for large-scale machine learning, SIAM
    Review 60 (2018), section 3.
    """
    sizes = {"batch_size": batch_size, "epochs": epochs, "pieces": pieces}
    _check_arguments(objective, optimizer, sizes, early_stopping, evaluate, params)
    data, streamed = _place(data, stream)
    # A batch larger than the data is all of it, rounded up to whole pieces.
    batch_size = min(batch_size, math.ceil(len(data.features) / pieces) * pieces)
    plan = batches.make_plan(data, batch_size, streamed=streamed)
    scale = 1.0 if data.weights is None else 1 / float(np.mean(np.asarray(data.weights)))
    order_key, augment_key = jax.random.split(key)
    run_segment = jax.jit(make_segment(objective, optimizer, augment=augment, pieces=pieces))
    segments_of = batches.streamed_segments if streamed else batches.resident_segments

    def train_epoch(run: _Run, tell: Callable) -> _Run:
        mark = time.perf_counter()
        order = batches.epoch_order(order_key, run.epoch, plan.num_rows)
        for segment in segments_of(data, plan, order, run.segment):
            state, losses = run_segment(run.state, *segment, scale, augment_key)
            sums = np.asarray(losses, np.float64) @ segment.counts
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
        measured = {} if evaluate is None else evaluate(run.state.params)
        return _end_epoch(run, measured, early_stopping)

    state = initial_state(params, optimizer)
    run = _Run(state, None if early_stopping is None else state.params)
    about = _fingerprint(data, plan, key)
    with ExitStack() as stack:
        tellers = [*callbacks, stack.enter_context(show_progress(verbose, epochs))]
        store = None
        if checkpoint is not None:
            store = stack.enter_context(checkpoints.open_checkpoints(checkpoint))
            run = _resume(store, run, about)
        saved = time.monotonic()

        def tell(run: _Run) -> None:
            nonlocal saved
            for teller in tellers:
                teller(_progress(run, epochs, plan.num_rows))
            if store is not None and time.monotonic() - saved >= save_seconds:
                _save(store, run, plan, about)
                saved = time.monotonic()

        while run.status is None and run.epoch < epochs:
            run = train_epoch(run, tell)
            if run.status != "nonfinite":
                tell(run)
        if store is not None:
            _save(store, run, plan, about)
    best = run.state.params if run.best is None else run.best
    return FitResult(best, run.status or "completed", run.history, run.state)


class _Arrays(NamedTuple):
    """What of a run a checkpoint stores as arrays; the names are those of its messages."""

    state: TrainState
    best: Any


class _Run(NamedTuple):
    """Where a run is: arrays in ``state`` and ``best``, the rest numbers that JSON can hold."""

    state: TrainState
    best: Any
    """Parameters of the best epoch so far; ``None`` without early stopping."""
    best_value: float | None = None
    best_epoch: int = 0
    epoch: int = 0
    segment: int = 0
    """Segments of this epoch that are done, with the rows, losses and seconds they took."""
    rows: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: tuple[dict, ...] = ()
    status: str | None = None


def _end_epoch(run: _Run, measured: dict, early_stopping: EarlyStopping | None) -> _Run:
    record = {"epoch": run.epoch, "loss": run.loss_sum / run.rows, "seconds": run.seconds}
    record |= measured
    run = run._replace(
        epoch=run.epoch + 1,
        segment=0,
        rows=0,
        loss_sum=0.0,
        seconds=0.0,
        history=(*run.history, record),
    )
    if early_stopping is None:
        return run
    sign = {"min": 1, "max": -1}[early_stopping.mode]
    value = sign * record[early_stopping.monitor]
    # Written so that NaN is no improvement.
    if run.best_value is None or value < run.best_value - early_stopping.min_delta:
        best_value = value if math.isfinite(value) else None
        return run._replace(best=run.state.params, best_value=best_value, best_epoch=run.epoch)
    waited = run.epoch - run.best_epoch
    return run._replace(status="stopped_early" if waited >= early_stopping.patience else None)


def _progress(run: _Run, epochs: int, num_rows: int) -> Progress:
    ended = run.segment == 0
    record = run.history[-1] if ended else None
    rows, seconds = (num_rows, record["seconds"]) if ended else (run.rows, run.seconds)
    return Progress(
        epoch=run.epoch - ended,
        epochs=epochs,
        rows=rows,
        num_rows=num_rows,
        loss=record["loss"] if ended else run.loss_sum / rows,
        rows_per_second=rows / seconds,
        history=run.history,
        epoch_ended=ended,
        params=run.state.params,
    )


def _check_arguments(objective, optimizer, sizes: dict, early_stopping, evaluate, params) -> None:
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must come from make_objective, got {type(objective).__name__}")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer must be an optax transformation, got {optimizer!r}")
    for name, size in sizes.items():
        if operator.index(size) < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if sizes["batch_size"] % sizes["pieces"]:
        raise ValueError(
            f"pieces must divide batch_size, got {sizes['pieces']} and {sizes['batch_size']}"
        )
    if early_stopping is None:
        return
    checks.check_option("early_stopping.mode", early_stopping.mode, ("min", "max"))
    known = ["loss", *(evaluate(params) if evaluate is not None else ())]
    checks.check_option("early_stopping.monitor", early_stopping.monitor, known)


def _place(data: Batch, stream: bool | None) -> tuple[Batch, bool]:
    """The data, on the device unless they stream, and whether they do."""
    check_rows(data)
    if stream is None:
        stream = batches.must_stream(data, jnp.zeros(()).device)
    if not stream:
        on_device = all(isinstance(x, jax.Array) for x in jax.tree.leaves(data))
        return (data if on_device else make_batch(*data)), False
    data = Batch(*(None if x is None else np.asarray(x) for x in data))
    for name, array in data._asdict().items():
        checks.check_no_downcast(name, array)
    checks.check_labels(data.labels, num_rows=len(data.features), num_classes=None)
    if data.weights is not None:
        checks.check_weights(data.weights, num_rows=len(data.features))
    return data, True


def _fingerprint(data: Batch, plan: batches.Plan, key) -> dict:
    """What must agree for a position in one run to mean the same in another."""
    return {
        "features": f"{data.features.dtype} {tuple(data.features.shape)}",
        "batch size": plan.batch_size,
        "steps per segment": plan.steps,
        "key": np.asarray(jax.random.key_data(key)).ravel().tolist(),
    }


def _save(store, run: _Run, plan: batches.Plan, about: dict) -> None:
    number = run.epoch * plan.segments + run.segment
    if store.latest_step() == number:
        return
    record = run._asdict()
    arrays = _Arrays(record.pop("state"), record.pop("best"))
    checkpoints.save(store, number, arrays, {"run": about, **record})


def _resume(store, run: _Run, about: dict) -> _Run:
    """The run as it was last saved, or as given where nothing was."""
    found = checkpoints.restore_latest(store, _Arrays(run.state, run.best))
    if found is None:
        return run
    arrays, record = found
    there = record.pop("run")
    for name, here in about.items():
        if there.get(name) != here:
            raise ValueError(
                f"the checkpoint in {store.directory} is of another run: its {name} is "
                f"{there.get(name)}, not {here}; choose another folder"
            )
    record["history"] = tuple(record["history"])
    return run._replace(**arrays._asdict(), **record)
