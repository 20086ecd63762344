"""What a long training shows: a bar or lines, and a log."""

import sys

import pytest

from jaxclf.training import callbacks
from tests.test_progress import visible

RECORD = {"epoch": 0, "loss": 1.5, "seconds": 2.0, "accuracy": 0.75}
PROGRESS = callbacks.Progress(0, 4, 100, 100, 1.5, 50.0, (RECORD,), True, None)


def test_progress_is_a_line_per_epoch_where_there_is_no_terminal(capsys):
    with callbacks.show_progress(1, 4) as show:
        show(PROGRESS._replace(epoch_ended=False))
        show(PROGRESS)
    line = "epoch 1/4  loss 1.5000  accuracy 0.7500  2.00 s  50 rows/s\n"
    assert capsys.readouterr().err == line
    with callbacks.show_progress(0, 4) as show:
        show(PROGRESS)
    assert capsys.readouterr().err == ""


def test_the_time_left_is_told_from_the_third_epoch_on_and_without_the_first(capsys):
    compiled = RECORD | {"seconds": 60.0}
    with callbacks.show_progress(1, 4) as show:
        show(PROGRESS._replace(epoch=1, history=(compiled, RECORD)))
        assert "left" not in capsys.readouterr().err
        show(PROGRESS._replace(epoch=2, history=(compiled, RECORD, RECORD)))
        assert capsys.readouterr().err.endswith("50 rows/s  2 s left\n")
        show(PROGRESS._replace(epoch=3, history=(compiled, RECORD, RECORD, RECORD)))
        assert "left" not in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_fits_the_terminal(width, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    with callbacks.show_progress(2, 100_000) as show:
        show(PROGRESS._replace(epoch=99_998, epochs=100_000, rows_per_second=1e9))
    shown = visible(capsys.readouterr().err)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert "epoch 99999/100000" in lines[-1]
    assert "loss 1.5000  accuracy 0.7500" in lines[-1]
    assert ("rows/s" in lines[-1]) == (width == 120)
    assert "…" not in shown
    assert "epoch 99999/100000  loss 1.5000  accuracy 0.7500  2.00 s" in map(str.rstrip, lines)


def test_the_log_is_whole_after_every_epoch_and_strict_json(tmp_path):
    log = callbacks.jsonl_log(tmp_path / "log.jsonl")
    record = {"epoch": 0, "loss": float("nan")}
    progress = callbacks.Progress(0, 4, 1, 1, 1.0, 1.0, (record,), True, None)
    log(progress._replace(epoch_ended=False))
    assert not (tmp_path / "log.jsonl").exists()
    log(progress)
    log(progress)
    assert (tmp_path / "log.jsonl").read_text() == '{"epoch": 0, "loss": null}\n'
