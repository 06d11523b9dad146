"""Converts users' arguments to what the module takes.

Functions raise a TypeError or a UsageError that names the argument.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from typing import Any

from atelier import _atelier

LARGEST = 2**63 - 1


def _shown(value: Any) -> str:
    """A value as shown in messages: arrays and long lists by their type."""
    text = repr(value)
    return text if len(text) <= 40 and "\n" not in text else f"of type {type(value).__name__}"


def whole(name: str, value: Any, least: int | None = 0) -> int:
    """An int of at least `least`; of any sign when that is None."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {_shown(value)}; it must be a whole number, an int") from None
    if number > LARGEST or number < (-LARGEST if least is None else least):
        raise _atelier.UsageError(
            f"{name} is {number}; it must be "
            f"{'a number below 2**63' if least is None else f'from {least} to 2**63-1'}"
        )
    return number


def real(name: str, value: Any) -> float:
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} is {_shown(value)}; it must be a number")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {_shown(value)}; it must be a number") from None


def word(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {_shown(value)}; it must be a str")
    return str(value)


def path_word(name: str, value: Any) -> str:
    """A path, as a str. Arrays have their own message, since samples may be passed as data."""
    try:
        return os.fsdecode(os.fspath(value))
    except TypeError:
        what = (
            "arrays are not read; write them to a file first (.npz, or a folder of images)"
            if hasattr(value, "shape")
            else "a str or an os.PathLike"
        )
        raise TypeError(f"{name} is {_shown(value)}; it must be a path: {what}") from None


def strings(name: str, value: Any) -> list[str]:
    """One str or several."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, (bytes, bytearray)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {_shown(value)}; it must be a str, or several")
    several = list(value)
    for one in several:
        if not isinstance(one, str):
            raise TypeError(f"{name} holds {_shown(one)}; each must be a str")
    return [str(one) for one in several]


def indices(name: str, value: Any) -> list[int | str]:
    """One id or name, or several."""
    several = (
        [value]
        if isinstance(value, str)
        or (hasattr(value, "__index__") and getattr(value, "ndim", 0) == 0)
        else value
    )
    if isinstance(several, (bytes, bytearray)) or not isinstance(several, Iterable):
        raise TypeError(
            f"{name} is {_shown(value)}; it must be an id (an int) or a name (a str), or several"
        )
    found: list[int | str] = []
    for one in several:
        if isinstance(one, str):
            found.append(str(one))
            continue
        try:
            found.append(operator.index(one))
        except TypeError:
            raise TypeError(
                f"{name} holds {_shown(one)}; each must be an id (an int) or a name (a str)"
            ) from None
        if abs(found[-1]) > LARGEST:
            raise _atelier.UsageError(f"{name} holds {found[-1]}; there is no such class")
    return found
