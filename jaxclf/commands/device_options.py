"""The options of commands that compute on devices: the platform, the devices and the processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxclf.messages import listed
from jaxclf.scaling.devices import choose_device
from jaxclf.scaling.processes import distributed
from jaxclf.scaling.sharing import all_gather

_PLACES = ("dataset", "features", "data_dir")
"""The options that say where the data lie, which may be elsewhere on each machine."""


def check_same(what: str, facts: Any) -> None:
    """Checks that the processes which run a command together were given the same.

    Args:
      what: the name of what they were given, for the message.
      facts: values of JSON.

    Raises:
      ValueError: processes that were given something else than the first one.
    """
    if jax.process_count() == 1:
        return
    if isinstance(facts, dict):
        facts = {key: value for key, value in facts.items() if key not in _PLACES}
    own = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()
    each = all_gather(np.frombuffer(own, np.uint8))
    others = np.flatnonzero((each != each[0]).any(1))
    if len(others):
        named = listed(list(map(str, others)), quoted=False)
        raise ValueError(f"{what} of process {named} and of process 0 differ")


@dataclass(frozen=True)
class DeviceOptions:
    """The devices to compute on."""

    platform: str | None = None
    """cpu, gpu or tpu; by default JAX's own choice."""
    devices: str | None = None
    """Devices that the rows are shared out over: all, or a number; by default one."""
    distributed: bool = False
    """Be one of several processes that run this command, which SLURM, Open MPI, Kubernetes and
    Cloud TPU number themselves. All their devices are used; the first one prints and writes."""
    coordinator: str | None = None
    """With --distributed: host:port of the first process; by default the cluster tells it."""
    processes: int | None = None
    """With --distributed: the number of processes; by default the cluster tells it."""
    process: int | None = None
    """With --distributed: the number of this process, from 0; by default the cluster tells it."""

    @contextmanager
    def used(self) -> Iterator[str | int | None]:
        """Joins the other processes and chooses the platform; yields the value for ``devices=``.

        Raises:
          ValueError: options that do not fit together, or a platform that is not here.
        """
        where = self.coordinator, self.processes, self.process
        if not self.distributed:
            if where != (None, None, None):
                raise ValueError("coordinator, processes and process need --distributed")
            with jax.default_device(choose_device(self.platform)):
                yield self._devices(None)
            return
        with distributed(*where), jax.default_device(choose_device(self.platform)):
            yield self._devices("all")

    def _devices(self, default: str | None) -> str | int | None:
        if self.devices is None:
            return default
        return int(self.devices) if self.devices.isdecimal() else self.devices
