"""The command line of a dataclass: its help in words, and each refusal in one sentence.

tyro makes the options from the fields. What it would show of Python's types is put into words here,
in one place for the command ``jaxclf`` and for the experiments.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from jaxclf.commands.console import refuse

try:
    from tyro._errors import on_parse_error
except ImportError:  # another version of tyro, which then prints its own boxes
    on_parse_error = nullcontext

_Command = TypeVar("_Command")

_CONFIG = (
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.OmitArgPrefixes,
    tyro.conf.PositionalRequiredArgs,
)
_VALUES = {int: "a whole number", float: "a number", str: "a text", Path: "a path"}
"""The kinds of value that are named in words."""
_METAVARS = {
    "coordinator": "HOST:PORT",
    "devices": "NUMBER",
    "data_dir": "FOLDER",
    "source": "FOLDER",
    "grid": "AXIS",
    "missing": "TEXT",
    "shots": "NUMBER",
}
"""The values of options whose type does not tell what they are."""
_WIDEST = 100
"""The longest line of a description, in letters."""
_COLOURS = r"\x1b\[[0-9;]*m"
"""The sequences by which terminals change colours."""
_CLOSE = 0.6
"""An option is taken for another one if so large a share of their letters agrees."""


def parse(
    command_type: type[_Command], prog: str, arguments: Sequence[str] | None = None
) -> _Command:
    """An instance of a dataclass, made of the options on the command line.

    Args:
      command_type: the dataclass. Its docstring describes the command, those of its fields the
        options. Fields without a default are given by their place.
      prog: the words that the user types before the options.
      arguments: the words after them; by default those of this process.

    Raises:
      SystemExit: with status 0 after ``--help``, and with status 2 after one sentence about what
        cannot be used.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options: list[str] = ["--help"]
    registry = ConstructorRegistry()
    registry.struct_rule(partial(_in_words, options, []))
    asked = {"-h", "--help"} & set(arguments)
    page = _help_page(command_type) if asked else nullcontext()
    with page, on_parse_error(partial(_refuse, options)):
        return tyro.cli(
            command_type,
            prog=prog,
            description="",
            args=arguments,
            config=_CONFIG,
            registry=registry,
        )


def closest(name: str, known: Sequence[str]) -> str:
    """A question that names the known word that is most like another one; empty if none is."""
    names = {word.lstrip("-"): word for word in known}
    found = difflib.get_close_matches(name.lstrip("-"), names, 1, _CLOSE)
    return f"; did you mean {names[found[0]]}?" if found else ""


def wrapped(text: str, indent: int = 0) -> str:
    """A paragraph in lines that fit the terminal, indented from the second one on."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_on_hyphens=False)


@contextmanager
def _help_page(command_type: type) -> Iterator[None]:
    """Prints the docstring before tyro's help, with its usage in lines that fit the terminal."""
    paragraphs = inspect.cleandoc(command_type.__doc__ or "").split("\n\n")
    print("\n\n".join(wrapped(" ".join(part.split())) for part in paragraphs), end="\n\n")
    page = io.TextIOWrapper(io.BytesIO(), sys.stdout.encoding)
    page.isatty = sys.stdout.isatty  # tyro asks this before it uses colours
    try:
        with redirect_stdout(page):
            yield
    finally:
        page.seek(0)
        usage, _, rest = page.read().partition("\n")
        usage = re.sub(_COLOURS, "", usage)
        print(wrapped(usage, indent=len("usage: ")), rest, sep="\n", end="")


def _in_words(
    options: list[str], entered: list[type], info: StructTypeInfo
) -> StructConstructorSpec | None:
    """tyro's fields of a dataclass with their help in words; the names of options are collected."""
    if not dataclasses.is_dataclass(info.type) or info.type in entered:
        return None  # tyro's own rules come next
    entered.append(info.type)
    spec = ConstructorRegistry.get_struct_spec(info)
    entered.remove(info.type)
    if not isinstance(spec, StructConstructorSpec):
        return spec
    own = {field.name: field for field in dataclasses.fields(info.type)}
    fields = [_field_in_words(field, own[field.name]) for field in spec.fields]
    for field in fields:
        given = [name for x in get_args(field.type)[1:] if (name := getattr(x, "name", None))]
        options.append("--" + (given or [field.name])[0].replace("_", "-"))
    return dataclasses.replace(spec, fields=tuple(fields))


def _field_in_words(field: StructFieldSpec, own: dataclasses.Field) -> StructFieldSpec:
    stripped = get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type
    required = own.default is dataclasses.MISSING and own.default_factory is dataclasses.MISSING
    if dataclasses.is_dataclass(stripped):
        # The options of a part that a command cannot do without are listed as its own.
        annotation = tyro.conf.arg(name="") if required else None
        return field if annotation is None else _annotated(field, annotation)
    helptext = field.helptext() if callable(field.helptext) else field.helptext
    field = dataclasses.replace(field, helptext=" ".join((helptext or "").split()))
    if field.default is None or field.default is False or field.default == ():
        field = _annotated(field, tyro.conf.arg(help_behavior_hint=""))
    kind, several = _kind_of(stripped)
    if kind is None:
        return field
    metavar = own.name.upper() if required else _metavar(own.name, kind, field.default)
    spec = PrimitiveConstructorSpec(
        nargs="*" if several else 1,
        metavar=f"{metavar} …" if several else metavar,
        instance_from_str=partial(_value, kind, several),
        is_instance=lambda value: True,
        str_from_instance=lambda value: list(map(str, value)) if several else [str(value)],
    )
    return _annotated(field, spec)


def _annotated(field: StructFieldSpec, annotation: Any) -> StructFieldSpec:
    return dataclasses.replace(field, type=Annotated[field.type, annotation])


def _kind_of(annotation: Any) -> tuple[type | None, bool]:
    """The kind of an option's values, ``None`` if tyro is to see to them, and whether it takes
    several."""
    several = get_origin(annotation) is tuple
    kinds = [kind for kind in get_args(annotation) if kind not in (NoneType, Ellipsis)]
    kind = kinds[0] if len(kinds) == 1 else annotation
    return (kind if kind in _VALUES else None), several


def _metavar(name: str, kind: type, default: Any) -> str:
    if name in _METAVARS:
        return _METAVARS[name]
    if kind is Path:
        return "FILE" if default and Path(default).suffix else "FOLDER"
    return "NAME" if kind is str else "NUMBER"


def _value(kind: type, several: bool, texts: list[str]) -> Any:
    if not texts:
        raise ValueError("expected at least one value")
    try:
        values = tuple(map(kind, texts))
    except ValueError:
        raise ValueError(f"expected {_VALUES[kind]}, got {' '.join(texts)!r}") from None
    return values if several else values[0]


def _refuse(options: Sequence[str], event: Any) -> None:
    """Ends the command with the sentence for what tyro refuses; tyro words what is not known here.

    Events are told by their names, as tyro reserves to change their classes.
    """
    kind, see = type(event).__name__, f"see {event.prog} --help"
    if kind == "UnrecognizedArgs" or (kind == "MissingArgs" and event.unrecognized_tokens):
        tokens = event.tokens if kind == "UnrecognizedArgs" else event.unrecognized_tokens
        word = next((x for x in tokens if x.startswith("-")), tokens[0]).partition("=")[0]
        if word.startswith("-"):
            meant = closest(word, options)
            refuse(f"{event.prog} has no option {word}{meant or f'; {see}'}")
        refuse(f"{event.prog} has no place for {word!r}; {see}")
    if kind == "MissingArgs":
        names = [missing.arg.lowered.metavar for missing in event.missing_arguments]
        refuse(f"{event.prog} needs {' and '.join(names)}; {see}")
    if kind == "InvalidChoice":
        known = ", ".join(event.choices)
        refuse(f"{event.argument.display_name()} must be one of {known}, got {event.value!r}")
    if kind == "BadValue":
        argument, metavar = event.argument, event.argument.lowered.metavar
        if argument.is_positional():
            refuse(f"{event.prog} needs {metavar}; {see}")
        refuse(f"{argument.display_name()} needs a value, {metavar}")
    if kind == "InstantiationFailure" and event.argument is not None:
        refuse(f"{event.argument.display_name()}: {event.message}")
