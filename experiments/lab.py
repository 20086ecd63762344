"""All that the project knows about convexity, run anew: every experiment, one report.

A verdict table comes first: each claim with its source, its formula, what is expected, what was
measured, and whether they agree. The report is one file that opens offline; beside it lie the
figures, the witnesses, which `experiments.verify_witness` replays, and all numbers as JSON.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from experiments import cli, study

NAMES = (
    "verdicts",
    "convexity",
    "local_minima",
    "landscapes",
    "square_loss_can_win",
    "batch_noise_and_convexity",
    "brier_by_classes",
    "saturation",
    "separable",
)
"""In the order of the report; the short ones last, so that no process waits long for another."""
TITLE = "The convexity laboratory"


@dataclass(frozen=True)
class Config(study.Options):
    """Run every experiment about convexity and write one report with all verdicts."""

    only: tuple[str, ...] = NAMES
    """Which of them."""
    processes: int = 2
    """How many run at once; 1 where they share an accelerator."""
    out: Path = Path("results/lab")
    """Folder for report.html, metrics.json, the figures and the witnesses."""


def run(config: Config) -> None:
    """The whole laboratory."""
    with cli.input_errors():
        for name in config.only:
            if name not in NAMES:
                raise ValueError(f"only must be among {', '.join(NAMES)}; got {name!r}")
        if not config.only:
            raise ValueError("only needs at least one name")
        if config.processes < 1:
            raise ValueError(f"processes must be at least 1, got {config.processes}")
    studies = [study.named(name) for name in config.only]
    configs = [
        one.config(seed=config.seed, platform=config.platform, quick=config.quick, out=config.out)
        for one in studies
    ]
    study.run_all(studies, configs, TITLE, min(config.processes, os.cpu_count() or 1))


if __name__ == "__main__":
    run(cli.parse(Config, "lab"))
