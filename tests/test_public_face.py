"""What ``import jaxclf`` gives: its names, its modules, and nothing by accident."""

import ast
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import jaxclf


def test_every_public_name_is_there_and_has_a_docstring():
    for name in jaxclf.__all__:
        assert getattr(jaxclf, name).__doc__
    assert set(jaxclf.__all__) <= set(dir(jaxclf))


def test_names_that_come_later_are_visible_to_type_checkers():
    """They are imported under TYPE_CHECKING, name by name."""
    tree = ast.parse(Path(jaxclf.__file__).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.name: node.module for block in blocks for node in block.body for alias in node.names
    }
    assert imported == jaxclf._LATER
    assert Path(jaxclf.__file__).with_name("py.typed").exists()


@pytest.mark.parametrize("module", jaxclf._MODULES)
def test_modules_are_reachable_after_one_import(module):
    assert getattr(jaxclf, module).__name__ == f"jaxclf.{module}"


def test_what_takes_long_is_imported_when_it_is_asked_for():
    code = "import sys, jaxclf; print([m for m in ('sklearn', 'matplotlib') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_no_other_name_is_promised():
    assert "import_module" not in dir(jaxclf)
    with pytest.raises(AttributeError, match="module 'jaxclf' has no attribute 'minimise'"):
        _ = jaxclf.minimise


def test_the_version_is_in_one_place():
    assert metadata.version("jaxclf") == jaxclf.__version__


def test_the_script_for_the_type_checker_runs(capsys):
    runpy.run_path(str(Path(__file__).with_name("user_script.py")))
    assert capsys.readouterr().out.startswith("converged")
