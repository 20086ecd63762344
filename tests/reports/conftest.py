"""What a figure shows: its artists, caught when it is saved."""

from __future__ import annotations

import matplotlib.figure
import numpy as np
import pytest


@pytest.fixture
def sheets(monkeypatch) -> list[matplotlib.figure.Figure]:
    """The figures that are saved from here on."""
    found, save = [], matplotlib.figure.Figure.savefig

    def caught(figure, *arguments, **options):
        found.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", caught)
    return found


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
