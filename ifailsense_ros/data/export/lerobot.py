"""Records as a LeRobotDataset v3.0: pictures, instructions and labels.

There are no joint states or actions in a record, so what comes out trains reward models, failure
detectors and filters, but no policy. The label is `success` in meta/episodes, to filter episodes
by, and `next.success` of the last row, where LeRobot's own tools put it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ifailsense_ros.core.episode import POV_NAMES, Keyframe
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.export import lerobot_files as files
from ifailsense_ros.data.export.common import all_frames, full_key, not_done
from ifailsense_ros.data.export.lerobot_stats import (
    PictureStats,
    TotalStats,
    column_stats,
    flat_columns,
)
from ifailsense_ros.data.readers.lerobot import STAMP_COLUMN
from ifailsense_ros.data.readers.lerobot_meta import OWN, read_info
from ifailsense_ros.data.records import EpisodeRecord, Problem
from ifailsense_ros.data.video import VideoWriter

CAMERAS = tuple(f"observation.images.{name}" for name in POV_NAMES)
"""Keys of the cameras in the order of the PoV."""


class LerobotExport:
    """Writes records to a folder, or goes on with what an earlier run began there.

    After each shard the folder is a complete LeRobotDataset of the episodes so far. Rows of an
    episode are evenly spaced by the frame rate, as LeRobot demands; the true stamps are in the
    column `stamp_ns`.

    Args:
        folder: of the data set.
        fps: frame rate; None: that of the first record, at least 1.
        codec: of the videos, see `data.video.CODECS`.
        episodes_per_file: episodes in a shard; what an interruption may cost.
        keep_going: note records that cannot be read in `problems` and go on.

    Attributes:
        problems: what was left out.
        uneven: episodes whose stamps are off their rows' times by more than half a frame.

    Raises:
        ConfigError: the folder holds something else.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fps: int | None = None,
        codec: str = "h264",
        episodes_per_file: int = 50,
        keep_going: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.problems: list[Problem] = []
        self.uneven = 0
        self._fps, self._codec = fps, codec
        self._per_file, self._keep_going = episodes_per_file, keep_going
        self._features: dict[str, dict] = {}
        self._tasks: dict[str, int] = {}
        self._stats = TotalStats()
        self._episodes = self._frames = self._shards = 0
        # A run that was stopped at once has left nothing but unfinished files.
        if any(p.is_file() and p.suffix != ".part" for p in self.folder.rglob("*")):
            self._go_on()

    def _go_on(self) -> None:
        try:
            info = read_info(self.folder)
            if info.major != 3 or STAMP_COLUMN not in info.features:
                raise DataError("another program's data set")
            for row in files.episodes_so_far(self.folder):
                self._note(row)
        except DataError as error:
            raise ConfigError(
                f"{self.folder}: is not an export to go on with ({error}): choose another folder"
            ) from error
        if self._fps not in (None, info.fps):
            raise ConfigError(f"{self.folder}: was begun with {info.fps} frames a second")
        self._fps, self._features = int(info.fps), dict(info.features)
        self._shards = len(files.shard_files(self.folder))

    def _note(self, row: Mapping[str, Any]) -> None:
        for text in row["tasks"]:
            self._tasks.setdefault(text, len(self._tasks))
        self._episodes += 1
        self._frames += row["length"]
        self._stats.add(row)

    def run(self, records: Iterable[EpisodeRecord]) -> Iterator[EpisodeRecord]:
        """Export records; yields each when its rows are taken.

        Raises:
            ConfigError: they are not those that an earlier run began with.
            DataError: (without `keep_going`) a record cannot be read, or does not fit the others.
        """
        names = (f"{OWN}source", f"{OWN}key")
        earlier = files.episodes_so_far(self.folder, names)
        done = ("/".join(row[name] for name in names) for row in earlier)
        problems = self.problems if self._keep_going else None
        shard: _Shard | None = None
        try:
            for record in not_done(records, done, self.folder, problems):
                try:
                    if not self._features:
                        self._begin(record)
                    self._check(record)
                except DataError as error:
                    if not self._keep_going:
                        raise
                    self.problems.append(Problem(full_key(record), str(error)))
                    continue
                shard = shard or _Shard(self.folder, self._shards, self._features, self._fps)
                task = self._tasks.setdefault(record.instruction, len(self._tasks))
                self._note(shard.add(record, self._episodes, self._frames, task))
                yield record
                if shard.episodes >= self._per_file or shard.is_large():
                    self._commit(shard)
                    shard = None
            if shard is not None:
                self._commit(shard)
            if self._episodes:
                # An earlier run may have been stopped between its last shard and this.
                self._write_metadata()
        finally:
            if shard is not None:
                shard.abandon()

    def _commit(self, shard: _Shard) -> None:
        shard.commit()
        self._shards += 1
        self._write_metadata()

    def _write_metadata(self) -> None:
        files.write_tasks(self.folder, self._tasks)
        files.write_json(self.folder / "meta" / "stats.json", self._stats.as_json())
        self._write_info()

    def _write_info(self) -> None:
        totals = {
            "total_episodes": self._episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
        }
        info = files.info_json(self._features, self._fps, totals)
        files.write_json(self.folder / "meta" / "info.json", info)

    def _begin(self, record: EpisodeRecord) -> None:
        """Learn from the first record what all must be like."""
        if self._fps is None:
            gap_ns = np.median(np.diff(record.stamps_ns)) if len(record.stamps_ns) > 1 else 0
            self._fps = max(1, round(1e9 / gap_ns)) if gap_ns > 0 else 1
        (first,) = record.read([0])
        features: dict[str, dict] = {}
        for camera, view in zip(CAMERAS, first.views, strict=False):
            height, width = view.shape[:2]
            # Only H.264 can halve the colours of an odd number of pixels; see VideoWriter.
            odd = height % 2 or width % 2
            pixel_format = "yuv444p" if odd else "yuv420p"
            if odd and self._codec != "h264":
                raise DataError(f"{self._codec} cannot hold pictures of {height}x{width}: use h264")
            features[camera] = files.camera_feature(
                height, width, self._fps, self._codec, pixel_format
            )
        self._features = features | files.column_features(record.success is not None)
        # From here on the folder can be told from anything else, and gone on with.
        self._write_info()

    def _check(self, record: EpisodeRecord) -> None:
        labelled = "next.success" in self._features
        if labelled != (record.success is not None):
            raise DataError(
                f"{full_key(record)}: {'no' if labelled else 'a'} label, unlike the episodes "
                "before; export labelled and unlabelled ones apart"
            )
        cameras = [key for key in CAMERAS if key in self._features]
        if record.num_pov != len(cameras):
            raise DataError(f"{full_key(record)}: {record.num_pov} PoV instead of {len(cameras)}")
        if self._keep_going:
            # A picture that is found out only after others of its episode went into the video
            # would leave them there: look at all of them before.
            for keyframe in all_frames(record):
                check_shapes(record, keyframe, self._features)
        stamps = np.array(record.stamps_ns) - record.stamps_ns[0]
        rows = np.arange(len(stamps)) * 1e9 / self._fps
        self.uneven += bool(np.abs(stamps - rows).max() > 0.5e9 / self._fps)


def check_shapes(
    record: EpisodeRecord, keyframe: Keyframe, features: Mapping[str, Mapping[str, Any]]
) -> None:
    """A data set's pictures of a camera have one size.

    Raises:
        DataError: this time step's have not that size.
    """
    for camera, view in zip(CAMERAS, keyframe.views, strict=False):
        if list(view.shape) != features[camera]["shape"]:
            raise DataError(
                f"{full_key(record)}: {camera} has the shape {list(view.shape)}, unlike "
                f"{features[camera]['shape']} before"
            )


class _Shard:
    """Some episodes on their way into the files of one number."""

    def __init__(self, folder: Path, number: int, features: Mapping[str, dict], fps: int) -> None:
        self._place = files.place_of(number)
        self._folder, self._fps, self._features = folder, fps, features
        self._cameras = [key for key in CAMERAS if key in features]
        self._columns = [key for key in features if features[key]["dtype"] != "video"]
        self._dtypes = {key: features[key]["dtype"] for key in self._columns}
        self._videos = {}
        for key in self._cameras:
            path = self._video_path(key)
            info = features[key]["info"]
            size = (info["video.height"], info["video.width"])
            writer = VideoWriter(files.part(path), fps, size, info["video.codec"])
            self._videos[key] = writer
        self._tables: list[pa.Table] = []
        self._rows: list[dict[str, Any]] = []

    @property
    def episodes(self) -> int:
        """How many are in it."""
        return len(self._rows)

    def is_large(self) -> bool:
        """Whether a video has reached the size that LeRobot keeps below."""
        paths = [files.part(self._video_path(key)) for key in self._cameras]
        # An encoder may hold back all it was given so far.
        sizes = [path.stat().st_size for path in paths if path.exists()]
        return max(sizes, default=0) >= files.VIDEO_MB << 20

    def add(self, record: EpisodeRecord, episode: int, first: int, task: int) -> dict[str, Any]:
        """Take an episode.

        Args:
            record: to take.
            episode: its number in the data set.
            first: number of its first row in the data set.
            task: number of its instruction.

        Returns:
            Its row of meta/episodes.
        """
        count = len(record.stamps_ns)
        begins = {key: len(video) / self._fps for key, video in self._videos.items()}
        pictures = {key: PictureStats() for key in self._cameras}
        for step, keyframe in enumerate(all_frames(record)):
            check_shapes(record, keyframe, self._features)
            for key, view in zip(self._cameras, keyframe.views, strict=True):
                self._videos[key].add(view)
                if step % max(1, count // 32) == 0:
                    pictures[key].add(view)
        steps = np.arange(count)
        last = steps == count - 1
        values = {
            "timestamp": steps / self._fps,
            "frame_index": steps,
            "episode_index": np.full(count, episode),
            "index": first + steps,
            "task_index": np.full(count, task),
            STAMP_COLUMN: np.array(record.stamps_ns),
            "next.done": last,
            "next.success": last & bool(record.success),
        }
        columns = {key: values[key].astype(self._dtypes[key]) for key in self._columns}
        self._tables.append(pa.table(columns))
        stats = {key: column_stats(column) for key, column in columns.items()}
        stats |= {key: picture.result() for key, picture in pictures.items()}
        row: dict[str, Any] = {
            "episode_index": episode,
            "tasks": [record.instruction],
            "length": count,
            **{f"data/{name}": value for name, value in self._place.items()},
            "dataset_from_index": first,
            "dataset_to_index": first + count,
        }
        for key in self._cameras:
            row |= {f"videos/{key}/{name}": value for name, value in self._place.items()}
            row[f"videos/{key}/from_timestamp"] = begins[key]
            row[f"videos/{key}/to_timestamp"] = len(self._videos[key]) / self._fps
        row |= {f"meta/episodes/{name}": value for name, value in self._place.items()}
        row |= {"success": record.success, **files.own_columns(record), **flat_columns(stats)}
        self._rows.append(row)
        return row

    def commit(self) -> None:
        """Give the files their names, that of the metadata last."""
        for key, video in self._videos.items():
            video.close()
            files.finish(self._video_path(key))
        data = self._folder / files.DATA_PATH.format(**self._place)
        files.write_parquet(data, pa.concat_tables(self._tables))
        meta = self._folder / files.EPISODES_PATH.format(**self._place)
        files.write_parquet(meta, files.episode_table(self._rows))

    def abandon(self) -> None:
        """Leave nothing behind of an unfinished shard."""
        for key, video in self._videos.items():
            video.discard()
            files.part(self._video_path(key)).unlink(missing_ok=True)

    def _video_path(self, key: str) -> Path:
        return self._folder / files.VIDEO_PATH.format(video_key=key, **self._place)
