"""The choice of the solver for a linear model, and the reason for it."""

from __future__ import annotations

from collections.abc import Callable

from jaxclf.solvers.newton_cholesky import MOST_PARAMETERS

SOLVERS = ("auto", "newton_cg", "newton_cholesky", "lbfgs", "proximal_newton")
IN_MEMORY = ("newton_cholesky", "proximal_newton")
"""Solvers that need the rows in memory."""
_MOST_DENSE = 8192
"""Parameters beyond which a dense Hessian is refused: it takes 256 MiB in float32."""
_MOST_WORK = 2**32
"""Multiplications of a dense Hessian beyond which conjugate gradients are cheaper."""


def choose(
    solver: str | Callable,
    num_rows: int,
    num_parameters: int,
    not_smooth: str,
    stream: bool,
    sparse: bool,
) -> tuple[str | Callable, str]:
    """The solver of a linear model, and the reason for the choice.

    ``not_smooth`` says in words which part of the objective is not smooth, if there is one.
    """
    if stream and (not_smooth or solver in IN_MEMORY):
        given = not_smooth or f"solver {name_of(solver)!r}"
        raise ValueError(f"{given} needs the rows in memory; stream=True goes without")
    if sparse and solver == "newton_cholesky":
        raise ValueError(
            "solver 'newton_cholesky' needs dense features; .toarray() makes sparse ones dense"
        )
    if solver != "auto":
        if not not_smooth and solver == "proximal_newton":
            raise ValueError(
                "solver 'proximal_newton' needs an L1 penalty or a bound on weights; newton_cg, "
                "newton_cholesky and lbfgs do without"
            )
        if not_smooth and solver != "proximal_newton":
            what = not_smooth.partition(" ")[2]
            raise ValueError(f"solver {name_of(solver)!r} takes no {what}; proximal_newton does")
        if solver == "newton_cholesky" and num_parameters > _MOST_DENSE:
            raise ValueError(
                f"newton_cholesky takes at most {_MOST_DENSE} parameters, got {num_parameters}; "
                "newton_cg takes more"
            )
        return solver, "as asked"
    if not_smooth:
        return "proximal_newton", f"a linear model with {not_smooth}"
    few = (
        not (stream or sparse)
        and num_parameters <= MOST_PARAMETERS
        and num_rows * num_parameters**2 <= _MOST_WORK
    )
    if few:
        return "newton_cholesky", f"a linear model of {num_parameters} parameters"
    return "newton_cg", "a linear model with a smooth penalty"


def name_of(solver: str | Callable) -> str:
    return solver if isinstance(solver, str) else getattr(solver, "__name__", repr(solver))
