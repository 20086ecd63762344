"""A labelled dataset as host arrays, with the names and the origin that belong to it."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse

from jaxclf.data.memory import free_host_memory
from jaxclf.data.table_plan import TablePlan
from jaxclf.mapped_files import check_unchanged

_AT_ONCE = 2**26
"""The bytes between two looks at a mapped file."""


class Dataset(NamedTuple):
    """A labelled dataset in host memory."""

    name: str
    features: np.ndarray
    """The features, ``(n, d)``, or ``(n, height, width)`` images; of ``svmlight:FILE`` they may be
    a :class:`scipy.sparse.csr_array`."""
    labels: np.ndarray
    """The labels, ``(n,)``: int32 class numbers, or float targets for regression. Where a row may
    have several labels, ``(n, K)`` uint8: 1 for those that it has."""
    class_names: tuple[str, ...]
    """One name per class or label; empty for regression."""
    feature_names: tuple[str, ...]
    """One name per column, with the unit where there is one; empty for images."""
    source: str
    """The people who collected the data, or the file or the formula that they come from."""
    plan: TablePlan | None = None
    """The plan by which the columns of a table became the features."""
    notes: tuple[str, ...] = ()
    """What was recognised or changed in reading, a sentence each."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Height and width if the rows are grey images, also flattened square ones."""
        shape = self.features.shape[1:]
        if len(shape) == 2:
            return shape
        if self.feature_names and all(name.startswith("pixel") for name in self.feature_names):
            side = math.isqrt(shape[0])
            return (side, side) if side * side == shape[0] else None
        return None

    @property
    def sha256(self) -> str:
        """The SHA-256 of the features and labels with their shapes and dtypes."""
        x = self.features
        if issparse(x):
            return digest(np.array(x.shape), x.data, x.indices, x.indptr, self.labels)
        return digest(x, self.labels)


def with_dense_features(dataset: Dataset) -> Dataset:
    """The dataset with dense features, and a note if they were sparse.

    Raises:
      ValueError: dense features that would take more than a quarter of the free memory.
    """
    x = dataset.features
    if not issparse(x):
        return dataset
    size, free = x.shape[0] * x.shape[1] * x.dtype.itemsize, free_host_memory()
    if size > free / 4:
        raise ValueError(
            f"{dataset.name}: sparse features of shape {x.shape} take {size / 2**30:.3g} GiB when "
            f"dense, which this needs, and {free / 2**30:.3g} GiB are free; jaxclf.minimize and "
            "jaxclf.LogisticRegression take them sparse"
        )
    zeros = 1 - x.nnz / (x.shape[0] * x.shape[1])
    note = f"The features, of which {zeros:.3%} are zero, are made dense."
    return dataset._replace(features=x.toarray(), notes=(*dataset.notes, note))


def invented_names(columns: int) -> tuple[str, ...]:
    """The names of columns that have none of their own."""
    return tuple(f"x{j}" for j in range(columns))


def digest(*arrays) -> str:
    """SHA-256 of some arrays with their shapes and dtypes; ``None`` is passed over."""
    found = hashlib.sha256()
    for array in arrays:
        if array is not None:
            array = np.ascontiguousarray(array)
            found.update(f"{array.dtype.str}{array.shape}".encode())
            content = array.reshape(-1).view(np.uint8)
            for first in range(0, content.size, _AT_ONCE):
                check_unchanged(array)
                found.update(content[first : first + _AT_ONCE])
    return found.hexdigest()
