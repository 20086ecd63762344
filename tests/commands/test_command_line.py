"""The command line of a dataclass: what it takes, its help in words, and its refusals."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from jaxclf.commands.command_line import closest, parse


@dataclass(frozen=True)
class Part:
    """A part of a command."""

    width: int | None = None
    """The width; by default that of
    the data (a line that begins with a bracket)."""
    names: tuple[str, ...] = ()
    """Some names."""


@dataclass(frozen=True)
class Needed:
    """A part without which there is no command."""

    dataset: str
    """The dataset."""
    rate: float = 0.5
    """The rate."""


@dataclass(frozen=True)
class Example:
    """Does something.

    It has a second paragraph, which is so long that it does not fit in a line of eighty letters.
    """

    needed: Needed
    part: Part = field(default_factory=Part)
    out: Path = Path("results/example")
    """The folder."""
    table: Path = Path("table.csv")
    """The table."""
    mode: Literal["fast", "slow"] = "fast"
    """The mode."""
    dry_run: bool = False
    """Do nothing."""


def example(*arguments):
    return parse(Example, "example", list(arguments))


def test_options_become_the_fields():
    assert example("iris") == Example(Needed("iris"))
    given = example(
        "iris", "--rate", "1e-3", "--width", "-3", "--names", "a", "None", "--out", "x",
        "--mode", "slow", "--dry-run", "--table", "y.csv",
    )  # fmt: skip
    part = Part(-3, ("a", "None"))
    assert given == Example(
        Needed("iris", 1e-3), part, Path("x"), Path("y.csv"), "slow", dry_run=True
    )
    assert example("--names", "a", "b", "--dry_run", "iris").needed.dataset == "iris"


def test_help_is_in_words(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        example("--help")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Does something.\n\nIt has a second paragraph,")
    assert all(len(line) <= 80 for line in shown.splitlines())
    for words in (
        "example [-h]", "DATASET ", "--rate NUMBER ", "(default: 0.5)", "--width NUMBER ",
        "--names NAME … ", "--out FOLDER ", "--table FILE ", "--mode {fast,slow} ",
        "by default that of the data (a line",
    ):  # fmt: skip
        assert words in shown
    for words in ("STR", "FLOAT", "None", "False", "(default: )", "needed"):
        assert words not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "example needs DATASET; see example --help"),
        (["--drop"], "example needs DATASET; see example --help"),
        (["iris", "wine"], "example has no place for 'wine'; see example --help"),
        (["iris", "--raet", "3"], "example has no option --raet; did you mean --rate?"),
        (["iris", "--nmaes=3"], "example has no option --nmaes; did you mean --names?"),
        (["iris", "--quux"], "example has no option --quux; see example --help"),
        (["iris", "-q"], "example has no option -q; see example --help"),
        (["iris", "--rate", "fast"], "--rate: expected a number, got 'fast'"),
        (["iris", "--width", "1.5"], "--width: expected a whole number, got '1.5'"),
        (["iris", "--rate"], "--rate needs a value, NUMBER"),
        (["iris", "--names"], "--names: expected at least one value"),
        (["iris", "--mode", "x"], "--mode must be one of fast, slow, got 'x'"),
    ],
)
def test_what_cannot_be_used_gets_one_sentence_and_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        example(*arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_the_closest_word_is_named_or_none():
    assert closest("--sed", ["--seed", "--out"]) == "; did you mean --seed?"
    assert closest("--from", ["--drop", "--out"]) == ""
