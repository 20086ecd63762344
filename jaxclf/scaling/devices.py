"""The device of a platform, and the one that programs run on."""

from __future__ import annotations

import jax

from jaxclf.checks import check_option

PLATFORMS = ("cpu", "gpu", "tpu")


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


def default_device() -> jax.Device:
    """The device that programs run on where their arguments do not decide it.

    The devices of a mesh are taken to be like this one.
    """
    default = jax.config.jax_default_device
    if default is None or isinstance(default, str):
        return jax.local_devices(backend=default)[0]
    return default


def on_accelerator() -> bool:
    """Whether programs run on a device other than the host's processor."""
    return default_device().platform != "cpu"
