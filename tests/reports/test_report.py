"""Reports in one file."""

import json
import re

import numpy as np

from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table, write_report
from jaxclf.reports.surface import Surface


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


def test_a_section_of_a_title_alone_is_left_out(tmp_path):
    sections = [Section("Full", ["text"]), Section("Blank", [], None, [])]
    write_report(tmp_path / "r.html", "T", sections, "f")
    html = (tmp_path / "r.html").read_text()
    assert "Full" in html
    assert "Blank" not in html


def test_code_between_backticks_is_code_and_still_escaped(tmp_path):
    png = tmp_path / "p.png"
    png.write_bytes(b"\x89PNG")
    table = Table(["", "`h`"], [["`row`", "`<b>`"]])
    section = Section("A", ["`fit` of ``a < b`` and one ` alone"], table, [Figure(png, "by `fit`")])
    write_report(tmp_path / "r.html", "T", [section], "f")
    html = (tmp_path / "r.html").read_text()
    for text in ("<code>fit</code> of <code>a &lt; b</code>", "<code>row</code>", 'alt="by fit"',
                 "<code>&lt;b&gt;</code>", "by <code>fit</code></figcaption>"):  # fmt: skip
        assert text in html
    assert "one ` alone" in html


def test_a_phone_keeps_short_tables_and_scrolls_along_large_figures(tmp_path):
    long = Table(["", "h"], [["a", "a claim that would be squeezed in a narrow column"]])
    narrow, wide = tmp_path / "narrow.png", tmp_path / "wide.png"
    for path, inches in ((narrow, 4), (wide, 12)):
        with plots.figure(path, size=(inches, 2)):
            pass
    figures = [Figure(narrow, "n"), Figure(wide, "w")]
    sections = [Section("A", [], Table(["", "h"], [["a", "1"]]), figures), Section("B", [], long)]
    write_report(tmp_path / "r.html", "T", sections, "f")
    html = (tmp_path / "r.html").read_text()
    assert html.count('<table class="narrow">') == 1
    assert html.count("<table>") == 1
    assert re.findall(r'<img(?: style="--scrolled: (.*?)")?', html) == ["", "924px"]
