"""The rates of the machine, measured in the same run as a yardstick for every timing."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

FORCES_A_KERNEL = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Environment variables that make OpenBLAS use another kernel than the best one for the machine."""

_SLOW = 5.0
"""The seconds from which a run is slow."""


def let_blas_choose() -> None:
    """Starts this process anew where the environment forces a kernel on OpenBLAS.

    A slower kernel slows NumPy, SciPy and scikit-learn, and so would flatter what is measured
    beside them.
    """
    free = {name: value for name, value in os.environ.items() if name not in FORCES_A_KERNEL}
    if len(free) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], free)


def blas() -> list[str]:
    """The BLAS libraries that NumPy and SciPy have loaded, each with its kernel and threads."""
    import scipy.linalg  # noqa: F401  (loads its own BLAS)
    from threadpoolctl import threadpool_info

    loaded = [one for one in threadpool_info() if one["user_api"] == "blas"]
    words = ("internal_api", "version", "architecture")
    named = {" ".join(str(one.get(word)) for word in words): one["num_threads"] for one in loaded}
    return sorted(f"{name}, {threads} threads" for name, threads in named.items())


def median_seconds(work: Callable, repeats: int = 5) -> float:
    """Median wall-clock seconds of ``work()`` after one call that is not counted."""
    jax.block_until_ready(work())
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(work())
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def median_of_runs(run: Callable, repeats: int) -> float:
    """Median wall-clock seconds of several runs, or those of the first one if it is slow."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
        if seconds[0] > _SLOW:
            break
    return float(np.median(seconds))


def gemm_flops(size: int = 2048) -> float:
    """Floating-point operations per second of a square float32 matrix product."""
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    return 2 * size**3 / median_seconds(lambda: product(matrix))


def read_bandwidth(size: int = 2**27) -> float:
    """Bytes per second at which a long float32 array is read and summed."""
    array = jnp.ones(size // 4, jnp.float32)
    total = jax.jit(jnp.sum)
    return size / median_seconds(lambda: total(array))


def reset_peak_memory() -> int | None:
    """Bytes resident now, from which :func:`peak_memory` counts anew; ``None`` but on Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _memory("VmRSS")


def peak_memory() -> int:
    """The most bytes that were resident at once since :func:`reset_peak_memory`, on Linux."""
    return _memory("VmHWM")


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def least_seconds(facts: dict, features: np.ndarray, num_logits: int) -> float:
    """The least seconds of one pass over the features, which gives logits and a gradient.

    They are those of its matrix products at the machine's rate, or of one reading of the features
    at its bandwidth, whichever takes longer.

    Args:
      facts: what :func:`describe` returned.
      features: ``(n, ...)``.
      num_logits: the logits of a row.
    """
    flops = 4 * features.size * num_logits
    if features.dtype == np.float64:
        flops *= 2  # the rate is that of float32
    read = features.nbytes / (facts["read_gb_per_s"] * 1e9)
    return max(flops / (facts["gemm_gflops"] * 1e9), read)


def describe() -> dict:
    """The machine in words."""
    device = jax.devices()[0]
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    return {
        "device": device.device_kind,
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "blas": blas(),
        "gemm_gflops": round(gemm_flops() / 1e9, 1),
        "read_gb_per_s": round(read_bandwidth() / 1e9, 2),
    }
