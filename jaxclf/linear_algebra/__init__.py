"""The linear algebra of a linear model and its rows, for solvers and certificates."""
