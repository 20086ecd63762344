"""Minibatch training: the one loop over epochs."""

from __future__ import annotations

import math
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
from jaxclf.forks import refuse_fork
from jaxclf.models.linear import is_linear
from jaxclf.objectives import (
    Batch,
    Objective,
    check_rows,
    check_takes_sparse,
    make_batch,
    with_checked_labels,
)
from jaxclf.penalties import check_factors_finite
from jaxclf.programs import programs_by_shape
from jaxclf.promotion import standard_promotion
from jaxclf.scaling.mesh import make_mesh, using
from jaxclf.scaling.sharing import (
    all_gather,
    on_device,
    row_places,
    share_model,
    share_rows,
    to_host,
)
from jaxclf.signals import ends_in_order
from jaxclf.sparse_rows import is_sparse
from jaxclf.stored_rows import StoredRows
from jaxclf.training import checkpoints
from jaxclf.training.callbacks import Progress, show_progress
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
    _check_arguments(objective, params, data, optimizer, key, sizes)
    mesh = None if devices is None else make_mesh(devices)
    check_rows(data)
    stored = isinstance(data.features, StoredRows)
    if stored or is_sparse(data.features):
        check_takes_sparse(objective.logits_fn)
        _check_whole(augment, accumulation_steps, stream and not stored, mesh)
    count = len(data.features)
    given = _with_checked_labels(objective, params, data, augment, key)
    data, streamed = _place(given, stream, mesh)
    places = np.arange(count, dtype=np.int32) if mesh is None else row_places(count, mesh)
    # A batch larger than the data holds all rows, rounded up to a multiple of accumulation_steps.
    batch_size = min(batch_size, math.ceil(len(places) / accumulation_steps) * accumulation_steps)
    plan = batches.make_plan(given, batch_size, len(places))
    scale = _over_mean_weight(given)
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
    _check_names(evaluate, early_stopping, state.params)
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


def _check_arguments(objective, params, data, optimizer, key, sizes: dict) -> None:
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must come from make_objective, got {type(objective).__name__}")
    if objective.penalty is not None:
        check_factors_finite("fit", objective.penalty)
    if not isinstance(data, Batch) or not hasattr(data.features, "shape"):
        raise TypeError("data must be a Batch of arrays, such as make_batch gives")
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(f"optimizer must be an optax transformation, got {optimizer!r}")
    if not hasattr(key, "dtype"):
        raise TypeError(f"key must be a JAX random key, such as jax.random.key(0); got {key!r}")
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {size!r}")
    if sizes["batch_size"] % sizes["accumulation_steps"]:
        raise ValueError(
            "accumulation_steps must divide batch_size, got "
            f"{sizes['accumulation_steps']} and {sizes['batch_size']}"
        )
    start = params.params if isinstance(params, TrainState) else params
    for path, leaf in jax.tree_util.tree_leaves_with_path(start):
        name = f"params{jax.tree_util.keystr(path)}"
        checks.check_no_downcast(name, leaf)
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"{name} must be floating, got dtype {jnp.result_type(leaf)}")
        checks.check_number(name, leaf)


def _check_whole(augment, accumulation_steps: int, stream: bool | None, mesh) -> None:
    """Raises ValueError for what would cut or change single rows of sparse features."""
    given = {
        "augment": augment is not None,
        "accumulation_steps": accumulation_steps != 1,
        "stream": bool(stream),
        "devices": mesh is not None,
    }
    for name, present in given.items():
        if present:
            raise ValueError(f"{name} needs dense features; .toarray() makes sparse ones dense")


def _with_checked_labels(objective: Objective, params, data: Batch, augment, key) -> Batch:
    """The data, or an error where the loss does not take the labels: inside jit JAX would clamp
    class K to K - 1."""
    start = params.params if isinstance(params, TrainState) else params

    def logits(features):
        features = features if augment is None else augment(key, features)
        return objective.logits_fn(start, features)

    one = jax.ShapeDtypeStruct(data.features.shape[1:], data.features.dtype)
    shape = jax.eval_shape(logits, one).shape
    num_logits = shape[0] if len(shape) == 1 else 1 if shape == () else None
    return with_checked_labels(data, objective.loss, num_logits)


def _check_names(evaluate, early_stopping: EarlyStopping | None, params) -> None:
    """Asks ``evaluate`` for its names before any work, where they matter."""
    if early_stopping is None:
        return
    checks.check_option("early_stopping.mode", early_stopping.mode, ("min", "max"))
    checks.check_number("early_stopping.patience", early_stopping.patience, at_least=1)
    checks.check_number("early_stopping.min_delta", early_stopping.min_delta, at_least=0)
    measured = () if evaluate is None else evaluate(params)
    checks.check_option("early_stopping.monitor", early_stopping.monitor, ["loss", *measured])


def _over_mean_weight(data: Batch) -> float:
    """One over the mean weight of the rows of all processes."""
    if data.weights is None:
        return 1.0
    weights = np.asarray(data.weights, np.float64)
    total, count = all_gather([weights.sum(), len(weights)]).sum(0)
    return float(count / total)


def _place(data: Batch, stream: bool | None, mesh) -> tuple[Batch, bool]:
    """The data, on the devices unless they stream, and whether they stream."""
    if mesh is not None:
        if stream:
            raise ValueError("stream=True reads rows for one device; with devices it must be off")
        data = _checked_host(data)
        checks.check_features(data.features)
        return share_rows(data, mesh), False
    if isinstance(data.features, StoredRows):  # of which the host reads the rows of each step
        checks.check_no_downcast("features", data.features.values)
        host = _checked_host(data)
        return Batch(data.features, *on_device(tuple(host[1:]))), False
    if stream is None:
        stream = batches.must_stream(data, jnp.zeros(()).device)
    if not stream:
        there = all(isinstance(x, jax.Array) for x in jax.tree.leaves(data))
        return (data if there else make_batch(*data[:3], offset=data.offset)), False
    return _checked_host(data), True


def _is_read_later(features) -> bool:
    return not isinstance(features, np.ndarray | jax.Array) and hasattr(features, "dtype")


def _checked_host(data: Batch) -> Batch:
    # Features may be read as they are needed; jaxclf.data.records has such features.
    features = data.features
    features = features if _is_read_later(features) else np.asarray(features)
    data = Batch(features, *(None if x is None else np.asarray(x) for x in data[1:]))
    checked = data._replace(features=features[:1] if _is_read_later(features) else features)
    for name, array in checked._asdict().items():
        checks.check_no_downcast(name, array)
    checks.check_labels(data.labels, num_rows=len(data.features), num_classes=None)
    if data.weights is not None:
        checks.check_weights(data.weights, num_rows=len(data.features))
    if data.offset is not None:
        checks.check_offset(data.offset, num_rows=len(data.features))
    return data
