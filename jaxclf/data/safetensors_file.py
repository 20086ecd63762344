"""Datasets in the file format of safetensors: tensors with names, which nothing can be run from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxclf.data.arrays import Parts, features_in, layout_of, parts_of, used
from jaxclf.messages import shortened


def read_safetensors(path: Path | str) -> tuple[Parts, dict]:
    """Features and labels, under the names that :func:`jaxclf.data.arrays.read_npz` takes.

    Raises:
      ValueError: a damaged file, or one without such tensors.
      OSError: a file that cannot be read.
    """
    with _opened(path) as file:
        names = list(file.keys())
        layout = layout_of(path, names)
        arrays = {name: file.get_tensor(name) for name in used(layout, names)}
    return parts_of(path, arrays, layout, names)


def safetensors_chunks(path: Path | str, rows: int) -> Iterator[np.ndarray]:
    """The features alone, some rows at a time.

    Raises:
      ValueError: a damaged file, or one without features.
      OSError: a file that cannot be read.
    """
    with _opened(path) as file:
        name = features_in(file.keys())
        if name is None:
            raise ValueError(f"{path}: expected a tensor with the name features")
        part = file.get_slice(name)
        shape = part.get_shape()
        if len(shape) < 2 or 0 in shape:
            raise ValueError(f"{path}: {name} must be (rows, columns), got {tuple(shape)}")
        for first in range(0, shape[0], rows):
            yield part[first : min(first + rows, shape[0])]


@contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):  # an error of the system names the file
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, AttributeError) as error:  # NumPy has no numbers of 8 bits
        raise ValueError(f"{path}: cannot be read as safetensors: {shortened(error)}") from None
