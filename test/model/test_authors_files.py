"""Hostile and damaged files of the authors' layout: one line each, nothing run, nothing written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import authors_oracle as oracle
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import build_model

from ifailsense_ros import cli
from ifailsense_ros.core.checkpoint import BaseModel
from ifailsense_ros.core.errors import CheckpointError, ConfigError
from ifailsense_ros.model.authors_adapter import read_adapter
from ifailsense_ros.model.authors_files import read_fs_file
from ifailsense_ros.model.convert import check_made_on, convert, read_base

WIDTH = 32
SMALL = {"widths": (16, 8), "cell": (14, 14), "num_pov": 2, "layers": (0, 1, 2)}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """base/, adapter/ and fs.pt that belong together."""
    folder = tmp_path_factory.mktemp("files")
    model, processor = build_model("siglip", (28, 28))
    model.save_pretrained(folder / "base")
    processor.save_pretrained(folder / "base")
    settings = LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["multi_modal_projector"]
    )
    oracle.save_adapter(get_peft_model(model, settings), folder / "adapter", "before 4.52")
    torch.save(oracle.Heads(WIDTH).file(), folder / "fs.pt")
    return folder


@pytest.fixture(scope="module")
def base(files):
    return read_base(str(files / "base")).model


def _refused(files: Path, tmp_path: Path, fs: Path, adapter: Path, message: str, **changes) -> None:
    """By the whole conversion, in one line, leaving nothing behind."""
    out = tmp_path / "out" / "checkpoint"
    out.parent.mkdir()
    with pytest.raises((CheckpointError, ConfigError), match=message) as error:
        convert(fs, adapter, str(files / "base"), out, **{**SMALL, **changes})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700
    assert not list(out.parent.iterdir())


# --- FS files -------------------------------------------------------------------------------------


def _fc(content: dict) -> dict:
    return content["classifier_1"]


FS_MISTAKES = {
    "no heads' number": (lambda c: c.pop("num_classifiers"), "num_classifiers is missing"),
    "no dropout": (lambda c: c.pop("dropout_rate"), "dropout_rate is missing"),
    "another entry": (lambda c: c.update(optimizer={}), "unknown entry 'optimizer'"),
    "too many heads said": (lambda c: c.update(num_classifiers=4), "is 4, but .* 0, 1, 2;"),
    "too few heads said": (lambda c: c.update(num_classifiers=2), "is 2, but .* 0, 1, 2;"),
    "huge number": (lambda c: c.update(num_classifiers=10**12), "but the file holds"),
    "no number": (lambda c: c.update(num_classifiers="3"), "num_classifiers is '3'"),
    "true": (lambda c: c.update(num_classifiers=True), "num_classifiers is True"),
    "dropout 1": (lambda c: c.update(dropout_rate=1.0), r"dropout_rate is 1.0"),
    "epoch": (lambda c: c.update(epoch="ten"), "epoch is 'ten'"),
    "a head's half": (lambda c: c.pop("classifier_1"), "classifier of head.s. 0, 2; .*incomplete"),
    "no dict": (lambda c: c.update(classifier_1=[1]), "classifier_1 is no dict"),
    "missing": (lambda c: _fc(c).pop("1.fc.weight"), "classifier_1 lacks 1 .* 1.fc.weight"),
    "unknown": (
        lambda c: _fc(c).update({"7.weight": torch.zeros(1)}),
        "classifier_1 has unknown 1 .* 7.weight",
    ),
    "shape": (
        lambda c: _fc(c).update({"0.fc.weight": torch.zeros(17, WIDTH)}),
        r"classifier_1.0.fc.weight has shape \(17, 32\), expected \(16, 32\)",
    ),
    "no tensor": (lambda c: _fc(c).update({"5.bias": 3.0}), "5.bias is float, expected a tensor"),
    "type": (
        lambda c: _fc(c).update({"5.bias": torch.zeros(1, dtype=torch.float64)}),
        "5.bias is of type torch.float64, expected float32 or",
    ),
    "whole numbers": (
        lambda c: _fc(c).update({"5.bias": torch.zeros(1, dtype=torch.int64)}),
        "5.bias is of type torch.int64",
    ),
    "sparse": (
        lambda c: _fc(c).update({"5.bias": torch.zeros(1).to_sparse()}),
        "layout torch.sparse_coo",
    ),
    "NaN": (lambda c: _fc(c)["1.fc.weight"].view(-1)[5].fill_(torch.nan), "1.fc.weight holds NaN"),
    "infinite": (
        lambda c: c["attention_pooling_2"]["alpha"].fill_(torch.inf),
        "attention_pooling_2.alpha holds NaN or infinity",
    ),
    "variance": (lambda c: _fc(c)["0.norm.running_var"].fill_(-1.0), "a negative variance"),
    "another base": (
        lambda c: c.update(oracle.Heads(48).file()),
        "decoder of width 48, this base's is 32; it was made for another base",
    ),
    "two heads": (
        lambda c: (c.clear(), c.update(oracle.Heads(WIDTH, 2).file())),
        "holds 2 head.s., --layers names 3",
    ),
}


@pytest.mark.parametrize("name", list(FS_MISTAKES))
def test_fs_file_with_a_mistake(files, tmp_path, name):
    edit, message = FS_MISTAKES[name]
    content = oracle.Heads(WIDTH).file()
    edit(content)
    torch.save(content, tmp_path / "bad.pt")
    _refused(files, tmp_path, tmp_path / "bad.pt", files / "adapter", message)


def test_fs_file_for_three_where_the_rule_does_not_do(files, tmp_path):
    """Three layers: their rule names one twice."""
    _refused(
        files, tmp_path, files / "fs.pt", files / "adapter", "must rise within 0..2", layers=None
    )


def test_fs_file_of_two_heads_needs_layers(files, tmp_path):
    torch.save(oracle.Heads(WIDTH, 2).file(), tmp_path / "two.pt")
    message = "2 head.s., the authors' rule is for 3; say with --layers"
    _refused(files, tmp_path, tmp_path / "two.pt", files / "adapter", message, layers=None)


def test_fs_file_of_other_widths(files, tmp_path):
    message = r"classifier_0.0.fc.weight has shape \(16, 32\), expected \(1024, 32\)"
    _refused(files, tmp_path, files / "fs.pt", files / "adapter", message, widths=(1024, 256))


def test_half_precision_and_a_scalar_of_one_dimension_are_read(tmp_path):
    """Numbers of other float types are exact in float32; alpha may have been saved as (1,)."""
    content = oracle.Heads(WIDTH).file()
    for part in content.values():
        if isinstance(part, dict):
            for key, tensor in part.items():
                if tensor.is_floating_point():
                    part[key] = tensor.half()
    pooling = content["attention_pooling_0"]
    pooling["alpha"] = pooling["alpha"].reshape(1)
    torch.save(content, tmp_path / "half.pt")
    read = read_fs_file(tmp_path / "half.pt", WIDTH, widths=(16, 8))
    state = read.blocks.state_dict()
    assert state["0.attention_pooling.alpha"].shape == ()
    assert torch.equal(state["1.classifier.0.fc.weight"], _fc(content)["0.fc.weight"].float())
    assert {p.dtype for p in read.blocks.parameters()} == {torch.float32}
    assert read.epoch == 10 and not read.blocks.masks_padding


class _Code:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_the_pickle_is_not_run(files, tmp_path, archive):
    mark, path = tmp_path / "executed", tmp_path / "bad.pt"
    content = {**oracle.Heads(WIDTH).file(), "epoch": _Code(mark)}
    if archive:
        torch.save(content, path)
        message = r"calls posix\.mkdir.*nothing in it was run"
    else:
        path.write_bytes(pickle.dumps(content))
        message = "not made by torch.save .nothing in it was run"
    _refused(files, tmp_path, path, files / "adapter", message)
    assert not mark.exists()
    pickle.loads(pickle.dumps(_Code(mark)))  # the code would have worked
    assert mark.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_pickles_of_every_protocol(files, tmp_path, protocol):
    """In an archive as torch.save makes it, written by hand; torch.save itself uses protocol 2."""
    mark, path = tmp_path / "executed", tmp_path / "bad.pt"
    with zipfile.ZipFile(files / "fs.pt") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                data = pickle.dumps({"epoch": _Code(mark)}, protocol)
            new.writestr(name, data)
    _refused(files, tmp_path, path, files / "adapter", "nothing in it was run")
    assert not mark.exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_cut_short(files, tmp_path, share):
    data = (files / "fs.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: int(share * len(data))])
    _refused(files, tmp_path, tmp_path / "cut.pt", files / "adapter", "cut short, altered")


def test_one_bit_altered(files, tmp_path):
    """torch.load itself does not notice."""
    data = bytearray((files / "fs.pt").read_bytes())
    weight = oracle.Heads(WIDTH).file()["classifier_1"]["0.fc.weight"].numpy().tobytes()
    data[data.find(weight[:64]) + 9] ^= 1
    (tmp_path / "bit.pt").write_bytes(data)
    torch.load(tmp_path / "bit.pt", weights_only=True)
    _refused(files, tmp_path, tmp_path / "bit.pt", files / "adapter", "cut short, altered")


def test_a_member_that_would_grow(files, tmp_path):
    with zipfile.ZipFile(files / "fs.pt") as old, zipfile.ZipFile(tmp_path / "z.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED)
    _refused(files, tmp_path, tmp_path / "z.pt", files / "adapter", "not made by torch.save")


def test_a_member_shorter_than_its_tensor(files, tmp_path):
    with zipfile.ZipFile(files / "fs.pt") as old, zipfile.ZipFile(tmp_path / "s.pt", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:16] if len(data) == WIDTH * WIDTH * 4 else data)
    _refused(files, tmp_path, tmp_path / "s.pt", files / "adapter", "not readable")


def test_other_things_than_a_file_of_ours(files, tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with zipfile.ZipFile(tmp_path / "empty.pt", "w"):
        pass
    for name, message in (
        ("list.pt", "no dict of names"),
        ("script.pt", "script.pt: .*not made by torch.save"),
        ("empty.pt", "empty.pt: not readable"),
        ("absent.pt", "No such file"),
        (".", "Is a directory"),
    ):
        with pytest.raises(CheckpointError, match=message) as error:
            read_fs_file(tmp_path / name, WIDTH)
        assert "\n" not in str(error.value)


# --- adapters -------------------------------------------------------------------------------------


def _copy(files: Path, tmp_path: Path, edit=None, settings=None) -> Path:
    folder = tmp_path / "adapter"
    shutil.copytree(files / "adapter", folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    if edit is not None:
        edit(tensors)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    given = json.loads((folder / "adapter_config.json").read_text()) | (settings or {})
    (folder / "adapter_config.json").write_text(json.dumps(given))
    return folder


LANGUAGE = "base_model.model.language_model.model.layers.1.self_attn.q_proj.lora_A.weight"
TOWER = "base_model.model.vision_tower.vision_model.encoder.layers.1.self_attn.v_proj.lora_B.weight"
PROJECTOR = "base_model.model.multi_modal_projector.linear.bias"
NEWER = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight"
ADAPTER_MISTAKES = {
    "missing": (lambda t: t.pop(LANGUAGE), "lacks 1 .*layers.1.self_attn.q_proj.lora_A"),
    "missing in the tower": (lambda t: t.pop(TOWER), "lacks 1 .*vision_tower"),
    "no projector": (
        lambda t: [t.pop(k) for k in list(t) if "projector" in k],
        "lacks the projector that",
    ),
    "half a projector": (lambda t: t.pop(PROJECTOR), "lacks 1 .*linear.bias"),
    "unknown": (lambda t: t.update({"base_model.model.x": torch.zeros(1)}), "unknown 1 .* is base"),
    "no prefix": (lambda t: t.update({"x.lora_A.weight": torch.zeros(1)}), "unknown 1 .* is x"),
    "not targeted": (
        lambda t: t.update({LANGUAGE.replace("q_proj", "k_proj"): torch.zeros(2, WIDTH)}),
        "target_modules does not name: 1 .*k_proj",
    ),
    "deeper base": (
        lambda t: t.update({LANGUAGE.replace(".1.", ".3."): torch.zeros(2, WIDTH)}),
        "this base does not have: 1 .*layers.3.* made for another base",
    ),
    "shallower base": (
        lambda t: [t.pop(k) for k in list(t) if "layers.2." in k],
        "lacks 4 .*incomplete, or of another base",
    ),
    "wider base": (
        lambda t: t.update({LANGUAGE: torch.zeros(2, 48)}),
        r"has shape \(2, 48\), expected \(2, 32\); the file is of another model",
    ),
    "projector of another base": (
        lambda t: t.update({PROJECTOR: torch.zeros(48)}),
        r"linear.bias has shape \(48,\), expected \(32,\)",
    ),
    "twice": (lambda t: t.update({NEWER: torch.zeros(2, WIDTH)}), "is there twice"),
    "NaN": (lambda t: t[LANGUAGE].fill_(torch.nan), "q_proj.lora_A.weight holds NaN"),
    "NaN in the projector": (lambda t: t[PROJECTOR].fill_(torch.inf), "linear.bias holds NaN"),
    "type": (lambda t: t.update({LANGUAGE: t[LANGUAGE].double()}), "of type torch.float64"),
}


@pytest.mark.parametrize("name", list(ADAPTER_MISTAKES))
def test_adapter_with_a_mistake(files, tmp_path, name):
    edit, message = ADAPTER_MISTAKES[name]
    _refused(files, tmp_path, files / "fs.pt", _copy(files, tmp_path, edit), message)


SETTINGS = [
    ({"peft_type": "IA3"}, "peft_type is not LORA"),
    ({"r": 3}, r"has shape \(2, .*expected \(3,"),
    ({"r": 0}, "r must be a whole number"),
    ({"lora_alpha": None}, "lora_alpha must be a number"),
    ({"target_modules": None}, "target_modules must name modules"),
    ({"target_modules": ["q_proj"]}, "target_modules does not name"),
    ({"target_modules": "("}, "target_modules is no pattern"),
    ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "lacks"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save may hold the projector only"),
    ({"modules_to_save": None}, "a projector that adapter_config.json does not speak of"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights changes the base"),
    ({"use_dora": True}, "use_dora is True"),
    ({"bias": "all"}, "bias is 'all'"),
    ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is"),
    ({"layers_to_transform": [0]}, "layers_to_transform is"),
    ({"some_new_trick": {"x": 1}}, "some_new_trick is"),
    ({"base_model_name_or_path": 3}, "base_model_name_or_path must be a name"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS)
def test_adapter_settings_that_cannot_be_honoured(files, base, tmp_path, settings, message):
    with pytest.raises(CheckpointError, match=message) as error:
        read_adapter(_copy(files, tmp_path, settings=settings), base)
    assert "\n" not in str(error.value)


def test_adapter_files_that_are_damaged(files, base, tmp_path):
    folder = _copy(files, tmp_path)
    path = folder / "adapter_model.safetensors"
    data = path.read_bytes()
    for share in (0.0, 0.3, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: not readable"):
            read_adapter(folder, base)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: not readable .No such"):
        read_adapter(folder, base)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"adapter_config.json: not readable as JSON"):
        read_adapter(folder, base)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"adapter_config.json: holds list, expected"):
        read_adapter(folder, base)


def test_an_adapter_as_a_pickle_is_read_without_running_it(files, base, tmp_path):
    folder = _copy(files, tmp_path)
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(tensors, folder / "adapter_model.bin")
    plain, pickled = read_adapter(files / "adapter", base), read_adapter(folder, base)
    assert plain.tensors.keys() == pickled.tensors.keys()
    assert all(torch.equal(plain.tensors[k], pickled.tensors[k]) for k in plain.tensors)
    torch.save({**tensors, "x": _Code(tmp_path / "executed")}, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"calls posix\.mkdir"):
        read_adapter(folder, base)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("older", [True, False])
def test_targets_given_as_a_pattern(files, base, tmp_path, older):
    """Of the layout that the adapter was trained in; here on the language model alone."""
    inner = r"language_model\.model" if older else r"model\.language_model"
    folder = _copy(
        files,
        tmp_path,
        lambda t: [t.pop(k) for k in list(t) if "vision_tower" in k],
        {"target_modules": rf"{inner}\.layers\.\d+\.self_attn\.(q|v)_proj"},
    )
    adapter = read_adapter(folder, base)
    assert (adapter.language, adapter.vision) == (6, 0)


def test_the_base_that_the_adapter_names(files, base, tmp_path):
    """A pt and a mix base have the same shapes; only the name tells."""
    mix = "google/paligemma2-3b-mix-224"
    named = read_adapter(_copy(files, tmp_path, settings={"base_model_name_or_path": mix}), base)
    check_made_on(named, BaseModel(hub=mix, revision="abc"), tmp_path)
    with pytest.raises(CheckpointError, match="was made on google/paligemma2-3b-mix-224, --base"):
        check_made_on(named, BaseModel(hub="google/paligemma2-3b-pt-224"), tmp_path)


def test_bases_that_are_none(files, tmp_path, capsys):
    other = tmp_path / "bert"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    (other / "model.safetensors").write_bytes(b"")
    (tmp_path / "nothing").mkdir()
    shutil.copytree(files / "base", tmp_path / "unbuildable")
    settings = json.loads((files / "base" / "config.json").read_text())
    settings["text_config"]["hidden_size"] = -32
    (tmp_path / "unbuildable" / "config.json").write_text(json.dumps(settings))
    for name, message in (
        ("bert", "is a bert, no PaliGemma"),
        ("nothing", "holds no .safetensors weights"),
        ("absent", "no such folder, and no repository"),
        ("unbuildable", "unbuildable: is no model"),
    ):
        argv = ["convert", "--fs", str(files / "fs.pt"), "--adapter", str(files / "adapter")]
        argv += ["--base", str(tmp_path / name), "--out", str(tmp_path / "o"), "--num-pov", "1"]
        assert cli.main(argv) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "o").exists()
