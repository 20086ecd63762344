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
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads
from rich.console import Console
from rich.table import Table as TerminalTable

from experiments import cli
from jaxclf import losses
from jaxclf.activations import softplus
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


class Family(NamedTuple):
    """A function of one array ``w`` and data, and how to draw them."""

    name: str
    fn: Callable[..., jax.Array]
    """``(w, *data) -> ()``."""
    draw: Callable[[np.random.Generator], tuple]
    """``rng -> (w, *data)``."""


def _logistic(w, x, y):
    return jnp.mean(jax.vmap(losses.bernoulli_nll)(x @ w, y))


def _softmax(w, x, y):
    return jnp.mean(jax.vmap(losses.categorical_nll)(x @ w.T, y))


def _sigmoid_square(w, x, y):
    return jnp.mean(jax.vmap(losses.sigmoid_squared_error)(x @ w, y))


def _hinge(w, x, y):
    return jnp.mean(jax.vmap(losses.hinge)(x @ w, y))


def _network(w, x, y):
    first, second = w[:80].reshape(8, 10), w[80:].reshape(3, 8)
    return jnp.mean(jax.vmap(losses.categorical_nll)(jnp.tanh(x @ first.T) @ second.T, y))


def _log_sum_exp(w, offset):
    return jax.nn.logsumexp(w + offset)


def _cancelling(w, x, y):
    return jnp.sum((x @ w - y) ** 2) - jnp.sum((x @ w + y) ** 2)


def _rosenbrock(w):
    return jnp.sum(100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2)


def _long_sum(w, x):
    return jnp.sum(softplus(x @ w))


def _draw(n, d, labels, *, classes=None, scale=1.0, columns=None):
    """Normal features and weights; ``labels`` is ``01``, ``±1``, ``normal`` or ``classes``."""

    def draw(rng):
        x = rng.normal(size=(n, d))
        if columns is not None:
            x = x * np.geomspace(*columns, d)
        w = scale * rng.normal(size=(classes, d) if classes else d)
        y = {
            "01": lambda: rng.integers(2, size=n).astype(np.float32),
            "±1": lambda: (2 * rng.integers(2, size=n) - 1).astype(np.float32),
            "normal": lambda: rng.normal(size=n).astype(np.float32),
            "classes": lambda: rng.integers(classes or 3, size=n).astype(np.int32),
        }
        arrays = (w.astype(np.float32), x.astype(np.float32))
        return (*arrays, y[labels]()) if labels else arrays

    return draw


def _draw_network(rng):
    _, x, y = _draw(64, 10, "classes")(rng)
    return rng.normal(size=104, scale=0.5).astype(np.float32), x, y


FAMILIES = (
    Family("softmax regression", _softmax, _draw(256, 20, "classes", classes=5, scale=0.3)),
    Family("logistic, 10⁴ terms", _logistic, _draw(10_000, 20, "01", scale=0.3)),
    Family(
        "logistic, features 10⁻⁴ to 10⁴",
        _logistic,
        _draw(500, 20, "01", scale=1e-3, columns=(1e-4, 1e4)),
    ),
    Family("saturated squared error", _sigmoid_square, _draw(300, 15, "01", scale=3.0)),
    Family("hinge", _hinge, _draw(500, 20, "±1", scale=0.3)),
    Family("two-layer tanh network", _network, _draw_network),
    Family(
        "log-sum-exp of 10⁴",
        _log_sum_exp,
        lambda rng: tuple(rng.normal(size=(2, 10_000)).astype(np.float32)),
    ),
    Family("cancelling squares", _cancelling, _draw(2000, 10, "normal")),
    Family("Rosenbrock", _rosenbrock, lambda rng: (rng.normal(size=50).astype(np.float32),)),
    Family("sum of 10⁴ softplus", _long_sum, _draw(10_000, 20, None)),
)


@lru_cache
def with_added_error(fn: Callable) -> Callable:
    """``(w, error, *data) -> fn(w, *data)`` whose reverse-mode rule adds ``error``."""

    @jax.custom_vjp
    def function(w, error, *data):
        return fn(w, *data)

    def forward(w, error, *data):
        value, gradient = jax.value_and_grad(fn)(w, *data)
        return value, (gradient + error, error, data)

    def backward(kept, cotangent):
        gradient, error, data = kept
        nothing = [None if jnp.issubdtype(d.dtype, jnp.integer) else 0 * d for d in data]
        return (cotangent * gradient, 0 * error, *nothing)

    function.defvjp(forward, backward)
    return function


def _scaled(rng, gradient, _):
    return gradient


def _coordinate(rng, gradient, _):
    wrong = np.zeros_like(gradient)
    wrong.flat[rng.integers(gradient.size)] = 1.0
    return wrong


def _one_class(rng, gradient, _):
    wrong = np.zeros_like(gradient)
    # For a matrix one row is one class; for a vector a tenth of it stands for a block.
    rows = wrong if wrong.ndim == 2 else wrong.reshape(-1)[: wrong.size // 10 * 10].reshape(10, -1)
    source = gradient if wrong.ndim == 2 else gradient[: rows.size].reshape(rows.shape)
    k = rng.integers(len(rows))
    rows[k] = source[k]
    return wrong


def _shifted(rng, gradient, _):
    return np.roll(gradient, 1) - gradient


def _dropped_term(rng, gradient, term):
    return term


ERRORS = {
    "wrong factor": _scaled,
    "one coordinate": _coordinate,
    "one class": _one_class,
    "shifted index": _shifted,
    "dropped term": _dropped_term,
}


@lru_cache
def _gradients(fn):
    return jax.jit(jax.grad(fn))


def draw_case(family: Family, error: str, size: float, rng) -> tuple:
    """``(w, error vector, *data)`` of one trial, in float32; the vector has ``size · ‖g‖``."""
    w, *data = family.draw(rng)
    gradient = np.asarray(_gradients(family.fn)(w, *data), np.float64)
    vector = ERRORS[error](rng, gradient, _one_term(family.fn, w, data))
    length = np.linalg.norm(vector)
    if size == 0 or length == 0:
        return (w, np.zeros_like(w), *data)
    vector = size * np.linalg.norm(gradient) / length * vector
    return (w, vector.astype(np.float32), *data)


def _one_term(fn: Callable, w, data) -> np.ndarray:
    """The gradient of the first example that has one, which is lost if that example is left out."""
    for i in range(len(data[0]) if data and data[0].ndim == 2 else 0):
        term = np.asarray(_gradients(fn)(w, *(d[i : i + 1] for d in data)), np.float64)
        if term.any():
            return term
    return _coordinate(np.random.default_rng(0), np.asarray(w, np.float64), None)


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
