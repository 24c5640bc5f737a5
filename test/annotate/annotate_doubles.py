"""Episodes to label, out of thin air."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ifailsense_ros.annotate.episodes import Found
from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.records import EpisodeRecord

SECOND = 10**9
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=1</script>'


def record(index: int, **changes: object) -> EpisodeRecord:
    """Two cameras of different sizes, five time steps."""

    def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
        shade = 40 + 30 * (index % 6)
        views = (np.full((48, 64, 3), shade, np.uint8), np.full((40, 40, 3), 255 - shade, np.uint8))
        return tuple(Keyframe(s * SECOND, views) for s in steps)

    made = EpisodeRecord(
        source="made-up",
        key=f"monday/{index}",
        group="monday",
        instruction=f"lift block {index}",
        task="",
        category="lifting",
        kind="",
        success=None,
        stamps_ns=tuple(s * SECOND for s in range(5)),
        num_pov=2,
        read=read,
    )
    return replace(made, **changes)


def unreadable(index: int) -> EpisodeRecord:
    """Its pictures are damaged."""

    def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
        raise DataError("monday.mcap: ends too early; copy it again")

    return record(index, read=read)


def found(folder: Path, count: int = 5, **changes: object) -> list[Found]:
    """Episodes of one path."""
    path = str(folder / "monday")
    return [Found(path, f"monday/{i}", record(i, **changes)) for i in range(count)]
