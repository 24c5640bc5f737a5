"""Record the unseen world: ``ifailsense sim record-unseen --split test --episodes 200 --out DIR``.

Writes the same episode store as the desk's recorder, in parallel and resumable: the same command
goes on where it was stopped, and makes the same bytes. Each episode has its opposite as designated
negative, so 200 episodes are 400 pairs for `ifailsense data build`. With ``--failures N`` it
records N control failures of each class instead, each beside its success twin.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.core.keyframes import select_keyframes
from ifailsense_ros.data.episode_store import EpisodeRow
from ifailsense_ros.data.records import EXPERT

from ..render import encode_jpeg
from ..shards import Job, Made, Summary, jobs_of, make_shards
from . import SOURCE, UNSEEN_VERSION
from .arm import require_metaworld
from .failures import CLASSES, SCENES_OF, simulate_failure
from .pictures import Camera
from .rollout import SPLITS, Rollout, Seed, Stage, simulate

NUM_KEYFRAMES = 4


class Cameras:
    """A stage and the cameras of its scenes, each made when it is first needed.

    Args:
        stage: scenes.
        pictures: False makes no pictures and needs no OpenGL.
    """

    def __init__(self, stage: Stage, pictures: bool = True) -> None:
        self._stage, self._pictures = stage, pictures
        self._cameras: dict[str, Camera] = {}
        self._closing = ExitStack()

    def __enter__(self) -> Cameras:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def views(self, rollout: Rollout, picks: list[int]) -> list[list[np.ndarray]]:
        """Per PoV, the pictures of these samples of an episode; empty without pictures."""
        if not self._pictures:
            return []
        scene = rollout.start.scene
        if scene not in self._cameras:
            camera = Camera(self._stage.arm(scene))
            self._cameras[scene] = self._closing.enter_context(camera)
        samples = rollout.performance.samples[picks]
        return self._cameras[scene].pictures(samples, rollout.start.view)


def keyframes_of(rollout: Rollout, count: int = NUM_KEYFRAMES) -> list[int]:
    """Indices of an episode's keyframes among its samples."""
    return list(select_keyframes([int(s) for s in rollout.stamps_ns], count))


def row_of(rollout: Rollout, cameras: Cameras, kind: str = EXPERT) -> EpisodeRow:
    """The store's row of an episode; ``kind`` is a class of failure for one that failed."""
    picks = keyframes_of(rollout)
    views = cameras.views(rollout, picks)
    seed = rollout.seed
    return EpisodeRow(
        split=seed.split,
        index=seed.index,
        attempt=rollout.attempt,
        task=rollout.task.name,
        negative_task=rollout.negative.name,
        category=rollout.task.category,
        contrast=rollout.contrast,
        phrasing=rollout.phrasing,
        instruction=rollout.instruction,
        negative_instruction=rollout.negative_instruction,
        outcomes={name: int(outcome) for name, outcome in rollout.outcomes.items()},
        feasible=tuple(rollout.outcomes),
        duration_s=rollout.duration_s,
        stamps_ns=tuple(int(s) for s in rollout.stamps_ns[picks]),
        images=tuple(encode_jpeg(picture) for view in views for picture in view),
        states=rollout.performance.samples,
        generator_version=UNSEEN_VERSION,
        source=SOURCE,
        kind=kind,
        group="/".join(
            str(part)
            for part in (SOURCE, seed.stream, seed.base, seed.split, seed.index, rollout.attempt)
        ),
    )


def failure_of(index: int) -> tuple[str, str]:
    """Class of failure and scene of an index of the failure stream; both take turns."""
    kind = CLASSES[index % len(CLASSES)]
    scenes = SCENES_OF[kind]
    return kind, scenes[index // len(CLASSES) % len(scenes)]


def make(job: Job) -> Made:
    """Make the rows of one shard; see `shards.Job`."""
    made = Made([])
    stage = Stage()
    stream = job.settings["stream"]
    with Cameras(stage, job.settings["pictures"]) as cameras:
        for index in range(job.first, job.end):
            seed = Seed(job.split, index, stream, job.settings["seed"])
            began = time.process_time()
            if stream == "failures":
                kind, scene = failure_of(index)
                failure, success = simulate_failure(stage, seed, kind, scene)
                performed, rejected = [(success, EXPERT), (failure, kind)], failure.rejected
            else:
                success = simulate(stage, seed)
                performed, rejected = [(success, EXPERT)], success.rejected
            made.tally.update({f"rejected {reason}": n for reason, n in rejected.items()})
            made.tally[f"task {success.task.name}"] += 1
            simulated = time.process_time()
            made.rows += [row_of(rollout, cameras, kind) for rollout, kind in performed]
            made.seconds["physics"] += simulated - began
            made.seconds["rendering"] += time.process_time() - simulated
    return made


def record(
    folder: Path,
    split: str,
    episodes: int,
    *,
    stream: str = "pairs",
    workers: int = 1,
    base: int = 0,
    pictures: bool = True,
) -> Summary:
    """Record the first ``episodes`` indices of a split, with a progress bar; keeps what is there.

    Raises:
        ConfigError: Meta-World is not installed, an unknown split, or settings that do not fit
            what is in the folder.
    """
    require_metaworld()
    if split not in SPLITS:
        raise ConfigError(f"--split {split!r}: choose one of {', '.join(SPLITS)}")
    settings = {
        "stream": stream,
        "seed": base,
        "pictures": pictures,
        "generator": UNSEEN_VERSION,
    }
    jobs = jobs_of(make, folder, split, 0, episodes, settings)
    return make_shards(jobs, workers=workers, title=f"{SOURCE} {split}")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense sim record-unseen", description=__doc__.split("\n\n")[1]
    )
    parser.add_argument("--split", required=True, help=", ".join(SPLITS))
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--episodes", type=int, help="expert episodes, each with its opposite")
    what.add_argument(
        "--failures", type=int, metavar="N", help=f"N failures of each of {', '.join(CLASSES)}"
    )
    parser.add_argument("--seed", type=int, default=0, help="another number: other episodes")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--no-pictures", action="store_true", help="states only, needs no OpenGL")
    args = parser.parse_args(arguments)
    stream = "pairs" if args.failures is None else "failures"
    episodes = args.episodes if args.failures is None else args.failures * len(CLASSES)
    try:
        summary = record(
            args.out,
            args.split,
            episodes,
            stream=stream,
            workers=args.workers,
            base=args.seed,
            pictures=not args.no_pictures,
        )
    except IFailSenseError as error:
        print(f"record-unseen: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    report(summary)
    return 0


def report(summary: Summary) -> None:
    """Print what was recorded: per task, what was rejected, and the CPU time an episode took."""
    for head in ("task", "rejected"):
        for name, count in summary.counted(head).items():
            print(f"{head:9} {name:44} {count:5}")
    if summary.episodes_made:
        for name, seconds in summary.seconds.items():
            print(f"CPU seconds an episode, {name}: {seconds / summary.episodes_made:.2f}")


if __name__ == "__main__":
    sys.exit(main())
