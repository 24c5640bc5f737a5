"""Record expert episodes: ``ifailsense sim record --tasks all --episodes 680 --seed 1``.

Episodes are made by seed, so a run that was stopped goes on where it was when the same command is
given again, and the same command makes the same bytes.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.data.episode_store import EpisodeRow
from ifailsense_ros.data.records import EXPERT

from . import GENERATOR_VERSION
from .look import LEVELS, level_name
from .pictures import NUM_KEYFRAMES, shoot, video_path
from .robot import World
from .rollout import ALL_TASKS, SPLITS, Rollout, simulate
from .shards import Job, Made, Summary, jobs_of, make_shards
from .tasks import TASKS

SOURCE = "desk"
"""`EpisodeRow.source` of every episode of this world."""

FIRST_FAILURE = 500_000
"""Indices from here on belong to failure sets: no seed or key is shared with a set of experts."""

PICTURE_SIZE = 224


def group_of(seed: int, split: str, index: int, attempt: int) -> str:
    """The scene of an episode: what must not be cut by a split."""
    return f"{SOURCE}/{seed}/{split}/{index}/{attempt}"


def row_of(
    rollout: Rollout, stamps_ns: tuple[int, ...], images: tuple[bytes, ...], kind: str = EXPERT
) -> EpisodeRow:
    """The store's row of a rollout with its keyframes."""
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
        stamps_ns=stamps_ns,
        images=images,
        states=rollout.states,
        generator_version=GENERATOR_VERSION,
        source=SOURCE,
        kind=kind,
        group=group_of(setup.seed, setup.split, setup.index, setup.attempt),
    )


def settings_of(
    split: str,
    *,
    seed: int = 0,
    look: str | int = "mild",
    tasks: tuple[str, ...] | None = None,
    keyframes: int = NUM_KEYFRAMES,
    size: int = PICTURE_SIZE,
    pictures: bool = True,
    video: bool = False,
) -> dict[str, Any]:
    """The settings of a recording, checked; with an index range they say all about the rows.

    Raises:
        ConfigError: naming the option that is wrong.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split {split!r}: choose one of {', '.join(SPLITS)}")
    if seed < 0:
        raise ConfigError(f"--seed must be at least 0, not {seed}")
    if keyframes < 1 or not 16 <= size <= 2048:
        raise ConfigError(
            f"--keyframes must be at least 1 and --size within 16 to 2048: not {keyframes}, {size}"
        )
    if video and not pictures:
        raise ConfigError("--video needs pictures: leave out --no-pictures")
    unknown = [name for name in tasks or () if name not in TASKS]
    if unknown:
        raise ConfigError(f"--tasks: no task {', '.join(unknown)}; there are {', '.join(TASKS)}")
    try:
        look = level_name(look)
    except ValueError as error:
        raise ConfigError(f"--look: {error}") from error
    return {
        "source": SOURCE,
        "generator": GENERATOR_VERSION,
        "split": split,
        "seed": seed,
        "look": look,
        "tasks": None if tasks is None else sorted(tasks),
        "keyframes": keyframes,
        "size": size,
        "pictures": pictures,
        "video": video,
    }


class Stage:
    """A world with its camera, and the time spent on either.

    Attributes:
        world: the simulator.
        made: rows, tallies and times so far.
    """

    def __init__(self, job: Job, world: World, camera: Any) -> None:
        self.world = world
        self.made = Made([])
        self._job = job
        self._camera = camera

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the CPU time of the block to what it was spent on."""
        started = time.process_time()
        yield
        self.made.seconds[what] += time.process_time() - started

    def shoot(
        self, states: np.ndarray, stamps_ns: np.ndarray, index: int, kind: str
    ) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
        """Stamps and pictures of an episode's keyframes, and its videos where asked for.

        Args:
            states: all of them, (n, nq); the world must have the episode's look.
            stamps_ns: int64 (n,).
            index, kind: the episode's; they name the videos.
        """
        settings = self._job.settings
        videos = None
        if settings["video"]:
            videos = {
                name: video_path(self._job.folder, self._job.split, index, kind, name)
                for name in ("exo", "wrist")
            }
        with self.timed("pictures"):
            return shoot(self._camera, states, stamps_ns, settings["keyframes"], videos)

    def keep(self, rollout: Rollout, kind: str = EXPERT) -> None:
        """Render a rollout, whose look the world must have, and add its row."""
        index = rollout.setup.index
        stamps, images = self.shoot(rollout.states, rollout.stamps_ns, index, kind)
        self.made.rows.append(row_of(rollout, stamps, images, kind))


@contextmanager
def staged(job: Job) -> Iterator[Stage]:
    """A stage for one shard; rendering needs OpenGL only where pictures are asked for."""
    started, size = time.process_time(), job.settings["size"]
    world = World(size)
    with ExitStack() as stack:
        camera = None
        if job.settings["pictures"]:
            from .render import Camera

            camera = stack.enter_context(Camera(world, size))
        stage = Stage(job, world, camera)
        stage.made.seconds["setup"] = time.process_time() - started
        yield stage


def make_experts(job: Job) -> Made:
    """The expert episodes of a shard."""
    settings = job.settings
    with staged(job) as stage:
        for index in range(job.first, job.end):
            with stage.timed("physics"):
                rollout = simulate(
                    stage.world,
                    settings["split"],
                    index,
                    settings["look"],
                    seed=settings["seed"],
                    tasks=settings["tasks"] or ALL_TASKS,
                )
            stage.made.tally.update(tally_of(rollout))
            stage.keep(rollout)
        return stage.made


def tally_of(rollout: Rollout) -> collections.Counter[str]:
    """What it took to make an episode: attempts by task and why they were not used."""
    tally = collections.Counter({f"rejected {why}": n for why, n in rollout.rejected.items()})
    tally[f"performed {rollout.setup.task.name}"] += 1
    return tally


def record(
    folder: Path,
    episodes: int,
    settings: Mapping[str, Any],
    *,
    first: int = 0,
    workers: int = 1,
) -> Summary:
    """Make a data set with a progress bar, over several processes; existing shards are kept.

    Args:
        folder: of the store.
        episodes: how many.
        settings: of `settings_of`.
        first: index of the first one, a multiple of the shard size.
        workers: processes.

    Raises:
        ConfigError: a range that does not start at a shard or reaches into the failure sets'.
    """
    if first + episodes > FIRST_FAILURE:
        raise ConfigError(
            f"--first {first} and --episodes {episodes}: indices from {FIRST_FAILURE} on belong "
            "to failure sets; use another --seed instead"
        )
    jobs = jobs_of(make_experts, folder, settings["split"], first, episodes, settings)
    return make_shards(jobs, workers=workers, title=settings["split"])


def report(summary: Summary) -> str:
    """What is printed at the end: expert success, rejections, speed, and a table of the tasks."""
    performed = summary.counted("performed")
    rejected: collections.Counter[str] = collections.Counter()
    failed: collections.Counter[str] = collections.Counter()
    for name, count in summary.counted("rejected").items():
        reason, _, task = name.partition(" ")
        rejected[reason] += count
        if reason in ("expert_failed", "expert_disputed"):
            failed[task] += count
    lines = [f"{'task':26}{'episodes':>9}{'failed':>8}{'success':>9}"]
    for task in [t for t in TASKS if t in performed or failed[t]]:
        done = performed.get(task, 0)
        lines.append(f"{task:26}{done:9}{failed[task]:8}{done / (done + failed[task]):9.3f}")
    done, lost = sum(performed.values()), failed.total()
    lines.append(f"{'all':26}{done:9}{lost:8}{done / max(done + lost, 1):9.3f}")
    reasons = ", ".join(f"{why} {n}" for why, n in sorted(rejected.items())) or "none"
    lines.append(f"rejected attempts: {reasons}")
    if summary.episodes_made:
        lines.append(speed_line(summary, "episodes"))
    return "\n".join(lines)


def speed_line(summary: Summary, what: str) -> str:
    """CPU time of this run: episodes per core-hour, and what an episode costs."""
    made, spent = summary.episodes_made, summary.seconds
    total = sum(spent.values())
    parts = ", ".join(f"{name} {spent[name] / made:.2f} s" for name in sorted(spent))
    return (
        f"{made} {what} made now, {3600 * made / max(total, 1e-9):.0f} per core-hour; "
        f"CPU time for each: {parts}"
    )


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every recorder of this world."""
    parser.add_argument("--seed", type=int, default=0, help="base seed of all episodes")
    parser.add_argument("--look", default="mild", help=f"level: {', '.join(LEVELS)}")
    parser.add_argument("--size", type=int, default=PICTURE_SIZE, help="picture side, pixels")
    parser.add_argument("--keyframes", type=int, default=NUM_KEYFRAMES, help="T")
    parser.add_argument("--video", action="store_true", help="MP4 of both cameras beside the data")
    parser.add_argument("--no-pictures", action="store_true", help="states only, needs no OpenGL")
    parser.add_argument("--workers", type=int, default=available_cores(), help="processes")
    parser.add_argument("--out", type=Path, help="folder of the store")


def tasks_from(text: str) -> tuple[str, ...] | None:
    """Tasks from the command line: None for all."""
    return None if text == "all" else tuple(name for name in text.split(",") if name)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense sim record", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--tasks", default="all", help="names, separated by commas, or all")
    parser.add_argument("--episodes", type=int, required=True, help="how many episodes")
    parser.add_argument("--first", type=int, default=0, help="index of the first one")
    parser.add_argument("--split", default="train", help=", ".join(SPLITS))
    add_common_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        settings = settings_of(
            args.split,
            seed=args.seed,
            look=args.look,
            tasks=tasks_from(args.tasks),
            keyframes=args.keyframes,
            size=args.size,
            pictures=not args.no_pictures,
            video=args.video,
        )
        folder = args.out or Path("data") / f"{SOURCE}-{args.split}-{args.seed}"
        summary = record(folder, args.episodes, settings, first=args.first, workers=args.workers)
    except IFailSenseError as error:
        print(f"ifailsense sim record: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(report(summary))
    print(f"in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
