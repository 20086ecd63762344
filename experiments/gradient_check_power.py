"""How often does a gradient check miss a wrong gradient, and how often does it reject a right one?

Hypothesis: comparing in float64 along well-chosen directions separates an error of 0.1 % of the
gradient's norm from float32 rounding without exception, where element-wise float32 differences with
fixed tolerances do both kinds of mistake.

Procedure: ten functions, each with data drawn afresh per trial, get a custom reverse-mode rule that
adds ``size · ‖g‖`` times a unit error vector to the gradient (none for the control). The error
vectors are those of real mistakes: a wrong factor, one coordinate, one class, a shifted index, a
dropped term. Each checker sees the same float32 functions at its default settings.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.test_util import check_grads
from rich.console import Console
from rich.table import Table as TerminalTable

from experiments import cli
from experiments.wrong_gradients import ERRORS, FAMILIES, draw_case, with_added_error
from jaxclf.analysis.gradcheck import check_gradients
from jaxclf.files import atomic_folder, write_json
from jaxclf.reports.plots import BLACK, BLUE, GREEN, ORANGE, figure

SIZES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
GOAL = 1e-3


@dataclass(frozen=True)
class Config:
    """Detection power and false alarms of gradient checks in float32."""

    platform: str | None = None
    """cpu, gpu or tpu; JAX's own choice if not given."""
    seed: int = 0
    """Seed of data and errors."""
    trials: int = 1000
    """Wrong gradients at 0.1 %, and as many right ones."""
    out: Path = Path("results/gradient_check_power")
    """Folder for results.json and the figure."""
    quick: bool = False
    """60 trials instead of ``trials``."""


def by_jaxclf(fn: Callable, args: tuple, seed: int) -> bool:
    """Whether :func:`jaxclf.check_gradients` accepts."""
    return bool(check_gradients(fn, args, argnums=0, seed=seed))


def by_jax(fn: Callable, args: tuple, seed: int) -> bool:
    """Whether ``jax.test_util.check_grads`` accepts, reverse mode, its own tolerances and seed."""
    del seed
    w, *rest = args
    try:
        check_grads(lambda v: fn(v, *rest), (w,), order=1, modes=["rev"])
    except AssertionError:
        return False
    return True


def by_torch(fn: Callable, args: tuple, seed: int) -> bool:
    """Whether ``torch.autograd.gradcheck`` accepts the float64 function, in its fast mode."""
    import torch

    w, *rest = args

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(context, v):
            with jax.enable_x64(True):
                value, gradient = _value_and_grad(fn)(v.detach().numpy(), *rest)
            context.gradient = torch.from_numpy(np.array(gradient))
            return torch.tensor(float(value), dtype=torch.float64)

        @staticmethod
        def backward(context, cotangent):
            return cotangent * context.gradient

    torch.manual_seed(seed)
    point = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.autograd.gradcheck(
            Function.apply, (point,), raise_exception=False, fast_mode=True
        )


@lru_cache
def _value_and_grad(fn):
    return jax.jit(jax.value_and_grad(fn))


def available_checkers() -> dict[str, Callable]:
    """Checker name -> ``(fn, args, seed) -> accepted``; torch only where it is installed."""
    checkers = {"jaxclf": by_jaxclf, "jax.test_util": by_jax}
    try:
        import torch  # noqa: F401
    except ImportError:
        return checkers
    return checkers | {"torch (float64, fast mode)": by_torch}


class Count(NamedTuple):
    """The trials, and the number of them that the checker accepted."""

    trials: int
    accepted: int
    seconds: tuple[float, ...]
    """The seconds of each check; the first check of a family compiles."""


def count(
    checker: Callable, size: float, trials: int, seed: int, advance: Callable[[], Any]
) -> dict[str, Count]:
    """Runs a checker over families and errors in turn, and counts what it accepts per family."""
    totals = {family.name: [0, 0, ()] for family in FAMILIES}
    kinds = list(ERRORS)
    for trial in range(trials):
        family = FAMILIES[trial % len(FAMILIES)]
        error = kinds[trial // len(FAMILIES) % len(kinds)]
        rng = np.random.default_rng([seed, trial])
        args = draw_case(family, error, size, rng)
        began = time.perf_counter()
        accepted = checker(with_added_error(family.fn), args, trial)
        total = totals[family.name]
        total[0] += 1
        total[1] += accepted
        total[2] += (time.perf_counter() - began,)
        advance()
    return {name: Count(*total) for name, total in totals.items()}


def draw_figure(path: Path, power: dict[str, list[float]], alarms: dict[str, float]) -> None:
    """Share of wrong gradients caught, against the size of the error."""
    colours = dict(zip(power, (BLUE, ORANGE, GREEN), strict=False))
    with figure(path) as (_, axes):
        for name, caught in power.items():
            label = f"{name} (rejects {alarms[name]:.1%} of right gradients)"
            axes.plot(SIZES, caught, "o-", color=colours[name], label=label)
        axes.axvline(GOAL, color=BLACK, lw=0.8, ls="--", label="0.1 %")
        axes.set_xscale("log")
        axes.set_ylim(-0.03, 1.03)
        axes.set(
            title="Wrong float32 gradients caught, at each checker's own settings",
            xlabel="size of the error (share of the gradient's norm)",
            ylabel="share of wrong gradients caught",
        )
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), fontsize=9)


def show(results: dict) -> None:
    """Prints misses, false alarms and cost per checker, and our misses per family if any."""
    terminal = TerminalTable(title="Gradient checks in float32", title_justify="left")
    for column in (
        "checker",
        "wrong by 0.1 %, accepted",
        "right, rejected",
        "median seconds",
    ):
        terminal.add_column(column)
    for name, row in results["checkers"].items():
        terminal.add_row(
            name,
            f"{row['missed']} of {row['trials']}",
            f"{row['false_alarms']} of {row['trials']}",
            f"{row['seconds_per_check']:.3f}",
        )
    Console().print(terminal)


def measure(checkers: dict, trials: int, seed: int, advance: Callable[[str], None]) -> dict:
    """Misses, false alarms, cost and power curve of every checker."""
    results = {}
    for name, checker in checkers.items():
        wrong = count(checker, GOAL, trials, seed, lambda n=name: advance(f"{n}: wrong by 0.1 %"))
        right = count(checker, 0.0, trials, seed + 1, lambda n=name: advance(f"{n}: right"))
        curve = []
        for size in SIZES:
            few = count(
                checker, size, trials // 10, seed + 2, lambda n=name: advance(f"{n}: power curve")
            )
            curve.append(1 - sum(c.accepted for c in few.values()) / (trials // 10))
        both = [*wrong.values(), *right.values()]
        results[name] = {
            "trials": trials,
            "missed": sum(c.accepted for c in wrong.values()),
            "false_alarms": sum(c.trials - c.accepted for c in right.values()),
            "missed_by_family": {family: c.accepted for family, c in wrong.items()},
            "false_alarms_by_family": {f: c.trials - c.accepted for f, c in right.items()},
            "seconds_per_check": float(np.median([s for c in both for s in c.seconds])),
            "power": curve,
        }
    return results


def run(config: Config) -> None:
    """Runs the experiment; input that cannot be used ends it with one line and status 2."""
    trials = 60 if config.quick else config.trials
    with ExitStack() as stack:
        with cli.input_errors():
            device = cli.choose_device(config.platform)
            stack.enter_context(jax.default_device(device))
            cli.check_seed(config.seed)
            if trials < 50:
                raise ValueError(f"trials must be at least 50, got {trials}")
            folder = stack.enter_context(atomic_folder(config.out))
        checkers = available_checkers()
        total = len(checkers) * (2 * trials + len(SIZES) * (trials // 10))
        with cli.progress_bar() as bar:
            task = bar.add_task("", total=total)
            advance = lambda what: bar.update(task, advance=1, description=what)  # noqa: E731
            measured = measure(checkers, trials, config.seed, advance)
        results = {
            "run": {"seed": config.seed, "trials": trials} | cli.environment(device),
            "families": [family.name for family in FAMILIES],
            "errors": list(ERRORS),
            "sizes": list(SIZES),
            "checkers": measured,
        }
        write_json(folder / "results.json", results)
        draw_figure(
            folder / "power.png",
            {name: row["power"] for name, row in measured.items()},
            {name: row["false_alarms"] / row["trials"] for name, row in measured.items()},
        )
    show(results)


if __name__ == "__main__":
    run(cli.parse(Config, "gradient_check_power"))
