"""Is squared error or log loss convex in the weights of a linear classifier, on real data?

Answer: log loss is convex in the weights of a linear classifier. Squared error on the probability
is not: wrong and confident predictions sit on plateaus that bend down. Squared error on the raw
logits is convex again, so the link function inside the square is to blame, not the square.

Question: the main experiment, `python -m experiments.convexity`, as claims: log loss, squared error
on the probability, and squared error on the raw logits.

Procedure: exact Hessians of the risk at random weights and where descent on the smallest eigenvalue
leads, midpoints of random segments, and a slice through the most negative curvature, whose witness
is replayed by a program of mpmath and NumPy alone.

Expected: every eigenvalue lies between l λmax(XᵀX/n), or 0 if l is positive, and u λmax(XᵀX/n), l
and u the extremes of the curvature in the logits; l is 0 for log loss, positive for the raw square
and negative for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from experiments import study
from experiments.convexity import measure as measuring
from experiments.convexity import page
from experiments.convexity.__main__ import size_for
from experiments.convexity.results import Results, as_json, measure_dataset
from experiments.convexity.witness_file import write_witness
from experiments.study import Claim, Found
from experiments.verify_witness import verify
from jaxclf.data import load_dataset
from jaxclf.reports.report import Section


@dataclass(frozen=True)
class Config(study.Options):
    """The main experiment as a part of the lab."""

    dataset: tuple[str, ...] = ("breast_cancer", "digits")
    """One or more of breast_cancer, digits, iris, wine."""
    out: Path = Path("results/convexity")
    """Folder for the figures and witnesses."""


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    names = config.dataset[:1] if config.quick else config.dataset
    found, claims = {}, []
    with jax.enable_x64(True):
        for name in names:
            problem = measuring.prepare(load_dataset(name, dtype=np.float64))
            size = size_for(problem.dataset.num_classes, config.quick)
            found[name] = measure_dataset(problem, size, config.seed, advance)
            advance(f"{name}: replaying the witness")
            replayed = verify(write_witness(found[name], folder))
            claims += claims_of(name, found[name], replayed)
    # The first part of the page is the answer, which the text of the study says too.
    answer, *parts = page.sections(found, folder)
    curvature = Section("Curvature in the logit", (), None, answer.figures)
    numbers = {name: as_json(one) for name, one in found.items()}
    return Found(claims, [curvature, *parts], numbers)


def claims_of(name: str, results: Results, replayed) -> list[Claim]:
    """The claims of the formulas about one dataset, with the measurements."""
    claims = []
    scale = results.problem.scale
    for arm in measuring.arms(results.problem.dataset.num_classes):
        bounds, spectrum = results.bounds[arm.key], results.spectra[arm.key]
        low, high = min(0, bounds.lower) * scale, bounds.upper * scale
        smallest, largest = float(spectrum.smallest.min()), float(spectrum.largest.max())
        broken = float(results.violations[arm.key].max())
        room = spectrum.rounding
        inside = low - room <= smallest and largest <= high + room
        count = f"{spectrum.num_negative} of {spectrum.smallest.size} weights with a negative one"
        as_said = (spectrum.num_negative == 0 and broken == 0) if bounds.convex else smallest < 0
        claims.append(
            Claim(
                f"{name}: eigenvalues of {arm.title}",
                bounds.proof,
                bounds.formula,
                f"in [{low:.3g}, {high:.3g}], {'none' if bounds.convex else 'some'} negative",
                f"[{study.zero_within(smallest, room)}, {largest:.3g}], {count}, "
                f"{broken:.0%} of midpoints broken",
                bool(inside and as_said),
            )
        )
    low, high = replayed.curvature
    claims.append(
        Claim(
            f"{name}: the witness against squared error on the probability",
            "interval arithmetic, without JAX",
            "vᵀ ∇²F v < 0, F(w) > (F(w - tv) + F(w + tv))/2",
            "refutes convexity",
            f"curvature {low:.3g}, known within {study.off(high - low)}; excess at least "
            f"{replayed.excess[0]:.3g}",
            high < 0 < replayed.excess[0],
        )
    )
    return claims


STUDY = study.Study("convexity", "Convexity of three losses on real data", __doc__, Config, measure)
