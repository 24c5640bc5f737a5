"""The 34 tasks: names (as in CALVIN's environment D), categories, attributes, the draw of a pair.

Left and right are those of the exocentric picture (left = -y); ``rotate_*_left`` is
counter-clockwise in that picture, which looks at the table from above. What a task means is in
`oracle`, where it can be performed in `feasibility`. Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .layout import COLOURS

CATEGORIES = ("lifting", "rotating", "pushing", "opening_closing", "placing", "lighting")
ATTRIBUTES = ("verb", "object", "colour", "direction", "place")
HARD_SHARE = 0.7  # of the pairs differ in exactly one attribute


@dataclass(frozen=True)
class Task:
    """One thing that can be asked for; an attribute is "" where the task has none.

    ``place`` is where a block is lifted from or brought to: table, slider, drawer.
    """

    name: str
    category: str
    family: str
    verb: str
    object: str
    colour: str = ""
    direction: str = ""
    place: str = ""


def _all_tasks() -> dict[str, Task]:
    sides = ("left", "right")
    tasks = [
        Task(f"lift_{c}_block_{p}", "lifting", f"lift_{p}", "lift", "block", c, place=p)
        for p in ("table", "slider", "drawer")
        for c in COLOURS
    ]
    for verb, category in (("rotate", "rotating"), ("push", "pushing")):
        tasks += [
            Task(f"{verb}_{c}_block_{s}", category, verb, verb, "block", c, s)
            for c in COLOURS
            for s in sides
        ]
    tasks.append(
        Task("push_into_drawer", "pushing", "push_into_drawer", "push", "block", place="drawer")
    )
    tasks += [
        Task(f"{verb}_drawer", "opening_closing", f"{verb}_drawer", verb, "drawer")
        for verb in ("open", "close")
    ]
    tasks += [
        Task(f"move_slider_{s}", "opening_closing", "move_slider", "move", "slider", direction=s)
        for s in sides
    ]
    tasks += [
        Task(f"place_in_{p}", "placing", f"place_in_{p}", "place", "block", place=p)
        for p in ("slider", "drawer")
    ]
    tasks += [
        Task(f"{verb}_block", "placing", verb, verb, "block") for verb in ("stack", "unstack")
    ]
    tasks += [
        Task(f"turn_{w}_{lamp}", "lighting", f"turn_{w}_{lamp}", f"turn_{w}", lamp)
        for lamp in ("lightbulb", "led")
        for w in ("on", "off")
    ]
    return {task.name: task for task in tasks}


TASKS: dict[str, Task] = _all_tasks()


def tasks_of(category: str, among: tuple[str, ...] = tuple(TASKS)) -> list[Task]:
    """The tasks of a category whose names are in ``among``, in table order."""
    return [task for task in TASKS.values() if task.category == category and task.name in among]


def contrast(a: Task, b: Task) -> tuple[str, ...]:
    """The attributes in which two tasks differ, in the order of ``ATTRIBUTES``."""
    return tuple(name for name in ATTRIBUTES if getattr(a, name) != getattr(b, name))


def draw_pair(
    rng: np.random.Generator,
    target: Task,
    feasible: tuple[str, ...],
    among: tuple[str, ...] = tuple(TASKS),
    hard_share: float = HARD_SHARE,
) -> tuple[Task, Task] | None:
    """Which task an episode performs and which is its designated negative.

    The pair is ``target`` and another feasible task of its category: with probability
    ``hard_share`` one that differs in exactly one attribute (the attribute drawn first, evenly; of
    tasks that have no such partner at all this is not asked), else any. A fair coin then says which
    of the two is performed, so the start state says nothing about it.

    Args:
        rng: source of randomness.
        target: the task whose turn it is.
        feasible: names of the tasks feasible in the scene.
        among: names of the tasks that may be performed. A partner outside them can only be the
            negative; the coin is not thrown then.
        hard_share: see above.

    Returns:
        (performed, negative), or None if the scene has no such pair: draw another scene.
    """
    partners = [task for task in tasks_of(target.category, feasible) if task != target]
    if target.name not in feasible:
        return None
    if rng.random() < hard_share and _hard(target, tasks_of(target.category)):
        hard = _hard(target, partners)
        kinds = sorted(hard)
        partners = hard[kinds[int(rng.integers(len(kinds)))]] if kinds else []
    if not partners:
        return None
    partner = partners[int(rng.integers(len(partners)))]
    keep = bool(rng.random() < 0.5) or partner.name not in among
    return (target, partner) if keep else (partner, target)


def _hard(target: Task, partners: list[Task]) -> dict[str, list[Task]]:
    """The partners that differ from ``target`` in exactly one attribute, by that attribute."""
    hard: dict[str, list[Task]] = {}
    for partner in partners:
        differing = contrast(target, partner)
        if len(differing) == 1:
            hard.setdefault(differing[0], []).append(partner)
    return hard
