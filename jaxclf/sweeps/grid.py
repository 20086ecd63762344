"""Grids: the keys that may vary between the lanes of a sweep, and the lanes that a grid makes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from jaxclf import checks
from jaxclf.training.optimizers import optimizer_factory

LOG_LOSS = "log_loss"
LOSSES = {
    LOG_LOSS: "any number of classes",
    "onehot_squared_error": "more than two classes",
    "softmax_squared_error": "more than two classes",
    "multiclass_hinge": "more than two classes",
    "sigmoid_squared_error": "two classes",
}
"""Losses of integer labels, each with the number of classes that it is for."""
_SOLVED = (LOG_LOSS, "onehot_squared_error")
"""The losses that are convex and smooth."""
Lane = dict[str, Any]
"""One configuration: a value for every key, fit for JSON."""

COMMON = {
    "l2": 0.0,
    "l1_ratio": 0.0,
    "fold": None,
    "train_fraction": 1.0,
    "seed": 0,
    "class_weight": None,
    "label_smoothing": 0.0,
    "loss": LOG_LOSS,
}
"""The keys of every sweep, and their values where a grid does not give any."""
MINIBATCH = {"optimizer": "sgd", "learning_rate": 0.1, "batch_size": 256, "shuffle_seed": 0}
"""Further keys of minibatch sweeps. The numbers that the optimizer takes are keys too."""
CLASS_WEIGHTS = (None, "balanced")


def lanes_of(grid: Mapping | Iterable[Mapping], method: str) -> tuple[Lane, ...]:
    """The configurations of a grid, each complete.

    Args:
      grid: a mapping from keys to values, of which every combination is taken, the last key
        varying fastest; or a sequence of mappings from keys to one value each.
      method: ``convex`` or ``minibatch``, which decides what the keys may be.

    Raises:
      ValueError, TypeError: an unknown key, no values, a value that its key does not take, or two
        lanes that are the same.
    """
    if isinstance(grid, Mapping):
        axes = {key: _values(key, values) for key, values in grid.items()}
        chosen = [
            dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
        ]
    else:
        chosen = list(grid)
        if not chosen or not all(isinstance(lane, Mapping) for lane in chosen):
            raise TypeError(
                "grid must be a mapping from keys to values or a sequence of mappings, "
                f"got {grid!r:.80}"
            )
    lanes = tuple(_complete(lane, method) for lane in chosen)
    keys = [tuple(sorted(lane.items(), key=str)) for lane in lanes]
    if len(set(keys)) < len(keys):
        twice = next(lane for lane, key in zip(chosen, keys, strict=True) if keys.count(key) > 1)
        raise ValueError(f"the grid has the same configuration twice: {dict(twice)}")
    _check_folds(lanes)
    return lanes


def varying(lanes: tuple[Lane, ...]) -> tuple[str, ...]:
    """The keys that differ between lanes."""
    keys = dict.fromkeys(key for lane in lanes for key in lane)
    return tuple(key for key in keys if len({str(lane.get(key)) for lane in lanes}) > 1)


def num_folds(lanes: tuple[Lane, ...]) -> int:
    """The number of folds of the lanes; 0 for none."""
    return len({lane["fold"] for lane in lanes} - {None})


def hyperparameters(optimizer: str) -> dict[str, Real]:
    """The numbers that an optimizer of optax takes, with their defaults.

    Raises:
      ValueError: no such optimizer.
    """
    numbers = {"momentum": 0.0} if optimizer == "sgd" else {}
    for name, parameter in inspect.signature(optimizer_factory(optimizer)).parameters.items():
        default = parameter.default
        if isinstance(default, Real) and not isinstance(default, bool):
            numbers[name] = default
    return {"learning_rate": MINIBATCH["learning_rate"], **numbers}


def _values(key: str, values) -> list:
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = [values]
    values = list(values)
    if not values:
        raise ValueError(f"axis {key!r} of the grid is empty")
    return values


def _complete(lane: Mapping, method: str) -> Lane:
    known = dict(COMMON)
    if method == "minibatch":
        optimizer = lane.get("optimizer", MINIBATCH["optimizer"])
        known |= MINIBATCH | hyperparameters(optimizer)
    for key in lane:
        checks.check_option("grid key", key, known)
    complete = known | {key: _plain(value, known[key]) for key, value in lane.items()}
    _check(complete, known)
    checks.check_option("loss", complete["loss"], LOSSES if method == "minibatch" else _SOLVED)
    return complete


def _plain(value, default):
    """A Python number, floating where the default is, so that equal lanes are equal."""
    value = value.item() if isinstance(value, np.generic) else value
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and isinstance(default, float) else value


def _check(lane: Lane, known: Lane) -> None:
    for key, default in known.items():
        if isinstance(default, float):
            if not isinstance(lane[key], Real) or isinstance(lane[key], bool):
                raise ValueError(f"{key} must be a number, got {lane[key]!r}")
            checks.check_number(key, lane[key])
    if "learning_rate" in known:
        checks.check_number("learning_rate", lane["learning_rate"], above=0)
    checks.check_number("l2", lane["l2"], at_least=0)
    checks.check_number("l1_ratio", lane["l1_ratio"], at_least=0, at_most=1)
    checks.check_number("train_fraction", lane["train_fraction"], above=0, at_most=1)
    checks.check_number("label_smoothing", lane["label_smoothing"], at_least=0, at_most=1)
    checks.check_option("class_weight", lane["class_weight"], CLASS_WEIGHTS)
    for key in ("fold", "seed", "shuffle_seed", "batch_size"):
        value = lane.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"{key} must be a whole number, got {value!r}")
        if value is not None:
            checks.check_number(key, value, at_least=int(key == "batch_size"))
    if lane["label_smoothing"] and lane["loss"] != LOG_LOSS:
        raise ValueError(f"label_smoothing is of {LOG_LOSS}, not of {lane['loss']!r}")


def check_classes(lanes: tuple[Lane, ...], num_classes: int) -> None:
    """Raises ValueError for a loss that is not for so many classes."""
    for lane in lanes:
        wanted = LOSSES[lane["loss"]]
        if (wanted == "two classes" and num_classes > 2) or (
            wanted == "more than two classes" and num_classes == 2
        ):
            raise ValueError(f"loss {lane['loss']} is for {wanted}, the data have {num_classes}")


def _check_folds(lanes: tuple[Lane, ...]) -> None:
    folds = {lane["fold"] for lane in lanes}
    if folds == {None}:
        return
    if None in folds:
        raise ValueError("either every configuration of a grid has a fold or none has")
    if len(folds) < 2 or folds != set(range(len(folds))):
        raise ValueError(f"folds must be 0, 1, … without gaps, at least two; got {sorted(folds)}")
