"""What is said: eleven phrasings per family of tasks, eight for training, three for the test.

The test phrasings are other sentences made of content words that the training phrasings of the
same family also use (DESIGN section 9, rule 9). The phrasings of families of one category run
parallel: number i says the same thing of the cabinet, the drawer or the table, so that a pair of
instructions with the same number differs in what is asked for and not in style. Every sentence
names all that sets its task apart from the other tasks of its category.
"""

from __future__ import annotations

from .tasks import Task

TRAIN_PHRASINGS = range(8)
TEST_PHRASINGS = range(8, 11)

# Words that carry no content; every other word of a test phrasing occurs in training. Words such
# as "on", "off", "in", "out" and "up" are not among them: here they make the difference.
FUNCTION_WORDS = frozenset({"a", "and", "by", "is", "it", "of", "so", "that", "the", "to"})

PHRASINGS: dict[str, tuple[str, ...]] = {
    # lifting
    "lift_table": (
        "lift the {colour} block from the table",
        "pick up the {colour} block from the table",
        "grasp the {colour} block on the table and lift it up",
        "take the {colour} block off the table",
        "raise the {colour} block from the table",
        "grab the {colour} block lying on the table and pick it up",
        "lift up the {colour} block that is on the table",
        "take hold of the {colour} block on the table and raise it",
        "grasp the {colour} block and lift it off the table",
        "pick the {colour} block up from the table",
        "grab the {colour} block on the table and raise it",
    ),
    "lift_slider": (
        "lift the {colour} block from the sliding cabinet",
        "pick up the {colour} block from the cabinet",
        "grasp the {colour} block in the cabinet and lift it up",
        "take the {colour} block out of the sliding cabinet",
        "raise the {colour} block from inside the cabinet",
        "grab the {colour} block lying in the slider and pick it up",
        "lift up the {colour} block that is in the sliding cabinet",
        "take hold of the {colour} block in the slider and raise it",
        "grasp the {colour} block and lift it out of the cabinet",
        "pick the {colour} block up from the slider",
        "grab the {colour} block inside the sliding cabinet and raise it",
    ),
    "lift_drawer": (
        "lift the {colour} block from the drawer",
        "pick up the {colour} block from the drawer",
        "grasp the {colour} block in the drawer and lift it up",
        "take the {colour} block out of the drawer",
        "raise the {colour} block from inside the drawer",
        "grab the {colour} block lying in the drawer and pick it up",
        "lift up the {colour} block that is in the drawer",
        "take hold of the {colour} block in the drawer and raise it",
        "grasp the {colour} block and lift it out of the drawer",
        "pick the {colour} block up from the drawer",
        "grab the {colour} block inside the drawer and raise it",
    ),
    # rotating
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
    # pushing
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
    "push_into_drawer": (
        "push the block into the drawer",
        "slide the block into the drawer",
        "go push the block into the drawer",
        "shove the block so that it falls into the drawer",
        "move the block into the drawer by pushing it",
        "push the object into the drawer",
        "slide the block across the table into the drawer",
        "shove the object across the table until it falls into the drawer",
        "go slide the object into the drawer",
        "push the block across the table so that it falls into the drawer",
        "shove the block into the drawer",
    ),
    # opening and closing
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
        "slide the drawer out",
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
        "slide the drawer in",
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
    # placing
    "place_in_slider": (
        "place the block in the sliding cabinet",
        "put the block into the cabinet",
        "store the block in the slider",
        "take the block and place it in the cabinet",
        "carry the block to the cabinet and place it inside",
        "set the block down inside the cabinet",
        "put the block inside the sliding cabinet and let go of it",
        "take a block and store it in the cabinet",
        "place the block inside the cabinet",
        "take the block and put it into the sliding cabinet",
        "set the block down in the slider",
    ),
    "place_in_drawer": (
        "place the block in the drawer",
        "put the block into the drawer",
        "store the block in the drawer",
        "take the block and place it in the drawer",
        "carry the block to the drawer and place it inside",
        "set the block down inside the drawer",
        "put the block inside the drawer and let go of it",
        "take a block and store it in the drawer",
        "place the block inside the drawer",
        "take the block and put it into the drawer",
        "set the block down in the drawer",
    ),
    "stack": (
        "stack the blocks on top of each other",
        "put the block on top of another block",
        "stack one block on the other",
        "take the block and place it on another block",
        "carry the block to another block and place it on top",
        "set the block down on top of another one",
        "put one block on the other block and let go of it",
        "take a block and stack it on another one",
        "place one block on top of the other",
        "take the block and put it on top of another block",
        "set one block down on the other",
    ),
    "unstack": (
        "unstack the blocks",
        "remove the top block from the stack",
        "take the top block off the stack",
        "take the upper block off the lower block and place it on the table",
        "carry the top block to the table and place it there",
        "remove the upper block and set it down on the table",
        "put the top block of the stack down on the table",
        "take the stack of blocks apart",
        "remove the upper block from the lower block",
        "take the top block off the stack and put it on the table",
        "set the top block of the stack down on the table",
    ),
    # lighting
    "turn_on_lightbulb": (
        "turn on the light bulb",
        "switch on the bulb",
        "use the switch to turn on the light bulb",
        "flip the switch to turn the bulb on",
        "move the switch so that the light bulb turns on",
        "toggle the switch to turn on the bulb",
        "move the switch until the bulb lights up",
        "go turn on the light bulb with the switch",
        "turn the light bulb on with the switch",
        "flip the switch so that the bulb turns on",
        "use the switch so that the bulb lights up",
    ),
    "turn_off_lightbulb": (
        "turn off the light bulb",
        "switch off the bulb",
        "use the switch to turn off the light bulb",
        "flip the switch to turn the bulb off",
        "move the switch so that the light bulb turns off",
        "toggle the switch to turn off the bulb",
        "move the switch until the bulb goes out",
        "go turn off the light bulb with the switch",
        "turn the light bulb off with the switch",
        "flip the switch so that the bulb turns off",
        "use the switch so that the bulb goes out",
    ),
    "turn_on_led": (
        "turn on the led light",
        "switch on the led",
        "use the button to turn on the led light",
        "press the button to turn the led on",
        "push the button so that the led light turns on",
        "push the button to turn on the led",
        "press the button until the led lights up",
        "go turn on the led light with the button",
        "turn the led light on with the button",
        "press the button so that the led turns on",
        "use the button so that the led lights up",
    ),
    "turn_off_led": (
        "turn off the led light",
        "switch off the led",
        "use the button to turn off the led light",
        "press the button to turn the led off",
        "push the button so that the led light turns off",
        "push the button to turn off the led",
        "press the button until the led goes out",
        "go turn off the led light with the button",
        "turn the led light off with the button",
        "press the button so that the led turns off",
        "use the button so that the led goes out",
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
