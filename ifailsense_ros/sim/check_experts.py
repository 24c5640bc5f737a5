"""How good the experts are: ``ifailsense sim check-experts --scenes 100``.

Every task is tried in every scene where it is feasible; states only, needs no OpenGL.
"""

from __future__ import annotations

import argparse
import collections
import sys

import numpy as np
from tqdm import tqdm

from .experts import plan_for
from .feasibility import is_feasible
from .oracle import Outcome, judge_all, state_of_scene
from .robot import World
from .scene import draw_scene
from .tasks import TASKS

_SEED = 77


def check(
    scenes: int, tasks: tuple[str, ...] = tuple(TASKS)
) -> dict[str, collections.Counter[str]]:
    """Per task: in how many scenes it was feasible, how the oracle judged it, and how often
    another task came true as well (``also``)."""
    world = World()
    counts: dict[str, collections.Counter[str]] = {t: collections.Counter() for t in tasks}
    for number in tqdm(range(scenes), unit="scene", file=sys.stderr):
        scene = draw_scene(np.random.default_rng([_SEED, number]))
        for place, (name, task) in enumerate(TASKS.items()):
            if name not in tasks or not is_feasible(task, state_of_scene(scene)):
                continue
            world.reset(scene)
            start = world.state()
            plan = plan_for(task, world, np.random.default_rng([_SEED, number, place]))
            states = world.run(plan)
            outcomes = judge_all(start, world.state_at(states[-1]), world.carried(states))
            counts[name]["feasible"] += 1
            counts[name][outcomes[name].name] += 1
            others = [o for other, o in outcomes.items() if other != name]
            counts[name]["also"] += Outcome.TRUE in others
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Command line; prints one line per task, as rows of a Markdown table."""
    parser = argparse.ArgumentParser(
        prog="ifailsense sim check-experts", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    args = parser.parse_args(arguments)
    counts = check(args.scenes, tuple(args.tasks))
    print(f"| task | feasible of {args.scenes} | true | disputed | false | another also true |")
    print("|---|---|---|---|---|---|")
    for name, c in [*counts.items(), ("all", sum(counts.values(), collections.Counter()))]:
        print(
            f"| {name} | {c['feasible']} | {c['TRUE']} | {c['DISPUTED']} | {c['FALSE']} "
            f"| {c['also']} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
