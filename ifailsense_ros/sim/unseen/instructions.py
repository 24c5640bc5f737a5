"""What is said in the unseen world: eleven phrasings a family of tasks, as on the desk.

The first eight are for training, validation and development, the last three for the test; the test
ones are made of content words that the eight of their family also use. Zero-shot, a detector
trained on the desk has never read many of these words: `known_share` says how many it has.
"""

from __future__ import annotations

import functools

from .. import instructions as desk
from ..tasks import TASKS as DESK_TASKS
from .tasks import TASKS, Task

TRAIN_PHRASINGS = range(8)
TEST_PHRASINGS = range(8, 11)

_FUNCTION_WORDS = frozenset(
    {"the", "to", "it", "up", "and", "of", "by", "a", "with", "on", "in", "into", "from", "at"}
    | {"onto", "that", "is", "so", "its", "until", "all", "way"}
)

PHRASINGS: dict[str, tuple[str, ...]] = {
    "open_drawer": (
        "open the drawer",
        "pull the drawer open",
        "pull the white handle to open the drawer",
        "slide the green drawer open",
        "pull out the drawer",
        "open the drawer by its handle",
        "draw the drawer out of the green box",
        "go and open the green drawer",
        "slide out the drawer",
        "pull the green drawer out",
        "pull the handle of the drawer to slide it out",
    ),
    "close_drawer": (
        "close the drawer",
        "push the drawer closed",
        "push the white handle to close the drawer",
        "slide the green drawer closed",
        "push in the drawer",
        "shut the drawer",
        "push the drawer back into the green box",
        "go and close the green drawer",
        "shut the green drawer",
        "push the green drawer in",
        "slide the drawer back in to close it",
    ),
    "open_safe": (
        "open the safe",
        "open the door of the safe",
        "swing the safe door open",
        "push the door of the safe open",
        "open the dark door all the way",
        "swing open the door of the safe",
        "move the safe door until it is open",
        "go and open the safe",
        "push open the safe door",
        "swing the dark door open",
        "move the door of the safe open",
    ),
    "close_safe": (
        "close the safe",
        "close the door of the safe",
        "swing the safe door closed",
        "push the door of the safe closed",
        "shut the dark door all the way",
        "shut the safe",
        "move the safe door until it is closed",
        "go and close the safe",
        "push the safe door shut",
        "swing the dark door closed",
        "move the door of the safe shut",
    ),
    "open_window": (
        "open the window",
        "slide the window open",
        "push the white handle to open the window",
        "slide the window to the right",
        "open the window by its handle",
        "move the pane to the right to open the window",
        "push the window open",
        "go and open the window",
        "slide the pane open",
        "push the handle of the window to the right",
        "move the window open by its handle",
    ),
    "close_window": (
        "close the window",
        "slide the window closed",
        "push the white handle to close the window",
        "slide the window to the left",
        "shut the window by its handle",
        "move the pane to the left to close the window",
        "push the window shut",
        "go and close the window",
        "slide the pane closed",
        "push the handle of the window to the left",
        "move the window shut by its handle",
    ),
    "turn_faucet": (
        "turn the faucet to the {direction}",
        "turn the red handle to the {direction}",
        "rotate the faucet handle {direction}",
        "push the faucet handle to the {direction}",
        "swing the red lever of the faucet {direction}",
        "rotate the red lever to the {direction}",
        "turn the handle of the faucet towards the {direction}",
        "go and turn the faucet {direction}",
        "swing the faucet handle to the {direction}",
        "rotate the faucet towards the {direction}",
        "push the red lever {direction}",
    ),
    "turn_lock_down": (
        "turn the lock down",
        "lock the safe",
        "push the lever of the lock down",
        "rotate the lock downwards",
        "turn the lever on the door downwards",
        "lock the door of the safe",
        "push down the lever on the safe door",
        "go and lock the door by turning its lever down",
        "turn the lever of the lock down",
        "rotate the lever on the safe downwards",
        "push the lock of the door downwards",
    ),
    "turn_lock_up": (
        "turn the lock up",
        "unlock the safe",
        "push the lever of the lock up",
        "rotate the lock upwards",
        "turn the lever on the door upwards",
        "unlock the door of the safe",
        "raise the lever on the safe door",
        "go and unlock the door by turning its lever up",
        "raise the lever of the lock",
        "rotate the lever on the safe upwards",
        "push the lock of the door upwards",
    ),
    "press_handle_down": (
        "press the handle down",
        "push the red handle down",
        "press down on the red lever",
        "push the lever of the machine down",
        "lower the red handle",
        "press the handle of the machine downwards",
        "move the red lever down",
        "go and press the red handle",
        "push down the lever",
        "lower the handle of the machine",
        "press the red lever downwards",
    ),
    "pull_handle_up": (
        "pull the handle up",
        "pull the red handle up",
        "lift the red lever",
        "pull the lever of the machine up",
        "raise the red handle",
        "lift the handle of the machine upwards",
        "move the red lever up",
        "go and raise the red handle",
        "pull up the lever",
        "raise the handle of the machine",
        "lift the red handle upwards",
    ),
    "slide_puck_in": (
        "slide the puck into the goal",
        "push the puck into the goal",
        "move the black puck into the net",
        "score a goal with the puck",
        "push the black disc to the goal",
        "slide the black disc into the net",
        "bring the puck to the goal",
        "go and push the puck into the net",
        "move the puck into the goal",
        "slide the black puck to the goal",
        "push the black puck into the net",
    ),
    "slide_puck_out": (
        "slide the puck away from the goal",
        "pull the puck away from the goal",
        "move the black puck away from the net",
        "pull the puck back",
        "drag the black disc back from the goal",
        "slide the black disc away from the net",
        "bring the puck back from the goal",
        "go and drag the puck away from the net",
        "move the puck away from the goal",
        "pull the black puck back from the net",
        "drag the black puck away",
    ),
    "move_mug_to": (
        "bring the mug to the coffee machine",
        "move the mug towards the coffee machine",
        "bring the white cup to the coffee machine",
        "put the mug under the coffee machine",
        "carry the cup towards the machine",
        "place the white mug at the coffee machine",
        "move the cup under the coffee machine",
        "go and put the cup at the machine",
        "carry the white cup under the machine",
        "bring the mug to the machine",
        "place the cup at the coffee machine",
    ),
    "move_mug_away": (
        "take the mug away from the coffee machine",
        "move the mug away from the coffee machine",
        "take the white cup from the coffee machine",
        "put the mug farther from the coffee machine",
        "carry the cup away from the machine",
        "take the white mug back from the coffee machine",
        "move the cup back from the coffee machine",
        "go and take the mug away from the machine",
        "carry the white cup away from the machine",
        "take the mug back from the machine",
        "move the white cup away from the coffee machine",
    ),
    "push_cylinder": (
        "push the red cylinder to the {direction}",
        "push the red cylinder farther to the {direction}",
        "push the red piece {direction}",
        "shift the small red cylinder {direction}",
        "slide the red piece to the {direction}",
        "shove the red cylinder towards the {direction}",
        "move the red piece to the {direction} by pushing it",
        "go and push the red piece to the {direction}",
        "slide the red cylinder to the {direction}",
        "shove the small red cylinder to the {direction}",
        "push the small red piece towards the {direction}",
    ),
    "place_cube": (
        "place the cube in the {colour} bin",
        "put the green cube into the {colour} bin",
        "drop the cube into the {colour} box",
        "pick up the cube and put it in the {colour} bin",
        "move the green block to the {colour} bin",
        "carry the cube to the {colour} box",
        "take the green block and place it in the {colour} bin",
        "go and put the block into the {colour} box",
        "place the green cube into the {colour} box",
        "pick up the green block and drop it into the {colour} bin",
        "take the cube and carry it to the {colour} bin",
    ),
}


def instruction_for(task: Task, phrasing: int) -> str:
    """The sentence that asks for ``task`` in phrasing 0..10.

    Raises:
        IndexError: for another phrasing.
    """
    phrasings = PHRASINGS[task.family]
    if not 0 <= phrasing < len(phrasings):
        raise IndexError(f"phrasing must be 0..{len(phrasings) - 1}, not {phrasing}")
    return phrasings[phrasing].format(colour=task.colour, direction=task.direction)


def content_words(sentence: str) -> set[str]:
    """The words of a sentence that carry meaning."""
    return set(sentence.split()) - _FUNCTION_WORDS


@functools.cache
def desk_words() -> frozenset[str]:
    """Content words that the desk's training phrasings use."""
    words: set[str] = set()
    for task in DESK_TASKS.values():
        for phrasing in desk.TRAIN_PHRASINGS:
            words |= content_words(desk.instruction_for(task, phrasing))
    return frozenset(words)


def known_share(phrasings: range = TEST_PHRASINGS) -> float:
    """Share of content words, over tasks and phrasings, that the desk's training knows."""
    known = total = 0
    for task in TASKS.values():
        for phrasing in phrasings:
            words = content_words(instruction_for(task, phrasing))
            known += len(words & desk_words())
            total += len(words)
    return known / total
