"""The prompt: what the template makes of an instruction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.prompt import build_prompt, normalise_instruction

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
