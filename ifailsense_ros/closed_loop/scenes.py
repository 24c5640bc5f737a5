"""Tasks, their attempts, and what the cameras saw of them: the headless side of the closed loop.

All monitors of a task share one `Course`, so they see the same first attempt, and the same later
ones for as long as they decide alike (common random numbers). Only keyframes are rendered.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ifailsense_ros.closed_loop.settings import Settings
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.keyframes import KeyframeBuffer
from ifailsense_ros.sim.policy import Attempt, Robot
from ifailsense_ros.sim.render import Camera, encode_jpeg
from ifailsense_ros.sim.robot import SAMPLE_S, World
from ifailsense_ros.sim.rollout import MAX_ATTEMPTS, SPLITS, Setup, draw_setup

SAMPLE_NS = round(SAMPLE_S * 1e9)
CANDIDATES = 16
"""Keyframe candidates the monitor node keeps, as a multiple of T (`TrackerConfig`)."""
PRE_ROLL_NS = 200_000_000
"""Before START, from where the node counts its slots; there are no pictures in it."""


def setup_of(split: str, seed: int, index: int, look: str) -> Setup:
    """The scene and the task of a number: the first draw in which the task is feasible.

    Raises:
        RuntimeError: there is none, which means the world is broken.
    """
    for attempt in range(MAX_ATTEMPTS):
        setup = draw_setup(split, index, attempt, look, seed=seed)
        if setup is not None:
            return setup
    raise RuntimeError(f"task {index} of seed {seed}: no scene in {MAX_ATTEMPTS} draws")


def key_of(setup: Setup) -> list[int]:
    """What the draws of a task's attempts come from (`Robot.lay_out`)."""
    return [setup.seed, SPLITS[setup.split], setup.index, setup.attempt]


@dataclass(frozen=True)
class Move:
    """One attempt as a planner ordered it.

    Attributes:
        seed: the policy was asked with.
        samples: after which the planner gave it up; None: it went to its end.
    """

    seed: int
    samples: int | None = None


class Stage:
    """A world with its robot, and a camera where one is needed.

    Args:
        settings: the experiment's.
        pictures: whether anybody will look.
    """

    def __init__(self, settings: Settings, *, pictures: bool) -> None:
        self.world = World()
        self.robot = Robot(self.world, settings.policy)
        self.camera = None
        if pictures:
            self.camera = Camera(self.world)
            weakref.finalize(self, self.camera.close)  # at the process's end, too


class Course:
    """The attempts at one task, each made when it is first asked for.

    Args:
        stage: where they are made; one course at a time.
        setup: scene and task.
    """

    def __init__(self, stage: Stage, setup: Setup) -> None:
        self.setup = setup
        self._stage = stage
        self._known: dict[tuple[Move, ...], Attempt] = {}
        self._episodes: dict[tuple, Episode] = {}
        self._at: tuple[Move, ...] | None = None

    def attempt(self, moves: Sequence[Move]) -> Attempt:
        """The last of a row of attempts."""
        moves = tuple(moves)
        if moves not in self._known:
            if self._at != moves[:-1]:  # the world stands elsewhere: from the start once more
                self._stage.robot.lay_out(self.setup, key_of(self.setup))
                for number in range(1, len(moves)):
                    self._make(moves[:number])
            self._make(moves)
        return self._known[moves]

    def _make(self, moves: tuple[Move, ...]) -> None:
        robot, move = self._stage.robot, moves[-1]
        if len(moves) == 1:
            robot.lay_out(self.setup, key_of(self.setup))
        motion = robot.attempt(self.setup.task, move.seed)
        for number, _ in enumerate(motion, 1):
            if number == move.samples:
                motion.close()
                break
        self._known[moves] = robot.result()
        self._at = moves

    def episode(
        self, moves: Sequence[Move], num_keyframes: int, num_pov: int, samples: int | None = None
    ) -> Episode:
        """The last attempt as a monitor freezes it.

        Args:
            moves: the attempts.
            num_keyframes: T.
            num_pov: N.
            samples: only so many of its samples have been seen so far; None: all.
        """
        moves = tuple(moves)
        key = (moves, num_keyframes, num_pov, samples)
        if key not in self._episodes:
            self._episodes[key] = self._shot(self.attempt(moves), *key)
        return self._episodes[key]

    def _shot(
        self,
        attempt: Attempt,
        moves: tuple[Move, ...],
        num_keyframes: int,
        num_pov: int,
        samples: int | None,
    ) -> Episode:
        camera = self._stage.camera
        assert camera is not None, "this stage was made without pictures"
        self._stage.world.apply_look(self.setup.scene.look)
        states = attempt.states[:samples]
        picks = keyframes_of(len(states), num_keyframes)
        rows = camera.pictures(states[picks])[:num_pov]
        views = zip(*([_as_received(picture) for picture in row] for row in rows), strict=True)
        return Episode(
            episode_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{key_of(self.setup)} {moves}"),
            instruction=self.setup.instruction,
            keyframes=tuple(
                Keyframe(i * SAMPLE_NS, tuple(view)) for i, view in zip(picks, views, strict=True)
            ),
            start_ns=0,
            end_ns=(len(states) - 1) * SAMPLE_NS,
        )


def keyframes_of(count: int, num_keyframes: int) -> list[int]:
    """Which of an attempt's samples the monitor node takes as keyframes.

    Raises:
        ValueError: fewer samples than keyframes.
    """
    buffer: KeyframeBuffer[int] = KeyframeBuffer(
        num_keyframes, CANDIDATES * num_keyframes, origin_ns=-PRE_ROLL_NS
    )
    for number in range(count):
        buffer.add(number * SAMPLE_NS, number)
    return [number for _, number in buffer.select()]


def _as_received(picture: np.ndarray) -> np.ndarray:
    """A picture after the way through JPEG that data sets, bags and topics take."""
    data = np.frombuffer(encode_jpeg(picture), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
