"""Questions about the scenes of a store's episodes: ``ifailsense sim questions --data DIR``.

Where things are at the start and at the end, read from the stored states, written beside the shards
as `questions.parquet`. They are for stage 0 of a base made here (docs/training.md).
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
from .oracle import WorldState, support
from .render_again import settings_again
from .robot import World

TABLE_HALF_WIDTH = 0.4
"""From the middle to where "how far right" is 0 or 9, metres."""

_WHEN = ("start", "end")
_SUPPORTS = {"table": "table", "drawer": "drawer", "slider": "cabinet", "stack": "block"}


def facts_of(state: WorldState) -> Iterator[tuple[str, str]]:
    """What can be asked about one state, and the answers.

    Digits tell how far: drawer and door from 0 to 5, blocks from 0 (left) to 9 (right). Hours are
    a clock's on the table: where the block's marked end points to; a block in the air has none.
    """
    yield "is the light bulb on", "yes" if state.switch > 0 else "no"
    yield "is the led on", "yes" if state.led else "no"
    yield "how far is the drawer open", _digit(state.drawer / DRAWER_STROKE, 5)
    yield "how far right is the door", _digit((state.door / DOOR_REACH + 1) / 2, 5)
    for colour in COLOURS:
        block, on = state.blocks[colour], support(colour, state)
        yield f"where is the {colour} block", _SUPPORTS.get(on, "air")
        yield (
            f"how far right is the {colour} block",
            _digit((1 - block.y / TABLE_HALF_WIDTH) / 2, 9),
        )
        if on:
            hour = round(block.yaw / (2 * math.pi) * 12) % 12
            yield f"what hour does the {colour} block point to", str(hour)


def questions_of(start: WorldState, end: WorldState) -> Asked:
    """About the first and the last state of an episode."""
    return tuple(
        (f"{fact} at the {when}?", answer)
        for when, state in zip(_WHEN, (start, end), strict=True)
        for fact, answer in facts_of(state)
    )


def _digit(share: float, largest: int) -> str:
    return str(min(largest, max(0, round(share * largest))))


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
