"""In what two tasks differ, read from their names (verb, object, colour, direction, place).

Names are snake_case, verb first, as CALVIN's: ``lift_red_block_table``, ``move_slider_left``,
``turn_on_led``. Other data sets' names are read by the same rule; sentences are not.
"""

from __future__ import annotations

ATTRIBUTES = ("verb", "object", "colour", "direction", "place")

COLOURS = frozenset(
    {"red", "blue", "pink", "green", "yellow", "orange", "purple", "black", "white"}
)
DIRECTIONS = frozenset({"left", "right", "up", "down", "forward", "backward"})
PLACES = frozenset({"table", "slider", "drawer", "cabinet", "shelf"})
PREPOSITIONS = frozenset({"in", "into", "on", "onto", "from", "to", "out", "off", "inside"})
SWITCHES = frozenset({"turn", "switch"})
"""Verbs that say nothing without the word after them: turn_on, turn_off."""


def attributes_of(task: str) -> dict[str, str]:
    """The attributes of a task by its name; "" where it has none.

    ``push_into_drawer`` has the place drawer and no object; ``lift_red_block_table`` the object
    block and the place table; ``open_drawer`` the object drawer and no place.
    """
    words = task.lower().split("_")
    verb, rest = words[0], words[1:]
    if verb in SWITCHES and rest and rest[0] in ("on", "off"):
        verb, rest = f"{verb}_{rest[0]}", rest[1:]
    found = dict.fromkeys(ATTRIBUTES, "")
    found["verb"] = verb
    things = []
    after_preposition = False
    for word in rest:
        if word in PREPOSITIONS:
            after_preposition = True
        elif word in COLOURS:
            found["colour"] = word
        elif word in DIRECTIONS:
            found["direction"] = word
        elif word in PLACES and (things or after_preposition):
            found["place"] = word
        else:
            things.append(word)
    found["object"] = "_".join(things)
    return found


def contrast_of(a: str, b: str) -> tuple[str, ...]:
    """The attributes in which two tasks differ, in the order of `ATTRIBUTES`.

    An object that one name leaves out (``place_in_drawer``) is taken to be the other's. Two names
    that differ in none of them (words in another order) differ in "object". Of tasks that are
    sentences instead of names it is not known: ().
    """
    if a == b or " " in a or " " in b:
        return ()
    one, other = attributes_of(a), attributes_of(b)
    if not (one["object"] and other["object"]):
        one["object"] = other["object"] = ""
    return tuple(n for n in ATTRIBUTES if one[n] != other[n]) or ("object",)


def is_hard(contrast: tuple[str, ...]) -> bool:
    """A hard negative differs in exactly one attribute (DESIGN 9.2)."""
    return len(contrast) == 1
