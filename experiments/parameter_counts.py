"""How many numbers does a classifier have?

Answer: a linear classifier has K (d + 1) numbers, 90003 for a colour picture of 100 × 100 and 3
classes; every model of the library has as many as its formula says. Momentum doubles that, Adam
triples it.

Question: what does each model of the library keep, from how many inputs to how many classes, and
what does its optimizer keep beside it?

Procedure: every model is traced at several sizes and the entries of its parameters are counted,
then those of the state of optax's optimizers.

Expected: a linear model has K (d + 1) parameters, d inputs and an intercept for each of K classes:
30000 inputs, a picture of 100 × 100 in three colours, and 3 classes make 90003; a single logit has
d + 1. An MLP has Σ (wᵢ + 1) wᵢ₊₁ over its widths. The convolutional network has (25 c + 1) 16 + (25
· 16 + 1) 32 in its convolutions and (32 ⌈h/4⌉ ⌈w/4⌉ + 1) 128 + 129 K after them. Momentum keeps one
more number for each parameter, Adam two and a count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import optax

from experiments import cli, study
from experiments.study import Claim, Found
from jaxclf.models import linear
from jaxclf.models.classifier import Architecture, make_model
from jaxclf.reports import plots
from jaxclf.reports.report import Figure, Section, Table

SIZES = {
    "iris": ((4,), 3),
    "digits": ((8, 8), 10),
    "MNIST": ((28, 28), 10),
    "CIFAR-10": ((32, 32, 3), 10),
    "100 × 100 in colour": ((100, 100, 3), 3),
}
LARGE = {"1024 features, 1000 classes": ((1024,), 1000)}
MODELS = {"linear": (), "mlp": (256,), "convnet": (128,)}
"""The models, with the widths of their hidden dense layers."""
OPTIMIZERS = {
    "SGD": (optax.sgd(0.1), lambda n: 0),
    "momentum": (optax.sgd(0.1, momentum=0.9), lambda n: n),
    "Adam": (optax.adam(0.1), lambda n: 2 * n + 1),
}


@dataclass(frozen=True)
class Config(study.Options):
    """Counts of parameters of every model, beside their formulas."""

    out: Path = Path("results/parameter_counts")
    """Folder for metrics.json, the figures and report.html."""


def params_of(architecture: Architecture, key):
    """The parameters of a new model."""
    return make_model(architecture, key).params


def counted(tree) -> int:
    """The number of entries of all leaves."""
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree))


def dense(widths) -> int:
    """The parameters of dense layers, ``Σ (wᵢ + 1) wᵢ₊₁``."""
    return sum((a + 1) * b for a, b in pairwise(widths))


def expected(name: str, shape: tuple[int, ...], num_classes: int) -> int:
    """The number of parameters by the formulas of the module's docstring."""
    if name != "convnet":
        return dense([math.prod(shape), *MODELS[name], num_classes])
    height, width, colours = (*shape, 1)[:3]
    pixels = math.ceil(height / 4) * math.ceil(width / 4)
    convolutions = dense([25 * colours, 16]) + dense([25 * 16, 32])
    return convolutions + dense([32 * pixels, *MODELS[name], num_classes])


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    key = jax.random.key(config.seed)
    sizes = SIZES if config.quick else SIZES | LARGE
    found = []
    for data, (shape, num_classes) in sizes.items():
        advance(data)
        single = counted(jax.eval_shape(partial(linear.init, num_features=math.prod(shape)), key))
        found.append([data, "linear, one logit", single, math.prod(shape) + 1])
        for name, hidden in MODELS.items():
            if name == "convnet" and len(shape) == 1:
                continue  # it needs pictures
            architecture = Architecture(name, shape, num_classes, hidden)
            params = jax.eval_shape(partial(params_of, architecture), key)
            found.append([data, name, counted(params), expected(name, shape, num_classes)])
    advance("optimizers")
    params = linear.init(key, 30000, 3)
    states = {
        name: (counted(jax.eval_shape(f.init, params)), formula(90003))
        for name, (f, formula) in OPTIMIZERS.items()
    }
    of_picture = counted(params)
    wrong = [row for row in found if row[2] != row[3]]
    claims = [
        Claim(
            "30000 inputs and 3 classes",
            "one row of weights and one intercept for each class",
            "K (d + 1)",
            "90003",
            f"{of_picture}",
            of_picture == 90003,
        ),
        Claim(
            "every model of the library has as many parameters as its formula says",
            "formulas above",
            "Σ over layers of (inputs + 1) · outputs",
            f"{len(found)} of {len(found)}",
            f"{len(found) - len(wrong)} of {len(found)}",
            not wrong,
        ),
        Claim(
            "what optimizers keep beside 90003 parameters",
            "Kingma and Ba (2015) for Adam",
            "0, N, 2 N + 1",
            ", ".join(f"{name} {formula}" for name, (_, formula) in states.items()),
            ", ".join(f"{name} {count}" for name, (count, _) in states.items()),
            all(count == formula for count, formula in states.values()),
        ),
    ]
    table = Table(
        ["data", "model", "parameters", "formula", "megabytes in float32"],
        [
            [data, name, f"{count}", f"{formula}", f"{4e-6 * count:.3g}"]
            for data, name, count, formula in found
        ],
    )
    figure = draw(found, folder / "parameter_counts.png")
    numbers = {
        "models": [
            dict(zip(("data", "model", "parameters", "formula"), row, strict=True)) for row in found
        ],
        "optimizers": {name: count for name, (count, _) in states.items()},
    }
    return Found(claims, [Section("Every model, several sizes", [], table, [figure])], numbers)


def draw(found: list, path: Path) -> Figure:
    """Counts on a logarithmic axis, grouped by data."""
    data = list(dict.fromkeys(row[0] for row in found))
    models = list(dict.fromkeys(row[1] for row in found))
    colors = (plots.SKY, plots.BLUE, plots.ORANGE, plots.GREEN)
    with plots.figure(path, size=(8, 4)) as (_, ax):
        for i, (name, color) in enumerate(zip(models, colors, strict=True)):
            here = [(data.index(row[0]), row[2]) for row in found if row[1] == name]
            ax.bar(
                [x + 0.2 * (i - 1.5) for x, _ in here],
                [count for _, count in here],
                0.2,
                color=color,
                label=name,
            )
        ax.set_yscale("log")
        ax.set_xticks(range(len(data)), [name.replace(", ", ",\n") for name in data], fontsize=8)
        ax.set_ylabel("parameters")
        ax.legend(fontsize=8)
    return Figure(path, "An MLP with 256 hidden units, a convolutional network with 128.")


STUDY = study.Study("parameter_counts", "Counting parameters", __doc__, Config, measure)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "parameter_counts"))
