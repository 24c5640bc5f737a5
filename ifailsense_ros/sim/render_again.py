"""Render a recorded set again: ``ifailsense sim render --data DIR --size 336 --keyframes 8``.

Scenes come from their seeds and states from the store, so nothing is simulated; only pictures (and
videos) are made anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.data.episode_store import (
    EpisodeRow,
    list_shards,
    read_notes,
    read_shard,
    shard_path,
    shard_range,
)

from . import GENERATOR_VERSION
from .record import SOURCE, Stage, available_cores, settings_of, speed_line, staged
from .robot import SAMPLE_S
from .rollout import scene_of
from .shards import Job, Made, Summary, make_shards


def settings_again(
    shard: Path, data: Path, size: int | None, keyframes: int | None, video: bool = False
) -> dict[str, Any]:
    """The settings a shard was recorded with, with other pictures; None leaves a value as it is.

    Raises:
        ConfigError: its pictures cannot be made again by this program.
    """
    there = read_notes(shard).get("settings", {})
    if there.get("source") != SOURCE or there.get("generator") != GENERATOR_VERSION:
        raise ConfigError(
            f"{shard}: made by {there.get('source', 'another program')}, version "
            f"{there.get('generator', '1')}; this program renders {SOURCE}, version "
            f"{GENERATOR_VERSION}"
        )
    checked = settings_of(
        there["split"],
        keyframes=keyframes or there["keyframes"],
        size=size or there["size"],
        video=video,
    )
    pictures = {name: checked[name] for name in ("keyframes", "size", "pictures", "video")}
    return {**there, **pictures, "states_from": str(data)}


def rows_to_render(job: Job) -> list[EpisodeRow]:
    """The rows, without pictures, of the shard that a job of `settings_again` renders again."""
    source = shard_path(Path(job.settings["states_from"]), job.split, job.first, job.end)
    return read_shard(source, pictures=False)


def rendered(stage: Stage, settings: Mapping[str, Any], row: EpisodeRow) -> EpisodeRow:
    """A row with the pictures of its states, in the look of its scene.

    Args:
        stage: any; it has the row's look afterwards.
        settings: of `settings_again`.
        row: with the states to be shown, at 10 Hz.
    """
    with stage.timed("scene"):
        scene = scene_of(row.split, row.index, row.attempt, settings["look"], seed=settings["seed"])
        stage.world.apply_look(scene.look)
    stamps = np.arange(len(row.states), dtype=np.int64) * round(SAMPLE_S * 1e9)
    kept, images = stage.shoot(row.states, stamps, row.index, row.kind)
    return replace(row, stamps_ns=kept, images=images)


def render_rows(job: Job) -> Made:
    """The rows of a shard with other pictures."""
    with staged(job) as stage:
        for row in rows_to_render(job):
            stage.made.rows.append(rendered(stage, job.settings, row))
        return stage.made


def render(
    data: Path,
    folder: Path,
    *,
    size: int | None = None,
    keyframes: int | None = None,
    video: bool = False,
    workers: int = 1,
) -> Summary:
    """Render all shards of a store again into another folder; shards that are there are kept.

    Args:
        data: store of this world.
        folder: the new store.
        size: picture side, pixels; None: as recorded.
        keyframes: T; None: as recorded.
        video: MP4 files of both cameras as well.
        workers: processes.

    Raises:
        ConfigError: the same folder twice, no shard, or shards of another world or version.
    """
    return make_again(
        render_rows,
        Path(data),
        Path(folder),
        lambda shard: settings_again(shard, data, size, keyframes, video),
        workers=workers,
        title="render",
    )


def make_again(
    make: Callable[[Job], Made],
    data: Path,
    folder: Path,
    settings_for: Callable[[Path], Mapping[str, Any]],
    *,
    workers: int,
    title: str,
) -> Summary:
    """Make a shard from each shard of a store, with a progress bar; those that are there are kept.

    Args:
        make: makes the rows of a shard; a function at module level.
        data: the store there is.
        folder: the store to be made.
        settings_for: the settings of the new shard, of the path of the old one.
        workers: processes.
        title: of the progress bar.

    Raises:
        ConfigError: the same folder twice, no shard, or shards that `settings_for` refuses.
    """
    if folder.resolve() == data.resolve():
        raise ConfigError(f"--out {folder} is the data itself: choose another folder")
    jobs = []
    for shard in list_shards(data):
        settings = settings_for(shard)
        first, end = shard_range(shard)
        jobs.append(Job(make, folder, settings["split"], first, end, settings))
    if not jobs:
        raise ConfigError(f"--data {data}: no shard (*.parquet) in it")
    return make_shards(jobs, workers=workers, title=title)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense sim render", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of a recorded store")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new store")
    parser.add_argument("--size", type=int, help="picture side, pixels; default: as recorded")
    parser.add_argument("--keyframes", type=int, help="T; default: as recorded")
    parser.add_argument("--video", action="store_true", help="MP4 of both cameras beside the data")
    parser.add_argument("--workers", type=int, default=available_cores(), help="processes")
    args = parser.parse_args(arguments)
    try:
        summary = render(
            args.data,
            args.out,
            size=args.size,
            keyframes=args.keyframes,
            video=args.video,
            workers=args.workers,
        )
    except IFailSenseError as error:
        print(f"ifailsense sim render: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    if summary.episodes_made:
        print(speed_line(summary, "episodes or pairs"))
    print(f"in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
