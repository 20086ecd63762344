"""Makes a linear model's problem ready for a solver, solves it, and certifies the result.

Rows are held in memory, or are read in chunks where they, or their logits, do not fit. The solver
starts from the better of the start and zero, in units in which columns keep their digits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxclf.certificates.certificate import Certificate, certify, sizes_of
from jaxclf.certificates.duality import EVALUATED, UNIT, Known, Sizes
from jaxclf.certificates.free_coefficients import free_bound, free_columns
from jaxclf.certificates.local_bound import LARGEST_HESSIAN, local_bound
from jaxclf.certificates.separation import is_separated, separates
from jaxclf.data.batches import free_memory
from jaxclf.group_norms import GroupNorms
from jaxclf.linear_algebra import blocks, row_space
from jaxclf.linear_algebra import problem as lp
from jaxclf.linear_algebra.columns import (
    FIXED,
    Columns,
    columns_of,
    gradient_out_of_units,
    in_units,
    params_in_units,
    penalty_in_units,
)
from jaxclf.linear_algebra.problem import Affine, Rows
from jaxclf.objectives import Batch
from jaxclf.penalties import Penalty, is_smooth
from jaxclf.programs import jit_by_shape
from jaxclf.scaling.chunks import Chunked, bytes_of_row, chunked, is_on_device
from jaxclf.scaling.devices import default_device, on_accelerator
from jaxclf.scaling.mesh import MODEL
from jaxclf.scaling.sharing import (
    all_gather,
    is_shared,
    on_device,
    own_parts,
    share_model,
    share_rows,
    to_host,
)
from jaxclf.solvers.certified import Solvable, Solved, certified
from jaxclf.solvers.chunked_oracle import ARRAYS_OF_LOGITS, ChunkedOracle, most_rows
from jaxclf.solvers.group_columns import solve_groups
from jaxclf.solvers.inputs import as_affine, dtypes_of, labels_of, normalised_weights
from jaxclf.solvers.lbfgs import lbfgs
from jaxclf.solvers.linear_oracle import LinearOracle
from jaxclf.solvers.newton_cg import FIRST_SHARE, newton_cg
from jaxclf.solvers.newton_cholesky import is_cheap, newton_cholesky
from jaxclf.solvers.newton_on_host import MOST_NUMBERS, newton_on_host
from jaxclf.solvers.oracle import Point
from jaxclf.solvers.path_columns import Kept, solve_over_kept
from jaxclf.solvers.proximal_newton import SMALL, proximal_newton
from jaxclf.solvers.result import Outcome, Step, Stop, concatenated
from jaxclf.solvers.sparse_on_host import pieces_on_host
from jaxclf.solvers.start import better_start, inside
from jaxclf.sparse_rows import DenseBlocks, is_sparse

_SAMPLED_ABOVE = {"newton_cg": 2**23, "proximal_newton": 2**21}
"""Features with fewer numbers are cheap to read as a whole; a dense Hessian costs more than a
product."""
_SAMPLED_ABOVE_ON_ACCELERATORS = 2**37
"""Rows are sampled where a product with the Hessian of all rows takes more multiplications. Fewer
take an H200 less than 2 ms, and drawing a sample takes the host longer."""
_ROWS_PER_FEATURE = 8
"""With fewer rows per feature a sample leaves too many directions without curvature."""
_STRONGEST = 1e30
"""The strongest penalty of a scaled weight for whose products float32 has room."""
_SHARE_FOR_DATA = 0.5
"""Features and logits that take more than this share of free memory are not held."""
_SHARE_FOR_SAMPLE = 0.25
_LARGE = 2**20
"""The numbers of features whose sizes are kept for later certificates."""
_SMALL = 2**24
"""The bytes of rows and logits that are held without a look at the memory."""


class Held:
    """What the solves of a path share, which have the loss and the batch in common."""

    def __init__(self) -> None:
        self.rows: dict[Hashable, tuple[Columns | None, Rows | Chunked]] = {}
        self.sizes: dict[Hashable, Sizes] = {}
        """The sizes of large features, from the second solve on."""
        self.solved: Penalty | None = None
        """The penalty whose solution is the next start, if it is one."""
        self.columns: Kept | None = None
        """The columns that the latest solution with L1 was sought in."""

    def starts_lower(self, penalty: Penalty) -> bool:
        """Whether the objective is lower at the start than at zero, as it was with a penalty of
        which no strength was less."""
        before, now = (jax.tree.flatten(x) for x in (self.solved, penalty))
        pairs = zip(now[0], before[0], strict=False)
        return now[1] == before[1] and all(np.all(np.asarray(a) <= b) for a, b in pairs)


def fits_in_memory(batch: Batch, num_logits: int, mesh: Mesh | None) -> bool:
    """Whether rows that are on the host, and the logits, take at most half of the free memory.

    The memory is that of this process's devices, which share the rows.
    """
    device, labels = default_device(), np.shape(batch.labels)
    held = 4 * ARRAYS_OF_LOGITS * num_logits * labels[0]
    if not is_on_device(batch.features):
        features = batch.features
        features = features if hasattr(features, "dtype") else np.asarray(features)
        held += bytes_of_row(features) * labels[0] + 4 * np.prod(labels)
        held += 4 * np.size(batch.offset) if batch.offset is not None else 0
    if held <= _SMALL:
        return True
    # Devices that do not count their own memory share the memory of the host.
    parts = own_parts(mesh) if device.memory_stats() else 1
    return held / parts <= _SHARE_FOR_DATA * free_memory(device)


def solve_linear(
    loss: Callable,
    known: Known,
    penalty: Penalty,
    params: Any,
    batch: Batch,
    solver: str | Callable,
    *,
    stop: Stop,
    rng: np.random.Generator,
    mesh: Mesh | None,
    stream: bool,
    held: Held,
) -> tuple[Solved, str]:
    """Solves a linear model and certifies it, where there is a finite point to certify.

    Args:
      loss: a loss that takes ``(K,)`` logits.
      known: the facts of the loss.
      penalty: the penalty of the objective; without L1 where rows stream.
      params: the start.
      batch: the rows of this process.
      solver: the name of a solver, or a solver of the user's.
      stop: when to end.
      rng: the generator for samples.
      mesh: the mesh in use, or ``None``.
      stream: whether rows are read in chunks, or their logits not kept.
      held: what is kept of earlier solves with this loss and this batch.

    Returns:
      The result, and in words how the problem was solved.
    """
    if stream and mesh is not None and mesh.shape.get(MODEL, 1) > 1 and jax.process_count() > 1:
        raise ValueError(
            "rows in chunks, or logits that do not fit, need a mesh whose axis 'model' has one "
            "part where several processes run"
        )
    shifted, grouped = params.intercept is not None, isinstance(penalty.l1, GroupNorms)
    loss = loss if batch.offset is None else lp.with_offset(loss)
    if grouped and is_sparse(batch.features):
        raise ValueError("norms of groups need dense features; .toarray() makes sparse ones dense")

    def in_columns() -> tuple[Columns | None, Rows | Chunked]:
        shared = batch if stream or mesh is None else share_rows(batch, mesh)
        columns = columns_of(shared.features, shifted=shifted, of_many=mesh is not None)
        if grouped and columns is not None:  # the norm of scaled weights is another one
            columns = columns._replace(scale=np.ones_like(columns.scale))
        if stream:
            return columns, _in_chunks(shared, columns, mesh)
        return columns, rows_in_memory(shared, columns)

    key = stream, grouped
    if key not in held.rows:
        held.rows[key] = in_columns()
    elif not stream and batch.features.size >= _LARGE and key not in held.sizes:
        held.sizes[key] = sizes_of(held.rows[key][1])
    (columns, rows), sizes = held.rows[key], held.sizes.get(key)
    returned, fixed = as_affine(params), np.isinf(np.asarray(penalty.l2))
    in_users, penalty = (penalty_in_units(units, penalty) for units in (None, columns))
    l1, l2 = penalty

    def risk(v: Affine) -> float:
        return float(blocks.reduce(rows, blocks.risk_block(loss), v, None)[0])

    labels = rows.rows.labels if stream else rows.labels
    # The user's strengths count: scaled ones may be too small for float64.
    unpenalised = is_smooth(in_users) and np.max(in_users.l2) == 0
    may_run_away = unpenalised and not known.attains_minimum
    begin = params_in_units(columns, returned)
    if known.ignores_shifts and shifted:
        b = begin.intercept
        begin = begin._replace(intercept=(b - b.mean(dtype=np.float64)).astype(b.dtype))
    warm = held.starts_lower(in_users)
    start = inside(begin, l1) if warm else better_start(loss, begin, labels, l1, l2, risk)
    if stream:
        own, num_logits = returned.weights.dtype, len(returned.weights)
        solve, how = _streamed(loss, rows, num_logits, l2, solver, rng, may_run_away)
        polish = solve
    else:
        n, d = rows.features.shape
        name = solver if isinstance(solver, str) else ""
        large = _is_sampled(name, n, d, len(returned.weights)) and not is_sparse(rows.features)
        large = large and not grouped
        size = n // FIRST_SHARE if large and mesh is None else n
        how = "; Hessians of sampled rows" if size < n else ""
        solver_of = partial(_solve, loss, known, rows, penalty, solver, rng, may_run_away, held)
        # Near the minimum the Hessian of all rows makes proximal Newton converge quadratically.
        polished = n if name == "proximal_newton" else size
        solve, polish = partial(solver_of, size), partial(solver_of, polished)
        wide = row_space.is_wide(rows.features, returned.weights.dtype, l2)
        if name == "newton_cg" and mesh is None and wide and not is_sparse(rows.features):
            how = "; in coordinates of the rows"
            solve = partial(_solve_wide, loss, rows, l2, rng, solve)
        own = _dtype_to_compute_in(returned.weights.dtype, name, rows.features, start)
    start = share_model(jax.tree.map(lambda x: x.astype(own), start), mesh)
    if fixed.any():
        solve, polish = (partial(_with_zeros, fixed, x) for x in (solve, polish))
        # The gradient of such a weight is no slope.
        in_users, penalty = (
            x._replace(l1=x.l1._replace(l1=np.where(fixed, FIXED, x.l1.l1)))
            for x in (in_users, penalty)
        )

    def locally(found: Certificate) -> tuple[Certificate, int]:
        """The certificate with a bound from the Hessian, where that is smaller."""
        bound, here = found.gap_bound, (loss, known, penalty, found.affine, _in_dense_blocks(rows))
        if len(free):
            bound = np.fmin(free_bound(*here, free), bound)
        if few and bound > stop.tol:
            bound = np.fmin(local_bound(*here) + float(found.value_error), bound)
        return found._replace(gap_bound=bound), 2 * stream

    def gradient_norm(v: Affine) -> tuple[float, int]:
        """The largest entry of the gradient in the user's units at a point, and the passes."""
        block = blocks.evaluation_block(loss, False, shifted)
        (_, g, _), _ = blocks.reduce(rows, block, v, None)
        g = gradient_out_of_units(columns, to_host(g))
        w = v.weights if columns is None else v.weights * columns.scale[None]
        return float(_steepest(g, v._replace(weights=w), *in_users)), int(stream)

    few = sum(map(np.size, jax.tree.leaves(start))) <= LARGEST_HESSIAN
    few = few and known.convex and known.self_concordance is not None and not grouped
    free = np.zeros(0, int)
    if not stream and mesh is None and not grouped:
        free = free_columns(known, penalty, len(rows.weights), start.weights.shape)
    problem = Solvable(
        solve=solve,
        polish=polish,
        certify=partial(certify, loss, known, penalty, rows=rows, sizes=sizes),
        locally=locally,
        has_dearer=few or len(free) > 0,
        added=partial(_added, loss, rows),
        sensitivity=lambda v: float(blocks.sensitivity(loss, rows, v)),
        convex=known.convex,
        ignores_shifts=known.ignores_shifts,
        lower_bound=known.lower_bound,
        has_l1=not is_smooth(in_users),
        gradient_norm=gradient_norm,
        runs_away=lambda v: may_run_away and separates(rows, v),
        columns=columns,
    )
    solved = certified(problem, start, stop, dtypes_of(params))
    held.solved = None if solved.certificate is None else in_users
    return solved, how


def rows_in_memory(batch: Batch, columns: Columns | None) -> Rows:
    """Rows on the device, with float64 weights."""
    parts = (batch.features, labels_of(batch), normalised_weights(batch))
    features, *others = on_device(parts)
    return Rows(in_units(columns, features), *others)


def _in_chunks(batch: Batch, columns: Columns | None, mesh: Mesh | None) -> Chunked:
    """Rows with float64 weights that sum to one over the rows of all processes."""
    features = batch.features
    if is_on_device(features):
        batch = batch if mesh is None else share_rows(batch, mesh)
        return chunked(rows_in_memory(batch, columns), mesh)
    n = len(batch.labels)
    weights = np.ones(n) if batch.weights is None else np.asarray(batch.weights, np.float64)
    largest = weights.max() if mesh is None else all_gather(weights.max()).max()
    weights = weights / largest  # their sum may be beyond float64
    total = weights.sum() if mesh is None else all_gather(weights.sum()).sum()
    features = features if hasattr(features, "dtype") else np.asarray(features)
    rows = Rows(features, jax.tree.map(np.asarray, labels_of(batch)), weights / total)
    return chunked(rows, mesh, None if columns is None else partial(_adapted, columns))


def _in_dense_blocks(rows: Any) -> Any:
    """Rows in memory or in chunks, sparse ones as blocks that are made dense."""
    if isinstance(rows, Chunked):
        adapted = rows.adapted or (lambda rows: rows)
        if is_on_device(rows.rows.features):
            return rows._replace(rows=_in_dense_blocks(rows.rows))
        return rows._replace(adapted=lambda rows: _in_dense_blocks(adapted(rows)))
    features = rows.features
    return rows._replace(features=DenseBlocks(features)) if is_sparse(features) else rows


def _adapted(columns: Columns, rows: Rows) -> Rows:
    return rows._replace(features=in_units(columns, rows.features))


def _is_sampled(solver: str, n: int, d: int, num_logits: int) -> bool:
    """Whether Hessians are made of a sample of the rows."""
    if solver not in _SAMPLED_ABOVE or n < _ROWS_PER_FEATURE * d:
        return False
    if on_accelerator():
        return n * d * num_logits > _SAMPLED_ABOVE_ON_ACCELERATORS
    return n * d > _SAMPLED_ABOVE[solver]


def _added(loss: Callable, rows: Rows | Chunked, point: Affine, intercept) -> tuple[float, float]:
    """The amount by which another intercept raises the mean loss, and the most by which rounding
    may have changed that amount."""
    change = intercept - point.intercept
    (rise, size), _ = blocks.reduce(rows, blocks.added_block(loss), point, None, change)
    return float(rise), (blocks.depth(rows) + EVALUATED) * UNIT * float(size)


@jit_by_shape
def _steepest(g: Affine, v: Affine, l1, l2):
    """The largest entry of the smallest subgradient, from the gradient of the mean loss."""
    g = lp.with_ridge(g, l2, v)
    slope = lp.smallest_subgradient(v.weights, g.weights, l1)
    return lp.largest(g._replace(weights=slope))


def _dtype_to_compute_in(dtype, solver: str, features: Any, start: Affine) -> np.dtype:
    """Float64 where a solver takes milliseconds in it, else the dtype of the parameters."""
    small = {
        "proximal_newton": features.size * len(start.weights) <= SMALL,
        "newton_cholesky": is_cheap(len(features), sum(map(np.size, jax.tree.leaves(start)))),
    }
    return np.dtype(np.float64) if small.get(solver) else np.dtype(dtype)


def _solve(
    loss: Callable, known: Known, rows: Rows, penalty: Penalty, solver: str | Callable, rng,
    may_run_away: bool, held: Held, size: int, start: Affine, stop: Stop,
) -> Outcome:  # fmt: skip
    """One run of a solver over rows in memory, in the dtype of the start."""
    (l1, l2), dtype = penalty, start.weights.dtype
    l1, l2 = l1._replace(l1=_held(l1.l1, dtype)), _held(l2, dtype)
    rows = rows._replace(weights=rows.weights.astype(dtype))
    newton = solver == "newton_cg" and size == len(rows.weights)
    oracle = LinearOracle(loss, rows, l2, measures_curvature=not newton)

    if may_run_away:
        stop = _until_separated(stop, loss, rows)
    if callable(solver):
        return solver(oracle, start, stop=stop, rng=rng)
    if isinstance(l1, GroupNorms):
        return solve_groups(oracle, start, l1, stop=stop, lower_bound=known.lower_bound)
    on_host = is_sparse(rows.features) and rows.features.size <= MOST_NUMBERS
    on_host = on_host and len(start.weights) == 1 and not on_accelerator()
    on_host = on_host and not is_shared(rows.features)
    if solver == "proximal_newton":
        options: dict = {"first_size": size, "lower_bound": known.lower_bound}
        if on_host and not l1.has_bounds:
            l1, options["pieces"] = l1.l1, pieces_on_host

        def over(oracle: LinearOracle, start: Affine, l1: Any, stop: Stop) -> Outcome:
            return proximal_newton(oracle, start, l1, rng=rng, stop=stop, **options)

        with np.errstate(over="ignore", invalid="ignore"):  # a step that is no number is shortened
            if held.solved is None or not _keeps_columns(rows.features):
                return over(oracle, start, l1, stop)
            found, held.columns = solve_over_kept(
                over, oracle, start, l1, stop=stop, lower_bound=known.lower_bound, kept=held.columns
            )
            return found
    if solver == "newton_cholesky":
        return newton_cholesky(oracle, start, known=known, stop=stop)
    if solver == "lbfgs":
        return lbfgs(oracle, start, stop=stop, rng=rng)
    if on_host and known.convex and np.all(np.asarray(l2) > 0):
        found, final = newton_on_host(loss, rows, l2, start, stop=stop)
        if final:
            return found
        stop = stop._replace(max_steps=stop.max_steps + 1 - len(found.trace))
        then = newton_cg(oracle, found.point.params, stop=stop, rng=rng)
        return concatenated(found, then)
    return newton_cg(oracle, start, stop=stop, first_size=size, rng=rng)


def _keeps_columns(features: Any) -> bool:
    """Whether a copy of some columns saves time along a path."""
    large = features.size > _SAMPLED_ABOVE["proximal_newton"]
    return large and not is_sparse(features) and not is_shared(features)


def _with_zeros(fixed: np.ndarray, solve: Callable, start: Affine, stop: Stop) -> Outcome:
    """One run of a solver, whose point has zeros where weights are fixed."""
    found = solve(start, stop)
    weights = found.point.params.weights * ~fixed
    params = found.point.params._replace(weights=weights)
    return found._replace(point=found.point._replace(params=params), certificate=None)


def _solve_wide(
    loss: Callable, rows: Rows, l2, rng, otherwise: Callable, start: Affine, stop: Stop
) -> Outcome:
    """One run of newton_cg in coordinates of the rows; ``otherwise`` runs where there are none."""
    l2 = _held(l2, start.weights.dtype)
    factor = row_space.factor_of(rows.features, l2, start)
    if not row_space.is_sound(factor):
        return otherwise(start, stop)
    share = len(factor) / rows.features.shape[1]

    def counted(step: Step) -> Step:
        return step._replace(passes=row_space.BEFORE + share * step.passes)

    weights = rows.weights.astype(start.weights.dtype)
    oracle = LinearOracle(loss, Rows(factor, rows.labels, weights), np.mean(l2))
    # An entry of the gradient in W is at most the norm of the gradient in U.
    inner_stop = stop._replace(
        gradient_tol=stop.gradient_tol / len(factor) ** 0.5,
        watch=lambda step, point: stop.watch(counted(step), point),
    )
    inner = row_space.inside(rows.features, factor, start)
    found = newton_cg(oracle, inner, stop=inner_stop, rng=rng)
    params = row_space.outside(rows.features, factor, l2, found.point.params)
    return found._replace(
        point=found.point._replace(params=params),
        passes=row_space.BEFORE + share * found.passes + row_space.AFTER,
        trace=tuple(map(counted, found.trace)),
    )


def _held(strength: Any, dtype) -> Any:
    """The strengths for which the dtype has room. A stronger penalty makes a weight zero in
    float32; the penalty as given is certified, and solved in float64 if the certificate asks for
    more."""
    return np.minimum(strength, _STRONGEST) if dtype == np.float32 else strength


def _until_separated(stop: Stop, loss: Callable, rows: Rows | Chunked) -> Stop:
    """The stop that also ends at a point that proves that there is no finite minimiser."""

    def watch(step, point: Point | None) -> str | None:
        status = stop.watch(step, point)
        if status is not None or point is None:
            return status
        z = point.kept if isinstance(point.kept, jax.Array) else None
        separated = is_separated(loss, rows, point.params, z, float(point.value))
        return "no_finite_minimiser" if separated else None

    return stop._replace(watch=watch)


def _streamed(
    loss: Callable,
    source: Chunked,
    num_logits: int,
    l2: Any,
    solver: str | Callable,
    rng,
    may_run_away: bool,
) -> tuple[Callable, str]:
    """The function that solves rows in chunks, and a description of its method in words."""
    n, host = len(source.rows.weights), jax.local_devices(backend="cpu")[0]
    memory = _SHARE_FOR_SAMPLE * min(free_memory(default_device()), free_memory(host))
    most = most_rows(source, num_logits, memory)
    how = f"; rows read in {source.count} chunks"
    if is_on_device(source.rows.features):
        how = "; logits are not kept"
    if most and solver == "newton_cg":
        how += ", Hessians of sampled rows"

    def solve(start: Affine, stop: Stop) -> Outcome:
        dtype = start.weights.dtype
        oracle = ChunkedOracle(loss, source, _held(l2, dtype), dtype, most or n)
        if may_run_away:
            stop = _until_separated(stop, loss, source)
        if callable(solver) or solver == "lbfgs":
            chosen = solver if callable(solver) else lbfgs
            return chosen(oracle, start, stop=stop, rng=rng)
        first = min(max(1, n // FIRST_SHARE), most) if most else n
        return newton_cg(oracle, start, stop=stop, first_size=first, rng=rng)

    return solve, how
