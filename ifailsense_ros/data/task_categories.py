"""Task categories: of CALVIN's 34 tasks by name, of a free instruction by its verb (paper, V-A).

The paper groups CALVIN's tasks into six categories but does not publish which task is in which;
the grouping here is ours (docs/readers.md). Instructions of other data sets also get categories
that CALVIN has no task for ("pouring", "wiping", "folding").
"""

from __future__ import annotations

import re

from ifailsense_ros.core.errors import DataError

_COLOURS = ("red", "blue", "pink")
_CALVIN_GROUPS: dict[str, tuple[str, ...]] = {
    "rotating": tuple(f"rotate_{c}_block_{s}" for c in _COLOURS for s in ("left", "right")),
    "pushing": (
        *(f"push_{c}_block_{s}" for c in _COLOURS for s in ("left", "right")),
        "push_into_drawer",
    ),
    "opening_closing": ("move_slider_left", "move_slider_right", "open_drawer", "close_drawer"),
    "lifting": tuple(
        f"lift_{c}_block_{p}" for c in _COLOURS for p in ("table", "slider", "drawer")
    ),
    "placing": ("place_in_slider", "place_in_drawer", "stack_block", "unstack_block"),
    "lighting": ("turn_on_lightbulb", "turn_off_lightbulb", "turn_on_led", "turn_off_led"),
}
CALVIN_CATEGORIES: dict[str, str] = {
    task: category for category, tasks in _CALVIN_GROUPS.items() for task in tasks
}
"""Task of CALVIN's environments -> its category."""


def calvin_category(task: str) -> str:
    """The category of one of CALVIN's 34 tasks.

    Raises:
        DataError: CALVIN has no such task.
    """
    try:
        return CALVIN_CATEGORIES[task]
    except KeyError:
        raise DataError(f"{task!r} is not one of CALVIN's 34 tasks") from None


_VERBS: dict[str, str] = {
    verb: category
    for category, verbs in {
        "lifting": "lift raise pick grasp grab take hold fetch",
        "rotating": "rotate turn twist spin flip tilt",
        "pushing": "push shove slide sweep move drag shift nudge pull poke hit",
        "opening_closing": "open close shut uncover unlock",
        "placing": "put place placement stack unstack insert drop hang set lay store collapse "
        "return remove throw arrange transfer attach plug leave deposit",
        "lighting": "toggle switch press use",
        "pouring": "pour fill empty scoop",
        "wiping": "wipe clean brush scrub erase rub",
        "folding": "fold unfold",
        "cutting": "cut slice chop",
    }.items()
    for verb in verbs.split()
}
"""Verb -> category, where the rules of `verb_category` say nothing else."""

_BASE_FORM = {
    form: verb
    for verb in _VERBS
    for form in (verb, f"{verb}ing", f"{verb.removesuffix('e')}ing", f"{verb}{verb[-1]}ing")
}
"""pick, picking, placing, putting -> the verb."""

_PREPARES = {"pick", "grasp", "grab", "take", "hold", "fetch", "move", "use"}
"""Verbs that often only prepare for what is asked: "grasp the handle and pull"."""

_CLAUSE = re.compile(r"[,.;:]+|\b(?:and then|and|then|to|until|while|so that|go)\b")
_LIGHT = re.compile(
    r"\b(light|lights|lamp|bulb|lightbulb|led|switch|button|(turn|switch) o(n|ff))\b"
)
_DOOR = re.compile(
    r"\w+ (?:(?:in|out|back|open|shut|up|down) )?(?:(?:the|a|an|its) )?(?:\w+ )?"
    r"(door|drawer|slider|lid|window|curtain|handle)\b|\w+ it (open|closed|shut)\b"
)
_ELSEWHERE = re.compile(r"\b(in|into|inside|onto|out of|off|apart|on top of|from .* to)\b")


def verb_category(instruction: str) -> str:
    """The category of an instruction by the verb that names its goal; "" if no verb is known.

    The goal is what the last clause with a verb asks for ("pick up the cup and put it in the
    bowl" places); verbs that only prepare ("grasp", "take", "move") yield to others. Objects decide
    where the verb does not: lights are lit, doors and drawers opened or closed.
    """
    text = " ".join(instruction.lower().split())
    clauses = [clause.strip() for clause in _CLAUSE.split(text)]
    goals = [clause for clause in clauses if _verb(clause) in _VERBS]
    if not goals:
        # "in the drawer grasp the block": the verb does not come first.
        words = re.finditer(r"\w+", text)
        goals = [text[word.start() :] for word in words if word.group() in _VERBS][:1]
    if not goals:
        return ""
    goal = next((g for g in reversed(goals) if _verb(g) not in _PREPARES), goals[-1])
    verb = _verb(goal)
    category = _VERBS[verb]
    if category in ("pushing", "rotating", "lighting") and _LIGHT.search(text):
        return "lighting"
    if category in ("pushing", "rotating") and _DOOR.match(goal):
        return "opening_closing"
    if verb == "move" and _ELSEWHERE.search(goal):
        return "placing"
    if verb == "use":  # "use the towel": what for is not known
        return ""
    return category


def _verb(clause: str) -> str:
    first = re.split(r"\W", clause, maxsplit=1)[0]
    return _BASE_FORM.get(first, first)
