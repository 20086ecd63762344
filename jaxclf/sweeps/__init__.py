"""Sweeps: many configurations as lanes of few programs, and one chosen honestly."""

from jaxclf.sweeps.sweep import SweepResult as SweepResult
from jaxclf.sweeps.sweep import sweep as sweep
