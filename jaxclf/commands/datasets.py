"""The commands that list and prepare datasets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxclf.commands.command_line import wrapped
from jaxclf.commands.console import input_errors
from jaxclf.data import load_dataset
from jaxclf.data.readers import EMBEDDED, KINDS
from jaxclf.data.tfds_source import prepare_tfds


@dataclass(frozen=True)
class Prepare:
    """Prepare tfds:mnist, tfds:fashion_mnist or tfds:kmnist, without TensorFlow."""

    dataset: str
    """Dataset, as tfds:NAME."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Folder with the four IDX files; downloaded if not given."""
    data_dir: Path | None = None
    """Folder of TensorFlow Datasets, if not its default."""

    def run(self) -> None:
        with input_errors():
            kind, _, name = self.dataset.partition(":")
            if kind != "tfds" or not name:
                raise ValueError(f"dataset must be tfds:NAME, got {self.dataset!r}")
            folder = prepare_tfds(name, self.source, self.data_dir)
            data = load_dataset(self.dataset, data_dir=self.data_dir)
        print(f"{len(data.labels)} rows in {folder}")


@dataclass(frozen=True)
class List:
    """List the datasets that come with the package, and the kinds of files that are read."""

    def run(self) -> None:
        for name, about in [*sorted(EMBEDDED.items()), *KINDS.items()]:
            print(wrapped(f"{name:<17} {about}", indent=18))
