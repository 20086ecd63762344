"""Lists the experiments, and runs one of them or all.

python -m experiments                     what there is
python -m experiments NAME --quick        one; --help lists its options
python -m experiments all --quick         every one, with an index page
python -m experiments lab --quick         those about convexity, in one report
"""

from __future__ import annotations

import runpy
import shutil
import sys
import textwrap

from experiments import chapters
from experiments.endings import end_quietly

GROUPS = {
    "The tour, from a step to softmax": chapters.TOUR,
    "The laboratory, on convexity": chapters.LABORATORY,
    "Worked examples, tools, timings": chapters.WORKSHOP,
}
GATHERED = {"all": "tour", "lab": "lab"}


def listing(width: int) -> str:
    """The list of all experiments with their questions, a group at a time."""
    indent = 2 + max(len(name) for names in GROUPS.values() for name in names) + 2
    lines = [__doc__.rstrip()]
    for title, names in GROUPS.items():
        lines += ["", title]
        for name in names:
            text = f"  {name:<{indent - 2}}{chapters.question(name)}"
            lines += textwrap.wrap(text, width, subsequent_indent=" " * indent)
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Runs what the command line asks for."""
    end_quietly()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(listing(max(shutil.get_terminal_size().columns, 60)), flush=True)
        return
    name, *options = arguments
    known = {name: name for names in GROUPS.values() for name in names} | GATHERED
    if name not in known:
        from jaxclf.commands.console import input_errors, refuse
        from jaxclf.extras import COMMAND, require

        with input_errors():
            require("an experiment", "experiments", *COMMAND)
        from jaxclf.commands.command_line import closest

        meant = closest(name, list(known)) or f"; among {', '.join(known)}"
        refuse(f"no experiment {name!r}{meant}")
    sys.argv = [f"python -m experiments.{known[name]}", *options]
    runpy.run_module(f"experiments.{known[name]}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
