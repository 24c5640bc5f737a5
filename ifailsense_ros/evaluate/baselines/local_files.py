"""A vision-language model of other people, from a folder or from the hub if its name says so.

Whatever class transformers' own `AutoModelForImageTextToText` knows; code that lies beside the
weights is never run, and weights are safetensors only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from ifailsense_ros.core.checkpoint import sha256_of
from ifailsense_ros.core.errors import CheckpointError, text_of
from ifailsense_ros.model.checkpoint import check_finite
from ifailsense_ros.model.hub import is_on_hub, parse_spec
from ifailsense_ros.model.quiet import quiet_transformers

_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
"""What is fetched, read and hashed."""


@dataclass(frozen=True)
class LoadedVLM:
    """A model in memory, in eval mode.

    Attributes:
        name: of its folder or repository, without owner.
        model: has `generate`.
        processor: its tokenizer (padding on the left), image processor and chat template.
        files: relative path -> sha256 of what it was read from.
    """

    name: str
    model: Any
    processor: Any
    files: dict[str, str]


def load_vlm_of_others(
    what: str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LoadedVLM:
    """Load a model.

    Args:
        what: folder, or "hub:ORG/NAME@REVISION": only then is the network used, and only for files
            that are not in the local cache.
        device: where the weights go.
        dtype: of the weights in memory.

    Raises:
        CheckpointError: no such folder, nothing that transformers knows without running code, or
            weights that do not fit its configuration; one line.
    """
    folder, name = _fetch(what) if is_on_hub(what) else _local(what)
    local = {"trust_remote_code": False, "local_files_only": True}
    try:
        with quiet_transformers():
            # First, so that code in the folder is refused before anything else is read.
            config = AutoConfig.from_pretrained(folder, **local)
            processor = _load_processor(folder, config, local)
            model, info = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported below, by name
                output_loading_info=True,
                **local,
            )
    except Exception as error:  # the libraries raise a dozen types for a damaged folder
        raise CheckpointError(
            f"{what}: no vision-language model that can be loaded ({text_of(error)}); give the "
            "folder of one that transformers knows, with safetensors"
        ) from None
    for problem in ("missing", "unexpected", "mismatched"):
        keys = sorted(str(k[0] if isinstance(k, tuple) else k) for k in info[f"{problem}_keys"])
        if keys:
            raise CheckpointError(
                f"{what}: {len(keys)} {problem} tensor(s), the first is {keys[0]}; the files do "
                "not belong together, fetch them again"
            )
    check_finite(model, what)
    processor.tokenizer.padding_side = "left"
    # Greedy, and nothing else: Qwen's own settings sample and penalise repetition.
    own = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=_padding(own, processor.tokenizer),
        do_sample=False,
    )
    model.requires_grad_(False)
    hashes = {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for pattern in _FILES
        for path in sorted(folder.glob(pattern))
    }
    return LoadedVLM(name, model.eval().to(device), processor, hashes)


def _local(what: str) -> tuple[Path, str]:
    folder = Path(what).expanduser()
    if not folder.is_dir():
        raise CheckpointError(
            f"{what}: no such folder; give that of a model, or hub:<org>/<name>@<revision>"
        )
    return folder, folder.resolve().name


def _fetch(what: str) -> tuple[Path, str]:
    """The folder in the local cache; what is not in it is downloaded."""
    from huggingface_hub import snapshot_download

    repository, revision = parse_spec(what)
    asked = {"revision": revision, "allow_patterns": list(_FILES)}
    try:
        try:
            folder = snapshot_download(repository, local_files_only=True, **asked)
            found = _is_whole(Path(folder))
        except OSError:  # not in the cache
            found = False
        if not found:
            folder = snapshot_download(repository, **asked)
    except Exception as error:  # of the network, of the hub, of the name
        raise CheckpointError(
            f"{what}: cannot be fetched ({text_of(error)}); check the name, the network, and "
            "whether its licence must be accepted first"
        ) from None
    return Path(folder), repository.rpartition("/")[2]


def _is_whole(folder: Path) -> bool:
    """Whether all weights are there: a download may have been cut short."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / name).is_file() for name in shards)


def _load_processor(folder: Path, config: Any, local: dict[str, Any]) -> Any:
    try:
        return AutoProcessor.from_pretrained(folder, **local)
    except ImportError:
        # Processors that also know videos want torchvision for them; pictures do without.
        cls = PROCESSOR_MAPPING[type(config)]
        if "video_processor" not in cls.get_attributes():
            raise
        return _without_videos(cls).from_pretrained(folder, **local)


def _without_videos(cls: type) -> type:
    """The processor's class with no video processor among its parts."""

    def init(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        cls.__init__(self, image_processor, tokenizer, None, chat_template=chat_template, **kwargs)

    return type(cls.__name__, (cls,), {"__init__": init})


def _padding(own: GenerationConfig, tokenizer: Any) -> int | None:
    for candidate in (own.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return candidate
    return None
