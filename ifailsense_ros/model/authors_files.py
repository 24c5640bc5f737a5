"""The authors' FS files: a torch pickle with their K heads, read strictly and never as code.

The layout is a fact of their release; nothing of their code is used. The file is a dict of
`num_classifiers`, `dropout_rate`, perhaps `epoch`, and for each head i the state dicts
`attention_pooling_{i}` and `classifier_{i}`, whose keys are those of our `FSBlock`.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from ifailsense_ros.core.checkpoint import FSHeadSettings
from ifailsense_ros.core.errors import CheckpointError, ConfigError, text_of
from ifailsense_ros.model.fs_block import FSBlock, FSBlocks

WIDTHS = (1024, 256)
"""The classifier's two widths in the authors' files."""
POOLING_HEADS = 4
"""Heads of their pooling's attention; no tensor's shape tells it."""

FLOATS = (torch.float32, torch.float16, torch.bfloat16)

_PARTS = ("attention_pooling", "classifier")
_PART_KEY = re.compile(rf"({'|'.join(_PARTS)})_(0|[1-9]\d{{0,3}})")
_REQUIRED, _OPTIONAL = ("num_classifiers", "dropout_rate"), ("epoch",)


@dataclass(frozen=True)
class AuthorsBlocks:
    """What an FS file holds.

    Attributes:
        blocks: float32, eval mode; they count padding, as the authors' do.
        settings: of every block.
        epoch: of their training; None where the file does not say.
    """

    blocks: FSBlocks
    settings: FSHeadSettings
    epoch: int | None


def release_layers(num_layers: int, count: int = 3) -> tuple[int, ...]:
    """The 0-based decoder layers of the authors' release: its deeper half, the last one always.

    At few layers the rule names one twice; that is the caller's to refuse.
    """
    middle = num_layers // 2
    step = (num_layers - middle) // count
    return (*(middle + i * step for i in range(count - 1)), num_layers - 1)


def read_fs_file(
    path: str | Path,
    width: int,
    *,
    widths: Sequence[int] = WIDTHS,
    pooling_heads: int = POOLING_HEADS,
) -> AuthorsBlocks:
    """Read an FS file whole, or not at all.

    Args:
        path: e.g. "components_epoch_10.pt".
        width: of the base's decoder.
        widths: of the classifier.
        pooling_heads: of the pooling's attention.

    Raises:
        CheckpointError: cut short, altered, code in it, not an FS file, heads that are too few or
            too many, another base's, missing or unknown tensors, wrong shapes or types, NaN.
        ConfigError: heads that do not divide the width.
    """
    path = Path(path)
    content = read_torch_file(path)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path}: holds no dict of names; it is no FS file of the authors")
    count = _count_of(content, path)
    dropout, epoch = content["dropout_rate"], content.get("epoch")
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise CheckpointError(f"{path}: dropout_rate is {dropout!r}, expected a number in [0, 1)")
    if epoch is not None and type(epoch) is not int:
        raise CheckpointError(f"{path}: epoch is {text_of(repr(epoch))}, expected a whole number")
    settings = FSHeadSettings(tuple(widths), pooling_heads, float(dropout))
    try:
        with torch.device("meta"):  # names and shapes, without filling them
            wanted = FSBlock(width, settings).state_dict()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    _check_width(content, width, path)
    state: dict[str, torch.Tensor] = {}
    for i in range(count):
        for part in _PARTS:
            name, prefix = f"{part}_{i}", f"{part}."
            shapes = {k.removeprefix(prefix): t for k, t in wanted.items() if k.startswith(prefix)}
            tensors = _checked(content[name], shapes, f"{path}: {name}")
            state |= {f"{i}.{prefix}{k}": t for k, t in tensors.items()}
    with torch.device("meta"):
        blocks = FSBlocks(count, width, settings, masks_padding=False)
    blocks.load_state_dict(state, assign=True)
    return AuthorsBlocks(blocks.requires_grad_(False).eval(), settings, epoch)


def read_torch_file(path: Path) -> Any:
    """What `torch.save` wrote: tensors and plain containers only; nothing in it is executed.

    Raises:
        CheckpointError: no such file, cut short, altered, or it holds more than that.
    """
    try:
        whole = zipfile.is_zipfile(path) and _is_unaltered(path)
        if not whole:
            with open(path, "rb"):  # a file that is not there has its own line
                pass
            raise CheckpointError(
                f"{path}: cut short, altered, or not made by torch.save (nothing in it was run); "
                "fetch it again"
            )
        foreign = get_unsafe_globals_in_checkpoint(path)
        if foreign:
            raise CheckpointError(
                f"{path}: the pickle calls {text_of(', '.join(foreign))}, which is no tensor "
                "(nothing in it was run); do not trust this file"
            )
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError:  # its text says how to run the file all the same
        raise CheckpointError(
            f"{path}: the pickle holds more than tensors (nothing in it was run); do not trust "
            "this file"
        ) from None
    except Exception as error:  # torch and zipfile raise a dozen types for a damaged file
        text = error.strerror if isinstance(error, OSError) else None
        raise CheckpointError(
            f"{path}: not readable ({text or text_of(error)}); fetch it again"
        ) from None


def check_tensor(tensor: Any, shape: Sequence[int], dtypes: Sequence[torch.dtype], where: str):
    """A plain tensor on the CPU with this shape, one of these types, and finite numbers.

    Raises:
        CheckpointError: it is not; `where` begins the line.
    """
    if not isinstance(tensor, torch.Tensor):
        raise CheckpointError(f"{where} is {type(tensor).__name__}, expected a tensor")
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise CheckpointError(f"{where} is a {tensor.device.type} tensor of layout {tensor.layout}")
    if tuple(tensor.shape) != tuple(shape):
        raise CheckpointError(
            f"{where} has shape {tuple(tensor.shape)}, expected {tuple(shape)}; the file is of "
            "another model, or of other settings"
        )
    if tensor.dtype not in dtypes:
        names = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise CheckpointError(f"{where} is of type {tensor.dtype}, expected {names}")
    if not tensor.isfinite().all():
        raise CheckpointError(f"{where} holds NaN or infinity; fetch the file again")


def name_first(names: Sequence[str] | set[str]) -> str:
    """How many there are, and the first of them."""
    return f"{len(names)} tensor(s), the first is {text_of(sorted(names)[0])}"


def _is_unaltered(path: Path) -> bool:
    """Every member has its checksum. torch.load does not look; torch.save never compresses, so a
    member that would grow on reading is refused unread.
    """
    with zipfile.ZipFile(path) as archive:
        stored = all(m.compress_type == zipfile.ZIP_STORED for m in archive.infolist())
        return stored and archive.testzip() is None


def _count_of(content: Mapping[str, Any], path: Path) -> int:
    """K, after seeing that the file has these heads whole, and nothing else."""
    if missing := [key for key in _REQUIRED if key not in content]:
        raise CheckpointError(f"{path}: {missing[0]} is missing; it is no FS file of the authors")
    heads = {part: set() for part in _PARTS}
    for key in content:
        match = _PART_KEY.fullmatch(key)
        if match is not None:
            heads[match[1]].add(int(match[2]))
        elif key not in (*_REQUIRED, *_OPTIONAL):
            raise CheckpointError(f"{path}: unknown entry {text_of(key)!r}; not an FS file we know")
    count = content["num_classifiers"]
    if type(count) is not int or count < 1:
        raise CheckpointError(f"{path}: num_classifiers is {text_of(repr(count))}, expected >= 1")
    for part, found in heads.items():
        if len(found) != count or found != set(range(len(found))):
            numbers = ", ".join(map(str, sorted(found)[:8])) or "none"
            raise CheckpointError(
                f"{path}: num_classifiers is {count}, but the file holds {part} of head(s) "
                f"{numbers}; the file is incomplete"
            )
    return count


def _check_width(content: Mapping[str, Any], width: int, path: Path) -> None:
    """Another base shows in every shape; say so instead of naming the first of them."""
    pooling = content["attention_pooling_0"]
    query = pooling.get("query") if isinstance(pooling, dict) else None
    if isinstance(query, torch.Tensor) and query.dim() and query.shape[-1] != width:
        raise CheckpointError(
            f"{path}: its heads read a decoder of width {query.shape[-1]}, this base's is {width}; "
            "it was made for another base"
        )


def _checked(
    tensors: Any, wanted: Mapping[str, torch.Tensor], where: str
) -> dict[str, torch.Tensor]:
    """The tensors of one part, with exactly the wanted names, shapes and types; float32."""
    if not isinstance(tensors, dict) or not all(isinstance(key, str) for key in tensors):
        raise CheckpointError(f"{where} is no dict of tensors; the file is damaged")
    if missing := wanted.keys() - tensors.keys():
        raise CheckpointError(f"{where} lacks {name_first(missing)}; fetch the file again")
    if unknown := tensors.keys() - wanted.keys():
        raise CheckpointError(f"{where} has unknown {name_first(unknown)}; not an FS file we know")
    checked = {}
    for name, meta in wanted.items():
        tensor = tensors[name]
        if name == "alpha" and isinstance(tensor, torch.Tensor) and tensor.numel() == 1:
            tensor = tensor.reshape(())  # a scalar, whether saved with a dimension or without
        floating = meta.is_floating_point()
        check_tensor(tensor, meta.shape, FLOATS if floating else (meta.dtype,), f"{where}.{name}")
        if name.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{where}.{name} holds a negative variance; fetch it again")
        checked[name] = tensor.to(meta.dtype).detach().clone(memory_format=torch.contiguous_format)
    return checked
