"""Moves rows, weights, classes and lanes onto the devices of a mesh, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxclf.objectives import Batch
from jaxclf.scaling.mesh import MODEL, ROWS, in_use
from jaxclf.scaling.sparse_parts import fill_part, room_for_parts
from jaxclf.sparse_rows import SparseRows, is_sparse, to_csr
from jaxclf.stored_rows import StoredRows


def on_device(tree: Any, *, copy: bool = False) -> Any:
    """A pytree with host arrays moved onto the device, without a program for their shapes; device
    arrays stay.

    A device that is the host may use the memory of a host array. With ``copy`` it uses its own, so
    that the array stays as it is when its owner writes to that memory.
    """
    leaves, structure = jax.tree.flatten(tree)
    host = [x for x in leaves if not isinstance(x, jax.Array)]
    placed = iter(jax.device_put([np.array(x) if copy else np.asarray(x) for x in host]))
    moved = (x if isinstance(x, jax.Array) else next(placed) for x in leaves)
    return jax.tree.unflatten(structure, moved)


def all_gather(numbers) -> np.ndarray:
    """The numbers that the processes give, stacked as ``(processes, …)`` in each of them.

    Raises:
      jax.errors.JaxRuntimeError: the exchange failed, as it does where a process is gone.
    """
    if jax.process_count() == 1:
        return np.asarray(numbers)[None]
    from jax.experimental import multihost_utils

    try:
        return np.asarray(multihost_utils.process_allgather(np.asarray(numbers)))
    except ValueError as error:
        # JAX raises this one where the exchange fails while it starts. It must not be taken for
        # an error in what the user gave.
        raise jax.errors.JaxRuntimeError(str(error)) from error


def gather_over_mesh(numbers) -> np.ndarray:
    """The numbers of all processes that have rows of the problem, stacked.

    Every process has rows where a mesh is in use, else this one alone has.
    """
    return all_gather(numbers) if in_use() else np.asarray(numbers)[None]


def to_host(tree):
    """A pytree with NumPy arrays for arrays that every process holds whole; random keys stay."""

    def whole(x):
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return np.asarray(x)
        found = np.empty(x.shape, x.dtype)
        for shard in x.addressable_shards:
            found[shard.index] = shard.data
        return found

    return jax.tree.map(whole, tree)


def local_rows(x: Any) -> np.ndarray:
    """The rows on the devices of this process."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    # Shards repeat along the other axis of the mesh.
    parts = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
    return np.concatenate([parts[start] for start in sorted(parts)])


def local_part(x: SparseRows) -> SparseRows:
    """The sparse rows that the devices of this process hold, on the host."""
    if not is_shared(x):
        return x
    n, d = x.shape
    rows = n // (len(x.by_row.starts) - n)
    own = jax.tree.map(local_rows, x)
    return replace(own, shape=(len(own.by_row.starts) // (rows + 1) * rows, d))


def most_in_columns(x: SparseRows) -> np.ndarray:
    """The stored numbers of each column, ``(d,)``, in the part that has most of that column."""
    starts = local_rows(x.by_column.starts).reshape(-1, x.shape[1] + 1)
    return gather_over_mesh(np.diff(starts).max(0)).max(0)


def share_model(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays with a leading axis of classes or lanes, over ``model`` where it divides the axis."""
    parts = 1 if mesh is None else mesh.shape.get(MODEL, 1)
    if parts == 1:
        return tree

    def shared(x):
        if np.ndim(x) == 0 or np.shape(x)[0] % parts:
            return x
        x = np.asarray(x)
        return jax.make_array_from_callback(
            x.shape, NamedSharding(mesh, PartitionSpec(MODEL)), lambda index: x[index]
        )

    return jax.tree.map(shared, tree)


def of_all_processes(rows: np.ndarray, mesh: Mesh | None) -> np.ndarray:
    """The rows of all processes, one after another, where a mesh has rows of several processes."""
    counts = [len(rows)] if mesh is None else all_gather(len(rows))
    if len(counts) == 1:
        return rows
    filled = np.zeros((max(counts), *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    return np.concatenate(
        [part[:count] for part, count in zip(all_gather(filled), counts, strict=True)]
    )


def share_rows(batch: Batch, mesh: Mesh) -> Batch:
    """The rows over the devices of a mesh, with weights.

    Rows that fill up have weight zero, no offset, and the label of the first row, which the loss
    takes.

    Each of several processes gives its own rows, in any number; together they are the data.

    Args:
      batch: host arrays, or arrays on one device; the arrays of an earlier call are given back.
      mesh: a mesh from :func:`make_mesh`.
    """
    if is_shared(batch.features, mesh):
        return batch
    features = batch.features
    sparse = is_sparse(features) or isinstance(features, StoredRows)
    batch = batch._replace(features=None if sparse else features)
    batch = Batch(*(None if x is None else np.asarray(x) for x in batch))
    size = _own_size(len(features), mesh)
    weights = np.ones(len(features)) if batch.weights is None else batch.weights
    missing = size - len(features)

    def whole(x: np.ndarray, filling: Any = 0) -> jax.Array:
        rows = np.broadcast_to(np.asarray(filling, x.dtype), (missing, *x.shape[1:]))
        return placed(np.concatenate([x, rows]) if missing else x, mesh)

    dtype, labels = jax.dtypes.canonicalize_dtype(np.float64), batch.labels
    label = labels[0] if len(labels) else 0
    offset = None if batch.offset is None else whole(batch.offset)
    shared = _share_sparse(features, size, mesh) if sparse else whole(batch.features)
    return Batch(shared, whole(labels, label), whole(weights.astype(dtype)), offset)


def _share_sparse(features: Any, size: int, mesh: Mesh) -> SparseRows:
    """Sparse rows over the devices of a mesh, of which this process holds ``size``."""
    matrix = to_csr(features) if is_sparse(features) else features[:]
    own = own_parts(mesh)
    rows, cuts = size // own, np.minimum(np.arange(own + 1) * (size // own), matrix.shape[0])
    most = int(all_gather(np.diff(matrix.indptr[cuts]).max()).max())
    shape, total = (rows, matrix.shape[1]), rows * mesh.shape[ROWS]
    room = room_for_parts(np.zeros, own, shape, most, matrix.dtype, total)

    def read(first: int, end: int, values, places) -> None:
        values[:], places[:] = matrix.data[first:end], matrix.indices[first:end]

    for i in range(own):
        fill_part(room, i, rows, matrix.indptr[cuts[i] : cuts[i + 1] + 1], read)
    return jax.tree.map(lambda x: placed(x, mesh), room)


def is_shared(rows: Any, mesh: Mesh | None = None) -> bool:
    """Whether the rows are over the devices of a mesh, or of this mesh."""
    rows = rows.by_row.values if is_sparse(rows) else rows
    sharding = getattr(rows, "sharding", None)
    if not isinstance(sharding, NamedSharding) or ROWS not in sharding.mesh.axis_names:
        return False
    wanted = NamedSharding(mesh or sharding.mesh, PartitionSpec(ROWS))
    return sharding.is_equivalent_to(wanted, rows.ndim)


def placed(rows: np.ndarray, mesh: Mesh | None) -> jax.Array:
    """The rows of this process over the devices of a mesh; ``None`` is the default device.

    Every process has as many rows. A default device that is the host takes aligned rows as they
    are.
    """
    if mesh is None:
        return jax.device_put(rows)
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec(ROWS)), rows)


def own_parts(mesh: Mesh | None) -> int:
    """The number of parts of the rows that each process holds.

    Raises:
      ValueError: a part that several processes would hold, or processes with unequal parts.
    """
    if mesh is None:
        return 1
    parts = np.array([[device.process_index for device in part] for part in _by_rows(mesh)])
    if (parts != parts[:, :1]).any():
        raise ValueError(
            "the devices along the axis 'model' must belong to one process, each row of them"
        )
    counts = np.bincount(parts[:, 0], minlength=jax.process_count())
    if (counts != counts[0]).any():
        raise ValueError(f"every process needs as many devices in the mesh, they have {counts}")
    return int(counts[0])


def _by_rows(mesh: Mesh) -> np.ndarray:
    devices = np.moveaxis(mesh.devices, mesh.axis_names.index(ROWS), 0)
    return devices.reshape(len(devices), -1)


def place_weights(weights: np.ndarray, places: np.ndarray, size: int, mesh: Mesh) -> jax.Array:
    """Weights ``(…, n)`` of the rows of all processes, beside the rows; zero for rows that fill up.

    Args:
      weights: the weights, which are the same in all processes.
      places: the places of :func:`row_places`.
      size: the number of rows on all devices, with rows that fill up.
      mesh: the mesh that the rows are over.
    """
    whole = np.zeros((*weights.shape[:-1], size), weights.dtype)
    whole[..., places] = weights
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * (whole.ndim - 1), ROWS))
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def row_places(num_rows: int, mesh: Mesh) -> np.ndarray:
    """The places where :func:`share_rows` puts the rows, one process after another, ``(n,)``.

    Args:
      num_rows: the number of rows of this process.
    """
    size = _own_size(num_rows, mesh)
    counts = all_gather(num_rows)
    places = [i * size + np.arange(count) for i, count in enumerate(counts)]
    return np.concatenate(places).astype(np.int32)


def _own_size(num_rows: int, mesh: Mesh) -> int:
    """The number of rows that each process holds, with rows that fill up; the same in all."""
    own = own_parts(mesh)
    return -(-int(all_gather(num_rows).max()) // own) * own
