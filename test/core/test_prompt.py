"""The prompt: what the template makes of an instruction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.prompt import (
    AS_GIVEN,
    PLAIN,
    SPELLINGS,
    build_prompt,
    normalise_instruction,
    spelled,
)

RELEASE = "<image> evaluate en {instruction}"


def test_the_release_template() -> None:
    assert build_prompt("lift the red block", RELEASE) == ("<image> evaluate en lift the red block")


def test_one_image_token_per_picture() -> None:
    assert build_prompt("go", RELEASE, num_images=2) == "<image> <image> evaluate en go"


def test_a_template_without_image_token_is_lawful() -> None:
    assert build_prompt("go", "done: {instruction}?") == "done: go?"


def test_white_space_and_line_breaks_are_one_blank() -> None:
    assert build_prompt("  lift\n the\tred  block \r\n", RELEASE).endswith("lift the red block")


def test_braces_in_the_instruction_are_text() -> None:
    assert build_prompt("lift {instruction} {0}", RELEASE).endswith("lift {instruction} {0}")


@pytest.mark.parametrize("instruction", ["", "  ", "\n\t"])
def test_empty_instruction(instruction: str) -> None:
    with pytest.raises(ConfigError, match="empty"):
        build_prompt(instruction, RELEASE)


def test_image_token_in_the_instruction() -> None:
    with pytest.raises(ConfigError, match="<image>"):
        build_prompt("lift <image>", RELEASE)


@pytest.mark.parametrize(
    "template",
    ["<image> evaluate", "", "{instruction} {instruction}", "<image><image>{instruction}"],
)
def test_bad_template(template: str) -> None:
    with pytest.raises(ConfigError, match="template"):
        build_prompt("go", template)


def test_no_picture() -> None:
    with pytest.raises(ConfigError, match="num_images"):
        build_prompt("go", RELEASE, num_images=0)


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_instruction(text)
    assert normalise_instruction(once) == once
    assert "\n" not in once
    assert once.split() == text.split()


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Lift the red block.", "lift the red block"),
        ("  Could you, please, LIFT\n the 'red' block?! ", "could you please lift the red block"),
        ("don't drop the 3.5 mm top-left screw \u2026", "don't drop the 3.5 mm top-left screw"),
        ("lift the red block", "lift the red block"),
    ],
)
def test_plain_spelling_has_small_letters_and_no_marks(said: str, read: str) -> None:
    assert spelled(said, PLAIN) == read
    assert build_prompt(said, RELEASE, spelling=PLAIN) == f"<image> evaluate en {read}"
    assert build_prompt(said, RELEASE).endswith(normalise_instruction(said))


@given(st.text(max_size=40), st.sampled_from(SPELLINGS))
def test_spelling_twice_changes_nothing(text: str, spelling: str) -> None:
    once = spelled(text, spelling)
    assert spelled(once, spelling) == once == normalise_instruction(once)


def test_an_instruction_of_marks_alone_is_empty_in_plain_spelling() -> None:
    assert build_prompt("?!", RELEASE, spelling=AS_GIVEN).endswith("?!")
    with pytest.raises(ConfigError, match="empty"):
        build_prompt("?!", RELEASE, spelling=PLAIN)


def test_unknown_spelling() -> None:
    with pytest.raises(ConfigError, match="as_given or plain"):
        spelled("lift", "capitals")
