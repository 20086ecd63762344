"""Several processes that run as one program, and their end when one of them is lost or stopped.

JAX's distributed runtime starts the processes and carries what they exchange. A program of many
processes cannot go on without one of them, because every sum over rows waits for all. So each
process tells the first one that it is alive, and the first one tells each of the others. Where a
process is gone, or silent for too long, all others end, with a line that names it and a status of
their own. A program that is started again then goes on from the last checkpoint. Where a process is
stopped, or ends with an error, the others end with its status: another start would not help.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import jax
import numpy as np

from jaxclf.scaling import joining
from jaxclf.scaling.joining import LOST as LOST
from jaxclf.scaling.sharing import all_gather
from jaxclf.signals import TERMINATED, ends_in_order

BEAT, SILENCE = 1.0, 8.0
"""Seconds between two signs of life, and seconds of silence until a process counts as lost."""
_GRACE = 10.0
"""Seconds that a process may take to save and to leave after another one was stopped."""
_RUNTIME_SILENCE = 3600
"""Seconds of silence until the runtime itself ends a process, with a trace in place of a line; the
watch is to end it long before."""
_ALIVE, _DONE, _ALL_DONE, _LOST, _ENDED = b".", b"d", b"a", b"x", b"e"
_MESSAGE = struct.Struct("!cii")
"""A kind, the number of a process, and a status."""
_SIGNALS = {130: signal.SIGINT, TERMINATED: signal.SIGTERM}
"""The signals that end a program with these statuses, after it has saved."""


@contextmanager
def distributed(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> Iterator[None]:
    """A context in which this process is one of several that run the same program.

    Arguments that are not given are found in the environment of SLURM, Open MPI, Kubernetes or
    Cloud TPU, as :func:`jax.distributed.initialize` knows them. On CPUs the processes exchange
    through gloo. When one process is lost, or does not come within a minute, the others end with a
    line on standard error and exit status 75: within 15 seconds of the loss, from wherever they
    are. When one is stopped by Ctrl-C or SIGTERM, or ends with an error, the others end with its
    status.

    Args:
      coordinator: ``host:port`` of the first process.
      processes: the number of processes; it needs ``process``.
      process: the number of this process, from 0.

    Raises:
      ValueError: numbers that do not fit, two processes with one number, a port that is taken, or
        an environment that does not give them.
      RuntimeError: JAX has computed before in this process.
    """
    if processes is not None and not 0 <= (-1 if process is None else process) < processes:
        raise ValueError(f"process must be in 0 … {processes - 1}, got {process}")
    if jax.distributed.is_initialized():
        raise RuntimeError("this process is one of several already")
    place, token = joining.place_of(coordinator, processes, process), secrets.token_bytes(32)
    joined = joining.join(place, token)
    watch = _Watch(place.process, joined.links)
    try:
        try:
            _initialize(place, joined, token)
            with ends_in_order():
                yield
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            # JAX raises a ValueError of gloo where an exchange fails while it starts.
            if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):
                # If another process is to blame, the watch ends this one soon.
                watch.thread.join(SILENCE + 2 * BEAT)
            raise
    except BaseException as error:
        watch.leave(_status_of(error))
        raise
    watch.leave_together()


def _initialize(place: joining.Place, joined: joining.Joined, token: bytes) -> None:
    """Starts JAX's runtime, and checks by what it carries that the links are to its processes."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Without this the runtime ends every process with a trace as soon as it misses one.
    jax.config.update("jax_enable_recoverability", True)
    # This would take SIGTERM away from Python.
    jax.config.update("jax_enable_preemption_service", False)
    port = place.coordinator.rpartition(":")[2]
    host = f"[{joined.bound}]" if joined.bound and ":" in joined.bound else joined.bound
    jax.distributed.initialize(
        *place, initialization_timeout=int(joining.TIMEOUT),
        heartbeat_timeout_seconds=_RUNTIME_SILENCE, shutdown_timeout_seconds=10,
        coordinator_bind_address=f"{host}:{port}" if host else None,
    )  # fmt: skip
    if place.processes > 1:
        tokens = all_gather(np.frombuffer(token, np.uint8))
        for other, known in joined.tokens.items():
            if tokens[other].astype(np.uint8).tobytes() != known:
                raise ValueError(f"another program has taken the place of process {other}")


def _status_of(error: BaseException) -> int:
    """The exit status of a program that an exception ends."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    code = error.code if isinstance(error, SystemExit) else 1
    return code if isinstance(code, int) and code else 1


class _Watch:
    """A thread that signs life to other processes and ends this one when one of them is lost."""

    def __init__(self, own: int, links: dict[int, socket.socket]):
        self.own, self._links, self._buffers = own, links, dict.fromkeys(links, b"")
        self._done: set[int] = set()
        self._sending = threading.Lock()
        self._over, self._all_done = threading.Event(), threading.Event()
        self._left = threading.Event()
        for link in links.values():
            link.settimeout(BEAT)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def leave_together(self) -> None:
        """Waits until all processes are done, and leaves JAX's runtime, the first process last.

        The first process hosts the service that the others sign off from. If it did not leave last,
        their runtime would abort them. A process may take long, as long as it gives signs of life.
        """
        self._over.set()
        self._all_done.wait()
        self._sign_off()

    def leave(self, status: int) -> None:
        """Tells the other processes that this one ends with a status, and leaves."""
        self._tell(_ENDED, self.own, status)
        self._left.set()
        self._sign_off()

    def _sign_off(self) -> None:
        if self.own == 0:
            until = time.monotonic() + _GRACE
            while self._links and (self._all_done.is_set() or time.monotonic() < until):
                time.sleep(BEAT / 100)
        with suppress(Exception):  # what was to be done is done
            jax.distributed.shutdown()
        self._left.set()
        if self.own:
            for link in list(self._links.values()):
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def _tell(self, kind: bytes, number: int = 0, status: int = 0) -> None:
        for link in list(self._links.values()):
            # A broken link is read as gone, and a full link as silent.
            with self._sending, suppress(OSError):
                link.sendall(_MESSAGE.pack(kind, number, status))

    def _run(self) -> None:
        heard = dict.fromkeys(self._links, time.monotonic())
        with selectors.DefaultSelector() as ready:
            for other, link in self._links.items():
                ready.register(link, selectors.EVENT_READ, other)
            while True:
                began = time.monotonic()
                self._tell(_DONE if self._over.is_set() else _ALIVE, self.own)
                self._see_who_is_done()
                until = time.monotonic() + BEAT
                # The waits are short, so that the end of the block is not held up.
                while (left := until - time.monotonic()) > 0:
                    for key, _ in ready.select(min(left, BEAT / 10)):
                        heard[key.data] = time.monotonic()
                        if not self._hear(key.data):
                            ready.unregister(key.fileobj)
                            self._gone(key.data, "is gone")
                    self._see_who_is_done()
                    if not self._links and (self._all_done.is_set() or self._left.is_set()):
                        return
                if time.monotonic() - began > SILENCE / 2:
                    # This process was frozen itself, perhaps with its machine: nobody was silent.
                    heard = dict.fromkeys(self._links, time.monotonic())
                for other in list(self._links):
                    if time.monotonic() - heard[other] > SILENCE:
                        ready.unregister(self._links[other])
                        self._gone(other, f"has been silent for {SILENCE:g} s")

    def _see_who_is_done(self) -> None:
        if self.own == 0 and self._over.is_set() and self._done.issuperset(self._links):
            self._tell(_ALL_DONE)
            self._all_done.set()

    def _hear(self, other: int) -> bool:
        """Reads what a process says; false where it says nothing any more."""
        try:
            said = self._links[other].recv(4096)
        except OSError:
            return False
        self._buffers[other] += said
        while len(self._buffers[other]) >= _MESSAGE.size:
            kind, number, status = _MESSAGE.unpack_from(self._buffers[other])
            self._buffers[other] = self._buffers[other][_MESSAGE.size :]
            if kind == _LOST:
                self._end(number, "was lost")
            elif kind == _ENDED:
                self._stop(other, number, status)
            elif kind == _DONE:
                self._done.add(other)
            elif kind == _ALL_DONE:
                self._all_done.set()
        return bool(said)

    def _gone(self, other: int, how: str) -> None:
        link = self._links.pop(other)
        # A process that had nothing left to do is no loss, nor is one after this one has left.
        if not (other in self._done or self._all_done.is_set() or self._left.is_set()):
            self._end(other, how)
        if self.own:
            self._all_done.set()
        link.close()

    def _end(self, lost: int, how: str) -> NoReturn:
        self._tell(_LOST, lost)
        _say(
            f"process {lost} {how}; process {self.own} ends with status {LOST}: start all of them "
            "again to go on from the last checkpoint"
        )
        # The main thread may wait for the lost process for ever, so there is no other way out.
        os._exit(LOST)

    def _stop(self, other: int, number: int, status: int) -> None:
        """Ends this process with the status of another one, after it has saved."""
        self._done.add(other)
        if self._left.is_set() or self._all_done.is_set():
            return
        self._tell(_ENDED, number, status)
        # All processes may end by themselves, for one and the same reason.
        if self._left.wait(BEAT):
            return
        how = "was stopped" if status in _SIGNALS else "ended with an error"
        _say(f"process {number} {how}; process {self.own} ends with status {status}")
        if status in _SIGNALS:
            os.kill(os.getpid(), _SIGNALS[status])
            # Only the first process saves. The end of the others frees it from what it waits for.
            if self._left.wait(_GRACE if self.own == 0 else 2 * BEAT):
                return
        os._exit(status)


def _say(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
