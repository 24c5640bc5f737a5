"""Make a data set: ``python -m ifailsense_ros.sim.record_dataset --split train --episodes 4000``.

Episodes are made by seed, so a run that was stopped goes on where it was when the same command is
given again, and the same command makes the same bytes.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.core.keyframes import select_keyframes
from ifailsense_ros.data.episode_store import EpisodeRow, read_notes, shard_path, write_shard

from . import GENERATOR_VERSION
from .robot import World
from .rollout import SPLITS, Rollout, simulate

NUM_KEYFRAMES = 4
SHARD_EPISODES = 50


def row_of(rollout: Rollout, images: tuple[bytes, ...], picks: np.ndarray) -> EpisodeRow:
    """The store's row of a rollout; ``picks`` are the indices of its keyframes."""
    setup = rollout.setup
    return EpisodeRow(
        split=setup.split,
        index=setup.index,
        attempt=setup.attempt,
        task=setup.task.name,
        negative_task=setup.negative.name,
        category=setup.task.category,
        contrast=setup.contrast,
        phrasing=setup.phrasing,
        instruction=setup.instruction,
        negative_instruction=setup.negative_instruction,
        outcomes={name: int(outcome) for name, outcome in rollout.outcomes.items()},
        feasible=setup.feasible,
        duration_s=rollout.duration_s,
        stamps_ns=tuple(int(s) for s in rollout.stamps_ns[picks]),
        images=images,
        states=rollout.states,
        generator_version=GENERATOR_VERSION,
    )


def record_shard(
    folder: Path, split: str, first: int, end: int, level: int = 1, with_pictures: bool = True
) -> collections.Counter[str]:
    """Make and write the episodes ``first`` to ``end - 1``.

    Args:
        folder: the data set.
        split: one of `SPLITS`.
        first, end: index range.
        level: look level, see `scene.draw_look`.
        with_pictures: False leaves ``images`` empty and needs no OpenGL.

    Returns:
        how many attempts were rejected, by reason.
    """
    rejected: collections.Counter[str] = collections.Counter()
    rows = []
    with ExitStack() as stack:
        world = World()
        camera = None
        if with_pictures:
            from .render import Camera, encode_jpeg

            camera = stack.enter_context(Camera(world))
        for index in range(first, end):
            rollout = simulate(world, split, index, level)
            rejected.update(rollout.rejected)
            stamps = rollout.stamps_ns
            picks = np.array(select_keyframes([int(s) for s in stamps], NUM_KEYFRAMES))
            images: tuple[bytes, ...] = ()
            if camera is not None:
                # The look belongs to the attempt that was kept: the last one reset.
                views = camera.pictures(rollout.states[picks])
                images = tuple(encode_jpeg(picture) for view in views for picture in view)
            rows.append(row_of(rollout, images, picks))
    notes = {"rejected": dict(rejected), "look_level": level, "generator": GENERATOR_VERSION}
    write_shard(shard_path(folder, split, first, end), rows, notes)
    return rejected


def _work(job: tuple) -> tuple[int, collections.Counter[str]]:
    folder, split, first, end, level, with_pictures = job
    return end - first, record_shard(folder, split, first, end, level, with_pictures)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us, between atomic writes
    os.environ.setdefault("LP_NUM_THREADS", "1")


def record_dataset(
    folder: Path,
    split: str,
    episodes: int,
    first: int = 0,
    workers: int = 1,
    level: int = 1,
    with_pictures: bool = True,
) -> dict[str, int]:
    """Make a data set with a progress bar, over several processes; existing shards are kept.

    Returns:
        how many attempts were rejected, by reason, over the whole range.

    Raises:
        ConfigError: for an unknown split or a range that does not start at a shard.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split {split!r}: choose one of {', '.join(SPLITS)}")
    if episodes < 1 or workers < 1 or first < 0 or first % SHARD_EPISODES:
        raise ConfigError(
            f"--episodes and --workers must be at least 1, --first a multiple of {SHARD_EPISODES}"
        )
    from tqdm import tqdm

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    last = first + episodes
    rejected: collections.Counter[str] = collections.Counter()
    jobs = []
    for start in range(first, last, SHARD_EPISODES):
        end = min(start + SHARD_EPISODES, last)
        path = shard_path(folder, split, start, end)
        if path.exists():
            rejected.update(read_notes(path)["rejected"])
        else:
            for left_over in folder.glob(f"{path.name}.*.part"):  # of a run that was killed
                left_over.unlink()
            jobs.append((folder, split, start, end, level, with_pictures))
    done = episodes - sum(job[3] - job[2] for job in jobs)
    context = multiprocessing.get_context("spawn")
    processes = min(workers, max(len(jobs), 1))
    with (
        tqdm(total=episodes, initial=done, unit="episode", desc=split) as bar,
        context.Pool(processes, initializer=_start_worker) as pool,
    ):
        for count, counted in pool.imap_unordered(_work, jobs):
            rejected.update(counted)
            bar.update(count)
    return dict(rejected)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="record_dataset", description=__doc__.splitlines()[0])
    parser.add_argument("--split", required=True, help=", ".join(SPLITS))
    parser.add_argument("--episodes", type=int, required=True, help="how many episodes")
    parser.add_argument("--first", type=int, default=0, help="index of the first one")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--look-level", type=int, default=1, choices=(0, 1))
    parser.add_argument("--no-pictures", action="store_true", help="states only, needs no OpenGL")
    args = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        rejected = record_dataset(
            args.out,
            args.split,
            args.episodes,
            args.first,
            args.workers,
            args.look_level,
            not args.no_pictures,
        )
    except IFailSenseError as error:
        print(f"record_dataset: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    seconds = time.monotonic() - started
    print(f"{args.episodes} episodes in {seconds:.0f} s; rejected attempts: {rejected}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
