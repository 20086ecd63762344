"""An offset that is a column of a table: its number is added to the logit of the second class."""

from __future__ import annotations

import numpy as np

from jaxclf.data import Dataset
from jaxclf.data.table_plan import Column, TablePlan
from jaxclf.messages import listed, shortened
from jaxclf.models.linear import LinearParams


def plan_with_offset(dataset: Dataset, name: str) -> TablePlan:
    """The plan of a table in which a column is a number that no row may lack."""
    if dataset.plan is None:
        raise ValueError(f"an offset is a column of a table, which {dataset.name} is not")
    names = [column.name for column in dataset.plan.columns]
    if name not in names:
        raise ValueError(
            f"{dataset.name}: no column {shortened(name)} for the offset; it has {listed(names)}"
        )
    if dataset.num_classes != 2:
        raise ValueError(f"an offset is for two classes, {dataset.name} has {dataset.num_classes}")
    number = Column(name, "number", "the offset", fill=float("nan"))
    columns = (number if column.name == name else column for column in dataset.plan.columns)
    return dataset.plan._replace(columns=tuple(columns))


def offset_place(dataset: Dataset, offset: str | None) -> int | None:
    """The place of the column of the offset among the features."""
    return None if offset is None else dataset.feature_names.index(offset)


def split_offset(features: np.ndarray, place: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The features to learn from, and the offset that one column gives."""
    if place is None:
        return features, None
    return np.delete(features, place, 1), features[:, place]


def offset_of_both(offset: np.ndarray | None) -> np.ndarray | None:
    """The offset of both logits: half of it for the second class, and minus half for the first."""
    return None if offset is None else np.stack([-offset / 2, offset / 2], 1)


def with_offset_weight(params: LinearParams, place: int) -> LinearParams:
    """The parameters of all columns: an offset is a column whose weight is known."""
    half = np.array([-0.5, 0.5], np.float32)
    return params._replace(weights=np.insert(np.asarray(params.weights), place, half, 1))
