"""checkpoint.json is read strictly; files are verified; names resolve without the network."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import base_config

from ifailsense_ros.core.calibration import Calibration, GuardSettings, Temperatures
from ifailsense_ros.core.checkpoint import (
    CONFIG_FILE,
    BaseModel,
    CheckpointConfig,
    resolve_checkpoint,
    sha256_of,
)
from ifailsense_ros.core.errors import CheckpointError


def _full() -> CheckpointConfig:
    return base_config(
        base=BaseModel(folder="base"),
        fs_blocks="fs.safetensors",
        files={"fs.safetensors": "00", "base/config.json": "11"},
        metrics={"accuracy": 0.9, "per_category": {"lifting": 0.8}},
    )


def _calibrated() -> CheckpointConfig:
    calibration = Calibration(
        data_hash="22",
        split="validation",
        failures=400,
        successes=400,
        temperatures=Temperatures((1.5, 1.2, 0.9), 1.1, 0.7),
        file="calibration.safetensors",
        guard=GuardSettings(threshold=30.0, rate=0.005, montages=1000),
    )
    config = replace(_full(), schema_version=2, calibration=calibration)
    return replace(config, files={**config.files, calibration.file: "33"})


def _write(folder: Path, data) -> Path:
    path = folder / CONFIG_FILE
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("guard", [True, False])
def test_round_trip(tmp_path, version, guard):
    config = _full() if version == 1 else _calibrated()
    if version > 1 and not guard:
        config = replace(config, calibration=replace(config.calibration, guard=None))
    if version >= 3:
        config = replace(config, schema_version=version, masks_padding=False)
    if version >= 4:
        config = replace(config, spelling="plain")
    path = _write(tmp_path, config.to_json())
    assert CheckpointConfig.from_json(path) == config
    assert CheckpointConfig.from_json(tmp_path) == config


def _edit(data: dict, field: str, value) -> None:
    *parents, last = field.split(".")
    for parent in parents:
        data = data[parent]
    if value is _DELETE:
        del data[last]
    else:
        data[last] = value


_DELETE = object()

MISTAKES = [
    ("schema_version", 5, "schema_version is 5, this release reads 1 to 4"),
    ("calibration", None, "unknown field calibration"),
    ("masks_padding", True, "unknown field masks_padding"),
    ("spelling", "plain", "unknown field spelling"),
    ("schema_version", _DELETE, "schema_version is None"),
    ("schema_version", True, "schema_version is True"),
    ("name", _DELETE, "missing field name"),
    ("name", 3, "field name is 3, expected str"),
    ("name", " ", "field name is empty"),
    ("nmae", "x", "unknown field nmae"),
    ("montage.num_keyframes", _DELETE, "missing field montage.num_keyframes"),
    ("montage.num_keyframes", "4", "field montage.num_keyframes is '4', expected int"),
    ("montage.num_keyframes", True, "montage.num_keyframes is True"),
    ("montage.num_keyframes", 0, "field montage must be positive"),
    ("montage.num_pov", 3, "montage.num_pov must be 1 or 2"),
    ("montage.extra", 1, "unknown field montage.extra"),
    ("montage", [4, 2], "field montage is"),
    ("hooked_layers", 3, "field hooked_layers is 3"),
    ("hooked_layers", [0, "1", 2], r"field hooked_layers\[1\] is '1'"),
    ("hooked_layers", [2, 1, 0], "hooked_layers must rise"),
    ("hooked_layers", [-1, 1, 2], "negative layer"),
    ("hooked_layers", [], "must be empty without fs_blocks"),
    ("hooked_layers", [0, 1], "needs 2 weights"),
    ("fs_blocks", None, "must be empty without fs_blocks"),
    ("fs_blocks", "components.pt", "is no .safetensors file"),
    ("fs_blocks", "other.safetensors", "does not list other.safetensors"),
    ("fs_head.widths", [4], "needs two widths"),
    ("fs_head.dropout", 1.0, r"must be in \[0, 1\)"),
    ("vote_weights.fs", [1, 1, -1], "must not be negative"),
    ("vote_weights.vlm", float("inf"), "vote_weights.vlm is inf"),
    ("abstain_rule", "coin", "must be unknown_unless_unanimous or two_of_three"),
    ("answer_words.fail", [], "needs both answers"),
    ("answer_words.fail", ["Fail"], "lower-case"),
    ("answer_words.fail", ["success"], "names a word twice"),
    ("prompt", "evaluate en {instruction}", "needs <image> once"),
    ("prompt", "<image> evaluate", "needs {instruction} once"),
    ("base", {"folder": None, "hub": None, "revision": None}, "either folder or hub"),
    ("base.revision", "abc", "needs base.hub"),
    ("base.folder", "../elsewhere", "leaves the folder"),
    ("adapter", "/etc", "leaves the folder"),
    ("files", {"fs.safetensors": "00", "../x": "11"}, "leaves the folder"),
    ("files", {"fs.safetensors": 3}, "files.fs.safetensors is 3"),
    ("picture.height", 0, "picture must be positive"),
    ("min_keyframes", 5, r"min_keyframes must be in 1..num_keyframes"),
    ("min_keyframes", 0, r"min_keyframes must be in 1..num_keyframes"),
]


@pytest.mark.parametrize(("field", "value", "message"), MISTAKES)
def test_every_mistake_has_its_line(tmp_path, field, value, message):
    data = json.loads(_full().to_json())
    _edit(data, field, value)
    path = _write(tmp_path, data)
    with pytest.raises(CheckpointError, match=message) as error:
        CheckpointConfig.from_json(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


MISTAKES_OF_CALIBRATION = [
    ("schema_version", 1, "unknown field calibration"),
    ("calibration", _DELETE, "missing field calibration"),
    ("calibration", [], "field calibration is"),
    ("calibration.temperature", 1.0, "unknown field calibration.temperature"),
    ("calibration.failures", 0, "calibration needs failures and successes"),
    ("calibration.failures", 4.5, "calibration.failures is 4.5, expected int"),
    ("calibration.temperatures.fs", [1.0], "calibration.temperatures.fs needs 3"),
    ("calibration.temperatures.vote", 0.0, "calibration.temperatures must be positive"),
    ("calibration.temperatures.vlm", float("nan"), "temperatures.vlm is nan"),
    ("calibration.file", "scores.pkl", "is no .safetensors file"),
    ("calibration.file", "other.safetensors", "does not list other.safetensors"),
    ("calibration.file", "../calibration.safetensors", "leaves the folder"),
    ("calibration.guard.threshold", -1.0, "guard.threshold is negative"),
    ("calibration.guard.threshold", float("inf"), "guard.threshold is inf"),
    ("calibration.guard.rate", 0.0, r"guard.rate must be in \(0, 1\)"),
    ("calibration.guard.montages", 0, "guard.montages must be positive"),
]


@pytest.mark.parametrize(("field", "value", "message"), MISTAKES_OF_CALIBRATION)
def test_every_mistake_of_a_calibration_has_its_line(tmp_path, field, value, message):
    data = json.loads(_calibrated().to_json())
    _edit(data, field, value)
    path = _write(tmp_path, data)
    with pytest.raises(CheckpointError, match=message) as error:
        CheckpointConfig.from_json(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, "nul", "\x00", '{"a": 1}{'])
def test_not_json(tmp_path, text):
    path = _write(tmp_path, text)
    with pytest.raises(CheckpointError, match=CONFIG_FILE):
        CheckpointConfig.from_json(path)


def test_not_text(tmp_path):
    (tmp_path / CONFIG_FILE).write_bytes(b"\xff\xfe\x80")
    with pytest.raises(CheckpointError, match="not readable"):
        CheckpointConfig.from_json(tmp_path)


def test_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        CheckpointConfig.from_json(tmp_path / "nowhere")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(json.loads(_full().to_json()))), _JSON)
def test_nothing_but_checkpoint_error_leaves_the_reader(tmp_path_factory, field, value):
    folder = tmp_path_factory.mktemp("fuzz")
    data = json.loads(_full().to_json()) | {field: value}
    try:
        config = CheckpointConfig.from_json(_write(folder, data))
    except CheckpointError:
        return
    assert json.loads(config.to_json()).keys() == data.keys()


def test_short_hash_follows_settings_and_weights_but_not_figures():
    config = _full()
    assert config.model_id == f"tiny-test@{config.short_hash}"
    assert len(config.short_hash) == 8
    assert replace(config, metrics={}).short_hash == config.short_hash
    assert replace(config, files={"fs.safetensors": "01"}).short_hash != config.short_hash
    assert replace(config, abstain_rule="unknown_unless_unanimous").short_hash != config.short_hash


def test_short_hash_covers_the_calibration():
    config = _calibrated()
    other = replace(config.calibration, temperatures=Temperatures((1.0, 1.0, 1.0), 1.0, 1.0))
    hashes = {
        config.short_hash,
        replace(config, calibration=None).short_hash,
        replace(config, calibration=other).short_hash,
        replace(config, files={**config.files, "calibration.safetensors": "34"}).short_hash,
    }
    assert len(hashes) == 4


def test_the_hash_of_version_1_is_what_it_was_before_there_was_a_version_2():
    content = json.loads(_full().to_json())
    assert "calibration" not in content
    del content["metrics"]
    text = json.dumps(content, sort_keys=True)
    assert _full().short_hash == hashlib.sha256(text.encode()).hexdigest()[:8]


def test_the_hash_of_version_2_is_what_it_was_before_there_was_a_version_3():
    content = json.loads(_calibrated().to_json())
    assert "masks_padding" not in content
    del content["metrics"]
    text = json.dumps(content, sort_keys=True)
    assert _calibrated().short_hash == hashlib.sha256(text.encode()).hexdigest()[:8]
    newer = replace(_calibrated(), schema_version=3)
    assert replace(newer, masks_padding=False).short_hash != newer.short_hash


@pytest.mark.parametrize("version", [1, 2])
def test_a_field_of_a_newer_version_is_not_written_into_an_older_one(tmp_path, version):
    data = json.loads(replace(_full(), schema_version=3, masks_padding=False).to_json())
    data["schema_version"] = version
    if version == 1:
        del data["calibration"]
    with pytest.raises(CheckpointError, match="unknown field masks_padding"):
        CheckpointConfig.from_json(_write(tmp_path, data))


def test_the_hash_of_version_3_is_what_it_was_before_there_was_a_version_4():
    config = replace(_calibrated(), schema_version=3)
    content = json.loads(config.to_json())
    assert "spelling" not in content
    del content["metrics"]
    text = json.dumps(content, sort_keys=True)
    assert config.short_hash == hashlib.sha256(text.encode()).hexdigest()[:8]


def test_an_unknown_spelling_has_its_line(tmp_path):
    config = replace(_calibrated(), schema_version=4, spelling="capitals")
    with pytest.raises(CheckpointError, match="field spelling must be as_given or plain"):
        CheckpointConfig.from_json(_write(tmp_path, config.to_json()))


@pytest.fixture
def listed(tmp_path):
    """A folder with three files, all listed."""
    for name in ("base/config.json", "base/model.safetensors", "fs.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    names = [p for p in tmp_path.rglob("*") if p.is_file()]
    files = {p.relative_to(tmp_path).as_posix(): sha256_of(p) for p in names}
    return tmp_path, replace(_full(), files=files)


def test_verify_accepts_what_is_listed(listed):
    folder, config = listed
    config.verify(folder)


@pytest.mark.parametrize("name", ["base/config.json", "base/model.safetensors", "fs.safetensors"])
def test_verify_names_missing_and_altered_files(listed, name):
    folder, config = listed
    path = folder / name
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(CheckpointError, match=f"{name}: sha256 is .* altered"):
        config.verify(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{name}: listed .* not readable"):
        config.verify(folder)


def test_verify_refuses_unlisted_weights(listed):
    folder, config = listed
    (folder / "base" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: not listed"):
        config.verify(folder)


def test_resolve_takes_a_folder(tmp_path):
    assert resolve_checkpoint(tmp_path) == tmp_path
    assert resolve_checkpoint(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("spec", ["", "no-such-model", "/no/such/folder", "a\nb"])
def test_resolve_lists_what_exists(spec):
    with pytest.raises(CheckpointError, match="neither a checkpoint of this package"):
        resolve_checkpoint(spec)
