"""Frozen dataclasses from JSON, strictly: every field must be there with its type, and no other."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from ifailsense_ros.core.errors import CheckpointError


def build(cls: type, data: Mapping[str, Any], file: str, where: str = "") -> Any:
    """Dataclass `cls`, nested ones included, from a JSON object.

    Args:
        cls: the dataclass.
        data: the object.
        file: named in errors.
        where: of the object in the file, e.g. "montage."; "" for the whole.

    Raises:
        CheckpointError: a missing or unknown field, or a value of the wrong type; names it.
    """
    hints = typing.get_type_hints(cls)
    missing = [k for k in hints if k not in data]
    unknown = [k for k in data if k not in hints]
    if missing or unknown:
        what = "missing" if missing else "unknown"
        name = where + (missing or unknown)[0]
        fix = "add it" if missing else "remove it, or use the release that knows it"
        raise CheckpointError(f"{file}: {what} field {name}; {fix}")
    return cls(**{k: _convert(data[k], hint, file, where + k) for k, hint in hints.items()})


def _convert(value: Any, hint: Any, file: str, name: str) -> Any:
    """`value` of JSON as the type `hint`, without any coercion but int -> float."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _convert(value, next(a for a in args if a is not type(None)), file, name)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, dict):
            return build(hint, value, file, f"{name}.")
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(_convert(v, args[0], file, f"{name}[{i}]") for i, v in enumerate(value))
    elif isinstance(value, dict) and not isinstance(hint, type):
        return {k: _convert(v, args[1], file, f"{name}.{k}") for k, v in value.items()}
    elif hint is Any:
        return value
    elif hint is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif type(value) is hint:
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise CheckpointError(f"{file}: field {name} is {value!r}, expected {expected}; correct it")
