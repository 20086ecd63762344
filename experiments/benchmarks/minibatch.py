"""One epoch of softmax regression, batch 256: ours against Keras, a flax.nnx loop and torch.

Every contestant takes the same steps, SGD with step 0.1 on the same rows in an order of its own,
and reports seconds per epoch from the second epoch on. The first epoch takes longer, because of
compilation and warming up.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")  # read by Keras when it is imported

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from experiments import cli
from experiments.benchmarks import machine
from jaxclf import fit, load_dataset, losses, make_batch, make_objective
from jaxclf.data import Dataset, transforms
from jaxclf.files import write_json
from jaxclf.models import linear

STEP, BATCH = 0.1, 256


@dataclass(frozen=True)
class Config:
    """Seconds per epoch of minibatch softmax regression, beside those of other libraries."""

    dataset: str = "digits"
    """Dataset of images or columns, as jaxclf.load_dataset takes it."""
    repeats: int = 7
    """Epochs that are timed."""
    out: Path = Path("results/benchmarks/minibatch.json")
    """JSON file to write."""


def run(config: Config) -> None:
    """Runs every contestant that is installed, and prints and writes their times."""
    with cli.input_errors():
        if config.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {config.repeats}")
        train = load_dataset(config.dataset, split="train")
        test = load_dataset(config.dataset, split="test")
        config.out.parent.mkdir(parents=True, exist_ok=True)
    contestants: dict[str, tuple[str, Callable]] = {
        "jaxclf.fit": ("jax", time_ours),
        "Keras on JAX": ("keras", time_keras),
        "flax.nnx loop": ("flax", time_nnx),
        "torch, tensor indexing": ("torch", time_torch_indexing),
        "torch, DataLoader": ("torch", time_torch_loader),
    }
    results = {}
    with cli.progress_bar() as bar:
        task = bar.add_task("", total=len(contestants))
        for name, (package, contestant) in contestants.items():
            bar.update(task, description=name)
            if importlib.util.find_spec(package):
                seconds, accuracy = contestant(train, test, config.repeats)
                results[name] = summary(seconds, accuracy, len(train.labels))
            bar.update(task, advance=1)

    facts = machine.describe()
    columns = int(np.prod(train.features.shape[1:]))
    limit = machine.least_seconds(facts, train.features, train.num_classes)
    ours = results["jaxclf.fit"]["seconds_per_epoch"]
    for result in results.values():
        result["times_ours"] = round(result["seconds_per_epoch"] / ours, 2)
        result["share_of_limit"] = round(limit / result["seconds_per_epoch"], 3)
    shape = [len(train.labels), columns, train.num_classes]
    write_json(
        config.out,
        {
            "work": {"dataset": train.name.split(":")[0], "shape": shape, "batch_size": BATCH},
            "machine": facts,
            "limit_seconds": round(limit, 5),
            "repeats": config.repeats,
            "results": results,
        },
    )
    show(results, limit, shape)


def summary(seconds: list[float], accuracy: float, num_rows: int) -> dict:
    """The seconds of the first epoch, and the medians of the others."""
    median = float(np.median(seconds[1:]))
    return {
        "seconds_per_epoch": round(median, 5),
        "fastest": round(min(seconds[1:]), 5),
        "slowest": round(max(seconds[1:]), 5),
        "compile_seconds": round(max(0.0, seconds[0] - median), 3),
        "rows_per_second": round(num_rows / median),
        "test_accuracy": round(accuracy, 4),
    }


def time_ours(train: Dataset, test: Dataset, repeats: int) -> tuple[list[float], float]:
    """`jaxclf.fit`; features stay as they are, and an epoch is a few calls of one program."""
    data = make_batch(train.features, train.labels, num_classes=train.num_classes)

    def logits(params, features):
        return linear.logits(params, transforms.flatten(transforms.to_float(features)))

    columns = int(np.prod(train.features.shape[1:]))
    marks = [time.perf_counter()]

    def mark(progress) -> None:
        if progress.epoch_ended:
            jax.block_until_ready(progress.params)
            marks.append(time.perf_counter())

    result = fit(
        make_objective(logits, losses.categorical_nll),
        linear.init(jax.random.key(0), columns, train.num_classes),
        data,
        optimizer=optax.sgd(STEP),
        batch_size=BATCH,
        epochs=repeats + 1,
        key=jax.random.key(1),
        callbacks=[mark],
    )
    scores = _floats(test) @ np.asarray(result.params.weights).T + np.asarray(
        result.params.intercept
    )
    return list(np.diff(marks)), _accuracy(scores, test)


def time_keras(train: Dataset, test: Dataset, repeats: int) -> tuple[list[float], float]:
    """`keras.Model.fit` on the JAX backend, as Keras's documentation writes it."""
    import keras

    features = _floats(train)
    model = keras.Sequential(
        [keras.layers.Input(features.shape[1:]), keras.layers.Dense(train.num_classes)]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(STEP),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    marks = [time.perf_counter()]
    mark = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: marks.append(time.perf_counter()))
    options = {"batch_size": BATCH, "epochs": repeats + 1, "verbose": 0, "callbacks": [mark]}
    model.fit(features, train.labels, **options)
    return list(np.diff(marks)), _accuracy(model.predict(_floats(test), verbose=0), test)


def time_nnx(train: Dataset, test: Dataset, repeats: int) -> tuple[list[float], float]:
    """The loop of Flax's documentation, with `nnx.jit` around a step and batches from the host."""
    from flax import nnx

    features = _floats(train)
    model = nnx.Linear(features.shape[1], train.num_classes, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(STEP), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    rng = np.random.default_rng(0)
    marks = [time.perf_counter()]
    for _ in range(repeats + 1):
        order = rng.permutation(len(features))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            value = step(model, optimizer, features[rows], train.labels[rows])
        jax.block_until_ready(value)
        marks.append(time.perf_counter())
    return list(np.diff(marks)), _accuracy(model(jnp.asarray(_floats(test))), test)


def time_torch_indexing(train: Dataset, test: Dataset, repeats: int) -> tuple[list[float], float]:
    """torch with the features in one tensor, which is indexed for each batch."""
    import torch

    x, y = torch.from_numpy(_floats(train)), torch.from_numpy(train.labels).long()

    def batches():
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            yield x[rows], y[rows]

    return _time_torch(batches, train, test, repeats)


def time_torch_loader(train: Dataset, test: Dataset, repeats: int) -> tuple[list[float], float]:
    """torch with its DataLoader in one process, which is fastest here."""
    import torch

    x, y = torch.from_numpy(_floats(train)), torch.from_numpy(train.labels).long()
    rows = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(rows, batch_size=BATCH, shuffle=True)
    return _time_torch(lambda: loader, train, test, repeats)


def _time_torch(batches: Callable, train, test, repeats: int) -> tuple[list[float], float]:
    import torch

    torch.manual_seed(0)
    test_features = torch.from_numpy(_floats(test))
    model = torch.nn.Linear(test_features.shape[1], train.num_classes)
    optimizer = torch.optim.SGD(model.parameters(), STEP)
    marks = [time.perf_counter()]
    for _ in range(repeats + 1):
        for x, y in batches():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        marks.append(time.perf_counter())
    return list(np.diff(marks)), _accuracy(model(test_features).detach().numpy(), test)


def _floats(dataset: Dataset) -> np.ndarray:
    """The features, ``(n, d)`` float32 with pixels in [0, 1]; writable, as torch wants them."""
    features = np.array(transforms.to_float(dataset.features))
    return features.reshape(len(features), -1)


def _accuracy(scores, test: Dataset) -> float:
    return float(np.mean(np.asarray(scores).argmax(1) == test.labels))


def show(results: dict, limit: float, shape: list[int]) -> None:
    """Prints the table."""
    title = f"One epoch of {' × '.join(map(str, shape))}, batch {BATCH}"
    table = Table("", "ms per epoch", "× ours", "rows/s", "of the limit", "compile", "accuracy",
                  title=title)  # fmt: skip
    for name, r in results.items():
        table.add_row(
            name,
            f"{r['seconds_per_epoch'] * 1e3:.1f}",
            f"{r['times_ours']:.2f}",
            f"{r['rows_per_second']:,}",
            f"{r['share_of_limit']:.1%}",
            f"{r['compile_seconds']:.2f} s",
            f"{r['test_accuracy']:.4f}",
        )
    Console().print(table)
    print(f"limit of the machine: {limit * 1e3:.1f} ms per epoch")


if __name__ == "__main__":
    run(cli.parse(Config, "benchmarks.minibatch"))
