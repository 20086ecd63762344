"""The cost of devices, processes and files, measured here and predicted by a model for more.

There are three tables. The first has passes over the rows of one problem on 1 to 8 devices that
share this machine's cores, and in 1 and 2 processes. Beside them stand the predictions of
`experiments.benchmarks.cost` from the rate of one matrix product, one reading and one exchange. The
second has passes over a file, beside reading the file alone, and a solve from it. The third has the
predicted times of probes of ImageNet-1k and ImageNet-21k on 8 to 512 accelerators at their
published peaks, which nothing here has measured.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from rich.console import Console
from rich.table import Table

from experiments import cli
from experiments.benchmarks import cost, machine
from experiments.benchmarks.cost import Machine, pass_cost
from jaxclf import Batch, losses, make_objective, minimize, penalties
from jaxclf.data import synthetic
from jaxclf.files import atomic_folder, write_json
from jaxclf.linear_algebra.blocks import evaluation_block, product_block, reduce
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.models import linear
from jaxclf.scaling import make_mesh, share_rows
from jaxclf.scaling.chunks import chunked
from jaxclf.scaling.mesh import ROWS, using
from jaxclf.solvers.inputs import of_logits

SHAPE = {"num_rows": 32768, "num_features": 512, "num_logits": 256}
DEVICES = (1, 2, 4, 8)
PASSES = {"gradient": "evaluate", "product without logits": "product"}
FILE_COLUMNS = 1024
PROBES = {
    "ImageNet-1k": {"num_rows": 1_281_167, "num_features": 1024, "num_logits": 1000},
    "ImageNet-21k": {"num_rows": 14_197_122, "num_features": 1024, "num_logits": 21_841},
}
ACCELERATORS = (8, 64, 512)
GAP = 1e-4


def accelerator(count: int) -> Machine:
    """One of ``count`` H200 at the peaks of its data sheet (NVIDIA, 2024).

    The peaks are: float32 67 TFLOP/s without tensor cores, memory 4.8 TB/s, NVLink 450 GB/s each
    way within eight, 400 Gbit/s beyond. The 20 µs of an exchange are an assumption.
    """
    return Machine(67e12, 4.8e12, 450e9 if count <= 8 else 50e9, 20e-6)


@dataclass(frozen=True)
class Config:
    """Times of passes over rows by devices, processes and files, measured and predicted."""

    file_gib: float = 2.0
    """Size of the float16 file that is written for the second table, and deleted after it."""
    repeats: int = 5
    """Runs per number, of which the median counts."""
    out: Path = Path("results/benchmarks/scaling")
    """Folder for scaling.json, and for the file while it is needed."""


def run(config: Config) -> None:
    """Measures, prints the tables, and writes the numbers."""
    with cli.input_errors():
        if not (config.file_gib > 0 and config.repeats >= 1):
            raise ValueError("file_gib must be above 0 and repeats at least 1")
        stage = atomic_folder(config.out)
    with stage as folder:
        facts = machine.describe()
        passes = measure_passes(config.repeats)
        show_passes(passes)
        file = measure_file(folder / "rows.npy", config.file_gib, config.repeats)
        show_file(file)
        plan = predict_probes(readings_needed())
        show_plan(plan)
        found = {"machine": facts, "passes": passes, "file": file, "plan": plan}
        write_json(folder / "scaling.json", found)


def measure_passes(repeats: int) -> dict:
    """Seconds of each kind of pass, by devices and by processes, beside the model's seconds."""
    one = in_processes(1, 1, repeats)[0]
    found = {"shape": SHAPE, "matrix_product_gflops": one["flops"] / 1e9, "runs": []}
    for processes, devices in [*((1, count) for count in DEVICES), (2, 1)]:
        print(f"processes: {processes}, devices of each: {devices} …", flush=True)
        measured = in_processes(processes, devices, repeats)[0]
        count = processes * devices
        # The cores are the same, however many devices and processes share them.
        each = Machine(
            one["flops"] / count, one["read_bytes"] / count, measured["exchanged_bytes"],
            measured["latency"],
        )  # fmt: skip
        predicted = {
            kind: cost.seconds(pass_cost(**SHAPE, row_parts=count, kind=kind), each)
            for kind in PASSES
        }
        facts = {"processes": processes, "devices": devices, "predicted": predicted}
        found["runs"].append(facts | {"measured": measured["passes"], "exchange": each._asdict()})
    return found


def in_processes(processes: int, devices: int, repeats: int) -> list[dict]:
    """The findings of :func:`measure_here` in each of ``processes`` with ``devices``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    shape = json.dumps(SHAPE)
    program = "import sys, experiments.benchmarks.scaling as own; own.measure_here(sys.argv)"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, *map(str, (port, processes, rank, repeats)), shape],
            env=environment, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"a measurement in {processes} processes of {devices} devices failed")
    return [json.loads(text.splitlines()[-1]) for text in said]


def measure_here(arguments: list[str]) -> None:
    """Prints the findings of this process, one of several, on all devices as one line of JSON."""
    port, processes, rank, repeats = map(int, arguments[1:5])
    n, d, num_logits = json.loads(arguments[5]).values()
    if processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, rank)
    rng = np.random.default_rng(rank)
    features = rng.standard_normal((n // processes, d), np.float32)
    labels = rng.integers(0, num_logits, n // processes)
    timed = partial(machine.median_seconds, repeats=repeats)
    mesh = make_mesh("all")
    with jax.enable_x64(True), using(mesh):
        rows = Rows(*share_rows(Batch(features, labels), mesh)[:3])
        gradient = evaluation_block(losses.categorical_nll, False, True)
        product = product_block(losses.categorical_nll)
        v = Affine(np.zeros((num_logits, d), np.float32), np.zeros(num_logits, np.float32))
        passes = {
            "gradient": timed(lambda: reduce(rows, gradient, v, None)),
            "product without logits": timed(lambda: reduce(rows, product, v, None, v)),
        }
        numbers = sum(leaf.size for leaf in v)
        latency, summing = (timed(partial(exchange(size), rows.weights)) for size in (1, numbers))
    found = {"passes": passes, "latency": latency, "read_bytes": machine.read_bandwidth()}
    count = len(jax.devices())
    sent = 4 * 2 * (count - 1) / count * numbers
    found["exchanged_bytes"] = sent / max(summing - latency, 1e-9) if count > 1 else 1e18
    multiply = jax.jit(lambda x, w: x @ w.T)
    x = jnp.asarray(features)
    found["flops"] = 2 * features.size * num_logits / timed(lambda: multiply(x, v.weights))
    print(json.dumps(found), flush=True)


def exchange(size: int):
    """A program that does nothing but sum ``size`` numbers over the devices."""

    def own(weights):
        return jax.lax.psum(jnp.full(size, weights[0], jnp.float32), ROWS)

    shared = {"in_specs": PartitionSpec(ROWS), "out_specs": PartitionSpec()}
    return jax.jit(jax.shard_map(own, **shared, check_vma=False))


def measure_file(path: Path, gib: float, repeats: int) -> dict:
    """Bytes per second of passes over a float16 file with two classes, and a solve from the file.

    A pass and a reading of the file alone follow each other, cold and warm.
    """
    rows = max(1000, int(gib * 2**30 / 2 / FILE_COLUMNS))
    write_file(path, rows)
    x = np.load(path, mmap_mode="r")
    labels = (np.asarray(x[:, 0]) > np.asarray(x[:, 1])).astype(np.int32)
    labels ^= np.random.default_rng(0).random(rows) < 0.2
    found = {"rows": rows, "columns": FILE_COLUMNS, "bytes": x.nbytes}
    try:
        objective = make_objective(linear.logits, losses.bernoulli_nll, penalties.l2(1e-2))
        start = linear.LinearParams(np.zeros(FILE_COLUMNS, np.float32), np.zeros((), np.float32))
        with jax.enable_x64(True):
            block = evaluation_block(of_logits(losses.bernoulli_nll, start), True, True)
            source = chunked(Rows(x, labels, np.full(rows, 1 / rows)))
            v = Affine(jnp.zeros((1, FILE_COLUMNS), jnp.float32), jnp.zeros(1, jnp.float32))
            passed = partial(reduce, source, block, v, None)
            jax.block_until_ready(passed())
            for state in ("cold", "warm"):
                times = {"read": [], "pass": []}
                for _ in range(repeats):
                    for name, work in (("read", partial(read, path)), ("pass", passed)):
                        if state == "cold":
                            forget(path, x)
                        began = time.perf_counter()
                        jax.block_until_ready(work())
                        times[name].append(time.perf_counter() - began)
                rates = {name: x.nbytes / float(np.median(t)) for name, t in times.items()}
                shares = np.array(times["read"]) / np.array(times["pass"])
                found[state] = rates | {"share": float(np.median(shares))}
        began = time.perf_counter()
        result = minimize(objective, start, Batch(x, labels), tol=1e-7, stream=True)
        found["solve"] = {
            "seconds": time.perf_counter() - began, "status": result.status,
            "gap_bound": result.gap_bound, "solver": result.solver,
        }  # fmt: skip
    finally:
        path.unlink()
    return found


def write_file(path: Path, rows: int) -> None:
    file = np.lib.format.open_memmap(path, "w+", np.float16, (rows, FILE_COLUMNS))
    rng = np.random.default_rng(1)
    for first in range(0, rows, 2**15):
        part = file[first : first + 2**15]
        part[:] = rng.standard_normal(part.shape, np.float32)
    file.flush()


def read(path: Path) -> None:
    """Reads the whole file, into one piece of memory after another."""
    room = memoryview(bytearray(2**25))
    with open(path, "rb", buffering=0) as file:
        while file.readinto(room):
            pass


def forget(path: Path, mapped: np.memmap) -> None:
    """Drops the pages of a file that the system keeps in memory."""
    import mmap

    mapped._mmap.madvise(mmap.MADV_DONTNEED)
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def readings_needed() -> dict:
    """Measured readings of the features to a gap of 1e-4, for a smaller problem of the same kind.

    As on many devices, Hessians are of all rows and logits are not kept. The readings of the
    certificate count too.
    """
    data = synthetic.gaussian_classes(0, 20_000, 256, 100, dtype=np.float32)
    objective = make_objective(linear.logits, losses.categorical_nll, penalties.l2(1e-4))
    start = linear.LinearParams(np.zeros((100, 256), np.float32), np.zeros(100, np.float32))
    batch = Batch(data.features, data.labels)
    best = minimize(objective, start, batch, tol=1e-7)
    result = minimize(objective, start, batch, tol=GAP, stream=True, devices=1)
    return {
        "rows": 20_000, "features": 256, "classes": 100, "readings": result.passes,
        "gap": result.value - best.value + best.gap_bound,
    }  # fmt: skip


def predict_probes(needed: dict) -> dict:
    """Seconds of a pass over bfloat16 features, and of as many passes as were needed here."""
    found = {"readings": needed, "probes": []}
    for name, shape in PROBES.items():
        for count in ACCELERATORS:
            parts = {"row_parts": count, "feature_bytes": 2}
            each = pass_cost(**shape, **parts, kind="product without logits")
            taken = cost.seconds(each, accelerator(count))
            alone = cost.seconds(each._replace(exchanged_bytes=0, exchanges=0), accelerator(count))
            found["probes"].append(
                {
                    "probe": name, "accelerators": count, "pass_seconds": taken,
                    "exchange_share": 1 - alone / taken,
                    "features_gb_each": each.read_bytes / 1e9,
                    "seconds": needed["readings"] * taken,
                }
            )  # fmt: skip
    return found


def show_passes(found: dict) -> None:
    table = Table("processes", "devices each", "pass", "measured ms", "predicted ms", "ratio")
    for facts in found["runs"]:
        for kind, taken in facts["measured"].items():
            said = facts["predicted"][kind]
            table.add_row(
                str(facts["processes"]), str(facts["devices"]), kind, f"{1e3 * taken:.1f}",
                f"{1e3 * said:.1f}", f"{taken / said:.2f}",
            )  # fmt: skip
    Console(width=max(90, Console().width)).print(table)


def show_file(found: dict) -> None:
    size = found["bytes"] / 2**30
    table = Table("file", "reading alone GB/s", "pass GB/s", "share", title=f"{size:.1f} GiB")
    for state in ("cold", "warm"):
        rates = found[state]
        numbers = (f"{rates[name] / 1e9:.2f}" for name in ("read", "pass"))
        table.add_row(state, *numbers, f"{rates['share']:.0%}")
    Console(width=max(90, Console().width)).print(table)
    solved = found["solve"]
    print(
        f"solved in {solved['seconds']:.1f} s: {solved['status']}, gap ≤ {solved['gap_bound']:.1e}"
    )


def show_plan(found: dict) -> None:
    needed = found["readings"]
    title = f"predicted, not measured: {needed['readings']:.0f} readings to a gap of {GAP:g}"
    table = Table("probe", "H200", "ms a pass", "of it exchange", "seconds", title=title)
    for facts in found["probes"]:
        table.add_row(
            facts["probe"], str(facts["accelerators"]), f"{1e3 * facts['pass_seconds']:.3g}",
            f"{facts['exchange_share']:.0%}", f"{facts['seconds']:.3g}",
        )  # fmt: skip
    Console(width=max(90, Console().width)).print(table)


if __name__ == "__main__":
    run(cli.parse(Config, "benchmarks.scaling"))
