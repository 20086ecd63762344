"""Arrays of other libraries, where scikit-learn's ``array_api_dispatch`` lets them in.

Features go to JAX through DLPack and stay on their device; what is fitted comes back as arrays of
the same library on the same device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import get_config
from sklearn.utils._array_api import (
    _is_numpy_namespace,
    get_namespace,
    get_namespace_and_device,
    move_to,
)


class Library(NamedTuple):
    """The library of an array, and the device that the array is on."""

    namespace: Any
    device: Any

    def array(self, values: Any) -> Any:
        """Values as an array of the library, on the device."""
        return move_to(values, xp=self.namespace, device=self.device)


def dispatches() -> bool:
    """Whether scikit-learn's dispatch is on."""
    return get_config()["array_api_dispatch"]


def library_of(values: Any) -> Library | None:
    """The library of an array that dispatch lets in; ``None`` for NumPy and for no array."""
    if not dispatches():
        return None
    namespace, is_array, device = get_namespace_and_device(values)
    if not is_array or _is_numpy_namespace(namespace):
        return None
    return Library(namespace, device)


def check_same_library(given: Any, fitted: Any) -> None:
    """Raises ValueError for an array of another library or device than the fitted arrays."""
    there, here = library_of(given), library_of(fitted)
    if there != here:
        names = [_name_of(library) for library in (there, here)]
        raise ValueError(
            "X must use the same namespace and the same device as the arrays given to fit(): it is "
            f"an array of {names[0]}, and they were arrays of {names[1]}"
        )


def _name_of(library: Library | None) -> str:
    if library is None:
        return "NumPy"
    return f"{library.namespace.__name__} on {library.device}"


def namespace_of(values: Any) -> Any:
    """The functions of NumPy, of the library that an array is of."""
    return get_namespace(values)[0]


def on_host(values: Any) -> Any:
    """An array of any library as one of NumPy; other values as they are."""
    return values if library_of(values) is None else move_to(values, xp=np, device="cpu")


def to_jax(values: Any) -> jax.Array:
    """An array of any library as one of JAX, on its device, without a copy where DLPack has it."""
    with jax.enable_x64(True):
        if isinstance(values, jax.Array):
            return values
        try:
            return jnp.from_dlpack(values)
        except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
            return jnp.asarray(on_host(values))
