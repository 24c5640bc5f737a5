"""Expert episodes that end with nothing done: ``ifailsense sim unfinished --data DIR --out DIR``.

Each expert episode of a store is played in one of four manners: it stops before its task came
true; it turns back before that, and runs backwards to an early moment; it turns back after that,
and what was done is undone; or it runs to its end, and from some moment after its task came true
all things but the arm are as they were at the start (put back). Its right instruction then has the
label 0, though no failure was recorded and nothing was disturbed: the arm is always an expert's,
and so is the state of all other things. Keyframes are taken evenly from the new course. States come
from the store, so nothing is simulated; pictures take the one path that all others take.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.data.episode_store import EpisodeRow, read_notes
from ifailsense_ros.data.records import EXPERT, UNFINISHED

from .oracle import Outcome, WorldState, carried_blocks, judge, judge_all
from .record import available_cores, speed_line, staged
from .render_again import make_again, rendered, rows_to_render, settings_again
from .robot import SAMPLE_S, World
from .rollout import episode_seed
from .shards import Job, Made, Summary
from .tasks import TASKS

MANNERS = {"stopped": 1 / 6, "turned_back": 1 / 6, "undone": 1 / 6, "put_back": 1 / 2}
"""How an episode can be left with nothing done, and how often.

Put back is the one that differs from an expert's in nothing but what came of it, so it is the most
frequent: whoever looks at the motion alone cannot tell the two apart.
"""
CUT = (0.35, 0.90)
"""Where an episode may be cut, as shares of the time until its task came true."""
BACK = (0.0, 0.6)
"""How early a course that turned back ends, as shares of the moment it turned at (or of the
moment its task came true, whichever is earlier)."""

ARM = 9
"""The first of a state's numbers: seven joints and two fingers."""

_TRIES = 4
_EDIT = 10_000  # of `episode_seed`: far from the numbers that failures use


@dataclass(frozen=True)
class Course:
    """What is seen of an episode: indices into its states.

    Attributes:
        manner: one of `MANNERS`.
        arm: states that the arm runs through.
        things: states of all else at the same time.
    """

    manner: str
    arm: list[int]
    things: list[int]

    def states(self, row: EpisodeRow) -> np.ndarray:
        """The states that are seen, float32 (n, nq)."""
        states = row.states[self.things].copy()
        states[:, :ARM] = row.states[self.arm, :ARM]
        return states


def completion(row: EpisodeRow, path: Sequence[WorldState]) -> int:
    """Index of the first state at which the episode's task had come true."""
    task = TASKS[row.task]
    for end in range(len(path)):
        if judge(task, path[0], path[end], carried_blocks(path[: end + 1])) is Outcome.TRUE:
            return end
    return len(path) - 1


def moments(row: EpisodeRow, path: Sequence[WorldState], keyframes: int) -> list[int]:
    """Indices of states at which the episode can be cut.

    There the oracle calls the task FALSE, not disputed, and no task of its category TRUE. Moments
    at which it calls all of the category that were possible FALSE go first: where there is one, no
    other is given.

    Args:
        row: an expert episode of the desk.
        path: its states as the oracle sees them.
        keyframes: T; at least as many states must be left.
    """
    rivals = [t for name, t in TASKS.items() if t.category == row.category and name != row.task]
    done = completion(row, path)
    first = max(keyframes - 1, int(np.ceil(CUT[0] * done)))
    clear, disputed = [], []
    for end in range(first, min(int(CUT[1] * done), done - 1) + 1):
        carried = carried_blocks(path[: end + 1])
        if judge(TASKS[row.task], path[0], path[end], carried) is not Outcome.FALSE:
            continue
        words = {t.name: judge(t, path[0], path[end], carried) for t in rivals}
        if Outcome.TRUE in words.values():
            continue
        doubtful = any(words.get(name) is Outcome.DISPUTED for name in row.feasible)
        (disputed if doubtful else clear).append(end)
    return clear or disputed


def course(
    row: EpisodeRow, path: Sequence[WorldState], keyframes: int, rng: np.random.Generator
) -> Course | None:
    """A course of the episode with nothing done.

    At its last state the oracle calls the task FALSE and no task of the category TRUE. None if the
    manner that was drawn finds no such course.

    Args:
        row: an expert episode of the desk.
        path: its states as the oracle sees them.
        keyframes: T; the course has at least as many states.
        rng: draws manner and moments.
    """
    manner = str(rng.choice(list(MANNERS), p=list(MANNERS.values())))
    done, last = completion(row, path), len(path) - 1
    if manner == "put_back":
        since = int(rng.integers(done, last)) + 1 if done < last else last
        arm = list(range(last + 1))
        things = [n if n < since else 0 for n in arm]
    else:
        arm = things = _turned(manner, moments(row, path, keyframes), done, last, rng)
    if len(arm) < keyframes:
        return None
    carried = carried_blocks([path[n] for n in things])
    words = {
        name: judge(t, path[0], path[things[-1]], carried)
        for name, t in TASKS.items()
        if t.category == row.category
    }
    if words[row.task] is not Outcome.FALSE or Outcome.TRUE in words.values():
        return None
    return Course(manner, arm, things)


def _turned(
    manner: str, ends: Sequence[int], done: int, last: int, rng: np.random.Generator
) -> list[int]:
    """States of a course that stops at one of `ends`, or turns back there or after `done`."""
    if manner == "undone":
        turn = int(rng.integers(done, last + 1))
    elif ends:
        turn = ends[int(rng.integers(len(ends)))]
    else:
        return []
    if manner == "stopped":
        return list(range(turn + 1))
    back = int(rng.uniform(*BACK) * min(turn, done))
    return [*range(turn + 1), *range(turn - 1, back - 1, -1)]


def cut(world: World, row: EpisodeRow, keyframes: int, seed: int) -> tuple[str, EpisodeRow] | None:
    """The episode with nothing done, and its manner; None if it has no moment for it.

    Args:
        world: any of this world; it is not changed.
        row: an expert episode of the desk, with its states.
        keyframes: T.
        seed: base seed of the recording.

    Returns:
        manner, and the row of kind ``unfinished``: states, duration and outcomes are those of the
        new course, stamps and pictures still those of the episode.
    """
    path = [world.state_at(qpos) for qpos in row.states]
    rng = np.random.default_rng(episode_seed(row.split, row.index, row.attempt, _EDIT, seed=seed))
    drawn = (course(row, path, keyframes, rng) for _ in range(_TRIES))
    found = next((c for c in drawn if c is not None), None)
    if found is None:
        return None
    taken = [path[n] for n in found.things]
    outcomes = judge_all(path[0], taken[-1], carried_blocks(taken))
    return found.manner, replace(
        row,
        kind=UNFINISHED,
        states=found.states(row),
        duration_s=(len(taken) - 1) * SAMPLE_S,
        outcomes={name: int(outcome) for name, outcome in outcomes.items()},
    )


def cut_rows(job: Job) -> Made:
    """The expert episodes of a shard, left unfinished and rendered."""
    settings = job.settings
    with staged(job) as stage:
        for row in rows_to_render(job):
            if row.kind != EXPERT:
                continue
            with stage.timed("cut"):
                short = cut(stage.world, row, settings["keyframes"], settings["seed"])
            if short is None:
                stage.made.tally[f"no_moment {row.task}"] += 1
                continue
            manner, unfinished = short
            stage.made.tally[f"{manner} {row.task}"] += 1
            stage.made.rows.append(rendered(stage, settings, unfinished))
        return stage.made


def record_unfinished(
    data: Path,
    folder: Path,
    *,
    size: int | None = None,
    keyframes: int | None = None,
    workers: int = 1,
) -> Summary:
    """Leave all expert episodes of a store unfinished; shards that are there are kept.

    Args:
        data: store of this world.
        folder: the new store.
        size: picture side, pixels; None: as recorded.
        keyframes: T; None: as recorded.
        workers: processes.

    Raises:
        ConfigError: the same folder twice, no shard, or shards of another world or version.
    """
    return make_again(
        cut_rows,
        Path(data),
        Path(folder),
        lambda shard: {
            **settings_again(shard, data, size, keyframes),
            "pictures": read_notes(shard)["settings"]["pictures"],
            "kind": UNFINISHED,
            "cut": [*CUT, *BACK],
            "manners": dict(MANNERS),
        },
        workers=workers,
        title=UNFINISHED,
    )


def report(summary: Summary) -> str:
    """What is printed at the end: episodes of each manner, those without a moment, speed."""
    left = summary.counted("no_moment")
    lines = [f"{manner} {sum(summary.counted(manner).values())}" for manner in MANNERS]
    if left:
        tasks = ", ".join(f"{task} {count}" for task, count in left.items())
        lines.append(f"{sum(left.values())} without a moment for it: {tasks}")
    if summary.episodes_made:
        lines.append(speed_line(summary, "episodes"))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense sim unfinished", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of recorded experts")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new store")
    parser.add_argument("--size", type=int, help="picture side, pixels; default: as recorded")
    parser.add_argument("--keyframes", type=int, help="T; default: as recorded")
    parser.add_argument("--workers", type=int, default=available_cores(), help="processes")
    args = parser.parse_args(arguments)
    try:
        summary = record_unfinished(
            args.data, args.out, size=args.size, keyframes=args.keyframes, workers=args.workers
        )
    except IFailSenseError as error:
        print(f"ifailsense sim unfinished: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(report(summary))
    print(f"in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
