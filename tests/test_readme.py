import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import pytest

ROOT = Path(__file__).parents[1]
README, INDEX, MODULES = (ROOT / name for name in ("README.md", "docs/index.md", "docs/modules.md"))
DOCS = [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/api/*.md"))]
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.py"))
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "experiments/README.md", *DOCS]
OTHERS = ("torch", "keras")
"""Libraries whose page has examples that import them."""

RUN_ALL = """
import json, sys

names = {}
for page, example in json.loads(sys.argv[1]):
    print(page, example.splitlines()[0], flush=True)
    exec(compile(example, page, "exec"), names.setdefault(page, {"__name__": "__main__"}))
"""


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """The text of a page without its code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "code", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def linked(page: Path) -> list[tuple[str, Path, str]]:
    """The links of a page to files and headings: as written, the file, and the anchor."""
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    parts = [(link, *link.partition("#")[::2]) for link in links if "://" not in link]
    return [
        (link, (page.parent / path).resolve() if path else page, anchor)
        for link, path, anchor in parts
    ]


def dead_links(page: Path) -> list[str]:
    return [
        link
        for link, path, anchor in linked(page)
        if not path.exists() or (anchor and anchor not in anchors(path))
    ]


def examples(page: Path) -> list[tuple[str, str]]:
    """The Python examples of a page, which may use the names of those above them."""
    return [(page.name, text) for text in re.findall(r"```python\n(.*?)```", read(page), re.DOTALL)]


def assert_runs(found: list[tuple[str, str]], folder: Path, *options: str) -> None:
    process = subprocess.run(
        [sys.executable, *options, "-c", RUN_ALL, json.dumps(found)],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-500:] + process.stderr


def test_every_python_example_runs_as_written(tmp_path):
    """In one process, as importing takes longer than most of them; a warning is an error."""
    pages = [page for page in (README, *DOCS) if page.stem not in OTHERS]
    found = [example for page in pages for example in examples(page)]
    assert len(found) > 25
    assert_runs(found, tmp_path, "-W", "error")


@pytest.mark.parametrize("library", OTHERS)
def test_examples_with_another_library_run_where_it_is_installed(library, tmp_path):
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    assert_runs(examples(ROOT / f"docs/{library}.md"), tmp_path)


def test_no_link_of_any_page_is_dead():
    assert sum(len(linked(page)) for page in PAGES) > 50
    dead = {str(page.relative_to(ROOT)): dead_links(page) for page in PAGES}
    assert {page: links for page, links in dead.items() if links} == {}


def test_dead_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page, of `two` parts\n```python\n# No heading\nf[0](x)\n```\n"
        "[here](#a-page-of-two-parts) [itself](page.md#no-heading) [gone](gone.md) `[0](x)`\n"
        "![a picture whose text\nhas two lines](gone.png) [the web](https://example.com/gone)\n"
    )
    assert dead_links(page) == ["page.md#no-heading", "gone.md", "gone.png"]


def test_the_map_names_every_page_and_a_page_every_measurement():
    on_the_map = {path for _, path, _ in linked(INDEX)}
    assert {*DOCS, *NOTEBOOKS, README} - on_the_map == {INDEX}
    named = {path for page in DOCS for _, path, _ in linked(page)}
    measured = {*ROOT.glob("experiments/benchmarks/*.json")}
    assert len(measured) > 5
    assert measured - named == set()


def test_every_experiment_that_a_page_runs_exists():
    modules = {m for page in PAGES for m in re.findall(r"-m (experiments[\w.]*\w)", read(page))}
    assert len(modules) > 10
    places = {module: ROOT / module.replace(".", "/") for module in modules}
    assert [
        module
        for module, place in places.items()
        if not place.with_suffix(".py").exists() and not (place / "__main__.py").exists()
    ] == []


def test_every_name_of_the_library_that_a_page_mentions_exists():
    names = {name for page in PAGES for name in re.findall(r"`(jaxclf\.[\w.]+\w)", read(page))}
    assert len(names) > 10
    for name in names:
        resolve_name(name)


def test_the_table_of_modules_names_what_is_there_and_all_of_it():
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", read(MODULES), re.MULTILINE)
    places = {name for place, _ in rows for name in re.findall(r"`([\w/.]+)`", place)}
    assert [name for name in places if not (ROOT / name).exists()] == []
    for place, holds in rows:
        first = ROOT / re.findall(r"`([\w/.]+)`", place)[0]
        folder = first if first.is_dir() else first.parent
        for name in re.findall(r"`(\w+\.py)`", holds):
            assert (folder / name).exists(), f"{place} names {name}"
    modules = {
        f"jaxclf/{path.name}" + "/" * path.is_dir()
        for path in ROOT.glob("jaxclf/*")
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.name[0] != "_"
    }
    assert len(modules) > 20
    assert modules - places == set()
