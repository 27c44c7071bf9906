"""Settings from a YAML file to typed values; each error says where it is, what was found and what was expected.

What a part of a config may say is declared once: as a frozen dataclass that inherits `Settings`, or as a `TypedDict`
where another class takes it as keyword arguments. The annotations say everything: `int`, `float`, `bool`, `str`,
`Literal`, lists, tuples, mappings, unions of these, and `Annotated[..., Rule]` for a range.
"""

from __future__ import annotations

import math
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from mi2v_lite.io.files import check_ordinary, read_bytes

T = TypeVar("T")


class Rule(NamedTuple):
    """A condition on a value beside its type.

    Attributes:
        accepts: whether a value of the right type may be used.
        words: what stands after the type in an error, as in "a number above 0".
    """

    accepts: Callable[[Any], object]
    words: str


Count = Annotated[int, Rule(lambda x: x >= 1, "of at least 1")]
# Clips and their sides have an upper end, so that a slip in a number is told before the memory is full.
Side = Annotated[int, Rule(lambda x: 1 <= x <= 8192, "from 1 to 8192")]
Frames = Annotated[int, Rule(lambda x: 1 <= x <= 1024, "from 1 to 1024")]
Whole = Annotated[int, Rule(lambda x: x >= 0, "of at least 0")]
Seed = Annotated[int, Rule(lambda x: 0 <= x < 2**63, "of at least 0 and below 2**63")]
Amount = Annotated[float, Rule(lambda x: x >= 0, "of at least 0")]
Positive = Annotated[float, Rule(lambda x: x > 0, "above 0")]
Share = Annotated[float, Rule(lambda x: 0 <= x <= 1, "from 0 to 1")]
PartialShare = Annotated[float, Rule(lambda x: 0 <= x < 1, "of at least 0 and below 1")]
Name = Annotated[str, Rule(re.compile("[A-Za-z0-9_-]+").fullmatch, "of letters, digits, _ and -")]

LARGEST_CONFIG = 2**20  # bytes of a config, which PyYAML reads in about ten seconds
# What YAML 1.1 takes for text and people mean as a number: an exponent without a dot before it or a sign in it.
_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_NOUNS = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    NoneType: ("nothing", "nothing"),
    Any: ("a value", "values"),
}
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 60, 60


class SettingError(ValueError):
    """A setting that cannot be used. `inside` adds to the message where it stands."""


class _Misfit(Exception):
    """A value does not fit its annotation; the message is advice for the end of the error."""


@contextmanager
def inside(where: str) -> Iterator[None]:
    """Puts `where` before the message of a `SettingError` that is raised in this context."""
    try:
        yield
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from None


class Settings:
    """A base class for frozen dataclasses whose values all fit their annotations.

    Numbers get the annotated type, and lists become tuples where the annotation says so. This holds however an instance
    is made: by `read`, by its constructor or by `dataclasses.replace`.
    """

    def __post_init__(self) -> None:
        """Checks and converts all values.

        Raises:
            SettingError: If one does not fit; it names the setting, its value and what was expected.
        """
        for key, hint in _hints(type(self)).items():
            object.__setattr__(self, key, _fitting(key, getattr(self, key), hint))
        self.check()

    def check(self) -> None:
        """Raises `SettingError` for what only several settings together show to be wrong."""


def given(cls: type, content: Any) -> dict[str, Any]:
    """The settings that a mapping gives, each as `cls` declares it. What the mapping leaves out stays out.

    Args:
        cls: a `Settings` class or a `TypedDict`.
        content: a mapping, or None for an empty section.

    Raises:
        SettingError: If `content` is no mapping, or has an unknown key or a value that does not fit.
    """
    if not isinstance(content, Mapping | None):
        raise SettingError(f"expected a mapping of names to values, found {shown(content)}.")
    known, content = _hints(cls), content or {}
    for key in content:
        if key not in known:
            raise SettingError(f"unknown key {shown(key)}{nearest(key, known)}")
    return {key: _fitting(key, value, known[key]) for key, value in content.items()}


def read(cls: type[T], content: Any) -> T:
    """Makes an instance of the `Settings` class `cls` from a mapping; an instance of it is returned as it is.

    Args:
        cls: the class.
        content: a mapping, None for an empty section, or an instance.

    Raises:
        SettingError: As `given` does, and if a setting is missing.
    """
    if isinstance(content, cls):
        return content
    values = given(cls, content)
    for item in fields(cls):
        if item.name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise SettingError(f"{item.name} is missing, expected {_expected(_hints(cls)[item.name])}.")
    return cls(**values)


def read_yaml(path: Path) -> Any:
    """Reads a YAML file: numbers, texts, lists and mappings only, never an object of Python's.

    Raises:
        SettingError: If the file cannot be read, is not YAML, or gives a key twice in one mapping.
    """
    try:
        check_ordinary(path)
        return yaml.load(read_bytes(path, LARGEST_CONFIG).decode("utf-8-sig"), Loader=_Loader)
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SettingError(f"Cannot read the config {path}{place}: {error.problem}.") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"Cannot read the config {path}: it is not text in UTF-8, expected a YAML file.") from error
    except RecursionError as error:
        raise SettingError(f"Cannot read the config {path}: it is nested too deeply.") from error
    except Exception as error:  # the system's, and several of PyYAML's for dates that do not exist, depth, odd tags
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise SettingError(f"Cannot read the config {path}: {said}.") from error


def nearest(name: Any, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the known name that is nearest to it, or all of them."""
    known = list(known)
    close = get_close_matches(str(name).lower().replace("-", "_"), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known) or 'none'}."


def shown(value: Any) -> str:
    """A value as an error shows it: written as in YAML, and never long."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where YAML silently keeps the last; merging (`<<`) may override."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if (key.tag, key.value) in first:
                before = first[key.tag, key.value]
                raise SettingError(f"line {line}: the key {shown(key.value)} is given twice, first in line {before}.")
            first[key.tag, key.value] = line
        return node


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _fitting(key: str, value: Any, hint: Any) -> Any:
    """The value converted to its annotation; raises `SettingError` if it does not fit."""
    try:
        return _converted(value, hint)
    except _Misfit as misfit:
        advice = str(misfit)
        if isinstance(value, str) and _fits(_without_quotes(value), hint):
            advice = "; leave out the quotes"
        elif isinstance(value, bool) and any(_fits(word, hint) for word in ("yes", "no", "on", "off")):
            advice = "; YAML takes yes, no, on and off for true or false, so put such a word in quotes"
        end = "" if advice.endswith("?") else "."
        raise SettingError(f"{key} is {shown(value)}, expected {_expected(hint)}{advice}{end}") from None


def _fits(value: Any, hint: Any) -> bool:
    try:
        _converted(value, hint)
    except _Misfit:
        return False
    return True


def _without_quotes(text: str) -> bool | float | str:
    """What YAML would have read if the text had no quotes."""
    try:
        return {"true": True, "false": False}.get(text.lower(), text) if text.isalpha() else float(text)
    except ValueError:
        return text


def _converted(value: Any, hint: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = _converted(value, inner[0])
        if inner[1].accepts(value):
            return value
    elif origin in (Union, UnionType):
        advice = ""
        for option in inner:
            try:
                return _converted(value, option)
            except _Misfit as misfit:
                advice = advice or str(misfit)
        raise _Misfit(advice)
    elif origin is Literal:
        if isinstance(value, str):
            if value in inner:
                return value
            close = nearest(value, inner)
            raise _Misfit(close if close.endswith("?") else "")
    elif origin in (list, tuple):
        fixed = origin is tuple and inner[-1] is not Ellipsis
        if isinstance(value, list | tuple) and (not fixed or len(value) == len(inner)):
            items = inner if fixed else inner[:1] * len(value)
            return origin(_converted(item, each) for item, each in zip(value, items, strict=True))
    elif origin is dict:
        if isinstance(value, Mapping):
            return {_converted(key, inner[0]): _converted(item, inner[1]) for key, item in value.items()}
    elif hint in (int, float):
        number = _number(value)
        if number is not None and (hint is float or number == int(number)):
            return hint(number)
    elif hint is str:
        if isinstance(value, str) and value:
            return value
    elif hint in (bool, NoneType):
        if isinstance(value, hint):
            return value
    else:  # a section that its owner reads, once it knows as what
        return value
    raise _Misfit


def _number(value: Any) -> int | float | None:
    """A finite number, also one that YAML takes for text, and None for anything else."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= sys.float_info.max else None
    return None


def _expected(hint: Any, many: bool = False) -> str:
    """An annotation in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{_expected(inner[0], many)} {inner[1].words}"
    if origin is Literal:
        return ("" if many else "one of ") + ", ".join(map(repr, inner))
    if origin in (Union, UnionType):
        return " or ".join(_expected(option, many) for option in inner)
    if origin in (list, tuple):
        count = f"{len(inner)} " if origin is tuple and inner[-1] is not Ellipsis else ""
        return f"{'lists' if many else 'a list'} of {count}{_expected(inner[0], True)}"
    if origin is dict:
        return f"a mapping of {_expected(inner[0], True)} to {_expected(inner[1], True)}"
    return _NOUNS.get(hint, ("a mapping", "mappings"))[many]
