"""The end of a run: its parts become a checkpoint folder, with a model card in it."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel

from ifailsense_ros.core.checkpoint import (
    SCHEMA_VERSION,
    AnswerWords,
    BaseModel,
    CheckpointConfig,
    MontageSettings,
    PictureSettings,
    VoteWeights,
)
from ifailsense_ros.core.montage import MontageGeometry
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.model.checkpoint import save_checkpoint
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.model.tiny import encoder_path
from ifailsense_ros.train import stage1, stage2
from ifailsense_ros.train.bases import Base
from ifailsense_ros.train.settings import Recipe

CHECKPOINT = "checkpoint"
MODEL_CARD = "README.md"


def settings_of(
    recipe: Recipe,
    ablation: Ablation,
    geometry: MontageGeometry,
    base: Base,
    layers: tuple[int, ...],
    data_hash: str,
    figures: dict,
) -> CheckpointConfig:
    """What the detector needs to know beside the weights."""
    return CheckpointConfig(
        schema_version=SCHEMA_VERSION,
        name=recipe.name if ablation.name == "none" else f"control-{ablation.name}",
        base=base.origin or BaseModel(),
        adapter=None,
        fs_blocks=None,
        hooked_layers=layers,
        fs_head=recipe.stage2.head,
        vote_weights=VoteWeights(
            fs=stage2.vote_weights(recipe.stage2, len(layers)), vlm=recipe.stage2.weight_vlm
        ),
        abstain_rule="unknown_unless_unanimous",
        answer_words=AnswerWords(success=(stage1.SUCCESS,), fail=(stage1.FAIL,)),
        prompt=recipe.prompt,
        montage=MontageSettings(
            geometry.num_keyframes, geometry.num_pov, geometry.cell_height, geometry.cell_width
        ),
        picture=PictureSettings(*base.picture),
        min_keyframes=min(3, geometry.num_keyframes),
        training_data_hash=data_hash,
        metrics=figures,
        files={},
        spelling=recipe.spelling,
    )


def export(
    out: Path,
    config: CheckpointConfig,
    base: Base,
    tuned: PeftModel,
    blocks: FSBlocks,
    model_card: str,
) -> Path:
    """Write the checkpoint; the trained parts in float16, as a base made here is.

    Returns:
        Its folder.
    """
    card = out / MODEL_CARD
    card.write_text(model_card, encoding="utf-8")
    extra = [card]
    if base.has_our_encoder:  # then the word on where that comes from goes with it
        extra.append(encoder_path().parent.parent / "NOTICE")
    save_checkpoint(
        out / CHECKPOINT,
        config,
        base=base.folder,
        adapter=tuned.half(),
        fs_blocks=blocks.half(),
        extra_files=extra,
    )
    return out / CHECKPOINT
