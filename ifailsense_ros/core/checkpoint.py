"""A checkpoint's settings and files: read strictly, verified by hash, free of torch.

A checkpoint is a folder with `checkpoint.json` (this schema), a base VLM, an optional adapter and
the FS blocks. Nothing in it is ever executed: weights are safetensors only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ifailsense_ros.core.arbitration import ABSTAIN_RULES
from ifailsense_ros.core.errors import CheckpointError, text_of

SCHEMA_VERSION = 1
CONFIG_FILE = "checkpoint.json"
CHECKPOINTS_PACKAGE = "ifailsense_ros.model"
CHECKPOINTS_FOLDER = "checkpoints"


@dataclass(frozen=True)
class BaseModel:
    """Where the VLM is: a sub-folder of the checkpoint, or a repository of the hub.

    Exactly one of `folder` and `hub` is set; `revision` (a commit) belongs to `hub`.
    """

    folder: str | None = None
    hub: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class FSHeadSettings:
    """Shape of every FS block (paper, Sec. IV-B.2). `widths` are the classifier's two widths."""

    widths: tuple[int, ...]
    pooling_heads: int
    dropout: float


@dataclass(frozen=True)
class VoteWeights:
    """omega_k of the FS blocks, shallow to deep, and omega_vlm (paper, Sec. IV-B.2)."""

    fs: tuple[float, ...]
    vlm: float


@dataclass(frozen=True)
class AnswerWords:
    """First tokens of the VLM's answer, stripped and lower-cased, that count as a vote."""

    success: tuple[str, ...]
    fail: tuple[str, ...]


@dataclass(frozen=True)
class MontageSettings:
    """T columns of time, N rows of PoV, each picture squashed to one cell (pixels)."""

    num_keyframes: int
    num_pov: int
    cell_height: int
    cell_width: int


@dataclass(frozen=True)
class PictureSettings:
    """Size in pixels of the picture that the vision tower sees (the montage, squashed)."""

    height: int
    width: int


@dataclass(frozen=True)
class CheckpointConfig:
    """Everything a detector needs to know besides its weights.

    Attributes:
        schema_version: of this file, 1.
        name: e.g. "sim-tiny".
        base: the VLM before post-training.
        adapter: sub-folder of the LoRA adapter, or None.
        fs_blocks: safetensors file of the FS blocks, relative, or None (VLM alone).
        hooked_layers: 0-based decoder layers the FS blocks read, shallow to deep.
        fs_head: shape of the FS blocks.
        vote_weights: omega of the arbitration.
        abstain_rule: what an answer of other words means; one of `ABSTAIN_RULES`.
        answer_words: which answers count.
        prompt: template with "<image>" and "{instruction}".
        montage: geometry of the keyframes' picture.
        picture: size given to the vision tower.
        min_keyframes: fewest distinct keyframes worth judging; the tracker checks it.
        training_data_hash: sha256 over the training data, or "" where unknown.
        metrics: figures measured by whoever trained it; free.
        files: relative path -> sha256 of every other file of the checkpoint.
    """

    schema_version: int
    name: str
    base: BaseModel
    adapter: str | None
    fs_blocks: str | None
    hooked_layers: tuple[int, ...]
    fs_head: FSHeadSettings
    vote_weights: VoteWeights
    abstain_rule: str
    answer_words: AnswerWords
    prompt: str
    montage: MontageSettings
    picture: PictureSettings
    min_keyframes: int
    training_data_hash: str
    metrics: Mapping[str, Any]
    files: Mapping[str, str]

    @classmethod
    def from_json(cls, path: Path | str) -> CheckpointConfig:
        """Read and check `checkpoint.json` (or the folder that holds it).

        Raises:
            CheckpointError: unreadable, another schema version, a missing or unknown key, a value
                of the wrong type or outside its range; names file, field and what to do.
        """
        path = Path(path)
        if path.is_dir():
            path = path / CONFIG_FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(
                f"{path}: no such file; a checkpoint folder holds {CONFIG_FILE}"
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: not readable as JSON ({text_of(error)}); fetch the checkpoint again"
            ) from None
        if not isinstance(data, dict):
            raise CheckpointError(f"{path}: holds {type(data).__name__}, expected an object")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise CheckpointError(
                f"{path}: schema_version is {version!r}, this release reads {SCHEMA_VERSION}; "
                "use the release that made the checkpoint, or convert it"
            )
        config = _build(cls, data, str(path), "")
        _check_ranges(config, str(path))
        return config

    def to_json(self) -> str:
        """The text of `checkpoint.json`; `from_json` of it gives an equal object."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @property
    def short_hash(self) -> str:
        """First 8 hex digits of a sha256 over all settings and file hashes (not the metrics)."""
        content = dataclasses.asdict(self)
        del content["metrics"]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def model_id(self) -> str:
        """E.g. "sim-tiny@1f3a9c02"."""
        return f"{self.name}@{self.short_hash}"

    def verify(self, folder: Path | str) -> None:
        """Compare every listed file with its sha256, and see that no weights are unlisted.

        Raises:
            CheckpointError: a file is missing or altered, or lies unlisted where the base or the
                adapter is read from; names it.
        """
        folder = Path(folder)
        for part in (self.base.folder, self.adapter):
            for path in sorted((folder / part).rglob("*")) if part else ():
                name = path.relative_to(folder).as_posix()
                if path.is_file() and name not in self.files:
                    raise CheckpointError(
                        f"{path}: not listed in {CONFIG_FILE}; remove it, or fetch the checkpoint "
                        "again"
                    )
        for name, expected in self.files.items():
            path = folder / name
            try:
                actual = sha256_of(path)
            except OSError as error:
                raise CheckpointError(
                    f"{path}: listed in {CONFIG_FILE} but not readable ({error.strerror}); "
                    "fetch the checkpoint again"
                ) from None
            if actual != expected:
                raise CheckpointError(
                    f"{path}: sha256 is {actual[:12]}..., {CONFIG_FILE} says {expected[:12]}...; "
                    "the file was altered or cut short, fetch the checkpoint again"
                )


def sha256_of(path: Path | str) -> str:
    """Hex sha256 of a file. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def resolve_checkpoint(spec: str | Path) -> Path:
    """Folder of a checkpoint: the name of one that comes with the package, or a path.

    Never uses the network.

    Raises:
        CheckpointError: neither; lists the names that exist.
    """
    text = str(spec)
    packaged = Path(str(resources.files(CHECKPOINTS_PACKAGE))) / CHECKPOINTS_FOLDER
    is_name = len(Path(text).parts) == 1 and not Path(text).is_absolute()
    if is_name and (packaged / text / CONFIG_FILE).is_file():
        return packaged / text
    if text and Path(text).expanduser().is_dir():
        return Path(text).expanduser()
    names = sorted(p.parent.name for p in packaged.glob(f"*/{CONFIG_FILE}"))
    raise CheckpointError(
        f"detector {text!r}: neither a checkpoint of this package "
        f"({', '.join(names) or 'none is installed'}) nor a folder; give one of these"
    )


def _build(cls: type, data: Mapping[str, Any], file: str, where: str) -> Any:
    """Dataclass `cls` from a JSON object; every key must be there, and no other."""
    hints = typing.get_type_hints(cls)
    missing = [k for k in hints if k not in data]
    unknown = [k for k in data if k not in hints]
    if missing or unknown:
        what = "missing" if missing else "unknown"
        name = where + (missing or unknown)[0]
        fix = "add it" if missing else "remove it, or use the release that knows it"
        raise CheckpointError(f"{file}: {what} field {name}; {fix}")
    return cls(**{k: _convert(data[k], hint, file, where + k) for k, hint in hints.items()})


def _convert(value: Any, hint: Any, file: str, name: str) -> Any:
    """`value` of JSON as the type `hint`, without any coercion but int -> float."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _convert(value, next(a for a in args if a is not type(None)), file, name)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, dict):
            return _build(hint, value, file, f"{name}.")
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(_convert(v, args[0], file, f"{name}[{i}]") for i, v in enumerate(value))
    elif isinstance(value, dict) and not isinstance(hint, type):
        return {k: _convert(v, args[1], file, f"{name}.{k}") for k, v in value.items()}
    elif hint is Any:
        return value
    elif hint is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif type(value) is hint:
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise CheckpointError(f"{file}: field {name} is {value!r}, expected {expected}; correct it")


def _check_ranges(c: CheckpointConfig, file: str) -> None:
    """Conditions between and within fields, each with its own line."""
    k, m, p, words = len(c.hooked_layers), c.montage, c.picture, _words(c)
    hooked, fs, votes = c.hooked_layers, c.fs_blocks, c.vote_weights
    checks = (
        (bool(c.name.strip()), "name", "is empty"),
        ((c.base.folder is None) != (c.base.hub is None), "base", "needs either folder or hub"),
        (c.base.revision is None or c.base.hub is not None, "base.revision", "needs base.hub"),
        (
            (fs is None) == (k == 0),
            "hooked_layers",
            "must be empty without fs_blocks, and only then",
        ),
        (fs is None or fs.endswith(".safetensors"), "fs_blocks", "is no .safetensors file"),
        (all(i >= 0 for i in hooked), "hooked_layers", "holds a negative layer"),
        (list(hooked) == sorted(set(hooked)), "hooked_layers", "must rise"),
        (len(c.fs_head.widths) == 2, "fs_head.widths", "needs two widths"),
        (all(w > 0 for w in c.fs_head.widths), "fs_head.widths", "must be positive"),
        (c.fs_head.pooling_heads > 0, "fs_head.pooling_heads", "must be positive"),
        (0 <= c.fs_head.dropout < 1, "fs_head.dropout", "must be in [0, 1)"),
        (len(votes.fs) == k, "vote_weights.fs", f"needs {k} weights, one a hooked layer"),
        (min((*votes.fs, votes.vlm)) >= 0, "vote_weights", "must not be negative"),
        (sum(votes.fs) + votes.vlm > 0, "vote_weights", "are all zero"),
        (c.abstain_rule in ABSTAIN_RULES, "abstain_rule", f"must be {' or '.join(ABSTAIN_RULES)}"),
        (
            all(w and w == w.strip().lower() for w in words),
            "answer_words",
            "must be lower-case words",
        ),
        (
            bool(c.answer_words.success and c.answer_words.fail),
            "answer_words",
            "needs both answers",
        ),
        (len(set(words)) == len(words), "answer_words", "names a word twice"),
        (c.prompt.count("{instruction}") == 1, "prompt", "needs {instruction} once"),
        (c.prompt.count("<image>") == 1, "prompt", "needs <image> once"),
        (min(m.num_keyframes, m.cell_height, m.cell_width) > 0, "montage", "must be positive"),
        (m.num_pov in (1, 2), "montage.num_pov", "must be 1 or 2"),
        (min(p.height, p.width) > 0, "picture", "must be positive"),
        (1 <= c.min_keyframes <= m.num_keyframes, "min_keyframes", "must be in 1..num_keyframes"),
        (all(_is_inside(n) for n in _paths(c)), "files", "holds a path that leaves the folder"),
        (fs is None or fs in c.files, "files", f"does not list {fs}"),
    )
    for holds, field, text in checks:
        if not holds:
            raise CheckpointError(f"{file}: field {field} {text}; correct it")


def _words(c: CheckpointConfig) -> list[str]:
    return [*c.answer_words.success, *c.answer_words.fail]


def _paths(c: CheckpointConfig) -> list[str]:
    return [p for p in (*c.files, c.base.folder, c.adapter, c.fs_blocks) if p is not None]


def _is_inside(name: str) -> bool:
    path = Path(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts
