"""The authors' published files as a checkpoint of ours: everything is checked, then written."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
)

from ifailsense_ros.core.checkpoint import (
    CONFIG_FILE,
    SCHEMA_VERSION,
    AnswerWords,
    BaseModel,
    CheckpointConfig,
    MontageSettings,
    PictureSettings,
    VoteWeights,
    sha256_of,
)
from ifailsense_ros.core.errors import CheckpointError, ConfigError, text_of
from ifailsense_ros.model.authors_adapter import PICKLED_WEIGHTS, AuthorsAdapter, read_adapter
from ifailsense_ros.model.authors_files import (
    POOLING_HEADS,
    WIDTHS,
    AuthorsBlocks,
    read_fs_file,
    release_layers,
)
from ifailsense_ros.model.checkpoint import ADAPTER_WEIGHTS, save_checkpoint
from ifailsense_ros.model.hub import cached_commit
from ifailsense_ros.model.quiet import quiet_transformers

PROMPT = "<image> evaluate en {instruction}"
ANSWERS = AnswerWords(success=("success", "1", "pass"), fail=("fail", "0", "failure"))
FS_WEIGHT, VLM_WEIGHT = 1.0, 2.0
ABSTAIN_RULE = "two_of_three"
NUM_KEYFRAMES = 4
CELL = (224, 224)
"""Views are kept at this size (pixels, height and width); the whole montage is squashed later."""

_BASE_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.jinja")
_HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class BaseShape:
    """A base without its weights.

    Attributes:
        model: on the meta device.
        picture: (height, width) in pixels of what its vision tower sees.
        origin: repository and commit; None for a folder.
        folder: None for a repository.
    """

    model: PaliGemmaForConditionalGeneration
    picture: tuple[int, int]
    origin: BaseModel | None
    folder: Path | None

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return self.model.config.get_text_config().num_hidden_layers

    @property
    def width(self) -> int:
        """Of the decoder."""
        return self.model.config.get_text_config().hidden_size


@dataclass(frozen=True)
class Converted:
    """What was written, and from what."""

    config: CheckpointConfig
    blocks: AuthorsBlocks
    adapter: AuthorsAdapter


def convert(
    fs: str | Path,
    adapter: str | Path,
    base: str,
    out: str | Path,
    *,
    name: str | None = None,
    num_pov: int | None = None,
    num_keyframes: int = NUM_KEYFRAMES,
    cell: tuple[int, int] = CELL,
    layers: Sequence[int] | None = None,
    widths: Sequence[int] = WIDTHS,
    pooling_heads: int = POOLING_HEADS,
) -> Converted:
    """Write a checkpoint from the authors' FS file and adapter; what is wrong with one of them is
    found before anything is written.

    Args:
        fs: their FS file.
        adapter: their peft adapter's folder.
        base: a folder, which is copied into the checkpoint, or a repository of the hub, which the
            checkpoint will name ("google/paligemma2-3b-mix-224", perhaps with @revision).
        out: folder to write; a checkpoint that is there is replaced.
        name: of the checkpoint; default: of the folder.
        num_pov: N; default: what "1p" or "2p" in the name of file or adapter says.
        num_keyframes: T.
        cell: (height, width) of one view in the montage, pixels.
        layers: decoder layers of the heads; default: the authors' rule, which is for three.
        widths, pooling_heads: of the heads.

    Raises:
        CheckpointError, ConfigError: the files, or what was asked for.
    """
    fs, adapter, out = Path(fs), Path(adapter), Path(out)
    if out.exists() and not (out / CONFIG_FILE).is_file():
        raise ConfigError(f"--out {out}: exists and is no checkpoint; name another folder")
    num_pov = num_pov or pov_in_names(fs, adapter)
    shape = read_base(base)
    blocks = read_fs_file(fs, shape.width, widths=widths, pooling_heads=pooling_heads)
    hooked = _layers(layers, len(blocks.blocks), shape.num_layers, fs)
    lora = read_adapter(adapter, shape.model)
    if shape.origin is not None:
        check_made_on(lora, shape.origin, adapter)
    weights = adapter / ADAPTER_WEIGHTS
    config = CheckpointConfig(
        schema_version=SCHEMA_VERSION,
        name=name or out.resolve().name,
        base=shape.origin or BaseModel(),
        adapter=None,
        fs_blocks=None,
        hooked_layers=hooked,
        fs_head=blocks.settings,
        vote_weights=VoteWeights(fs=(FS_WEIGHT,) * len(hooked), vlm=VLM_WEIGHT),
        abstain_rule=ABSTAIN_RULE,
        answer_words=ANSWERS,
        prompt=PROMPT,
        montage=MontageSettings(num_keyframes, num_pov, *cell),
        picture=PictureSettings(*shape.picture),
        min_keyframes=min(3, num_keyframes),
        training_data_hash="",
        metrics={
            "converted_from": {
                "fs_file": fs.name,
                "fs_sha256": sha256_of(fs),
                "fs_epoch": blocks.epoch,
                "adapter_sha256": sha256_of(
                    weights if weights.is_file() else adapter / PICKLED_WEIGHTS
                ),
                "adapter_made_on": lora.made_on,
            }
        },
        files={},
        masks_padding=False,
    )
    try:
        with tempfile.TemporaryDirectory() as scratch, _weights_and_settings(shape.folder) as kept:
            lora.save(Path(scratch))
            config = save_checkpoint(
                out, config, base=kept, adapter=Path(scratch), fs_blocks=blocks.blocks
            )
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written ({error.strerror or error})") from None
    return Converted(config, blocks, lora)


def read_base(base: str) -> BaseShape:
    """The shape of a base: its weights are neither read nor fetched.

    Raises:
        CheckpointError: neither a folder nor a repository that can be fetched, or no PaliGemma.
    """
    folder = Path(base).expanduser()
    match = _HUB_NAME.fullmatch(base)
    if folder.is_dir():
        if not any(folder.glob("*.safetensors")):
            raise CheckpointError(f"--base {folder}: holds no .safetensors weights; fetch it again")
        config, processor = _read_settings(str(folder), None, network=False)
        return BaseShape(_meta(config, base), _picture(processor), None, folder)
    if match is None:
        raise CheckpointError(
            f"--base {text_of(base)}: no such folder, and no repository (owner/name) either"
        )
    source, revision = match.groups()
    try:
        config, processor = _read_settings(source, revision, network=False)
    except CheckpointError:
        config, processor = _read_settings(source, revision, network=True)
    origin = BaseModel(hub=source, revision=cached_commit(source, revision) or revision)
    return BaseShape(_meta(config, base), _picture(processor), origin, None)


def pov_in_names(*paths: Path) -> int:
    """N, from the "1p" or "2p" in the authors' names, e.g. FailSense-Calvin-2p-3b.

    Raises:
        ConfigError: they say nothing, or contradict each other.
    """
    names = [part for path in paths for part in path.absolute().parts[-2:]]
    found = {
        int(n) for name in names for n in re.findall(r"(?<![A-Za-z0-9])([12])p(?![a-z])", name)
    }
    if len(found) != 1:
        raise ConfigError("the files' names do not say how many views there are: give --num-pov")
    return found.pop()


def _read_settings(
    source: str, revision: str | None, *, network: bool
) -> tuple[PaliGemmaConfig, PaliGemmaProcessor]:
    place = {"revision": revision, "local_files_only": not network, "trust_remote_code": False}
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(source, **place)
            if not isinstance(config, PaliGemmaConfig):
                raise CheckpointError(f"--base {source}: is a {config.model_type}, no PaliGemma")
            return config, PaliGemmaProcessor.from_pretrained(source, **place)
    except CheckpointError:
        raise
    except Exception as error:  # the libraries raise a dozen types for a damaged folder
        raise CheckpointError(f"--base {source}: cannot be read ({text_of(error)})") from None


def _meta(config: PaliGemmaConfig, base: str) -> PaliGemmaForConditionalGeneration:
    try:
        with torch.device("meta"), quiet_transformers():
            return PaliGemmaForConditionalGeneration(config).eval()
    except Exception as error:  # nonsense in config.json
        raise CheckpointError(f"--base {base}: is no model ({text_of(error)})") from None


def _picture(processor: PaliGemmaProcessor) -> tuple[int, int]:
    size = processor.image_processor.size
    return size["height"], size["width"]


def _layers(layers: Sequence[int] | None, count: int, num_layers: int, fs: Path) -> tuple[int, ...]:
    if layers is None:
        if count != 3:
            raise CheckpointError(
                f"{fs}: holds {count} head(s), the authors' rule is for 3; say with --layers which "
                "decoder layers they read"
            )
        layers = release_layers(num_layers)
    if len(layers) != count:
        raise CheckpointError(f"{fs}: holds {count} head(s), --layers names {len(layers)}")
    if list(layers) != sorted({i for i in layers if 0 <= i < num_layers}):
        raise CheckpointError(
            f"layers {', '.join(map(str, layers))}: must rise within 0..{num_layers - 1}, the "
            "decoder layers of this base; name others with --layers"
        )
    return tuple(layers)


def check_made_on(lora: AuthorsAdapter, origin: BaseModel, adapter: Path) -> None:
    """An adapter fits any base of the same shape (pt and mix, say), and is wrong on all but one.

    Raises:
        CheckpointError: it names another repository.
    """
    match = _HUB_NAME.fullmatch(lora.made_on)
    if match is not None and match[1].lower() != origin.hub.lower():
        raise CheckpointError(
            f"{adapter}: was made on {match[1]}, --base names {origin.hub}; give the right one"
        )


@contextmanager
def _weights_and_settings(folder: Path | None) -> Iterator[Path | None]:
    """A base's weights, settings and tokenizer as links in a folder of their own: nothing else of
    its folder (pickles, code) gets into a checkpoint.
    """
    if folder is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as scratch:
        for pattern in _BASE_FILES:
            for path in folder.glob(pattern):
                if path.is_file():
                    (Path(scratch) / path.name).symlink_to(path.resolve())
        yield Path(scratch)
