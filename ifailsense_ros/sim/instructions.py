"""What is said: eleven phrasings per family of tasks, eight for training, three for the test.

The test phrasings are other sentences made of content words that the training phrasings of the
same family also use (DESIGN section 9, rule 9).
"""

from __future__ import annotations

from .tasks import Task

TRAIN_PHRASINGS = range(8)
TEST_PHRASINGS = range(8, 11)

# Words that carry no content; every other word of a test phrasing occurs in training.
FUNCTION_WORDS = frozenset({"the", "to", "it", "up", "and", "of", "by"})

PHRASINGS: dict[str, tuple[str, ...]] = {
    "lift": (
        "lift the {colour} block",
        "pick up the {colour} block",
        "grasp the {colour} block and lift it up",
        "take the {colour} block and raise it",
        "raise the {colour} block off the table",
        "grab the {colour} block and pick it up",
        "lift up the {colour} block from the table",
        "take hold of the {colour} block and lift it",
        "grasp and raise the {colour} block",
        "pick the {colour} block up from the table",
        "grab the {colour} block and lift it off the table",
    ),
    "rotate": (
        "rotate the {colour} block to the {side}",
        "turn the {colour} block {side}",
        "grasp the {colour} block and rotate it {side}",
        "take the {colour} block and turn it to the {side}",
        "grab the {colour} block and spin it {side}",
        "rotate the {colour} block towards the {side}",
        "take the {colour} block and rotate it {side}",
        "spin the {colour} block to the {side}",
        "turn the {colour} block towards the {side}",
        "grasp the {colour} block and spin it to the {side}",
        "grab the {colour} block and rotate it towards the {side}",
    ),
    "push": (
        "push the {colour} block to the {side}",
        "slide the {colour} block {side}",
        "go push the {colour} block {side}",
        "shove the {colour} block to the {side}",
        "move the {colour} block to the {side} by pushing it",
        "push the {colour} block towards the {side}",
        "slide the {colour} block across the table to the {side}",
        "shove the {colour} block across the table towards the {side}",
        "go slide the {colour} block to the {side}",
        "push the {colour} block {side} across the table",
        "shove the {colour} block {side}",
    ),
    "open_drawer": (
        "open the drawer",
        "pull the drawer open",
        "pull the handle to open the drawer",
        "grasp the handle and open the drawer",
        "slide the drawer open",
        "pull out the drawer",
        "take the handle and pull the drawer open",
        "go open the drawer",
        "grasp the drawer handle and pull it open",
        "slide out the drawer",
        "go pull the drawer open",
    ),
    "close_drawer": (
        "close the drawer",
        "push the drawer closed",
        "push the handle to close the drawer",
        "grasp the handle and close the drawer",
        "slide the drawer closed",
        "push in the drawer",
        "take the handle and push the drawer closed",
        "go close the drawer",
        "grasp the drawer handle and push it closed",
        "slide in the drawer",
        "go push the drawer closed",
    ),
    "move_slider": (
        "move the slider to the {side}",
        "slide the door {side}",
        "push the sliding door to the {side}",
        "grasp the handle and slide the door to the {side}",
        "move the sliding door {side}",
        "take the handle and move the slider {side}",
        "pull the door to the {side}",
        "slide the sliding door towards the {side}",
        "move the door towards the {side}",
        "grasp the handle and move the sliding door to the {side}",
        "push the slider {side}",
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
    return phrasings[phrasing].format(colour=task.colour, side=task.direction)


def content_words(sentence: str) -> set[str]:
    """The words of a phrasing that carry meaning; slots keep their braces."""
    return set(sentence.split()) - FUNCTION_WORDS
