"""`ifailsense label`: verdicts beside LeRobotDatasets that the package itself wrote."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest

from ifailsense_ros.cli import main
from ifailsense_ros.core.arbitration import arbitrate
from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Judgement, Outcome, Vote, VoteValue
from ifailsense_ros.data.readers.lerobot import LerobotReader
from ifailsense_ros.evaluate import label as labelling
from ifailsense_ros.evaluate.baselines.constant import ConstantDetector
from ifailsense_ros.evaluate.label import LerobotSource, label
from ifailsense_ros.evaluate.verdict_sidecar import read_verdicts

pytest.importorskip("av")

READERS = Path(__file__).resolve().parents[1] / "data" / "readers"
PACKAGES = ("lerobot-0.3.3", "lerobot-0.4.4")


class Drawers:
    """SUCCESS where a drawer is asked for; the VLM abstains."""

    model_id = "drawers@0"

    def __init__(self, num_pov: int = 2, num_keyframes: int = 4) -> None:
        montage = MontageSettings(num_keyframes, num_pov, 14, 14)
        self.config = ConstantDetector(Outcome.SUCCESS, montage).config
        self.judged = 0

    def judge(self, episode: Episode) -> Judgement:
        m: MontageSettings = self.config.montage
        assert len(episode.keyframes) == m.num_keyframes
        assert all(len(k.views) == m.num_pov for k in episode.keyframes)
        self.judged += 1
        yes = "drawer" in episode.instruction
        value, p = (VoteValue.SUCCESS, 0.9) if yes else (VoteValue.FAIL, 0.1)
        votes = [Vote(f"fs:{k}", value, p, 1.0) for k in range(3)]
        votes.append(Vote("vlm", VoteValue.ABSTAIN, math.nan, 2.0))
        return arbitrate(votes, self.config.abstain_rule)


@pytest.fixture(params=PACKAGES)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data set that may be written to."""
    return Path(shutil.copytree(READERS / request.param, tmp_path / "set"))


def _label(
    dataset: Path, out: Path, detector: object, settings: dict | None = None, **more: object
):
    source = LerobotSource(dataset)
    return label(source, out, lambda: detector, settings or {}, progress=False, workers=0, **more)


def test_sidecar(dataset: Path, tmp_path: Path) -> None:
    done = _label(dataset, tmp_path / "out", Drawers())
    assert list(done.problems()) == []
    rows = pq.read_table(tmp_path / "out/verdicts.parquet").to_pylist()
    assert [row["episode_index"] for row in rows] == [0, 1, 2]
    assert [row["verdict"] for row in rows] == ["FAILURE", "SUCCESS", "FAILURE"]
    assert [row["p_success"] for row in rows] == [pytest.approx(p) for p in (0.1, 0.9, 0.1)]
    assert [row["own_label"] for row in rows] == [True, True, False]
    assert {row["model_id"] for row in rows} == {"drawers@0"}
    assert [row["length"] for row in rows] == [8, 5, 7]
    assert rows[1]["instruction"] == "open the drawer"
    assert [vote["vote"] for vote in rows[1]["votes"]] == ["SUCCESS"] * 3 + ["ABSTAIN"]
    assert rows[1]["votes"][3] == {
        "source": "vlm",
        "vote": "ABSTAIN",
        "p_success": None,
        "weight": 2.0,
    }
    for row in rows:
        picture = cv2.imread(str(tmp_path / "out" / row["montage"]))
        assert picture.shape == (28, 56, 3)


def test_nothing_is_judged_twice(dataset: Path, tmp_path: Path) -> None:
    first, second = Drawers(), Drawers()
    _label(dataset, tmp_path / "out", first)
    before = (tmp_path / "out/verdicts.parquet").read_bytes()
    done = _label(dataset, tmp_path / "out", second)
    assert (first.judged, second.judged, done.done_before) == (3, 0, 1)
    assert (tmp_path / "out/verdicts.parquet").read_bytes() == before


def test_goes_on_behind_the_last_job(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "EPISODES_A_JOB", 1)

    class Stopped(Drawers):
        def judge(self, episode: Episode) -> Judgement:
            if self.judged == 2:
                raise KeyboardInterrupt
            return super().judge(episode)

    with pytest.raises(KeyboardInterrupt):
        _label(dataset, tmp_path / "out", Stopped())
    assert not (tmp_path / "out/verdicts.parquet").exists()
    rest = Drawers()
    _label(dataset, tmp_path / "out", rest)
    assert rest.judged == 1
    assert sorted(read_verdicts(tmp_path / "out")) == [0, 1, 2]


def test_damaged_episode_costs_itself(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(READERS / "lerobot-0.3.3", tmp_path / "set"))
    video = folder / "videos/chunk-000/observation.images.wrist/episode_000001.mp4"
    whole = video.read_bytes()
    video.write_bytes(whole[:300])
    done = _label(folder, tmp_path / "out", Drawers())
    (problem,) = done.problems()
    assert problem.where == f"{folder}: episode 1"
    assert "copy it again" in problem.what
    assert sorted(read_verdicts(tmp_path / "out")) == [0, 2]
    video.write_bytes(whole)
    assert list(_label(folder, tmp_path / "out", Drawers()).problems()) == []
    assert sorted(read_verdicts(tmp_path / "out")) == [0, 1, 2]


def test_too_few_time_steps(dataset: Path, tmp_path: Path) -> None:
    _label(dataset, tmp_path / "out", Drawers(num_keyframes=6))
    verdicts = read_verdicts(tmp_path / "out")
    short = verdicts[1]
    assert (short.verdict, short.reason, short.p_success) == ("UNKNOWN", "TOO_FEW_KEYFRAMES", None)
    assert short.detail == "5 time steps, 6 keyframes are needed"
    assert (short.montage, short.success) == ("", None)
    assert verdicts[0].verdict == "FAILURE"


def test_other_settings_are_not_mixed(dataset: Path, tmp_path: Path) -> None:
    _label(dataset, tmp_path / "out", Drawers(), {"detector": "a"})
    with pytest.raises(ConfigError, match=r"other settings \(detector; detector a\): name another"):
        _label(dataset, tmp_path / "out", Drawers(), {"detector": "b"})
    with pytest.raises(ConfigError, match=r"other settings \(montages;"):
        _label(dataset, tmp_path / "out", Drawers(), {"detector": "a"}, montages=False)


def test_fewer_cameras_than_the_detector_wants(dataset: Path, tmp_path: Path) -> None:
    source = LerobotSource(dataset, {"gripper": "none"})
    with pytest.raises(ConfigError, match="drawers@0 wants 2 cameras, and only 1"):
        label(source, tmp_path, Drawers, {}, progress=False, workers=0)
    label(source, tmp_path, lambda: Drawers(num_pov=1), {}, progress=False, workers=0)
    assert len(read_verdicts(tmp_path)) == 3


def test_command(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(spec: str, device: str, **settings: object) -> Drawers:
        assert (spec, settings["guard"]) == ("made:drawers", True)
        return Drawers()

    monkeypatch.setattr("ifailsense_ros.evaluate.baselines.load.open_detector", opened)
    command = ["label", str(dataset), "--detector", "made:drawers"]
    assert main([*command, "--keep", "success", "--dry-run"]) == 2
    assert "there are no verdicts yet" in capsys.readouterr().err
    assert not (dataset / "ifailsense").exists()
    assert main(command) == 0
    sidecar = dataset / "ifailsense/verdicts.parquet"
    assert f"{sidecar}: 3 episodes: 0 unknown, 1 success, 2 failure" in capsys.readouterr().out

    there = sorted(tmp_path.rglob("*"))
    assert main([*command, "--drop", "failure", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "keep 1 episodes: 1 success: 1",
        "drop 2 episodes: 2 failure: 0, 2",
    ]
    assert sorted(tmp_path.rglob("*")) == there

    new = tmp_path / "new"
    assert main([*command, "--export", str(new)]) == 2
    assert "has labels of its own (next.success)" in capsys.readouterr().err
    export = [*command, "--export", str(new), "--keep", "failure,unknown", "--replace-labels"]
    assert main(export) == 0
    assert f"{new}: 2 episodes" in capsys.readouterr().out
    read = list(LerobotReader(new))
    assert [(r.success, len(r.stamps_ns)) for r in read] == [(False, 8), (False, 7)]
    assert json.loads((new / "meta/info.json").read_text())["total_episodes"] == 2
    assert main(export) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--keep", "success", "--drop", "failure", "--dry-run"], "give one of them"),
        (["--keep", "success"], "give that, or --dry-run"),
    ],
)
def test_mistakes(
    dataset: Path, capsys: pytest.CaptureFixture, arguments: list[str], says: str
) -> None:
    assert main(["label", str(dataset), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_no_data_set(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert main(["label", str(folder), "--detector", "baseline:always-success"]) == 2
        assert "info.json: is missing" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_unknown_verdict(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["label", str(dataset), "--keep", "perfect"])
    assert "'perfect': give unknown, success, failure" in capsys.readouterr().err
