"""What the lanes of a sweep have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import losses, metrics
from jaxclf.models import linear
from jaxclf.objectives import Batch
from jaxclf.sweeps.grid import LOG_LOSS, Lane
from jaxclf.sweeps.rows import Roles, held_rows, training_weights

_ROW_KEYS = ("fold", "share", "seed", "class_weight")
"""Keys that say which rows a lane is trained on, and with what weights."""


class Finished(NamedTuple):
    """What is known of a lane when it is done."""

    params: Any
    facts: dict
    """Numbers and text, fit for JSON."""


class Task(NamedTuple):
    """The data of all lanes, and what a configuration means for them."""

    features: jax.Array
    labels: np.ndarray
    device_labels: jax.Array
    num_classes: int
    weights: np.ndarray | None
    """Of the rows, as they were given."""
    weights_of: Callable[[Lane], np.ndarray]
    loss_of: Callable[[Lane], Callable]
    start: linear.LinearParams
    """All zero, in the dtype to compute in."""


def make_task(data: Batch, num_classes: int, roles: Roles) -> Task:
    """The task of some rows that are used as their roles say."""
    features, labels = jnp.asarray(data.features), np.asarray(data.labels)
    weights = None if data.weights is None else np.asarray(data.weights)

    @lru_cache(maxsize=64)
    def weights_by(*chosen) -> np.ndarray:
        lane = dict(zip(_ROW_KEYS, chosen, strict=True))
        return training_weights(lane, labels, weights, roles, num_classes)

    outputs = None if num_classes == 2 else num_classes
    floating = jnp.issubdtype(features.dtype, jnp.floating)
    dtype = jnp.promote_types(features.dtype, jnp.float32) if floating else jnp.float32
    return Task(
        features=features,
        labels=labels,
        device_labels=jnp.asarray(labels),
        num_classes=num_classes,
        weights=weights,
        weights_of=lambda lane: weights_by(*(lane[key] for key in _ROW_KEYS)),
        loss_of=lambda lane: _loss_of(lane["loss"], lane["label_smoothing"], num_classes),
        start=linear.init(jax.random.key(0), features.shape[1], outputs, stddev=0, dtype=dtype),
    )


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


def make_judge(task: Task, roles: Roles, own: Batch | None) -> Callable:
    """``lanes -> stacked params -> {name: (lanes,)}`` on the rows that judge each lane."""

    def judge(lanes: Sequence[Lane]) -> Callable:
        if own is not None:
            return lambda params: _measured(params, *own, shared=True)
        base = 1 if task.weights is None else task.weights
        weights = np.stack([held_rows(lane, roles) * base for lane in lanes])
        weights = jnp.asarray(weights, jnp.float32)
        return lambda params: _measured(params, task.features, task.device_labels, weights)

    return judge


def measure_one(params, batch: Batch) -> dict[str, float]:
    """Log loss and accuracy of one model on some rows."""
    stacked = jax.tree.map(lambda x: x[None], params)
    found = _measured(stacked, *batch, shared=True)
    return {name: float(values[0]) for name, values in found.items()}


def _measured(params, features, labels, weights, *, shared: bool = False) -> dict[str, np.ndarray]:
    found = _measure(params, features, labels, weights, shared=shared)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


@partial(jax.jit, static_argnames="shared")
def _measure(params, features, labels, weights, *, shared: bool) -> dict[str, jax.Array]:
    """Log loss and accuracy of stacked models; weights are of each lane, or shared by all."""

    def of_lane(params, weights):
        logits = jax.vmap(linear.logits, (None, 0))(params, features)
        return {
            "log_loss": metrics.log_loss(logits, labels, weights),
            "accuracy": metrics.accuracy(logits, labels, weights),
        }

    return jax.vmap(of_lane, (0, None if shared else 0))(params, weights)
