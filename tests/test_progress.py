"""Progress: what a bar says of the time left, and that it stays in its line."""

import re
import sys

import pytest
from rich.progress import Progress

from jaxclf import progress


def visible(text):
    """A text of a terminal without its colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_the_time_left_is_told_after_some_steps_and_without_the_first():
    clock = Clock()
    bar, column = Progress(disable=True, get_time=clock), progress.TimeLeft()
    bar.add_task("fits", total=20)
    [task] = bar.tasks
    told = []
    # The first step takes 100 s since it compiles, the others take 2 s.
    for clock.now in (0.0, 100.0, 102.0, 104.0):
        told.append(column.seconds(task))
        bar.update(task.id, advance=1)
    assert told == [None] * 4
    clock.now = 106.0
    assert column.seconds(task) == pytest.approx(32)  # 16 steps of 2 s
    clock.now = 107.0
    assert column.seconds(task) == pytest.approx(31)
    assert column.render(task).plain == "0:00:31 left"
    bar.update(task.id, completed=20)
    assert column.render(task).plain == ""
    bar.reset(task.id)
    assert column.seconds(task) is None


def test_steps_that_end_together_are_one():
    clock = Clock()
    bar, column = Progress(disable=True, get_time=clock), progress.TimeLeft()
    bar.add_task("fits", total=100)
    [task] = bar.tasks
    for clock.now in (0.0, 1.0, 2.0):
        assert column.seconds(task) is None
        for _ in range(10):
            bar.update(task.id, advance=1)


@pytest.mark.parametrize("width", [80, 120])
def test_a_long_step_is_cut_to_one_line(width, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    with progress.progress_bar() as bar:
        task = bar.add_task("x", total=2)
        bar.update(task, advance=1, description="[a study] " + "of many words " * 20)
    lines = visible(capsys.readouterr().err).splitlines()
    assert all(len(line) <= width for line in lines)
    assert "[a study] of many" in lines[-1]
    assert " 50%" in lines[-1]
    assert "left" not in lines[-1]


def test_elsewhere_a_line_is_printed_now_and_then(capsys):
    with progress.progress_bar() as bar:
        bar.get_time = clock = Clock()
        task = bar.add_task("fits", total=5)
        for clock.now in (3.0, 12.0, 15.0, 30.0):
            bar.update(task, advance=1, description=f"fit at {clock.now:.0f}")
    assert capsys.readouterr().err == "fit at 12  12 s\nfit at 30  30 s\n"
