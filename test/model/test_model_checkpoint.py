"""A checkpoint in memory: round trip, adapter, and each corruption's one line."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import LAYERS, base_config, build_model, pictures_for, random_blocks
from transformers import PaliGemmaForConditionalGeneration

from ifailsense_ros.core.checkpoint import (
    CONFIG_FILE,
    BaseModel,
    CheckpointConfig,
    PictureSettings,
    sha256_of,
)
from ifailsense_ros.core.errors import CheckpointError
from ifailsense_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ifailsense_ros.model.vlm import LORA_TARGETS, encode_pictures, encode_prompts, one_pass

PROMPTS = ["<image> evaluate en lift the red block", "<image> evaluate en open"]


def _pass(model, processor):
    pixels = encode_pictures(processor, pictures_for(processor, 2))
    with torch.no_grad():
        return one_pass(model, encode_prompts(processor, PROMPTS), [0, 1, 2], pixel_values=pixels)


def _close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


def _relist(folder: Path) -> None:
    """Hashes of the files as they are now: what a careful vandal would write."""
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["files"] = {
        p.relative_to(folder).as_posix(): sha256_of(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != CONFIG_FILE
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def _edit_tensors(path: Path, edit) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_round_trip(checkpoint):
    model, processor = build_model("dinov2")  # the same seed as the fixture's
    loaded = load_checkpoint(checkpoint)
    before, after = _pass(model, processor), _pass(loaded.model, loaded.processor)
    _close(after.logits, before.logits)
    blocks = random_blocks(loaded.config)
    with torch.no_grad():
        _close(loaded.fs_blocks(after.hidden, after.mask), blocks(before.hidden, before.mask))
    modules = (loaded.model, loaded.fs_blocks)
    assert not any(m.training for module in modules for m in module.modules())
    assert not any(p.requires_grad for module in modules for p in module.parameters())


def test_round_trip_with_a_siglip_tower_and_soft_cap(tmp_path):
    """What Google's base looks like: no CLS token, a soft cap, one square picture."""
    model, processor = build_model("siglip", (28, 28), softcap=50.0)
    model.save_pretrained(tmp_path / "source")
    processor.save_pretrained(tmp_path / "source")
    config = base_config(picture=PictureSettings(28, 28))
    save_checkpoint(
        tmp_path / "siglip", config, base=tmp_path / "source", fs_blocks=random_blocks(config)
    )
    loaded = load_checkpoint(tmp_path / "siglip")
    _close(_pass(loaded.model, loaded.processor).logits, _pass(model, processor).logits)
    assert loaded.model.model.language_model.config._attn_implementation == "eager"


@pytest.mark.parametrize("hub", [True, False])
def test_the_network_is_used_only_for_a_hub_base(checkpoint, monkeypatch, hub):
    asked = {}

    def from_pretrained(source, **settings):
        asked.update(settings, source=source)
        raise OSError("no such\nrepository")

    monkeypatch.setattr(PaliGemmaForConditionalGeneration, "from_pretrained", from_pretrained)
    if hub:
        _settings(checkpoint, base={"folder": None, "hub": "org/name", "revision": "abc"})
    with pytest.raises(CheckpointError, match="no such repository") as error:
        load_checkpoint(checkpoint)
    assert "\n" not in str(error.value)
    assert asked["local_files_only"] is not hub
    assert asked["trust_remote_code"] is False
    assert asked["use_safetensors"] is True
    assert asked["revision"] == ("abc" if hub else None)
    assert asked["source"] == ("org/name" if hub else str(checkpoint / "base"))


def test_every_file_is_listed_and_config_is_returned_as_written(checkpoint, tmp_path):
    config = base_config()
    written = save_checkpoint(
        tmp_path / "again", config, base=checkpoint / "base", fs_blocks=random_blocks(config)
    )
    assert written == CheckpointConfig.from_json(tmp_path / "again")
    on_disk = {
        p.relative_to(tmp_path / "again").as_posix()
        for p in (tmp_path / "again").rglob("*")
        if p.is_file()
    }
    assert on_disk == {*written.files, CONFIG_FILE}
    assert written.model_id == CheckpointConfig.from_json(checkpoint).model_id  # same bytes


def test_without_fs_blocks(checkpoint, tmp_path):
    vote_weights = replace(base_config().vote_weights, fs=())
    config = base_config(hooked_layers=(), vote_weights=vote_weights)
    save_checkpoint(tmp_path / "vlm", config, base=checkpoint / "base")
    assert len(load_checkpoint(tmp_path / "vlm").fs_blocks) == 0


def _adapted(model):
    """A PeftModel with every adapter tensor and the projector changed."""
    settings = LoraConfig(
        r=2, lora_alpha=4, target_modules=LORA_TARGETS, modules_to_save=["multi_modal_projector"]
    )
    adapted = get_peft_model(model, settings).eval()
    with torch.no_grad():
        for p in adapted.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)) * 0.3)
    return adapted


@pytest.fixture
def with_adapter(checkpoint, tmp_path, dino):
    """(folder, what the trainer's PeftModel gives, what the base alone gives)."""
    model, processor = dino
    base = _pass(model, processor)
    model.name_or_path = str(tmp_path / "source")  # as from_pretrained sets it; peft writes it
    adapted = _adapted(model)
    config = base_config()
    folder = tmp_path / "adapted"
    save_checkpoint(
        folder,
        config,
        base=checkpoint / "base",
        adapter=adapted,
        fs_blocks=random_blocks(config),
    )
    return folder, _pass(adapted, processor), base


def test_adapter_is_merged(with_adapter):
    folder, expected, base = with_adapter
    loaded = load_checkpoint(folder)
    ours = _pass(loaded.model, loaded.processor)
    _close(ours.logits, expected.logits)
    _close(ours.hidden[1], expected.hidden[1])
    assert (ours.logits - base.logits).abs().max() > 0.1
    names = [n for n, _ in loaded.model.named_modules()]
    assert not any(mark in n for n in names for mark in ("lora", "base_layer", "modules_to_save"))


def test_adapter_of_the_older_layout(with_adapter):
    """Before transformers 4.52 the names had another order; the authors' adapters have it."""
    folder, expected, _ = with_adapter
    path = folder / "adapter" / "adapter_model.safetensors"
    tensors = {}
    for name, tensor in load_file(path).items():
        name = name.replace("model.model.language_model.", "model.language_model.model.")
        tensors[name.replace("model.model.multi_modal", "model.multi_modal")] = tensor
    save_file(tensors, path, metadata={"format": "pt"})
    _relist(folder)
    loaded = load_checkpoint(folder)
    _close(_pass(loaded.model, loaded.processor).logits, expected.logits)


def test_no_path_of_this_machine_is_written(with_adapter, tmp_path):
    folder, _, _ = with_adapter
    texts = [p.read_text() for p in folder.rglob("*.json")]
    assert len(texts) > 4
    assert not any(str(tmp_path) in t or str(Path.cwd()) in t for t in texts)


def test_replaced_as_a_whole(checkpoint, tmp_path):
    (checkpoint / "left-over.txt").write_text("old")
    config = base_config(name="second")
    save_checkpoint(checkpoint, config, base=tmp_path / "source", fs_blocks=random_blocks(config))
    assert CheckpointConfig.from_json(checkpoint).name == "second"
    assert not (checkpoint / "left-over.txt").exists()
    load_checkpoint(checkpoint)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # no scratch remains


def test_a_failed_save_leaves_the_old_checkpoint(checkpoint, tmp_path):
    before = {p: p.read_bytes() for p in checkpoint.rglob("*") if p.is_file()}
    config = base_config(prompt="no slots")
    with pytest.raises(CheckpointError, match="prompt"):
        save_checkpoint(
            checkpoint, config, base=tmp_path / "source", fs_blocks=random_blocks(config)
        )
    assert {p: p.read_bytes() for p in checkpoint.rglob("*") if p.is_file()} == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_base_or_hub_but_not_both(tmp_path):
    hub = base_config(base=BaseModel(hub="google/paligemma2-3b-mix-224"))
    with pytest.raises(CheckpointError, match="either"):
        save_checkpoint(tmp_path / "x", hub, base=tmp_path)
    with pytest.raises(CheckpointError, match="either"):
        save_checkpoint(tmp_path / "x", base_config())


def test_altered_file(checkpoint):
    path = checkpoint / "base" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"base/model\.safetensors: sha256"):
        load_checkpoint(checkpoint)


def _set(name, value):
    def edit(tensors):
        tensors[name][...] = value

    return edit


def _reshape(name):
    def edit(tensors):
        tensors[name] = tensors[name].repeat(2, *[1] * (tensors[name].dim() - 1))

    return edit


FC = "0.classifier.0.fc.weight"
FS_CORRUPTIONS = [
    (lambda t: t.pop(FC), f"1 missing .* {FC}"),
    (lambda t: t.update(extra=torch.zeros(1)), "1 unknown .* extra"),
    (_reshape(FC), f"1 misshapen .* {FC}"),
    (_set(FC, float("nan")), f"weights {FC} are not finite"),
    (_set("2.classifier.1.norm.running_var", float("inf")), "running_var are not finite"),
]


@pytest.mark.parametrize(("edit", "message"), FS_CORRUPTIONS)
def test_corrupt_fs_blocks(checkpoint, edit, message):
    _edit_tensors(checkpoint / "fs_blocks.safetensors", edit)
    _relist(checkpoint)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(checkpoint)
    assert "\n" not in str(error.value)


GATE = "language_model.model.layers.1.mlp.gate_proj.weight"
BASE_CORRUPTIONS = [
    (lambda t: t.pop(GATE), "1 missing .*model.language_model.layers.1.mlp.gate_proj.weight"),
    (
        lambda t: t.update({"language_model.model.extra": torch.zeros(1)}),
        "1 unknown .*language_model.extra",
    ),
    (_reshape(GATE), "1 misshapen .*layers.1.mlp.gate_proj.weight"),
    (_set(GATE, float("nan")), "gate_proj.weight are not finite"),
]


@pytest.mark.parametrize(("edit", "message"), BASE_CORRUPTIONS)
def test_corrupt_base(checkpoint, edit, message):
    _edit_tensors(checkpoint / "base" / "model.safetensors", edit)
    _relist(checkpoint)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(checkpoint)
    assert "\n" not in str(error.value)


QUERY = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
ADAPTER_CORRUPTIONS = [
    (lambda t: t.pop(QUERY), "1 missing .*q_proj.lora_A"),
    (lambda t: t.update({QUERY.replace(".0.", ".9."): torch.zeros(2, 32)}), "1 unknown"),
    (_set(QUERY, float("nan")), "not finite"),
]


@pytest.mark.parametrize(("edit", "message"), ADAPTER_CORRUPTIONS)
def test_corrupt_adapter(with_adapter, edit, message):
    folder, _, _ = with_adapter
    _edit_tensors(folder / "adapter" / "adapter_model.safetensors", edit)
    _relist(folder)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(folder)
    assert "\n" not in str(error.value)


class _Bomb:
    """Unpickling it would be noticed."""

    def __reduce__(self):
        return (Path.touch, (Path("unpickled-by-the-loader"),))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("base/model.safetensors", "the base cannot be loaded"),
        ("base/config.json", "the base cannot be loaded"),
        ("base/tokenizer.json", "the base cannot be loaded"),
        ("base/processor_config.json", "the base cannot be loaded"),
        ("fs_blocks.safetensors", r"fs_blocks\.safetensors: not readable"),
    ],
)
def test_garbage_files(checkpoint, name, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (checkpoint / name).write_bytes(pickle.dumps(_Bomb()))
    _relist(checkpoint)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(checkpoint)
    assert "\n" not in str(error.value)
    assert not Path("unpickled-by-the-loader").exists()


@pytest.mark.parametrize(
    ("source", "pickled"),
    [
        ("base/model.safetensors", "base/pytorch_model.bin"),
        ("adapter/adapter_model.safetensors", "adapter/adapter_model.bin"),
    ],
)
def test_pickles_are_not_loaded_in_place_of_safetensors(with_adapter, source, pickled):
    folder, _, _ = with_adapter
    torch.save(load_file(folder / source), folder / pickled)
    (folder / source).unlink()
    _relist(folder)
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)


def test_remote_code_is_not_run(checkpoint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = checkpoint / "base" / "config.json"
    config = json.loads(path.read_text())
    code = "open('ran', 'w'); PaliGemmaForConditionalGeneration = PaliGemmaConfig = object\n"
    (checkpoint / "base" / "evil.py").write_text(code)
    config["auto_map"] = {"AutoConfig": "evil.PaliGemmaConfig", "AutoModel": "evil.Model"}
    path.write_text(json.dumps(config))
    _relist(checkpoint)
    load_checkpoint(checkpoint)
    assert not (tmp_path / "ran").exists()


def _settings(folder: Path, **changes) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    for key, value in changes.items():
        config[key] = value
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def test_settings_must_fit_the_base(checkpoint):
    _settings(checkpoint, hooked_layers=[0, 1, LAYERS])
    with pytest.raises(CheckpointError, match="hooked_layers names layer 3, the base has 3"):
        load_checkpoint(checkpoint)
    _settings(checkpoint, hooked_layers=[0, 1, 2], picture={"height": 28, "width": 28})
    with pytest.raises(CheckpointError, match=r"picture is 28x28, .* makes 28x56"):
        load_checkpoint(checkpoint)
    _settings(
        checkpoint,
        picture={"height": 28, "width": 56},
        fs_head={"widths": [16, 8], "pooling_heads": 5, "dropout": 0.1},
    )
    with pytest.raises(CheckpointError, match="pooling_heads 5"):
        load_checkpoint(checkpoint)


def test_bfloat16(checkpoint):
    loaded = load_checkpoint(checkpoint, dtype=torch.bfloat16)
    assert loaded.model.dtype is torch.bfloat16
    out = _pass(loaded.model, loaded.processor)
    with torch.no_grad():
        assert loaded.fs_blocks(out.hidden, out.mask).dtype is torch.float32
