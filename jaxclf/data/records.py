"""Records of a random-access source, of Grain or TensorFlow Datasets, as columns of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np


class Column:
    """A field of all records as an array whose rows are read when they are asked for."""

    def __init__(self, source: Any, name: str):
        first = np.asarray(source[0][name])
        self.source, self.name = source, name
        self.shape, self.dtype = (len(source), *first.shape), first.dtype
        self.ndim = len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        """The rows of a slice, or of a list of row numbers.

        Raises:
          ValueError: a record whose shape, or whose kind of numbers, is not that of the first.
        """
        chosen = range(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        numbers = [int(i) for i in chosen]
        many = getattr(self.source, "__getitems__", None)
        records = many(numbers) if many else [self.source[i] for i in numbers]
        found = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for i, record in enumerate(records):
            value = np.asarray(record[self.name])
            fits = np.can_cast(value.dtype, self.dtype, "safe")
            if value.shape != self.shape[1:] or not fits:
                raise ValueError(
                    f"field {self.name!r} of record {numbers[i]} has shape {value.shape} and dtype "
                    f"{value.dtype}; the first record has {self.shape[1:]} and {self.dtype}"
                )
            found[i] = value
        return found

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)


def columns(source: Any, features: str = "features", label: str = "label") -> tuple:
    """``(features, labels)`` for a :class:`jaxclf.Batch`: features as they are read, labels now.

    A pass over many records takes as long as decoding them. Records that are read more than a few
    times are better kept as ``npy`` files, which are mapped into memory.

    Args:
      source: an object with a length and ``source[i] -> {name: array}``: a ``grain.MapDataset``, a
        data source of ArrayRecord files or of ``tfds.data_source``, or a list.
      features: name of the field of features, all of one shape.
      label: name of the field of labels.

    Raises:
      ValueError: no records, or no such field.
    """
    if not len(source):
        raise ValueError("a source needs at least one record")
    for name in (features, label):
        if name not in source[0]:
            raise ValueError(f"records have the fields {', '.join(source[0])}, not {name!r}")
    return Column(source, features), Column(source, label)[:]
