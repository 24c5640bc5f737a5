"""Raw DROID, written with h5py and OpenCV as its recorder and its post-processing do."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.readers.droid import DroidReader
from ifailsense_ros.data.readers.video_frames import VideoFrames
from ifailsense_ros.data.records import EXPERT

h5py = pytest.importorskip("h5py")

SERIALS = {"ext1": "22008760", "ext2": "24400334", "wrist": "18026681"}
START_MS = 1_701_700_000_000
ID = "IRIS+ef107c48+2023-03-07-16h-19m-59s"


def write_video(path: Path, frames: Sequence[np.ndarray]) -> None:
    """MP4 as DROID's svo_to_mp4 writes it: mp4v, and 60 frames a second whatever the truth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 60, (width, height))
    assert out.isOpened()
    for frame in frames:
        out.write(frame[..., ::-1])
    out.release()


def write_droid(
    folder: Path,
    videos: dict[str, Sequence[np.ndarray]],
    stamps_ms: Sequence[int],
    *,
    sidecars: bool = False,
    **metadata: Any,
) -> Path:
    """One episode; `videos` and stamps by camera name (ext1, ext2, wrist)."""
    folder.mkdir(parents=True)
    episode_id = metadata.pop("uuid", ID)
    content = {
        "uuid": episode_id,
        "lab": "IRIS",
        "user": "somebody",
        "date": "2023-03-07",
        "building": "Gates",
        "scene_id": 4021338,
        "success": True,
        "current_task": "Move object into or out of container",
        "trajectory_length": len(stamps_ms),
        **{f"{camera}_cam_serial": serial for camera, serial in SERIALS.items()},
        **metadata,
    }
    (folder / f"metadata_{episode_id}.json").write_text(json.dumps(content))
    with h5py.File(folder / "trajectory.h5", "w") as file:
        file.attrs["current_task"] = content["current_task"]
        file["action/joint_position"] = np.zeros((len(stamps_ms), 7))
        for serial in SERIALS.values():
            stem = f"observation/timestamp/cameras/{serial}"
            file[f"{stem}_frame_received"] = np.array(stamps_ms, np.int64)
            file[f"{stem}_estimated_capture"] = np.array(stamps_ms, np.int64) - 41
    for camera, frames in videos.items():
        path = folder / "recordings" / "MP4" / f"{SERIALS[camera]}.mp4"
        write_video(path, frames)
        if sidecars:
            stamps = [int(s) for s in stamps_ms[: len(frames)]]
            path.with_name(f"{path.stem}_timestamps.json").write_text(json.dumps(stamps))
    return folder


def coded(number: int, camera: int) -> np.ndarray:
    """A picture with its frame number and camera in wide black and white bars: MP4 keeps them."""
    picture = np.zeros((72, 128, 3), np.uint8)
    for bit in range(8):
        if (number | camera << 6) >> bit & 1:
            picture[:, bit * 16 : (bit + 1) * 16] = 255
    return picture


def code_of(picture: np.ndarray) -> tuple[int, int]:
    bits = sum(int(picture[36, bit * 16 + 8].mean() > 127) << bit for bit in range(8))
    return bits & 63, bits >> 6


CAMERAS = ("ext1", "ext2", "wrist")


@pytest.fixture(scope="module")
def whole_droid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A success and a failure, 30 steps of about 66 ms."""
    root = tmp_path_factory.mktemp("droid") / "1.0.1"
    stamps = [START_MS + 67 * i - i // 3 for i in range(30)]
    videos = {c: [coded(i, n) for i in range(30)] for n, c in enumerate(CAMERAS)}
    day = "2023-03-07"
    write_droid(root / "IRIS" / "success" / day / "Tue_Mar__7_16_19_59_2023", videos, stamps)
    write_droid(
        root / "IRIS" / "failure" / day / "Tue_Mar__7_16_30_00_2023",
        videos,
        stamps,
        uuid="IRIS+ef107c48+2023-03-07-16h-30m-00s",
        success=False,
        current_task="Close the drawer.",
        scene_id=-1,
    )
    return root


@pytest.fixture
def droid(whole_droid: Path, tmp_path: Path) -> Path:
    """A copy of it to do harm to."""
    return Path(shutil.copytree(whole_droid, tmp_path / "droid_raw" / "1.0.1"))


def success_of(droid: Path) -> Path:
    return next((droid / "IRIS" / "success").glob("*/*"))


def test_episodes(droid: Path) -> None:
    reader = open_reader(f"droid:{droid}")
    failure, success = list(reader)
    assert (success.key, success.source) == (ID, "droid")
    assert (success.success, success.kind) == (True, EXPERT)
    assert (failure.success, failure.kind) == (False, "")
    assert success.instruction == "Move object into or out of container"
    assert (success.task, success.category) == (success.instruction.lower(), "placing")
    assert (failure.instruction, failure.category) == ("Close the drawer.", "opening_closing")
    assert failure.task == ""  # what was done instead is not known
    assert success.group == "IRIS/scene-4021338"
    assert failure.group == "IRIS/2023-03-07"
    assert success.stamps_ns[:2] == (START_MS * 10**6, (START_MS + 67) * 10**6)
    assert (len(success.stamps_ns), success.num_pov) == (30, 2)


@pytest.mark.parametrize(("exo", "camera"), [("ext1", 0), ("ext2", 1)])
def test_keyframes_of_the_right_cameras(droid: Path, exo: str, camera: int) -> None:
    *_, record = open_reader(f"droid:{droid}?exo={exo}")
    episode = record.episode(4, 2)
    codes = [[code_of(view) for view in k.views] for k in episode.keyframes]
    assert codes == [[(i, camera), (i, 2)] for i in (0, 10, 19, 29)]
    assert episode.keyframe_stamps_ns == tuple(record.stamps_ns[i] for i in (0, 10, 19, 29))


def test_no_such_camera(droid: Path) -> None:
    with pytest.raises(ConfigError, match="ext1 and ext2"):
        DroidReader(droid, exo="left")
    with pytest.raises(ConfigError, match=r"droid has no option 'camera': it has annotations, exo"):
        open_reader(f"droid:{droid}?camera=ext1")


def test_any_folder_of_it_can_be_given(droid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episode = success_of(droid)
    for folder in (droid / "IRIS", droid / "IRIS" / "success", episode.parent, episode):
        assert ID in [r.key for r in DroidReader(folder)]
    monkeypatch.chdir(episode.parent)
    assert [(r.key, r.success) for r in DroidReader(".")] == [(ID, True)]


@pytest.mark.parametrize(
    "name", ["aggregated-annotations-030724.json", "droid_language_annotations.json"]
)
def test_sentences_of_the_annotators(droid: Path, name: str) -> None:
    path = droid / name
    path.write_text(
        json.dumps(
            {
                ID: {
                    "language_instruction1": " ",
                    "language_instruction2": "Put the marker in the cup",
                    "language_instruction3": "Place the pen in the mug",
                }
            }
        )
    )
    # Found above the folder that is read, too.
    for reader in (
        DroidReader(droid),
        DroidReader(success_of(droid).parent),
        DroidReader(droid, annotations=path),
    ):
        *_, record = reader
        assert record.instruction == "Put the marker in the cup"
        assert (record.task, record.category) == ("put the marker in the cup", "placing")
    path.write_text("[]")
    for keep_going in (False, True):  # it concerns every episode
        with pytest.raises(DataError, match=f"{name}: is no table of sentences"):
            list(DroidReader(droid, keep_going=keep_going))
    with pytest.raises(DataError, match="no such file"):
        DroidReader(droid, annotations=droid / "none.json")


def test_videos_end_a_frame_early(droid: Path) -> None:
    folder = success_of(droid)
    write_video(
        folder / "recordings" / "MP4" / f"{SERIALS['wrist']}.mp4", [coded(i, 2) for i in range(29)]
    )
    (record,) = DroidReader(folder)
    assert len(record.stamps_ns) == 29
    assert [code_of(v)[0] for v in record.episode(2, 2).keyframes[-1].views] == [28, 28]


def test_sidecars_say_which_frame_is_when(tmp_path: Path) -> None:
    """Frames are matched by time where both cameras have stamps: here the wrist camera misses the
    first two rows of the trajectory."""
    stamps = [START_MS + 67 * i for i in range(30)]
    videos = {c: [coded(i, n) for i in range(30)] for n, c in enumerate(CAMERAS)}
    folder = write_droid(tmp_path / "success" / "d" / "t", videos, stamps, sidecars=True)
    late = folder / "recordings" / "MP4" / f"{SERIALS['wrist']}.mp4"
    write_video(late, [coded(i, 2) for i in range(2, 30)])
    sidecar = late.with_name(f"{late.stem}_timestamps.json")
    sidecar.write_text(json.dumps(stamps[2:]))
    (record,) = DroidReader(tmp_path)
    assert record.stamps_ns == tuple(s * 10**6 for s in stamps)
    codes = [[code_of(v)[0] for v in k.views] for k in record.read([0, 10, 29])]
    assert codes == [[0, 2], [10, 10], [29, 29]]

    sidecar.write_text(json.dumps(stamps))
    with pytest.raises(DataError, match=r"_timestamps\.json: 30 stamps for 28 frames"):
        list(DroidReader(tmp_path))


def test_without_trajectory_file(droid: Path) -> None:
    folder = success_of(droid)
    (folder / "trajectory.h5").unlink()
    (record,) = DroidReader(folder)
    # 15 Hz is DROID's rate, not the 60 of the MP4 files.
    assert record.stamps_ns[:3] == (0, 66666666, 133333333)
    assert len(record.stamps_ns) == 30


def test_round_trip(tmp_path: Path, simulated: Any) -> None:
    exo, gripper = simulated.views[:, 0], simulated.views[:, 1]
    stamps_ms = [stamp // 10**6 for stamp in simulated.stamps_ns]
    write_droid(
        tmp_path / "success" / "d" / "t",
        {"ext1": list(exo), "wrist": list(gripper)},
        stamps_ms,
        current_task=simulated.instruction,
    )
    (record,) = DroidReader(tmp_path)
    assert record.instruction == simulated.instruction
    assert record.category == simulated.category
    assert record.success is simulated.success
    assert record.stamps_ns == tuple(ms * 10**6 for ms in stamps_ms)  # milliseconds
    keyframes = record.episode(4, 2).keyframes
    for keyframe in keyframes:
        step = record.stamps_ns.index(keyframe.stamp_ns)
        for pov in (0, 1):
            want = simulated.views[step, pov]
            got = keyframe.views[pov]
            assert got.shape == want.shape
            # MP4 loses detail: nearer to its own step than a frame's difference could be.
            assert np.abs(got.astype(int) - want).mean() < 6


def damaged_h5(folder: Path) -> None:
    path = folder / "trajectory.h5"
    path.write_bytes(path.read_bytes()[:700])


def no_stamps(folder: Path) -> None:
    with h5py.File(folder / "trajectory.h5", "a") as file:
        del file[f"observation/timestamp/cameras/{SERIALS['ext1']}_frame_received"]


def back_in_time(folder: Path) -> None:
    with h5py.File(folder / "trajectory.h5", "a") as file:
        file[f"observation/timestamp/cameras/{SERIALS['ext1']}_frame_received"][7] = 0


def edit_metadata(**changes: Any) -> Any:
    def edit(folder: Path) -> None:
        path = next(folder.glob("metadata_*.json"))
        content = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return edit


def mp4(folder: Path, camera: str) -> Path:
    return folder / "recordings" / "MP4" / f"{SERIALS[camera]}.mp4"


DAMAGES: dict[str, tuple[Any, str]] = {
    "h5": (damaged_h5, r"trajectory\.h5: cannot be read"),
    "h5 field": (no_stamps, r"trajectory\.h5: observation/timestamp/cameras/2200.* is missing"),
    "h5 order": (back_in_time, r"trajectory\.h5: .*_frame_received: stamp 7 is before"),
    "no metadata": (lambda f: next(f.glob("meta*")).unlink(), "0 metadata_"),
    "metadata": (lambda f: next(f.glob("meta*")).write_text("{"), r"json: is not JSON"),
    "serial": (edit_metadata(wrist_cam_serial=None), r"json: wrist_cam_serial is None"),
    "path as serial": (edit_metadata(ext1_cam_serial="../../x"), r"ext1_cam_serial is '\.\./"),
    "task": (edit_metadata(current_task=""), r"json: current_task is ''"),
    "label": (edit_metadata(success=False), r"json: success is False, but the folder"),
    "no video": (lambda f: mp4(f, "wrist").unlink(), rf"{SERIALS['wrist']}\.mp4: is missing"),
    "cut video": (
        lambda f: mp4(f, "ext1").write_bytes(mp4(f, "ext1").read_bytes()[:2000]),
        rf"{SERIALS['ext1']}\.mp4: is not a video",
    ),
    "short video": (
        lambda f: write_video(mp4(f, "ext1"), [coded(i, 0) for i in range(20)]),
        "frames do not match",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_corrupt_episodes(droid: Path, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    harm, said = DAMAGES[damage]
    folder = success_of(droid)
    harm(folder)
    with pytest.raises(DataError, match=said) as caught:
        list(DroidReader(droid))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    reader = DroidReader(droid, keep_going=True)
    assert [r.success for r in reader] == [False]
    (problem,) = reader.problems
    assert problem.where == str(folder)
    assert "\n" not in problem.what
    assert capfd.readouterr().err == ""


def test_neither_success_nor_failure(droid: Path, tmp_path: Path) -> None:
    os.rename(success_of(droid), tmp_path / "loose")
    with pytest.raises(DataError, match="neither success/ nor failure/"):
        list(DroidReader(tmp_path / "loose"))


def test_not_droid(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no episode"):
        list(DroidReader(tmp_path))


@pytest.mark.parametrize("keep_going", [False, True])
def test_h5py_is_an_extra(droid: Path, monkeypatch: Any, keep_going: bool) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"needs h5py, which cannot be imported .*pip install h5"):
        list(DroidReader(droid, keep_going=keep_going))


def test_frames_are_reached_by_index(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, [coded(i, 0) for i in range(60)])
    with VideoFrames(path) as video:
        assert len(video) == 60
        for index in (0, 59, 30, 1, 11, 12, 13, 31, 58):
            assert code_of(video.frame(index)) == (index, 0)
        for index in (-1, 60):
            with pytest.raises(DataError, match=rf"frame {index} cannot be decoded"):
                video.frame(index)
