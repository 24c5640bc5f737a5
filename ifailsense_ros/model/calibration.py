"""A checkpoint's calibration file, and the features that the out-of-distribution guard looks at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch.nn import functional

from ifailsense_ros.core.calibration import Scores
from ifailsense_ros.core.checkpoint import CheckpointConfig
from ifailsense_ros.core.errors import CheckpointError, text_of
from ifailsense_ros.core.guard import Guard

CALIBRATION_FILE = "calibration.safetensors"

_FAILURES, _SUCCESSES = "scores.failures", "scores.successes"
_GUARD = "guard."


@dataclass(frozen=True)
class CalibrationData:
    """What the calibration file holds.

    Attributes:
        scores: of the calibration episodes.
        guard: None where the checkpoint has none.
    """

    scores: Scores
    guard: Guard | None


def save_calibration(path: Path, data: CalibrationData) -> None:
    """Write the file. The guard's directions are rounded to float16: they are most of it."""
    tensors = {_FAILURES: data.scores.failures, _SUCCESSES: data.scores.successes}
    if data.guard is not None:
        tensors |= {_GUARD + name: value for name, value in vars(data.guard).items()}
        tensors[_GUARD + "basis"] = data.guard.basis.astype(np.float16)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)


def load_calibration(folder: Path, config: CheckpointConfig, width: int) -> CalibrationData | None:
    """Read the file that the settings name; None where they name none.

    Args:
        folder: of the checkpoint, verified.
        config: its settings.
        width: of the vision tower's output.

    Raises:
        CheckpointError: unreadable, or it does not hold what the settings say.
    """
    said = config.calibration
    if said is None:
        return None
    path = folder / said.file
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not readable ({text_of(error)}); fetch it again") from None
    n = config.montage.num_pov
    shapes = {_FAILURES: (said.failures,), _SUCCESSES: (said.successes,)}
    if said.guard is not None:
        k = tensors.get(_GUARD + "variance", np.empty((0, 0))).shape[-1]
        shapes |= {
            _GUARD + "mean": (n, width),
            _GUARD + "basis": (n, k, width),
            _GUARD + "variance": (n, k),
            _GUARD + "rest": (n,),
        }
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise CheckpointError(
            f"{path}: does not hold the scores and statistics that {folder.name}'s settings speak "
            "of; calibrate it again"
        )
    scores = Scores(tensors[_FAILURES], tensors[_SUCCESSES])
    guard = None
    if said.guard is not None:
        names = ("mean", "basis", "variance", "rest")
        guard = Guard(**{name: tensors[_GUARD + name].astype(np.float32) for name in names})
    _check_numbers(path, scores, guard)
    return CalibrationData(scores, guard)


def _check_numbers(path: Path, scores: Scores, guard: Guard | None) -> None:
    # A score of -inf is a verdict that was right; NaN and +inf are none.
    wrong = any((np.isnan(s) | (s == np.inf)).any() for s in vars(scores).values())
    if guard is not None:
        wrong |= any(not np.isfinite(v).all() for v in vars(guard).values())
        wrong |= bool((guard.variance <= 0).any() or (guard.rest <= 0).any())
    if wrong:
        raise CheckpointError(f"{path}: holds numbers that mean nothing; calibrate it again")


def cell_features(
    features: torch.Tensor, patches: tuple[int, int], num_pov: int, num_keyframes: int
) -> np.ndarray:
    """The vision tower's output averaged over each cell of the montage.

    Args:
        features: (B, image tokens, d) from `vlm.vision_features`. Tokens that are no patch
            (DINOv2's first) come before the patches and are left out.
        patches: rows and columns of patches in the picture.
        num_pov, num_keyframes: rows and columns of cells.

    Returns:
        float32 (B, N, T, d), on the CPU.
    """
    rows, columns = patches
    grid = features[:, -rows * columns :].float().transpose(1, 2).unflatten(2, (rows, columns))
    cells = functional.adaptive_avg_pool2d(grid, (num_pov, num_keyframes))
    return cells.permute(0, 2, 3, 1).cpu().numpy()
