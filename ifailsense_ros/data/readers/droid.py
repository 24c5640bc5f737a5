"""DROID as it was recorded: three videos, a trajectory file and a metadata file an episode.

The layout is that of DROID's documentation and of its post-processing code (droid-dataset/droid;
see docs/readers.md)::

    <lab>/success or failure/<date>/<time>/
        metadata_<id>.json        current_task, scene_id, <camera>_cam_serial, ...
        trajectory.h5             observation/timestamp/cameras/<serial>_frame_received, ...
        recordings/MP4/<serial>.mp4 and, for some, <serial>_timestamps.json
    aggregated-annotations-*.json or droid_language_annotations.json    sentences by episode id
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ifailsense_ros.core.episode import Keyframe
from ifailsense_ros.core.errors import ConfigError, DataError, text_of
from ifailsense_ros.data.readers.base import BaseReader, need, read_json
from ifailsense_ros.data.readers.video_frames import VideoFrames
from ifailsense_ros.data.records import EXPERT, EpisodeRecord
from ifailsense_ros.data.task_categories import verb_category

FRAME_RATE_HZ = 15
"""DROID's control rate, at which pictures were taken; its MP4 files say 60, which is wrong."""

_OUTCOMES = {"success": True, "failure": False}
_ANNOTATIONS = ("aggregated-annotations-*.json", "droid_language_annotations.json")
_SENTENCES = ("language_instruction1", "language_instruction2", "language_instruction3")
_MS = 10**6


@dataclass(frozen=True)
class _Video:
    """One camera of one episode: its file, and the stamps beside it where there are some."""

    path: Path
    frames: int
    stamps_ns: np.ndarray | None  # int64 (frames,)


class DroidReader(BaseReader):
    """The episodes of raw DROID: N = 2, one of the two exterior cameras and the wrist camera.

    Success is the folder's word. The instruction is the sentence that annotators wrote for the
    episode where the annotations are there, else what the collector was prompted with.

    Args:
        path: the data set, one lab, one date, or any folder with episodes in it.
        exo: which exterior camera, "ext1" or "ext2".
        annotations: JSON file of sentences by episode id; None: looked for in `path` and in the
            folders above it.
        keep_going: note what cannot be read in `problems` and go on.

    Raises:
        ConfigError: no such camera.
        DataError: no such folder or annotations.
    """

    source = "droid"

    def __init__(
        self,
        path: str | Path,
        *,
        exo: str = "ext1",
        annotations: str | Path | None = None,
        keep_going: bool = False,
    ) -> None:
        super().__init__(path, keep_going=keep_going)
        if exo not in ("ext1", "ext2"):
            raise ConfigError(f"exo is {exo!r}: DROID's exterior cameras are ext1 and ext2")
        self._cameras = (exo, "wrist")
        self._annotations = self._find_annotations() if annotations is None else Path(annotations)
        if annotations is not None and not Path(annotations).is_file():
            raise DataError(f"{annotations}: no such file; give DROID's language annotations")

    def _find_annotations(self) -> Path | None:
        for folder in (self.path.resolve(), *self.path.resolve().parents):
            for pattern in _ANNOTATIONS:
                if found := sorted(folder.glob(pattern)):
                    return found[-1]
        return None

    def _read_sentences(self) -> dict[str, str]:
        """Episode id -> the first of its sentences that is not empty."""
        if self._annotations is None:
            return {}
        content = read_json(self._annotations)
        if not isinstance(content, dict):
            raise DataError(f"{self._annotations}: is no table of sentences by episode id")
        sentences = {}
        for episode_id, entry in content.items():
            texts = [entry.get(name) for name in _SENTENCES] if isinstance(entry, dict) else [entry]
            text = next((t.strip() for t in texts if isinstance(t, str) and t.strip()), None)
            if text is not None:
                sentences[episode_id] = text
        return sentences

    def records(self) -> Iterator[EpisodeRecord]:
        """The episodes, in the order of their folders."""
        found = False
        sentences = self._read_sentences()  # they concern every episode: no `noting`
        for folder in _episode_folders(self.path):
            found = True
            with self.noting(folder):
                yield self._record(folder, sentences)
        if not found:
            raise DataError(
                f"{self.path}: no episode (metadata_*.json beside trajectory.h5) in it; give a "
                "folder of raw DROID"
            )

    def _record(self, folder: Path, sentences: Mapping[str, str]) -> EpisodeRecord:
        metadata_path, metadata = _read_metadata(folder)
        success = _outcome(folder)
        stated = metadata.get("success")
        if isinstance(stated, bool) and stated is not success:
            raise DataError(
                f"{metadata_path}: success is {stated}, but the folder says otherwise; move the "
                "episode or mend the file"
            )
        episode_id = metadata_path.stem.removeprefix("metadata_")
        instruction = sentences.get(episode_id) or metadata.get("current_task")
        if not isinstance(instruction, str) or not instruction.strip():
            raise DataError(f"{metadata_path}: current_task is {instruction!r}, not an instruction")
        instruction = instruction.strip()
        videos = tuple(
            _open_video(folder, _serial(metadata_path, metadata, c)) for c in self._cameras
        )
        serial = _serial(metadata_path, metadata, self._cameras[0])
        stamps = _step_stamps(folder, serial, videos)

        def read(steps: Sequence[int]) -> tuple[Keyframe, ...]:
            return _read_steps(videos, stamps, steps)

        return EpisodeRecord(
            source=self.source,
            key=episode_id,
            group=_group(folder, metadata),
            instruction=instruction,
            # DROID has no task names: an episode did what its sentence says, or not.
            task=instruction.lower().rstrip(" .") if success else "",
            category=verb_category(instruction),
            kind=EXPERT if success else "",
            success=success,
            stamps_ns=tuple(stamps.tolist()),
            num_pov=len(videos),
            read=read,
        )


def _episode_folders(path: Path) -> Iterator[Path]:
    """Folders of episodes below a path, sorted; nothing below an episode is looked at."""
    for parent, folders, files in os.walk(path):
        if "trajectory.h5" in files or any(_is_metadata(name) for name in files):
            folders.clear()
            yield Path(parent)
        folders.sort()


def _is_metadata(name: str) -> bool:
    return name.startswith("metadata_") and name.endswith(".json")


def _read_metadata(folder: Path) -> tuple[Path, dict[str, Any]]:
    paths = sorted(p for p in folder.iterdir() if _is_metadata(p.name))
    if len(paths) != 1:
        raise DataError(
            f"{folder}: {len(paths)} metadata_*.json files, where a complete episode has one; "
            "download it again"
        )
    content = read_json(paths[0])
    if not isinstance(content, dict):
        raise DataError(f"{paths[0]}: is no table of fields")
    return paths[0], content


def _outcome(folder: Path) -> bool:
    """What the folder that an episode lies in says: success or failure."""
    said = [part for part in folder.resolve().parts if part in _OUTCOMES]
    if not said:
        raise DataError(
            f"{folder}: neither success/ nor failure/ is above it; keep DROID's own folders"
        )
    return _OUTCOMES[said[-1]]


def _group(folder: Path, metadata: dict[str, Any]) -> str:
    """The scene, as the collectors numbered it; where they did not, lab and day."""
    lab = metadata.get("lab") or "unknown"
    scene = metadata.get("scene_id")
    if isinstance(scene, int) and scene >= 0:
        return f"{lab}/scene-{scene}"
    return f"{lab}/{metadata.get('date') or folder.resolve().parent.name}"


def _serial(path: Path, metadata: dict[str, Any], camera: str) -> str:
    field = f"{camera}_cam_serial"
    serial = metadata.get(field)
    # A file name is made of it: digits only.
    if not str(serial).isdigit():
        raise DataError(f"{path}: {field} is {serial!r}, not a camera's serial number")
    return str(serial)


def _open_video(folder: Path, serial: str) -> _Video:
    path = folder / "recordings" / "MP4" / f"{serial}.mp4"
    with VideoFrames(path) as video:
        count = len(video)
    if count < 1:
        raise DataError(f"{path}: has no frames; download it again")
    sidecar = path.with_name(f"{serial}_timestamps.json")
    if not sidecar.is_file():
        return _Video(path, count, None)
    stamps = _ascending(read_json(sidecar), str(sidecar))
    if len(stamps) != count:
        raise DataError(f"{sidecar}: {len(stamps)} stamps for {count} frames; download it again")
    return _Video(path, count, stamps)


def _ascending(milliseconds: Any, where: str) -> np.ndarray:
    """Stamps in nanoseconds, int64, from milliseconds."""
    try:
        stamps = np.asarray(milliseconds, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: are no stamps ({text_of(error)})") from error
    if stamps.ndim != 1 or not stamps.size:
        raise DataError(f"{where}: has the shape {stamps.shape}, not one stamp a frame")
    backward = np.flatnonzero(np.diff(stamps) < 0)
    if backward.size:
        raise DataError(f"{where}: stamp {backward[0] + 1} is before the one ahead of it")
    return stamps * _MS


def _step_stamps(folder: Path, serial: str, videos: tuple[_Video, ...]) -> np.ndarray:
    """Stamps of the time steps, int64 nanoseconds: of the exterior camera's frames.

    Frame i of each video belongs to row i of trajectory.h5. Recordings end a frame or so early:
    what all of them have is used.
    """
    exo = videos[0]
    if exo.stamps_ns is not None and all(v.stamps_ns is not None for v in videos):
        return exo.stamps_ns
    counts = {video.path.name: video.frames for video in videos}
    trajectory = folder / "trajectory.h5"
    stamps: np.ndarray | None = exo.stamps_ns
    if stamps is None and trajectory.is_file():
        stamps = _read_trajectory(trajectory, serial)
        counts[trajectory.name] = len(stamps)
    least, most = min(counts.values()), max(counts.values())
    if least < 0.9 * most:
        raise DataError(f"{folder}: frames do not match: {counts}; download the episode again")
    if stamps is None:
        return np.arange(least, dtype=np.int64) * 10**9 // FRAME_RATE_HZ
    return stamps[:least]


def _read_trajectory(path: Path, serial: str) -> np.ndarray:
    h5py = need("h5py", f"{path}: DROID's trajectory file")
    field = f"observation/timestamp/cameras/{serial}_frame_received"
    try:
        with h5py.File(path, "r") as file:
            if field not in file:
                raise DataError(f"{path}: {field} is missing; download it again")
            return _ascending(file[field][()], f"{path}: {field}")
    except (OSError, RuntimeError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({text_of(error)}); download it again") from error


def _read_steps(
    videos: tuple[_Video, ...], stamps: np.ndarray, steps: Sequence[int]
) -> tuple[Keyframe, ...]:
    views: list[list[np.ndarray]] = [[] for _ in steps]
    for video in videos:
        with VideoFrames(video.path) as frames:
            for row, step in zip(views, steps, strict=True):
                row.append(frames.frame(_frame_at(video, stamps, step)))
    return tuple(
        Keyframe(int(stamps[step]), tuple(row)) for step, row in zip(steps, views, strict=True)
    )


def _frame_at(video: _Video, stamps: np.ndarray, step: int) -> int:
    """The frame of a video at a time step: the nearest in time where its stamps are known."""
    if video.stamps_ns is None:
        return step
    return int(np.argmin(np.abs(video.stamps_ns - stamps[step])))
