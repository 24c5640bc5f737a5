"""Load a checkpoint into memory, and write one.

Weights are safetensors only, code is never loaded, and nothing is fetched unless the checkpoint
or its base is named on the hub. Every defect of the files becomes a CheckpointError of one line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from ifailsense_ros.core.checkpoint import CONFIG_FILE, CheckpointConfig, sha256_of
from ifailsense_ros.core.errors import CheckpointError, ConfigError, text_of
from ifailsense_ros.model.attention import use_fused_attention
from ifailsense_ros.model.calibration import CalibrationData, load_calibration
from ifailsense_ros.model.fs_block import FSBlocks
from ifailsense_ros.model.hub import find_checkpoint
from ifailsense_ros.model.quiet import quiet_transformers

BASE_FOLDER = "base"
ADAPTER_FOLDER = "adapter"
FS_FILE = "fs_blocks.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_BIG = 2 << 30
"""Bytes of a base's weights."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint in memory, in eval mode: the adapter is merged into the model.

    Attributes:
        config: settings.
        model: the VLM.
        processor: its tokenizer and image processor.
        fs_blocks: float32; empty where the checkpoint has none.
        calibration: None where the checkpoint has none.
    """

    config: CheckpointConfig
    model: PaliGemmaForConditionalGeneration
    processor: PaliGemmaProcessor
    fs_blocks: FSBlocks
    calibration: CalibrationData | None = None


def load_checkpoint(
    spec: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LoadedCheckpoint:
    """Verify and load a checkpoint by name or folder.

    Args:
        spec: e.g. "sim-tiny", or a folder, or "hub:<org>/<name>@<revision>".
        device: where the weights go.
        dtype: of the VLM; the FS blocks stay in float32.

    Raises:
        CheckpointError: anything wrong with the files; one line that names the file.
    """
    folder = find_checkpoint(spec)
    config = CheckpointConfig.from_json(folder)
    config.verify(folder)
    model, processor = load_base(folder, config, dtype=dtype)
    if config.adapter is not None:
        merge_adapter(model, folder / config.adapter)
    check_finite(model, str(folder))
    fs_blocks = _load_fs_blocks(folder, config, model)
    _check_fits(folder, config, model, processor)
    calibration = load_calibration(folder, config, model.config.vision_config.hidden_size)
    model.requires_grad_(False)
    use_fused_attention(model.model.language_model)
    return LoadedCheckpoint(
        config,
        model.eval().to(device),
        processor,
        fs_blocks.requires_grad_(False).to(device),
        calibration,
    )


def is_big(spec: str | Path) -> bool:
    """Whether a checkpoint's base has billions of parameters; one on the hub has.

    Raises:
        CheckpointError: there is no such checkpoint, or its settings cannot be read.
    """
    folder = find_checkpoint(spec)
    config = CheckpointConfig.from_json(folder)
    if config.base.folder is None:
        return True
    files = (folder / config.base.folder).glob("*.safetensors")
    return sum(path.stat().st_size for path in files) > _BIG


def load_base(
    folder: Path, config: CheckpointConfig, *, dtype: torch.dtype = torch.float32
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """The VLM before post-training, and its processor.

    Raises:
        CheckpointError: unreadable, or its weights do not fit its configuration exactly.
    """
    if config.base.folder is not None:
        return load_vlm(str(folder / config.base.folder), dtype=dtype)
    return load_vlm(config.base.hub, dtype=dtype, revision=config.base.revision, network=True)


def load_vlm(
    source: str, *, dtype: torch.dtype, revision: str | None = None, network: bool = False
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """A PaliGemma-class VLM in eval mode, and its processor.

    Args:
        source: folder, or a repository of the hub.
        dtype: of the weights in memory.
        revision: commit of the repository.
        network: whether what is not there may be fetched.

    Raises:
        CheckpointError: unreadable, or its weights do not fit its configuration exactly.
    """
    place = {"revision": revision, "local_files_only": not network}
    try:
        with quiet_transformers():
            model, info = PaliGemmaForConditionalGeneration.from_pretrained(
                source,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # reported below, by name
                output_loading_info=True,
                **place,
            )
            processor = PaliGemmaProcessor.from_pretrained(source, trust_remote_code=False, **place)
    except Exception as error:  # the libraries raise a dozen types for a damaged folder
        raise CheckpointError(
            f"{source}: the base cannot be loaded ({text_of(error)}); fetch it again"
        ) from None
    _check_loading(source, info["missing_keys"], info["unexpected_keys"], info["mismatched_keys"])
    return model.eval(), processor


def merge_adapter(model: PaliGemmaForConditionalGeneration, folder: Path) -> None:
    """Load a LoRA adapter (and a projector saved with it) and merge it into the model, in place.

    Raises:
        CheckpointError: no safetensors, or tensors that do not fit the model exactly.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    if not (folder / ADAPTER_WEIGHTS).is_file():
        # transformers would fall back to a pickle of another name
        raise CheckpointError(f"{folder / ADAPTER_WEIGHTS}: no such file; convert the adapter")
    try:
        with quiet_transformers():
            info = model.load_adapter(str(folder), adapter_kwargs={"local_files_only": True})
    except Exception as error:
        raise CheckpointError(
            f"{folder}: the adapter cannot be loaded ({text_of(error)}); fetch it again"
        ) from None
    _check_loading(str(folder), info.missing_keys, info.unexpected_keys, info.mismatched_keys)
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
    model.peft_config = {}
    model._hf_peft_config_loaded = False


def check_finite(module: nn.Module, where: str) -> None:
    """Raises CheckpointError if a tensor holds NaN or infinity; names it."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{where}: weights {name} are not finite; fetch it again")


def _load_fs_blocks(folder: Path, config: CheckpointConfig, model: nn.Module) -> FSBlocks:
    text = model.config.get_text_config()
    try:
        blocks = FSBlocks(
            len(config.hooked_layers),
            text.hidden_size,
            config.fs_head,
            masks_padding=config.masks_padding,
        )
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from None
    if config.fs_blocks is None:
        return blocks.eval()
    path = folder / config.fs_blocks
    if config.hooked_layers[-1] >= text.num_hidden_layers:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: field hooked_layers names layer {config.hooked_layers[-1]}, "
            f"the base has {text.num_hidden_layers}; correct it"
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not readable ({text_of(error)}); fetch it again") from None
    wanted = blocks.state_dict()
    wrong_shape = [k for k in wanted if k in tensors and tensors[k].shape != wanted[k].shape]
    _check_loading(str(path), wanted.keys() - tensors.keys(), tensors.keys() - wanted, wrong_shape)
    blocks.load_state_dict(tensors)
    check_finite(blocks, str(path))
    return blocks.eval()


def _check_fits(folder: Path, config: CheckpointConfig, model, processor) -> None:
    """The parts of a checkpoint agree on the vocabulary and on the picture."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if len(processor.tokenizer) > vocabulary:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(processor.tokenizer)} tokens, the base "
            f"{vocabulary}; they do not belong together"
        )
    size = processor.image_processor.size
    if (size["height"], size["width"]) != (config.picture.height, config.picture.width):
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: field picture is {config.picture.height}x"
            f"{config.picture.width}, the base's processor makes {size['height']}x"
            f"{size['width']}; correct it"
        )


def _check_loading(where: str, missing, unexpected, mismatched) -> None:
    for what, keys in (("missing", missing), ("unknown", unexpected), ("misshapen", mismatched)):
        if keys:
            names = sorted(str(k[0]) if isinstance(k, tuple) else str(k) for k in keys)
            raise CheckpointError(
                f"{where}: {len(names)} {what} tensor(s), the first is {names[0]}; the files do "
                "not belong together"
            )


# --- writing --------------------------------------------------------------------------------------


def save_checkpoint(
    folder: str | Path,
    config: CheckpointConfig,
    *,
    base: Path | None = None,
    adapter: nn.Module | Path | None = None,
    fs_blocks: FSBlocks | None = None,
    extra_files: Sequence[Path] = (),
) -> CheckpointConfig:
    """Write a checkpoint folder at once: a reader sees the old one or the new one, never a mixture.

    Args:
        folder: to write; one that exists is replaced as a whole.
        config: settings; the paths of the parts and `files` are filled in here.
        base: base folder to copy (`tiny.save_tiny`); None where `config.base.hub` is set.
        adapter: a PeftModel, or a folder written by its `save_pretrained`, or None.
        fs_blocks: the trained blocks, or None.
        extra_files: e.g. a NOTICE, copied beside them.

    Returns:
        The settings as written, with the sha256 of every file.

    Raises:
        CheckpointError: settings and parts contradict each other.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (base is None) != (config.base.hub is not None):
        raise CheckpointError(f"{folder}: give either a base folder or settings with base.hub")
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        if base is not None:
            shutil.copytree(base, scratch / BASE_FOLDER)
        if adapter is not None:
            _write_adapter(adapter, scratch / ADAPTER_FOLDER)
        if fs_blocks is not None:
            state = {k: v.detach().cpu().contiguous() for k, v in fs_blocks.state_dict().items()}
            save_file(state, scratch / FS_FILE, metadata={"format": "pt"})
        for path in extra_files:
            shutil.copyfile(path, scratch / path.name)
        files = {
            p.relative_to(scratch).as_posix(): sha256_of(p)
            for p in sorted(scratch.rglob("*"))
            if p.is_file()
        }
        config = dataclasses.replace(
            config,
            base=config.base
            if base is None
            else dataclasses.replace(config.base, folder=BASE_FOLDER),
            adapter=None if adapter is None else ADAPTER_FOLDER,
            fs_blocks=None if fs_blocks is None else FS_FILE,
            files=files,
        )
        (scratch / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
        config = CheckpointConfig.from_json(scratch)  # what cannot be read is not written
        for path in (scratch, *scratch.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        replace_folder(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return config


def _write_adapter(adapter: nn.Module | Path, folder: Path) -> None:
    """Weights and settings only; the path of the base on this machine is left out."""
    if isinstance(adapter, (str, Path)):
        folder.mkdir()
        for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
            shutil.copyfile(Path(adapter) / name, folder / name)
    else:
        adapter.save_pretrained(str(folder), safe_serialization=True)
        for path in folder.iterdir():
            if path.name not in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
                path.unlink()
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = None
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")


def replace_folder(new: Path, folder: Path) -> None:
    """Move `new` to `folder`; an old folder is kept until the new one is in its place."""
    if not folder.exists():
        os.replace(new, folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-old-"))
    os.replace(folder, old / "old")
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(old / "old", folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
