"""What the experiments share: options, claims beside measurements, and one way to write them down.

An experiment is a :class:`Study`: a function that measures, and the text that says what was asked,
how it was done and what is expected. ``python -m experiments.NAME`` runs one, and
``python -m experiments.lab`` those about convexity into one report.
"""

from __future__ import annotations

import importlib.util
import inspect
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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
    config: type
    """An :class:`Options` with the folder ``out``."""
    measure: Measure
    check: Callable[[Any], None] = lambda config: None
    """Raises ValueError for options that it cannot use, before any work."""


def named(name: str) -> Study:
    """The study of that name: of a module, or of a package's module ``study``."""
    where = f"experiments.{name}"
    if importlib.util.find_spec(where).submodule_search_locations is not None:
        where += ".study"
    return importlib.import_module(where).STUDY


def claims_table(claims: Sequence[Claim]) -> Table:
    """The verdicts as text."""
    header = ["claim", "source", "formula", "expected", "measured", "agree"]
    return Table(header, [[*claim[:5], "yes" if claim.agree else "NO"] for claim in claims])


def sections_of(study: Study, found: Found, *, verdicts: bool) -> list[Section]:
    """The report's part on one study, with or without the table of its claims."""
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(study.text).split("\n\n")]
    table = claims_table(found.claims) if verdicts else None
    return [Section(study.title, paragraphs, table), *found.sections]


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
    run_all([study], [config], study.title)


def run_all(
    studies: Sequence[Study], configs: Sequence[Any], title: str, processes: int = 1
) -> None:
    """Studies, as many at once as there are processes, into one report in the first one's folder.

    With several all verdicts are at its head.
    """
    began, found, common = time.perf_counter(), {}, configs[0]
    with ExitStack() as stack:
        with cli.input_errors():
            device = cli.choose_device(common.platform)
            cli.check_seed(common.seed)
            for study, config in zip(studies, configs, strict=True):
                study.check(config)
            folder = stack.enter_context(staged_folder(common.out))
        with cli.progress_bar() as bar:
            if processes == 1:
                for study, config in zip(studies, configs, strict=True):
                    found[study.name] = _in_turn(study, config, folder, bar)
            else:
                found = _side_by_side(studies, configs, folder, bar, processes)
        facts = {"seed": common.seed, "quick": common.quick}
        facts |= {"seconds": round(time.perf_counter() - began, 1), **cli.environment(device)}
        _write(studies, found, title, facts, folder)
    for study in studies:
        show(study.title, found[study.name].claims)
    agreed = [claim.agree for one in found.values() for claim in one.claims]
    print(f"{sum(agreed)} of {len(agreed)} measurements agree with what was expected; ", end="")
    print(f"{facts['seconds']} s on {facts['device']}; read {common.out}/report.html")


def _in_turn(study: Study, config: Any, folder: Path, bar) -> Found:
    task = bar.add_task(study.name, total=None)

    def advance(what: str) -> None:
        bar.update(task, description=f"{study.name}: {what}")

    with jax.default_device(cli.choose_device(config.platform)):
        found = study.measure(config, folder, advance)
    bar.update(task, total=1, completed=1, description=f"{study.name}: done")
    return found


def _side_by_side(studies, configs, folder: Path, bar, processes: int) -> dict[str, Found]:
    """Each in a process of its own: proofs in interval arithmetic hold Python's lock."""
    found = {}
    task = bar.add_task(f"{len(studies)} studies", total=len(studies))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {
            pool.submit(_by_name, study.name, config, folder): study.name
            for study, config in zip(studies, configs, strict=True)
        }
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            left = [name for name in futures.values() if name not in found]
            bar.update(task, advance=1, description=f"left: {', '.join(left) or 'none'}")
    return found


def _by_name(name: str, config: Any, folder: Path) -> Found:
    study = named(name)
    with jax.default_device(cli.choose_device(config.platform)):
        return study.measure(config, folder, lambda what: None)


def _write(studies, found: dict[str, Found], title: str, facts: dict, folder: Path) -> None:
    content = {
        name: {
            "claims": [claim._asdict() | {"agree": bool(claim.agree)} for claim in one.claims],
            **one.numbers,
        }
        for name, one in found.items()
    }
    write_json(folder / "metrics.json", {"run": facts, "found": content})
    alone = len(studies) == 1
    sections = [
        part for study in studies for part in sections_of(study, found[study.name], verdicts=alone)
    ]
    if not alone:
        together = [claim for study in studies for claim in found[study.name].claims]
        agreed = sum(claim.agree for claim in together)
        text = f"{agreed} of {len(together)} measurements agree with what was expected."
        sections.insert(0, Section("All verdicts", [text], claims_table(together)))
    footer = ", ".join(f"{key} {value}" for key, value in facts.items())
    write_report(folder / "report.html", title, sections, footer)
