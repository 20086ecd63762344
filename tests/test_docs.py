"""The site, which ``.ci/run`` builds: its navigation, its reference, the examples in docstrings."""

import doctest
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest

import jaxclf

ROOT = Path(__file__).parents[1]
DIRECTIVE = r"^\.\. auto(\w+):: ([\w.]+)\n   :members:([\w, \n]*)|^\.\. autofunction:: ([\w.]+)$"


def documented() -> dict[str, set[str]]:
    """What each target of the reference shows, by its name: members, or all where none is named."""
    text = "\n".join(page.read_text() for page in ROOT.glob("docs/api/*.md"))
    found = {}
    for _, target, members, function in re.findall(DIRECTIVE, text, re.MULTILINE):
        found[target or function] = set(re.findall(r"\w+", members))
    return found


def test_the_reference_has_every_public_name():
    names = {name.rpartition(".")[2] for name in documented()}
    assert set(jaxclf.__all__) <= names


PACKAGES = ("data", "estimators", "inference", "scaling", "solvers", "sweeps", "training")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_name_that_a_package_gives(package):
    shown = documented()
    names = {name.rpartition(".")[2] for name in shown}.union(*shown.values())
    given = re.findall(
        r" as (\w+)$", Path(import_module(f"jaxclf.{package}").__file__).read_text(), re.M
    )
    assert len(given) > 2
    assert set(given) - names == set()


def test_what_the_reference_names_exists():
    assert len(documented()) > 50
    for target, members in documented().items():
        found = resolve_name(target)
        for member in members:
            assert hasattr(found, member), f"{target} has no {member}"


def test_the_navigation_has_every_page():
    text = (ROOT / "docs/toc.yml").read_text()
    entries = re.findall(r"^(?:root|.*- file): (.*)$", text, re.MULTILINE)
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/notebooks/*.py")]
    assert len(entries) == len(set(entries))
    assert {*entries} - {"experiments/README"} == {
        str(page.relative_to(ROOT).with_suffix("")) for page in pages
    }


WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.glob("jaxclf/**/*.py")
    if ">>>" in path.read_text()
]


def test_docstrings_have_examples():
    assert len(WITH_EXAMPLES) > 3


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name))
    assert result.attempted
    assert not result.failed


def checked(site: Path) -> subprocess.CompletedProcess:
    check = ROOT / ".github/check_site.py"
    return subprocess.run([sys.executable, check, site], capture_output=True, text=True)


def test_a_site_is_checked_for_dead_links_and_for_what_it_loads(tmp_path):
    (tmp_path / "index.html").write_text('<h1 id="top">x</h1> <a href="b.html#here">b</a>')
    (tmp_path / "b.html").write_text('<p id="here">y</p> <a href="https://example.com">z</a>')
    assert checked(tmp_path).returncode == 0
    (tmp_path / "b.html").write_text(
        '<a href="c.html">c</a> <script src="https://a.b/c.js"></script>'
    )
    (tmp_path / "site.css").write_text("@import 'fonts.css';")
    assert checked(tmp_path).stderr.splitlines() == [
        "b.html links c.html",
        "b.html loads https://a.b/c.js",
        "index.html links b.html#here",
        "site.css loads from elsewhere",
    ]
