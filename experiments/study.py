"""What the experiments share: options, claims beside measurements, and one way to write them down.

An experiment is a :class:`Study`: a function that measures, and the text that says what was asked,
how it was done and what is expected. ``python -m experiments.NAME`` runs one, and
``python -m experiments.lab`` those about convexity into one report.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table as TerminalTable

from experiments import cli
from jaxclf.report import Section, Table, staged_folder, write_json, write_report


@dataclass(frozen=True)
class Options:
    """Of every experiment."""

    seed: int = 0
    """Of everything that is drawn."""
    platform: str | None = None
    """cpu, gpu or tpu; JAX's own choice if not given."""
    quick: bool = False
    """Less of everything; the same claims."""


class Claim(NamedTuple):
    """A statement, what it follows from, and what was measured."""

    claim: str
    source: str
    formula: str
    expected: str
    measured: str
    agree: bool


class Found(NamedTuple):
    """What an experiment gives."""

    claims: Sequence[Claim]
    sections: Sequence[Section]
    """Tables and figures beside the claims; the figures are in the folder it was given."""
    numbers: dict[str, Any]
    """All that was measured, fit for JSON."""


Measure = Callable[[Any, Path, Callable[[str], None]], Found]
"""``(config, folder, advance) -> Found``; ``advance(what)`` is called before each part."""


class Study(NamedTuple):
    """An experiment."""

    name: str
    title: str
    text: str
    """Paragraphs: the question, the procedure, what is expected, sources."""
    measure: Measure
    check: Callable[[Any], None] = lambda config: None
    """Raises ValueError for options that it cannot use, before any work."""


def claims_table(claims: Sequence[Claim]) -> Table:
    """The verdicts as text."""
    header = ["claim", "source", "formula", "expected", "measured", "agree"]
    return Table(header, [[*claim[:5], "yes" if claim.agree else "NO"] for claim in claims])


def sections_of(study: Study, found: Found) -> list[Section]:
    """The report's part on one study."""
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(study.text).split("\n\n")]
    verdicts = Section(study.title, paragraphs, claims_table(found.claims))
    return [verdicts, *found.sections]


def show(title: str, claims: Sequence[Claim]) -> None:
    """Prints the verdicts."""
    table = TerminalTable(title=title, title_justify="left", show_lines=True)
    for name in ("claim", "expected", "measured", "agree"):
        table.add_column(name, overflow="fold")
    for one in claims:
        table.add_row(one.claim, one.expected, one.measured, "yes" if one.agree else "[red]NO[/]")
    Console().print(table)


def run(study: Study, config: Any) -> None:
    """One study from the command line; options that it cannot use end it with one line, status 2.

    ``config`` is an :class:`Options` with the folder ``out``.
    """
    run_all([study], config, study.title, lambda study: config)


def run_all(
    studies: Sequence[Study], config: Any, title: str, config_of: Callable[[Study], Any]
) -> None:
    """Studies one after another, into one report with all verdicts at its head."""
    began, seconds, found = time.perf_counter(), {}, {}
    with ExitStack() as stack:
        with cli.input_errors():
            device = cli.choose_device(config.platform)
            stack.enter_context(jax.default_device(device))
            cli.check_seed(config.seed)
            for study in studies:
                study.check(config_of(study))
            folder = stack.enter_context(staged_folder(config.out))
        with cli.progress_bar() as bar:
            for study in studies:
                task = bar.add_task(study.name, total=None)
                started = time.perf_counter()
                found[study.name] = study.measure(
                    config_of(study),
                    folder,
                    lambda what, n=study.name, t=task: bar.update(t, description=f"{n}: {what}"),
                )
                seconds[study.name] = round(time.perf_counter() - started, 1)
                bar.update(task, total=1, completed=1, description=f"{study.name}: done")
        facts = {"seed": config.seed, "quick": config.quick}
        facts |= {"seconds": round(time.perf_counter() - began, 1), **cli.environment(device)}
        content = {
            name: {
                "claims": [c._asdict() | {"agree": bool(c.agree)} for c in one.claims],
                **one.numbers,
            }
            for name, one in found.items()
        }
        write_json(folder / "metrics.json", {"run": facts, "seconds": seconds, "found": content})
        sections = [part for study in studies for part in sections_of(study, found[study.name])]
        if len(studies) > 1:
            together = [claim for one in found.values() for claim in one.claims]
            agreed = sum(claim.agree for claim in together)
            text = f"{agreed} of {len(together)} measurements agree with what was expected."
            sections.insert(0, Section("All verdicts", [text], claims_table(together)))
        footer = ", ".join(f"{key} {value}" for key, value in facts.items())
        write_report(folder / "report.html", title, sections, footer)
    for study in studies:
        show(study.title, found[study.name].claims)
    print(f"{facts['seconds']} s on {facts['device']}; read {config.out}/report.html")
