"""Questions about the scenes of a store's episodes: ``ifailsense sim questions --data DIR``.

Where things are at the start and at the end, and what is otherwise than before, read from the
stored states and written beside the shards as `questions.parquet`. They are for stage 0 of a base
made here (docs/training.md).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.data.episode_store import list_shards, read_shard
from ifailsense_ros.data.scene_questions import Asked, Key, key_of, write_questions

from .layout import COLOURS, DOOR_REACH, DRAWER_STROKE
from .oracle import MOVED_BAND, PUSH_BAND, ROTATE_BAND, WorldState, support, wrap_angle
from .render_again import settings_again
from .robot import World

RIGHT = (0.2, -0.2)
"""y between which "how far right" goes from 0 to 9, metres: nearly all blocks lie there."""
AWAY = (0.3, 0.7)
"""x between which "how far away" goes from 0 to 9, metres."""

_WHEN = ("start", "end")
_SUPPORTS = {"table": "table", "drawer": "drawer", "slider": "cabinet", "stack": "block"}


def facts_of(state: WorldState) -> Iterator[tuple[str, str]]:
    """What can be asked about one state, and the answers.

    Digits tell how far: drawer and door from 0 to 5, blocks from 0 to 9. Hours are a clock's on the
    table: where the block's marked end points to; a block in the air has none.
    """
    yield "is the light bulb on", _yes(state.switch > 0)
    yield "is the led on", _yes(state.led)
    yield "how far is the drawer open", _digit(state.drawer, (0, DRAWER_STROKE), 5)
    yield "how far right is the door", _digit(state.door, (-DOOR_REACH, DOOR_REACH), 5)
    for colour in COLOURS:
        block, on = state.blocks[colour], support(colour, state)
        yield f"where is the {colour} block", _SUPPORTS.get(on, "air")
        yield f"how far right is the {colour} block", _digit(block.y, RIGHT, 9)
        yield f"how far away is the {colour} block", _digit(block.x, AWAY, 9)
        if on:
            hour = round(block.yaw / (2 * math.pi) * 12) % 12
            yield f"what hour does the {colour} block point to", str(hour)


def changes_of(start: WorldState, end: WorldState) -> Iterator[tuple[str, str]]:
    """What can be asked about two states, and the answers.

    As with tasks, what lies between the oracle's thresholds is not asked about.
    """
    yield "did the light bulb change?", _yes((start.switch > 0) != (end.switch > 0))
    yield "did the led change?", _yes(start.led != end.led)
    yield from _banded("did the drawer move?", abs(end.drawer - start.drawer), MOVED_BAND)
    yield from _banded("did the door move?", abs(end.door - start.door), MOVED_BAND)
    for colour in COLOURS:
        a, b = start.blocks[colour], end.blocks[colour]
        distance = math.dist((a.x, a.y, a.z), (b.x, b.y, b.z))
        yield from _banded(f"did the {colour} block move?", distance, PUSH_BAND)
        if support(colour, start) and support(colour, end):
            turned = abs(wrap_angle(b.yaw - a.yaw))
            yield from _banded(f"did the {colour} block turn?", turned, ROTATE_BAND)


def questions_of(start: WorldState, end: WorldState) -> Asked:
    """About the first and the last state of an episode."""
    facts = (
        (f"{fact} at the {when}?", answer)
        for when, state in zip(_WHEN, (start, end), strict=True)
        for fact, answer in facts_of(state)
    )
    return (*facts, *changes_of(start, end))


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _digit(value: float, ends: tuple[float, float], largest: int) -> str:
    share = (value - ends[0]) / (ends[1] - ends[0])
    return str(min(largest, max(0, round(share * largest))))


def _banded(question: str, value: float, band: tuple[float, float]) -> Asked:
    """The question, unless its answer is disputed."""
    low, high = band
    return () if low < value < high else ((question, _yes(value >= high)),)


def describe(data: Path) -> Path:
    """Write the questions of all episodes of a store; returns the file.

    Raises:
        ConfigError: no shard, or shards of another world or version.
        DataError: a shard cannot be read.
    """
    shards = list_shards(data)
    if not shards:
        raise ConfigError(f"--data {data}: no shard (*.parquet) in it")
    world = World()

    def asked() -> Iterator[tuple[Key, Asked]]:
        for shard in tqdm(shards, desc="questions", unit="shard"):
            settings_again(shard, data, None, None)
            for row in read_shard(shard, pictures=False):
                ends = (world.state_at(row.states[0]), world.state_at(row.states[-1]))
                yield key_of(row), questions_of(*ends)

    return write_questions(data, asked())


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense sim questions", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of recorded episodes")
    args = parser.parse_args(arguments)
    try:
        path = describe(args.data)
    except IFailSenseError as error:
        print(f"ifailsense sim questions: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
