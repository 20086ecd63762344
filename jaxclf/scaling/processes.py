"""Several processes that run as one program, and their end when one of them is lost.

JAX's distributed runtime starts the processes and carries what they exchange. A program of many
processes cannot go on without one of them, because every sum over rows waits for all. So each
process tells the first one that it is alive, and the first one tells each of the others. Where a
process is gone, or silent for too long, all others end, with a line that names it and a status of
their own. A program that is started again then goes on from the last checkpoint.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import jax
import numpy as np

from jaxclf.scaling.sharing import all_gather

LOST = 75
"""The exit status where another process was lost: EX_TEMPFAIL of sysexits.h, try again later."""
BEAT, SILENCE = 1.0, 8.0
"""Seconds between two signs of life, and seconds of silence until a process counts as lost."""
_RUNTIME_SILENCE = 60
"""Seconds of silence until the runtime itself ends a process, with a trace in place of a line."""
_ALIVE, _ENDED, _LOST = b".", b"e", b"x"
_NUMBER = struct.Struct("!i")


@contextmanager
def distributed(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Iterator[None]:
    """A context in which this process is one of several that run the same program.

    Arguments that are not given are found in the environment of SLURM, Open MPI, Kubernetes or
    Cloud TPU, as :func:`jax.distributed.initialize` knows them. On CPUs the processes exchange
    through gloo. When one process is lost, the others end within 15 seconds, from wherever they
    are, with a line on standard error and exit status 75.

    Args:
      coordinator: ``host:port`` of the first process.
      processes: the number of processes; it needs ``process``.
      process: the number of this process, from 0.

    Raises:
      ValueError: numbers that do not fit, or an environment that does not give them.
      RuntimeError: JAX has computed before in this process.
    """
    if processes is not None and not 0 <= (-1 if process is None else process) < processes:
        raise ValueError(f"process must be in 0 … {processes - 1}, got {process}")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Without this the runtime ends every process with a trace as soon as it misses one.
    jax.config.update("jax_enable_recoverability", True)
    jax.distributed.initialize(
        coordinator, processes, process, initialization_timeout=60,
        heartbeat_timeout_seconds=_RUNTIME_SILENCE, shutdown_timeout_seconds=10,
    )  # fmt: skip
    watch = _Watch(coordinator)
    try:
        yield
    except jax.errors.JaxRuntimeError:
        # An exchange failed. If another process is to blame, the watch ends this one soon.
        watch.thread.join(SILENCE + 2 * BEAT)
        watch.close()
        raise
    except BaseException:
        watch.close()
        raise
    watch.over.set()
    watch.thread.join(2 * BEAT)
    if watch.own == 0:
        watch.wait_for_others()
    jax.distributed.shutdown()
    watch.close()


class _Watch:
    """A thread that signs life to other processes and ends this one when one of them is lost."""

    def __init__(self, coordinator: str | None):
        self.own, self.over = jax.process_index(), threading.Event()
        self._links = _links(coordinator, self.own)
        self.thread = threading.Thread(target=self._run, args=(dict(self._links),), daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Closes the links after an error, so that the others see that this process is gone."""
        for link in self._links.values():
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def wait_for_others(self) -> None:
        """Waits until the other processes have left.

        The first process hosts the service that the others sign off from. If it did not leave last,
        their runtime would abort them.
        """
        until = time.monotonic() + _RUNTIME_SILENCE
        for link in self._links.values():
            with suppress(OSError):
                while (left := until - time.monotonic()) > 0:
                    link.settimeout(left)
                    if not link.recv(4096):
                        break

    def _run(self, links: dict[int, socket.socket]) -> None:
        heard = dict.fromkeys(links, time.monotonic())
        while links:
            ending = self.over.is_set()
            for link in links.values():
                _send(link, _ENDED if ending else _ALIVE)
            if ending:
                return
            until = time.monotonic() + BEAT
            while links and (left := until - time.monotonic()) > 0 and not self.over.is_set():
                # The waits are short, so that the end of the block is not held up.
                ready = select.select(list(links.values()), [], [], min(left, BEAT / 10))[0]
                for other in [i for i, link in links.items() if link in ready]:
                    said = _receive(links[other])
                    if _LOST in said:
                        number = said.partition(_LOST)[2][: _NUMBER.size]
                        self._end(links, *_NUMBER.unpack(number), "was lost")
                    if _ENDED in said:
                        del links[other]
                    elif not said:
                        self._end(links, other, "is gone")
                    else:
                        heard[other] = time.monotonic()
            for other in links:
                if time.monotonic() - heard[other] > SILENCE:
                    self._end(links, other, f"has been silent for {SILENCE:g} s")

    def _end(self, links: dict[int, socket.socket], lost: int, how: str) -> None:
        for link in links.values():
            _send(link, _LOST + _NUMBER.pack(lost))
        print(
            f"error: process {lost} {how}; process {self.own} ends with status {LOST}: start all "
            "of them again to go on from the last checkpoint",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        # The main thread may wait for the lost process for ever, so there is no other way out.
        os._exit(LOST)


def _links(coordinator: str | None, own: int) -> dict[int, socket.socket]:
    """The links of this process; the first process has one to each other, the others one to it."""
    if jax.process_count() == 1:
        return {}
    listener = socket.create_server(("", 0)) if own == 0 else None
    port = listener.getsockname()[1] if listener else 0
    host = coordinator.rpartition(":")[0] if coordinator else _own_address()
    address = np.frombuffer(host.encode().ljust(256, b"\0"), np.uint8)
    hosts, ports = all_gather(address), all_gather(port)
    if listener is None:
        host = hosts[0].astype(np.uint8).tobytes().rstrip(b"\0").decode()
        link = socket.create_connection((host, int(ports[0])), timeout=30)
        link.sendall(_NUMBER.pack(own))
        link.settimeout(BEAT)
        return {0: link}
    links = {}
    with listener:
        listener.settimeout(30)
        for _ in range(jax.process_count() - 1):
            link, _address = listener.accept()
            link.settimeout(BEAT)
            links[_NUMBER.unpack(link.recv(_NUMBER.size, socket.MSG_WAITALL))[0]] = link
    return links


def _own_address() -> str:
    """The address of the interface by which other machines are reached; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]
    return socket.gethostname()


def _send(link: socket.socket, what: bytes) -> None:
    # A broken link is read as gone, and a full link as silent.
    with suppress(OSError):
        link.sendall(what)


def _receive(link: socket.socket) -> bytes:
    try:
        return link.recv(4096)
    except OSError:
        return b""
