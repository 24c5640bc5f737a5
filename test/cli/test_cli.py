"""The `ifailsense` command: what it prints, where, and with which exit status."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from ifailsense_ros import cli
from ifailsense_ros.core.checkpoint import (
    AnswerWords,
    BaseModel,
    FSHeadSettings,
    MontageSettings,
    VoteWeights,
    sha256_of,
)
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import CheckpointError
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Vote, VoteValue

ROOT = Path(__file__).resolve().parents[2]
BAG = ROOT / "bags" / "demo" / "test-00-success"

CONFIG = bare_config(
    "double",
    MontageSettings(4, 2, 84, 84),
    prompt="<image> evaluate en {instruction}",
    words=AnswerWords(("success",), ("fail",)),
    base=BaseModel("base"),
    fs_blocks="fs.safetensors",
    hooked_layers=(1, 2),
    fs_head=FSHeadSettings((4, 2), 1, 0.0),
    vote_weights=VoteWeights((1.0, 1.0), 2.0),
    metrics={"accuracy": 0.9},
)
VOTES = (
    Vote("fs:1", VoteValue.SUCCESS, 0.9, 1.0),
    Vote("fs:2", VoteValue.FAIL, 0.2, 1.0),
    Vote("vlm", VoteValue.ABSTAIN, math.nan, 2.0),
)


class Double:
    """Hands out one judgement."""

    model_id = "double@0"
    config = CONFIG

    def __init__(self, judgement: Judgement) -> None:
        self.judgement = judgement

    def judge(self, episode: Episode) -> Judgement:
        return self.judgement


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Replaces the module that loads detectors (and torch); tells what was asked for."""
    asked: dict[str, object] = {"judgement": Judgement(Outcome.SUCCESS, p_success=0.75)}

    def load_detector(spec: str, **options: object) -> Double:
        asked.update(options, spec=spec)
        if spec == "broken":
            raise CheckpointError("broken: weights.safetensors is missing; fetch it again")
        return Double(asked["judgement"])

    module = SimpleNamespace(load_detector=load_detector)
    monkeypatch.setitem(sys.modules, "ifailsense_ros.model.detector", module)
    return asked


def test_detect_says_what_came_out(loaded: dict, capsys: pytest.CaptureFixture) -> None:
    loaded["judgement"] = Judgement(Outcome.FAILURE, p_success=0.25, votes=VOTES)
    assert cli.main(["detect", str(BAG), "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    assert str(BAG) in out
    assert "FAILURE  p 0.25" in out
    assert "fs 1 0 | vlm ?" in out
    assert (loaded["spec"], loaded["device"]) == ("sim-tiny", "cpu")
    assert (loaded["max_missed_failures"], loaded["guard"]) == (None, True)


def test_detect_passes_promises_on(loaded: dict) -> None:
    rates = ["--max-missed-failures", "0.02", "--max-false-alarms", "0.1"]
    assert cli.main(["detect", str(BAG), *rates, "--no-guard"]) == 0
    names = ("max_missed_failures", "max_false_alarms", "guard")
    assert [loaded[name] for name in names] == [0.02, 0.1, False]


def test_detect_says_why_it_does_not_know(loaded: dict, capsys: pytest.CaptureFixture) -> None:
    loaded["judgement"] = Judgement.unknown(Reason.VLM_ABSTAINED, "they disagree", VOTES)
    assert cli.main(["detect", str(BAG)]) == 0
    assert "UNKNOWN  VLM_ABSTAINED: they disagree" in capsys.readouterr().out


def test_detect_json(loaded: dict, capsys: pytest.CaptureFixture) -> None:
    loaded["judgement"] = Judgement.unknown(Reason.VLM_ABSTAINED, "they disagree", VOTES)
    assert cli.main(["detect", "--json", str(BAG), str(BAG)]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == second
    assert first["verdict"] == "UNKNOWN"
    assert first["reason"] == "VLM_ABSTAINED"
    assert first["p_success"] is None
    assert [v["vote"] for v in first["votes"]] == ["SUCCESS", "FAIL", "ABSTAIN"]
    assert [v["p_success"] for v in first["votes"]] == [0.9, 0.2, None]
    assert len(first["keyframe_stamps_ns"]) == 4
    assert first["instruction"]


def test_detect_writes_montages(
    loaded: dict, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "folder"
    assert cli.main(["detect", str(BAG), "--montage-dir", str(folder)]) == 0
    path = folder / "test-00-success-01.png"
    assert str(path) in capsys.readouterr().out
    picture = cv2.imread(str(path))
    assert picture.shape[0] > 336
    assert picture.shape[1] >= 672
    green = picture[1, 1]  # the frame's colour, BGR
    assert green[1] > 1.5 * max(green[0], green[2])
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000  # a photograph, not a blank


def test_a_bad_bag_costs_one_line_and_the_others_are_judged(
    loaded: dict, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(BAG, broken)
    storage = next(broken.glob("*.mcap"))
    storage.write_bytes(storage.read_bytes()[:5000])
    assert cli.main(["detect", str(tmp_path / "none"), str(broken), str(BAG)]) == 2
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("ifailsense: ")
    assert "no such bag" in lines[0]
    assert "damaged or was cut off" in lines[1]


@pytest.mark.parametrize("name", ["exo", "gripper", "episode"])
def test_missing_topic_is_named(loaded: dict, capsys: pytest.CaptureFixture, name: str) -> None:
    assert cli.main(["detect", str(BAG), f"--{name}-topic", "/nobody/home"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "/nobody/home is missing (there are: /episode, /exo/image/compressed" in err


def test_detector_that_cannot_be_loaded(loaded: dict, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["detect", str(BAG), "--detector", "broken"]) == 2
    assert capsys.readouterr().err == (
        "ifailsense: broken: weights.safetensors is missing; fetch it again\n"
    )


def test_montage_folder_that_cannot_be_made(
    loaded: dict, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["detect", str(BAG), "--montage-dir", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.startswith("ifailsense: --montage-dir")


def _checkpoint(folder: Path) -> Path:
    folder.mkdir()
    (folder / "fs.safetensors").write_bytes(b"weights")
    files = {"fs.safetensors": sha256_of(folder / "fs.safetensors")}
    (folder / "checkpoint.json").write_text(dataclasses.replace(CONFIG, files=files).to_json())
    return folder


def test_check(loaded: dict, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "double")
    assert cli.main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("double@")
    assert "T=4" in out
    assert "layer 1 (weight 1), layer 2 (weight 1); VLM weight 2" in out
    assert "accuracy" in out
    assert "loads      yes" in out
    assert "calibrated no" in out
    assert loaded["spec"] == folder


def test_check_quick_does_not_load(
    loaded: dict, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert cli.main(["check", "--quick", str(_checkpoint(tmp_path / "double"))]) == 0
    assert "spec" not in loaded


def test_check_of_another_schema(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "double")
    path = folder / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 7}))
    assert cli.main(["check", str(folder)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "schema_version is 7" in err


def test_check_of_an_altered_file(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path / "double")
    (folder / "fs.safetensors").write_bytes(b"others")
    assert cli.main(["check", str(folder)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "fs.safetensors: sha256 is" in err


def test_check_of_nothing(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["check", "no-such-thing"]) == 2
    assert capsys.readouterr().err.startswith("ifailsense: detector 'no-such-thing'")


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (["sim", "record-bag"], "ifailsense_ros.sim.record_bag"),
        (["sim", "record"], "ifailsense_ros.sim.record"),
        (["sim", "record-failures"], "ifailsense_ros.sim.record_failures"),
        (["train"], "ifailsense_ros.train.run"),
    ],
)
def test_arguments_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, words: list[str], module: str
) -> None:
    got: list[list[str]] = []

    def main(argv: list[str]) -> int:
        got.append(argv)
        return 5

    monkeypatch.setitem(sys.modules, module, SimpleNamespace(main=main))
    assert cli.main([*words, "--out", "x", "--help"]) == 5
    assert got == [["--out", "x", "--help"]]


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")

    monkeypatch.setattr(cli, "import_module", missing)
    assert cli.main(["sim", "record-bag"]) == 2
    assert capsys.readouterr().err == (
        "ifailsense: the simulator needs MuJoCo: pip install '.[sim]' in the checkout\n"
    )


def test_a_bug_is_not_dressed_up_as_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'oops'", name="oops")

    monkeypatch.setattr(cli, "import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["train"])


def test_ctrl_c(loaded: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ifailsense_ros.evaluate.offline.judge_bag", interrupted)
    assert cli.main(["detect", str(BAG)]) == 130


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["detect"], ["sim"]])
def test_usage_errors(argv: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    assert "usage: ifailsense" in capsys.readouterr().err


def test_help_starts_at_once_and_names_everything() -> None:
    """In a process of its own: without torch, rclpy or mujoco."""
    code = (
        "import sys; from ifailsense_ros.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'rclpy', 'mujoco', 'cv2') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in ("detect", "check", "sim", "train"):
        assert name in run.stdout
    assert run.stdout.splitlines()[-1] == "[]"


def test_nobody_reads_on(tmp_path: Path) -> None:
    """`ifailsense ... | head`: no traceback, also not from the interpreter's last flush."""
    folder = _checkpoint(tmp_path / "double")
    command = f"{sys.executable} -u -m ifailsense_ros.cli check --quick {folder} | true"
    run = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert run.stderr == ""


@pytest.mark.slow
def test_packaged_checkpoint_on_the_committed_bags(capsys: pytest.CaptureFixture) -> None:
    """The real detector, offline: as the demo, at least 10 of 12 verdicts are the truth."""
    bags = sorted(p.parent for p in BAG.parent.glob("*/truth.yaml"))
    assert len(bags) == 12
    assert cli.main(["detect", "--json", *map(str, bags)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["bag"] for row in rows] == [str(bag) for bag in bags]
    truths = [
        yaml.safe_load((bag / "truth.yaml").read_text(encoding="utf-8"))["truth"].upper()
        for bag in bags
    ]
    right = sum(row["verdict"] == truth for row, truth in zip(rows, truths, strict=True))
    assert right >= 10, rows
