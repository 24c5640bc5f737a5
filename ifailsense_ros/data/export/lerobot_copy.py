"""A LeRobotDataset, v3.0 or v2.x, as a new one of the same version: some episodes, and labels.

Videos are cut between packets and never encoded again. Everything else of the data set (states,
actions, features of any kind) goes along as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.export import lerobot_files as files
from ifailsense_ros.data.export.lerobot_plan import SUCCESS, CopyPlan, KeptEpisode, copied_splits
from ifailsense_ros.data.export.lerobot_rows import (
    EpisodeLabel,
    copy_episode_table,
    copy_rows,
    label_columns,
    row_stats,
)
from ifailsense_ros.data.export.lerobot_stats import TotalStats
from ifailsense_ros.data.readers.lerobot_meta import episode_files, read_json_lines
from ifailsense_ros.data.video_cut import VideoCut

_PLAN = "ifailsense-copy.json"
_KNOWN = ("data", "videos", "images", "meta", "ifailsense")


class LerobotCopy:
    """Writes a copy, or goes on with one that was stopped.

    The copy is made in `OUT.part` and gets its name when it is complete.

    Args:
        plan: which episodes.
        out: folder to make.
        labels: by the episodes' numbers in the data set; None: the copy is only filtered.
        replace_labels: the data set's own labels give way.
        link: whole videos become hard links; both data sets must lie on one disk.

    Attributes:
        left_out: files beside the data set proper that were not taken along.

    Raises:
        ConfigError: the folder is there already, or the data set has labels of its own.
    """

    def __init__(
        self,
        plan: CopyPlan,
        out: Path,
        labels: Mapping[int, EpisodeLabel] | None = None,
        *,
        replace_labels: bool = False,
        link: bool = False,
    ) -> None:
        self.plan, self.out, self._labels, self._link = plan, out, labels, link
        self.left_out: list[str] = []
        self._root = plan.info.root
        self._part = out.with_name(f"{out.name}.part")
        self._begins: dict[tuple[int, str], float] = {}
        if out.exists():
            raise ConfigError(f"{out}: is there already: choose another folder, or delete it")
        if out.resolve().is_relative_to(self._root.resolve()):
            raise ConfigError(f"{out}: lies in the data set itself: choose another folder")
        if labels is not None and plan.own_labels and not replace_labels:
            raise ConfigError(
                f"{self._root}: has labels of its own ({', '.join(plan.own_labels)}): give "
                "--replace-labels to put the verdicts in their place in the copy, or --no-column "
                "to leave them as they are"
            )

    def run(self, *, progress: bool = True) -> None:
        """Make the copy.

        Raises:
            ConfigError: a hard link cannot be made.
            DataError: the data set is damaged.
        """
        self._begin()
        rows, videos = self.plan.by_file(), self.plan.by_video()
        total = len(rows) + len(videos)
        with tqdm(
            total=total, unit="file", desc=f"copy to {self.out}", disable=not progress
        ) as bar:
            for (key, path), episodes in videos.items():
                self._copy_video(key, path, episodes)
                bar.update()
            for path, episodes in rows.items():
                self._copy_rows(path, episodes)
                bar.update()
        if self.plan.info.major == 2:
            self._write_lines()
        else:
            self._write_tables()
        self._write_info()
        self._take_along()
        (self._part / _PLAN).unlink()
        os.replace(self._part, self.out)

    def _begin(self) -> None:
        """Keep what an earlier run made of the same copy, and nothing else."""
        labels = {old: asdict(label) for old, label in (self._labels or {}).items()}
        files_there = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in self.plan.members]
        said = [str(self._root.resolve()), self.plan.content, files_there, list(self.plan.kept)]
        text = json.dumps([said, self._labels is not None, labels, self._link], sort_keys=True)
        wanted = {"plan": hashlib.sha256(text.encode()).hexdigest()}
        note = self._part / _PLAN
        if self._part.exists() and (not note.is_file() or json.loads(note.read_text()) != wanted):
            shutil.rmtree(self._part)
        if not note.is_file():
            files.write_json(note, wanted)

    def _place(self, path: Path, episode: KeptEpisode, key: str = "") -> Path:
        """Where a file of the data set goes: files of one episode are numbered by it."""
        info = self.plan.info
        if info.major == 3:
            return self._part / path.relative_to(self._root)
        template = info.video_path if key else info.data_path
        place = {"episode_chunk": episode.new // info.chunks_size, "episode_index": episode.new}
        path = info.file(template, video_key=key, **place)
        return self._part / path.relative_to(self._root)

    def _copy_rows(self, path: Path, episodes: list[KeptEpisode]) -> None:
        out = self._place(path, episodes[0])
        if not out.exists():
            copy_rows(path, out, self.plan.kept, self._labels)

    def _copy_video(self, key: str, path: Path, episodes: list[KeptEpisode]) -> None:
        out = self._place(path, episodes[0], key)
        fps = self.plan.info.fps
        begins = [episode.videos[key].from_s for episode in episodes]
        if len(episodes) == self.plan.members[path]:
            if not out.exists():
                self._copy_file(path, out)
        else:
            spans = [(b, b + e.length / fps) for b, e in zip(begins, episodes, strict=True)]
            cut = VideoCut(path, spans, fps)
            begins = cut.begins_s
            if not out.exists():
                cut.write(files.part(out))
                files.finish(out)
        for episode, begin in zip(episodes, begins, strict=True):
            self._begins[episode.old, key] = begin

    def _copy_file(self, path: Path, out: Path) -> None:
        if self._link:
            files.part(out).unlink(missing_ok=True)
            try:
                os.link(path.resolve(), files.part(out))
            except OSError as error:
                raise ConfigError(
                    f"--link: {path} cannot be linked to {out} ({error.strerror}): leave --link out"
                ) from error
        else:
            shutil.copyfile(path, files.part(out))
        files.finish(out)

    def _write_tables(self) -> None:
        """The metadata of v3.0."""
        stats = TotalStats()
        for source in episode_files(self.plan.info):
            out = self._part / source.relative_to(self._root)
            rows = copy_episode_table(source, out, self.plan.kept, self._labels, self._begins)
            for row in rows:
                stats.add(row)
        shutil.copyfile(self._root / "meta/tasks.parquet", self._part / "meta/tasks.parquet")
        self._write_stats(stats)

    def _write_lines(self) -> None:
        """The metadata of v2.x."""
        stats = TotalStats()
        self._write_json_lines("episodes.jsonl", self._episode_lines())
        if (self._root / "meta/episodes_stats.jsonl").is_file():
            self._write_json_lines("episodes_stats.jsonl", self._stats_lines(stats))
        shutil.copyfile(self._root / "meta/tasks.jsonl", self._part / "meta/tasks.jsonl")
        self._write_stats(stats)

    def _episode_lines(self) -> Iterator[dict[str, Any]]:
        for row in read_json_lines(self._root / "meta/episodes.jsonl"):
            episode = self.plan.kept.get(row["episode_index"])
            if episode is not None:
                label = {} if self._labels is None else label_columns(self._labels[episode.old])
                yield {**row, "episode_index": episode.new, **label}

    def _stats_lines(self, total: TotalStats) -> Iterator[dict[str, Any]]:
        for row in read_json_lines(self._root / "meta/episodes_stats.jsonl"):
            episode = self.plan.kept.get(row["episode_index"])
            if episode is None:
                continue
            stats: dict[str, dict[str, Any]] = {k: dict(v) for k, v in row["stats"].items()}
            flat = {f"{f}/{name}": v for f, values in stats.items() for name, v in values.items()}
            label = None if self._labels is None else self._labels[episode.old]
            for name, value in row_stats(flat, episode, label).items():
                feature, _, statistic = name.partition("/")
                stats.setdefault(feature, {})[statistic] = value
                flat[name] = value
            total.add({f"stats/{name}": value for name, value in flat.items()})
            yield {**row, "episode_index": episode.new, "stats": stats}

    def _write_json_lines(self, name: str, rows: Iterator[dict[str, Any]]) -> None:
        path = self._part / "meta" / name
        with files.part(path).open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
        files.finish(path)

    def _write_stats(self, total: TotalStats) -> None:
        """meta/stats.json, where the data set has one."""
        path = self._root / "meta" / "stats.json"
        if not path.is_file():
            return
        stats = json.loads(path.read_text("utf-8"))
        changed = total.as_json()
        if self.plan.whole:
            changed = {
                k: v for k, v in changed.items() if k == SUCCESS and self._labels is not None
            }
        files.write_json(self._part / "meta" / "stats.json", {**stats, **changed})

    def _write_info(self) -> None:
        plan = self.plan
        info = dict(plan.content)
        count = len(plan.kept)
        info["total_episodes"] = count
        info["total_frames"] = sum(episode.length for episode in plan.kept.values())
        info["splits"] = copied_splits(plan)
        if plan.info.major == 2:
            info["total_videos"] = count * len(plan.videos)
            info["total_chunks"] = math.ceil(count / plan.info.chunks_size)
        if self._labels is not None:
            features = dict(info["features"])
            features[SUCCESS] = {"dtype": "bool", "shape": [1], "names": None}
            info["features"] = features
        files.write_json(self._part / "meta" / "info.json", info)

    def _take_along(self) -> None:
        """Cards and what others keep in meta; files of theirs that speak of single rows stay."""
        for path in sorted((self._root / "meta").iterdir()):
            out = self._part / "meta" / path.name
            if path.is_file() and not out.exists() and path.name != "episodes_stats.jsonl":
                shutil.copyfile(path, out)
        for path in sorted(self._root.iterdir()):
            if path.is_file() and path.suffix.lower() in ("", ".md", ".txt"):
                shutil.copyfile(path, self._part / path.name)
            elif path.name not in _KNOWN and not path.name.startswith("."):
                self.left_out.append(path.name)
