"""The state of a training run: its position, its best parameters, its place on disk."""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclf.data import batches
from jaxclf.objectives import Batch
from jaxclf.scaling.sharing import all_gather, to_host
from jaxclf.signals import signals_held
from jaxclf.sparse_rows import is_sparse
from jaxclf.stored_rows import StoredRows
from jaxclf.training import checkpoints
from jaxclf.training.callbacks import Progress
from jaxclf.training.segment import TrainState


class EarlyStopping(NamedTuple):
    """The rule to stop when a measure has not improved for some epochs.

    The best parameters are then returned.
    """

    monitor: str = "log_loss"
    """A name that ``evaluate`` returns, or ``loss``, the mean over the epoch's training steps."""
    mode: str = "min"
    """``min`` if lower is better, ``max`` if higher is."""
    patience: int = 5
    """The number of epochs without improvement after which training stops."""
    min_delta: float = 0.0
    """A change of the measure counts as an improvement if it is larger than this number."""


class _Arrays(NamedTuple):
    """The parts of a run that a checkpoint stores as arrays; its messages use these names."""

    state: TrainState
    best: Any


class Run(NamedTuple):
    """The position of a run: ``state`` and ``best`` hold arrays, the rest is fit for JSON."""

    state: TrainState
    best: Any
    """Parameters of the best epoch so far; ``None`` without early stopping."""
    best_value: float = math.inf
    best_epoch: int = 0
    epoch: int = 0
    segment: int = 0
    """The segments of this epoch that are done. ``rows``, ``loss_sum`` and ``seconds`` are over
    these segments."""
    rows: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    history: tuple[dict, ...] = ()
    status: str | None = None


def end_epoch(run: Run, measured: dict[str, float]) -> Run:
    record = {"epoch": run.epoch, "loss": run.loss_sum / run.rows, "seconds": run.seconds}
    if taken := record.keys() & measured.keys():
        raise ValueError(f"evaluate must use other names than {', '.join(sorted(taken))}")
    return run._replace(
        epoch=run.epoch + 1,
        segment=0,
        rows=0,
        loss_sum=0.0,
        seconds=0.0,
        history=(*run.history, record | measured),
    )


def judge(run: Run, early_stopping: EarlyStopping | None, *, resumed: bool = False) -> Run:
    """Keeps the parameters of the best epoch, and stops after too many without an improvement."""
    if early_stopping is None or not run.history:
        return run
    if not resumed:
        sign = {"min": 1, "max": -1}[early_stopping.mode]
        value = sign * run.history[-1][early_stopping.monitor]
        # NaN is no improvement.
        if value < run.best_value - early_stopping.min_delta:
            return run._replace(best=run.state.params, best_value=value, best_epoch=run.epoch)
    stop = run.epoch - run.best_epoch >= early_stopping.patience
    return run._replace(status="stopped_early" if stop else None)


def progress_of(run: Run, epochs: int, num_rows: int) -> Progress:
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


def fingerprint(data: Batch, plan: batches.Plan, key, params) -> dict:
    """The facts that must agree for a position in one run to mean the same in another."""
    # All labels, weights and offsets count. Only some rows of features do, which may not fit in
    # memory.
    if is_sparse(data.features):
        some = data.features.by_row
    else:
        some = data.features[:: max(1, len(data.features) // 1000)]
        if isinstance(data.features, StoredRows):
            some = some.data, some.indices, some.indptr
    return {
        "features": f"{data.features.dtype} {(plan.num_rows, *data.features.shape[1:])}",
        "rows": _digest_of_processes(_digest((some, *data[1:]))),
        "start": _digest(params),
        "batch size": int(plan.batch_size),
        "key": np.asarray(jax.random.key_data(key)).ravel().tolist(),
    }


def _digest_of_processes(digest: str) -> str:
    """The digests of all processes as one."""
    if jax.process_count() == 1:
        return digest
    return _digest(all_gather(np.frombuffer(digest.encode(), np.uint8)))


def _digest(tree) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def save(store, run: Run, plan: batches.Plan, about: dict) -> None:
    """Saves a run; the first of several processes writes, because all hold the same."""
    if jax.process_index() != 0:
        return
    number = run.epoch * plan.segments + run.segment
    if store.latest_step() == number:
        return
    record = run._asdict()
    del record["status"]  # judged anew, by what is asked for then
    arrays = to_host(_Arrays(record.pop("state"), record.pop("best")))
    with signals_held():
        checkpoints.save(store, number, arrays, {"run": about, **record})


def resume(store, run: Run, about: dict, epochs: int) -> Run:
    """The run as it was last saved, or as given if none was saved, the same in all processes."""
    found = _resumed(store, run, about, epochs)
    if np.ptp(all_gather([found.epoch, found.segment]), axis=0).any():
        raise checkpoints.CheckpointError(
            f"the processes find different checkpoints in {store.directory}: it must be one folder "
            "that all of them share"
        )
    return found


def _resumed(store, run: Run, about: dict, epochs: int) -> Run:
    found = checkpoints.restore_latest(store, _Arrays(run.state, run.best))
    if found is None:
        return run
    arrays, record = found
    there = record.pop("run")
    for name, here in about.items():
        if there.get(name) != here:
            raise checkpoints.CheckpointError(
                f"the checkpoint in {store.directory} is of another run: its {name} is "
                f"{there.get(name)}, not {here}; choose another folder"
            )
    if record["epoch"] > epochs:
        raise checkpoints.CheckpointError(
            f"the checkpoint in {store.directory} has {record['epoch']} epochs, more than {epochs}"
        )
    record["history"] = tuple(record["history"])
    return run._replace(**arrays._asdict(), **record)
