"""Control failures as edits of the expert's plan (as in AHA), confirmed by the oracle.

The edited episode has the scene, instruction, drawn speeds and nearly the length of its successful
twin; only the fault differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .robot import Waypoint, World
from .rollout import Rollout, episode_seed, perform
from .tasks import Outcome

# Seeds of the edit tried until the oracle calls the instructed task FALSE.
_EDIT_ATTEMPTS = 20


def drop(plan: list[Waypoint], rng: np.random.Generator) -> list[Waypoint]:
    """The gripper opens on the way up.

    Raises:
        ValueError: if the plan lifts nothing.
    """
    if not any(step.tag == "lift" for step in plan):
        raise ValueError("nothing to drop: the plan lifts nothing")
    share = float(rng.uniform(0.35, 0.6))
    return [replace(step, release_at=share) if step.tag == "lift" else step for step in plan]


def missed_grasp(plan: list[Waypoint], rng: np.random.Generator) -> list[Waypoint]:
    """The gripper closes above the object, and the plan goes on as if it held it.

    Raises:
        ValueError: if the plan grasps nothing.
    """
    if not any(step.tag == "grasp" for step in plan):
        raise ValueError("no grasp to miss: the plan grasps nothing")
    raised = float(rng.uniform(0.055, 0.075))
    out = []
    for step in plan:
        if step.tag in ("reach", "place"):
            x, y, z = step.position
            step = replace(step, position=(x, y, z + raised))
        out.append(step)
    return _same_pace(plan, out)


def _same_pace(plan: list[Waypoint], edited: list[Waypoint]) -> list[Waypoint]:
    """``edited`` with its moves as long in time as those of ``plan``: length must not tell."""
    out = []
    before: tuple[np.ndarray, np.ndarray] | None = None
    for old, new in zip(plan, edited, strict=True):
        if new.kind == "move":
            ends = np.array(old.position), np.array(new.position)
            if before is not None:
                old_way, new_way = (
                    float(np.linalg.norm(b - a)) for a, b in zip(before, ends, strict=True)
                )
                new = replace(new, speed=max(new.speed * new_way / max(old_way, 1e-6), 1e-3))
            before = ends
        out.append(new)
    return out


EDITS: dict[str, Callable[[list[Waypoint], np.random.Generator], list[Waypoint]]] = {
    "drop": drop,
    "missed_grasp": missed_grasp,
}


def perform_failure(world: World, success: Rollout, kind: str) -> Rollout:
    """The failed twin of an episode: same scene and task, with the fault ``kind``.

    Raises:
        ValueError: for an unknown kind, or one the task's plan has no place for.
        RuntimeError: if no drawn edit makes the oracle call the task FALSE.
    """
    if kind not in EDITS:
        raise ValueError(f"unknown failure {kind!r}; known: {', '.join(EDITS)}")
    setup = success.setup
    for attempt in range(_EDIT_ATTEMPTS):
        seed = episode_seed(setup.split, setup.index, setup.attempt, 1 + attempt)
        rng = np.random.default_rng(seed)
        twin = perform(world, setup, lambda plan, rng=rng: EDITS[kind](plan, rng))
        if twin.outcomes[setup.task.name] is Outcome.FALSE:
            return twin
    raise RuntimeError(
        f"{kind} did not fail {setup.task.name} in {_EDIT_ATTEMPTS} tries "
        f"(episode {setup.index} of {setup.split})"
    )
