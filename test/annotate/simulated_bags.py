"""Bags of sessions with several attempts each, made from the recorded ones of the demo."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ifailsense_ros.core.effects import BoundaryKind
from ifailsense_ros.data.export.bag_writer import EpisodeBagWriter
from ifailsense_ros.data.readers.rosbag import RosbagReader
from ifailsense_ros.data.records import EpisodeRecord

DEMO = Path(__file__).resolve().parents[2] / "bags" / "demo"
SECOND = 10**9
MILLISECOND = 10**6
STEPS = 6


def write_sessions(folder: Path, scenes: Sequence[str], copies: int, seed: int) -> dict[str, bool]:
    """A bag a scene, with its attempts `copies` times, a little different each time.

    Args:
        folder: of the bags.
        scenes: "00" to "05": each has a success and a failure.
        copies: of both.
        seed: of the brightness and the noise of the copies.

    Returns:
        Whether an episode succeeded, by its key as a reader of `folder` gives it.
    """
    rng = np.random.default_rng(seed)
    truth = {}
    for number, scene in enumerate(scenes):
        (success,) = RosbagReader(DEMO / f"test-{scene}-success")
        (failed,) = RosbagReader(
            next(DEMO.glob(f"test-{scene}-[!s]*"), DEMO / f"test-{scene}-semantic")
        )
        name = f"session-{number}"
        folder.mkdir(exist_ok=True)
        with EpisodeBagWriter(folder / name, 2) as bag:
            for attempt in range(2 * copies):
                record = (success, failed)[attempt % 2]
                _attempt(bag, record, (10 + 20 * attempt) * SECOND, rng)
                truth[f"{name}/{attempt}"] = attempt % 2 == 0
    return truth


def _attempt(
    bag: EpisodeBagWriter, record: EpisodeRecord, begin_ns: int, rng: np.random.Generator
) -> None:
    identifier, text = uuid.UUID(bytes=rng.bytes(16)), record.instruction
    count = len(record.stamps_ns)
    keyframes = record.read(np.linspace(0, count - 1, STEPS).astype(int).tolist())
    brighter = int(rng.integers(-12, 13))
    bag.instruction(begin_ns - 2 * MILLISECOND, text)
    bag.boundary(BoundaryKind.START, begin_ns, begin_ns - MILLISECOND, identifier, text)
    end = begin_ns
    for k in keyframes:
        end = begin_ns + k.stamp_ns - keyframes[0].stamp_ns
        views = (
            view.astype(np.int16) + brighter + rng.integers(-4, 5, view.shape, np.int16)
            for view in k.views
        )
        bag.views(end, tuple(v.clip(0, 255).astype(np.uint8) for v in views))
    bag.boundary(BoundaryKind.END, end, end + MILLISECOND, identifier, text)
