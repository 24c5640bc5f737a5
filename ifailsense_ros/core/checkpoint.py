"""A checkpoint's settings and files: read strictly, verified by hash, free of torch.

A checkpoint is a folder with `checkpoint.json` (this schema), a base VLM, an optional adapter and
the FS blocks. Nothing in it is ever executed: weights are safetensors only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ifailsense_ros.core.arbitration import ABSTAIN_RULES
from ifailsense_ros.core.calibration import Calibration
from ifailsense_ros.core.errors import CheckpointError, text_of
from ifailsense_ros.core.prompt import AS_GIVEN, SPELLINGS
from ifailsense_ros.core.strict_json import build

SCHEMA_VERSION = 4
"""Version 1 knew no calibration, 2 no masks_padding, 3 no spelling; they are read as well."""
_ADDED_IN = {"calibration": 2, "masks_padding": 3, "spelling": 4}
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
        schema_version: of this file, 1 to 4.
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
        calibration: see there; None where there is none, as always in version 1.
        masks_padding: whether padding has no weight in the FS blocks' pooling. False in the
            authors' files: there it counts in a batch of several lengths. A detector masks it in
            any case: an episode by itself has none.
        spelling: how it reads an instruction; one of `core.prompt.SPELLINGS`.
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
    calibration: Calibration | None = None
    masks_padding: bool = True
    spelling: str = AS_GIVEN

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
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise CheckpointError(
                f"{path}: schema_version is {version!r}, this release reads 1 to "
                f"{SCHEMA_VERSION}; use the release that made the checkpoint, or convert it"
            )
        for field in _unknown_in(version):
            if field in data:
                raise CheckpointError(
                    f"{path}: unknown field {field}; remove it, or use the release that knows it"
                )
            data[field] = getattr(cls, field)
        config = build(cls, data, str(path))
        _check_ranges(config, str(path))
        return config

    def to_json(self) -> str:
        """The text of `checkpoint.json`; `from_json` of it gives an equal object."""
        return json.dumps(self._as_dict(), indent=2, ensure_ascii=False) + "\n"

    @property
    def short_hash(self) -> str:
        """First 8 hex digits of a sha256 over all settings and file hashes (not the metrics)."""
        content = self._as_dict()
        del content["metrics"]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def _as_dict(self) -> dict[str, Any]:
        content = dataclasses.asdict(self)
        for field in _unknown_in(self.schema_version):  # an older one's hash stays what it was
            del content[field]
        return content

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
        f"({', '.join(names) or 'none is installed'}) nor a folder; give one of these, or "
        "hub:<org>/<name>@<revision>"
    )


def _unknown_in(version: int) -> list[str]:
    """Fields, each with a default, that a schema version does not know."""
    return [field for field, first in _ADDED_IN.items() if version < first]


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
        (c.spelling in SPELLINGS, "spelling", f"must be {' or '.join(SPELLINGS)}"),
        (min(m.num_keyframes, m.cell_height, m.cell_width) > 0, "montage", "must be positive"),
        (m.num_pov in (1, 2), "montage.num_pov", "must be 1 or 2"),
        (min(p.height, p.width) > 0, "picture", "must be positive"),
        (1 <= c.min_keyframes <= m.num_keyframes, "min_keyframes", "must be in 1..num_keyframes"),
        (all(_is_inside(n) for n in _paths(c)), "files", "holds a path that leaves the folder"),
        (fs is None or fs in c.files, "files", f"does not list {fs}"),
        *(
            (
                getattr(c, field) == getattr(CheckpointConfig, field),
                field,
                f"needs schema_version {_ADDED_IN[field]}",
            )
            for field in _unknown_in(c.schema_version)
        ),
        *(() if c.calibration is None else _calibration_checks(c.calibration, k, c.files)),
    )
    for holds, field, text in checks:
        if not holds:
            raise CheckpointError(f"{file}: field {field} {text}; correct it")


def _calibration_checks(
    c: Calibration, k: int, files: Mapping[str, str]
) -> tuple[tuple[bool, str, str], ...]:
    degrees, guard = c.temperatures, c.guard
    return (
        (len(degrees.fs) == k, "calibration.temperatures.fs", f"needs {k}, one a hooked layer"),
        (
            min((*degrees.fs, degrees.vlm, degrees.vote)) > 0,
            "calibration.temperatures",
            "must be positive",
        ),
        (min(c.failures, c.successes) > 0, "calibration", "needs failures and successes"),
        (c.file.endswith(".safetensors"), "calibration.file", "is no .safetensors file"),
        (c.file in files, "files", f"does not list {c.file}"),
        (guard is None or guard.threshold >= 0, "calibration.guard.threshold", "is negative"),
        (guard is None or 0 < guard.rate < 1, "calibration.guard.rate", "must be in (0, 1)"),
        (guard is None or guard.montages > 0, "calibration.guard.montages", "must be positive"),
    )


def _words(c: CheckpointConfig) -> list[str]:
    return [*c.answer_words.success, *c.answer_words.fail]


def _paths(c: CheckpointConfig) -> list[str]:
    calibration = None if c.calibration is None else c.calibration.file
    parts = (*c.files, c.base.folder, c.adapter, c.fs_blocks, calibration)
    return [p for p in parts if p is not None]


def _is_inside(name: str) -> bool:
    path = Path(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts
