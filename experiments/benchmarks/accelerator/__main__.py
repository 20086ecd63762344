"""Measures the library on an accelerator in one command: the device, the tests and the works.

Every part runs in a process of its own with a limit of its own, the most valuable first. Its facts
are written to ``accelerator.json`` at once, so that a machine that is taken away leaves what was
measured. On a CPU the same parts run on smaller sizes. The command needs only JAX, Flax,
optax, SciPy, mpmath, scikit-learn, matplotlib, Rich and pytest.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.accelerator import isolated
from experiments.benchmarks.accelerator.parts import PARTS
from jaxclf.files import atomic_write, write_json
from jaxclf.scaling.devices import PLATFORMS

NAMES = ("device", "tests", *list(PARTS)[1:])
"""The names of the parts, in the order in which they run."""
_TESTS_SECONDS = 120


def main(arguments: list[str] | None = None) -> None:
    """Runs the parts for as long as there is time, and prints and writes what they find."""
    options = _options(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    path, ends = options.out / "accelerator.json", time.monotonic() + 60 * options.minutes
    found: dict = {"minutes": options.minutes, "parts": {}}
    for name in options.parts or NAMES:
        left = ends - time.monotonic()
        limit = min(left, _TESTS_SECONDS if name == "tests" else PARTS[name][1])
        facts = found["parts"][name] = {"found": []}
        if left < 5:
            facts["ended"] = "there was no time left"
        else:
            print(f"{name} …", flush=True)
            began = time.monotonic()
            if name == "tests":
                facts.update(isolated.tests(options.platform, limit))
            else:
                where = options.platform, options.data
                for fact in isolated.part(name, *where, limit=limit, facts=facts):
                    facts["found"].append(fact)
                    print("  " + ", ".join(f"{k} {v}" for k, v in fact.items()), flush=True)
                    _write(path, found)
            facts["seconds"] = round(time.monotonic() - began, 1)
        _write(path, found)
    _show(found)
    _draw(found, options.out / "accelerator.png")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m experiments.benchmarks.accelerator", None, __doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/accelerator"))
    parser.add_argument("--platform", choices=PLATFORMS, help="JAX's choice if left out")
    parser.add_argument("--data", help="images, as jaxclf.load_dataset takes them; else made up")
    parser.add_argument("--parts", nargs="+", choices=NAMES, help="only these")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error(f"--minutes must be above 0, got {options.minutes:g}")
    return options


def _write(path: Path, found: dict) -> None:
    with atomic_write(path) as partial:
        write_json(partial, found)


def _works(found: dict) -> list[dict]:
    parts = found["parts"].values()
    return [x for part in parts for x in part["found"] if isinstance(x, dict) and "work" in x]


def _show(found: dict) -> None:
    table = Table("work", "first s", "s", "bound on the gap", "status", title="seconds")
    for fact in _works(found):
        cells = (fact.get(key, "") for key in ("first_seconds", "seconds", "gap_bound", "status"))
        table.add_row(fact["work"], *map(str, cells))
    Console(width=max(110, Console().width)).print(table)


def _draw(found: dict, path: Path) -> None:
    """Draws the seconds of each work, with and without compiling, and those that others publish."""
    works = _works(found)
    if not works:
        return
    from jaxclf.reports import plots

    places, names = range(len(works)), [x["work"] for x in works]
    colours = [plots.GREEN if "torch" in name else plots.BLUE for name in names]
    marks = {
        "first_seconds": ("first call, compiling", plots.ORANGE, "|"),
        "cuml_published_seconds": ("cuML on an RTX Pro 6000, as published", plots.GREEN, "d"),
    }
    with plots.figure(path, size=(9.0, 1.6 + 0.3 * len(works))) as (sheet, axes):
        axes.barh(places, [x["seconds"] for x in works], color=colours, label="compiled")
        for key, (label, colour, marker) in marks.items():
            points = [(x[key], i) for i, x in zip(places, works, strict=True) if key in x]
            if points:
                axes.scatter(*zip(*points, strict=True), c=colour, marker=marker, label=label)
        axes.set_yticks(places, names, fontsize=8)
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel="seconds", title=_title(found))
        sheet.legend(fontsize=8, ncols=3, loc="outside lower center")


def _title(found: dict) -> str:
    facts = found["parts"].get("device", {"found": []})["found"]
    return facts[0]["device"] if facts else ""


if __name__ == "__main__":
    main()
