"""Checks what `python -m build` has made: python .github/check_distributions.py dist."""

import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path


def check(folder: Path, checkout: Path) -> None:
    """Raises AssertionError where the wheel or the sdist lacks a file or has one too many."""
    source = {
        path.relative_to(checkout).as_posix()
        for path in checkout.glob("jaxclf/**/*")
        if path.suffix in (".py", ".typed")
    }
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (described,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        description = Parser().parsestr(archive.read(described).decode())
    information = {name for name in names if name.startswith(described.removesuffix("METADATA"))}
    assert names - information == source, (names - information) ^ source
    assert "jaxclf/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in information), information
    assert description["License-Expression"] == "MIT"
    assert description["Description-Content-Type"] == "text/markdown"
    assert description.get_payload() == (checkout / "README.md").read_text(encoding="utf-8")

    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = source | {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"}
    assert needed <= names, needed - names
    assert not {name for name in names if name.startswith(("tests", "experiments"))}, names


if __name__ == "__main__":
    check(Path(sys.argv[1]), Path(__file__).parents[1])
