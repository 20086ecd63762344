"""What every experiment's command shares: options, the device, errors of one line, progress."""

from __future__ import annotations

import os
import platform as host
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import rich.progress
import tyro

import jaxclf
from jaxclf.checks import check_option

PLATFORMS = ("cpu", "gpu", "tpu")


def parse(config_type, name: str):
    """The command line of ``python -m experiments.<name>`` as an instance of ``config_type``."""
    prog = f"python -m experiments.{name}"
    return tyro.cli(config_type, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))


@contextmanager
def input_errors() -> Iterator[None]:
    """Turns an error in what the user gave into one line and exit status 2.

    It wraps the reading of input only; an error in the work itself keeps its traceback.
    """
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _refuse(f"{where}{error.strerror or error}")
    except (ValueError, TypeError) as error:
        _refuse(str(error))


def _refuse(message: str) -> None:
    print("error:", " ".join(message.split()), file=sys.stderr)
    raise SystemExit(2)


def choose_device(platform: str | None) -> jax.Device:
    """The first device of a platform, or JAX's own choice for ``None``.

    Raises:
      ValueError: unknown platform, or none of its devices here.
    """
    if platform is None:
        try:
            return jax.devices()[0]
        except Exception as error:  # JAX raises what the platform's plugin raises
            raise ValueError(f"JAX finds no device: {error}") from None
    check_option("platform", platform, PLATFORMS)
    try:
        return jax.devices(platform)[0]
    except RuntimeError:
        present = sorted({d.platform for d in jax.devices()} | {"cpu"})
        raise ValueError(
            f"platform {platform!r} has no device here; available: {', '.join(present)}"
        ) from None


def environment(device: jax.Device) -> dict:
    """What a reader needs to judge a measurement: versions and the device."""
    return {
        "jaxclf": jaxclf.__version__,
        "jax": jax.__version__,
        "python": host.python_version(),
        "device": f"{device.device_kind}, {os.cpu_count()} host cores",
    }


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that NumPy's generators refuse."""
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")


def progress_bar() -> rich.progress.Progress:
    """A bar with the current step and the time left, on standard error."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description:<44}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeElapsedColumn(),
        console=rich.console.Console(stderr=True),
    )
