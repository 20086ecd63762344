"""Many configurations of a linear classifier, fitted as lanes of few programs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxclf import checks
from jaxclf.data.batches import free_memory
from jaxclf.data.dataset import digest
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.penalties import check_factors_finite, check_strengths, l2
from jaxclf.progress import progress_bar
from jaxclf.promotion import standard_promotion
from jaxclf.scaling.mesh import make_mesh, using
from jaxclf.scaling.sharing import all_gather, of_all_processes
from jaxclf.solvers.inputs import bounded
from jaxclf.sparse_rows import is_sparse, stacked_rows
from jaxclf.sweeps import convex, minibatch, rows, selection
from jaxclf.sweeps.grid import Lane, check_classes, lanes_of, num_folds
from jaxclf.sweeps.options import Options, check_options, check_ranked, num_classes_of
from jaxclf.sweeps.selection import Selection
from jaxclf.sweeps.store import Store
from jaxclf.sweeps.task import (
    RANKINGS,
    Finished,
    Task,
    make_judge,
    make_task,
    measure_one,
    with_roles,
)

_SHARE_OF_MEMORY = 0.25


class SweepResult(NamedTuple):
    """The result of a sweep, with the lanes in the order of the grid."""

    table: tuple[dict, ...]
    """One row per lane: ``lane``, its configuration; ``status``; ``objective`` and the facts on it
    that the method knows; ``log_loss``, ``accuracy`` and the metric on the rows that judge the
    lane, where there are any; ``seconds``, its share of the time; ``curves`` per epoch in minibatch
    sweeps."""
    params: linear.LinearParams
    """The parameters of all lanes, stacked."""
    selection: Selection | None
    """The choice of a lane; ``None`` where nothing judges the lanes."""


@standard_promotion
def sweep(
    grid: Mapping | Iterable[Mapping],
    data: Batch,
    *,
    method: str = "convex",
    validation: Batch | float = 0.0,
    test: Batch | None = None,
    metric: str = "log_loss",
    rule: str = "best",
    tol: float = 1e-4,
    max_steps: int = 200,
    epochs: int = 10,
    halve_every: int | None = None,
    seed: int = 0,
    memory: float | None = None,
    penalty_factors: Any = None,
    bounds: Any = None,
    devices: Any = None,
    checkpoint: Path | str | None = None,
    verbose: bool = False,
) -> SweepResult:
    """Fits a linear classifier for every lane of a grid, and chooses one where rows judge them.

    The model of a lane has the logits of :func:`jaxclf.models.linear.logits`: one for two classes,
    else one per class. Its objective is the same as in :func:`jaxclf.minimize` and
    :func:`jaxclf.fit`,

        ``Σᵢ ωᵢ lossᵢ + l2 (l1_ratio ‖W‖₁ + (1 - l1_ratio)/2 ‖W‖²)``,

    with weights ω that are zero for rows without a part in the lane. The keys of a grid, with their
    defaults, are:

    - ``l2`` (0), ``l1_ratio`` (0): the penalty; minibatch steps take a subgradient of its L1 part.
    - ``fold`` (none): 0 … F-1; the lane is trained without that fold and judged by it.
    - ``train_fraction`` (1): the share of the training rows that is used; ``seed`` (0) says which
      rows, and draws the first weights of minibatch lanes.
    - ``class_weight`` (none): ``balanced`` gives the classes equal totals.
    - ``loss`` (``log_loss`` or, for more than two classes, ``onehot_squared_error``; minibatch
      lanes also take ``softmax_squared_error`` and ``multiclass_hinge`` for more than two classes,
      and ``sigmoid_squared_error`` for two), ``label_smoothing`` (0) of the log loss.
    - with ``method="minibatch"`` also ``optimizer`` (``sgd``, or another of optax),
      ``learning_rate`` (0.1) and every other number that it takes, ``batch_size`` (256) and
      ``shuffle_seed`` (0), the seed of the order of the rows.

    Convex lanes are solved to ``tol`` and certified, along paths of falling penalties. Minibatch
    lanes take the steps of :func:`jaxclf.fit` in stacks, of which each reads a batch once. A lane
    that fails leaves the others as they are.

    Args:
      grid: a mapping from keys to values, for all combinations; or a sequence of configurations.
      data: rows to train on, labels integers in 0 … K-1.
      method: ``convex`` or ``minibatch``.
      validation: rows that judge the lanes, or the share of ``data`` that is held out for that,
        where the grid has no folds.
      test: rows that measure the chosen lane once, after it was trained anew on all of ``data``
        and ``validation``; they need folds or validation rows, by which a lane is chosen.
      metric: the measure by which a lane is chosen, one of :mod:`jaxclf.metrics`: ``log_loss``,
        ``accuracy``, ``balanced_accuracy``, ``f1_macro``, ``roc_auc`` or ``average_precision``.
      rule: ``best``, or ``one_standard_error``: the strongest penalty whose mean over folds is
        within one standard error of the best; the grid must have folds.
      tol, max_steps: the tolerance and the most steps of convex lanes, as in
        :func:`jaxclf.minimize`.
      epochs: the epochs of minibatch lanes.
      halve_every: epochs after which the worse half of the minibatch lanes is dropped, by log loss
        on the rows of ``validation``, not of folds; by default no lane is dropped.
      seed: the seed of folds and of held-out rows.
      memory: bytes that a stack of minibatch lanes may take beside the data; by default a quarter
        of what is free. Lanes that do not fit wait for the next stack.
      penalty_factors: numbers that ``l2`` is multiplied by, ``(d,)`` or ``(K, d)``, see
        :func:`jaxclf.penalties.l2`; finite with ``method="minibatch"``.
      bounds: ``(lower, upper)`` of the weights of convex lanes, as in :func:`jaxclf.minimize`.
      devices: the devices over which rows are shared out: ``"all"``, a number or a mesh of
        :func:`jaxclf.scaling.make_mesh`, which may share out the classes of convex lanes, or
        minibatch lanes; by default one. Where several processes run, each gives its own rows of
        ``data``, ``validation`` and ``test``, and gets the same result.
      checkpoint: a folder in which finished lanes are kept, and found when the same sweep runs
        again.
      verbose: show progress on standard error.

    Raises:
      ValueError, TypeError: before any work, for a grid, options or data that do not fit.
      ValueError: after the work, where no lane that rows judge ended well.
    """
    options = Options(method, tol, max_steps, epochs, halve_every, seed, memory)
    check_options(options, metric, rule)
    if not isinstance(data, Batch):
        raise TypeError(
            f"data must be a Batch, such as make_batch gives, got {type(data).__name__}"
        )
    own = validation if isinstance(validation, Batch) else None
    for role, batch in (("", data), ("validation ", own), ("test ", test)):
        if batch is not None:
            checks.check_no_downcast(f"{role}features", batch.features)
            checks.check_no_downcast(f"{role}weights", batch.weights)
            if is_sparse(batch.features) != is_sparse(data.features):
                raise TypeError("data, validation and test must all be sparse, or all be dense")
            if (batch.offset is None) != (data.offset is None):
                raise TypeError("data, validation and test must all have an offset, or none may")
    if is_sparse(data.features) and devices is not None:
        raise TypeError("a sweep of sparse features runs on one device")
    lanes = lanes_of(grid, method)
    mesh = None if devices is None else make_mesh(devices)
    share = 0.0 if own is not None else validation
    checks.check_number("validation", share, at_least=0, at_most=0.9)
    num_classes = num_classes_of(data, own, test, mesh)
    check_classes(lanes, num_classes)
    d = data.features.shape[1]
    shape = (d,) if num_classes == 2 else (num_classes, d)
    factors = _checked_factors(penalty_factors, shape, method)
    bounds = _checked_bounds(bounds, factors, shape, method)
    folds = num_folds(lanes)
    if folds and (own is not None or share):
        raise ValueError("a sweep is judged by its folds or by validation rows, not by both")
    if rule == "one_standard_error" and not folds:
        raise ValueError("one_standard_error is that over folds: the grid needs a fold axis")
    labels = of_all_processes(np.asarray(data.labels), mesh)
    roles = rows.assign(labels, folds, share, seed)
    judged = own is not None or folds > 0 or share > 0
    if judged and metric in RANKINGS:
        check_ranked(metric, lanes, labels, roles, (own, test), mesh)
    if test is not None and not judged:
        raise ValueError(
            "test rows measure the configuration that is chosen: a choice needs folds or "
            "validation rows"
        )
    if halve_every is not None and (method != "minibatch" or not judged or folds):
        raise ValueError("halve_every drops minibatch fits that a validation set judges")

    task = make_task(data, num_classes, roles, mesh, factors, bounds)
    judge = make_judge(task, roles, own, metric) if judged else None
    store = Store()
    if checkpoint is not None:
        about = {
            "data": _digest_of_all(data, mesh),
            "judged by": [share, folds, seed] if own is None else _digest_of_all(own, mesh),
            "metric": metric,
            "options": list(options._replace(memory=None)._asdict().values()),
            "dtypes": [str(task.features.dtype), str(task.start.weights.dtype)],
            "format": _FORMAT,
        }
        if factors is not None:
            about["penalty factors"] = factors.tolist()
        if bounds is not None:
            about["bounds"] = [np.broadcast_to(x, shape).tolist() for x in bounds]
        if halve_every is not None:  # the lanes compete
            about["lanes"] = lanes
        store = Store(checkpoint, about, task.start)
    done = run_lanes(lanes, task, options, judge, store, verbose)
    table = tuple({"lane": lane, **one.facts} for lane, one in zip(lanes, done, strict=True))
    params = jax.tree.map(lambda *x: np.stack(x), *(one.params for one in done))
    if not judged:
        return SweepResult(table, params, None)
    candidates = selection.candidates_of(table, metric)
    best = selection.choose(candidates, metric, rule).lane
    whole = rows.Roles(None, None)
    if own is None:
        everything = with_roles(task, whole)
    else:
        task = judge = None  # their memory is needed
        joined = _joined(data, own)
        everything = make_task(joined, num_classes, whole, mesh, factors, bounds)
    alone = options._replace(halve_every=None)
    refitted, facts = run_lanes([best], everything, alone, None, Store(), False)[0]
    if facts["status"] not in _ENDED_WELL:
        warnings.warn(
            f"the chosen configuration, trained on all rows, ended as {facts['status']}",
            RuntimeWarning,
            stacklevel=2,
        )
    measured = None if test is None else measure_one(refitted, test, mesh, metric)
    by = f"{folds} folds" if folds else "validation rows"
    chosen = Selection(best, rule, metric, by, candidates, refitted, facts, measured)
    return SweepResult(table, params, chosen)


def _checked_factors(given: Any, shape: tuple[int, ...], method: str) -> np.ndarray | None:
    if given is None:
        return None
    penalty = l2(1.0, factors=given)
    check_strengths(penalty, shape)
    if method == "minibatch":
        check_factors_finite("a sweep by minibatches", penalty)
    return np.asarray(given, np.float64)


def _checked_bounds(
    given: Any, factors: np.ndarray | None, shape: tuple[int, ...], method: str
) -> tuple | None:
    if given is None:
        return None
    if method == "minibatch":
        raise ValueError("a sweep by minibatches takes no bounds; one of convex lanes does")
    bounded(l2(1.0, factors=factors), given, np.zeros(shape))
    return tuple(given)


_ENDED_WELL = ("converged", "stationary", "precision_floor", "completed")
_FORMAT = 3
"""The number of the form and the meaning of finished lanes; lanes of another number run again."""


def _digest_of_all(batch: Batch, mesh: Mesh | None) -> str:
    """The digest of the rows of all processes that share a mesh."""
    own = digest(*jax.tree.leaves(batch))
    return own if mesh is None else digest(all_gather(np.frombuffer(own.encode(), np.uint8)))


def run_lanes(
    lanes: Sequence[Lane],
    task: Task,
    options: Options,
    judge: Callable | None,
    store: Store,
    verbose: bool,
) -> list[Finished]:
    """The result of every lane, found in the store, or computed and kept there by one process.

    Args:
      lanes: complete configurations.
      task: the data that they share.
      options: how they are fitted.
      judge: what :func:`jaxclf.sweeps.task.make_judge` returns; ``None`` where no rows judge them.
      store: the store of finished lanes.
      verbose: show progress on standard error.
    """
    loaded = [store.load(lane) for lane in lanes]
    known = np.array([one is not None for one in loaded])
    known = known if task.mesh is None else all_gather(known).all(0)
    found = {_key(lanes[i]): loaded[i] for i in np.flatnonzero(known)}
    first = jax.process_index() == 0
    bar = progress_bar() if verbose and first else None
    with using(task.mesh), bar or nullcontext():
        shown = bar and bar.add_task("fits", total=len(lanes), completed=len(found))

        def done(lane: Lane, one: Finished) -> None:
            params, facts = jax.tree.map(np.asarray, one.params), dict(one.facts)
            if judge is not None and options.method == "convex":
                measured = judge([lane])(jax.tree.map(lambda x: x[None], params))
                facts |= {name: float(values[0]) for name, values in measured.items()}
            found[_key(lane)] = Finished(params, facts)
            if first:
                store.save(lane, found[_key(lane)])
            if bar:
                bar.update(shown, advance=1, description=f"fit {len(found)} of {len(lanes)}")

        if options.method == "convex":
            known = lambda lane: found.get(_key(lane))  # noqa: E731
            convex.solve(lanes, task, options.tol, options.max_steps, known, done)
        else:
            before = set(found)
            if options.halve_every is not None and len(before) < len(set(map(_key, lanes))):
                before = set()  # lanes that are halved compete with all others
                if bar:
                    bar.reset(shown)
            free = free_memory(task.device_labels.addressable_shards[0].device)
            memory = options.memory or _SHARE_OF_MEMORY * free
            if task.mesh is not None:  # all processes need stacks of one size
                memory = float(all_gather(memory).min())
            how = options.epochs, options.halve_every, memory, judge
            minibatch.train(lanes, task, *how, done, lambda lane: _key(lane) in before)
    return [found[_key(lane)] for lane in lanes]


def _key(lane: Lane) -> tuple:
    return tuple(lane.items())


def _joined(a: Batch, b: Batch) -> Batch:
    weights = None
    if a.weights is not None or b.weights is not None:
        each = (np.ones(len(x.labels)) if x.weights is None else x.weights for x in (a, b))
        weights = np.concatenate([np.asarray(x) for x in each])
    labels = np.concatenate([np.asarray(a.labels), np.asarray(b.labels)])
    offset = None
    if a.offset is not None:
        offset = np.concatenate([np.asarray(a.offset), np.asarray(b.offset)])
    if is_sparse(a.features):
        return Batch(stacked_rows(a.features, b.features), labels, weights, offset)
    features = np.concatenate([np.asarray(a.features), np.asarray(b.features)])
    return Batch(jnp.asarray(features), labels, weights, offset)
