"""Replays a witness that a risk is not convex, with mpmath and NumPy alone.

A witness is a point w of the weights, a direction v and a distance t, for the mean of a loss over
given rows. Recomputed in interval arithmetic are ``vᵀ ∇²F(w) v``, which must be negative and what
the file says, and ``F(w) - (F(w - t v) + F(w + t v))/2``, which no convex F lets be positive. The
formulas here are written anew: nothing is imported from the library that found the witness.

Source: Moore, Kearfott and Cloud, Introduction to Interval Analysis (2009); Higham, Accuracy and
Stability of Numerical Algorithms (2002), section 3.1, for the error of the logits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mpmath import iv

FORMAT = "convexity witness"
VERSION = 1
_DIGITS = 30
_AGREEMENT = 1e-9


class Replayed(NamedTuple):
    """The intervals ``(low, high)`` of the two recomputed numbers."""

    curvature: tuple[float, float]
    excess: tuple[float, float]


def digest(content: dict) -> str:
    """The SHA-256 of everything that a witness says, in one spelling."""
    said = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def digest_of_rows(features: np.ndarray, labels: np.ndarray) -> str:
    """The SHA-256 of the rows as float64 and int64."""
    found = hashlib.sha256(str(features.shape).encode())
    found.update(np.ascontiguousarray(features, np.float64).tobytes())
    found.update(np.ascontiguousarray(labels, np.int64).tobytes())
    return found.hexdigest()


def verify(path: Path) -> Replayed:
    """Recomputes a witness.

    Raises:
      ValueError: a file that was changed, or that does not prove what it says.
      OSError: a file that cannot be read.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError(f"it is no {FORMAT} of version {VERSION}")
        if content["sha256"] != digest(content):
            raise ValueError("it was changed: its digest does not fit")
        rows = path.parent / content["rows"]["file"]
        with open(rows, "rb") as file, np.load(file, allow_pickle=False) as archive:
            features, labels = archive["features"], archive["labels"]
        if content["rows"]["sha256"] != digest_of_rows(features, labels):
            raise ValueError("the rows beside it are not those it speaks of")
        weights, direction = (
            np.array(content[key], np.float64) for key in ("weights", "direction")
        )
        found = replay(content["loss"], features, labels, weights, direction, content["distance"])
        claims = {"curvature": content["curvature"], "excess": content["excess"]}
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a witness: {error!r}") from None
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: {error}") from None
    for name, claimed in claims.items():
        low, high = getattr(found, name)
        room = _AGREEMENT * abs(claimed)
        if not low - room <= claimed <= high + room:
            raise ValueError(f"{path}: {name} is in [{low!r}, {high!r}], the file says {claimed!r}")
    if not (found.curvature[1] < 0 < found.excess[0]):
        raise ValueError(f"{path}: it refutes nothing: {found}")
    return found


def replay(
    loss: str, features: np.ndarray, labels: np.ndarray, weights, direction, distance: float
) -> Replayed:
    """The two numbers as intervals.

    Args:
      loss: ``sigmoid_squared_error`` or ``softmax_squared_error``.
      features: ``(n, d)`` float64.
      labels: ``(n,)`` integers.
      weights, direction: ``(d,)``, or ``(K, d)``.
      distance: t.
    """
    if loss not in _LOSSES:
        raise ValueError(f"loss must be one of {', '.join(_LOSSES)}; got {loss!r}")
    classes = 2 if np.ndim(weights) == 1 else len(weights)
    if np.shape(weights) != np.shape(direction) or features.shape[1] != np.shape(weights)[-1]:
        raise ValueError("weights, direction and features do not fit together")
    if len(labels) != len(features) or not ((labels >= 0) & (labels < classes)).all():
        raise ValueError(f"labels must be one of 0 … {classes - 1} for each of the rows")
    value, curvature = _LOSSES[loss]
    before, iv.dps = iv.dps, _DIGITS
    try:
        z, u = (logits(features, np.atleast_2d(w)) for w in (weights, direction))
        t, n = iv.mpf(distance), len(labels)
        excess, bent = iv.mpf(0), iv.mpf(0)
        for row in range(n):
            at, along, label = z[row], u[row], int(labels[row])
            ends = [[a + side * t * b for a, b in zip(at, along, strict=True)] for side in (-1, 1)]
            below, above = (value(end, label) for end in ends)
            excess += value(at, label) - (below + above) / 2
            bent += curvature(at, along, label)
        return Replayed(_outward(bent / n), _outward(excess / n))
    finally:
        iv.dps = before


def logits(features: np.ndarray, weights: np.ndarray) -> list[list]:
    """``x · w`` of every row and every row of weights, as intervals.

    The product is computed in float64; its error is at most ``2 d ε Σ |x_j w_j|``.
    """
    d = features.shape[1]
    near = features @ weights.T
    error = 2 * d * np.finfo(np.float64).eps * (np.abs(features) @ np.abs(weights).T)
    return [
        [iv.mpf([float(z) - float(e), float(z) + float(e)]) for z, e in zip(*row, strict=True)]
        for row in zip(near, np.nextafter(error, np.inf), strict=True)
    ]


def _sigmoid(z):
    return 1 / (1 + iv.exp(-z))


def _sigmoid_value(z, label: int):
    """``(σ(z) - y)²``."""
    return (_sigmoid(z[0]) - label) ** 2


def _sigmoid_curvature(z, u, label: int):
    """``2 s (1 - s) [-3 s² + 2 (1 + y) s - y] u²``."""
    s = _sigmoid(z[0])
    return 2 * s * (1 - s) * (-3 * s**2 + 2 * (1 + label) * s - label) * u[0] ** 2


def _softmax(z):
    top = max(float(x.mid) for x in z)
    exponentials = [iv.exp(x - top) for x in z]
    total = sum(exponentials[1:], exponentials[0])
    return [e / total for e in exponentials]


def _softmax_value(z, label: int):
    """``Σ_k (p_k - [k = y])²``."""
    return sum(((p - int(k == label)) ** 2 for k, p in enumerate(_softmax(z))), iv.mpf(0))


def _softmax_curvature(z, u, label: int):
    """``2 Σ_k p_k c_k (u_k - pᵀu)²``, c_k = 2 p_k + p_y - ‖p‖² and for k = y 1 less."""
    p = _softmax(z)
    mean = sum((a * b for a, b in zip(p, u, strict=True)), iv.mpf(0))
    squares = sum((a**2 for a in p), iv.mpf(0))
    bent = iv.mpf(0)
    for k, (a, b) in enumerate(zip(p, u, strict=True)):
        c = 2 * a + p[label] - squares - int(k == label)
        bent += 2 * a * c * (b - mean) ** 2
    return bent


_LOSSES = {
    "sigmoid_squared_error": (_sigmoid_value, _sigmoid_curvature),
    "softmax_squared_error": (_softmax_value, _softmax_curvature),
}


def _outward(x) -> tuple[float, float]:
    return float(np.nextafter(float(x.a), -np.inf)), float(np.nextafter(float(x.b), np.inf))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.verify_witness", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "file", type=Path, nargs="+", help="witness_*.json of experiments.convexity"
    )
    for path in parser.parse_args().file:
        try:
            curvature, excess = verify(path)
        except (ValueError, OSError) as error:
            print("error:", error, file=sys.stderr)
            raise SystemExit(2) from None
        print(f"{path}: not convex")
        for what, (low, high) in (
            ("curvature along the direction", curvature),
            ("excess over the mean of the ends", excess),
        ):
            print(f"  {what}: {low:.3g}, proven within {high - low:.0e}")


if __name__ == "__main__":
    main()
