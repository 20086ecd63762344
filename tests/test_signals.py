"""SIGTERM ends a program in order, and a save that has begun ends before the program does."""

import gc
import importlib
import signal
import subprocess
import sys
import time

import pytest

from jaxclf.signals import ends_in_order, signals_held


def ask(number=signal.SIGTERM):
    signal.raise_signal(number)


def test_sigterm_ends_a_block_with_a_line_and_a_status(capfd):
    with pytest.raises(SystemExit) as end, ends_in_order():
        ask()
    assert end.value.code == 143
    assert capfd.readouterr().err == "terminated\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_the_users_stays():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with ends_in_order():
            ask()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def wait():
    time.sleep(5)
    raise AssertionError("the signal must be sent again")


def test_a_signal_that_python_loses_in_a_callback_is_sent_again(capfd):
    def callback(phase, info):
        gc.callbacks.remove(callback)
        ask()

    with pytest.raises(SystemExit), ends_in_order():
        gc.callbacks.append(callback)
        gc.collect()
        wait()
    assert capfd.readouterr().err == "terminated\n"


def test_what_else_python_loses_is_said_as_ever(capfd):
    def callback(phase, info):
        gc.callbacks.remove(callback)
        raise SystemExit(3)

    said = []
    before, sys.unraisablehook = sys.unraisablehook, said.append
    try:
        with ends_in_order():
            gc.callbacks.append(callback)
            gc.collect()
        assert sys.unraisablehook == said.append
    finally:
        sys.unraisablehook = before
    assert [lost.exc_value.code for lost in said] == [3]


def test_a_signal_waits_until_a_module_is_imported(tmp_path, monkeypatch):
    text = "import signal\nsignal.raise_signal(signal.SIGTERM)\ndone = True\n"
    (tmp_path / "module_of_a_test.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit), ends_in_order():
        module = importlib.import_module("module_of_a_test")
        assert module.done
        wait()


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
