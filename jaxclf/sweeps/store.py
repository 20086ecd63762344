"""Finished lanes on disk: a sweep that was stopped goes on from them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jax
import numpy as np

from jaxclf.files import atomic_write
from jaxclf.sweeps.grid import Lane
from jaxclf.sweeps.task import Finished


class Store:
    """A folder of one file per finished lane; without a folder nothing is kept.

    The name of a file depends on its lane and on all that the sweep's outcome depends on, so lanes
    of other data or settings are never taken for lanes of this sweep.
    """

    def __init__(self, folder: Path | str | None = None, about: dict | None = None, like=None):
        self.folder = None if folder is None else Path(folder)
        self.about, self.like = about, like
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def load(self, lane: Lane) -> Finished | None:
        """A lane's result if it was finished, else ``None``; a damaged file counts as no result."""
        if self.folder is None or not (path := self._path(lane)).exists():
            return None
        leaves, structure = jax.tree.flatten(self.like)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
                facts = json.loads(str(found["facts"]))
                arrays = [found[str(i)] for i in range(len(leaves))]
        except Exception:  # whatever a damaged archive raises: the lane is run again
            return None
        if any(np.shape(a) != np.shape(b) for a, b in zip(arrays, leaves, strict=True)):
            return None
        return Finished(jax.tree.unflatten(structure, arrays), facts)

    def save(self, lane: Lane, finished: Finished) -> None:
        if self.folder is None:
            return
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(finished.params)]
        arrays = {str(i): leaf for i, leaf in enumerate(leaves)}
        with atomic_write(self._path(lane)) as partial, open(partial, "wb") as file:
            np.savez(file, facts=json.dumps(finished.facts), **arrays)

    def _path(self, lane: Lane) -> Path:
        text = json.dumps([lane, self.about], sort_keys=True)
        return self.folder / f"fit-{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"
