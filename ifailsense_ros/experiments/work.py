"""Doing one cell: record and build data, train, or judge.

Runs in a process of its own (``python -m ifailsense_ros.experiments.work``), so that a cell that
runs out of memory takes nothing with it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ifailsense_ros.core.checkpoint import BaseModel, VoteWeights
from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.evaluate.answer_words import AnswerWordDetector
from ifailsense_ros.evaluate.asked import AskedSet, phrasings_of
from ifailsense_ros.evaluate.predict import predict_to
from ifailsense_ros.experiments.cells import (
    BASE,
    DataCell,
    PredictionCell,
    TrainingCell,
    all_cells,
    varied,
)
from ifailsense_ros.experiments.held_out import SetWithoutPairs
from ifailsense_ros.experiments.state import PREDICTIONS, RUN, Workplace
from ifailsense_ros.model.checkpoint import LoadedCheckpoint, load_checkpoint
from ifailsense_ros.model.detector import FailSenseDetector
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.train import bases, compute
from ifailsense_ros.train.loop import Interrupted
from ifailsense_ros.train.recipes import RECIPES
from ifailsense_ros.train.run import Run

FEATURES = "features"
COMMAND = "ifailsense experiments"


def record(place: Workplace, cell: DataCell, workers: int) -> None:
    """Make a data set by the commands that a person would give.

    Raises:
        ConfigError: one of them failed; it has said why.
    """
    for command in cell.commands:
        words = [w.format(data=place.data, workers=workers) for w in shlex.split(command)]
        done = subprocess.run([sys.executable, "-m", "ifailsense_ros.cli", *words], check=False)
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode:
            raise ConfigError(f"`ifailsense {shlex.join(words)}` ended with {done.returncode}")


def train(place: Workplace, cell: TrainingCell) -> None:
    """Train a checkpoint, or go on with it."""
    folder = place.folder(cell)
    folder.mkdir(parents=True, exist_ok=True)
    features = folder / FEATURES  # where a run looks for it; shared by all of them
    if not features.is_symlink():
        (place.out / FEATURES).mkdir(parents=True, exist_ok=True)
        features.symlink_to(os.path.relpath(place.out / FEATURES, folder))
    recipe = varied(place.recipes[cell.recipe], cell)
    others: dict = {}
    if cell.blocks_of is not None:
        taken = place.cells[cell.blocks_of]
        assert isinstance(taken, TrainingCell)
        others = {"base_run": place.run_folder(taken), "first_stage": 2}
    data = [place.data_folder(cell.data, split) for split in ("train", "validation")]
    run = Run(recipe, *data, folder / RUN, Ablation(cell.ablation), **others)
    if cell.held_out:
        read, one_in = (recipe.kinds, recipe.spelling), cell.held_out
        run.train_set = SetWithoutPairs(data[0], "train", *read, one_in)
        run.validation_set = SetWithoutPairs(data[1], "validation", *read, one_in)
    run.go()


def judge(place: Workplace, cell: PredictionCell, opened: Path) -> None:
    """Judge a split with a checkpoint, or with the base it was made from."""
    trained = place.cells[cell.of]
    assert isinstance(trained, TrainingCell)
    # Distances are kept, and the guard is applied to them afterwards.
    detector = FailSenseDetector(load_checkpoint(place.checkpoint(trained)), guard=False)
    if cell.part == BASE:
        detector = base_detector(place.run_folder(trained), detector)
    data = place.data_folder(cell.data, cell.split)
    words, shared_from = None, ""
    if cell.phrasings_of is not None:
        lender = place.data_folder(cell.phrasings_of, "train")
        words, shared_from = phrasings_of(lender), lender.name
    predict_to(
        place.folder(cell) / PREDICTIONS,
        detector,
        AskedSet(data, cell.split, every_pair=cell.every_pair),
        phrasings=words,
        shared_from=shared_from,
        command=[*shlex.split(COMMAND), "--only", cell.name],
        opened=opened,
    )


def base_detector(run: Path, full: FailSenseDetector) -> AnswerWordDetector:
    """The VLM before stage 1, asked as the full one is.

    Args:
        run: folder of the run that made or took the base, or of its checkpoint.
        full: detector of its checkpoint.

    Raises:
        ConfigError: there is no base.
    """
    base = bases.load_from_run(run)
    config = replace(
        full.config,
        base=base.origin or BaseModel(bases.BASE_FOLDER),
        adapter=None,
        fs_blocks=None,
        hooked_layers=(),
        vote_weights=VoteWeights((), 1.0),
        calibration=None,
    )
    width = base.model.config.get_text_config().hidden_size
    blocks = FSBlocks(0, width, config.fs_head).eval()
    loaded = LoadedCheckpoint(config, base.model.eval(), base.processor, blocks)
    return AnswerWordDetector(loaded, f"{full.model_id}+base")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the process that does one cell; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ifailsense_ros.experiments.work")
    parser.add_argument("--cell", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--opened", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.workers)
    cells = all_cells(RECIPES, args.split)
    place = Workplace.of(args.data, args.out, cells, RECIPES, args.split)
    cell = place.cells[args.cell]
    try:
        if isinstance(cell, DataCell):
            record(place, cell, args.workers)
        elif isinstance(cell, TrainingCell):
            compute.set_up()
            train(place, cell)
        else:
            judge(place, cell, args.opened)
    except IFailSenseError as error:
        print(f"{cell.name}: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
