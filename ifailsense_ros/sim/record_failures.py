"""Record failures with their twins: ``ifailsense sim record-failures --per-class 100``.

For each class the failures take turns over the categories and tasks in which the class makes
sense. Each lies beside its twin, the success of the same scene, phrasing and length.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.data.failure_classes import FAILURE_CLASSES

from .edits import NoPlaceError
from .failures import perform_failure, tasks_failing
from .record import (
    FIRST_FAILURE,
    SOURCE,
    Stage,
    add_common_arguments,
    settings_of,
    speed_line,
    staged,
)
from .rollout import SPLITS, simulate, target_of
from .shards import Job, Made, Summary, jobs_of, make_shards
from .tasks import TASKS

MOST_PER_CLASS = 10_000
SHARD_PAIRS = 25
_MOST_SCENES = 500  # given up for one pair, before that counts as a broken world


def first_index(kind: str) -> int:
    """Index of a class's first pair; each class has its own range."""
    return FIRST_FAILURE + FAILURE_CLASSES.index(kind) * MOST_PER_CLASS


def kind_of_index(index: int) -> str:
    """The class whose range an index lies in."""
    return FAILURE_CLASSES[(index - FIRST_FAILURE) // MOST_PER_CLASS]


def make_pair(stage: Stage, settings: Mapping[str, Any], index: int) -> None:
    """Add a failure and its twin; scenes that leave no place for the failure are given up.

    Raises:
        RuntimeError: no scene leaves a place for it, which means the world is broken.
    """
    kind = kind_of_index(index)
    task = target_of(index - first_index(kind), tasks_failing(kind))
    attempt = 0
    for _ in range(_MOST_SCENES):
        with stage.timed("physics"):
            success = simulate(
                stage.world,
                settings["split"],
                index,
                settings["look"],
                seed=settings["seed"],
                tasks=(task.name,),
                first_attempt=attempt,
            )
            attempt = success.setup.attempt + 1
            try:
                failure = perform_failure(stage.world, success, kind)
            except NoPlaceError:
                stage.made.tally[f"no_place {kind} {task.name}"] += 1
                continue
        stage.made.tally[f"failed {kind} {task.name}"] += 1
        # Both have the same scene, so the world has the look of either.
        stage.keep(success)
        stage.keep(failure, kind)
        return
    raise RuntimeError(f"{kind} of {task.name}: no place in {_MOST_SCENES} scenes ({index})")


def make_failures(job: Job) -> Made:
    """The pairs of a shard."""
    with staged(job) as stage:
        for index in range(job.first, job.end):
            make_pair(stage, job.settings, index)
        return stage.made


def record_failures(
    folder: Path,
    per_class: int,
    settings: Mapping[str, Any],
    *,
    kinds: Sequence[str] = FAILURE_CLASSES,
    workers: int = 1,
) -> Summary:
    """Make a failure set with a progress bar; existing shards are kept.

    Args:
        folder: of the store.
        per_class: failures of each class, each with its twin.
        settings: of `record.settings_of`.
        kinds: the classes.
        workers: processes.

    Raises:
        ConfigError: an unknown class, or more than `MOST_PER_CLASS`.
    """
    unknown = [kind for kind in kinds if kind not in FAILURE_CLASSES]
    if unknown or not kinds:
        raise ConfigError(f"--classes: choose from {', '.join(FAILURE_CLASSES)}")
    if not 1 <= per_class <= MOST_PER_CLASS:
        raise ConfigError(f"--per-class must be within 1 to {MOST_PER_CLASS}, not {per_class}")
    jobs = [
        job
        for kind in kinds
        for job in jobs_of(
            make_failures,
            folder,
            settings["split"],
            first_index(kind),
            per_class,
            settings,
            SHARD_PAIRS,
        )
    ]
    return make_shards(jobs, workers=workers, title=f"{settings['split']} failures")


def report(summary: Summary) -> str:
    """What is printed at the end: failures by class and task, and the scenes given up."""
    made, given_up = summary.counted("failed"), summary.counted("no_place")
    kinds = [kind for kind in FAILURE_CLASSES if any(k.startswith(f"{kind} ") for k in made)]
    lines = []
    for kind in kinds:
        per_task = {t: made.get(f"{kind} {t}", 0) for t in TASKS if made.get(f"{kind} {t}")}
        lost = sum(n for name, n in given_up.items() if name.startswith(f"{kind} "))
        lines.append(
            f"{kind}: {sum(per_task.values())} failures with twins over {len(per_task)} tasks "
            f"({min(per_task.values())} to {max(per_task.values())} each), {lost} scenes given up"
        )
    if summary.episodes_made:
        lines.append(speed_line(summary, "pairs"))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense sim record-failures", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--per-class", type=int, required=True, help="failures of each class")
    parser.add_argument("--classes", default=",".join(FAILURE_CLASSES), help="default: all seven")
    parser.add_argument("--split", default="test", help=", ".join(SPLITS))
    add_common_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        settings = settings_of(
            args.split,
            seed=args.seed,
            look=args.look,
            keyframes=args.keyframes,
            size=args.size,
            pictures=not args.no_pictures,
            video=args.video,
        )
        folder = args.out or Path("data") / f"{SOURCE}-{args.split}-failures-{args.seed}"
        kinds = tuple(args.classes.split(","))
        summary = record_failures(
            folder, args.per_class, settings, kinds=kinds, workers=args.workers
        )
    except IFailSenseError as error:
        print(f"ifailsense sim record-failures: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(report(summary))
    print(f"in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
