"""Every experiment with a report of its own, and one page that leads to them.

First the tour from a step function to softmax regression, one small experiment per idea, then the
laboratory on convexity. The index shows for each its question, its answer, its first figure, and
how many of its measurements agree with what was expected. An experiment that has ended keeps its
report, whatever becomes of the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments import chapters, cli, lab, study
from jaxclf.files import atomic_folder
from jaxclf.reports.report import Figure, Link, Section, Table, write_report

NAMES = (*chapters.TOUR, *chapters.LABORATORY)
TITLE = "From a step to softmax, and why log loss"


@dataclass(frozen=True)
class Config(study.Options):
    """Run the tour and the laboratory; write an index page that links every report."""

    only: tuple[str, ...] = NAMES
    """Experiments to run."""
    processes: int = 2
    """Experiments that run at once; 1 where they share an accelerator."""
    out: Path = Path("results/tour")
    """Folder for index.html; each experiment's report is in a folder of its own in it."""


class Visited(NamedTuple):
    """The facts of an experiment for the index."""

    claims: list[study.Claim]
    seconds: float
    figure: Figure | None


def run(config: Config) -> None:
    """Runs the whole tour."""
    began = time.perf_counter()
    with ExitStack() as stack:
        with cli.input_errors():
            lab.check(config, NAMES)
            studies = [study.named(name) for name in config.only]
            configs = [lab.configured(one, config, config.out / one.name) for one in studies]
            study.check(studies, configs)
            folder = stack.enter_context(atomic_folder(config.out))
        # The list is taken from its end, because the laboratory has the longest studies.
        done = study.each(
            visited, studies[::-1], configs[::-1], min(config.processes, os.cpu_count() or 1)
        )
        facts = study.run_facts(config, time.perf_counter() - began)
        claims = [claim for one in done.values() for claim in one.claims]
        sections = index(studies, done)
        write_report(folder / "index.html", TITLE, sections, study.footer(facts))
    for one in studies:
        for claim in done[one.name].claims:
            if not claim.agree:
                print(f"{one.name}: {claim.claim}: expected {claim.expected}, {claim.measured}")
    print(f"{study.agreement(claims)}; {facts['seconds']} s; read {config.out}/index.html")
    study.fail_unless_all_agree(claims)


def visited(one: study.Study, config: Any, advance: Callable[[str], None]) -> Visited:
    """Runs one experiment, with its report in its folder."""
    began = time.perf_counter()
    with atomic_folder(config.out) as folder:
        found = study.reported(one, config, advance, folder)
    figures = [figure for section in found.sections for figure in section.figures]
    first = figures[0]._replace(path=config.out / figures[0].path.name) if figures else None
    return Visited(list(found.claims), time.perf_counter() - began, first)


def index(studies: list[study.Study], done: dict[str, Visited]) -> list[Section]:
    """A table of all experiments, then a part on each."""
    said = study.agreement([claim for one in done.values() for claim in one.claims])
    links = {one.name: Link(one.title, f"{one.name}/report.html") for one in studies}
    agreed = {
        name: f"{sum(claim.agree for claim in one.claims)} of {len(one.claims)}"
        for name, one in done.items()
    }
    table = Table(
        ["experiment", "question", "agree", "seconds"],
        [
            [links[one.name], chapters.question(one.name), agreed[one.name],
             f"{done[one.name].seconds:.0f}"]
            for one in studies
        ],
    )  # fmt: skip
    parts = [
        Section(
            links[one.name],
            [chapters.question(one.name), study.answer_of(one, done[one.name].claims),
             f"{agreed[one.name]} measurements agree."],
            None,
            [done[one.name].figure] if done[one.name].figure else [],
        )
        for one in studies
    ]  # fmt: skip
    return [Section("All experiments", [f"{said}."], table), *parts]


if __name__ == "__main__":
    run(cli.parse(Config, "tour"))
