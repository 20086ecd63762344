"""The packages that extras of jaxclf bring are asked for before they are imported."""

from __future__ import annotations

from importlib.util import find_spec

COMMAND = ("jinja2", "matplotlib", "platformdirs", "tyro")
"""What the extra ``command`` brings, as it is imported."""


def require(what: str, extra: str, *packages: str) -> None:
    """Checks that packages are installed.

    Args:
      what: what needs them, for the message.
      extra: the extra of jaxclf that brings them.
      packages: their names, as they are imported.

    Raises:
      ImportError: if one is missing. The sentence names the extra.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(f"{what} needs {', '.join(missing)}: pip install 'jaxclf[{extra}]'")
