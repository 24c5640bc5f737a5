"""From data sets to a checkpoint: features, stages 0, 1 and 2, calibration, cards.

    ifailsense train --recipe sim-tiny --data DATASET --out runs/sim-tiny
    accelerate launch -m ifailsense_ros.train.run --recipe release --data DATASET --out runs/3b

Every stage resumes where it stopped, and a finished one is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from peft import PeftModel

from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.errors import ConfigError, DataError, IFailSenseError
from ifailsense_ros.core.montage import MontageGeometry
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.records import UNFINISHED
from ifailsense_ros.data.smf import Sample
from ifailsense_ros.model.device import set_threads
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.model.tiny import build_tiny, save_tiny
from ifailsense_ros.train import bases, compute, loop, stage0, stage1, stage2
from ifailsense_ros.train.bases import BASE_FOLDER, RUN_FILE, Base
from ifailsense_ros.train.calibrate import calibrate
from ifailsense_ros.train.card import Story, model_card, write_card
from ifailsense_ros.train.dataset import TrainingSet
from ifailsense_ros.train.export import export, settings_of
from ifailsense_ros.train.features import Rows
from ifailsense_ros.train.frames import FRAMES
from ifailsense_ros.train.hidden import Collector
from ifailsense_ros.train.judge import AnswerProbe
from ifailsense_ros.train.log import write_text
from ifailsense_ros.train.loop import Interrupted
from ifailsense_ros.train.options import adjusted, parser
from ifailsense_ros.train.provenance import (
    FIGURES_FILE,
    Trail,
    command_of,
    program_version,
    taken_over,
)
from ifailsense_ros.train.recipes import RECIPES
from ifailsense_ros.train.settings import DEFAULT_SEED, Recipe
from ifailsense_ros.train.shuffled import ShuffledSet

WORDS = (stage1.SUCCESS, stage1.FAIL)
LOCK_FILE = "at_work.lock"


class Run:
    """One recipe on a training and a validation set, in one output folder.

    Args:
        recipe: all settings of the stages.
        train: data set or episode store with the split train.
        validation: the same with the split validation.
        out: folder of the run; features are kept beside it, for all runs there.
        ablation: what a control is not shown.
        base: folder or hub repository, instead of the recipe's; may be fetched then.
        base_run: a run whose base is taken over instead of making one.
        first_stage: with `base_run`: 1 trains stages 1 and 2, 2 takes stage 1 over as well.
        command: arguments of the command line, for the cards; None: called from Python.

    Raises:
        ConfigError: settings that contradict each other.
        DataError: a data set that cannot be read.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: Path,
        validation: Path,
        out: Path,
        ablation: Ablation,
        *,
        base: str | None = None,
        base_run: Path | None = None,
        first_stage: int = 1,
        command: Sequence[str] | None = None,
    ) -> None:
        if base is not None and (base_run is not None or recipe.stage0):
            what = "--from-run names one" if base_run else f"recipe {recipe.name} makes its own"
            raise ConfigError(f"--base {base}: {what}; give one of the two")
        if first_stage not in (1, 2) or (first_stage == 2 and base_run is None):
            raise ConfigError("--first-stage 2 needs --from-run, whose stage 1 is taken over")
        self.recipe, self.out, self.ablation = recipe, out, ablation
        self.cache = out.parent / "features"
        is_shuffled = ablation.name == "shuffled_labels"
        self.train_set = (ShuffledSet if is_shuffled else TrainingSet)(
            train, "train", recipe.kinds, recipe.spelling
        )
        self.validation_set = TrainingSet(validation, "validation", recipe.kinds, recipe.spelling)
        self._asks_about_scenes = recipe.asks_about_scenes and base_run is None
        self._check_training_set(makes_base=base_run is None)
        self._named, self._base_run, self._first_stage = base, base_run, first_stage
        self._command = command_of(command)
        common = {
            "geometry": asdict(recipe.geometry),
            "data": [self.train_set.hash, self.validation_set.hash],
            "shown": ablation.name,
            "questions": self.train_set.questions_hash if self._asks_about_scenes else "",
            "prompt": recipe.prompt,
            "spelling": recipe.spelling,
            "seed": recipe.seed,
            "intermediate_size": recipe.intermediate_size,
        }
        self._trail = Trail(out, common)

    def _check_training_set(self, *, makes_base: bool) -> None:
        """It has all that the recipe learns from."""
        recipe, known = self.recipe, self.train_set
        if UNFINISHED in recipe.kinds and not any(e.unfinished for e in known.experts):
            raise DataError(
                f"{known.folder}: recipe {recipe.name} learns from unfinished episodes as well, "
                f"and there are none; add them (docs/datasets.md), or take recipe {recipe.name}-smf"
            )
        if makes_base and any(s.sampling.twins for s in recipe.stage0) and not known.twins:
            raise DataError(
                f"{known.folder}: recipe {recipe.name} compares unfinished episodes with their "
                "experts, and none is of an expert that is there; build the data set from both "
                "stores (docs/datasets.md)"
            )
        if self._asks_about_scenes and not all(known.scene_questions):
            raise DataError(
                f"{known.folder}: recipe {recipe.name} learns from questions about scenes as well, "
                "and some episodes have none; write them with `ifailsense sim questions` for each "
                "store"
            )

    def texts(self) -> list[str]:
        """Every text the model shall read or write: training phrasings and the fixed prompts."""
        asked = [stage0.QUESTION.format(instruction=""), self.recipe.prompt.format(instruction="")]
        fixed = [*asked, stage0.CAPTION, self.ablation.text("")]
        # A question ends in "?", so its last word is another token than the instruction's.
        texts = self.train_set.phrasings.texts
        scenes = self.train_set.scene_texts if self._asks_about_scenes else []
        spoken = (f.replace("<image>", "") for f in fixed)
        stages = (*self.recipe.stage0, self.recipe.stage1, self.recipe.stage2)
        frames = FRAMES if any(s.framed for s in stages) else ()
        around = [word for f in frames for word in f.format(instruction="").split()]
        # The last word of a frame, too, may stand before a question's mark.
        spoken = [*spoken, *around, *(f"{word}?" for word in around)]
        return [*texts, *(f"{t}?" for t in texts), *scenes, *spoken]

    def go(self) -> dict:
        """Run all stages; returns their validation figures.

        Raises:
            ConfigError: another run is at work in the same folder.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        # One process of each run holds it; the system lets go of it when that is killed.
        at_work = FileLock(self.out / LOCK_FILE)
        if compute.accelerator().is_main_process:
            try:
                at_work.acquire(timeout=0)
            except Timeout as error:
                raise ConfigError(
                    f"{self.out}: another run is at work here: wait for it, or name another --out"
                ) from error
        try:
            return self._go()
        finally:
            at_work.release()

    def _go(self) -> dict:
        figures: dict[str, Any] = {
            "data": {
                **_counts("train", self.train_set),
                **_counts("validation", self.validation_set),
                "hash": self.train_set.hash,
                "validation_hash": self.validation_set.hash,
            }
        }
        base = self._base(figures)
        layers = stage2.hooked_layers(self.recipe.stage2, base.num_layers)
        stage2.vote_weights(
            self.recipe.stage2, len(layers)
        )  # a mistake is said now, not at the end
        full = self.recipe.geometry.montage(base.picture)
        train, validation = self._features(base, full)
        samples = self.validation_set.pairs()
        probe = AnswerProbe(base.processor, samples, validation)
        figures["base"] = probe.measure(base.model, self.recipe.prompt, WORDS, self.ablation)
        tuned = self._stage1(base, train, probe, figures)
        blocks = self._stage2(tuned, base, layers, (train, validation), samples, figures)
        if compute.accelerator().is_main_process:
            write_text(self.out / FIGURES_FILE, json.dumps(figures, indent=1))
            config = settings_of(
                self.recipe,
                self.ablation,
                self.ablation.geometry(full),
                base,
                layers,
                self.train_set.hash,
                figures,
            )
            story = Story(
                replace(self.recipe, base=config.base.hub),
                config,
                figures,
                command=self._command,
                program=program_version(),
                precision=compute.described(),
                tasks=self.train_set.categories,
            )
            card = model_card(story, base.has_our_encoder)
            folder = export(self.out, config, base, tuned, blocks, card)
            calibrated = self._calibrate(folder)
            write_card(self.out, replace(story, config=calibrated))
        compute.accelerator().wait_for_everyone()
        return figures

    # --- stages -----------------------------------------------------------------------------------

    def _base(self, figures: dict) -> Base:
        name = self._named or self.recipe.base
        if self._base_run is not None:
            figures["taken_over"] = taken_over(self._base_run, self._first_stage)
            for done in sorted(self._base_run.glob(f"stage0*/{loop.DONE_FILE}")):
                figures[done.parent.name] = json.loads(done.read_text(encoding="utf-8"))
            base = bases.load_from_run(self._base_run)
            self._check_picture(base)
            return self._begun(self._kept(base))
        if self.recipe.stage0:
            self._stage0(figures)
            return self._begun(bases.load_made(self.out / BASE_FOLDER))
        if name is None:
            raise ConfigError(f"recipe {self.recipe.name}: makes no base; name one with --base")
        return self._begun(self._kept(bases.load_named(name, network=self._named is not None)))

    def _check_picture(self, base: Base) -> None:
        """A base made here sees pictures of one size: that of the montage it was trained on."""
        if not self.recipe.stage0:
            return
        montage = self.ablation.geometry(self.recipe.geometry.montage())
        if (montage.height, montage.width) != base.picture:
            raise ConfigError(
                f"--from-run {self._base_run}: its base sees {base.picture[0]}x{base.picture[1]} "
                f"px, the montage of this run is {montage.height}x{montage.width}; take the same "
                "keyframes, PoV and ablation"
            )

    def _stage0(self, figures: dict) -> None:
        geometry = self.ablation.geometry(self.recipe.geometry.montage())
        model, processor = build_tiny(
            self.texts(),
            (geometry.height, geometry.width),
            intermediate_size=self.recipe.intermediate_size,
            seed=(self.recipe.seed - DEFAULT_SEED) % 2**31,
        )
        untrained = Base(model, processor, None, None)
        train, validation = self._features(untrained, self.recipe.geometry.montage())
        probe = AnswerProbe(processor, self.validation_set.pairs(), validation)
        for phase, settings in enumerate(self.recipe.stage0):
            folder = self._trail.folder("stage0", phase, settings)
            figures[folder.name] = stage0.train_stage0(
                model,
                processor,
                self.train_set,
                train,
                probe,
                settings,
                self.ablation,
                geometry,
                folder,
            )
        if compute.accelerator().is_main_process:
            save_tiny(model.cpu(), processor, self.out / BASE_FOLDER)
        compute.accelerator().wait_for_everyone()

    def _stage1(self, base: Base, train: Rows, probe: AnswerProbe, figures: dict) -> PeftModel:
        settings = self.recipe.stage1
        tuned = stage1.with_adapter(base.model, settings).to(compute.accelerator().device)
        if self._first_stage == 2:
            folders = sorted(self._base_run.glob(f"stage1*/{loop.DONE_FILE}"))
            if len(folders) != len(settings.phases):
                raise ConfigError(f"{self._base_run}: stage 1 is not finished; let it finish first")
            for done in folders:
                figures[done.parent.name] = loop.finished([tuned], done.parent)
            return tuned
        for number, phase in enumerate(settings.phases):
            of_phase = replace(settings, phases=(phase,))
            folder = self._trail.folder("stage1", number, of_phase)
            figures[folder.name] = stage1.train_stage1(
                tuned,
                base.processor,
                self.train_set,
                train,
                probe,
                settings,
                phase,
                self.recipe.prompt,
                self.ablation,
                folder,
            )
        return tuned

    def _stage2(
        self,
        tuned: PeftModel,
        base: Base,
        layers: tuple[int, ...],
        features: tuple[Rows, Rows],
        samples: list[Sample],
        figures: dict,
    ) -> FSBlocks:
        settings, prompt = self.recipe.stage2, self.recipe.prompt
        tuned.eval()
        collector = Collector(
            tuned,
            base.processor,
            layers,
            prompt,
            WORDS,
            self.ablation,
            self.out / "hidden",
            self.recipe.spelling,
        )
        chosen = stage2.training_samples(self.train_set, settings)
        train, validation = (
            # Other kinds of episodes give the same rows other numbers.
            collector.collect(which, rows, f"{data.hash} {' '.join(self.recipe.kinds)}")
            for which, rows, data in zip(
                (chosen, samples), features, (self.train_set, self.validation_set), strict=True
            )
        )
        blocks = stage2.fresh_blocks(settings, len(layers), train.states.shape[-1])
        folder = self._trail.folder("stage2", 0, replace(settings, layers=layers))
        figures["stage2"] = stage2.train_stage2(blocks, train, validation, settings, folder)
        return blocks

    def _calibrate(self, folder: Path) -> CheckpointConfig:
        """On the validation set, which no weight was fitted to."""
        return calibrate(
            folder,
            self.validation_set.folder,
            train_data=self.train_set.folder,
            ablation=self.ablation,
            device=str(compute.accelerator().device),
        )

    def _features(self, base: Base, full: MontageGeometry) -> tuple[Rows, Rows]:
        """Of the training and the validation set."""
        return tuple(
            data.features(base.model, base.processor, full, self.ablation, self.cache)
            for data in (self.train_set, self.validation_set)
        )

    def _kept(self, base: Base) -> Base:
        """A base from elsewhere, copied to where the checkpoint takes it from."""
        if base.folder is None:
            return base
        if compute.accelerator().is_main_process:
            bases.keep_copy(base, self.out / BASE_FOLDER)
        compute.accelerator().wait_for_everyone()
        return replace(base, folder=self.out / BASE_FOLDER)

    def _begun(self, base: Base) -> Base:
        origin = None if base.origin is None else asdict(base.origin)
        if compute.accelerator().is_main_process:
            made = {"recipe": self.recipe.name, "base": origin, "ablation": self.ablation.name}
            write_text(self.out / RUN_FILE, json.dumps(made, indent=1))
        if not self.recipe.stage0 or self._base_run is not None:
            self._trail.made_from = bases.identity(base)
        base.model.to(compute.accelerator().device)
        return base


def _counts(name: str, data: TrainingSet) -> dict[str, int]:
    unfinished = sum(e.unfinished for e in data.experts)
    return {name: len(data) - unfinished, f"{name}_unfinished": unfinished}


def _run_of(args: argparse.Namespace, argv: Sequence[str]) -> Run:
    train, validation = args.train or args.data, args.validation or args.data
    if train is None or validation is None:
        raise ConfigError("name the data: --data, or --train and --validation")
    return Run(
        adjusted(RECIPES[args.recipe], args),
        train,
        validation,
        args.out,
        Ablation(args.ablation),
        base=args.base,
        base_run=args.from_run,
        first_stage=args.first_stage,
        command=argv,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser(__doc__.splitlines()[0]).parse_args(argv)
    try:
        set_threads(args.threads)
        compute.set_up(args.precision, log_with=args.log_with, folder=args.out)
        figures = _run_of(args, argv).go()
    except IFailSenseError as error:
        print(f"ifailsense train: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"ifailsense train: {stop}", file=sys.stderr)
        return 130
    if compute.accelerator().is_main_process:
        print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
