"""The command line of `ifailsense train`: the few settings that users change."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.ablation import ABLATIONS
from ifailsense_ros.train import compute
from ifailsense_ros.train.recipes import RECIPES
from ifailsense_ros.train.settings import Recipe


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(prog="ifailsense train", description=description)
    parser.add_argument("--recipe", default="sim-tiny", choices=sorted(RECIPES))
    data = parser.add_argument_group("data (--data, or --train and --validation)")
    data.add_argument("--data", type=Path, help="data set with the splits train and validation")
    data.add_argument("--train", type=Path, help="data set or episode store, split train")
    data.add_argument("--validation", type=Path, help="the same, split validation")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--base", help="PaliGemma-class base, as a folder or a hub repository (is fetched then)"
    )
    parser.add_argument("--from-run", type=Path, help="take the base of this run over")
    parser.add_argument(
        "--first-stage", type=int, default=1, choices=(1, 2), help="2: its stage 1 as well"
    )
    parser.add_argument("--ablation", default="none", choices=ABLATIONS, help="train a control")
    parser.add_argument("--seed", type=int, help="of every random draw")
    parser.add_argument("--num-pov", type=int, choices=(1, 2))
    parser.add_argument("--num-keyframes", type=int)
    parser.add_argument("--layers", help="decoder layers of the FS blocks, e.g. 1,2,3")
    parser.add_argument("--precision", default="auto", choices=compute.PRECISIONS)
    parser.add_argument("--log-with", choices=compute.TRACKERS, help="beside the CSV files")
    shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of torchrun on this machine
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 1) // shared))
    return parser


def adjusted(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with what the command line changes.

    Raises:
        ConfigError: a value that makes no sense; names the option.
    """
    if args.seed is not None:
        recipe = recipe.with_seed(args.seed)
    changes = {k: getattr(args, k) for k in ("num_pov", "num_keyframes")}
    changes = {k: v for k, v in changes.items() if v is not None}
    if changes.get("num_keyframes", 1) < 1:
        raise ConfigError(f"--num-keyframes {args.num_keyframes}: needs one at least")
    recipe = replace(recipe, geometry=replace(recipe.geometry, **changes))
    if args.layers is None:
        return recipe
    try:
        layers = tuple(int(cell) for cell in args.layers.split(","))
    except ValueError:
        raise ConfigError(f"--layers {args.layers}: numbers with commas, e.g. 1,2,3") from None
    return replace(recipe, stage2=replace(recipe.stage2, layers=layers))
