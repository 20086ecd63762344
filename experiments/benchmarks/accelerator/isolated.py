"""Parts and tests in processes of their own, which end when their time is over."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator

_BACKENDS = {"gpu": "cuda"}
"""JAX's names for platforms, where they differ from ours."""
_FORCED = "--xla_force_host_platform_device_count=2"
"""The flag that gives a CPU two devices, for the part that needs several."""


def part(
    name: str, platform: str | None, data: str | None, *, limit: float, facts: dict
) -> Iterator[dict]:
    """The facts of a part, as it finds them, until it ends or its time is over.

    Args:
      name: a name in :data:`experiments.benchmarks.accelerator.parts.PARTS`.
      platform: cpu, gpu or tpu; ``None`` for JAX's choice.
      data: the data of the setting.
      limit: seconds.
      facts: a dictionary that gets ``ended``, the way in which the part ended.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    flags = os.environ.get("XLA_FLAGS")
    if name == "devices" and platform == "cpu":
        os.environ["XLA_FLAGS"] = f"{flags or ''} {_FORCED}"
    start = multiprocessing.get_context("spawn").Process
    process = start(target=_run, args=(name, platform, data, theirs))
    process.start()
    os.environ.pop("XLA_FLAGS", None)
    if flags is not None:
        os.environ["XLA_FLAGS"] = flags
    theirs.close()
    ends = time.monotonic() + limit
    facts["ended"] = f"its {limit:.0f} s were over"
    try:
        while ours.poll(max(0.0, ends - time.monotonic())):
            kind, content = ours.recv()
            if kind == "ended":
                facts["ended"] = content
                break
            yield content
    except EOFError:
        facts["ended"] = "its process died"
    finally:
        process.kill()
        process.join()
    if facts["ended"] != "complete":
        print(f"  {facts['ended']}", flush=True)


def _run(name: str, platform: str | None, data: str | None, pipe) -> None:
    import jax

    from experiments.benchmarks.accelerator.parts import PARTS, Setting

    try:
        if platform is not None:
            jax.config.update("jax_platforms", _BACKENDS.get(platform, platform))
        setting = Setting(small=jax.default_backend() == "cpu", data=data)
        for fact in PARTS[name][0](setting):
            pipe.send(("found", fact))
        pipe.send(("ended", "complete"))
    except Exception as error:
        traceback.print_exc()
        pipe.send(("ended", f"{type(error).__name__}: {error}"[:500]))


def tests(platform: str | None, limit: float) -> dict:
    """The facts of the tests for accelerators, which a few processes run on the same device."""
    # Plugins that happen to be installed may warn, and warnings are errors.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment |= os.environ
    if platform is not None:
        environment["JAX_PLATFORMS"] = _BACKENDS.get(platform, platform)
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_accelerator.py", "-o", "addopts="]
    if importlib.util.find_spec("xdist"):
        command += ["-p", "xdist", "-n", str(max(2, min(6, (os.cpu_count() or 1) // 2)))]
    try:
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"ended": f"its {limit:.0f} s were over"}
    lines = run.stdout.strip().splitlines() or ["pytest said nothing"]
    failed = [line for line in lines if re.match("(FAILED|ERROR) ", line)]
    print("\n".join(["  " + line for line in (*failed, lines[-1])]), flush=True)
    if run.returncode:
        print(run.stdout[-4000:], run.stderr[-2000:], flush=True)
    return {"ended": "complete" if run.returncode == 0 else "failed", "found": [lines[-1], *failed]}
