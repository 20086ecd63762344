"""All that the project knows about convexity, run anew: every experiment, one report.

The answers come first, then each experiment, and last a table of all verdicts: each claim with its
source, its formula, what is expected, what was measured, and whether they agree. The report is one
file that opens offline; beside it lie the figures, the witnesses, which
`experiments.verify_witness` replays, and all numbers as JSON.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments import chapters, cli, study
from jaxclf.files import atomic_folder
from jaxclf.reports.report import Section, Table

TITLE = "The convexity laboratory"


@dataclass(frozen=True)
class Config(study.Options):
    """Run every experiment about convexity and write one report with all verdicts."""

    only: tuple[str, ...] = chapters.LABORATORY
    """Experiments to run."""
    processes: int = 2
    """Experiments that run at once; 1 where they share an accelerator."""
    out: Path = Path("results/lab")
    """Folder for report.html, metrics.json, the figures and the witnesses."""


def run(config: Config) -> None:
    """Runs the whole laboratory."""
    began = time.perf_counter()
    with ExitStack() as stack:
        with cli.input_errors():
            check(config, chapters.LABORATORY)
            studies = [study.named(name) for name in config.only]
            configs = [configured(one, config, config.out) for one in studies]
            study.check(studies, configs)
            folder = stack.enter_context(atomic_folder(config.out))
        work = partial(study.measured, folder=folder)
        done = study.each(work, studies, configs, min(config.processes, os.cpu_count() or 1))
        found = {one.name: done[one.name] for one in studies}
        claims = [claim for one in found.values() for claim in one.claims]
        said = study.agreement(claims)
        facts = study.run_facts(config, time.perf_counter() - began)
        answers = [[one.title, study.answer_of(one, found[one.name].claims)] for one in studies]
        sections = [Section("The answers", [f"{said}."], Table(["experiment", "answer"], answers))]
        for one in studies:
            sections += study.sections_of(one, found[one.name], alone=False)
        sections.append(Section("All verdicts", [], study.claims_table(claims)))
        study.write(folder, TITLE, found, sections, facts)
    for one in studies:
        study.show(one.title, found[one.name].claims)
    print(f"{said}; {facts['seconds']} s on {facts['device']}; read {config.out}/report.html")
    study.fail_unless_all_agree(claims)


def check(config, names: tuple[str, ...]) -> None:
    """Raises ValueError for studies that are not among ``names``, for none, or for no process."""
    for name in config.only:
        if name not in names:
            raise ValueError(f"only must be among {', '.join(names)}; got {name!r}")
    if not config.only:
        raise ValueError("only needs at least one name")
    if config.processes < 1:
        raise ValueError(f"processes must be at least 1, got {config.processes}")


def configured(one: study.Study, options: study.Options, out: Path):
    """The study's own config with the common options."""
    return one.config(seed=options.seed, platform=options.platform, quick=options.quick, out=out)


if __name__ == "__main__":
    run(cli.parse(Config, "lab"))
