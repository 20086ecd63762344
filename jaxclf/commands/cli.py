"""The `jaxclf` command: fit, probe, sweep, evaluate, predict, explain, datasets."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from operator import attrgetter
from typing import NamedTuple

import jaxclf
from jaxclf.commands.console import input_errors, refuse
from jaxclf.extras import COMMAND, require
from jaxclf.signals import ends_in_order

_INTERRUPTED = 130
"""The status of a command that Ctrl-C ends, as shells have it."""
_NO_READER = 141
"""The status of a command whose output nobody reads any more, as shells have it."""


class _Command(NamedTuple):
    """A command. The module with its class is imported when the command is typed."""

    place: str
    about: str
    reads: str = ""
    """The field with the name of the dataset that it reads; empty if it reads none."""


_COMMANDS = {
    "fit": _Command(
        "fit.Fit", "Train a classifier by minibatches and measure it.", "recipe.dataset"
    ),
    "probe": _Command(
        "probe.Probe", "Choose the penalty of a linear classifier and report on it.", "features"
    ),
    "sweep": _Command(
        "sweep.Sweep", "Fit a linear classifier for all configurations of a grid.", "dataset"
    ),
    "evaluate": _Command("apply.Evaluate", "Measure a model on a dataset.", "source.dataset"),
    "predict": _Command(
        "apply.Predict", "Write the class and the probabilities of every row.", "source.dataset"
    ),
    "explain": _Command(
        "apply.Explain", "Say what would be done with a table, without fitting.", "source.dataset"
    ),
    "datasets list": _Command("datasets.List", "List the datasets and files that are read."),
    "datasets show": _Command("apply.Show", "Show what a dataset holds.", "source.dataset"),
    "datasets prepare": _Command(
        "datasets.Prepare", "Prepare tfds:mnist and its kin, without TensorFlow."
    ),
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # a crash of compiled code is not without words
    try:
        try:
            with ends_in_order():
                _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    except BrokenPipeError:
        # What is left to print goes nowhere, or Python would say so when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(_NO_READER) from None


def _run(arguments: Sequence[str]) -> None:
    first = arguments[0] if arguments else "--help"
    if first == "--version":
        print(f"jaxclf {jaxclf.__version__}")
        return
    group = [name for name in _COMMANDS if name.startswith(f"{first} ")]
    if first in ("-h", "--help") or (group and (len(arguments) == 1 or arguments[1][:1] == "-")):
        print(_help(group or list(_COMMANDS)))
        return
    with input_errors():
        require("the command jaxclf", "command", *COMMAND)
    from jaxclf.commands.command_line import closest, parse

    length = 2 if group else 1
    name = " ".join(arguments[:length])
    if name not in _COMMANDS:
        meant = closest(name, group or [*_COMMANDS, "datasets"])
        refuse(f"there is no command jaxclf {name}{meant or '; see jaxclf --help'}")
    module, _, kind = _COMMANDS[name].place.partition(".")
    command_type = getattr(import_module(f"jaxclf.commands.{module}"), kind)
    command = parse(command_type, f"jaxclf {name}", arguments[length:])
    reads = _COMMANDS[name].reads
    if reads and sys.stderr.isatty():
        print(f"reading {attrgetter(reads)(command)}", file=sys.stderr, flush=True)
    import_module("jaxclf.compilation_cache").use_compilation_cache()
    # Libraries below warn of their own insides; what a user needs to know is said by jaxclf.
    logging.getLogger("absl").setLevel(logging.ERROR)
    command.run()


def _help(names: Sequence[str]) -> str:
    """The commands with what they do."""
    return "\n".join(
        [
            "Fit, evaluate and use linear, logistic and softmax classifiers in JAX.",
            "",
            "usage: jaxclf COMMAND …, jaxclf COMMAND --help or jaxclf --version",
            "",
            *(f"  {name:<18}{_COMMANDS[name].about}" for name in names),
        ]
    )
