"""Settings that are at their default: what a program of yesterday, without them, did as well.

A setting that is added, with a default that does what was done before, makes no other recipe, and
no other run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def changed_fields(value: Any) -> Any:
    """Like `dataclasses.asdict`, without the fields that are at their default."""
    if dataclasses.is_dataclass(value):
        return {
            f.name: changed_fields(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if getattr(value, f.name) != _default(f)
        }
    if isinstance(value, Mapping):
        return {k: changed_fields(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [changed_fields(v) for v in value]
    return value


def with_defaults(written: Any, settings: Any) -> Any:
    """What was written of settings (`asdict`), with the fields they have since been given.

    Args:
        written: of an earlier program; parts that are not of a dataclass come back as they are.
        settings: the dataclass of today; its values do not matter, only its fields and defaults.
    """
    if not isinstance(written, Mapping) or not dataclasses.is_dataclass(settings):
        return written
    whole = dict(written)
    for f in dataclasses.fields(settings):
        if f.name in written:
            whole[f.name] = with_defaults(written[f.name], getattr(settings, f.name))
        elif (default := _default(f)) is not dataclasses.MISSING:
            whole[f.name] = _written(default)
    return whole


def _written(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_written(v) for v in value]  # as JSON has it
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
