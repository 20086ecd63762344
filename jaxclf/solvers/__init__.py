"""Solvers of convex problems over all rows, and the parts of a solver of your own."""

from jaxclf.solvers.oracle import Point as Point
from jaxclf.solvers.oracle import hessian_product as hessian_product
from jaxclf.solvers.oracle import move as move
from jaxclf.solvers.oracle import run as run
from jaxclf.solvers.result import Iteration as Iteration
from jaxclf.solvers.result import Outcome as Outcome
from jaxclf.solvers.result import Stop as Stop
