"""Expert episodes that stop too early: ``ifailsense sim unfinished --data DIR --out DIR``.

Each expert episode of a store is cut at a random moment before its task came true, and keyframes
are taken evenly from what is left of it. Its right instruction then has the label 0, though no
failure was recorded and nothing was disturbed. States come from the store, so nothing is simulated;
pictures take the one path that all others take.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.data.episode_store import EpisodeRow
from ifailsense_ros.data.records import EXPERT, UNFINISHED

from .oracle import Outcome, WorldState, carried_blocks, judge, judge_all
from .record import available_cores, speed_line, staged
from .render_again import make_again, rendered, rows_to_render, settings_again
from .robot import SAMPLE_S, World
from .rollout import episode_seed
from .shards import Job, Made, Summary
from .tasks import TASKS

CUT = (0.35, 0.90)
"""Where an episode may be cut, as shares of the time until its task came true."""

_EDIT = 10_000  # of `episode_seed`: far from the numbers that failures use


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


def cut(world: World, row: EpisodeRow, keyframes: int, seed: int) -> EpisodeRow | None:
    """The episode up to a random moment before its task came true; None if there is no such moment.

    Args:
        world: any of this world; it is not changed.
        row: an expert episode of the desk, with its states.
        keyframes: T.
        seed: base seed of the recording.

    Returns:
        the row of kind ``unfinished``: states, duration and outcomes are those of the part that is
        left, stamps and pictures still those of the whole.
    """
    path = [world.state_at(qpos) for qpos in row.states]
    ends = moments(row, path, keyframes)
    if not ends:
        return None
    rng = np.random.default_rng(episode_seed(row.split, row.index, row.attempt, _EDIT, seed=seed))
    end = ends[int(rng.integers(len(ends)))]
    outcomes = judge_all(path[0], path[end], carried_blocks(path[: end + 1]))
    return replace(
        row,
        kind=UNFINISHED,
        states=row.states[: end + 1],
        duration_s=end * SAMPLE_S,
        outcomes={name: int(outcome) for name, outcome in outcomes.items()},
    )


def cut_rows(job: Job) -> Made:
    """The expert episodes of a shard, cut and rendered."""
    settings = job.settings
    with staged(job) as stage:
        for row in rows_to_render(job):
            if row.kind != EXPERT:
                continue
            with stage.timed("cut"):
                short = cut(stage.world, row, settings["keyframes"], settings["seed"])
            word = "no_moment" if short is None else "cut"
            stage.made.tally[f"{word} {row.task}"] += 1
            if short is not None:
                stage.made.rows.append(rendered(stage, settings, short))
        return stage.made


def record_unfinished(
    data: Path,
    folder: Path,
    *,
    size: int | None = None,
    keyframes: int | None = None,
    workers: int = 1,
) -> Summary:
    """Cut all expert episodes of a store; shards that are there are kept.

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
            "kind": UNFINISHED,
            "cut": list(CUT),
        },
        workers=workers,
        title=UNFINISHED,
    )


def report(summary: Summary) -> str:
    """What is printed at the end: episodes cut, those with no moment to cut them at, speed."""
    done, left = summary.counted("cut"), summary.counted("no_moment")
    lines = [f"{sum(done.values())} episodes of {len(done)} tasks cut"]
    if left:
        tasks = ", ".join(f"{task} {count}" for task, count in left.items())
        lines.append(f"{sum(left.values())} without a moment to cut them at: {tasks}")
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
