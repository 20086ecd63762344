"""The package as a whole: what importing it loads, how its parts import each other, its version."""

import ast
import json
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_importing_the_package_loads_nothing_heavy():
    program = "import sys, json, jaxclf; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"tensorflow_datasets", "matplotlib", "sklearn", "flax", "optax", "rich", "tyro"}
    assert not heavy & set(json.loads(output.stdout))


def imported_by(source: str, *, anywhere: bool) -> set[str]:
    """The modules that a source imports, with dots, at its head or anywhere in it."""
    tree = ast.parse(source)
    found = set()
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_point_one_way():
    parts = {}
    for path in ROOT.glob("jaxclf/*/**/*.py"):
        parts.setdefault(path.relative_to(ROOT / "jaxclf").parts[0], []).append(path)
    parts |= {path.stem: [path] for path in ROOT.glob("jaxclf/*.py") if path.stem != "__init__"}
    graph = {}
    for part, paths in parts.items():
        names = set().union(*(imported_by(p.read_text(), anywhere=False) for p in paths))
        needed = {name.split(".")[1] for name in names if name.startswith("jaxclf.")}
        graph[part] = needed & set(parts) - {part}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    heads = ("checks", "penalties", "objectives", "solvers", "sweeps", "reports", "commands")
    places = [order.index(part) for part in heads]
    assert places == sorted(places)


def test_the_library_imports_no_experiment():
    names = set().union(
        *(imported_by(path.read_text(), anywhere=True) for path in ROOT.glob("jaxclf/**/*.py"))
    )
    assert "jax" in names
    assert not {name for name in names if name.split(".")[0] in ("experiments", "tests")}


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "jaxclf.__version__"}
    assert "version:" not in (ROOT / "CITATION.cff").read_text().replace("cff-version:", "")
