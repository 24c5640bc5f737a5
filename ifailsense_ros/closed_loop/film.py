"""A rescue to look at: what the cameras see, what the monitor says, what the planner does about it.

    ifailsense closed-loop film --detector sim-tiny --out docs/img/closed_loop.gif

The first task from `--first` on whose first attempt fails, is called a failure, and is mended by a
later one. Every verdict is the detector's own; while the robot moves, its early warnings are shown.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ifailsense_ros.closed_loop.experiment import Arms, Loaded, Try, carry_out, load
from ifailsense_ros.closed_loop.monitors import Seen, Watching
from ifailsense_ros.closed_loop.recovery import Next
from ifailsense_ros.closed_loop.scenes import Course, Move, setup_of
from ifailsense_ros.closed_loop.settings import load_settings
from ifailsense_ros.core.errors import ConfigError, DataError, IFailSenseError
from ifailsense_ros.core.verdict import Outcome
from ifailsense_ros.sim.robot import SAMPLE_S
from ifailsense_ros.sim.rollout import SPLITS

EVERY = 3
"""Samples from one frame to the next."""
SPEED = 2.0
_HOLD_S = 2.5
_WARNED_EVERY = 2
_BAND, _LINE = 76, 24
_COLOURS = {
    Outcome.SUCCESS: (60, 190, 90),
    Outcome.FAILURE: (225, 70, 60),
    Outcome.UNKNOWN: (225, 175, 50),
}
_GREY, _WHITE = (150, 150, 150), (240, 240, 240)
_MOST_LOOKED_AT = 200


def find_rescue(loaded: Loaded, split: str, seed: int, first: int) -> tuple[Course, list[Try]]:
    """The first task that is mended, and its tries.

    Raises:
        DataError: there is none among the next few hundred.
    """
    monitor = _watching(loaded)
    for index in range(first, first + _MOST_LOOKED_AT):
        course = Course(loaded.stage, setup_of(split, seed, index, loaded.settings.tasks.look))
        rows = list(carry_out(course, monitor, loaded.settings))
        if is_rescue(rows):
            return course, rows
    raise DataError(
        f"no task from {first} on was mended among {_MOST_LOOKED_AT}: take another --first"
    )


def is_rescue(rows: Sequence[Try]) -> bool:
    """Whether a failure was seen as one, and mended, and that seen as well."""
    first, last = rows[0], rows[-1]
    seen = not first.success and first.outcome == Outcome.FAILURE
    return seen and last.success and last.choice == Next.DONE.value


def _watching(loaded: Loaded) -> Watching:
    return next(m for m in loaded.monitors if isinstance(m, Watching))


def frames_of(
    course: Course, rows: Sequence[Try], loaded: Loaded
) -> Iterator[tuple[np.ndarray, float]]:
    """Frames (RGB, uint8) and how long each is shown, seconds."""
    monitor, camera = _watching(loaded), loaded.stage.camera
    assert camera is not None
    moves: list[Move] = []
    for row in rows:
        moves.append(Move(row.policy_seed))
        seen = Seen(course.attempt(moves), row.tries, partial(course.episode, tuple(moves)))
        states = seen.attempt.states
        loaded.stage.world.apply_look(course.setup.scene.look)
        shown = [*range(0, len(states) - 1, EVERY), len(states) - 1]
        said = math.nan
        for number, at in enumerate(shown):
            if number and number % _WARNED_EVERY == 0:
                said = monitor.warn(seen, at + 1)
            views = [view[0] for view in camera.pictures(states[[at]])]
            text = "monitor: ..." if math.isnan(said) else f"early warning: p_success {said:.2f}"
            head = f"attempt {row.tries}"
            frame = drawn(views, course.setup.instruction, head, text, _GREY)
            yield frame, EVERY * SAMPLE_S / SPEED
        outcome = Outcome(row.outcome)
        text = f"monitor: {outcome.name}  p_success {row.p_success:.2f}"
        head = f"attempt {row.tries}: robot says done; planner: {row.choice}"
        frame = drawn(views, course.setup.instruction, head, text, _COLOURS[outcome])
        yield frame, _HOLD_S


def drawn(
    views: Sequence[np.ndarray],
    instruction: str,
    head: str,
    text: str,
    colour: tuple[int, int, int],
) -> np.ndarray:
    """Both views beside each other, and three lines above them."""
    picture = np.concatenate(views, axis=1)
    band = np.full((_BAND, picture.shape[1], 3), 25, np.uint8)
    for number, (line, ink) in enumerate(
        ((f'"{instruction}"', _WHITE), (head, _GREY), (text, colour))
    ):
        place = (8, 19 + number * _LINE)
        cv2.putText(band, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, 1, cv2.LINE_AA)
    framed = cv2.copyMakeBorder(picture, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=colour)
    framed = cv2.resize(framed, picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    return np.concatenate([band, framed])


def write_gif(path: Path, frames: Sequence[tuple[np.ndarray, float]]) -> None:
    """An endless GIF."""
    pictures = [Image.fromarray(frame) for frame, _ in frames]
    # One palette of all: colours must not flicker from frame to frame.
    sheet = Image.fromarray(np.concatenate([frame for frame, _ in frames[::4]]))
    palette = sheet.quantize(128, dither=Image.Dither.NONE)
    reduced = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [round(seconds * 1000) for _, seconds in frames]
    reduced[0].save(
        path, save_all=True, append_images=reduced[1:], duration=times, loop=0, optimize=True
    )


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="ifailsense closed-loop film",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--detector", default="sim-tiny", help="checkpoint, or baseline:...")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--split", default="dev", help="whose scenes and sentences")
    parser.add_argument("--seed", type=int, default=7, help="base seed of the scenes")
    parser.add_argument("--first", type=int, default=0, help="number of the first task")
    parser.add_argument("--out", type=Path, default=Path("out") / "closed_loop.gif")
    args = parser.parse_args(arguments)
    try:
        if args.split not in SPLITS or min(args.seed, args.first) < 0:
            raise ConfigError(f"--split: one of {', '.join(SPLITS)}; --seed, --first not negative")
        loaded = load(Arms(load_settings(), args.detector, args.device))
        course, rows = find_rescue(loaded, args.split, args.seed, args.first)
        write_gif(args.out, list(frames_of(course, rows, loaded)))
    except IFailSenseError as error:
        print(f"ifailsense closed-loop film: {error}", file=sys.stderr)
        return 2
    task = course.setup
    print(f"task {task.index} of seed {task.seed}, {len(rows)} attempts: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
