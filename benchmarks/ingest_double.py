"""A detector that answers at once, so that the ingest benchmark measures the node alone."""

from __future__ import annotations

from ifailsense_ros.core.checkpoint import (
    AnswerWords,
    BaseModel,
    CheckpointConfig,
    FSHeadSettings,
    MontageSettings,
    PictureSettings,
    VoteWeights,
)
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.verdict import Judgement, Outcome, Vote, VoteValue


class Double:
    """Always SUCCESS; montage as sim-tiny's, so that the node decodes and shrinks as much."""

    model_id = "double@0"
    config = CheckpointConfig(
        schema_version=1,
        name="double",
        base=BaseModel(folder="base"),
        adapter=None,
        fs_blocks="fs_blocks.safetensors",
        hooked_layers=(1,),
        fs_head=FSHeadSettings(widths=(4, 2), pooling_heads=1, dropout=0.0),
        vote_weights=VoteWeights(fs=(1.0,), vlm=2.0),
        abstain_rule="unknown_unless_unanimous",
        answer_words=AnswerWords(success=("success",), fail=("fail",)),
        prompt="<image> evaluate en {instruction}",
        montage=MontageSettings(num_keyframes=4, num_pov=2, cell_height=84, cell_width=84),
        picture=PictureSettings(height=168, width=336),
        min_keyframes=4,
        training_data_hash="",
        metrics={},
        files={},
    )

    def judge(self, episode: Episode) -> Judgement:
        """SUCCESS, whatever the episode."""
        vote = Vote("fs:1", VoteValue.SUCCESS, 1.0, 1.0)
        return Judgement(Outcome.SUCCESS, p_success=1.0, votes=(vote,))


def load(device: str = "auto", shuffle_seed: int | None = None) -> Double:
    """What the node's parameter `detector` names."""
    return Double()
