"""Sweeps: many configurations as lanes of few programs, and one chosen honestly."""

from jaxclf.sweeps.run import SweepResult as SweepResult
from jaxclf.sweeps.run import sweep as sweep
