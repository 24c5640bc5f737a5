"""FS blocks re-trained on a user's own labelled episodes, on top of a finished checkpoint.

The paper's minimal post-training: the VLM with its adapter stays as it is, its hidden states are
computed once, and only the FS blocks learn (Sec. IV-B.2). Then the checkpoint is calibrated anew,
since neither its temperatures nor its guard were made for these blocks and pictures.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ifailsense_ros.core.calibration import Calibration
from ifailsense_ros.core.checkpoint import SCHEMA_VERSION, CheckpointConfig
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.records import Problem
from ifailsense_ros.data.smf import Sample
from ifailsense_ros.model.calibration import CalibrationData
from ifailsense_ros.model.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from ifailsense_ros.model.detector import FailSenseDetector
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.train import stage2
from ifailsense_ros.train.calibrate import write_calibration
from ifailsense_ros.train.compute import accelerator
from ifailsense_ros.train.export import CHECKPOINT, MODEL_CARD
from ifailsense_ros.train.features import cached_features
from ifailsense_ros.train.hidden import Collector, HiddenStates
from ifailsense_ros.train.log import write_text
from ifailsense_ros.train.own_card import own_card
from ifailsense_ros.train.own_data import (
    HELD_OUT,
    TRAIN,
    VALIDATION,
    Given,
    Montages,
    misaligned_samples,
    own_samples,
    split_by_group,
)
from ifailsense_ros.train.own_states import balanced, picked
from ifailsense_ros.train.own_verdicts import Measure, calibration_of, held_out_figures
from ifailsense_ros.train.provenance import FIGURES_FILE, Trail
from ifailsense_ros.train.schedule import Schedule
from ifailsense_ros.train.settings import Stage2

_STEPS_AND_RATE = {False: (400, 2e-4), True: (1600, 2e-3)}
# Chosen with the other two for fresh blocks (0.5, 400 steps and 2e-4 stayed at chance on a world
# that the VLM does not know); which of the three did it was not looked into.
_FRESH_DROPOUT = 0.1


@dataclass(frozen=True)
class OwnSettings:
    """How the blocks are trained.

    Attributes:
        shares: of training, validation and held-out episodes.
        fresh: whether the blocks begin untrained instead of as the checkpoint has them.
        misaligned: whether successes are asked about with wrong instructions as well, where the
            episodes name their tasks.
        by_episode: whether every episode counts as a group of its own.
        steps: at most; None: 400, or 1600 for fresh blocks.
        lr: peak learning rate; None: 2e-4, or 2e-3 for fresh blocks.
        batch: questions a step.
        seed: of the split, the batches and fresh blocks.
    """

    shares: tuple[float, float, float] = (0.55, 0.2, 0.25)
    fresh: bool = False
    misaligned: bool = True
    by_episode: bool = False
    steps: int | None = None
    lr: float | None = None
    batch: int = 32
    seed: int = 42

    def stage2(self, config: CheckpointConfig) -> Stage2:
        """The same as settings of stage 2, for the blocks that the checkpoint has."""
        steps, lr = _STEPS_AND_RATE[self.fresh]
        schedule = Schedule(
            steps=self.steps or steps,
            lr=self.lr or lr,
            warmup=20,
            weight_decay=0.1,
            eval_every=20,
            patience=8,
            seed=self.seed,
        )
        head = config.fs_head
        if self.fresh:
            head = replace(head, dropout=min(head.dropout, _FRESH_DROPOUT))
        return Stage2(
            schedule,
            config.hooked_layers,
            head,
            batch=self.batch,
            vote_weights=config.vote_weights.fs,
            weight_vlm=config.vote_weights.vlm,
        )


@dataclass(frozen=True)
class Retrained:
    """What came of it.

    Attributes:
        folder: of the new checkpoint.
        config: its settings.
        figures: as they are in it.
        problems: episodes that could not be used.
    """

    folder: Path
    config: CheckpointConfig
    figures: dict[str, Any]
    problems: list[Problem]


def retrain(
    checkpoint: Path,
    given: Iterable[Given],
    out: Path,
    settings: OwnSettings,
    measure: Measure,
    *,
    dtype: torch.dtype = torch.float32,
    command: str = "",
) -> Retrained:
    """Re-train a checkpoint's FS blocks; the same call goes on where it was stopped.

    Args:
        checkpoint: its folder; it is left alone.
        given: labelled episodes.
        out: folder of the run; the new checkpoint is ``out/checkpoint``, named as `out` is.
        settings: how.
        measure: of verdicts on held-out episodes.
        dtype: of the VLM; the blocks are float32.
        command: for the model card.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ConfigError: it has no FS blocks, or `out` holds a run of something else.
        DataError: too few labels.
        Interrupted: Ctrl-C while training.
    """
    config = CheckpointConfig.from_json(checkpoint)
    if config.fs_blocks is None:
        raise ConfigError(
            f"{checkpoint}: has no FS blocks to re-train; take a checkpoint that has, or train "
            "some with `ifailsense train --first-stage 2`"
        )
    montages = Montages(out / "montages", config.montage)
    montages.read(given)
    parts, questions = _parts(montages, settings)
    data_hash = _hash_of(montages, questions)
    device = accelerator().device
    before = load_checkpoint(checkpoint, device=device, dtype=dtype)
    trail = Trail(out, {"checkpoint": config.model_id, "data": data_hash, "fresh": settings.fresh})
    steps = settings.stage2(config)
    folder = trail.folder("fs", 0, steps)
    hidden = _hidden_states(before, montages, questions, out, data_hash)
    blocks = _start(before.fs_blocks, steps, settings.fresh)
    trained = stage2.train_stage2(blocks, hidden[TRAIN], hidden[VALIDATION], steps, folder)
    blocks = blocks.half().float().to(device).eval().requires_grad_(False)  # as the file has them

    new = replace(
        config,
        schema_version=SCHEMA_VERSION,
        name=out.resolve().name,
        fs_head=steps.head,
        calibration=None,
        training_data_hash=data_hash,
        metrics={},
        masks_padding=True,
    )
    calibration, extra = calibration_of(
        FailSenseDetector(replace(before, config=new, fs_blocks=blocks, calibration=None)),
        montages,
        parts,
        questions[VALIDATION],
        data_hash,
    )
    after = replace(
        before,
        config=replace(new, calibration=calibration),
        fs_blocks=blocks,
        calibration=extra,
    )
    figures = {
        "made_from": config.model_id,
        "episodes": {name: _counts(montages, asked) for name, asked in questions.items()},
        "training": trained,
        **held_out_figures(before, after, montages, questions[HELD_OUT], measure),
    }
    written = _write(checkpoint, out, new, blocks, calibration, extra, figures, command)
    montages.remove()
    return Retrained(out / CHECKPOINT, written, figures, montages.problems)


Questions = tuple[list[Sample], list[Sample]]
"""Episodes with their own labels, and successes with wrong instructions."""


def _parts(
    montages: Montages, settings: OwnSettings
) -> tuple[dict[str, list[int]], dict[str, Questions]]:
    """Which episodes are in which part, and what is asked about them there."""
    if settings.by_episode:
        montages.episodes = [replace(e, group=e.name) for e in montages.episodes]
    episodes = montages.episodes
    shares = dict(zip((TRAIN, VALIDATION, HELD_OUT), settings.shares, strict=True))
    try:
        parts = split_by_group(episodes, shares, settings.seed)
    except DataError as error:
        raise DataError(_with_problems(str(error), montages.problems)) from None
    questions = {}
    for name, indices in parts.items():
        wrong = misaligned_samples(episodes, indices, settings.seed) if settings.misaligned else []
        questions[name] = (own_samples(episodes, indices), wrong)
    return parts, questions


def _counts(montages: Montages, asked: Questions) -> dict[str, int]:
    own, wrong = asked
    return {
        "successes": sum(s.success for s in own),
        "failures": sum(not s.success for s in own),
        "wrong_instructions": len(wrong),
        "groups": len({montages.episodes[s.index].group for s in own}),
    }


def _with_problems(text: str, problems: Sequence[Problem]) -> str:
    if not problems:
        return text
    first = f"{problems[0].where}: {problems[0].what}"
    return f"{text} ({len(problems)} could not be used, the first: {first})"


def _hash_of(montages: Montages, questions: dict[str, Questions]) -> str:
    """Of all pictures, and of what is asked about each of them in which part."""
    asked = {k: [asdict(s) for some in both for s in some] for k, both in questions.items()}
    content = {"pictures": [sha for sha, _ in montages.pieces], "asked": asked}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# --- training -------------------------------------------------------------------------------------


def _hidden_states(
    checkpoint: LoadedCheckpoint,
    montages: Montages,
    questions: dict[str, Questions],
    out: Path,
    data_hash: str,
) -> dict[str, HiddenStates]:
    """Of training and validation, both classes equally often."""
    config = checkpoint.config
    features = cached_features(
        checkpoint.model,
        checkpoint.processor,
        montages.shards(),
        {"montage": asdict(config.montage)},
        out / "features",
    )
    words = (config.answer_words.success[0], config.answer_words.fail[0])
    collector = Collector(
        checkpoint.model,
        checkpoint.processor,
        config.hooked_layers,
        config.prompt,
        words,
        Ablation(),
        out / "hidden",
        config.spelling,
    )
    found = {}
    for name in (TRAIN, VALIDATION):
        states = collector.collect([*questions[name][0], *questions[name][1]], features, data_hash)
        found[name] = picked(states, balanced(states.labels))
    return found


def _start(trained: FSBlocks, steps: Stage2, fresh: bool) -> FSBlocks:
    """Blocks to train: a copy of the checkpoint's, or untrained ones."""
    if fresh:
        width = trained.state_dict()["0.attention_pooling.query"].shape[-1]
        return stage2.fresh_blocks(steps, len(steps.layers), width)
    blocks = copy.deepcopy(trained).requires_grad_(True)
    blocks.masks_padding = True  # they learn in batches of sentences of several lengths
    return blocks


# --- the checkpoint -------------------------------------------------------------------------------


def _write(
    checkpoint: Path,
    out: Path,
    config: CheckpointConfig,
    blocks: FSBlocks,
    calibration: Calibration,
    extra: CalibrationData,
    figures: dict[str, Any],
    command: str,
) -> CheckpointConfig:
    """The old checkpoint with other blocks, another calibration and a card of its own."""
    write_text(out / FIGURES_FILE, json.dumps(figures, indent=1))
    card = out / MODEL_CARD
    write_text(card, own_card(config.name, figures, command))
    notices = [checkpoint / name for name in ("NOTICE", "LICENSE") if (checkpoint / name).is_file()]
    save_checkpoint(
        out / CHECKPOINT,
        replace(config, metrics=figures),
        base=None if config.base.folder is None else checkpoint / config.base.folder,
        adapter=None if config.adapter is None else checkpoint / config.adapter,
        fs_blocks=copy.deepcopy(blocks).half(),
        extra_files=[card, *notices],
    )
    return write_calibration(out / CHECKPOINT, calibration, extra)
