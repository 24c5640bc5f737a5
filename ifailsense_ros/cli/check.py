"""`ifailsense check CHECKPOINT`: is this folder complete, unaltered and loadable?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ifailsense_ros.core.checkpoint import CheckpointConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    parser.add_argument(
        "checkpoint", help="name of a packaged checkpoint, a folder, or hub:<org>/<name>@<revision>"
    )
    parser.add_argument(
        "--quick", action="store_true", help="settings and file hashes only, do not load the model"
    )


def run(args: argparse.Namespace) -> int:
    """Print what the checkpoint is; 0 if everything is in order.

    Raises:
        CheckpointError: the first thing that is not.
    """
    from ifailsense_ros.core.checkpoint import CheckpointConfig
    from ifailsense_ros.core.prompt import PLAIN
    from ifailsense_ros.model.hub import find_checkpoint

    folder = find_checkpoint(args.checkpoint)
    config = CheckpointConfig.from_json(folder)
    config.verify(folder)
    montage, weights = config.montage, config.vote_weights
    print(f"{config.model_id}  {folder}")
    print(f"  files      {len(config.files)}, every sha256 as listed")
    print(
        f"  montage    T={montage.num_keyframes} keyframes x N={montage.num_pov} PoV, cells "
        f"{montage.cell_width}x{montage.cell_height} px"
    )
    blocks = ", ".join(
        f"layer {layer} (weight {weight:g})"
        for layer, weight in zip(config.hooked_layers, weights.fs, strict=True)
    )
    print(f"  FS blocks  {blocks or 'none'}; VLM weight {weights.vlm:g}")
    read = "in small letters, without marks" if config.spelling == PLAIN else "as it is given"
    print(f"  prompt     {config.prompt}; the instruction is read {read}")
    print(f"  calibrated {_calibration_text(config)}")
    for name, value in config.metrics.items():
        print(f"  {name}  {value}")
    if not args.quick:
        from ifailsense_ros.model.detector import load_detector

        load_detector(folder)
        print("  loads      yes")
    return 0


def _calibration_text(config: CheckpointConfig) -> str:
    """What the checkpoint can promise, in one line."""
    c = config.calibration
    if c is None:
        return "no: p_success is as the voters gave it, no error rate can be promised"
    guard = "no guard against strange pictures"
    if c.guard is not None:
        guard = f"a guard refuses {c.guard.rate:.2%} of pictures like the calibration ones"
    return (
        f"on {c.failures} failures and {c.successes} successes ({c.split}): least rates 1/"
        f"{c.failures + 1} missed failures, 1/{c.successes + 1} false alarms; {guard}"
    )
