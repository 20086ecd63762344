"""Solves convex lanes to certified optima: in batches where they are small, else along paths.

A path goes from the strongest penalty to the weakest, and each lane starts from where the solutions
before point, as in :func:`jaxclf.minimize_path`. A path takes a fraction of the readings of
separate fits. Where the logits of several lanes fit in the cache, the cost of a step is in its many
small operations. Lanes that are near each other are then solved in one batch, and start from the
points that their paths have reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from jaxclf.certificates.certificate import certify
from jaxclf.linear_algebra.problem import Affine, Rows, with_offset
from jaxclf.linear_algebra.whitened import Whitened, whiten
from jaxclf.models import linear
from jaxclf.objectives import Batch, Objective, make_objective
from jaxclf.penalties import Penalty, elastic_net
from jaxclf.scaling.sharing import to_host
from jaxclf.solvers.batched import batched_newton, most_lanes
from jaxclf.solvers.continuation import continued
from jaxclf.solvers.inputs import (
    as_affine,
    known_loss,
    labels_of,
    normalised_weights,
    of_logits,
    params_like,
)
from jaxclf.solvers.minimize import minimize
from jaxclf.sparse_rows import is_sparse
from jaxclf.sweeps.grid import Lane
from jaxclf.sweeps.task import Finished, Task, grouped

_LOSS = ("loss", "label_smoothing")
_PATH = (*_LOSS, "fold", "train_fraction", "seed", "class_weight", "l1_ratio")
"""Keys that all lanes of a path share: they differ in the strength of the penalty alone."""
_FEWEST = 4
"""The fewest lanes that are worth the computation of whitened rows."""


def solve(
    lanes: Sequence[Lane],
    task: Task,
    tol: float,
    max_steps: int,
    known: Callable[[Lane], Finished | None],
    done: Callable[[Lane, Finished], None],
) -> None:
    """Solves the lanes that are not known yet and hands each on as it is certified.

    The next lane of a path does not start from a lane that failed.
    """
    for group in grouped(lanes, lambda lane: [lane[key] for key in _LOSS]):
        smooth, rest = [], []
        for lane in group:
            (smooth if lane["l2"] > 0 and lane["l1_ratio"] == 0 else rest).append(lane)
        width = most_lanes(*task.features.shape, task.start.intercept.size)
        rows = None
        few = len(smooth) < _FEWEST or width == 1 or is_sparse(task.features)
        few = few or task.penalty_factors is not None or task.bounds is not None
        if not few and task.mesh is None:
            labels = labels_of(Batch(task.features, task.labels, offset=task.device_offset))
            rows = whiten(task.features, labels, task.start.weights.dtype)
        if rows is None:
            rest = group
        else:
            _in_stacks(smooth, width, rows, task, tol, max_steps, known, done)
        _along_paths(rest, task, tol, max_steps, known, done)


def _along_paths(lanes, task: Task, tol, max_steps, known, done) -> None:
    for path in grouped(lanes, _path_of):
        start, solved = task.start, []
        for lane in _falling(path):
            finished, penalty = known(lane), _penalty(lane, task)
            if finished is None:
                began = time.perf_counter()
                pointed = None if task.bounds is not None else continued(solved, penalty)
                begin = start if pointed is None else pointed
                finished = _alone(lane, task, begin, tol, max_steps, began)
                done(lane, finished)
            if not _failed(finished):
                start = finished.params
                solved.append((penalty, start))


def _in_stacks(lanes, width: int, rows: Whitened, task: Task, tol, max_steps, known, done) -> None:
    """Solves lanes in stacks of the nearest penalties, all paths side by side.

    A stack is solved whole where one of its lanes is missing, so that the result of a lane does not
    depend on when the sweep was stopped.
    """
    starts, ordered = {}, _falling(lanes)
    count = -(-len(ordered) // width)
    for stack in (list(part) for part in np.array_split(np.array(ordered, object), count)):
        found = [known(lane) for lane in stack]
        if None in found:
            before = [starts.get(_path_of(lane), task.start) for lane in stack]
            solved = _stack(stack, before, rows, task, tol, max_steps)
            for i, finished in enumerate(solved):
                if found[i] is None:
                    done(stack[i], finished)
                found[i] = finished
        for lane, finished in zip(stack, found, strict=True):
            if not _failed(finished):
                starts[_path_of(lane)] = finished.params


def _stack(lanes, starts, rows: Whitened, task: Task, tol, max_steps) -> Iterable[Finished]:
    """Solves the lanes in one batch. A lane that is not certified there goes on alone."""
    began = time.perf_counter()
    weights = np.stack([task.weights_of(lane) for lane in lanes]).astype(np.float64)
    start = jax.tree.map(lambda *x: np.stack(x), *map(as_affine, starts))
    loss, dtype = of_logits(task.loss_of(lanes[0]), task.start), start.weights.dtype
    loss = loss if task.device_offset is None else with_offset(loss)
    objective, batch = _problem(lanes[0], task)
    known, _ = known_loss(objective, task.start, batch)  # loss and labels are those of all lanes
    solved = batched_newton(
        loss,
        rows,
        weights / weights.sum(1, keepdims=True),
        np.array([lane["l2"] for lane in lanes]),
        start,
        tol=tol,
        max_steps=max_steps,
    )
    share = (time.perf_counter() - began) / len(lanes)
    for i, lane in enumerate(lanes):
        began = time.perf_counter() - share
        objective, batch = _problem(lane, task)
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            point = Affine(*(x[i].astype(dtype) for x in solved.params))
            data = Rows(batch.features, labels_of(batch), normalised_weights(batch))
            (found, value, norm, bound, _), _ = certify(
                loss, known, objective.penalty, point, data, narrow=dtype == np.float32
            )
            params = params_like(task.start, to_host(found))
            value, norm, bound = map(float, (value, norm, bound))
        if not bound <= tol:
            begin = params if np.isfinite(value) else starts[i]
            yield _alone(lane, task, begin, tol, max_steps, began)
            continue
        solver = f"newton_cg: {len(lanes)} fits in one batch"
        facts = ("converged", value, norm, bound, solved.steps[i], solved.passes[i], solver)
        yield _finished(params, facts, began)


def _alone(lane: Lane, task: Task, start, tol, max_steps, began: float) -> Finished:
    objective, batch = _problem(lane, task)
    options = {"bounds": task.bounds, "devices": task.mesh}
    one = minimize(objective, start, batch, tol=tol, max_steps=max_steps, **options)
    facts = (
        one.status, one.value, one.gradient_norm, one.gap_bound, one.steps, one.passes, one.solver
    )  # fmt: skip
    return _finished(to_host(one.params), facts, began)


def _penalty(lane: Lane, task: Task) -> Penalty:
    ratio = lane["l1_ratio"]
    strengths = {"l1": ratio * lane["l2"], "l2": (1 - ratio) * lane["l2"]}
    return elastic_net(**strengths, factors=task.penalty_factors)


def _problem(lane: Lane, task: Task) -> tuple[Objective, Batch]:
    objective = make_objective(linear.logits, task.loss_of(lane), _penalty(lane, task))
    weights = task.placed(task.weights_of(lane))
    return objective, Batch(task.features, task.device_labels, weights, task.device_offset)


def _finished(params, facts: Sequence, began: float) -> Finished:
    status, value, norm, bound, steps, passes, solver = facts
    return Finished(
        params,
        {
            "status": status,
            "objective": float(value),
            "gradient_norm": float(norm),
            "gap_bound": float(bound),
            "steps": int(steps),
            "passes": float(passes),
            "seconds": time.perf_counter() - began,
            "solver": solver,
        },
    )


def _path_of(lane: Lane) -> str:
    return str([lane[key] for key in _PATH])


def _falling(lanes: Sequence[Lane]) -> list[Lane]:
    return sorted(lanes, key=lambda lane: -lane["l2"])


def _failed(finished: Finished) -> bool:
    return finished.facts["status"] in ("nonfinite", "no_finite_minimiser")
