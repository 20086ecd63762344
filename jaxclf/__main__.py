"""``python -m jaxclf`` is the ``jaxclf`` command."""

from jaxclf.commands.cli import main

main()
