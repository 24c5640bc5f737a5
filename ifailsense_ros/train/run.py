"""From an episode store to a checkpoint: features, stage 0, stage 1, stage 2, calibration figures.

    ifailsense train --recipe sim-tiny --train DATA --validation DATA --out runs/sim-tiny

Every stage resumes where it stopped, and a finished one is not run again. `--ablation` trains a
control that is not shown part of the input, with the same budget.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.checkpoint import (
    SCHEMA_VERSION,
    AnswerWords,
    BaseModel,
    CheckpointConfig,
    MontageSettings,
    PictureSettings,
    VoteWeights,
)
from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.core.montage import MontageGeometry
from ifailsense_ros.data.ablation import ABLATIONS, Ablation
from ifailsense_ros.model.attention import use_fused_attention
from ifailsense_ros.model.checkpoint import save_checkpoint
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.model.tiny import build_tiny, encoder_path, save_tiny
from ifailsense_ros.train import stage0, stage1, stage2
from ifailsense_ros.train.dataset import TrainingSet
from ifailsense_ros.train.judge import AnswerProbe
from ifailsense_ros.train.loop import Interrupted
from ifailsense_ros.train.recipes import RECIPES, Recipe


@dataclass
class Inputs:
    """A split, its cached features, and its probe's samples."""

    episodes: TrainingSet
    features: np.ndarray


class Run:
    """One recipe on one pair of data sets, in one output folder."""

    def __init__(
        self, recipe: Recipe, train: Path, validation: Path, out: Path, ablation: Ablation
    ) -> None:
        self.recipe, self.out, self.ablation = recipe, out, ablation
        self.cache = out.parent / "features"
        self.train_set = TrainingSet(train, "train", recipe.kinds)
        self.validation_set = TrainingSet(validation, "validation", recipe.kinds)
        g = recipe.geometry
        self.full = MontageGeometry(g.num_pov, g.num_keyframes, g.cell_height, g.cell_width)
        self.geometry = ablation.geometry(self.full)

    def texts(self) -> list[str]:
        """Every text the model shall read or write: training phrasings and the fixed prompts."""
        asked = [stage0.QUESTION.format(instruction=""), self.recipe.prompt.format(instruction="")]
        fixed = [*asked, stage0.CAPTION, self.ablation.text("")]
        # A question ends in "?", so its last word is another token than the instruction's.
        texts = self.train_set.phrasings.texts
        return [*texts, *(f"{t}?" for t in texts), *(f.replace("<image>", "") for f in fixed)]

    def go(self) -> dict:
        """Run all stages; returns their validation figures."""
        picture = (self.geometry.height, self.geometry.width)
        recipe = self.recipe
        model, processor = build_tiny(
            self.texts(), picture, intermediate_size=recipe.intermediate_size
        )
        use_fused_attention(model.model.language_model)
        train = self._inputs(self.train_set, model, processor)
        validation = self._inputs(self.validation_set, model, processor)
        samples = validation.episodes.pairs()
        probe = AnswerProbe(processor, samples, validation.features)
        figures = {"data": {"train": len(train.episodes), "hash": train.episodes.hash}}
        for phase, settings in enumerate(recipe.stage0):
            name = f"stage0-{phase}" if phase else "stage0"
            figures[name] = stage0.train_stage0(
                model,
                processor,
                train.episodes,
                train.features,
                probe,
                settings,
                self.ablation,
                self.out / name,
            )
        model.requires_grad_(False)
        save_tiny(model, processor, self.out / "base")
        words = (stage1.SUCCESS, stage1.FAIL)
        figures["base"] = probe.measure(model, recipe.prompt, words, self.ablation)
        tuned = stage1.with_adapter(model, recipe.stage1)
        for phase, schedule in enumerate(recipe.stage1.schedules):
            name = f"stage1-{phase}" if phase else "stage1"
            figures[name] = stage1.train_stage1(
                tuned,
                processor,
                train.episodes,
                train.features,
                probe,
                recipe.stage1,
                schedule,
                recipe.prompt,
                self.ablation,
                self.out / name,
            )
        blocks, figures["stage2"] = self._fs_blocks(tuned, processor, train, validation, samples)
        (self.out / "figures.json").write_text(json.dumps(figures, indent=1))
        self._export(tuned, blocks, figures)
        return figures

    def _export(self, tuned: PeftModel, blocks: FSBlocks, figures: dict) -> None:
        """Write the checkpoint; the trained parts in float16, as the base is."""
        recipe, g = self.recipe, self.geometry
        config = CheckpointConfig(
            schema_version=SCHEMA_VERSION,
            name=recipe.name if self.ablation.name == "none" else f"control-{self.ablation.name}",
            base=BaseModel(),
            adapter=None,
            fs_blocks=None,
            hooked_layers=recipe.stage2.layers,
            fs_head=recipe.stage2.head,
            vote_weights=VoteWeights(fs=(1.0,) * len(recipe.stage2.layers), vlm=2.0),
            abstain_rule="unknown_unless_unanimous",
            answer_words=AnswerWords(success=(stage1.SUCCESS,), fail=(stage1.FAIL,)),
            prompt=recipe.prompt,
            montage=MontageSettings(g.num_keyframes, g.num_pov, g.cell_height, g.cell_width),
            picture=PictureSettings(g.height, g.width),
            min_keyframes=min(3, g.num_keyframes),
            training_data_hash=self.train_set.hash,
            metrics=figures,
            files={},
        )
        save_checkpoint(
            self.out / "checkpoint",
            config,
            base=self.out / "base",
            adapter=tuned.half(),
            fs_blocks=blocks.half(),
            # The encoder goes with it, and so does the word on where it comes from.
            extra_files=[encoder_path().parent.parent / "NOTICE"],
        )

    def _inputs(
        self,
        episodes: TrainingSet,
        model: PaliGemmaForConditionalGeneration,
        processor: PaliGemmaProcessor,
    ) -> Inputs:
        features = episodes.features(model, processor, self.full, self.ablation, self.cache)
        return Inputs(episodes, features)

    def _fs_blocks(self, tuned, processor, train: Inputs, validation: Inputs, samples):
        settings, prompt = self.recipe.stage2, self.recipe.prompt
        tuned.eval()
        hidden = {
            name: stage2.collect(
                tuned,
                processor,
                chosen,
                inputs.features,
                settings.layers,
                prompt,
                self.ablation,
                self.out / f"hidden-{name}",
            )
            for name, chosen, inputs in (
                ("train", stage2.training_samples(self.train_set, settings), train),
                ("validation", samples, validation),
            )
        }
        blocks = stage2.fresh_blocks(settings, hidden["train"].states[0].shape[-1])
        figures = stage2.train_stage2(
            blocks, hidden["train"], hidden["validation"], settings, self.out / "stage2"
        )
        return blocks, figures


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="ifailsense train", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="sim-tiny", choices=sorted(RECIPES))
    parser.add_argument("--train", type=Path, required=True, help="episode store, split train")
    parser.add_argument("--validation", type=Path, required=True, help="split validation")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--ablation", default="none", choices=ABLATIONS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        run = Run(
            RECIPES[args.recipe], args.train, args.validation, args.out, Ablation(args.ablation)
        )
        figures = run.go()
    except IFailSenseError as error:
        print(f"ifailsense train: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"ifailsense train: {stop}", file=sys.stderr)
        return 130
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
