"""A checkpoint with one PoV on data, bags and commands of two cameras: the gripper is not used."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_models import base_config, build_model, random_blocks

from ifailsense_ros import cli
from ifailsense_ros.core.checkpoint import MontageSettings, PictureSettings
from ifailsense_ros.core.montage import annotate, compose
from ifailsense_ros.core.verdict import Outcome, Reason
from ifailsense_ros.data.episode_store import EpisodeRow, shard_path, write_shard
from ifailsense_ros.data.experts import episode_of
from ifailsense_ros.data.rosbag import BagTopics
from ifailsense_ros.evaluate.offline import geometry_of, judge_bag
from ifailsense_ros.evaluate.predictions import predict
from ifailsense_ros.model.checkpoint import save_checkpoint
from ifailsense_ros.model.detector import FailSenseDetector, load_detector

SECOND = 10**9
PICTURE = (14, 56)  # one row of four cells
BAG = sorted((Path(__file__).resolve().parents[2] / "bags" / "demo").glob("*/metadata.yaml"))[0]


@pytest.fixture(scope="module")
def exo_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with N = 1 and random weights."""
    folder = tmp_path_factory.mktemp("one")
    model, processor = build_model("dinov2", PICTURE)
    model.save_pretrained(folder / "source")
    processor.save_pretrained(folder / "source")
    config = base_config(
        montage=MontageSettings(4, 1, 14, 14), picture=PictureSettings(*PICTURE), name="exo-only"
    )
    save_checkpoint(
        folder / "exo-only", config, base=folder / "source", fs_blocks=random_blocks(config)
    )
    return folder / "exo-only"


@pytest.fixture(scope="module")
def detector(exo_only: Path) -> FailSenseDetector:
    return load_detector(exo_only, device="cpu")


def stored(index: int = 0, gripper: int = 0) -> EpisodeRow:
    """An episode of two PoV; `gripper` decides what the gripper's pictures show."""
    images = []
    for seed in (index, 1000 + gripper):
        rng = np.random.default_rng(seed)
        pixels = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(4)]
        images += [cv2.imencode(".png", p)[1].tobytes() for p in pixels]
    return EpisodeRow(
        split="dev",
        index=index,
        attempt=0,
        task="lift_red_block",
        negative_task="open_drawer",
        category="made",
        contrast=(),
        phrasing=0,
        instruction="lift the red block",
        negative_instruction="open the drawer",
        outcomes={"lift_red_block": 1, "open_drawer": -1},
        feasible=("lift_red_block", "open_drawer"),
        duration_s=3.0,
        stamps_ns=(0, SECOND, 2 * SECOND, 3 * SECOND),
        images=tuple(images),
        states=np.zeros((2, 3), np.float32),
        generator_version="test",
    )


def test_the_gripper_has_no_part_in_the_verdict(detector: FailSenseDetector) -> None:
    one, other, elsewhere = (
        detector.judge(episode_of(row, 1))
        for row in (stored(0, gripper=0), stored(0, gripper=1), stored(1))
    )
    assert one.outcome in (Outcome.SUCCESS, Outcome.FAILURE)
    assert one == other
    assert one.p_success != elsewhere.p_success


def test_two_views_are_refused_and_not_cut_silently(detector: FailSenseDetector) -> None:
    with pytest.raises(ValueError, match="2 views, the montage has 1 rows"):
        detector.judge(episode_of(stored(), 2))


def test_predictions_on_data_of_two_pov(detector: FailSenseDetector, tmp_path: Path) -> None:
    rows = [stored(0), stored(1)]
    write_shard(shard_path(tmp_path, "dev", 0, 2), rows)
    found = list(predict(detector, tmp_path, "dev", progress=False))
    assert [p.label for p in found] == [True, False] * 2
    for p, row in zip(found[::2], rows, strict=True):
        assert p.p_success == pytest.approx(detector.judge(episode_of(row, 1)).p_success, abs=1e-5)


def test_a_bag_of_two_cameras(detector: FailSenseDetector) -> None:
    (result,) = judge_bag(BAG.parent, detector)
    assert result.verdict.judgement.reason in (Reason.NONE, Reason.VLM_ABSTAINED)
    assert result.episode is not None and result.episode.num_pov == 1
    # Its gripper's topic is not even looked for.
    topics = BagTopics(gripper="/nowhere")
    (again,) = judge_bag(BAG.parent, detector, topics=topics)
    assert again.verdict.judgement == result.verdict.judgement
    assert again.verdict.keyframe_stamps_ns == result.verdict.keyframe_stamps_ns


def test_detect_draws_one_row(
    exo_only: Path,
    detector: FailSenseDetector,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["detect", str(BAG.parent), "--detector", str(exo_only), "--device", "cpu"]
    assert cli.main([*command, "--montage-dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.count("\n") == 1
    (picture,) = tmp_path.iterdir()
    (result,) = judge_bag(BAG.parent, detector)
    geometry = geometry_of(detector)
    montage = compose(result.episode, geometry)
    assert montage.shape == (*PICTURE, 3)
    expected = annotate(montage, result.verdict, geometry)
    assert np.array_equal(cv2.imread(str(picture))[..., ::-1], expected)


def test_check_says_how_many_pov(exo_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--quick", str(exo_only)]) == 0
    assert "N=1 PoV" in capsys.readouterr().out
