"""The VLM that post-training starts from: made by stage 0, a folder, or a repository of the hub."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.checkpoint import BaseModel
from ifailsense_ros.core.errors import CheckpointError, ConfigError
from ifailsense_ros.model.attention import use_fused_attention
from ifailsense_ros.model.checkpoint import load_vlm
from ifailsense_ros.model.quiet import quiet_transformers
from ifailsense_ros.model.tiny import VISION_SHARD
from ifailsense_ros.train.compute import uses_bf16
from ifailsense_ros.train.features import weights_hash

BASE_FOLDER = "base"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class Base:
    """A base in memory.

    Attributes:
        model: the VLM, frozen, in eval mode.
        processor: its tokenizer and image processor.
        origin: the repository and commit, for a checkpoint that names instead of holding it; None
            for a base that the checkpoint has to hold.
        folder: where it lies, if it is no repository.
    """

    model: PaliGemmaForConditionalGeneration
    processor: PaliGemmaProcessor
    origin: BaseModel | None
    folder: Path | None

    @property
    def picture(self) -> tuple[int, int]:
        """(height, width) in pixels of what its vision tower sees."""
        size = self.processor.image_processor.size
        return size["height"], size["width"]

    @property
    def has_our_encoder(self) -> bool:
        """Whether it holds the encoder that comes with this package, as a file of its own."""
        return self.folder is not None and (self.folder / VISION_SHARD).exists()

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return self.model.config.get_text_config().num_hidden_layers


def load_made(folder: Path) -> Base:
    """A base of ours, from the float16 files that a checkpoint holds: stage 1 starts from these."""
    model, processor = load_vlm(str(folder), dtype=torch.float32)
    use_fused_attention(model.model.language_model)
    return Base(model.requires_grad_(False), processor, None, folder)


def load_named(name: str, *, revision: str | None = None, network: bool = False) -> Base:
    """A folder, or a repository of the hub; large ones are held in bfloat16 where training is.

    Args:
        name: e.g. "google/paligemma2-3b-mix-224", or a folder.
        revision: commit of the repository.
        network: whether it may be fetched.

    Raises:
        ConfigError: neither.
        CheckpointError: cannot be loaded, or is no PaliGemma.
    """
    is_folder = Path(name).is_dir()
    if not is_folder and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise ConfigError(f"base {name}: no such folder, and no repository (owner/name) either")
    dtype = torch.bfloat16 if uses_bf16() else torch.float32
    try:
        model, processor = load_vlm(
            name, dtype=dtype, revision=revision, network=network and not is_folder
        )
    except CheckpointError as error:
        if is_folder or network:
            raise
        raise ConfigError(f"{error} with --base {name}, which may use the network") from None
    model.requires_grad_(False)
    use_fused_attention(model.model.language_model)
    if is_folder:
        return Base(model, processor, None, Path(name))
    commit = revision or getattr(model.config, "_commit_hash", None)
    return Base(model, processor, BaseModel(hub=name, revision=commit), None)


def keep_copy(base: Base, folder: Path) -> None:
    """Write the base's weights and settings for the checkpoint, and nothing else of its folder.

    A folder that exists is complete, and kept.
    """
    if folder.exists():
        return
    part = folder.with_name(f".{folder.name}-{os.getpid()}")
    if base.has_our_encoder:
        shutil.copytree(base.folder, part)
    else:
        with quiet_transformers():
            base.model.save_pretrained(part)
            base.processor.save_pretrained(part)
    os.replace(part, folder)


def identity(base: Base) -> str:
    """What tells this base from others: repository and commit, or a hash of the weights."""
    return weights_hash(base.model) if base.origin is None else f"{base.origin}"


def load_from_run(run: Path) -> Base:
    """The base of another run.

    Raises:
        ConfigError: it has none yet.
    """
    if (run / BASE_FOLDER / "config.json").exists():
        made_here = (run / BASE_FOLDER / VISION_SHARD).exists()
        return load_made(run / BASE_FOLDER) if made_here else load_named(str(run / BASE_FOLDER))
    try:
        origin = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["base"]
        return load_named(origin["hub"], revision=origin["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{run}: no run with a finished base ({BASE_FOLDER} or {RUN_FILE}); let it finish its "
            "stage 0 first"
        ) from None
