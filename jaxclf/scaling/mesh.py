"""Meshes of devices, and rows of data shared out over them.

A mesh has one axis, ``rows``. Every device holds as many rows as any other, the last of them rows
of weight zero where n does not divide; parameters are on all. Sums over rows are the sum of what
each device makes of its own rows (``jax.shard_map`` and ``psum``); what is done row by row XLA
shares out by itself. While a mesh is in use (:func:`using`) it is part of what a program is
compiled for, so that programs for one device and for many are kept side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxclf.objectives import Batch

ROWS = "rows"


def make_mesh(devices: Mesh | Sequence[jax.Device] | int | str = "all") -> Mesh:
    """A mesh whose axis ``rows`` has all devices of all processes, so many, or those given.

    Raises:
      ValueError: fewer devices than asked for, none, or a mesh without that axis.
    """
    if isinstance(devices, Mesh):
        if devices.axis_names != (ROWS,):
            raise ValueError(f"a mesh must have the one axis {ROWS!r}, got {devices.axis_names}")
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
    return Mesh(np.array(devices), (ROWS,), axis_types=(AxisType.Auto,))


@contextmanager
def using(mesh: Mesh | None) -> Iterator[None]:
    """Programs in the block share their rows out over the mesh; ``None`` is one device."""
    if mesh is None:
        yield
    else:
        with jax.set_mesh(mesh):
            yield


def in_use() -> bool:
    """Whether a mesh is in use, also while a program is traced."""
    return ROWS in jax.sharding.get_abstract_mesh().axis_names


def spread(rows):
    """Rows ``(b, …)`` over the devices of the mesh in use, where they can be dealt out evenly."""
    size = jax.sharding.get_abstract_mesh().shape.get(ROWS, 1)
    if size == 1 or any(x.shape[0] % size for x in jax.tree.leaves(rows)):
        return rows
    return jax.lax.with_sharding_constraint(rows, PartitionSpec(ROWS))


def everywhere(numbers) -> np.ndarray:
    """What each process gives, stacked: ``(processes, …)`` on all of them."""
    if jax.process_count() == 1:
        return np.asarray(numbers)[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(numbers)))


def one_copy(tree):
    """Arrays that all devices hold alike, as arrays of one device of this process."""
    return jax.tree.map(lambda x: x.addressable_data(0) if isinstance(x, jax.Array) else x, tree)


def share_rows(batch: Batch, mesh: Mesh) -> Batch:
    """The rows over the devices of a mesh, with weights, zero for those that fill up.

    Of several processes each gives its own rows, in any number; together they are the data.

    Args:
      batch: host arrays, or arrays on one device.
      mesh: from :func:`make_mesh`.
    """
    batch = Batch(*(None if x is None else np.asarray(x) for x in batch))
    size = _own_size(len(batch.features), mesh)
    weights = np.ones(len(batch.features)) if batch.weights is None else batch.weights
    missing = size - len(batch.features)

    def whole(x: np.ndarray) -> jax.Array:
        filled = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x
        return placed(filled, mesh)

    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    return Batch(whole(batch.features), whole(batch.labels), whole(weights.astype(dtype)))


def placed(rows: np.ndarray, mesh: Mesh | None) -> jax.Array:
    """Rows of this process, as many as of any other, over the devices of a mesh; ``None`` is the
    device by default, which takes them as they are if it is the host and they are aligned."""
    if mesh is None:
        return jax.device_put(rows)
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec(ROWS)), rows)


def own_devices(mesh: Mesh | None) -> int:
    """Devices of a mesh that belong to this process."""
    if mesh is None:
        return 1
    return sum(device.process_index == jax.process_index() for device in mesh.devices.flat)


def row_places(num_rows: int, mesh: Mesh) -> np.ndarray:
    """Where :func:`share_rows` puts the rows of all processes, one process after another, ``(n,)``.

    Args:
      num_rows: of this process.
    """
    size = _own_size(num_rows, mesh)
    counts = everywhere(num_rows)
    places = [i * size + np.arange(count) for i, count in enumerate(counts)]
    return np.concatenate(places).astype(np.int32)


def _own_size(num_rows: int, mesh: Mesh) -> int:
    """Rows that each process holds, those that fill up included: of all processes as many."""
    own = own_devices(mesh)
    return -(-int(everywhere(num_rows).max()) // own) * own
