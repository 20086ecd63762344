"""Checkpoints on disk: whole or not at all, verified when read, over Orbax.

Orbax writes each checkpoint beside its place and renames it, so a killed save leaves the earlier
ones whole. It does not notice a flipped byte and casts dtypes silently, so every checkpoint carries
the name, shape and dtype of each array and a SHA-256 over all of them, and both are compared.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class CheckpointError(ValueError):
    """The error of a checkpoint that is damaged, or that belongs to another run or model."""


_PARTIAL = re.compile(r"\d+\.orbax-checkpoint-tmp.*")
"""The names of what a killed save leaves behind."""
_MARK = ".jaxclf-checkpoints"
"""The file by which a folder of our checkpoints is known."""


@contextmanager
def open_checkpoints(folder: Path | str, *, keep: int = 2) -> Iterator[Any]:
    """A store of checkpoints in ``folder`` that keeps the newest ``keep``.

    The folder must be new or empty, or one that this function made. Files that a killed save left
    behind are removed.

    Raises:
      OSError: a folder that has other files, or no folder.
    """
    import orbax.checkpoint as ocp

    folder = Path(folder).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file where a folder of checkpoints is to go")
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise FileExistsError(
            f"{folder} has files that are no checkpoints of jaxclf: give a new folder for them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    if jax.process_index() == 0:
        _remove_partial(folder)
    # Every process holds all that is saved, so each saves by itself and none waits for another.
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=False,
        enable_async_checkpointing=False,
        multiprocessing_options=alone,
    )
    with ocp.CheckpointManager(folder, options=options) as store:
        yield store


def remove_checkpoints(folder: Path) -> None:
    """Removes all checkpoints in a folder that :func:`open_checkpoints` made, and nothing else."""
    if (folder / _MARK).exists():
        _remove_partial(folder)
        for path in folder.iterdir():
            if path.name.isdecimal():
                shutil.rmtree(path, ignore_errors=True)


def _remove_partial(folder: Path) -> None:
    for path in folder.iterdir():
        if _PARTIAL.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.isdecimal():
            for part in path.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(part, ignore_errors=True)


def save(store, number: int, tree, record: dict) -> None:
    """Writes checkpoint ``number``: a pytree of arrays, and a record that JSON can hold.

    Raises:
      OSError: the checkpoint cannot be written, for instance because the disk is full; earlier
        checkpoints stay.
    """
    import orbax.checkpoint as ocp

    arrays, names = _flatten(tree)
    leaves = [[name, str(a.dtype), list(a.shape)] for name, a in zip(names, arrays, strict=True)]
    meta = {"leaves": leaves, "record": record, "sha256": _digest(leaves, arrays, record)}
    state = {f"{i:05d}": array for i, array in enumerate(arrays)}
    folder = Path(store.directory)
    try:
        store.save(
            number,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
            ),
        )
    except Exception as error:  # what TensorStore and the file system raise has many types
        _remove_partial(folder)
        earlier = ", ".join(map(str, store.all_steps(read=True))) or "none"
        reason = " ".join(str(error).split())[:300]
        raise OSError(
            f"cannot write checkpoint {number} to {folder} (whole ones there: {earlier}): {reason}"
        ) from error


def restore_latest(store, like) -> tuple[Any, dict] | None:
    """The newest checkpoint as ``(pytree like the given one, record)``; ``None`` if there is none.

    Args:
      store: a store from :func:`open_checkpoints`.
      like: a pytree with the structure, shapes and dtypes that are expected.

    Raises:
      CheckpointError: a checkpoint that is damaged, or that does not fit ``like``.
    """
    import orbax.checkpoint as ocp

    number = store.latest_step()
    if number is None:
        return None
    arrays, names = _flatten(like)
    expected = [[name, str(a.dtype), list(a.shape)] for name, a in zip(names, arrays, strict=True)]
    meta = _read(store, number, ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    where = f"checkpoint {number} in {store.directory}"
    try:
        found, record, sha256 = meta["leaves"], meta["record"], meta["sha256"]
    except (KeyError, TypeError):
        raise CheckpointError(_damaged(store, number, "its record is not one of jaxclf")) from None
    _check_leaves(where, found, expected)
    shapes = {f"{i:05d}": jax.ShapeDtypeStruct(a.shape, a.dtype) for i, a in enumerate(arrays)}
    state = _read(store, number, ocp.args.Composite(state=ocp.args.StandardRestore(shapes)))
    restored = [np.asarray(array) for _, array in sorted(state["state"].items())]
    if _digest(found, restored, record) != sha256:
        raise CheckpointError(_damaged(store, number, "its SHA-256 does not match"))
    return _unflatten(like, restored), record


def _read(store, number: int, what):
    try:
        return store.restore(number, args=what)
    except Exception as error:  # a flipped byte surfaces anywhere in Orbax, JSON or TensorStore
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(_damaged(store, number, reason)) from None


def _damaged(store, number: int, reason: str) -> str:
    earlier = [step for step in store.all_steps() if step < number]
    advice = f"delete it to go on from {max(earlier)}" if earlier else "there is no earlier one"
    return f"checkpoint {number} in {store.directory} is damaged ({reason}); {advice}"


def _check_leaves(where: str, found: list, expected: list) -> None:
    if found == expected:
        return
    have, want = ({leaf[0]: tuple(leaf[1:]) for leaf in leaves} for leaves in (found, expected))
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            shown = [
                "nothing" if leaf is None else f"{leaf[0]} {leaf[1]}"
                for leaf in (have.get(name), want.get(name))
            ]
            raise CheckpointError(
                f"{where} is of another model or optimizer: {name} is {shown[0]} there, "
                f"{shown[1]} here"
            )


def _flatten(tree) -> tuple[list, list[str]]:
    paths_and_leaves = jax.tree_util.tree_leaves_with_path(tree)
    return (
        [_as_array(leaf) for _, leaf in paths_and_leaves],
        [jax.tree_util.keystr(path).lstrip(".") for path, _ in paths_and_leaves],
    )


def _is_key(leaf) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)


def _as_array(leaf) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _unflatten(like, arrays: list):
    def restored(leaf, array):
        if _is_key(leaf):
            return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
        return jnp.asarray(array)

    leaves, structure = jax.tree.flatten(like)
    return structure.unflatten(restored(*pair) for pair in zip(leaves, arrays, strict=True))


def _digest(leaves: list, arrays: list, record: dict) -> str:
    digest = hashlib.sha256(json.dumps([leaves, record], sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
