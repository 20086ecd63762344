"""Sweeps: many configurations as lanes of few programs, and one chosen honestly."""

from jaxclf.sweeps.few_shot import FewShot as FewShot
from jaxclf.sweeps.few_shot import few_shot as few_shot
from jaxclf.sweeps.labels import LabelFit as LabelFit
from jaxclf.sweeps.labels import sweep_labels as sweep_labels
from jaxclf.sweeps.run import SweepResult as SweepResult
from jaxclf.sweeps.run import sweep as sweep
