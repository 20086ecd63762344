"""Folders and JSON that are written whole, and reports in one file."""

import json
import os
import re

import numpy as np
import pytest

from jaxclf.files import atomic_folder, write_json
from jaxclf.reports.report import Figure, Section, Table, write_report
from jaxclf.reports.surface import Surface


def test_a_folder_appears_whole(tmp_path):
    out = tmp_path / "a" / "b"
    with atomic_folder(out) as stage:
        (stage / "new.txt").write_text("new")
        assert not (out / "new.txt").exists()
    assert [p.name for p in out.iterdir()] == ["new.txt"]


def test_after_an_error_nothing_is_left(tmp_path):
    out = tmp_path / "a" / "b"
    with pytest.raises(KeyboardInterrupt), atomic_folder(out) as stage:
        (stage / "half.txt").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_earlier_results_survive_an_error_and_are_replaced_by_success(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    (tmp_path / "result.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path) as stage:
        (stage / "result.txt").write_text("half")
        raise RuntimeError
    assert (tmp_path / "result.txt").read_text() == "old"
    with atomic_folder(tmp_path) as stage:
        (stage / "result.txt").write_text("new")
    assert sorted(os.listdir(tmp_path)) == ["kept.txt", "result.txt"]
    assert (tmp_path / "result.txt").read_text() == "new"


def test_a_folder_that_cannot_be_is_refused_at_once(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "below"):
        with pytest.raises(OSError, match="file"), atomic_folder(path):
            raise AssertionError("the block must not run")
    assert file.read_text() == ""


def test_nothing_moves_if_something_is_in_the_way(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError, match="b is a folder"), atomic_folder(tmp_path) as stage:
        for name in "abc":
            (stage / name).write_text("new")
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "a.json", {"λ": 0.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"λ": 0.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_a_report_is_one_file_and_escapes_its_text(tmp_path):
    png = tmp_path / "p.png"
    png.write_bytes(b"\x89PNG")
    section = Section(
        "<b>", ["x < y & z"], Table(["", "h"], [["<i>", "1"]]), [Figure(png, '"quoted"')]
    )
    write_report(tmp_path / "r.html", "<title>", [section], "end")
    html = (tmp_path / "r.html").read_text()
    for text in ("&lt;b&gt;", "x &lt; y &amp; z", "&lt;i&gt;", "&#34;quoted&#34;"):
        assert text in html
    assert "data:image/png;base64,iVBORw==" in html
    assert "http" not in html


def test_a_surface_is_in_the_page_and_cannot_break_out_of_it(tmp_path):
    heights = np.array([[0.0, 1.0], [np.nan, 3.0]])
    surface = Surface("<b>", {"</script><b>": heights, "flat": np.ones((2, 2))}, (1, 2), ("x", "y"))
    sections = [Section("A", surfaces=[surface]), Section("B")]
    write_report(tmp_path / "r.html", "T", sections, "f")
    html = (tmp_path / "r.html").read_text()
    assert "<b>" not in html
    assert html.count("<canvas") == 1
    assert "http" not in html
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    content = json.loads(data)
    assert content["names"] == ["</script><b>", "flat"]
    assert content["heights"][0] == [[0, 0.3333], [None, 1]]
    assert content["heights"][1] == [[0, 0], [0, 0]]
    assert content["ranges"] == [[0, 3], [1, 1]]
    write_report(tmp_path / "s.html", "T", [Section("B")], "f")
    assert "<canvas" not in (tmp_path / "s.html").read_text()
    assert "<script" not in (tmp_path / "s.html").read_text()
