"""What building a data set costs, and that its memory does not grow with the number of episodes.

    python -m benchmarks.build_data                        # 2000, 20000 and 100000 episodes
    python -m benchmarks.build_data --episodes 500 1000    # a look

The episodes are made up as they are asked for (T = 4, N = 2, 64 x 64 pixels, an oracle, no
designated negative), so that what is measured is the builder: JPEG, shards, pairing, manifest, and
reading all rows back. Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.data.build import BuildSettings, build
from ifailsense_ros.data.records import EXPERT, EpisodeRecord, Problem
from ifailsense_ros.data.sinks import Shape
from ifailsense_ros.data.splits import Shares
from ifailsense_ros.data.task_categories import CALVIN_CATEGORIES

SIZE = 64
TASKS = sorted(CALVIN_CATEGORIES)


class MadeUp:
    """Yields `count` episodes, four a scene, each with pictures of its own."""

    source = "made_up"

    def __init__(self, count: int) -> None:
        self._count = count
        self.problems: list[Problem] = []

    def __iter__(self) -> Iterator[EpisodeRecord]:
        for index in range(self._count):
            yield self._record(index)

    def _record(self, index: int) -> EpisodeRecord:
        task = TASKS[index % len(TASKS)]
        phrasing = index // len(TASKS) % 11

        def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
            noise = np.random.default_rng(index)
            views = noise.integers(0, 255, (len(steps), 2, 8, 8, 3), np.uint8)
            views = views.repeat(SIZE // 8, 2).repeat(SIZE // 8, 3)
            return tuple(Keyframe(s, tuple(v)) for s, v in zip(steps, views, strict=True))

        return EpisodeRecord(
            source=self.source,
            key=f"{index}",
            group=f"scene {index // 4}",
            instruction=f"{task.replace('_', ' ')}, wording {phrasing}",
            task=task,
            category=CALVIN_CATEGORIES[task],
            kind=EXPERT,
            success=True,
            stamps_ns=tuple(range(0, 40, 4)),
            num_pov=2,
            read=read,
            outcomes={name: 1 if name == task else -1 for name in TASKS},
            phrasing=phrasing,
        )


def measure(count: int, folder: Path) -> dict[str, float]:
    """Build and read back one data set, in this process."""
    shares = Shares.parse("train=0.8,validation=0.1,test=0.1")
    settings = BuildSettings(("made_up:",), shares, Shape(4, 2, SIZE))
    cpu, wall = time.process_time(), time.monotonic()
    data = build(settings, folder, [], lambda spec, keep_going: MadeUp(count))
    rows = sum(1 for _ in data.rows(counted=True))
    return {
        "episodes": count,
        "pairs": rows,
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(time.monotonic() - wall, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.build_data", description=__doc__)
    parser.add_argument("--episodes", type=int, nargs="+", default=[2000, 20_000, 100_000])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for count in args.episodes:
        if args.one:
            with tempfile.TemporaryDirectory() as folder:
                print(json.dumps(measure(count, Path(folder))))
            continue
        command = [sys.executable, "-m", "benchmarks.build_data", "--one", "--episodes", f"{count}"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
