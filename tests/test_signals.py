"""SIGTERM ends a program in order, and a save that has begun ends before the program does."""

import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from jaxclf.signals import check_terminated, ends_in_order, signals_held


def ask(number=signal.SIGTERM):
    signal.raise_signal(number)


def test_sigterm_ends_a_block_with_a_line_and_a_status(capfd):
    with pytest.raises(SystemExit) as end, ends_in_order():
        ask()
    assert end.value.code == 143
    assert capfd.readouterr().err == "terminated\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    check_terminated()  # the block is over


def test_a_handler_of_the_users_stays():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with ends_in_order():
            ask()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_an_exception_that_python_lost_is_raised_again(capfd):
    with pytest.raises(SystemExit), ends_in_order():
        with suppress(SystemExit):  # as Python does in a callback of its collector
            ask()
        check_terminated()
        raise AssertionError("check_terminated must raise")
    assert capfd.readouterr().err == "terminated\n"


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_waits_until_a_held_block_ends(number, error):
    done = []
    with pytest.raises(error), ends_in_order():
        with signals_held():
            ask(number)
            done.append("saved")
        raise AssertionError("the signal must be heard at the end of the block")
    assert done == ["saved"]


def test_a_command_that_is_terminated_says_so_and_goes_on(tmp_path):
    command = [sys.executable, "-m", "jaxclf", "fit", "iris", "--verbose", "2"]
    command += ["--out", str(tmp_path / "run")]
    command += ["--epochs", "1000000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not process.stderr.readline().startswith("epoch 3/"):
            assert process.poll() is None
        process.terminate()
        said = process.stderr.read().splitlines()
    assert process.returncode == 143
    assert [line for line in said if not line.startswith("epoch")] == ["terminated"]
    assert any(path.name.isdecimal() for path in (tmp_path / "run/checkpoints").iterdir())
