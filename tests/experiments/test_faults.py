"""The short form of `experiments.benchmarks.faults`: kills, and disks without room."""

import random
import signal
import time

import pytest

from experiments.benchmarks import faults


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_fit_that_is_ended_and_started_again_loses_nothing(number, tmp_path):
    faults.write_data(tmp_path / "data.npz")
    words = [*faults.FIT, "--epochs", "150"]
    faults.start(tmp_path, "warm", words).communicate()  # which compiles
    began = time.monotonic()
    faults.start(tmp_path, "whole", words).communicate()
    seconds, row = time.monotonic() - began, {"tries": 0, "after a save": 0}
    while row["tries"] == 0:  # on a machine that became quicker a run ends before its moment
        seconds /= 2
        out = f"cut {seconds}"
        choice = tmp_path, out, words, number, seconds, 2, row, random.Random(number)
        assert faults.kill_until_done(*choice) == []
    assert faults.bits(tmp_path / out) == faults.bits(tmp_path / "whole") != {}


def test_what_was_saved_is_watched():
    before = {"fit-1.npz": "a", "newest": "000000009"}
    assert faults.is_kept(before, {"fit-1.npz": "a", "fit-2.npz": "b", "newest": "000000010"})
    assert not faults.is_kept(before, {"fit-1.npz": "a", "newest": "000000008"})
    assert not faults.is_kept(before, {"fit-1.npz": "b", "newest": "000000010"})
    assert not faults.is_kept(before, {"newest": "000000010"})


def test_earlier_results_stay_whole_where_there_is_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "ON_IRIS", {"fit": faults.ON_IRIS["fit"]})
    monkeypatch.setattr(faults, "SIZES", (1000, 10**7))
    [row] = faults.without_room(tmp_path, random.Random(0))
    assert row == {"fault": "no room, fit", "tries": 2, "lost": 0, "refused": 1}
