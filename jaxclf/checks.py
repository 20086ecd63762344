"""Checks with one clear sentence each: shapes and dtypes at trace time, values on the host."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxclf.promotion import wider

_NUMBERS_AT_ONCE = 2**24
"""The most numbers that are looked at together, so that a check of a memory map takes almost no
memory."""

_SMALLEST_WEIGHT = 1e-280
"""The smallest weight other than zero, as a part of the largest. Programs take numbers below 1e-308
for zero, and weights are divided by their sum."""


def at_least_float32(x) -> jax.Array:
    """``x`` as a floating array of at least 32 bits.

    Integers and booleans are converted before any arithmetic, so uint8 pixels never wrap; float16
    and bfloat16 are widened, so that sums and exponentials accumulate in float32.

    Raises:
      TypeError: if ``x`` is complex.
    """
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"expected real numbers, got dtype {x.dtype}")
    return x.astype(wider(x.dtype, jnp.float32))


def check_shape(name: str, x, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError unless ``x`` has ``shape``; ``None`` stands for any length.

    The usual cause is a batch given to a function of one example, or an ``(n, 1)`` column beside an
    ``(n,)`` vector, which would broadcast to ``(n, n)`` without a word.
    """
    given = np.shape(x)
    fits = len(given) == len(shape) and all(
        want is None or have == want for have, want in zip(given, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if s is None else str(s) for s in shape)
        wanted = f"({wanted},)" if len(shape) == 1 else f"({wanted})"
        hint = "; use jax.vmap for a batch" if len(given) > len(shape) else ""
        raise ValueError(f"{name} must have shape {wanted}, got {given}{hint}")


def check_same_shape(name_a: str, a, name_b: str, b) -> None:
    """Raises ValueError unless the two shapes are equal: nothing is broadcast silently."""
    if jnp.shape(a) != jnp.shape(b):
        raise ValueError(
            f"{name_a} and {name_b} must have the same shape, got {jnp.shape(a)} and {jnp.shape(b)}"
        )


def check_integer(name: str, x) -> None:
    """Raises TypeError unless ``x`` is an array of integers (booleans are not)."""
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got dtype {dtype}")


def check_option(name: str, given, accepted) -> None:
    """Raises ValueError unless ``given`` is one of ``accepted``."""
    if given not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(str, accepted))}; got {given!r}")


def check_number(
    name: str, x, *, at_least: float = -np.inf, above: float = -np.inf, at_most: float = np.inf
) -> None:
    """Raises ValueError for concrete numbers that are not finite or outside their bounds.

    A traced value has no number yet and passes. A text raises TypeError, also where it reads as a
    number.
    """
    if isinstance(x, jax.core.Tracer):
        return
    if isinstance(x, str):
        raise TypeError(f"{name} must be a number, got the text {x!r}")
    values = np.asarray(x, np.float64)
    fine = np.isfinite(values) & (values >= at_least) & (values > above) & (values <= at_most)
    if not fine.all():
        bound = f", at least {at_least:g}" if at_least > -np.inf else ""
        bound += f", above {above:g}" if above > -np.inf else ""
        bound += f", at most {at_most:g}" if at_most < np.inf else ""
        wrong = values.flat[int(np.argmin(fine))]
        raise ValueError(f"{name} must be finite{bound}, got {wrong:g}")


def check_distribution(name: str, p) -> None:
    """Raises ValueError unless the last axis of a concrete ``p`` is >= 0 and sums to one."""
    if isinstance(p, jax.core.Tracer):
        return
    values = np.asarray(p, np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(
            f"{name} must be a distribution over at least one outcome, got shape {values.shape}"
        )
    # Hand-rounded tables and the sums of a softmax in half precision are distributions too.
    dtype = jnp.result_type(p)
    allowed = max(1e-3, 4 * float(jnp.finfo(dtype).eps)) if dtype.itemsize < 4 else 1e-3
    # The conditions are written so that NaN fails.
    if not np.all(values >= 0):
        raise ValueError(f"{name} must be non-negative, got {float(np.min(values))}")
    sums = values.sum(-1)
    if not np.all(np.abs(sums - 1) <= allowed):
        worst = float(sums.flat[np.argmax(np.abs(sums - 1))])
        raise ValueError(f"{name} must sum to 1, got a sum of {worst:.6g}")


def check_no_downcast(name: str, x) -> None:
    """Raises TypeError where JAX would round 64-bit host numbers to 32 bits without a word."""
    if jax.config.jax_enable_x64 or not isinstance(x, np.ndarray | np.generic):
        return
    if x.dtype == np.float64:
        raise TypeError(
            f"{name} is float64 but JAX's 64-bit mode is off, so it would be rounded to float32: "
            "pass float32, or work under `with jax.enable_x64(True)`"
        )
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8 and x.size:
        lowest, highest = int(x.min()), int(x.max())
        if lowest < -(2**31) or highest >= 2**31:
            outside = lowest if lowest < -(2**31) else highest
            raise TypeError(
                f"{name} holds {outside}, which does not fit in 32 bits, and JAX's 64-bit mode is "
                "off: work under `with jax.enable_x64(True)`"
            )


def check_features(features) -> None:
    """Raises for features that are not a non-empty, finite numeric ``(n, ...)`` host array."""
    shape = np.shape(features)
    if len(shape) < 2:
        raise ValueError(f"features must have shape (rows, columns), got {shape}")
    if 0 in shape:
        raise ValueError(f"features must not be empty, got shape {shape}")
    array = np.asarray(features)
    if array.dtype.kind not in "fiub" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"features must be real numbers, got dtype {array.dtype}")
    if array.dtype.kind in "iub":
        return
    at_once = max(1, _NUMBERS_AT_ONCE * len(array) // array.size)
    for first in range(0, len(array), at_once):
        finite = np.isfinite(array[first : first + at_once])
        if not finite.all():
            row, *place = (int(i) for i in np.argwhere(~finite)[0])
            where = (first + row, *place)
            raise ValueError(f"features must be finite, got {array[where]} at {where}")


def check_labels(labels, *, num_rows: int, num_classes: int | None) -> None:
    """Raises for labels that do not fit ``num_rows`` rows and ``num_classes`` classes.

    With ``num_classes`` the labels are integers ``(n,)`` in ``0 … K-1``, for two classes also
    probabilities ``(n,)`` of class 1, or distributions ``(n, K)``. Without it they are any finite
    numbers ``(n,)`` or ``(n, k)``: regression targets, ±1, several labels per row.
    """
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or len(array) != num_rows:
        raise ValueError(
            f"labels must have one row per row of features ({num_rows}), got shape {array.shape}"
        )
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    if not floating and array.dtype.kind not in "iub":
        raise TypeError(f"labels must be numbers, got dtype {array.dtype}")
    if floating and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(f"labels must be finite, got {array[row]} in row {row}")
    if num_classes is None:
        return
    if array.ndim == 2:
        check_shape("labels", array, (num_rows, num_classes))
        check_distribution("labels", array)
        return
    if num_classes == 2 and floating:
        check_number("labels", array, at_least=0, at_most=1)
        return
    check_integer("labels", array)
    wrong = (array < 0) | (array >= num_classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"labels must lie in 0 … {num_classes - 1}, got {array[row]} in row {row}")


def check_weights(weights, *, num_rows: int) -> None:
    """Raises unless weights are ``(n,)``, finite, non-negative and not all zero.

    Weights other than zero must also be at least 1e-280 of the largest.
    """
    check_shape("weights", weights, (num_rows,))
    values = np.asarray(weights, np.float64)
    if not (np.all(np.isfinite(values)) and np.all(values >= 0)):
        row = int(np.argmin(np.where(np.isfinite(values), values, -np.inf)))
        raise ValueError(
            f"weights must be finite and non-negative, got {values[row]:g} in row {row}"
        )
    if not values.any():
        raise ValueError("weights must not all be zero")
    ratio = np.min(values[values > 0] / values.max())
    if ratio < _SMALLEST_WEIGHT:
        raise ValueError(
            f"weights other than zero must be at least {_SMALLEST_WEIGHT:g} of the largest, got "
            f"{ratio:g}"
        )


def check_offset(offset, *, num_rows: int) -> None:
    """Raises unless an offset is ``(n,)`` or ``(n, K)`` finite numbers."""
    array = np.asarray(offset)
    if array.ndim not in (1, 2) or len(array) != num_rows:
        raise ValueError(
            f"offset must have one row per row of features ({num_rows}), got shape {array.shape}"
        )
    if array.dtype.kind not in "fiub" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"offset must be real numbers, got dtype {array.dtype}")
    wrong = np.argwhere(~np.isfinite(array.astype(np.float64)))
    if len(wrong):
        row = int(wrong[0, 0])
        raise ValueError(f"offset must be finite, got {array[row]} in row {row}")
