"""What every detector looks like to the tracker, the worker process and the offline path, and what
detectors of all kinds share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from ifailsense_ros.core.checkpoint import (
    SCHEMA_VERSION,
    AnswerWords,
    BaseModel,
    CheckpointConfig,
    FSHeadSettings,
    MontageSettings,
    PictureSettings,
    VoteWeights,
)
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.prompt import build_prompt, spelled
from ifailsense_ros.core.verdict import Judgement, Reason


@runtime_checkable
class Detector(Protocol):
    """Judges one frozen episode at a time.

    Attributes:
        model_id: name and short hash of the checkpoint, as in `FailureVerdict.model_id`.
        config: the checkpoint's settings; the montage's geometry and `min_keyframes` among them.
    """

    @property
    def model_id(self) -> str: ...

    @property
    def config(self) -> CheckpointConfig: ...

    def judge(self, episode: Episode) -> Judgement:
        """Judge an episode of `config.montage.num_keyframes` keyframes (paper, Sec. IV-B).

        Out of memory becomes a Judgement with its reason. Exceptions are programming errors or a
        broken machine; the worker turns them into UNKNOWN / DETECTOR_ERROR.
        """
        ...


def prompt_or_unknown(instruction: str, config: CheckpointConfig) -> str | Judgement:
    """The prompt, or what to say of an instruction that cannot be asked about."""
    if not spelled(instruction, config.spelling):
        return Judgement.unknown(Reason.NO_INSTRUCTION, "the instruction is empty")
    try:
        return build_prompt(instruction, config.prompt, spelling=config.spelling)
    except ConfigError as error:
        return Judgement.unknown(Reason.DETECTOR_ERROR, str(error))


def bare_config(
    name: str,
    montage: MontageSettings,
    *,
    prompt: str = "",
    words: AnswerWords | None = None,
    files: Mapping[str, str] | None = None,
    **changes: Any,
) -> CheckpointConfig:
    """Settings of a detector that has no checkpoint behind it: a baseline, or one of your own.

    Args:
        name: what it is called.
        montage: which keyframes it wants, and in what size.
        prompt: template; "" where nothing is asked.
        words: answers that count.
        files: name -> sha256 of what it was made from; `short_hash` tells others apart by it.
        changes: other fields of `CheckpointConfig`.
    """
    config = CheckpointConfig(
        schema_version=SCHEMA_VERSION,
        name=name,
        base=BaseModel(),
        adapter=None,
        fs_blocks=None,
        hooked_layers=(),
        fs_head=FSHeadSettings((1, 1), 1, 0.0),
        vote_weights=VoteWeights((), 1.0),
        abstain_rule="unknown_unless_unanimous",
        answer_words=words or AnswerWords((), ()),
        prompt=prompt,
        montage=montage,
        picture=PictureSettings(
            montage.num_pov * montage.cell_height, montage.num_keyframes * montage.cell_width
        ),
        min_keyframes=montage.num_keyframes,
        training_data_hash="",
        metrics={},
        files=files or {},
    )
    return replace(config, **changes)
