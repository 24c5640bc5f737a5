"""Calibrate a finished checkpoint: temperatures, scores for promises, and its guard.

    ifailsense calibrate --checkpoint runs/sim-tiny/checkpoint --data data/smf

Temperatures and scores come from the validation pairs, the guard's statistics from training
montages and its threshold from validation ones. What they mean: docs/calibration.md. The folder is
replaced as a whole at the end; until then nothing is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ifailsense_ros.core.calibration import Calibration, Scores, vote_log_odds
from ifailsense_ros.core.checkpoint import (
    CONFIG_FILE,
    SCHEMA_VERSION,
    CheckpointConfig,
    resolve_checkpoint,
    sha256_of,
)
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import DataError, IFailSenseError
from ifailsense_ros.data.ablation import ABLATIONS, Ablation
from ifailsense_ros.data.experts import ExpertSet, episode_of, with_keyframes
from ifailsense_ros.model.calibration import CALIBRATION_FILE, CalibrationData, save_calibration
from ifailsense_ros.model.checkpoint import is_big, load_checkpoint, replace_folder
from ifailsense_ros.model.decision import Measured
from ifailsense_ros.model.detector import FailSenseDetector
from ifailsense_ros.model.device import choose_device, choose_dtype, set_threads
from ifailsense_ros.train.calibration_fits import (
    fit_guard,
    fit_temperatures,
    guard_settings,
    scaled,
)

MONTAGES = 1000
"""Training montages for the guard: 4000 cells of each PoV, for 384 dimensions."""
_EPISODES_AT_ONCE = 8


@dataclass(frozen=True)
class Measurements:
    """What an uncalibrated detector said of the validation pairs.

    Attributes:
        labels: (n,) bool, True: success.
        outcomes: (n,) of `Outcome`.
        logits: (n, K + 1) raw; NaN where a voter has no say.
        cells: (m, N, T, d) of the m montages.
    """

    labels: np.ndarray
    outcomes: np.ndarray
    logits: np.ndarray
    cells: np.ndarray


def calibrate(
    checkpoint: Path | str,
    data: Path | str,
    split: str = "validation",
    *,
    train_data: Path | str | None = None,
    train_split: str = "train",
    ablation: Ablation | None = None,
    montages: int = MONTAGES,
    device: str = "auto",
    progress: bool = True,
) -> CheckpointConfig:
    """Calibrate a checkpoint; an earlier calibration is replaced.

    Args:
        checkpoint: its folder, or the name of a packaged one.
        data: data set or episode store with the split to calibrate on. Nothing may have been
            trained on it.
        split: of `data`.
        train_data: with the training montages; None: `data`.
        train_split: of `train_data`.
        ablation: what the checkpoint is not shown; None: nothing is kept from it.
        montages: most training montages for the guard; 0: no guard.
        device: where the detector runs.
        progress: whether to draw bars.

    Returns:
        The settings as written.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the data cannot be read, or hold no success or no failure.
    """
    folder = resolve_checkpoint(checkpoint)
    place = choose_device(device)
    dtype = choose_dtype("auto", place, big=is_big(folder))
    loaded = load_checkpoint(folder, device=place, dtype=dtype)
    config = dataclasses.replace(loaded.config, calibration=None)
    detector = FailSenseDetector(dataclasses.replace(loaded, config=config, calibration=None))
    shown = ablation or Ablation()
    pairs = ExpertSet(Path(data), split)
    measured = measure(detector, pairs, shown, progress=progress)
    if not 0 < measured.labels.sum() < len(measured.labels):
        raise DataError(f"{data}: split {split} needs successes and failures to calibrate on")
    weights = (*config.vote_weights.fs, config.vote_weights.vlm)
    temperatures = fit_temperatures(measured.logits, measured.labels, weights)
    guard, settings = None, None
    if montages > 0:
        trained = ExpertSet(Path(data if train_data is None else train_data), train_split)
        cells = training_cells(detector, trained, shown, montages, progress=progress)
        guard = fit_guard(cells)
        if guard is not None:
            settings = guard_settings(guard, measured.cells, len(cells))
    scores = Scores.of(
        measured.labels,
        measured.outcomes,
        vote_log_odds(scaled(measured.logits, temperatures), weights),
    )
    calibration = Calibration(
        data_hash=pairs.hash,
        split=split,
        failures=len(scores.failures),
        successes=len(scores.successes),
        temperatures=temperatures,
        file=CALIBRATION_FILE,
        guard=settings,
    )
    return write_calibration(folder, calibration, CalibrationData(scores, guard))


# --- what the detector says -----------------------------------------------------------------------


def measure(
    detector: FailSenseDetector, pairs: ExpertSet, ablation: Ablation, *, progress: bool = True
) -> Measurements:
    """Judge each episode with its right and its wrong instruction: one pair a class and episode.

    Pairs that the detector has no numbers for are an error of the checkpoint, and left out.
    """
    samples = defaultdict(list)
    for sample in pairs.pairs():
        samples[sample.index].append(sample)
    judged: list[tuple[bool, Measured]] = []
    cells = []
    episodes = _episodes(detector, pairs, ablation, 1)
    with tqdm(total=len(pairs), desc=f"judge {pairs.split}", disable=not progress) as bar:
        while some := list(islice(episodes, _EPISODES_AT_ONCE)):
            asked, labels = [], []
            for index, episode in some:
                for s in samples[index]:
                    asked.append(
                        dataclasses.replace(episode, instruction=ablation.text(s.instruction))
                    )
                    labels.append(s.success)
            answers = detector.measure_batch(asked)
            judged += [(y, a) for y, a in zip(labels, answers, strict=True) if a.cells is not None]
            # Both questions about an episode see the same cells.
            seen = {id(e.keyframes): a.cells for e, a in zip(asked, answers, strict=True)}
            cells += [c for c in seen.values() if c is not None]
            bar.update(len(some))
    return Measurements(
        labels=np.array([y for y, _ in judged], bool),
        outcomes=np.array([a.judgement.outcome for _, a in judged], np.int64),
        logits=np.array([a.logits for _, a in judged]),
        cells=np.array(cells),
    )


def training_cells(
    detector: FailSenseDetector,
    trained: ExpertSet,
    ablation: Ablation,
    montages: int,
    *,
    progress: bool = True,
) -> np.ndarray:
    """The guard's features (m, N, T, d) of at most that many montages, evenly chosen."""
    step = math.ceil(len(trained) / montages)
    episodes = _episodes(detector, trained, ablation, step)
    parts = []
    total = math.ceil(len(trained) / step)
    with tqdm(total=total, desc=f"look at {trained.split}", disable=not progress) as bar:
        while some := list(islice(episodes, 2 * _EPISODES_AT_ONCE)):
            parts.append(detector.cells_of([episode for _, episode in some]))
            bar.update(len(some))
    return np.concatenate(parts)


def _episodes(
    detector: FailSenseDetector, episodes: ExpertSet, ablation: Ablation, step: int
) -> Iterator[tuple[int, Episode]]:
    montage = detector.config.montage
    for index, row in episodes.rows():
        if index % step == 0:
            shown = ablation.apply(episode_of(row, montage.num_pov))
            yield index, with_keyframes(shown, montage.num_keyframes)


# --- the checkpoint -------------------------------------------------------------------------------


def write_calibration(
    folder: Path, calibration: Calibration, data: CalibrationData
) -> CheckpointConfig:
    """Put a calibration into a finished checkpoint; a reader sees the old folder or the new one.

    Returns:
        The settings as written, with the sha256 of the new file.

    Raises:
        CheckpointError: the folder holds no checkpoint, or settings and file contradict each other.
    """
    config = CheckpointConfig.from_json(folder)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        shutil.copytree(folder, scratch, dirs_exist_ok=True)
        files = dict(config.files)
        if config.calibration is not None:
            (scratch / config.calibration.file).unlink(missing_ok=True)
            del files[config.calibration.file]
        path = scratch / calibration.file
        save_calibration(path, data)
        path.chmod(0o644)
        config = dataclasses.replace(
            config,
            schema_version=SCHEMA_VERSION,
            calibration=calibration,
            files=dict(sorted({**files, calibration.file: sha256_of(path)}.items())),
        )
        (scratch / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
        config = CheckpointConfig.from_json(scratch)  # what cannot be read is not written
        scratch.chmod(0o755)
        replace_folder(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return config


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="ifailsense calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, help="folder; it is replaced")
    parser.add_argument("--data", type=Path, required=True, help="data set or episode store")
    parser.add_argument("--split", default="validation", help="nothing was trained on it")
    parser.add_argument(
        "--train", type=Path, help="where the training montages are; default --data"
    )
    parser.add_argument("--train-split", default="train")
    parser.add_argument(
        "--montages", type=int, default=MONTAGES, help="of training, for the guard; 0: no guard"
    )
    parser.add_argument("--ablation", default="none", choices=ABLATIONS, help="of a control")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    try:
        set_threads(args.threads)
        config = calibrate(
            args.checkpoint,
            args.data,
            args.split,
            train_data=args.train,
            train_split=args.train_split,
            ablation=Ablation(args.ablation),
            montages=args.montages,
            device=args.device,
        )
    except IFailSenseError as error:
        print(f"ifailsense calibrate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ifailsense calibrate: stopped, nothing was written", file=sys.stderr)
        return 130
    said = dataclasses.asdict(config.calibration)
    print(json.dumps({"checkpoint": config.model_id, **said}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
