"""The table in the terminal and the report, for a person to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table as TerminalTable

from experiments.convexity import figures, measure
from experiments.convexity.results import Results
from experiments.study import off, zero_within
from jaxclf.reports.report import Section, Table


def table(results: Results) -> Table:
    """The measurements as text, a column per arm."""
    arms = measure.arms(results.problem.dataset.num_classes)
    scale = results.problem.scale
    keys = [arm.key for arm in arms]
    rows = [["second derivative in the logits", *(results.bounds[k].formula for k in keys)]]

    def add(title: str, cell: Callable[[str], str]) -> None:
        rows.append([title, *(cell(key) for key in keys)])

    spectra, bounds, descents = results.spectra, results.bounds, results.descents
    add("largest difference of jax.hessian from it", lambda k: off(spectra[k].formula_error))
    add(
        "smallest eigenvalue of the risk's Hessian",
        lambda k: (
            f"{zero_within(spectra[k].smallest.min(), spectra[k].rounding)} "
            f"(theory: ≥ {min(0, bounds[k].lower) * scale:.3g})"
        ),
    )
    add(
        "largest eigenvalue",
        lambda k: f"{spectra[k].largest.max():.3g} (theory: ≤ {bounds[k].upper * scale:.3g})",
    )
    add(
        "weights with a negative eigenvalue",
        lambda k: f"{spectra[k].num_negative} of {spectra[k].smallest.size}",
    )
    add(
        "segments that break midpoint convexity",
        lambda k: (
            f"{results.violations[k].mean():.1%}"
            + (f", most {results.violations[k].max():.1%}" if results.violations[k].any() else "")
        ),
    )
    needed, sufficient = results.ridge
    add(
        "ridge λ that makes it convex",
        lambda k: "none needed" if bounds[k].convex
        else f"at least {needed:.3g}; {sufficient:.3g} is enough",
    )  # fmt: skip
    steps = descents["log_loss"].values.shape[-1] - 1
    starts = " / ".join(f"{s:g}" for s in measure.START_SCALES)
    add(
        f"accuracy after {steps} gradient steps, from logits of {starts}",
        lambda k: " / ".join(f"{a:.1%}" for a in np.median(descents[k].accuracies, 1)),
    )
    add("steps to beat zero weights, from the same", lambda k: _steps(descents[k]))
    add("starts on a plateau all the way, from the same", lambda k: _shares(descents[k].stuck))
    add("verdict", lambda k: _verdict(results, k))
    return Table(["", *(arm.title for arm in arms)], rows)


def _steps(descent: measure.Descent) -> str:
    limit = descent.values.shape[-1] - 1
    return " / ".join(f"over {limit}" if np.isinf(s) else f"{s:.0f}" for s in descent.steps_to_zero)


def _shares(shares) -> str:
    return " / ".join(f"{share:.0%}" for share in shares)


def _verdict(results: Results, key: str) -> str:
    if results.bounds[key].convex:
        return f"convex, because {results.bounds[key].proof}"
    jensen = results.jensen
    mean = (jensen.at_start + jensen.at_end) / 2
    return (
        f"not convex: the risk is {jensen.at_middle:.3g} midway between two weights "
        f"where its mean is {mean:.3g}"
    )


TITLE = "Is squared error or log loss convex? Measured on real data"

METHOD = (
    "Features are standardised and a constant 1 is appended, so the intercept is one more weight "
    "(penalised like the others where a ridge is mentioned). All numbers are computed in float64.",
    "Weights are normal draws scaled so that the logits over the data have a root mean square of "
    + ", ".join(f"{s:g}" for s in measure.SAMPLE_SCALES)
    + ". The Hessian of the risk is formed exactly and its eigenvalues computed densely; an "
    "eigenvalue counts as negative below minus (number of weights) × ε × the largest eigenvalue.",
    "S = XᵀX/n. Curvature in the logits between l and u puts every eigenvalue of the risk's "
    "Hessian between min(0, l)·λmax(S) and u·λmax(S); a ridge of -l·λmax(S) therefore makes it "
    "convex. The needed ridge is the most negative eigenvalue found: the truth lies between them.",
    "Gradient descent takes steps of 1/L, L the largest curvature in the logits that is attained, "
    "times λmax(S). A start is on a plateau if it ends above the risk of zero weights, worse than "
    "a model that knows nothing, and less than a tenth below where it began.",
    "Sampling can refute convexity but never prove it: the verdict 'convex' rests on the formula, "
    "which holds for every logit, and on the logits being linear in the weights.",
)


def sections(everything: dict[str, Results], folder: Path) -> list[Section]:
    """The report's parts; draws their figures into ``folder``."""
    parts = [
        Section(
            "The answer",
            (
                "Log loss is convex in the weights of a linear classifier. Squared error on the "
                "probability is not: wrong and confident predictions sit on plateaus that bend "
                "down. Squared error on the raw logits is convex again, so the link function "
                "inside the square is to blame, not the square.",
            ),
            figures=(figures.curvature(folder),),
        )
    ]
    for name, results in everything.items():
        data = results.problem.dataset
        features = data.features.shape[1]
        about = f"{len(data.labels)} rows, {features} features, {data.num_classes} classes. "
        parts.append(
            Section(
                f"Measured on {name}",
                (about + f"Source: {data.source}.",),
                table(results),
                (
                    figures.eigenvalues(
                        folder,
                        name,
                        results.spectra,
                        results.problem.scale,
                        results.bounds["probability"].lower,
                    ),
                    figures.slice_figure(
                        folder, name, results.slices, results.witness, results.jensen
                    ),
                    figures.surface(folder, name, results.slices),
                    figures.descent(folder, name, results.descents),
                ),
            )
        )
    return [*parts, Section("How it was measured", METHOD)]


def show(console: Console, results: dict[str, Results]) -> None:
    """Prints the table of each dataset."""
    for name, result in results.items():
        content = table(result)
        terminal = TerminalTable(title=f"\n{name}", title_justify="left", show_lines=True)
        for i, cell in enumerate(content.header):
            terminal.add_column(cell, style="bold" if i == 0 else "", overflow="fold")
        for row in content.rows:
            terminal.add_row(*row)
        console.print(terminal)
