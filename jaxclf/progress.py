"""A progress bar for work that takes long."""

from __future__ import annotations


def progress_bar():
    """A bar of :mod:`rich` with the current step and the time taken, on standard error."""
    import rich.console
    import rich.progress

    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description:<44}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeElapsedColumn(),
        console=rich.console.Console(stderr=True),
    )
