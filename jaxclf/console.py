"""What every command shares: errors of one line, the device, seeds, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from jaxclf.checks import check_option

PLATFORMS = ("cpu", "gpu", "tpu")


@contextmanager
def input_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turns an error in what the user gave into one line and exit status 2.

    It wraps the reading of input; an error in the work itself keeps its traceback. Around work that
    writes files, give ``OSError`` as the only kind.
    """
    refused = kinds or (OSError, ValueError, TypeError, ImportError)
    try:
        yield
    except refused as error:
        where = f"{error.filename}: " if getattr(error, "filename", None) else ""
        _refuse(f"{where}{getattr(error, 'strerror', None) or error}")


def _refuse(message: str) -> None:
    print("error:", " ".join(message.split()), file=sys.stderr)
    raise SystemExit(2)


def choose_device(platform: str | None) -> jax.Device:
    """The first device of a platform that this process has, or JAX's own choice for ``None``.

    Raises:
      ValueError: unknown platform, or none of its devices here.
    """
    if platform is None:
        try:
            return jax.local_devices()[0]
        except Exception as error:  # JAX raises what the platform's plugin raises
            raise ValueError(f"JAX finds no device: {error}") from None
    check_option("platform", platform, PLATFORMS)
    try:
        return jax.local_devices(backend=platform)[0]
    except RuntimeError:
        present = sorted({d.platform for d in jax.devices()} | {"cpu"})
        raise ValueError(
            f"platform {platform!r} has no device here; available: {', '.join(present)}"
        ) from None


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that NumPy's generators refuse."""
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")


def progress_bar():
    """A bar of :mod:`rich` with the current step and the time taken, on standard error."""
    import rich.console
    import rich.progress

    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description:<44}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeElapsedColumn(),
        console=rich.console.Console(stderr=True),
    )
