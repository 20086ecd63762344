"""Arrays and tables of other libraries as arrays of numbers that JAX takes as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf import checks

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
      ValueError: a number that float32 cannot hold, where float64 becomes float32.
    """
    if isinstance(values, jax.Array):
        return values
    if hasattr(values, "tocsr"):
        raise TypeError(
            f"{name} is a sparse matrix, which the estimators take; here .toarray() makes it dense"
        )
    if is_table(values):
        array = _of_table(name, values)
    elif hasattr(values, "__dlpack__") and not isinstance(values, np.ndarray | np.generic):
        array = _of_tensor(values)
    else:
        array = np.asarray(values)
    return array if isinstance(array, jax.Array) else _held_by_jax(name, array)


def as_labels(values: Any) -> np.ndarray | jax.Array:
    """The labels in ``values`` as numbers; texts become the numbers of their classes.

    Raises:
      TypeError, ValueError: as :func:`as_array`, and texts of which some are missing.
    """
    foreign = is_table(values) or hasattr(values, "__dlpack__")
    array = np.asarray(values) if isinstance(values, np.ndarray) or not foreign else None
    if array is None or array.dtype.kind not in "OTU":
        return as_array("labels", values if array is None else array)
    texts = array.ravel().tolist()
    if array.ndim != 1 or not all(isinstance(text, str) for text in texts):
        wrong = next((text for text in texts if not isinstance(text, str)), texts[:1])
        raise TypeError(
            f"labels must be numbers, or texts of shape (n,); got {repr(wrong)[:_LONGEST]} in an "
            f"array of {array.dtype} of shape {array.shape}"
        )
    return np.unique(texts, return_inverse=True)[1].astype(np.int32)


def is_table(values: Any) -> bool:
    """Whether values are a table of pandas, polars or pyarrow, or a mapping to columns."""
    return hasattr(values, "columns") or isinstance(values, Mapping)


def column_names(table: Any) -> list:
    """The names of the columns of such a table."""
    names = getattr(table, "column_names", None)  # of pyarrow, whose columns are arrays
    return list(getattr(table, "columns", table) if names is None else names)


def _of_table(name: str, table: Any) -> np.ndarray:
    """The columns of a table side by side."""
    columns = []
    for column in column_names(table):
        array = np.asarray(table[column])
        if array.dtype.kind not in "iufb":
            what = f"a column {str(column)[:_LONGEST]!r} of {array.dtype}"
            raise TypeError(
                f"{name} has {what} with text or missing cells; jaxclf.load_dataset reads tables "
                "with such columns from a file"
            )
        columns.append(array)
    return np.column_stack(columns) if columns else np.empty((0, 0))


def _of_tensor(tensor: Any) -> np.ndarray | jax.Array:
    """The numbers of an array that other libraries can read where it is."""
    if hasattr(tensor, "detach"):  # torch refuses to share what it differentiates
        tensor = tensor.detach()
    if tensor.__dlpack_device__()[0] == _CPU:
        try:
            return np.from_dlpack(tensor)
        except (BufferError, RuntimeError):  # NumPy has no bfloat16
            return np.asarray(jnp.from_dlpack(tensor))
    with jax.enable_x64(True):
        return jnp.from_dlpack(tensor)


def _held_by_jax(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype == np.float64 and not jax.config.jax_enable_x64:
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
