"""Meshes of devices, and data and models shared out over them.

A mesh has the axis ``rows`` and may have ``model``. Over ``rows`` every device holds as many rows
of data as any other; where n does not divide, the last rows fill up and have weight zero. Over
``model`` go the classes of a linear model, or the lanes of a sweep, where it divides their number.
All else is on all devices. Each device sums over its own rows, and the sums of all devices are
added (``jax.shard_map`` and ``psum``); XLA shares out the rest by itself. A program is compiled for
the mesh that is in use (:func:`using`), so that programs for one device and for many are kept side
by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

ROWS, MODEL = "rows", "model"


def make_mesh(devices: Mesh | Sequence[jax.Device] | int | str = "all", *, model: int = 1) -> Mesh:
    """A mesh of all devices of all processes, of a number of them, or of the devices given.

    Args:
      devices: ``"all"``, a number, devices, or a mesh, which is taken as it is.
      model: the number of parts that the classes or lanes are cut into. The rows are cut into as
        many parts as there are devices, divided by ``model``.

    Raises:
      ValueError: fewer devices than asked for, none, a number that ``model`` does not divide, or
        a mesh with other axes.
    """
    if isinstance(devices, Mesh):
        if ROWS not in devices.axis_names or not {ROWS, MODEL}.issuperset(devices.axis_names):
            raise ValueError(
                f"a mesh must have the axis {ROWS!r} and may have {MODEL!r}, got "
                f"{devices.axis_names}"
            )
        return devices
    known = jax.devices()
    if isinstance(devices, str):
        if devices != "all":
            raise ValueError(f"devices must be 'all', a number, devices or a mesh; got {devices!r}")
        devices = known
    elif isinstance(devices, int | np.integer):
        if not 1 <= devices <= len(known):
            raise ValueError(f"devices must be 1 … {len(known)}, which are here; got {devices}")
        devices = known[:devices]
    if not len(devices):
        raise ValueError("a mesh needs at least one device, got none")
    if model < 1 or len(devices) % model:
        raise ValueError(
            f"model={model} must divide the number of devices, which is {len(devices)}"
        )
    shape = np.array(devices).reshape(-1, model)
    return Mesh(shape, (ROWS, MODEL), axis_types=(AxisType.Auto,) * 2)


@contextmanager
def using(mesh: Mesh | None) -> Iterator[None]:
    """A context in which programs share their rows out over the mesh; ``None`` is one device."""
    if mesh is None:
        yield
    else:
        with jax.set_mesh(mesh):
            yield


def in_use() -> bool:
    """Whether a mesh is in use, also while a program is traced."""
    return ROWS in jax.sharding.get_abstract_mesh().axis_names


def in_use_along(axis: str) -> int:
    """The number of devices along an axis of the mesh in use; 1 without a mesh."""
    return jax.sharding.get_abstract_mesh().shape.get(axis, 1)


def spread(rows):
    """Rows ``(b, …)`` over the devices of the mesh in use, where they can be dealt out evenly."""
    size = in_use_along(ROWS)
    if size == 1 or any(x.shape[0] % size for x in jax.tree.leaves(rows)):
        return rows
    return jax.lax.with_sharding_constraint(rows, PartitionSpec(ROWS))


def on_all(tree):
    """The results of a program, put on all devices alike; unchanged without a mesh in use."""
    if not in_use():
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)
