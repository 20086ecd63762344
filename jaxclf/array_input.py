"""Arrays and tables of other libraries as arrays of numbers that JAX takes as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks
from jaxclf.sparse_rows import is_sparse_input

_CPU = 1
"""The number of the host among the devices of DLPack."""
_LONGEST = 40


def as_array(name: str, values: Any) -> np.ndarray | jax.Array:
    """The numbers in ``values``, in a dtype that JAX holds.

    An array that is on an accelerator stays there, and is not copied. float64 becomes float32 while
    JAX's 64-bit mode is off.

    Args:
      name: the name of the argument, for messages.
      values: numbers in lists, an array of NumPy or JAX, a table of pandas, polars or pyarrow
        whose columns are numbers, or a tensor of torch, CuPy or another library that has DLPack.

    Raises:
      TypeError: text, objects, a sparse matrix, or integers that need 64 bits while JAX's 64-bit
        mode is off.
      ValueError: a number that float32 cannot hold, where float64 becomes float32; masked entries,
        or columns of one name.
    """
    return narrowed(name, read_array(name, values))


def read_array(name: str, values: Any) -> np.ndarray | jax.Array:
    """The numbers in ``values`` in the dtype that they have; see :func:`as_array`."""
    if is_sparse_input(values):
        raise TypeError(
            f"{name} must be dense here, got a sparse {type(values).__name__}; make_batch and the "
            "estimators take sparse features"
        )
    if np.ma.isMaskedArray(values) and np.ma.is_masked(values):
        raise ValueError(f"{name} has masked entries: fill them, or leave their rows out")
    array = _of_table(name, values) if is_table(values) else _of_array(name, values)
    if isinstance(array, np.ndarray) and array.dtype.kind in "iuf":
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            return array.astype(np.float64)
    return array


def as_labels(values: Any, class_names: Sequence[str] | None = None) -> np.ndarray | jax.Array:
    """The labels in ``values`` as numbers; texts become the numbers of their classes.

    Args:
      values: numbers or texts.
      class_names: the texts in the order of their numbers; by default those in ``values``, sorted.

    Raises:
      TypeError, ValueError: as :func:`as_array`, and texts of which some are missing or have no
        name.
    """
    if isinstance(values, list | tuple) and any(isinstance(value, str) for value in values):
        array = np.empty(len(values), object)
        array[:] = values  # NumPy would make a text of a number among texts
    else:
        array = read_array("labels", values)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "OTU":
        return narrowed("labels", array)
    texts = array.ravel().tolist()
    if array.ndim != 1 or not all(isinstance(text, str) for text in texts):
        wrong = next((text for text in texts if not isinstance(text, str)), texts[:1])
        raise TypeError(
            f"labels must be numbers, or texts of shape (n,); got {repr(wrong)[:_LONGEST]} in an "
            f"array of {array.dtype} of shape {array.shape}"
        )
    names = sorted(set(texts)) if class_names is None else list(class_names)
    numbers = {name: number for number, name in enumerate(names)}
    if unknown := set(texts) - set(names):
        raise ValueError(f"labels has {min(unknown)[:_LONGEST]!r}, which is none of class_names")
    return np.array([numbers[text] for text in texts], np.int32)


def is_table(values: Any) -> bool:
    """Whether values are a table of pandas, polars or pyarrow, or a mapping to columns."""
    return hasattr(values, "columns") or isinstance(values, Mapping)


def column_names(table: Any) -> list:
    """The names of the columns of such a table."""
    names = getattr(table, "column_names", None)  # of pyarrow, whose columns are arrays
    return list(getattr(table, "columns", table) if names is None else names)


def _of_table(name: str, table: Any) -> np.ndarray:
    """The columns of a table side by side."""
    columns, names = [], column_names(table)
    if repeated := [column for column, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{name} has two columns with the name {str(repeated[0])[:_LONGEST]!r}")
    for column in names:
        array = np.asarray(table[column])
        if array.dtype.kind not in "iufb":
            what = f"a column {str(column)[:_LONGEST]!r} of {array.dtype}"
            raise TypeError(
                f"{name} has {what} with text or missing cells; jaxclf.load_dataset reads tables "
                "with such columns from a file"
            )
        columns.append(array)
    return np.column_stack(columns) if columns else np.empty((0, 0))


def _of_array(name: str, values: Any) -> np.ndarray | jax.Array:
    """The numbers of lists, or of an array of any library, which stays on its accelerator."""
    if not hasattr(values, "__dlpack_device__") or isinstance(values, np.ndarray | jax.Array):
        return values if isinstance(values, jax.Array) else np.asarray(values)
    if hasattr(values, "detach"):  # torch refuses to share what it differentiates
        values = values.detach()
    try:
        on_host = values.__dlpack_device__()[0] == _CPU
        if on_host and hasattr(values, "__array__"):
            try:
                return np.asarray(values)
            except TypeError:  # NumPy has no bfloat16
                pass
        with jax.enable_x64(True):
            array = jnp.from_dlpack(values)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        kind = f"{type(values).__module__}.{type(values).__name__}"
        raise TypeError(f"{name} is a {kind} that cannot be read: {str(error)[:200]}") from None
    return np.asarray(array) if on_host else array


def narrowed(name: str, array: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    """An array in a dtype that JAX holds: float64 becomes float32 unless 64-bit mode is on."""
    if jax.config.jax_enable_x64 or array.dtype.itemsize < 8:
        return array
    array = np.asarray(array)
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):
            narrow = array.astype(np.float32)
        lost = np.isinf(narrow) & np.isfinite(array)
        if lost.any():
            raise ValueError(
                f"{name} holds {array[lost].flat[0]:g}, which float32 cannot hold: work under "
                "`with jax.enable_x64(True)`"
            )
        return narrow
    checks.check_no_downcast(name, array)
    return array
