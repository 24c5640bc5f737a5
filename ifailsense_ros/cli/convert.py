"""`ifailsense convert`: the authors' published files become a checkpoint that the node loads."""

from __future__ import annotations

import argparse

from ifailsense_ros.core.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    need = {"required": True}
    parser.add_argument("--fs", **need, metavar="FILE.pt", help="the authors' FS file")
    parser.add_argument("--adapter", **need, metavar="DIR", help="their peft adapter's folder")
    parser.add_argument(
        "--base",
        **need,
        metavar="NAME_OR_FOLDER",
        help="e.g. google/paligemma2-3b-mix-224[@revision], which the checkpoint will name; or a "
        "folder, which it will hold",
    )
    parser.add_argument("--out", **need, metavar="DIR", help="checkpoint folder to write")
    parser.add_argument("--name", help="of the checkpoint (default: the folder's)")
    parser.add_argument(
        "--num-pov",
        type=int,
        choices=(1, 2),
        help="views (default: what 1p or 2p in the files' names says)",
    )
    parser.add_argument(
        "--num-keyframes", type=int, default=4, metavar="T", help="columns of the montage (4)"
    )
    parser.add_argument(
        "--cell",
        type=_pair,
        default=(224, 224),
        metavar="HxW",
        help="pixels of a view in the montage, before it is squashed (224x224)",
    )
    parser.add_argument(
        "--layers",
        type=_numbers,
        metavar="I,J,K",
        help="0-based decoder layers of the heads (default: the authors' rule)",
    )
    parser.add_argument(
        "--fs-widths",
        type=_pair,
        default=(1024, 256),
        metavar="AxB",
        help="widths of the heads' classifiers (1024x256)",
    )
    parser.add_argument(
        "--pooling-heads", type=int, default=4, metavar="H", help="attention heads of their pooling"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, and say what came of it.

    Raises:
        CheckpointError, ConfigError: nothing was written.
    """
    for option in ("num_keyframes", "pooling_heads"):
        if getattr(args, option) < 1:
            raise ConfigError(f"--{option.replace('_', '-')}: must be >= 1")
    from ifailsense_ros.model.convert import convert

    done = convert(
        args.fs,
        args.adapter,
        args.base,
        args.out,
        name=args.name,
        num_pov=args.num_pov,
        num_keyframes=args.num_keyframes,
        cell=args.cell,
        layers=args.layers,
        widths=args.fs_widths,
        pooling_heads=args.pooling_heads,
    )
    config, lora = done.config, done.adapter
    tower = "none in the vision tower"
    if lora.vision:
        tower = f"{lora.vision} in the vision tower, merged like the others"
    print(f"{config.model_id}  {args.out}")
    print(f"  FS blocks  {len(config.hooked_layers)}, on layers {config.hooked_layers}")
    print(f"  LoRA       {lora.language} modules of the language model, {tower}")
    print(f"  projector  {'the adapter brings its own' if lora.projector else 'of the base'}")
    if config.base.hub is None:
        made_on = lora.made_on or "a base that it does not name"
        print(f"  note       the adapter was made on {made_on}; its shapes fit this folder, but")
        print("             whether the weights are the same nobody can see from here")
    print(f"check it:  ifailsense check {args.out}")
    return 0


def _pair(text: str) -> tuple[int, int]:
    numbers = _numbers(text.replace("x", ","))
    if len(numbers) != 2 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no pair like 224x224")
    return numbers[0], numbers[1]


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers") from None
