"""Verdicts on every episode of a LeRobot data set: some episodes a job, spread over the cores."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2

from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.montage import MontageGeometry, compose, fit_cell
from ifailsense_ros.core.verdict import Judgement, Reason
from ifailsense_ros.data.readers.lerobot import LerobotReader
from ifailsense_ros.data.readers.lerobot_cameras import pick_cameras
from ifailsense_ros.data.readers.lerobot_meta import (
    LerobotInfo,
    entry_of,
    episode_files,
    episode_rows,
    read_info,
)
from ifailsense_ros.data.records import EpisodeRecord, Problem
from ifailsense_ros.evaluate.job_shards import Done, fingerprint_of
from ifailsense_ros.evaluate.offline import geometry_of
from ifailsense_ros.evaluate.spread import Spread, Work, spread
from ifailsense_ros.evaluate.verdict_sidecar import (
    MONTAGES,
    SIDECAR,
    EpisodeVerdict,
    NamedVote,
    read_settings,
    verdicts_of_table,
    verdicts_table,
    write_verdicts,
)
from ifailsense_ros.model.handle import judge_together

EPISODES_A_JOB = 32
"""What a kill may cost each worker."""

FEW_JOBS = 2
"""So many are done in this process: starting others would take longer."""

_BATCH = 8
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class LerobotSource:
    """A LeRobotDataset to be labelled.

    Attributes:
        path: folder that holds meta/info.json.
        options: of `LerobotReader`: which cameras.
    """

    path: Path
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def reader(self, episodes: str = "") -> LerobotReader:
        """A reader of some episodes that notes what it cannot read."""
        return LerobotReader(self.path, keep_going=True, episodes=episodes, **self.options)


@dataclass(frozen=True)
class LabelJob:
    """The episodes of one span of numbers; see `spread.Job`."""

    source: LerobotSource
    first: int
    end: int
    fingerprint: str

    @property
    def name(self) -> str:
        """See `spread.Job`."""
        return f"{self.first}-{self.end}-{self.fingerprint}"

    @property
    def where(self) -> str:
        """See `spread.Job`."""
        return f"{self.source.path}: episodes {self.first} to {self.end - 1}"


def label_jobs(source: LerobotSource) -> Iterator[LabelJob]:
    """The jobs of a data set. Episodes that are added to it later are new jobs, and those whose
    files have changed are done again.

    Raises:
        DataError: not a LeRobotDataset that can be read.
    """
    info = read_info(source.path)
    options = source.options
    cameras = pick_cameras(info, options.get("exo"), options.get("gripper"))
    numbered = sorted(_contents(info, cameras))
    for span, members in groupby(numbered, lambda item: item[0] // EPISODES_A_JOB):
        contents = [content for _, content in members]
        digest = hashlib.sha256("\n".join(contents).encode()).hexdigest()
        first = span * EPISODES_A_JOB
        yield LabelJob(source, first, first + EPISODES_A_JOB, digest)


def _contents(info: LerobotInfo, cameras: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Number of each episode, and a hash that changes with what it is judged by."""
    files: dict[Path, str] = {}
    for path in episode_files(info):
        for row in episode_rows(path):
            index = row.get("episode_index")
            if not isinstance(index, int):
                continue  # the reader says so
            used: list[Path] = []
            try:
                entry = entry_of(info, row, cameras)
                used = [entry.data, *(part.path for part in entry.videos.values())]
            except DataError:
                pass  # likewise
            for file in used:
                if file not in files:
                    files[file] = fingerprint_of([file])
            said = json.dumps(row, sort_keys=True, default=str)
            text = " ".join([said, *(files[file] for file in used)])
            yield index, hashlib.sha256(text.encode()).hexdigest()


def label(
    source: LerobotSource,
    folder: Path,
    load: Callable[[], Detector],
    settings: Mapping[str, Any],
    *,
    montages: bool = True,
    **spreading: Any,
) -> Spread[EpisodeVerdict]:
    """Judge all episodes that have no verdict yet, and write the sidecar.

    Args:
        source: the data set.
        folder: of the sidecar; made if it is not there.
        load: makes the detector; picklable.
        settings: JSON values that say which detector that is.
        montages: whether to keep the pictures that were judged.
        spreading: further arguments of `spread`.

    Returns:
        What was done; its `problems` are the episodes that have no verdict.

    Raises:
        ConfigError: the folder holds verdicts of another detector, or the data set has fewer
            cameras than the detector wants.
        DataError: not a LeRobotDataset that can be read.
        IFailSenseError: the detector cannot be loaded.
    """
    settings = {**settings, "cameras": dict(source.options), "montages": montages}
    if (folder / SIDECAR).exists() and (before := read_settings(folder)) != settings:
        changed = sorted(n for n in {*before, *settings} if before.get(n) != settings.get(n))
        raise ConfigError(
            f"{folder / SIDECAR}: was made with other settings ({', '.join(changed)}; detector "
            f"{before.get('detector')}): name another folder with --out, or delete it"
        )
    info = read_info(source.path)
    cameras = pick_cameras(info, source.options.get("exo"), source.options.get("gripper"))
    work = Work(
        partial(_load_for, load, len(cameras)),
        partial(label_episodes, montages=montages),
        verdicts_table,
        verdicts_of_table,
        settings,
    )
    jobs = list(label_jobs(source))
    if spreading.get("workers") is None and not spreading.get("ray") and len(jobs) <= FEW_JOBS:
        spreading["workers"] = 0
    done = spread(jobs, work, folder, title="label", **spreading)
    write_verdicts(folder, done.rows(), settings)
    return done


def label_episodes(job: LabelJob, detector: Detector, *, montages: bool) -> Done:
    """The verdicts on one job's episodes."""
    reader = job.source.reader(f"{job.first}:{job.end}")
    geometry = geometry_of(detector)
    rows: list[EpisodeVerdict] = []
    problems: list[Problem] = []
    files: dict[str, bytes] = {}
    numbered = reader.numbered()
    while some := list(islice(numbered, _BATCH)):
        shown: dict[int, Episode] = {}
        said: dict[int, Judgement] = {}
        for index, record in some:
            try:
                seen = _episode(record, geometry)
            except DataError as error:
                where = f"{job.source.path}: episode {index}"
                problems.append(Problem(where, str(error).removeprefix(f"{where}: ")))
                continue
            (said if isinstance(seen, Judgement) else shown)[index] = seen
        answers = judge_together(detector, list(shown.values()), stops=True)
        said |= dict(zip(shown, answers, strict=True))
        for index, record in some:
            if index not in said:
                continue
            montage = ""
            if montages and index in shown:
                montage = f"{MONTAGES}/episode_{index:06d}.jpg"
                files[montage] = _jpeg(shown[index], geometry)
            rows.append(_row(index, record, said[index], detector.model_id, montage))
    rows.sort(key=lambda row: row.episode_index)
    return Done(rows, [*reader.problems, *problems], files)


def _load_for(load: Callable[[], Detector], cameras: int) -> Detector:
    detector = load()
    wanted = detector.config.montage.num_pov
    if cameras < wanted:
        raise ConfigError(
            f"{detector.model_id} wants {wanted} cameras, and only {cameras} of the data set is "
            "known as one: name them with --exo KEY and --gripper KEY, or take a detector of one "
            "PoV"
        )
    return detector


def _episode(record: EpisodeRecord, geometry: MontageGeometry) -> Episode | Judgement:
    """What is shown to the detector, at the size of its cells; or what a monitor says of it."""
    count = len(record.stamps_ns)
    if count < geometry.num_keyframes:
        detail = f"{count} time steps, {geometry.num_keyframes} keyframes are needed"
        return Judgement.unknown(Reason.TOO_FEW_KEYFRAMES, detail)
    episode = record.episode(geometry.num_keyframes, geometry.num_pov)
    keyframes = tuple(
        Keyframe(k.stamp_ns, tuple(fit_cell(view, geometry) for view in k.views))
        for k in episode.keyframes
    )
    return dataclasses.replace(episode, keyframes=keyframes)


def _row(
    index: int, record: EpisodeRecord, judgement: Judgement, model_id: str, montage: str
) -> EpisodeVerdict:
    votes: Sequence[NamedVote] = [NamedVote.of(vote) for vote in judgement.votes]
    known = judgement.p_success == judgement.p_success
    return EpisodeVerdict(
        episode_index=index,
        verdict=judgement.outcome.name,
        p_success=judgement.p_success if known else None,
        votes=tuple(votes),
        model_id=model_id,
        montage=montage,
        reason=judgement.reason.name,
        detail=judgement.detail,
        instruction=record.instruction,
        length=len(record.stamps_ns),
        own_label=record.success,
    )


def _jpeg(episode: Episode, geometry: MontageGeometry) -> bytes:
    picture = compose(episode, geometry)[..., ::-1]
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
