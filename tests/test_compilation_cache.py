import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxclf import compilation_cache
from jaxclf.compilation_cache import VARIABLE, cut_back

PROGRAM = """
import jax
from jaxclf.compilation_cache import use_compilation_cache

print(use_compilation_cache())
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x + 1)(1.0)
"""


def run(**variables) -> list[str]:
    """What the program prints, in an environment without the tests' own cache."""
    kept = {k: v for k, v in os.environ.items() if "CACHE" not in k}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=kept | variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def entries(folder) -> list:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".reloads"]


def test_programs_are_kept_in_the_folder_and_read_from_it(tmp_path):
    first, again = (run(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
    assert first == again
    assert first[0] == first[1]
    folder = Path(first[0])
    # Compiled code is for one kind of processor and one version of jaxlib.
    assert folder == tmp_path / "jaxclf" / "compiled" / folder.name
    assert len(entries(folder)) == 1
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_may_be_named_and_the_cache_turned_off(tmp_path):
    found, used = run(**{VARIABLE: str(tmp_path / "here")})
    assert found == used
    assert Path(found).parent == tmp_path / "here"
    assert run(**{VARIABLE: "off"}, XDG_CACHE_HOME=str(tmp_path)) == ["None", "None"]
    assert not (tmp_path / "jaxclf").exists()


def test_what_the_user_set_stays(tmp_path):
    assert run(JAX_COMPILATION_CACHE_DIR=str(tmp_path)) == ["None", str(tmp_path)]
    assert run(JAX_ENABLE_COMPILATION_CACHE="false", XDG_CACHE_HOME=str(tmp_path))[0] == "None"
    # With its own lower bound nothing so small is kept.
    run(JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="60", XDG_CACHE_HOME=str(tmp_path))
    assert entries(tmp_path / "jaxclf") == []


def test_a_folder_that_cannot_be_written_is_left_alone_without_a_word(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert run(**{VARIABLE: str(tmp_path / "file")}) == ["None", "None"]


def test_a_machine_that_cannot_read_its_programs_keeps_none(tmp_path):
    folder = Path(run(XDG_CACHE_HOME=str(tmp_path))[0])
    (folder / ".reloads").write_text("no")
    assert run(XDG_CACHE_HOME=str(tmp_path)) == ["None", "None"]


@pytest.mark.parametrize("probe", ["raise SystemExit(1)", "import os; os.abort()"])
def test_a_program_that_is_not_read_back_turns_the_cache_off(tmp_path, monkeypatch, probe):
    monkeypatch.setattr(compilation_cache, "_PROBE", probe)
    assert not compilation_cache._reloads(tmp_path)
    assert (tmp_path / ".reloads").read_text() == "no"


def test_an_entry_that_is_damaged_costs_a_compilation_and_no_word(tmp_path):
    whole = run(XDG_CACHE_HOME=str(tmp_path))
    (entry,) = entries(tmp_path / "jaxclf")
    entry.write_bytes(entry.read_bytes()[:100])
    assert run(XDG_CACHE_HOME=str(tmp_path)) == whole


@pytest.mark.parametrize(("most", "left"), [(1000, 5), (400, 3), (100, 0)])
def test_the_cache_is_cut_back_to_what_was_used_last(tmp_path, most, left):
    for i in range(5):
        (tmp_path / str(i)).write_bytes(bytes(100))
        os.utime(tmp_path / str(i), (i, i))
    cut_back(tmp_path, most)
    assert sorted(os.listdir(tmp_path)) == [str(i) for i in range(5 - left, 5)]
