"""The text half of the question that is put to the VLM (paper, Sec. IV-A)."""

from __future__ import annotations

from ifailsense_ros.core.errors import ConfigError

IMAGE_TOKEN = "<image>"
"""Place-holder of one picture; PaliGemma's processor replaces it by the image tokens."""

_SLOT = "{instruction}"

AS_GIVEN, PLAIN = "as_given", "plain"
SPELLINGS = (AS_GIVEN, PLAIN)
"""How a checkpoint reads an instruction: as it was given, or in small letters without the marks
that end or part sentences. A model whose words were learned from one data set knows "lift" and not
"Lift", "block" and not "block."; a web-trained one knows them all."""

_MARKS = ".,;:!?()'\"\u2018\u2019\u201c\u201d\u2026"


def normalise_instruction(text: str) -> str:
    """The instruction with runs of white space (also line breaks) made one blank, ends stripped.

    A line break would end PaliGemma's prompt early, so it must not survive. Empty if there is
    nothing but white space.
    """
    return " ".join(text.split())


def spelled(text: str, spelling: str) -> str:
    """The instruction as a checkpoint of that spelling reads it; a second time changes nothing.

    Args:
        text: the language goal g; white space is normalised.
        spelling: one of `SPELLINGS`. `PLAIN` keeps marks inside of a word ("don't", "3.5").

    Raises:
        ConfigError: another spelling.
    """
    if spelling not in SPELLINGS:
        raise ConfigError(f"spelling {spelling!r}: must be {' or '.join(SPELLINGS)}")
    if spelling == AS_GIVEN:
        return normalise_instruction(text)
    return " ".join(filter(None, (word.strip(_MARKS) for word in text.lower().split())))


def build_prompt(
    instruction: str, template: str, *, num_images: int = 1, spelling: str = AS_GIVEN
) -> str:
    """Fill the checkpoint's prompt template.

    Args:
        instruction: the language goal g; white space is normalised.
        template: text with exactly one `{instruction}` and at most one `<image>`, for example
            `"<image> evaluate en {instruction}"`. Other braces are ordinary text.
        num_images: pictures that go with the prompt: `<image>` becomes that many, joined by
            blanks. One montage is one picture.
        spelling: of the checkpoint.

    Returns:
        The prompt without bos and newline, which PaliGemma's processor adds.

    Raises:
        ConfigError: an instruction without a word or with `<image>` in it, a template without its
            slot or with more than one, or num_images < 1.
    """
    text = spelled(instruction, spelling)
    if not text:
        raise ConfigError("the instruction is empty: say in words what was to be done")
    if IMAGE_TOKEN in text:
        raise ConfigError(
            f"the instruction contains {IMAGE_TOKEN}, which stands for a picture: remove it"
        )
    if template.count(_SLOT) != 1:
        raise ConfigError(
            f"prompt template {template!r} must contain {_SLOT} exactly once: mend the checkpoint"
        )
    if template.count(IMAGE_TOKEN) > 1:
        raise ConfigError(
            f"prompt template {template!r} contains {IMAGE_TOKEN} more than once: name it once, "
            "it is repeated for every picture"
        )
    if num_images < 1:
        raise ConfigError(f"a prompt needs at least one picture, got num_images={num_images}")
    images = " ".join([IMAGE_TOKEN] * num_images)
    return template.replace(IMAGE_TOKEN, images).replace(_SLOT, text)
