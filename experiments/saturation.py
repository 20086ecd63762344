"""How long does a wrong and confident prediction hold up training?

Answer: under squared error the time to leave a wrong output grows exponentially in its log-odds,
under log loss linearly, as the closed forms say.

Question: under squared error a saturated wrong output should learn exponentially slowly in its
logit, under log loss in a time linear in it. The loss curves of textbooks that are flat at first
and then fall are the first case.

Procedure: gradient descent with a small step on the logit of one neuron, and on the logits of
softmax regression whose wrong classes are all alike, from where the right class has log-odds -a
against each other class, until its probability s is one half. Steps times their size are the time,
beside that of gradient flow, z′ = -dℓ/dz, in closed form. Then one neuron of one input, weight and
bias as in Nielsen, Neural Networks and Deep Learning (2015), chapter 3.

Expected: the time is c [A(s)] from the start to the end, with z = log(s / (1 - s)). Log loss: A = z
+ exp(z), c = 1 for a neuron and (K - 1)/K for K classes. Squared error: A = -1/s + 3 z + 2/(1 - s)
+ 1/(2 (1 - s)²), the integral of 1/(s² (1 - s)³), c = 1/2 for a neuron and half of ((K - 1)/K)².
Far out they grow like a and like exp(a).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli, study
from experiments.study import Claim, Found
from jaxclf import losses
from jaxclf.activations import sigmoid, softmax
from jaxclf.reports import plots
from jaxclf.reports.numbers import shown
from jaxclf.reports.report import Figure, Section

STEP = 0.05
CLASSES = (3, 10)
NIELSEN = {(0.6, 0.9): 0.09, (2.0, 2.0): 0.20}
"""Weight and bias at the start, with the output after 300 steps of 0.15 that the book reports."""


@dataclass(frozen=True)
class Config(study.Options):
    """Times to leave a wrong and saturated output, beside their closed forms."""

    out: Path = Path("results/saturation")
    """Folder for metrics.json, the figures and report.html."""


def elapsed(squared: bool, num_classes: int | None, a: float) -> float:
    """The time of gradient flow from log-odds -a to a probability of one half."""
    others = 1 if num_classes is None else num_classes - 1
    start = 1 / (1 + others * np.exp(a))
    share = 1 if num_classes is None else others / (others + 1)

    def primitive(s: float) -> float:
        z = np.log(s / (1 - s))
        if not squared:
            return share * (z + np.exp(z))
        return share**2 / 2 * (-1 / s + 3 * z + 2 / (1 - s) + 0.5 / (1 - s) ** 2)

    return float(primitive(0.5) - primitive(start))


@partial(jax.jit, static_argnums=(0, 1))
def steps_to_half(loss: Callable, probability: Callable, label, start) -> jax.Array:
    """Steps of gradient descent on the logits until the right class has half."""

    def step(state):
        z, count = state
        return z - STEP * jax.grad(loss)(z, label), count + 1

    return jax.lax.while_loop(lambda s: probability(s[0]) < 0.5, step, (start, 0))[1]


def measured(squared: bool, num_classes: int | None, a: float) -> float:
    """The time from log-odds -a to a half by gradient descent on the library's losses."""
    if num_classes is None:
        loss = losses.sigmoid_squared_error if squared else losses.bernoulli_nll
        return STEP * float(steps_to_half(loss, sigmoid, 1, jnp.asarray(-a)))
    loss = losses.softmax_squared_error if squared else losses.categorical_nll
    start = jnp.zeros(num_classes).at[0].set(-a)
    return STEP * float(steps_to_half(loss, _first_of_softmax, 0, start))


@partial(jax.jit, static_argnums=(0, 2))
def textbook(loss: Callable, start, num_steps: int, step_size):
    """Outputs and losses of one neuron with input 1 and target 0, ``(steps,)`` each."""

    def risk(params):
        return loss(params[0] + params[1], 0.0)

    def step(params, _):
        after = params - step_size * jax.grad(risk)(params)
        return after, (sigmoid(after[0] + after[1]), risk(after))

    return jax.lax.scan(step, start, length=num_steps)[1]


def measure(config: Config, folder: Path, advance: Callable[[str], None]) -> Found:
    reach = (2.0, 4.0, 6.0) if config.quick else (2.0, 4.0, 6.0, 8.0, 10.0)
    claims, times = [], {}
    with jax.enable_x64(True):
        for classes in (None, *CLASSES):
            for squared in (False, True):
                name = "one neuron" if classes is None else f"softmax of {classes} classes"
                name += ", squared error" if squared else ", log loss"
                advance(name)
                expected = [elapsed(squared, classes, a) for a in reach]
                found = [measured(squared, classes, a) for a in reach]
                times[name] = {"log-odds": reach, "expected": expected, "measured": found}
                off = float(np.max(np.abs(np.array(found) / expected - 1)))
                claims.append(
                    Claim(
                        f"time to leave a wrong start, {name}, a = {reach[-1]:g}",
                        "closed form above",
                        "c [A(s)]",
                        shown(expected[-1]),
                        f"{shown(found[-1])}; all within {off:.1%}",
                        off < 0.03,
                    )
                )
        advance("textbook curves")
        curves = {}
        for loss, name, size in (
            (losses.sigmoid_squared_error, "squared error", 0.075),
            (losses.bernoulli_nll, "log loss", 0.005),
        ):
            for start in NIELSEN:
                outputs, values = textbook(loss, jnp.asarray(start), 300, size)
                curves[f"{name}, w = {start[0]}, b = {start[1]}"] = np.asarray(values).tolist()
                if loss is losses.sigmoid_squared_error:
                    said = NIELSEN[start]
                    claims.append(
                        Claim(
                            f"output after 300 steps from w = {start[0]}, b = {start[1]}",
                            "Nielsen (2015), chapter 3",
                            "½ (s - y)², step 0.15",
                            f"{said:.2f}",
                            f"{float(outputs[-1]):.3g}",
                            abs(float(outputs[-1]) - said) < 0.005,
                        )
                    )
    figures = [
        draw_times(times, folder / "saturation_times.png"),
        draw_curves(curves, folder / "saturation_curves.png"),
    ]
    return Found(claims, [Section("Escape times and loss curves", [], None, figures)],
                 {"times": times, "curves": curves})  # fmt: skip


def _first_of_softmax(z):
    return softmax(z)[0]


def draw_times(times: dict, path: Path) -> Figure:
    """Time against log-odds, lines by formula and dots by descent."""
    with plots.figure(path) as (_, ax):
        for name, color in (
            ("one neuron, squared error", plots.ORANGE),
            ("softmax of 10 classes, squared error", plots.PINK),
            ("one neuron, log loss", plots.BLUE),
            ("softmax of 10 classes, log loss", plots.GREEN),
        ):
            found = times[name]
            classes = None if "neuron" in name else 10
            grid = np.linspace(0, found["log-odds"][-1], 100)
            line = [elapsed("squared" in name, classes, a) for a in grid]
            ax.semilogy(grid[1:], line[1:], color=color, label=name)
            ax.plot(found["log-odds"], found["measured"], "o", color=color, ms=5)
        ax.set(xlabel="log-odds against the right class at the start", ylabel="time to one half")
        ax.legend(fontsize=8)
    return Figure(path, "Lines: closed form of gradient flow. Dots: steps of descent times size.")


def draw_curves(curves: dict, path: Path) -> Figure:
    """The loss curves of the book, one panel per loss."""
    with plots.figure(path, columns=2, size=(9, 3.4)) as (_, axes):
        for ax, kind in zip(axes, ("squared error", "log loss"), strict=True):
            of_kind = [name for name in curves if name.startswith(kind)]
            for name, color in zip(of_kind, (plots.BLUE, plots.ORANGE), strict=True):
                ax.plot(curves[name], color=color, label=name.split(", ", 1)[1])
            ax.set(xlabel="step", ylabel=kind, ylim=(0, None))
            ax.legend()
    return Figure(
        path,
        "One neuron that should say 0, from two starts: under squared error the worse start is "
        "flat at first, under log loss it falls the faster the more wrong it is.",
    )


STUDY = study.Study("saturation", "Leaving a saturated wrong output", __doc__, Config, measure)

if __name__ == "__main__":
    study.run(STUDY, cli.parse(Config, "saturation"))
