"""Processes meet before JAX's runtime starts; a bad start ends in time, with a sentence to all."""

import os
import socket
import threading
import time

import pytest

from jaxclf.scaling import joining
from jaxclf.scaling.joining import Place, join


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(autouse=True)
def _waits_are_short(monkeypatch):
    monkeypatch.setattr(joining, "TIMEOUT", 20.0)
    monkeypatch.setattr(joining, "_FREED", 0.2)


def start(*places: Place) -> list:
    """What each process gets, or the error that it ends with; they run as threads."""
    found = [None] * len(places)

    def run(i):
        try:
            found[i] = join(places[i], bytes([i]) * 32)
        except (ValueError, SystemExit) as error:
            found[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        for link in one.links.values() if isinstance(one, joining.Joined) else ():
            link.close()
    return found


def places(port, count, numbers=None):
    return [Place(f"127.0.0.1:{port}", count, i) for i in numbers or range(count)]


def test_all_processes_meet_and_know_each_other_by_tokens(port):
    first, *others = start(*places(port, 3))
    assert first.tokens == {1: bytes([1]) * 32, 2: bytes([2]) * 32}
    assert first.bound == "127.0.0.1"
    assert [one.tokens for one in others] == [{0: bytes(32)}] * 2
    [alone] = start(*places(port, 1))
    assert alone.links == {}


@pytest.mark.parametrize("missing", [[1, 2], [2], [0]])
def test_who_did_not_come_is_named_to_all_within_the_timeout(port, missing, monkeypatch, capsys):
    monkeypatch.setattr(joining, "TIMEOUT", 1.0)
    began = time.monotonic()
    found = start(*places(port, 3, [i for i in range(3) if i not in missing]))
    assert time.monotonic() - began < 2 * joining.TIMEOUT + 1
    assert [one.code for one in found] == [joining.LOST] * len(found)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(found)
    named = ", ".join(map(str, missing))
    for line in lines:
        assert line.startswith(f"error: process {named} did not come to 127.0.0.1:{port} in 1 s")


def test_two_processes_of_one_number_are_told(port):
    found = start(*places(port, 3, [0, 1, 1]))
    assert [str(one) for one in found] == ["two processes have the number 1: give each its own"] * 3


def test_processes_that_count_differently_are_told(port):
    found = start(*places(port, 2, [0]), *places(port, 3, [1]))
    assert {type(one) for one in found} == {ValueError}
    assert all("process 1 is one of 3 processes, process 0 is one of 2" in str(x) for x in found)


def test_a_port_that_is_taken_is_named(port):
    with socket.create_server(("127.0.0.1", port)):
        [found] = start(*places(port, 2, [0]))
    assert isinstance(found, ValueError)
    assert f"port {port} of 127.0.0.1 is taken" in str(found)


def test_a_port_that_becomes_free_is_used(port, monkeypatch):
    monkeypatch.setattr(joining, "_FREED", 5.0)
    taken = socket.create_server(("127.0.0.1", port))
    threading.Timer(0.3, taken.close).start()
    assert all(isinstance(one, joining.Joined) for one in start(*places(port, 2)))


def test_another_program_at_the_port_is_named(port):
    def answer():
        link, _ = server.accept()
        with link:
            link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def serve():
        while True:
            try:
                answer()
            except OSError:
                return

    with socket.create_server(("127.0.0.1", port)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        [found] = start(*places(port, 2, [1]))
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert str(found) == f"another program than process 0 answers at 127.0.0.1:{port}"


@pytest.mark.parametrize("coordinator", ["host", "host:", ":12", "host:http", "host:70000"])
def test_an_address_that_is_none_is_refused(coordinator):
    with pytest.raises(ValueError, match=r"coordinator must be HOST:PORT, got"):
        joining.place_of(coordinator, 2, 0)


def test_a_cluster_that_jax_knows_tells_the_place(monkeypatch):
    facts = {"JOB_ID": "7", "STEP_NODELIST": "node[1-2]", "NTASKS": "2", "PROCID": "1"}
    for name, value in (facts | {"LOCALID": "0", "STEP_NUM_TASKS": "2"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    place = joining.place_of(None, None, None)
    assert place.coordinator.startswith("node1:")
    assert place[1:] == (2, 1)


def test_no_cluster_and_no_numbers_are_refused():
    with pytest.raises(ValueError, match="no cluster that JAX knows tells the coordinator"):
        joining.place_of(None, None, None)


def test_strangers_are_turned_away_and_take_no_place(port, capsys):
    hello = joining._HELLO.pack(joining._MAGIC, 1, 2, bytes(32))
    said = [b"", b"\0" * 500, b"GET / HTTP/1.1\r\n\r\n", b"jaxclf", hello[:20]]
    said += [joining._HELLO.pack(joining._MAGIC, number, 2, bytes(32)) for number in (0, -1, 2)]
    said += [os.urandom(n) for n in range(1, 60)]
    done = threading.Event()

    def knock():
        silent = []
        for words in said:
            while not done.is_set():
                try:
                    link = socket.create_connection(("127.0.0.1", port), timeout=1)
                    break
                except OSError:
                    time.sleep(0.01)
            link.sendall(words)
            silent.append(link)
        # Only now the other process comes.
        [found] = start(*places(port, 2, [1]))
        assert isinstance(found, joining.Joined)
        done.set()
        for link in silent:
            link.close()

    thread = threading.Thread(target=knock)
    thread.start()
    [first] = start(*places(port, 2, [0]))
    thread.join()
    assert done.is_set()
    assert list(first.links) == [1]
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["warning: 127.0.0.1 connected and is no process of this run"] * 3


def test_a_process_that_goes_away_before_the_start_may_come_again(port):
    hello = joining._HELLO.pack(joining._MAGIC, 1, 3, bytes(32))
    found = []
    first = threading.Thread(target=lambda: found.extend(start(*places(port, 3, [0]))))
    first.start()
    for _ in range(100):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
                link.sendall(hello)
            break
        except OSError:
            time.sleep(0.02)
    others = start(*places(port, 3, [1, 2]))
    first.join()
    assert all(isinstance(one, joining.Joined) for one in (*found, *others))
