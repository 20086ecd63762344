"""The cost of a pass over the rows, and the time that devices take for it, for plans before a run.

A pass of a linear model with n rows, d features and K logits over ``row_parts × output_parts``
devices multiplies the features with weights and residuals with the features, ``2 n d K`` operations
each; where logits are not kept, a product with the Hessian forms them once more. Every device reads
the features of its rows. Sums of ``(d + 1) K`` numbers go once around the devices that share the
rows, and where classes are shared out, three numbers per row around those. Operations on the logits
themselves, about ``20 n K``, are not counted: they matter only for few features.

Source: Thakur, Rabenseifner and Gropp, Optimization of collective communication operations in
MPICH, Int. J. High Perform. Comput. Appl. 19 (2005), section 4.3, for the ring.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxclf import checks

KINDS = {"gradient": 2, "product": 2, "product without logits": 3}
"""The kinds of passes, each with its number of products of the size of the features."""
_NUMBER = 4
"""Bytes of a number that is summed, in float32."""
_PER_ROW = 3
"""The numbers per row that parts of the classes exchange: the largest logit, the sum of
exponentials and the own logit."""


class Cost(NamedTuple):
    """The cost of one pass for each device."""

    flops: float
    read_bytes: float
    """The bytes of features and weights that are read."""
    exchanged_bytes: float
    """The bytes that are sent; as many are received."""
    exchanges: int
    """The collective operations, one after another."""


class Machine(NamedTuple):
    """The rates of one device, per second."""

    flops: float
    read_bytes: float
    exchanged_bytes: float
    """The bytes that are sent to the next device."""
    latency: float
    """The seconds of an exchange of nothing."""


def pass_cost(
    num_rows: int,
    num_features: int,
    num_logits: int,
    *,
    row_parts: int = 1,
    output_parts: int = 1,
    feature_bytes: int = 4,
    kind: str = "gradient",
) -> Cost:
    """The cost of a pass for each of ``row_parts × output_parts`` devices.

    Args:
      num_rows: n.
      num_features: d.
      num_logits: K.
      row_parts: parts of the rows.
      output_parts: parts of the classes.
      feature_bytes: the bytes of one number of the features.
      kind: ``gradient`` with the value, ``product`` with the Hessian, or ``product without logits``
        where the logits are formed anew.

    Raises:
      ValueError: a number below 1, or an unknown kind.
    """
    checks.check_option("kind", kind, KINDS)
    sizes = {"num_rows": num_rows, "num_features": num_features, "num_logits": num_logits}
    sizes |= {"row_parts": row_parts, "output_parts": output_parts}
    for name, size in (sizes | {"feature_bytes": feature_bytes}).items():
        checks.check_number(name, size, at_least=1)
    rows, logits = num_rows / row_parts, num_logits / output_parts
    sums, shares = (num_features + 1) * logits, _PER_ROW * rows
    return Cost(
        flops=KINDS[kind] * 2 * rows * num_features * logits,
        read_bytes=rows * num_features * feature_bytes + _NUMBER * sums,
        exchanged_bytes=_NUMBER * (_around(row_parts, sums) + _around(output_parts, shares)),
        exchanges=(row_parts > 1) + 2 * (output_parts > 1),
    )


def _around(parts: int, numbers: float) -> float:
    """The numbers that each device of a ring sends so that ``numbers`` are summed over all."""
    return 2 * (parts - 1) / parts * numbers


def seconds(cost: Cost, machine: Machine) -> float:
    """The seconds of a pass, ``max(C/c, R/r) + E/e + m l``.

    A device computes and reads side by side, and then exchanges.
    """
    computing = max(cost.flops / machine.flops, cost.read_bytes / machine.read_bytes)
    exchanging = cost.exchanged_bytes / machine.exchanged_bytes
    return computing + exchanging + cost.exchanges * machine.latency
