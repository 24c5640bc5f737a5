"""Failed twins of successful episodes, in AHA's seven classes, each confirmed by the oracle.

A twin has the scene, instruction, drawn speeds and length of its success; only the fault differs.
The six control failures are edits of the expert's plan (`edits`). The seventh, wrong target object,
is semantic: the expert performs the task on another object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ifailsense_ros.data.failure_classes import (
    CONTROL_FAILURES,
    FAILURE_CLASSES,
    INADEQUATE_GRIP_RETENTION,
    INCOMPLETE_GRASP,
    INCORRECT_ROTATION,
    MISALIGNED_KEYFRAME,
    MISSING_ROTATION,
    WRONG_ACTION_SEQUENCE,
    WRONG_TARGET_OBJECT,
)

from .edits import EDITS, NoPlaceError
from .oracle import Outcome
from .pacing import fit_ticks
from .robot import SAMPLE_TICKS, Waypoint, World
from .rollout import Rollout, episode_seed, perform
from .tasks import TASKS, Task, contrast

# Edits drawn until the oracle calls the instructed task FALSE.
EDIT_ATTEMPTS = 20

_NO_GRIP = "the hand pushes with closed fingers: there is no grip to fail"
_HOOKED = "fingers that do not close, or are turned, still hook the handle and move it"
_NO_COLOUR = "the instruction names no colour: any block will do"
_ALIGNED = "blocks in drawer and cabinet lie as the hand comes: it need not turn"

_PUSHED = (
    "push",
    "push_into_drawer",
    "turn_on_lightbulb",
    "turn_off_lightbulb",
    "turn_on_led",
    "turn_off_led",
)
_PULLED = ("open_drawer", "close_drawer", "move_slider")

WHY_NOT: dict[str, dict[str, str]] = {
    INCOMPLETE_GRASP: {**dict.fromkeys(_PUSHED, _NO_GRIP), **dict.fromkeys(_PULLED, _HOOKED)},
    INADEQUATE_GRIP_RETENTION: dict.fromkeys(_PUSHED, _NO_GRIP),
    MISALIGNED_KEYFRAME: {},
    INCORRECT_ROTATION: {**dict.fromkeys(_PUSHED, _NO_GRIP), **dict.fromkeys(_PULLED, _HOOKED)},
    MISSING_ROTATION: {
        **dict.fromkeys(_PUSHED, _NO_GRIP),
        **dict.fromkeys(_PULLED, _HOOKED),
        **dict.fromkeys(("lift_slider", "lift_drawer"), _ALIGNED),
    },
    WRONG_ACTION_SEQUENCE: {},
    WRONG_TARGET_OBJECT: dict.fromkeys(
        ("push_into_drawer", "place_in_slider", "place_in_drawer", "stack", "unstack"), _NO_COLOUR
    ),
}
"""Class -> families of tasks where it makes no sense -> why. All other families can fail so."""


def fails_so(kind: str, task: Task) -> bool:
    """Whether a class of failure makes sense for a task."""
    return task.family not in WHY_NOT[kind]


def tasks_failing(kind: str) -> tuple[str, ...]:
    """Names of the tasks for which a class of failure makes sense, in table order."""
    return tuple(name for name, task in TASKS.items() if fails_so(kind, task))


def wrong_targets(task: Task, feasible: tuple[str, ...]) -> list[Task]:
    """Tasks that do to another object what ``task`` does to its own: the most alike of them."""
    others = [TASKS[name] for name in feasible if TASKS[name].category == task.category]
    differing = [(contrast(task, other), other) for other in others]
    found = [
        (len(how), other)
        for how, other in differing
        if ("colour" in how or "object" in how) and fails_so(WRONG_TARGET_OBJECT, other)
    ]
    least = min((count for count, _ in found), default=0)
    return [other for count, other in found if count == least]


def _faults(success: Rollout, kind: str) -> Iterator[tuple[Task, np.random.Generator]]:
    """What is performed in each attempt at a failure, and where its randomness comes from."""
    setup = success.setup
    if not fails_so(kind, setup.task):
        raise NoPlaceError(WHY_NOT[kind][setup.task.family])
    targets = [setup.task]
    if kind == WRONG_TARGET_OBJECT:
        targets = wrong_targets(setup.task, setup.feasible)
        if not targets:
            raise NoPlaceError("no other object of the scene allows the same")
    for attempt in range(EDIT_ATTEMPTS):
        edit = 1 + FAILURE_CLASSES.index(kind) * EDIT_ATTEMPTS + attempt
        rng = np.random.default_rng(
            episode_seed(setup.split, setup.index, setup.attempt, edit, seed=setup.seed)
        )
        yield targets[int(rng.integers(len(targets)))], rng


def perform_failure(world: World, success: Rollout, kind: str) -> Rollout:
    """The failed twin of an episode: same scene, instruction and length, with a fault.

    Args:
        world: to perform it in.
        success: the twin; its setup is kept, but that for ``wrong_target_object`` the setup's
            negative becomes the task that was carried out.
        kind: one of `FAILURE_CLASSES`.

    Raises:
        ValueError: for an unknown kind, one that makes no sense for the task, one the plan has no
            place for, or if no drawn edit makes the oracle call the task FALSE.
    """
    if kind not in FAILURE_CLASSES:
        raise ValueError(f"unknown failure {kind!r}; known: {', '.join(FAILURE_CLASSES)}")
    setup = success.setup
    ticks = (len(success.states) - 1) * SAMPLE_TICKS
    reason = ""
    for performed, rng in _faults(success, kind):

        def edited(plan: list[Waypoint], rng: np.random.Generator = rng) -> list[Waypoint]:
            if kind in CONTROL_FAILURES:
                plan = EDITS[kind](plan, setup.scene.home, rng)
            return fit_ticks(plan, ticks, setup.scene.home)

        try:
            twin = perform(world, replace(setup, task=performed), edited)
        except NoPlaceError:
            raise
        except ValueError as error:  # longer than its twin
            reason = str(error)
            continue
        outcome = twin.outcomes[setup.task.name]
        reason = f"the oracle says {outcome.name}"
        if performed != setup.task and twin.outcomes[performed.name] is not Outcome.TRUE:
            reason = f"{performed.name} was not carried out"
        elif outcome is Outcome.FALSE:
            kept = setup if performed == setup.task else replace(setup, negative=performed)
            return replace(twin, setup=kept)
    raise NoPlaceError(
        f"{kind} did not fail {setup.task.name} in {EDIT_ATTEMPTS} tries "
        f"(episode {setup.index} of {setup.split}): {reason}"
    )
