"""The parts that `jaxclf probe` and `jaxclf sweep` have in common: data, grid, model, results."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.sparse import issparse

from jaxclf import metrics
from jaxclf.commands.console import print_table, show_measures, show_table
from jaxclf.commands.offset_column import offset_place, split_offset, with_offset_weight
from jaxclf.commands.recipe import (
    Recipe,
    fit_scaling,
    load,
    own_slice,
    pixels_of,
)
from jaxclf.data import Dataset, transforms
from jaxclf.data.dataset import with_dense_features
from jaxclf.models.classifier import Architecture, Classifier
from jaxclf.models.linear import LinearParams, both_classes
from jaxclf.objectives import Batch, make_batch
from jaxclf.reports.sweep import best_configurations, edges, statuses
from jaxclf.sweeps import SweepResult

_READING = ("label", "offset", "table", "data_dir", "seed")
"""The options of a recipe that say how its data are read."""


def run_of(command: Any, data: Dataset) -> dict:
    """What tells a run of a command on some data from others, in the values of JSON."""
    facts = {"command": type(command).__name__.lower(), **asdict(command), "data": data.sha256}
    for name in ("out", "overwrite", "device"):
        facts.pop(name)
    return json.loads(json.dumps(facts, default=str))


def parse_grid(axes: tuple[str, ...]) -> dict[str, list]:
    """The grid of axes such as ``l2=1e-3:1:4`` and ``loss=log_loss``.

    Raises:
      ValueError: text that is no axis.
    """
    grid = {}
    for axis in axes:
        key, equals, text = axis.partition("=")
        if not (key and equals and text) or key in grid:
            raise ValueError(
                f"a grid axis is KEY=VALUE,VALUE,... or KEY=FROM:TO:COUNT, each key once; got "
                f"{axis!r}"
            )
        grid[key] = _range(axis, text) if ":" in text else [_value(x) for x in text.split(",")]
    return grid


def _range(axis: str, text: str) -> list[float]:
    try:
        first, last, count = text.split(":")
        first, last, count = float(first), float(last), int(count)
    except ValueError:
        raise ValueError(f"a range is FROM:TO:COUNT, got {axis!r}") from None
    if not (0 < first < np.inf and 0 < last < np.inf and count >= 1):
        raise ValueError(f"a range needs positive ends and a count of at least 1, got {axis!r}")
    return np.geomspace(first, last, count).tolist()


def _value(text: str):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None if text == "none" else text


def parts_of(
    source: str, command: Any, devices: Any
) -> tuple[Dataset, Dataset, transforms.Standardiser | None]:
    """The training and the test part of a dataset, and the scaling that fits the training part.

    Args:
      source: the name of the dataset.
      command: a command with the options of :class:`Recipe` that say how data are read.
      devices: the devices that rows are shared out over, which takes dense features.
    """
    recipe = Recipe(source, **{name: getattr(command, name) for name in _READING})
    train = load(recipe, "train")
    train = train if devices is None else with_dense_features(train)
    show_table(train)
    test = load(recipe, "test", train.plan)
    test = test if devices is None else with_dense_features(test)
    return train, test, fit_scaling(train, command.offset)


def scaled_batch(
    data: Dataset, scaling: transforms.Standardiser | None, offset: str | None
) -> Batch:
    """The rows of a dataset, scaled and flat, with a column of it as the offset."""
    features = transforms.scaled(scaling, data.features)
    if not issparse(features):
        features = np.asarray(features).reshape(len(data.labels), -1)
    several = data.labels.ndim == 2
    features, known = split_offset(features, offset_place(data, offset))
    num_classes = None if several else data.num_classes
    return make_batch(features, data.labels, num_classes=num_classes, offset=known)


def own_batch(data: Dataset, scaling: transforms.Standardiser | None, offset: str | None) -> Batch:
    """The rows of this process, where there are several."""
    own = own_slice(len(data.labels))
    part = data._replace(features=data.features[own], labels=data.labels[own])
    return scaled_batch(part, scaling, offset)


def classifier_of(params: LinearParams, train: Dataset, scaling, offset: str | None) -> Classifier:
    """The classifier with one row of weights per class, as model files have it."""
    if np.ndim(params.weights) == 1:
        params = both_classes(params)
    if (place := offset_place(train, offset)) is not None:
        params = with_offset_weight(params, place)
    architecture = Architecture(
        "linear", train.features.shape[1:], train.num_classes, (), 0.0, pixels_of(train, scaling)
    )
    return Classifier(
        architecture, params, train.class_names, train.feature_names, scaling, train.plan
    )


def show(result: SweepResult, test: Dataset) -> None:
    """Prints the best configurations, and the measures of the one that was chosen."""
    print(statuses(result))
    chosen = result.selection
    if chosen is None:
        return
    best = best_configurations(chosen)
    print_table(best, "the best ten" if len(best.rows) == 10 else None)
    for sentence in edges(chosen):
        print(sentence)
    if chosen.test is not None:
        title = f"chosen, fitted again to all training rows, on {len(test.labels)} test rows:"
        of_shares = metrics.measures_of_shares(test.labels, test.num_classes)
        show_measures(title, dict(chosen.test), of_shares)
