"""A process that dies or freezes ends the others, with a line and a status; a new start goes on."""

import json
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from experiments.benchmarks import faults
from jaxclf.commands.cli import main
from jaxclf.scaling import processes, sharing

PROGRAM = [sys.executable, "-m", "tests.scaling.endless"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_both(folder, epochs, **faults):
    """Faults are numbers of processes by what happens to them; see tests.scaling.endless."""
    port = free_port()
    return [
        subprocess.Popen(
            [*PROGRAM, str(port), str(rank), str(epochs), folder]
            + [fault for fault, number in faults.items() if number == rank],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip


def end(both) -> None:
    for process in both:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def assert_alive(process, times: int) -> None:
    """Waits until a process has said so many times that it trains; gloo writes lines of its own."""
    while times:
        line = process.stdout.readline()
        assert line, process.stderr.read()[-3000:]
        times -= line == "alive\n"


def weights_of(process) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-3000:]
    [line] = [line for line in out.splitlines() if line.startswith("weights")]
    return line


@pytest.mark.parametrize(
    ("sent", "lost", "how"),
    [
        (signal.SIGKILL, 1, "is gone"),
        (signal.SIGKILL, 0, "is gone"),
        (signal.SIGSTOP, 1, "has been silent for 4 s"),
        (signal.SIGSTOP, 0, "has been silent for 4 s"),
    ],
)
def test_a_lost_process_ends_the_other(sent, lost, how, tmp_path):
    both = start_both(str(tmp_path), 10**6)
    try:
        for process in both:
            assert_alive(process, 1)
        began = time.monotonic()
        both[lost].send_signal(sent)
        _, err = both[1 - lost].communicate(timeout=60)
        assert both[1 - lost].returncode == processes.LOST, err[-3000:]
        assert f"error: process {lost} {how}; process {1 - lost} ends with status 75" in err
        assert time.monotonic() - began < 15
    finally:
        end(both)


def test_strangers_at_the_sockets_have_no_effect(tmp_path):
    both = start_both(str(tmp_path), 10**6)
    try:
        for process in both:
            assert_alive(process, 1)
        ports, rng = faults.listening([process.pid for process in both]), random.Random(0)
        assert ports
        knocks = [faults.knock(rng, ports, i) for i in range(100)]
        assert None not in knocks
        for process in both:
            assert_alive(process, 40)
        for link in knocks:
            link.close()
    finally:
        end(both)


def test_processes_that_freeze_together_go_on_together(tmp_path):
    both = start_both(str(tmp_path), 10**6)
    try:
        for process in both:
            assert_alive(process, 1)
        for sent in (signal.SIGSTOP, signal.SIGCONT):
            for process in both:
                process.send_signal(sent)
            time.sleep(6 if sent == signal.SIGSTOP else 0)
        for process in both:
            assert_alive(process, 40)
    finally:
        end(both)


@pytest.mark.parametrize("stopped", [0, 1])
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_a_person_stops_is_not_lost(sent, status, stopped, tmp_path):
    both = start_both(str(tmp_path), 10**6)
    try:
        for process in both:
            assert_alive(process, 3)
        began = time.monotonic()
        both[stopped].send_signal(sent)
        said = [process.communicate(timeout=60) for process in both]
        # Python ends by the signal where nobody catches KeyboardInterrupt: shells see 130 too.
        assert {process.returncode for process in both} <= {status, -sent}, said
        lines = [line for _, err in said for line in err.splitlines() if line.startswith("error")]
        other = 1 - stopped
        assert lines == [
            f"error: process {stopped} was stopped; process {other} ends with status {status}"
        ]
        assert time.monotonic() - began < 15
        # The first process saved what was done, whichever of them was stopped.
        told = said[0][0].count("alive") + 3
        steps = [int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()]
        assert max(steps) in (told, told - 1)
    finally:
        end(both)


def test_an_error_in_one_process_ends_the_others_with_its_status(tmp_path):
    both = start_both(str(tmp_path), 10**6, error=1)
    try:
        said = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [1, 1], said
        assert "process 1 ended with an error; process 0 ends with status 1" in said[0][1]
        assert "ValueError: the data of process 1" in said[1][1]
    finally:
        end(both)


def test_a_process_that_is_slow_to_end_holds_the_others_up_and_all_end_well(tmp_path):
    both = start_both(str(tmp_path), 2, slow=1)
    try:
        said = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert not [line for _, err in said for line in err.splitlines() if "error" in line]
    finally:
        end(both)


def test_killed_and_started_again_it_ends_with_the_same_bits(tmp_path):
    whole = [weights_of(process) for process in start_both(str(tmp_path / "whole"), 24)]
    both = start_both(str(tmp_path / "cut"), 24)
    assert_alive(both[0], 8)
    both[1].kill()
    both[0].communicate(timeout=60)
    both[1].communicate()
    assert both[0].returncode == processes.LOST
    assert list((tmp_path / "cut").iterdir())
    again = [weights_of(process) for process in start_both(str(tmp_path / "cut"), 24)]
    assert again == whole


@pytest.mark.parametrize(
    ("command", "results"),
    [
        (["fit", "iris", "--epochs", "2"], "metrics.json"),
        (["sweep", "iris", "--grid", "l2=1e-3,1e-1", "fold=0,1"], "sweep.json"),
        (["probe", "iris", "--grid", "C=1,100", "--validation", "0.3"], "metrics.json"),
    ],
)
def test_two_processes_of_a_command_give_what_one_gives(command, results, tmp_path):
    code = "import sys, tests.scaling.keep_programs\n"
    code += "from jaxclf.commands.cli import main\nmain(sys.argv[1:])"
    where = "--distributed", "--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *command, "--out", str(tmp_path / "two"), *where,
             "--process", str(rank)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    main([*command, "--out", str(tmp_path / "one")])
    said = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0] * 2, said
    # The first one prints and writes.
    assert "model" in said[0][0]
    assert "model" not in said[1][0]
    one, two = (json.loads((tmp_path / out / results).read_text()) for out in ("one", "two"))
    found = [two, one] if command[0] == "sweep" else [two["test"], one["test"]]
    for ours, theirs in zip(*map(comparable, found), strict=True):
        assert ours == (pytest.approx(theirs, rel=1e-4) if isinstance(theirs, float) else theirs)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a.csv", "b.csv"], "the train rows of process 1 and of process 0 differ"),
        (["a.csv", "a.csv --epochs 3"], "the options of process 1 and of process 0 differ"),
        (["a.csv", "none.csv"], "process 1 ended with an error; process 0 ends with status 2"),
    ],
)
def test_processes_that_are_given_something_else_are_told(given, message, tmp_path):
    for name in "ab":
        rows = [f"{i + (name == 'b')},{i % 7},{i % 2}" for i in range(50)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y,label", *rows]))
    where = f"--distributed --coordinator 127.0.0.1:{free_port()} --processes 2 --process"
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "jaxclf", "fit", *words.split(), *where.split(), str(rank)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        )
        for rank, words in enumerate(given)
    ]  # fmt: skip
    said = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [2, 2], said
    assert f"error: {message}" in said[0][1]
    assert not (tmp_path / "results").exists()


def test_an_exchange_that_fails_is_no_error_in_what_was_given(monkeypatch):
    def fails(_):
        raise ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", fails)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Connection closed by peer"):
        sharing.all_gather(np.zeros(2))


def comparable(tree) -> list:
    """What does not depend on the clock or the way to the optimum."""
    aside = ("seconds", "solver", "steps", "passes", "gap_bound", "gradient_norm", "curves")
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [x for path, x in leaves if not any(name in str(path) for name in aside)]


def test_numbers_that_do_not_fit_are_refused():
    for process in (None, 2, -1):
        with (
            pytest.raises(ValueError, match=r"process must be in 0 … 1, got"),
            processes.distributed("127.0.0.1:1", 2, process),
        ):
            raise AssertionError("the block must not run")
