"""The options of a sweep and its data, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxclf import checks
from jaxclf.objectives import Batch, check_rows
from jaxclf.scaling.sharing import of_all_processes
from jaxclf.sparse_rows import is_sparse
from jaxclf.stored_rows import check_in_memory
from jaxclf.sweeps import selection
from jaxclf.sweeps.grid import Lane
from jaxclf.sweeps.rows import Roles, held_rows

METHODS = ("convex", "minibatch")


class Options(NamedTuple):
    """How the lanes are fitted."""

    method: str
    tol: float
    max_steps: int
    epochs: int
    halve_every: int | None
    seed: int
    memory: float | None


def check_options(options: Options, metric: str, rule: str) -> None:
    """Raises ValueError for options that are not accepted."""
    checks.check_option("method", options.method, METHODS)
    checks.check_option("metric", metric, selection.METRICS)
    checks.check_option("rule", rule, selection.RULES)
    checks.check_number("tol", options.tol, above=0)
    for name in ("max_steps", "epochs", "halve_every"):
        if getattr(options, name) is not None:
            checks.check_number(name, getattr(options, name), at_least=1)
    checks.check_number("seed", options.seed, at_least=0)
    if options.memory is not None:
        checks.check_number("memory", options.memory, above=0)


def num_classes_of(
    data: Batch, validation: Batch | None, test: Batch | None, mesh: Mesh | None
) -> int:
    """The number of classes of the data, which validation and test rows must not exceed."""
    counts = {}
    for name, batch in (("data", data), ("validation", validation), ("test", test)):
        if batch is None:
            continue
        check_rows(batch)
        check_in_memory("a sweep", batch.features)
        if name != "data" and not is_sparse(batch.features):
            checks.check_features(batch.features)
        checks.check_shape(f"{name} features", batch.features, (None, data.features.shape[-1]))
        labels = np.asarray(batch.labels)
        checks.check_shape(f"{name} labels", labels, (None,))
        checks.check_integer(f"{name} labels", labels)
        checks.check_number(f"{name} labels", labels, at_least=0)
        counts[name] = int(of_all_processes(labels, mesh).max()) + 1
    if len(np.unique(of_all_processes(np.asarray(data.labels), mesh))) < 2:
        raise ValueError("labels hold one class only: a classifier needs two")
    for name, batch in (("data", data), ("validation", validation), ("test", test)):
        if batch is not None and batch.offset is not None:
            own = () if counts["data"] == 2 else (counts["data"],)
            checks.check_offset(batch.offset, num_rows=len(batch.labels))
            checks.check_shape(f"{name} offset", batch.offset, (len(batch.labels), *own))
    for name, count in counts.items():
        if count > counts["data"]:
            raise ValueError(f"{name} has class {count - 1}, which the data to train on have not")
    return counts["data"]


def check_ranked(
    metric: str,
    lanes: Sequence[Lane],
    labels: np.ndarray,
    roles: Roles,
    others: Sequence[Batch | None],
    mesh: Mesh | None,
) -> None:
    """Raises ValueError where some rows that are ranked have none of a class.

    Args:
      metric: the measure of a ranking.
      lanes: the configurations, each of which some of the rows judge.
      labels: the labels of the data.
      roles: the rows that judge each lane.
      others: validation rows, which judge all lanes in their place, and test rows.
      mesh: the mesh over which rows are shared out.
    """
    validation, test = others
    judging = [] if test is None else [of_all_processes(np.asarray(test.labels), mesh)]
    if validation is None:
        judging += [labels[held_rows(lane, roles)] for lane in lanes]
    else:
        judging.append(of_all_processes(np.asarray(validation.labels), mesh))
    for found in judging:
        if missing := sorted(set(labels.tolist()) - set(found.tolist())):
            raise ValueError(
                f"metric {metric} needs a row of every class among those that it is taken on, "
                f"which have none of class {missing[0]}"
            )
