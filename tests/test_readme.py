import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_every_python_example_runs_as_written(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert examples
    for example in examples:
        process = subprocess.run(
            [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr


def test_every_place_and_picture_it_names_exists():
    root = Path(__file__).parents[1]
    places = README.split("## What is where")[1]
    table = re.findall(r"^\| (`.*?) \|", places, re.MULTILINE)
    names = re.findall(r"`([\w/.]+)`", " ".join(table)) + re.findall(r"\]\((.+?)\)", README)
    assert len(names) > 10
    assert [name for name in names if not (root / name).exists()] == []
