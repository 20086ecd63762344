"""What a long training shows: a bar or lines, and a log."""

import sys

from jaxclf.training import callbacks


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch, capsys):
    record = {"epoch": 0, "loss": 1.5, "seconds": 2.0, "accuracy": 0.75}
    progress = callbacks.Progress(0, 4, 100, 100, 1.5, 50.0, (record,), True, None)
    with callbacks.show_progress(1, 4) as show:
        show(progress._replace(epoch_ended=False))
        show(progress)
    line = "epoch 1/4  loss 1.5000  accuracy 0.7500  2.00 s  50 rows/s  6 s left\n"
    assert capsys.readouterr().err == line
    with callbacks.show_progress(0, 4) as show:
        show(progress)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with callbacks.show_progress(2, 4) as show:
        show(progress)
    shown = capsys.readouterr().err
    assert "accuracy 0.7500" in shown
    assert "50 rows/s" in shown


def test_the_log_is_whole_after_every_epoch_and_strict_json(tmp_path):
    log = callbacks.jsonl_log(tmp_path / "log.jsonl")
    record = {"epoch": 0, "loss": float("nan")}
    progress = callbacks.Progress(0, 4, 1, 1, 1.0, 1.0, (record,), True, None)
    log(progress._replace(epoch_ended=False))
    assert not (tmp_path / "log.jsonl").exists()
    log(progress)
    log(progress)
    assert (tmp_path / "log.jsonl").read_text() == '{"epoch": 0, "loss": null}\n'
