"""The data and functions that the lanes of a sweep have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from scipy.special import softmax

from jaxclf import losses, metrics
from jaxclf.models import linear
from jaxclf.objectives import Batch, plus_offset
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.mesh import on_all
from jaxclf.scaling.sharing import (
    of_all_processes,
    place_weights,
    row_places,
    share_rows,
    to_host,
)
from jaxclf.sparse_rows import is_sparse
from jaxclf.sweeps.grid import LOG_LOSS, Lane
from jaxclf.sweeps.rows import Roles, held_rows, training_weights

_ROW_KEYS = ("fold", "train_fraction", "seed", "class_weight")
"""Keys that say which rows a lane is trained on, and with what weights."""


RANKINGS = {"roc_auc": metrics.roc_auc, "average_precision": metrics.average_precision}
"""The measures of the order of rows, which need a row of every class."""


class Finished(NamedTuple):
    """The result of a lane."""

    params: Any
    facts: dict
    """The facts of the lane: numbers and text, fit for JSON."""


class Task(NamedTuple):
    """The data of all lanes, with functions that apply a configuration to them."""

    features: jax.Array
    """The features of the rows of all processes; over a mesh there are also rows that fill up."""
    device_labels: jax.Array
    device_offset: jax.Array | None
    """The offset of the rows, beside their features."""
    places: np.ndarray
    """The places of the rows among ``features``, ``(n,)``."""
    labels: np.ndarray
    """The labels of the rows of all processes, ``(n,)``."""
    num_classes: int
    weights: np.ndarray | None
    """The weights of the rows as they were given, ``(n,)``."""
    weights_of: Callable[[Lane], np.ndarray]
    placed: Callable[[np.ndarray], jax.Array]
    """A function that puts weights ``(…, n)`` beside the features, zero for rows that fill up."""
    loss_of: Callable[[Lane], Callable]
    start: linear.LinearParams
    """The start: parameters that are all zero, in the dtype to compute in."""
    mesh: Mesh | None
    """The mesh over which rows and lanes are shared out."""
    penalty_factors: np.ndarray | None = None
    """What the strength of every lane is multiplied by, ``(d,)`` or ``(K, d)``."""
    bounds: tuple | None = None
    """The bounds on the weights of every lane."""


def make_task(
    data: Batch,
    num_classes: int,
    roles: Roles,
    mesh: Mesh | None,
    penalty_factors: np.ndarray | None = None,
    bounds: tuple | None = None,
) -> Task:
    """The task of rows that are used as their roles say; each process gives its own rows."""
    own = Batch(data.features, *(None if x is None else np.asarray(x) for x in data[1:]))
    labels = of_all_processes(own.labels, mesh)
    weights = None if own.weights is None else of_all_processes(own.weights, mesh)
    if mesh is None:
        features, device_labels = jax.device_put(own.features), jax.device_put(labels)
        device_offset = jax.device_put(own.offset)
        places, placed = np.arange(len(labels), dtype=np.int32), jax.device_put
    else:
        shared = share_rows(own._replace(weights=None), mesh)
        features, device_labels, device_offset = shared.features, shared.labels, shared.offset
        places = row_places(len(own.labels), mesh)
        placed = partial(place_weights, places=places, size=len(features), mesh=mesh)

    outputs = None if num_classes == 2 else num_classes
    floating = jnp.issubdtype(features.dtype, jnp.floating)
    dtype = jnp.promote_types(features.dtype, jnp.float32) if floating else jnp.float32
    return Task(
        features=features,
        device_labels=device_labels,
        device_offset=device_offset,
        places=places,
        labels=labels,
        num_classes=num_classes,
        weights=weights,
        weights_of=_make_weights_of(labels, weights, roles, num_classes),
        placed=placed,
        loss_of=lambda lane: _loss_of(lane["loss"], lane["label_smoothing"], num_classes),
        start=linear.init(jax.random.key(0), features.shape[1], outputs, stddev=0, dtype=dtype),
        mesh=mesh,
        penalty_factors=penalty_factors,
        bounds=bounds,
    )


def with_roles(task: Task, roles: Roles) -> Task:
    """The task of the same rows, used in other roles."""
    used = _make_weights_of(task.labels, task.weights, roles, task.num_classes)
    return task._replace(weights_of=used)


def _make_weights_of(labels, weights, roles: Roles, num_classes: int) -> Callable:
    @lru_cache(maxsize=64)
    def weights_by(*chosen) -> np.ndarray:
        lane = dict(zip(_ROW_KEYS, chosen, strict=True))
        return training_weights(lane, labels, weights, roles, num_classes)

    return lambda lane: weights_by(*(lane[key] for key in _ROW_KEYS))


@lru_cache(maxsize=64)
def _loss_of(name: str, smoothing: float, num_classes: int) -> Callable:
    """One function for each loss, so that its programs are compiled once."""
    if name != LOG_LOSS:
        return getattr(losses, name)
    loss = losses.bernoulli_nll if num_classes == 2 else losses.categorical_nll
    return partial(loss, smoothing=smoothing) if smoothing else loss


def grouped(lanes: Sequence, key: Callable) -> list[list]:
    """Lanes with the same key together, in the order in which the groups begin."""
    found: dict[str, list] = {}
    for lane in lanes:
        found.setdefault(str(key(lane)), []).append(lane)
    return list(found.values())


def make_judge(task: Task, roles: Roles, own: Batch | None, metric: str) -> Callable:
    """``lanes -> stacked params -> {name: (lanes,)}`` on the rows that judge each lane."""

    if own is not None and task.mesh is not None:
        own = share_rows(own, task.mesh)

    def judge(lanes: Sequence[Lane]) -> Callable:
        if own is not None:
            return lambda params: _measured(params, own, metric, shared=True)
        base = 1 if task.weights is None else task.weights
        weights = np.stack([held_rows(lane, roles) * base for lane in lanes])
        weights = task.placed(weights.astype(task.start.weights.dtype))
        rows = Batch(task.features, task.device_labels, weights, task.device_offset)
        return lambda params: _measured(params, rows, metric)

    return judge


def measure_one(params, batch: Batch, mesh: Mesh | None, metric: str) -> dict[str, float]:
    """Log loss, accuracy and the metric of one model on rows; each process gives its own rows."""
    batch = batch if mesh is None else share_rows(batch, mesh)
    stacked = jax.tree.map(lambda x: x[None], params)
    found = _measured(stacked, batch, metric, shared=True)
    return {name: float(values[0]) for name, values in found.items()}


def _measured(params, batch: Batch, metric: str, *, shared: bool = False) -> dict[str, np.ndarray]:
    """Log loss, accuracy and the metric of stacked models.

    Each model has its own weights of the rows, or all share the same.
    """
    names = tuple(dict.fromkeys(["log_loss", "accuracy", metric]))
    names = tuple(name for name in names if name not in RANKINGS)
    found = to_host(_measure(params, *batch, names=names, shared=shared))
    if metric in RANKINGS:
        found[metric] = _ranked(params, batch, RANKINGS[metric], shared)
    return {name: values.astype(np.float64) for name, values in found.items()}


@partial(jit_by_shape, static_argnames=("names", "shared"))
def _measure(
    params, features, labels, weights, offset, *, names, shared: bool
) -> dict[str, jax.Array]:
    def of_lane(params, weights):
        logits = _all_logits(params, features, offset)
        return {name: getattr(metrics, name)(logits, labels, weights) for name in names}

    if is_sparse(features):  # a product for one model after another
        if shared:
            return jax.lax.map(lambda params: of_lane(params, weights), params)
        return jax.lax.map(lambda lane: of_lane(*lane), (params, weights))
    return on_all(jax.vmap(of_lane, (0, None if shared else 0))(params, weights))


def _all_logits(params, features, offset) -> jax.Array:
    if is_sparse(features):
        logits = linear.logits(params, features)
    else:
        logits = jax.vmap(linear.logits, (None, 0))(params, features)
    return logits if offset is None else plus_offset(logits, offset)


def _ranked(params, batch: Batch, measure: Callable, shared: bool) -> np.ndarray:
    """A measure of the order of rows, which is taken on the host, of one model after another."""
    labels, weights = to_host(_on_all(batch.labels, batch.weights))
    values = []
    for i in range(len(params.weights)):
        own = jax.tree.map(lambda x, i=i: x[i], params)
        logits = to_host(_logits(own, batch.features, batch.offset))
        scores = logits if logits.ndim == 1 else softmax(logits.astype(np.float64), 1)
        of_model = weights if shared or weights is None else weights[i]
        values.append(measure(scores, labels, of_model))
    return np.array(values)


@jit_by_shape
def _logits(params, features, offset) -> jax.Array:
    return on_all(_all_logits(params, features, offset))


@jit_by_shape
def _on_all(labels, weights) -> tuple:
    return on_all((labels, weights))
