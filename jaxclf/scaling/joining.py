"""The start of several processes: each finds the first one, and a bad start ends with a sentence.

JAX's runtime ends a process by a signal where the port is taken, where a process never comes, and
where two have one number. So the processes meet first, at the port that the runtime will use, and
the first one says whether all are there. Whoever else connects to that port meanwhile is turned
away. The connections stay open, for the processes to watch each other.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import NamedTuple, NoReturn, cast

from jaxclf.messages import listed

TIMEOUT = 60.0
"""Seconds that a process waits for the others."""
LOST = 75
"""The exit status where a process did not come or was lost: EX_TEMPFAIL of sysexits.h, which says
that another try may help."""
_FREED = 8.0
"""Seconds that the port may take to become free: an earlier run may be about to end."""
_HELLO = struct.Struct("!8sii32s")
_ANSWER = struct.Struct("!8sc32s200s")
_MAGIC = b"jaxclf-1"
_GO, _WRONG, _MISSING = b"g", b"w", b"m"
_MOST_WAITING, _MOST_TOLD = 64, 3
"""The most connections without a number that are kept, and the most strangers that are told of."""


class Place(NamedTuple):
    """The place of a process among those that run one program."""

    coordinator: str
    processes: int
    process: int


class Joined(NamedTuple):
    """The connections to other processes, which all are there."""

    links: dict[int, socket.socket]
    """The first process has one to each other, the others have one to it."""
    tokens: dict[int, bytes]
    """The random bytes by which each process of ``links`` has called itself."""
    bound: str | None
    """The address that the first process listened at; ``None`` where it is not of this machine."""


def place_of(coordinator: str | None, processes: int | None, process: int | None) -> Place:
    """The place that is given, or that the cluster tells.

    Raises:
      ValueError: numbers that do not fit, or a place that nobody tells.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None or processes is None or process is None:
        from jax._src.clusters import ClusterEnv  # JAX has no public name for what it does itself

        found = ClusterEnv.auto_detect_unset_distributed_params(
            coordinator, processes, process, [], None, int(TIMEOUT)
        )
        coordinator, processes, process, _ = found
    if coordinator is None or processes is None or process is None:
        raise ValueError(
            "no cluster that JAX knows tells the coordinator, the number of processes and the "
            "number of this process: give all three"
        )
    if not 0 <= process < processes:
        raise ValueError(f"process must be in 0 … {processes - 1}, got {process}")
    _host_and_port(coordinator)
    return Place(coordinator, processes, process)


def join(place: Place, token: bytes) -> Joined:
    """Meets the other processes.

    Args:
      place: the place of this process.
      token: 32 random bytes that this process calls itself by.

    Raises:
      ValueError: the port is taken, two processes have one number, or they count differently.
      SystemExit: with status 75 and a line, where a process did not come in time.
    """
    until = time.monotonic() + TIMEOUT
    if place.process:
        return _reach(place, token, until)
    listener, bound = _listen(place, until)
    with listener:
        joined = _gather(listener, place, until)
    joined = joined._replace(bound=bound)
    for link in joined.links.values():
        _answer(link, _GO, token)
    return joined


def give_up(message: str) -> NoReturn:
    """Ends the process with a line and the status that says that another try may help."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(LOST)


def _host_and_port(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator must be HOST:PORT, got {coordinator!r}")
    return host, int(port)


def _listen(place: Place, until: float) -> tuple[socket.socket, str | None]:
    """A listener at the coordinator's address, or at all of this machine where it has another."""
    host, port = _host_and_port(place.coordinator)
    patient = time.monotonic() + _FREED
    while True:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return _server(str(address[0]), port, family), str(address[0])
        except socket.gaierror as error:
            if time.monotonic() > until:
                give_up(f"the coordinator's host {host} is not known: {error.strerror}")
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                with suppress(OSError):
                    return _server("", port, socket.AF_INET), None
            elif error.errno != errno.EADDRINUSE:
                raise ValueError(
                    f"cannot listen at {place.coordinator}: {error.strerror}"
                ) from None
            if time.monotonic() > patient:
                raise ValueError(
                    f"port {port} of {host} is taken, by another program or by another process 0: "
                    "choose another port"
                ) from None
        time.sleep(0.2)


def _server(host: str, port: int, family: int) -> socket.socket:
    return socket.create_server((host, port), family=family, backlog=_MOST_WAITING)


def _gather(listener: socket.socket, place: Place, until: float) -> Joined:
    """The connections of all other processes, or a sentence to those that came."""
    listener.setblocking(False)
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    waiting: dict[socket.socket, bytearray] = {}
    links: dict[int, socket.socket] = {}
    tokens: dict[int, bytes] = {}
    strangers = 0

    def turn_away(link: socket.socket) -> None:
        nonlocal strangers
        strangers += 1
        if strangers <= _MOST_TOLD:
            with suppress(OSError):
                print(
                    f"warning: {link.getpeername()[0]} connected and is no process of this run",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
        forget(link)

    def forget(link: socket.socket) -> None:
        ready.unregister(link)
        waiting.pop(link, None)
        link.close()

    def refuse(message: str) -> NoReturn:
        for link in (*links.values(), *waiting):
            _answer(link, _WRONG, bytes(32), message)
            link.close()
        raise ValueError(message)

    with ready:
        while len(links) < place.processes - 1:
            if (left := until - time.monotonic()) <= 0:
                missing = [i for i in range(1, place.processes) if i not in links]
                named = listed(list(map(str, missing)), quoted=False)
                message = f"process {named} did not come to {place.coordinator} in {TIMEOUT:g} s"
                for link in links.values():
                    _answer(link, _MISSING, bytes(32), message)
                    link.close()
                give_up(f"{message}; process 0 ends with status {LOST}")
            for key, _ in ready.select(left):
                link = cast(socket.socket, key.fileobj)
                if link is listener:
                    with suppress(OSError):
                        link, _address = listener.accept()
                        link.setblocking(False)
                        ready.register(link, selectors.EVENT_READ)
                        waiting[link] = bytearray()
                    if len(waiting) > _MOST_WAITING:
                        turn_away(next(iter(waiting)))
                    continue
                if link not in waiting:
                    numbers = [i for i, known in links.items() if known is link]
                    if numbers and not _some(link):  # it is gone, and may come again
                        forget(links.pop(numbers[0]))
                    continue
                got = waiting[link]
                more = _some(link, _HELLO.size - len(got))
                got += more
                if not more or not got.startswith(_MAGIC[: len(got)]):
                    turn_away(link)
                    continue
                if len(got) < _HELLO.size:
                    continue
                _, number, count, token = _HELLO.unpack(got)
                if not 0 < number < count:
                    turn_away(link)
                    continue
                if count != place.processes:
                    refuse(
                        f"process {number} is one of {count} processes, process 0 is one of "
                        f"{place.processes}: give all the same number"
                    )
                if number in links:
                    refuse(f"two processes have the number {number}: give each its own")
                del waiting[link]
                links[number], tokens[number] = link, token
        for link in list(waiting):
            forget(link)
    return Joined(links, tokens, None)


def _reach(place: Place, token: bytes, until: float) -> Joined:
    """The connection to the first process."""
    hello = _HELLO.pack(_MAGIC, place.process, place.processes, token)
    taken = None
    while (left := until - time.monotonic()) > 0:
        link, got = _ask(_host_and_port(place.coordinator), hello, min(left, 5.0))
        if link is not None and len(got) == _ANSWER.size and got.startswith(_MAGIC):
            _, kind, other, text = _ANSWER.unpack(got)
            if kind == _GO:
                return Joined({0: link}, {0: other}, None)
            link.close()
            message = text.rstrip(b"\0").decode(errors="replace")
            if kind == _MISSING:
                give_up(f"{message}; process {place.process} ends with status {LOST}")
            raise ValueError(message)
        if link is not None:
            link.close()
        if got and not got.startswith(_MAGIC):
            taken = taken or time.monotonic()
            if time.monotonic() - taken > 2 * _FREED:
                raise ValueError(f"another program than process 0 answers at {place.coordinator}")
        time.sleep(0.2)
    give_up(
        f"process 0 did not come to {place.coordinator} in {TIMEOUT:g} s; process {place.process} "
        f"ends with status {LOST}"
    )


def _ask(
    where: tuple[str, int], hello: bytes, timeout: float
) -> tuple[socket.socket | None, bytes]:
    """A connection, and what is answered there to the first words; empty where nobody answers."""
    link, got = None, b""
    with suppress(OSError):
        link = socket.create_connection(where, timeout=timeout)
        link.sendall(hello)
        link.settimeout(TIMEOUT + 5.0)  # the first process waits so long for those who are missing
        while len(got) < _ANSWER.size and (more := link.recv(_ANSWER.size - len(got))):
            got += more
            if not got.startswith(_MAGIC[: len(got)]):
                break
    return link, got


def _answer(link: socket.socket, kind: bytes, token: bytes, message: str = "") -> None:
    with suppress(OSError):  # a process that is gone needs no answer
        link.sendall(_ANSWER.pack(_MAGIC, kind, token, message.encode()[:200]))


def _some(link: socket.socket, most: int = 4096) -> bytes:
    try:
        return link.recv(most)
    except OSError:
        return b""
