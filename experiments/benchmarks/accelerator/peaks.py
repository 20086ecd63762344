"""The facts of an accelerator: its name, the versions of its software, and its measured rates."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import machine

PRECISIONS = {
    "float32": (jnp.float32, "highest"),
    "tensorfloat32": (jnp.float32, "tensorfloat32"),
    "bfloat16": (jnp.bfloat16, "default"),
}
"""The precisions of the factors of a matrix product whose sums are float32: for each the dtype, and
the precision that JAX is asked for."""
_DRIVER = Path("/proc/driver/nvidia/version")


def describe() -> dict:
    """The device and the versions of the software that drives it."""
    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit")
    found = {
        "device": device.device_kind,
        "devices": len(jax.devices()),
        "memory_gb": None if memory is None else round(memory / 1e9, 1),
        "runtime": device.client.platform_version.replace("\n", " "),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
    if _DRIVER.exists():
        found["driver"] = re.search(r"(\d+\.\d+[\d.]*)", _DRIVER.read_text())[1]
    return found


def rates(size: int, num_bytes: int) -> Iterator[dict]:
    """Measured peaks, one after another.

    Args:
      size: the size of the square matrices that are multiplied.
      num_bytes: the bytes of the array that is read.
    """
    for name, (dtype, precision) in PRECISIONS.items():
        yield {"rate": f"matrix product, {name}", "tflops": _product(size, dtype, precision)}
    with jax.enable_x64(True):
        yield {"rate": "matrix product, float64", "tflops": _product(size, jnp.float64, "highest")}
    array = jnp.ones(num_bytes // 4, jnp.float32)
    total = jax.jit(jnp.sum)
    seconds = machine.median_seconds(lambda: total(array))
    yield {"rate": "reading", "gb_per_s": short(num_bytes / seconds / 1e9)}
    number = jnp.zeros(())
    add = jax.jit(lambda x: x + 1)
    seconds = machine.median_seconds(lambda: add(number), repeats=50)
    yield {"rate": "the smallest program", "microseconds": short(1e6 * seconds)}
    host = np.ones(num_bytes // 16, np.float32)
    seconds = machine.median_seconds(lambda: jax.device_put(host))
    yield {"rate": "host to device", "gb_per_s": short(host.nbytes / seconds / 1e9)}


def _product(size: int, dtype, precision: str) -> float:
    """The rate of a square product of normal numbers, in 10¹² operations a second."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))
    wide = jnp.promote_types(dtype, jnp.float32)

    def product(a, b):
        with jax.default_matmul_precision(precision):
            return jax.lax.dot(a, b, preferred_element_type=wide)

    run: Callable = jax.jit(product)
    return short(2 * size**3 / machine.median_seconds(lambda: run(a, b)) / 1e12)


def short(x: float) -> float:
    """The number with four digits."""
    return float(f"{x:.4g}")
