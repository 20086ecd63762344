"""The parts that experiments share: options, claims beside measurements, and their reports.

An experiment is a :class:`Study`: a function that measures, and the text that says what was asked,
what the answer is, how it was done and what is expected. ``python -m experiments NAME`` runs one;
``lab`` gathers those about convexity in one report, and ``all`` gives each its own and an index.
"""

from __future__ import annotations

import importlib.util
import inspect
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table as TerminalTable

from experiments import cli
from experiments.endings import interrupts_for_parent
from jaxclf.files import atomic_folder, write_json
from jaxclf.reports.report import Section, Table, write_report


@dataclass(frozen=True)
class Options:
    """The options of every experiment."""

    seed: int = 0
    """Seed of everything that is drawn."""
    platform: str | None = None
    """cpu, gpu or tpu; JAX's own choice if not given."""
    quick: bool = False
    """Measure less, for the same claims; programs are optimised less."""


class Claim(NamedTuple):
    """A statement, what it follows from, and what was measured."""

    claim: str
    source: str
    formula: str
    expected: str
    measured: str
    agree: bool


class Found(NamedTuple):
    """The result of an experiment."""

    claims: Sequence[Claim]
    sections: Sequence[Section]
    """Tables and figures beside the claims; the figures are in the folder that was given."""
    numbers: dict[str, Any]
    """All measurements, fit for JSON."""


Measure = Callable[[Any, Path, Callable[[str], None]], Found]
"""``(config, folder, advance) -> Found``; ``advance(what)`` is called before each part."""


class Study(NamedTuple):
    """An experiment."""

    name: str
    title: str
    text: str
    """Paragraphs: the question in one line; then those that begin with ``Answer:``, ``Question:``,
    ``Procedure:`` and ``Expected:``. The answer is shown where every claim agrees."""
    config: type
    """An :class:`Options` with the folder ``out``."""
    measure: Measure
    check: Callable[[Any], None] = lambda config: None
    """Raises ValueError for options that it cannot use, before any work."""


_ANSWER = "Answer:"


def named(name: str) -> Study:
    """The study of an experiment's name, from its module or from its package's module ``study``."""
    where = f"experiments.{name}"
    if importlib.util.find_spec(where).submodule_search_locations is not None:
        where += ".study"
    return importlib.import_module(where).STUDY


def claims_table(claims: Sequence[Claim]) -> Table:
    """The verdicts as text."""
    header = ["claim", "source", "formula", "expected", "measured", "agree"]
    return Table(header, [[*claim[:5], "yes" if claim.agree else "NO"] for claim in claims])


def paragraphs_of(text: str) -> list[str]:
    """The paragraphs of a docstring, a line each."""
    return [" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n")]


def answer_of(study: Study, claims: Sequence[Claim]) -> str:
    """The answer of a study, or the claims that speak against it."""
    failed = [claim.claim for claim in claims if not claim.agree]
    if failed:
        return f"The measurements do not agree with what was expected: {'; '.join(failed)}."
    [answer] = [part for part in paragraphs_of(study.text) if part.startswith(_ANSWER)]
    answer = answer.removeprefix(_ANSWER).strip()
    return answer[0].upper() + answer[1:]


def sections_of(study: Study, found: Found, *, alone: bool) -> list[Section]:
    """The report's part on one study: the answer and its figure, what was measured, and how.

    Args:
      study: the study.
      found: its findings, of whose figures the first is that of the answer.
      alone: whether the report is on this study alone: then the table of its claims is in it.
    """
    question, *others = paragraphs_of(study.text)
    method = [part for part in others if not part.startswith(_ANSWER)]
    figures = [figure for section in found.sections for figure in section.figures][:1]
    answer = [answer_of(study, found.claims), f"{agreement(found.claims)}."]
    rest = [
        section._replace(figures=[one for one in section.figures if one not in figures])
        for section in found.sections
    ]
    return [
        Section(question if alone else study.title, answer if alone else [question, *answer],
                None, figures),
        *([Section("What was expected and measured", [], claims_table(found.claims))]
          if alone else []),
        *rest,
        Section("How it was measured", method),
    ]  # fmt: skip


def off(difference: float) -> str:
    """The size of a difference that is zero but for rounding."""
    size = abs(float(difference))
    return "0" if size == 0 else "< 1e-15" if size < 1e-15 else f"{size:.0e}"


def beside(value: float, reference: float) -> str:
    """A value with three digits, and how far it is from the one that it should be."""
    return f"{value:.3g}, off by {off(value - reference)}"


def zero_within(value: float, rounding: float) -> str:
    """A value with two digits, and 0 for one that its rounding error cannot tell from zero."""
    return "0" if abs(value) <= rounding else f"{value:.2g}"


def show(title: str, claims: Sequence[Claim]) -> None:
    """Prints the verdicts."""
    table = TerminalTable(title=title, title_justify="left", show_lines=True)
    for name in ("claim", "expected", "measured", "agree"):
        table.add_column(name, overflow="fold")
    for one in claims:
        table.add_row(one.claim, one.expected, one.measured, "yes" if one.agree else "[red]NO[/]")
    Console().print(table)


def agreement(claims: Sequence[Claim]) -> str:
    """The number of claims that hold, as the beginning of a sentence."""
    agreed = sum(claim.agree for claim in claims)
    return f"{agreed} of {len(claims)} measurements agree with what was expected"


def fail_unless_all_agree(claims: Sequence[Claim]) -> None:
    """Ends the program with status 1 where a measurement disagrees; the report says which one."""
    if not all(claim.agree for claim in claims):
        raise SystemExit(1)


def check(studies: Sequence[Study], configs: Sequence[Any]) -> None:
    """Raises ValueError for options that cannot be used, before any work."""
    for study, config in zip(studies, configs, strict=True):
        cli.choose_device(config.platform)
        cli.check_seed(config.seed)
        study.check(config)


def run(study: Study, config: Any) -> None:
    """Runs one study from the command line.

    Options that cannot be used end it with one line and status 2; a claim that fails ends it with
    status 1.

    ``config`` is an :class:`Options` with the folder ``out``.
    """
    with ExitStack() as stack:
        with cli.input_errors():
            check([study], [config])
            folder = stack.enter_context(atomic_folder(config.out))
        [found] = each(partial(reported, folder=folder), [study], [config]).values()
    show(study.title, found.claims)
    print(answer_of(study, found.claims))
    print(f"{agreement(found.claims)}; read {config.out}/report.html")
    fail_unless_all_agree(found.claims)


Work = Callable[[Study, Any, Callable[[str], None]], Any]
"""``(study, config, advance) -> result``."""


def measured(study: Study, config: Any, advance: Callable[[str], None], folder: Path) -> Found:
    """The findings of a study, on the device that was asked for."""
    # Most of a quick run is the compilation of programs that then run once.
    jax.config.update("jax_disable_most_optimizations", config.quick)
    with jax.default_device(cli.choose_device(config.platform)):
        return study.measure(config, folder, advance)


def reported(study: Study, config: Any, advance: Callable[[str], None], folder: Path) -> Found:
    """The findings of a study, with a report of its own in the folder."""
    began = time.perf_counter()
    found = measured(study, config, advance, folder)
    facts = run_facts(config, time.perf_counter() - began)
    write(folder, study.title, {study.name: found}, sections_of(study, found, alone=True), facts)
    return found


def less_optimised(config: Any) -> str:
    """A note on the times of a quick run."""
    return ", with programs compiled in haste (--quick)" if config.quick else ""


def run_facts(config: Any, seconds: float) -> dict:
    """The facts that belong to a measurement."""
    facts = {"seed": config.seed, "quick": config.quick, "seconds": round(seconds, 1)}
    return facts | cli.environment(cli.choose_device(config.platform))


def each(
    work: Work, studies: Sequence[Study], configs: Sequence[Any], processes: int = 1
) -> dict[str, Any]:
    """The result of ``work`` for each study by its name, as many at once as there are processes."""
    with cli.progress_bar() as bar:
        if processes > 1:
            return _side_by_side(work, studies, configs, bar, processes)
        return {
            study.name: _in_turn(work, study, config, bar)
            for study, config in zip(studies, configs, strict=True)
        }


def _in_turn(work: Work, study: Study, config: Any, bar):
    task = bar.add_task(study.name, total=None)
    done = work(study, config, lambda what: bar.update(task, description=f"{study.name}: {what}"))
    bar.update(task, total=1, completed=1, description=f"{study.name}: done")
    return done


def _side_by_side(work: Work, studies, configs, bar, processes: int) -> dict[str, Any]:
    """The results of studies that run in processes of their own.

    Proofs in interval arithmetic hold Python's lock, so threads would not run side by side.
    """
    # A process reads this when it loads NumPy. Threads of two BLAS get in each other's way: a
    # decomposition that takes 0.1 s alone takes 4 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    done, task = {}, bar.add_task(f"{len(studies)} studies", total=len(studies))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        with interrupts_for_parent():
            futures = {
                pool.submit(_by_name, work, study.name, config): study.name
                for study, config in zip(studies, configs, strict=True)
            }
        try:
            for future in as_completed(futures):
                done[futures[future]] = future.result()
                left = [name for name in futures.values() if name not in done]
                bar.update(task, advance=1, description=" and ".join(left[:processes]) or "done")
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    return done


def _by_name(work: Work, name: str, config: Any):
    return work(named(name), config, lambda what: None)


def write(
    folder: Path, title: str, found: dict[str, Found], sections: Sequence[Section], facts: dict
) -> None:
    """Writes metrics.json and report.html."""
    content = {
        name: {
            "claims": [claim._asdict() | {"agree": bool(claim.agree)} for claim in one.claims],
            **one.numbers,
        }
        for name, one in found.items()
    }
    write_json(folder / "metrics.json", {"run": facts, "found": content})
    write_report(folder / "report.html", title, sections, footer(facts))


def footer(facts: dict) -> str:
    """The facts as one line."""
    return ", ".join(f"{key} {value}" for key, value in facts.items())
