"""A peft adapter folder as the authors publish it, brought into this release's layout.

Their adapters name the modules as transformers did before 4.52 (`language_model.model.layers`), or
as it does since (`model.language_model.layers`). Plain target names (`q_proj`, ...) made peft adapt
SigLIP's q/k/v as well: those tensors are part of what their detector computes, so they are kept
and merged like all others, and counted where the user can see it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PaliGemmaForConditionalGeneration

from ifailsense_ros.core.errors import CheckpointError, text_of
from ifailsense_ros.model.authors_files import FLOATS, check_tensor, name_first, read_torch_file
from ifailsense_ros.model.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS

PICKLED_WEIGHTS = "adapter_model.bin"

_PREFIX = "base_model.model."
_LANGUAGE, _VISION, _PROJECTOR = "language_model", "vision_tower", "multi_modal_projector"
_LORA = re.compile(r"(.+)\.lora_(A|B)\.weight")
_MEANT = {
    *("peft_type", "r", "lora_alpha", "use_rslora", "target_modules", "modules_to_save"),
    *("base_model_name_or_path", "init_lora_weights"),
}
_WITHOUT_EFFECT = {
    *("task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout"),
    *("layers_pattern", "megatron_core", "qalora_group_size", "runtime_config"),
}
"""Settings that do not change what a trained adapter computes. Every other one must be off."""
_PLAIN_STARTS = (None, True, False, "gaussian")
"""Other values of init_lora_weights (PiSSA, OLoRA, LoftQ, ...) change the base's own weights."""


@dataclass(frozen=True)
class AuthorsAdapter:
    """An adapter that fits its base exactly.

    Attributes:
        tensors: by the names that this transformers uses.
        settings: peft's, with a pattern that names the adapted modules.
        made_on: the base that its settings name, "" where they name none.
        language, vision: how many modules are adapted in the language model and in the tower.
        projector: whether it brings a projector of its own.
    """

    tensors: Mapping[str, torch.Tensor]
    settings: LoraConfig
    made_on: str
    language: int
    vision: int
    projector: bool

    def save(self, folder: Path) -> None:
        """Write weights and settings as peft does."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(self.tensors), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        self.settings.save_pretrained(str(folder))


def read_adapter(folder: str | Path, base: PaliGemmaForConditionalGeneration) -> AuthorsAdapter:
    """Read an adapter whole, or not at all.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors (or .bin).
        base: what it belongs to; its weights are not looked at and may be on the meta device.

    Raises:
        CheckpointError: unreadable, code in a pickle, settings we cannot honour, tensors that are
            missing, unknown, of another shape or type or not finite, or another base's.
    """
    folder = Path(folder)
    given = _read_settings(folder / ADAPTER_CONFIG)
    where, tensors = _read_tensors(folder)
    modules = {_plain(name): name for name, m in base.named_modules() if isinstance(m, nn.Linear)}
    lora, projector, unknown = {}, {}, set()
    for key, tensor in tensors.items():
        name = _plain(key.removeprefix(_PREFIX))
        if not key.startswith(_PREFIX):
            unknown.add(key)
        elif match := _LORA.fullmatch(name):
            _put(lora, (match[1], match[2]), tensor, f"{where}: {key}")
        elif re.fullmatch(rf"{_PROJECTOR}\.linear\.(weight|bias)", name):
            _put(projector, name, tensor, f"{where}: {key}")
        else:
            unknown.add(key)
    if unknown:
        raise CheckpointError(f"{where}: unknown {name_first(unknown)}; not an adapter we know")
    adapted = _check_modules(lora, _targets(given, modules, folder), modules, where)
    if given["modules_to_save"] and not projector:
        raise CheckpointError(f"{where}: lacks the projector that {ADAPTER_CONFIG} speaks of")
    if projector and not given["modules_to_save"]:
        raise CheckpointError(f"{where}: has a projector that {ADAPTER_CONFIG} does not speak of")

    clean: dict[str, torch.Tensor] = {}
    for (name, half), tensor in lora.items():
        linear = base.get_submodule(modules[name])
        rank = given["r"]
        shape = (rank, linear.in_features) if half == "A" else (linear.out_features, rank)
        key = f"{_PREFIX}{modules[name]}.lora_{half}.weight"
        clean[key] = _clean(tensor, shape, f"{where}: {key}")
    if projector:
        module = modules[f"{_PROJECTOR}.linear"]
        for part, own in base.get_submodule(module).named_parameters():
            if (name := f"{_PROJECTOR}.linear.{part}") not in projector:
                raise CheckpointError(f"{where}: lacks 1 tensor(s), the first is {name}")
            key = f"{_PREFIX}{module}.{part}"
            clean[key] = _clean(projector[name], own.shape, f"{where}: {key}")
    settings = LoraConfig(
        r=given["r"],
        lora_alpha=given["lora_alpha"],
        use_rslora=given["use_rslora"],
        target_modules=_pattern(adapted, modules, where),
        modules_to_save=[_PROJECTOR] if projector else None,
        inference_mode=True,
    )
    vision = sum(name.startswith(_VISION) for name in adapted)
    return AuthorsAdapter(
        dict(sorted(clean.items())),
        settings,
        given["base_model_name_or_path"] or "",
        len(adapted) - vision,
        vision,
        bool(projector),
    )


# --- files ----------------------------------------------------------------------------------------


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        text = error.strerror if isinstance(error, OSError) else text_of(error)
        raise CheckpointError(f"{path}: not readable as JSON ({text}); fetch it again") from None
    if not isinstance(given, dict):
        raise CheckpointError(f"{path}: holds {type(given).__name__}, expected an object")
    usual = LoraConfig().to_dict()
    given = {key: given.get(key, usual[key]) for key in _MEANT} | given
    targets, saved, alpha = (given[k] for k in ("target_modules", "modules_to_save", "lora_alpha"))
    is_number = type(alpha) in (int, float) and math.isfinite(alpha)
    checks = (
        ("peft_type", given["peft_type"] == "LORA", "is not LORA"),
        ("r", type(given["r"]) is int and given["r"] > 0, "must be a whole number > 0"),
        ("lora_alpha", is_number and alpha > 0, "must be a number > 0"),
        ("use_rslora", type(given["use_rslora"]) is bool, "must be true or false"),
        ("target_modules", bool(targets) and _is_names(targets), "must name modules"),
        ("modules_to_save", not saved or _is_projector(saved), "may hold the projector only"),
        ("init_lora_weights", given["init_lora_weights"] in _PLAIN_STARTS, "changes the base"),
        (
            "base_model_name_or_path",
            isinstance(given["base_model_name_or_path"], str | None),
            "must be a name",
        ),
    )
    for field, holds, text in checks:
        if not holds:
            value = text_of(repr(given[field]))
            raise CheckpointError(f"{path}: {field} {text}, it is {value}; we cannot honour that")
    for field in given.keys() - _MEANT - _WITHOUT_EFFECT:
        if given[field] != usual.get(field) and given[field]:
            value = text_of(repr(given[field]))
            raise CheckpointError(
                f"{path}: {text_of(field)} is {value}, which changes what the adapter computes in "
                "a way that is not supported"
            )
    return given


def _is_names(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(name, str) for name in value)
    )


def _is_projector(value: Any) -> bool:
    names = (_PROJECTOR, f"{_PROJECTOR}.linear", "linear")
    return isinstance(value, list) and all(
        isinstance(name, str) and _plain(name) in names for name in value
    )


def _read_tensors(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file() and (folder / PICKLED_WEIGHTS).is_file():
        path = folder / PICKLED_WEIGHTS
        tensors = read_torch_file(path)
        if not isinstance(tensors, dict) or not all(isinstance(k, str) for k in tensors):
            raise CheckpointError(f"{path}: holds no dict of tensors; it is no adapter")
        return path, tensors
    try:
        return path, load_file(path)
    except (OSError, SafetensorError) as error:
        text = error.strerror if isinstance(error, OSError) else None
        raise CheckpointError(
            f"{path}: not readable ({text or text_of(error)}); fetch it again"
        ) from None


def _put(table: dict, key: Any, tensor: Any, where: str) -> None:
    if key in table:
        raise CheckpointError(f"{where} is there twice, in the older and in the newer layout")
    table[key] = tensor


def _clean(tensor: Any, shape: Any, where: str) -> torch.Tensor:
    check_tensor(tensor, shape, FLOATS, where)
    return tensor.detach().clone(memory_format=torch.contiguous_format)


# --- names ----------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    """A name of any layout without the words in which layouts differ."""
    name = name.removeprefix("model.")
    name = re.sub(rf"^{_LANGUAGE}\.model\.", f"{_LANGUAGE}.", name)
    return re.sub(rf"^{_VISION}\.vision_model\.", f"{_VISION}.", name)


def _spellings(plain: str) -> list[str]:
    """A plain name as each layout writes it, for patterns that were written for one of them."""
    tower = plain.replace(f"{_VISION}.", f"{_VISION}.vision_model.", 1)
    older = tower.replace(f"{_LANGUAGE}.", f"{_LANGUAGE}.model.", 1)
    return [f"model.{plain}", f"model.{tower}", older]


def _targets(given: Mapping[str, Any], modules: Mapping[str, str], folder: Path) -> set[str]:
    """Plain names of the modules that peft adapts by these settings."""
    rule = LoraConfig(
        target_modules=given["target_modules"], modules_to_save=given["modules_to_save"]
    )
    try:
        return {plain for plain in modules if any(_names(rule, name) for name in _spellings(plain))}
    except re.error as error:
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG}: target_modules is no pattern ({text_of(error)})"
        ) from None


def _names(rule: LoraConfig, module: str) -> bool:
    """What peft says; it has a third answer besides yes and no, for modules it must not adapt."""
    answer = check_target_module_exists(rule, module)
    return isinstance(answer, bool | re.Match) and bool(answer)


def _check_modules(
    lora: Mapping[tuple[str, str], Any],
    wanted: set[str],
    modules: Mapping[str, str],
    where: Path,
) -> set[str]:
    """Plain names of the adapted modules, after seeing that they are the wanted ones, both halves
    of each.
    """
    found = {name for name, _ in lora}
    if absent := found - modules.keys():
        raise CheckpointError(
            f"{where}: adapts modules that this base does not have: {name_first(absent)}; it was "
            "made for another base"
        )
    if missing := {f"{n}.lora_{half}" for n in wanted for half in "AB" if (n, half) not in lora}:
        raise CheckpointError(
            f"{where}: lacks {name_first(missing)}; the file is incomplete, or of another base"
        )
    if extra := found - wanted:
        raise CheckpointError(
            f"{where}: adapts modules that target_modules does not name: {name_first(extra)}"
        )
    if strange := {n for n in found if not n.startswith((f"{_LANGUAGE}.", f"{_VISION}."))}:
        raise CheckpointError(f"{where}: adapts {name_first(strange)}, which is not supported")
    return found


def _pattern(adapted: set[str], modules: Mapping[str, str], where: Path) -> str:
    """One pattern for `target_modules` that names the adapted modules and no other, whatever the
    layout is.
    """
    parts = []
    for part in (_LANGUAGE, _VISION):
        kinds = {n.rsplit(".", 1)[1] for n in adapted if n.startswith(f"{part}.")}
        if kinds:
            parts.append(rf".*{part}\..*\.({'|'.join(sorted(kinds))})")
    pattern = f"({'|'.join(parts)})"
    if {p for p, name in modules.items() if re.fullmatch(pattern, name)} != adapted:
        raise CheckpointError(f"{where}: adapts only some of the layers, which is not supported")
    return pattern
