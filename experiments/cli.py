"""The parts that all experiments' commands share: options, and the facts of a measurement."""

from __future__ import annotations

import dataclasses
import os
import platform as host
from pathlib import Path

import jax

import jaxclf
from experiments.benchmarks.machine import let_blas_choose
from experiments.endings import end_quietly
from jaxclf.commands.console import check_seed as check_seed
from jaxclf.commands.console import input_errors as input_errors
from jaxclf.compilation_cache import use_compilation_cache
from jaxclf.extras import COMMAND, require
from jaxclf.files import choose_folder
from jaxclf.progress import progress_bar as progress_bar
from jaxclf.scaling.devices import choose_device as choose_device

with input_errors():
    require("an experiment", "experiments", *COMMAND)
    from jaxclf.commands.command_line import parse as parse_command


def parse(config_type, name: str):
    """The command line of ``python -m experiments.<name>`` as an instance of ``config_type``.

    Its folder of results is one in which no file of the user's is replaced. From here on compiled
    programs are kept on disk, but for benchmarks, which time compiling too and let BLAS choose its
    kernel.
    """
    is_benchmark = name.startswith("benchmarks.")
    if is_benchmark:
        let_blas_choose()
    end_quietly()
    parsed = parse_command(config_type, f"python -m experiments.{name}")
    if not is_benchmark:
        use_compilation_cache()
    out = getattr(parsed, "out", None)
    if isinstance(out, Path) and not out.suffix:
        with input_errors():
            parsed = dataclasses.replace(parsed, out=choose_folder(out))
    return parsed


def environment(device: jax.Device) -> dict:
    """The facts that a reader needs to judge a measurement: versions and the device."""
    return {
        "jaxclf": jaxclf.__version__,
        "jax": jax.__version__,
        "python": host.python_version(),
        "device": f"{device.device_kind}, {os.cpu_count()} host cores",
    }
