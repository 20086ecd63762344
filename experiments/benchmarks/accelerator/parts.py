"""The parts of the measurement of an accelerator, in order of worth; each yields facts one by one.

A part takes a :class:`Setting` and runs in a process of its own, so that a part that fails or takes
too long costs the others nothing. On a CPU the same parts run on smaller sizes.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import cost, machine
from experiments.benchmarks.accelerator import peaks
from experiments.benchmarks.accelerator.peaks import short
from experiments.benchmarks.works import text_like
from jaxclf import (
    Batch,
    inference,
    load_dataset,
    losses,
    make_batch,
    make_objective,
    minimize,
    penalties,
    sweep,
)
from jaxclf.data import synthetic
from jaxclf.linear_algebra import blocks
from jaxclf.linear_algebra import problem as lp
from jaxclf.models import linear
from jaxclf.penalties import strength_from_sklearn

CUML = {(1_562_500, 16): 0.018, (500_000, 128): 0.030, (244_140, 1024): 0.097}
"""Seconds that cuML's LogisticRegression takes on an RTX Pro 6000, as its authors publish them; not
measured here."""
PROBE_GAP, EXACT_GAP = 1e-4, 1e-6
_STRENGTHS = 45
_PATH = 12


class Setting(NamedTuple):
    """The setting of a part."""

    small: bool
    """Whether sizes are small, as in a dry run."""
    data: str | None
    """The images of ``mnist``, as :func:`jaxclf.load_dataset` takes them; made up if not given."""


def device(setting: Setting) -> Iterator[dict]:
    """The device and its peaks."""
    yield peaks.describe()
    yield from peaks.rates(*((512, 2**22) if setting.small else (8192, 2**31)))


def mnist(setting: Setting) -> Iterator[dict]:
    """Softmax regression of 60000 images, with C = 1 and with 45 strengths as lanes."""
    batch = _images(setting)
    n, d = batch.features.shape
    objective = _objective(losses.categorical_nll, strength_from_sklearn(1.0, n))
    for name, rows in (("host", batch), ("device", jax.device_put(batch))):
        yield _solved(f"MNIST, C = 1, from the {name}", objective, _start(d, 10), rows, EXACT_GAP)
    grid = {"l2": np.geomspace(1e-6, 1e-1, 5 if setting.small else _STRENGTHS)}
    run = lambda: sweep(grid, batch, tol=1e-4)  # noqa: E731
    first, again, found = _timed(run, repeats=1)
    statuses = [row["status"] for row in found.table]
    worst = max(row["gap_bound"] for row in found.table)
    yield {
        "work": f"MNIST, {len(statuses)} strengths", "first_seconds": first, "seconds": again,
        "converged": statuses.count("converged"), "gap_bound": short(worst),
    }  # fmt: skip


def binary(setting: Setting) -> Iterator[dict]:
    """Logistic regression of the sizes that cuML publishes, on the device."""
    for n, d in ((4000, 16),) if setting.small else CUML:
        x, y = _drawn(n, d, 2, jnp.float32)
        objective = _objective(losses.bernoulli_nll, 1 / n)
        fact = _solved(f"{n} × {d}, 2 classes", objective, _start(d), Batch(x, y), EXACT_GAP)
        yield fact | ({"cuml_published_seconds": CUML[n, d]} if (n, d) in CUML else {})


def probe(setting: Setting) -> Iterator[dict]:
    """A probe of the size of ImageNet on bfloat16 features, and a path of 12 strengths. The first
    strength of the path starts with its programs, the second compiles what goes on from a start."""
    n, d, num_classes = _probe_size(setting)
    x, y = _drawn(n, d, num_classes, jnp.bfloat16)
    name, batch = f"probe, {n} × {d}, {num_classes} classes", Batch(x, y)
    start = _start(d, num_classes)
    objective = _objective(losses.categorical_nll, 1e-4)
    yield _solved(name, objective, start, batch, PROBE_GAP, repeats=1)
    strengths = np.geomspace(1e-2, 1e-4, 3 if setting.small else _PATH)
    began, bounds, statuses = time.perf_counter(), [], []
    for strength in strengths:
        objective = _objective(losses.categorical_nll, float(strength))
        found = minimize(objective, start, batch, tol=PROBE_GAP)
        start = found.params
        bounds.append(found.gap_bound)
        statuses.append(found.status)
        so_far = short(time.perf_counter() - began)
        facts = {"gap_bound": short(max(bounds)), "converged": statuses.count("converged")}
        yield {"path": f"strength {len(bounds)}", "l2": short(strength), "seconds": so_far} | facts
    yield {"work": f"{name}, path of {len(bounds)}", "seconds": so_far} | facts


def passes(setting: Setting) -> Iterator[dict]:
    """Passes over the rows: their share of the matrix peak and of the bandwidth."""
    narrow, wide = ((2000, 128), (2000, 784)) if setting.small else ((500_000, 128), (60_000, 784))
    yield from _passes("probe", *_probe_size(setting), jnp.bfloat16)
    yield from _passes("2 classes", *narrow, 1, jnp.float32)
    yield from _passes("images", *wide, 10, jnp.float32)


def _passes(name: str, n: int, d: int, num_logits: int, dtype) -> Iterator[dict]:
    """The gradient and a product with the Hessian, in two precisions of the matrix products."""
    x, y = _drawn(n, d, max(num_logits, 2), dtype)
    loss = losses.categorical_nll if num_logits > 1 else _one_logit
    v = jax.tree.map(jnp.asarray, lp.Affine(*_start(d, num_logits)))
    with jax.enable_x64(True):
        rows = lp.Rows(x, y, jnp.full(n, 1 / n))
        z = jax.jit(lp.logits)(x, v)
        args = {
            "gradient": (blocks.evaluation_block(loss, False, True), v, None),
            "product": (blocks.product_block(loss), v, z, v),
        }
        # A CPU has only one precision.
        narrower = () if jax.default_backend() == "cpu" else ("tensorfloat32",)
        for precision in ("highest", *narrower):
            for kind, each in args.items():
                with jax.default_matmul_precision(precision):
                    seconds = machine.median_seconds(partial(blocks.reduce, rows, *each))
                size = {"num_rows": n, "num_features": d, "num_logits": num_logits}
                needed = cost.pass_cost(**size, feature_bytes=x.dtype.itemsize, kind=kind)
                yield {
                    "pass": f"{name}, {kind}, {precision}", "shape": [n, d, num_logits],
                    "seconds": short(seconds), "tflops": short(needed.flops / seconds / 1e12),
                    "gb_per_s": short(needed.read_bytes / seconds / 1e9),
                }  # fmt: skip


def estimators(setting: Setting) -> Iterator[dict]:
    """`LogisticRegression` on arrays of the host: checks, the way to the device, fit and back."""
    from jaxclf import LogisticRegression

    for n, d in ((4000, 16),) if setting.small else CUML:
        x, y = map(np.asarray, _drawn(n, d, 2, jnp.float32))
        first, again, model = _timed(lambda x=x, y=y: LogisticRegression(tol=1e-6).fit(x, y))
        yield {
            "work": f"LogisticRegression, {n} × {d} from the host", "first_seconds": first,
            "seconds": again, "status": model.result_.status,
        }  # fmt: skip


def heads(setting: Setting) -> Iterator[dict]:
    """52 heads of images as lanes of a minibatch sweep, one epoch of steps of 256 rows."""
    batch = _images(setting)
    rates = np.geomspace(1e-3, 1, 2 if setting.small else 13)
    decays = (0.0, 1e-5) if setting.small else (0.0, 1e-5, 1e-4, 1e-3)
    grid = {"learning_rate": rates, "l2": decays, "momentum": [0.9]}
    first, again, found = _timed(lambda: sweep(grid, batch, method="minibatch", epochs=1))
    yield {
        "work": f"{len(found.table)} heads, one epoch", "first_seconds": first, "seconds": again,
    }  # fmt: skip


def minibatch(setting: Setting) -> Iterator[dict]:
    """An epoch of `fit` beside a loop of torch over tensors on the same device."""
    import optax

    from jaxclf import fit

    batch, size, epochs = _images(setting), 256, 3
    objective = make_objective(linear.logits, losses.categorical_nll)
    d = batch.features.shape[1]
    resident, sgd = jax.device_put(batch), optax.sgd(0.1)

    def run():
        options = {"batch_size": size, "epochs": epochs, "key": jax.random.key(0)}
        return fit(objective, _start(d, 10), resident, optimizer=sgd, **options).params

    first, again, _ = _timed(run)
    yield {
        "work": f"minibatch epoch, batch {size}", "first_seconds": first,
        "seconds": short(again / epochs),
    }  # fmt: skip
    if importlib.util.find_spec("torch"):
        seconds, where = _torch_epoch(batch, size)
        yield {"work": f"the same epoch, torch on {where}", "seconds": short(seconds)}


def _torch_epoch(batch: Batch, size: int) -> tuple[float, str]:
    import torch

    on = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    x = torch.tensor(np.asarray(batch.features), device=on)
    y = torch.tensor(np.asarray(batch.labels), device=on).long()
    model = torch.nn.Linear(x.shape[1], 10).to(on)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        order = torch.randperm(len(x), device=on)
        for first in range(0, len(x), size):
            rows = order[first : first + size]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        model.bias.detach().sum().item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return min(seconds), on


def lasso(setting: Setting) -> Iterator[dict]:
    """Even or odd digits with an L1 penalty."""
    batch = _images(setting)
    batch = jax.device_put(batch._replace(labels=batch.labels % 2))
    objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l1(5e-4))
    start = _start(batch.features.shape[1])
    yield _solved("L1, even or odd", objective, start, batch, 1e-5)


def sparse(setting: Setting) -> Iterator[dict]:
    """Softmax regression of sparse rows of words."""
    size = (400, 500, 20, 4) if setting.small else (11_314, 130_107, 150, 20)
    x, y = text_like(*size)
    batch, (n, d), num_classes = make_batch(x, y.astype(np.int32)), x.shape, size[-1]
    objective = _objective(losses.categorical_nll, strength_from_sklearn(1.0, n))
    name = f"sparse, {n} × {d}, {num_classes} classes"
    yield _solved(name, objective, _start(d, num_classes), batch, 1e-5)


def errors(setting: Setting) -> Iterator[dict]:
    """Standard errors of all coefficients of softmax regression of images, from its optimum."""
    batch = _images(setting)
    n, d = batch.features.shape
    objective = _objective(losses.categorical_nll, strength_from_sklearn(1.0, n))
    params = minimize(objective, _start(d, 10), batch, tol=EXACT_GAP).params
    first, again, table = _timed(
        lambda: inference.infer(objective, params, batch, covariance="posterior"), repeats=1
    )
    yield {
        "work": f"errors of {table.estimate.size} coefficients", "first_seconds": first,
        "seconds": again, "gap_bound": short(table.gap_bound), "peak_gb": _peak_gb(),
    }  # fmt: skip


def devices(setting: Setting) -> Iterator[dict]:
    """The probe with its rows over all devices, where there are several."""
    if len(jax.devices()) == 1:
        return
    n, d, num_classes = _probe_size(setting)
    x, y = map(np.asarray, _drawn(n, d, num_classes, jnp.bfloat16))
    objective, name = _objective(losses.categorical_nll, 1e-4), f"probe on {len(jax.devices())}"
    run = {"devices": "all", "repeats": 1}
    yield _solved(name, objective, _start(d, num_classes), Batch(x, y), PROBE_GAP, **run)


PARTS: dict[str, tuple[Callable, float]] = {
    "device": (device, 40),
    "mnist": (mnist, 90),
    "binary": (binary, 75),
    "probe": (probe, 150),
    "passes": (passes, 60),
    "estimators": (estimators, 60),
    "heads": (heads, 60),
    "minibatch": (minibatch, 40),
    "lasso": (lasso, 60),
    "sparse": (sparse, 60),
    "errors": (errors, 90),
    "devices": (devices, 90),
}
"""The parts, each with the most seconds that it is given."""


def _probe_size(setting: Setting) -> tuple[int, int, int]:
    return (2048, 32, 12) if setting.small else (1_281_167, 1024, 1000)


def _images(setting: Setting) -> Batch:
    """Images as float32 pixels in [0, 1] on the host."""
    if setting.data is None:
        shape = (2000, 50, 10) if setting.small else (60_000, 784, 10)
        made = synthetic.gaussian_classes(0, *shape, separation=0.1)
        return Batch(made.features, made.labels)
    found = load_dataset(setting.data, split="train")
    rows = slice(2000 if setting.small else None)
    features = np.asarray(found.features[rows]).reshape(len(found.labels[rows]), -1)
    features = features.astype(np.float32) / np.float32(255)
    return Batch(features, np.asarray(found.labels[rows], np.int32))


def _drawn(n: int, d: int, num_classes: int, dtype) -> tuple[jax.Array, jax.Array]:
    """Normal features, and labels drawn from a model of them, made on the device."""

    @jax.jit
    def draw(key):
        a, b, c = jax.random.split(key, 3)
        x = jax.random.normal(a, (n, d), dtype)
        w = 3 / np.sqrt(d) * jax.random.normal(b, (d, num_classes), dtype)
        z = jax.lax.dot(x, w, preferred_element_type=jnp.float32)
        return x, jnp.argmax(z + jax.random.gumbel(c, z.shape), 1).astype(jnp.int32)

    return draw(jax.random.key(0))


def _start(d: int, num_logits: int | None = None) -> linear.LinearParams:
    outputs = () if num_logits is None else (num_logits,)
    return linear.LinearParams(np.zeros((*outputs, d), np.float32), np.zeros(outputs, np.float32))


def _objective(loss: Callable, l2: float) -> Callable:
    return make_objective(linear.logits, loss, penalties.l2(l2))


def _one_logit(z, label):
    return losses.bernoulli_nll(z[0], label)


def _solved(name: str, objective, start, batch: Batch, tol: float, *, repeats=3, **options) -> dict:
    run = lambda: minimize(objective, start, batch, tol=tol, **options)  # noqa: E731
    first, again, found = _timed(run, repeats=repeats)
    return {
        "work": name, "first_seconds": first, "seconds": again, "status": found.status,
        "value": float(f"{found.value:.9g}"), "gap_bound": short(found.gap_bound),
        "steps": found.steps, "passes": short(found.passes), "solver": found.solver,
        "peak_gb": _peak_gb(),
    }  # fmt: skip


def _timed(run: Callable, repeats: int = 3) -> tuple[float, float, object]:
    """Seconds of the first call, with compiling; the median of more calls; and the last result."""
    seconds = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        found = jax.block_until_ready(run())
        seconds.append(time.perf_counter() - began)
    return short(seconds[0]), short(float(np.median(seconds[1:]))), found


def _peak_gb() -> float | None:
    """The most memory of the device that this part has had in use."""
    stats = jax.devices()[0].memory_stats() or {}
    return None if "peak_bytes_in_use" not in stats else short(stats["peak_bytes_in_use"] / 1e9)
