"""Self-contained HTML reports."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxclf.data import Dataset
from jaxclf.extras import require
from jaxclf.reports.surface import SCRIPT, Surface, as_content

_LARGE = 700
"""Pixels across from which the text of a figure would be unreadable on the width of a phone."""
_NARROW = 44
"""The most letters of a row of a table that fits a phone as it is."""
_CODE = re.compile("`+([^`]+)`+")


class Figure(NamedTuple):
    """A PNG and the sentence under it."""

    path: Path
    caption: str

    @property
    def scrolled(self) -> int:
        """The width in pixels that the figure keeps on a phone, where it is scrolled along; or 0
        where it shrinks to the width of the phone."""
        # The width of a PNG is in the bytes after the signature and the name of the first chunk.
        width = int.from_bytes(self.path.read_bytes()[16:20], "big")
        return round(0.7 * width) if width > _LARGE else 0


class Link(NamedTuple):
    """Text that leads to another page, by an address relative to this one."""

    text: str
    href: str


class Table(NamedTuple):
    """A header row and rows of text; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Link]]

    def labelled(self, row: Sequence[str | Link]) -> Iterator[tuple[str, str | Link]]:
        """The cells after the first, each with the name of its column."""
        return zip(self.header[1:], row[1:], strict=True)

    @property
    def narrow(self) -> bool:
        """Whether all rows are so short that they fit a phone."""
        if any(isinstance(cell, Link) for row in self.rows for cell in row):
            return False
        longest = (max(map(len, map(str, column))) for column in zip(*self.rows, strict=True))
        return sum(longest) <= _NARROW


class Section(NamedTuple):
    """A heading with paragraphs, then an optional table, then figures and surfaces.

    What stands between backticks in paragraphs, cells and captions is shown as code.
    """

    title: str | Link
    paragraphs: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[Figure] = ()
    surfaces: Sequence[Surface] = ()


_TEMPLATE = """{% macro shown(x) %}{% if x.href is defined %}<a href="{{ x.href }}">{{ x.text }}</a>
{%- else %}{{ x|code }}{% endif %}{% endmacro -%}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { margin-top: 2.5rem; font-size: 1.25rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0;
  border-bottom: 1px solid #ddd; }
thead th { border-bottom: 2px solid #555; } tbody th { font-weight: 600; }
figure { margin: 1.5rem 0; break-inside: avoid; } img { max-width: 100%; height: auto; }
canvas { max-width: 100%; touch-action: none; cursor: grab; }
figcaption, footer { color: #555; font-size: .9rem; } footer { overflow-wrap: anywhere; }
a { color: #0072B2; } code { font-size: .9em; overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) {
  table:not(.narrow) thead { display: none; }
  table:not(.narrow) :is(tr, th, td) { display: block; border: 0; padding: .1rem 0; }
  table:not(.narrow) tr { border-bottom: 1px solid #ddd; padding: .6rem 0; }
  table:not(.narrow) td:not([data-label=""])::before {
    content: attr(data-label) ": "; color: #555;
  }
  table.narrow { font-size: .8rem; } table.narrow :is(th, td) { padding-right: .5rem; }
  table.narrow tbody :is(th, td) { white-space: nowrap; }
  img[style] { max-width: none; width: var(--scrolled); }
}
@media print {
  body { max-width: none; margin: 0; font-size: 10pt; } .wide { overflow: visible; }
  tr, figure { break-inside: avoid; } h2, section > p { break-after: avoid; }
  figure img { max-height: 12cm; }
  a { color: inherit; }
}
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for section in sections %}
<section>
<h2>{{ shown(section.title) }}</h2>
{% for paragraph in section.paragraphs %}<p>{{ paragraph|code }}</p>
{% endfor %}
{% if section.table %}<div class="wide">
<table{% if section.table.narrow %} class="narrow"{% endif %}>
<thead><tr>{% for cell in section.table.header %}<th scope="col">{{ cell|code }}</th>{% endfor %}
</tr></thead>
<tbody>{% for row in section.table.rows %}
<tr><th scope="row">{{ shown(row[0]) }}</th>
{%- for name, cell in section.table.labelled(row) %}
<td data-label="{{ name|plain }}">{{ shown(cell) }}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody></table></div>{% endif %}
{% for figure in section.figures %}
<figure><div class="wide">
<img{% if figure.scrolled %} style="--scrolled: {{ figure.scrolled }}px"{% endif %}
 alt="{{ figure.caption|plain }}" src="data:image/png;base64,{{ encode(figure.path) }}"></div>
<figcaption>{{ figure.caption|code }}</figcaption></figure>
{% endfor %}
{% for surface in section.surfaces %}
<figure class="surface"><div class="buttons"></div><canvas width="900" height="620"></canvas>
<script type="application/json">{{ content(surface)|tojson }}</script>
<figcaption>{{ surface.caption|code }} Drag to turn.</figcaption></figure>
{% endfor %}
</section>
{% endfor %}
<footer>{{ footer }}</footer>
{% if script %}<script>{{ script|safe }}</script>{% endif %}
</body>
</html>
"""


def write_report(path: Path, title: str, sections: Sequence[Section], footer: str) -> None:
    """Writes one HTML file with every figure inside it: it opens offline and can be mailed.

    All text is escaped. A section with a title alone is left out.

    Raises:
      ImportError: if the extra ``command`` is not installed.
    """
    require("write_report", "command", "jinja2")
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"code": _with_code, "plain": lambda text: _CODE.sub(r"\1", text)}
    sections = [section for section in sections if any(section[1:])]
    turned = any(section.surfaces for section in sections)
    html = environment.from_string(_TEMPLATE).render(
        title=title,
        sections=sections,
        footer=footer,
        encode=_base64,
        content=as_content,
        script=SCRIPT if turned else "",
    )
    path.write_text(html, encoding="utf-8")


def write_data_report(folder: Path, what: str, data: Dataset, sections: Sequence[Section]) -> None:
    """Writes report.html on work with some rows, whose name and source are in it.

    Args:
      folder: the folder of the report.
      what: the title, but for the name of the rows.
      data: the rows that were trained on.
      sections: the sections of the report.
    """
    name = data.name.rpartition("/")[2]
    footer = f"Source of the data: {data.source}. SHA-256 of the training rows: {data.sha256}."
    write_report(folder / "report.html", f"{what} {name}", sections, footer)


def _with_code(text):
    """The text as HTML, in which what stands between backticks is code."""
    from markupsafe import Markup, escape

    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _base64(path: Path) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode("ascii")
