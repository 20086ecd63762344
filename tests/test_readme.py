import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [page.read_text(encoding="utf-8") for page in sorted(ROOT.glob("docs/*.md"))]


RUN_ALL = """
import json, sys

for example in json.loads(sys.argv[1]):
    print(example.splitlines()[0], flush=True)
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
"""


def test_every_python_example_runs_as_written(tmp_path):
    """In one process, as importing takes longer than most of them."""
    examples = re.findall(r"```python\n(.*?)```", "\n".join([README, *PAGES]), re.DOTALL)
    assert len(examples) > 6
    process = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(examples)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-500:] + process.stderr


def test_every_place_and_picture_it_names_exists():
    places = README.split("## What is where")[1]
    table = re.findall(r"^\| (`.*?) \|", places, re.MULTILINE)
    names = re.findall(r"`([\w/.]+)`", " ".join(table)) + re.findall(r"\]\((.+?)\)", README)
    assert len(names) > 10
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {"#" + heading.lower().replace(" ", "-") for heading in headings}
    assert [name for name in names if name not in anchors and not (ROOT / name).exists()] == []
