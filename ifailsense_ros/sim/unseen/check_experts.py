"""How good the experts are: ``python -m ifailsense_ros.sim.unseen.check_experts --starts 20``.

Both tasks of every scene are tried from every start; states only, needs no OpenGL.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time

import numpy as np

from ifailsense_ros.core.errors import IFailSenseError

from ..oracle import Outcome
from .arm import Arm
from .experts import perform
from .scenes import SCENES, draw_start
from .tasks import PAIRS, judge_scene

_SEED = 78


def check(scene: str, starts: int) -> dict[str, collections.Counter[str]]:
    """Per task of a scene: how the oracle judged it, how often the opposite came true as well
    (``also``), and CPU seconds (``cpu``)."""
    arm = Arm(scene)
    counts: dict[str, collections.Counter[str]] = {}
    for number in range(starts):
        seeds = np.random.SeedSequence([_SEED, number]).spawn(1 + len(PAIRS[scene]))
        of_start, *of_motions = (np.random.default_rng(seed) for seed in seeds)
        start = draw_start(SCENES[scene], of_start)
        for task, of_motion in zip(PAIRS[scene], of_motions, strict=True):
            began = time.process_time()
            done = perform(arm, task, start, of_motion)
            count = counts.setdefault(task.name, collections.Counter())
            outcomes = judge_scene(scene, done.start, done.end)
            count[outcomes.pop(task.name).name] += 1
            count["also"] += Outcome.TRUE in outcomes.values()
            count["cpu"] += time.process_time() - began
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Command line; prints one line a task."""
    parser = argparse.ArgumentParser(prog="check_experts", description=__doc__.split("\n\n")[1])
    parser.add_argument("--starts", type=int, default=20)
    starts = parser.parse_args(arguments).starts
    total: collections.Counter[str] = collections.Counter()
    print(f"{'task':30}   true  disputed  false  opposite also true  CPU s")
    try:
        for scene in SCENES:
            for name, count in check(scene, starts).items():
                _print(name, count, starts)
                total += count
    except IFailSenseError as error:
        print(f"check_experts: {error}", file=sys.stderr)
        return 2
    _print("all", total, starts * sum(map(len, PAIRS.values())))
    return 0


def _print(name: str, count: collections.Counter[str], runs: int) -> None:
    print(
        f"{name:30}{count['TRUE']:7}{count['DISPUTED']:10}{count['FALSE']:7}{count['also']:20}"
        f"{count['cpu'] / runs:7.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
