"""Finds the wrong coordinates of a gradient by bisection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxclf.analysis.gradcheck.report import WrongCoordinate

# So many branches are followed at once: enough to show a pattern, few enough to stay quick.
BEAM = 4


def balanced_direction(gradient: np.ndarray, rng) -> np.ndarray:
    """A random unit direction along which every coordinate adds about as much to the slope.

    Coordinates of derivatives far below the others, down to a thousandth, are weighed up, so that
    an error in a small derivative shows beside large ones.
    """
    typical = np.linalg.norm(gradient) / np.sqrt(len(gradient))
    weights = 1 / (np.abs(gradient) + 1e-3 * typical) if typical > 0 else np.ones(len(gradient))
    direction = weights * rng.normal(size=len(gradient))
    return direction / np.linalg.norm(direction)


def wrong_coordinates(
    compare: Callable, blocks: list[np.ndarray], gradient: np.ndarray, scales: np.ndarray, rng
) -> tuple[list[tuple[int, WrongCoordinate]], bool]:
    """Splits the blocks that disagree in two until single coordinates are left.

    Args:
      compare: ``unit direction -> (ratio, estimate)``: how far the gradient and the differences
        disagree, in units of what is allowed, and the difference itself.
      blocks: index arrays to begin with, one per array of the arguments.
      gradient, scales: ``(n,)``.
      rng: the generator of the random directions within a block.

    Returns:
      ``(index, wrong coordinate without its name)`` pairs, the worst first, and whether branches
      were dropped.
    """

    def examine(block):
        direction = np.zeros(len(gradient))
        # A single coordinate is examined along itself, so that the difference has its sign.
        single = len(block) == 1
        direction[block] = 1.0 if single else balanced_direction((scales * gradient)[block], rng)
        return (*compare(direction), block)

    dropped = False
    found = []
    frontier = blocks
    while frontier:
        examined = sorted((examine(b) for b in frontier), key=lambda e: -e[0])
        wrong = [e for e in examined if e[0] > 1]
        dropped |= len(wrong) > BEAM
        frontier = []
        for ratio, estimate, block in wrong[:BEAM]:
            if len(block) == 1:
                index = int(block[0])
                entry = WrongCoordinate(
                    "",
                    float(gradient[index]),
                    float(estimate.value / scales[index]),
                    float(estimate.step * scales[index]),
                )
                found.append((ratio, index, entry))
            else:
                frontier += np.array_split(block, 2)
    found.sort(key=lambda e: -e[0])
    return [(index, entry) for _, index, entry in found[:BEAM]], dropped or len(found) > BEAM
