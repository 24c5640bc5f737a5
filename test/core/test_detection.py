"""What detectors of all kinds share: settings without a checkpoint, and the question."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import numpy as np

from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.detection import Detector, bare_config, prompt_or_unknown
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason

PAGE = Path(__file__).resolve().parents[2] / "docs" / "model.md"


def test_settings_without_a_checkpoint_follow_the_montage():
    config = bare_config("mine", MontageSettings(3, 2, 10, 20), files={"weights": "0" * 64})
    assert (config.picture.height, config.picture.width) == (20, 60)
    assert config.min_keyframes == 3
    other = bare_config("mine", MontageSettings(3, 2, 10, 20), files={"weights": "1" * 64})
    assert config.short_hash != other.short_hash  # told apart by what they were made from
    assert bare_config("mine", MontageSettings(3, 2, 10, 20), min_keyframes=1).min_keyframes == 1


def test_the_question_or_why_there_is_none():
    config = bare_config(
        "asks", MontageSettings(1, 1, 4, 4), prompt="<image> did it {instruction}?"
    )
    assert prompt_or_unknown(" lift\n it ", config) == "<image> did it lift it?"
    assert prompt_or_unknown(" \n", config).reason is Reason.NO_INSTRUCTION
    reserved = prompt_or_unknown("lift <image>", config)
    assert reserved.reason is Reason.DETECTOR_ERROR
    assert "contains <image>" in reserved.detail
    assert prompt_or_unknown("Lift it!", config) == "<image> did it Lift it!?"
    plain = bare_config(
        "reads", MontageSettings(1, 1, 4, 4), prompt="<image> {instruction}", spelling="plain"
    )
    assert prompt_or_unknown("Lift it!", plain) == "<image> lift it"
    assert prompt_or_unknown("?!", plain).reason is Reason.NO_INSTRUCTION


def test_the_page_s_example_is_a_detector():
    (code,) = (
        c for c in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "def load" in c
    )
    module: dict = {}
    exec(code, module)  # our own page
    detector = module["load"](device="cpu", shuffle_seed=None)
    assert isinstance(detector, Detector)
    m = detector.config.montage
    for levels, outcome in (((10, 200), Outcome.SUCCESS), ((200, 10), Outcome.FAILURE)):
        keyframes = tuple(
            Keyframe(i, (np.full((m.cell_height, m.cell_width, 3), level, np.uint8),))
            for i, level in enumerate(levels)
        )
        judgement = detector.judge(Episode(uuid.uuid4(), "lift it", keyframes, 0, 1))
        assert isinstance(judgement, Judgement)
        assert judgement.outcome is outcome
