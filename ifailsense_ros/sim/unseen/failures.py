"""Control failures: the expert's own motion, disturbed and replayed from the same start.

The failure has the scene, instruction, speeds and length of its successful twin, to the step; only
the fault differs. It is used only if the oracle calls the instructed task FALSE, and if the
opposite task did not come true either.

Which class fits which scene, and why not, is `SCENES_OF`:

- ``misaligned_keyframe``: everywhere but at the safe, whose door is so large that a hand beside
  the place still swings it; all keyframes of the act lie 5 to 11 cm beside, above
  or short of the place.
- ``wrong_action_sequence``: likewise; the way with the object comes before the approach
  to it, or before the descent.
- ``incomplete_grasp`` and ``inadequate_grip_retention``: where something is held. A drawer or a
  lever is hooked or pushed here, never held: fingers that open change nothing.
- ``missing_rotation``: where something is turned; the hand arrives and does not turn it.
- ``incorrect_rotation``: nowhere. What turns has one hinge: too little is the oracle's dead band,
  and the other way is the opposite task, which is a semantic failure.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ifailsense_ros.data.failure_classes import (
    INADEQUATE_GRIP_RETENTION,
    INCOMPLETE_GRASP,
    MISALIGNED_KEYFRAME,
    MISSING_ROTATION,
    WRONG_ACTION_SEQUENCE,
)

from ..oracle import Outcome
from .experts import Motion, replay
from .rollout import MAX_ATTEMPTS, Rollout, Seed, Stage, simulate
from .scenes import SCENES
from .tasks import judge_scene

_EDIT_ATTEMPTS = 12

_HELD = tuple(name for name, spec in SCENES.items() if spec.category == "placing")
_TURNED = tuple(name for name, spec in SCENES.items() if spec.category == "rotating")
_SMALL = tuple(name for name in SCENES if name != "door")
SCENES_OF: dict[str, tuple[str, ...]] = {
    INCOMPLETE_GRASP: _HELD,
    INADEQUATE_GRIP_RETENTION: _HELD,
    MISALIGNED_KEYFRAME: _SMALL,
    MISSING_ROTATION: _TURNED,
    WRONG_ACTION_SEQUENCE: _SMALL,
}
"""Class of failure -> scenes in which it makes sense."""


def _fading(motion: Motion, offset: np.ndarray) -> np.ndarray:
    """Targets of a motion with an offset (n, 3) that fades away while the hand retreats."""
    leaves = motion.first("retreat")
    fade = np.ones(len(motion))
    fade[leaves:] = np.linspace(1.0, 0.0, len(motion) - leaves)
    return motion.targets + offset * fade[:, None]


def incomplete_grasp(motion: Motion, rng: np.random.Generator) -> Motion:
    """The fingers hardly close, and the plan goes on as if they held something."""
    open_still = float(rng.uniform(-1.0, -0.6))
    return replace(motion, grips=np.minimum(motion.grips, open_still))


def inadequate_grip_retention(motion: Motion, rng: np.random.Generator) -> Motion:
    """The fingers open early on the way."""
    way = motion.first("hold") - motion.touched
    opens = motion.touched + round(float(rng.uniform(0.05, 0.45)) * way)
    grips = motion.grips.copy()
    grips[opens:] = -1.0
    return replace(motion, grips=grips)


def misaligned_keyframe(motion: Motion, rng: np.random.Generator) -> Motion:
    """What the hand does, it does 5 to 11 cm beside, above or short of the place."""
    begins, touches, ends = motion.first("act"), motion.touched, motion.first("hold")
    angle = float(rng.uniform(0.0, 2.0 * np.pi))
    short = motion.targets[min(touches, ends)] - motion.targets[min(ends, len(motion) - 1)]
    ways = (
        np.array([np.cos(angle), np.sin(angle), 0.0]),
        np.array([0.0, 0.0, 1.0]),
        short / max(float(np.linalg.norm(short)), 1e-3),
    )
    off = ways[int(rng.integers(len(ways)))] * rng.uniform(0.05, 0.11)
    share = np.clip((np.arange(len(motion)) - begins) / max(0.6 * (touches - begins), 1.0), 0, 1)
    return replace(motion, targets=_fading(motion, share[:, None] * off))


def missing_rotation(motion: Motion, rng: np.random.Generator) -> Motion:
    """The hand arrives, stays, and leaves: nothing is turned."""
    stays = max(motion.touched - int(rng.integers(4, 9)), 0)
    offset = np.zeros_like(motion.targets)
    leaves = motion.first("retreat")
    offset[stays:leaves] = motion.targets[stays] - motion.targets[stays:leaves]
    offset[leaves:] = offset[leaves - 1]
    return replace(motion, targets=_fading(motion, offset))


def wrong_action_sequence(motion: Motion, rng: np.random.Generator) -> Motion:
    """First the way that should move the object, then the approach to it, or only the descent."""
    return _descend_last(motion) if rng.random() < 0.5 else _approach_last(motion, rng)


def _approach_last(motion: Motion, rng: np.random.Generator) -> Motion:
    begins, ends = motion.first("act"), motion.first("hold")
    swap = int(np.clip(motion.touched + rng.integers(-2, 3), begins, ends))
    order = np.r_[0:begins, swap:ends, begins:swap, ends : len(motion)]
    steps = np.diff(motion.targets, axis=0, prepend=motion.targets[:1])
    return replace(
        motion,
        targets=motion.targets[0] + np.cumsum(steps[order], axis=0),
        grips=motion.grips[order],
    )


def _descend_last(motion: Motion) -> Motion:
    begins, ends, leaves = (motion.first(phase) for phase in ("act", "hold", "retreat"))
    heights = motion.targets[:, 2].copy()
    low = float(heights[begins : ends + 1].min())
    high = max(float(heights[begins : ends + 1].max()), low + 0.12)
    heights[begins:leaves] = np.maximum(heights[begins:leaves], high)
    heights[begins : begins + 20] = np.linspace(heights[max(begins - 1, 0)], high, 20)
    down, rest = np.linspace(high, low, 20), len(motion) - leaves - 20
    heights[leaves:] = np.r_[down, np.linspace(low, motion.targets[-1, 2], rest)]
    return replace(motion, targets=np.c_[motion.targets[:, :2], heights])


EDITS: dict[str, Callable[[Motion, np.random.Generator], Motion]] = {
    INCOMPLETE_GRASP: incomplete_grasp,
    INADEQUATE_GRIP_RETENTION: inadequate_grip_retention,
    MISALIGNED_KEYFRAME: misaligned_keyframe,
    MISSING_ROTATION: missing_rotation,
    WRONG_ACTION_SEQUENCE: wrong_action_sequence,
}
CLASSES = tuple(EDITS)


def fail(stage: Stage, success: Rollout, kind: str) -> Rollout | None:
    """The failed twin of an episode: same start, task and length, with the fault ``kind``.

    Returns:
        the failure, or None if no drawn edit makes the oracle call both tasks FALSE.

    Raises:
        ValueError: for a class that makes no sense in the episode's scene.
    """
    scene = success.start.scene
    if scene not in SCENES_OF.get(kind, ()):
        raise ValueError(f"{kind} makes no sense in scene {scene!r}")
    for number in range(_EDIT_ATTEMPTS):
        rng = success.seed.generators(success.attempt, number)[0]
        motion = EDITS[kind](success.performance.motion, rng)
        performance = replay(stage.arm(scene), success.start, motion)
        outcomes = judge_scene(scene, performance.start, performance.end)
        if all(outcome is Outcome.FALSE for outcome in outcomes.values()):
            return replace(success, performance=performance, outcomes=outcomes)
    return None


def simulate_failure(stage: Stage, seed: Seed, kind: str, scene: str) -> tuple[Rollout, Rollout]:
    """A failure of a class and its successful twin, from the first start where the class works.

    Returns:
        (failure, twin); the failure's ``rejected`` also counts the starts at which it did not fail.

    Raises:
        ValueError: for a class that makes no sense in the scene.
        RuntimeError: if no start works, which means the world is broken.
    """
    rejected: collections.Counter[str] = collections.Counter()
    first = 0
    while first < MAX_ATTEMPTS:
        success = simulate(stage, seed, scene, first)
        rejected.update(success.rejected)
        failure = fail(stage, success, kind)
        if failure is not None:
            return replace(failure, rejected=dict(rejected)), success
        rejected[f"did_not_fail {kind} {success.task.name}"] += 1
        first = success.attempt + 1
    raise RuntimeError(f"{kind} in {scene}, {seed}: {dict(rejected)}")
