"""One job judged: episodes read once, asked of every detector, answers as rows.

Detectors that want the same keyframes at the same size are asked about the same `Episode`s, some at
a time.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import cv2

from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.errors import BagError, ConfigError, DataError
from ifailsense_ros.core.montage import MontageGeometry, compose, fit_cell
from ifailsense_ros.core.verdict import Judgement, Reason
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.bag_sidecar import EpisodeNote, Sidecar, read_sidecar
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.readers.bag_episodes import notes_for
from ifailsense_ros.data.readers.rosbag import facts_of, key_of
from ifailsense_ros.data.records import EpisodeReader, Problem
from ifailsense_ros.evaluate.asked import AskedSet, Shard
from ifailsense_ros.evaluate.cases import BAG, READER, Job
from ifailsense_ros.evaluate.job_shards import Done
from ifailsense_ros.evaluate.offline import BagEpisodes, geometry_of, tracker_config_for
from ifailsense_ros.evaluate.predictions import questions_of, shown_to
from ifailsense_ros.evaluate.results import MONTAGES, Result
from ifailsense_ros.model.handle import judge_together

_BATCH = 8
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Case:
    """An episode that is to be judged, or that the tracker has judged; fields as in `Result`.

    Attributes:
        number: its place among those of the job.
        name: unlike those of the job's other cases; the picture is named by it.
    """

    number: int
    name: str
    key: str
    instruction: str
    group: str
    start_ns: int
    end_ns: int
    label: bool | None = None
    category: str = ""
    kind: str = ""
    task: str = ""


@dataclass
class _Found:
    """What has come of a job so far; `answers`: (case, number of the detector, its judgement,
    picture)."""

    answers: list[tuple[Case, int, Judgement, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


def judge_job(job: Job, detectors: Sequence[Detector], *, montages: bool = True) -> Done:
    """Judge one job with every detector.

    Args:
        job: of `cases.jobs_of`.
        detectors: judge in this thread.
        montages: whether to keep the pictures that were judged.

    Returns:
        The results, episode by episode, each by every detector; what could not be read, one line
        each; the pictures, by their names in the results folder.

    Raises:
        ConfigError: the episodes do not fit a detector, or a reader's package is missing.
        DataError: a data set that cannot be opened any more.
    """
    found = _Found()
    for numbers in _alike(detectors):
        asking = _Asking(job, [(n, detectors[n]) for n in numbers], found, montages)
        if job.form == BAG:
            _judge_bag(job, asking)
        elif job.form == READER:
            _judge_records(job, asking)
        else:
            _judge_pairs(job, asking)
    found.answers.sort(key=lambda answer: (answer[0].number, answer[1]))
    rows = [
        _result(job, case, detectors[number].model_id, judgement, picture)
        for case, number, judgement, picture in found.answers
    ]
    return Done(rows, list(dict.fromkeys(found.problems)), found.files)


def _alike(detectors: Sequence[Detector]) -> Iterator[list[int]]:
    """Numbers of the detectors that can be asked about the same episodes."""
    groups: dict[tuple, list[int]] = {}
    for number, detector in enumerate(detectors):
        wants = (geometry_of(detector), detector.config.min_keyframes)
        groups.setdefault(wants, []).append(number)
    yield from groups.values()


class _Asking:
    """Detectors that want the same pictures, and where their answers go."""

    def __init__(
        self,
        job: Job,
        detectors: Sequence[tuple[int, Detector]],
        found: _Found,
        montages: bool,
    ) -> None:
        self.job, self.found = job, found
        self.detectors = detectors
        self.first = detectors[0][1]
        self.geometry: MontageGeometry = geometry_of(self.first)
        self._montages = montages

    def ask(self, cases: Iterable[tuple[Case, Episode | Judgement]]) -> None:
        """Have episodes judged; what has a judgement already keeps it."""
        cases = iter(cases)
        while some := list(islice(cases, _BATCH)):
            shown = [(case, seen) for case, seen in some if isinstance(seen, Episode)]
            for number, detector in self.detectors:
                self.answer(number, detector, shown)
            for case, seen in some:
                if isinstance(seen, Judgement):
                    self.found.answers += [(case, n, seen, "") for n, _ in self.detectors]

    def answer(
        self, number: int, detector: Detector, shown: Sequence[tuple[Case, Episode]]
    ) -> None:
        """Have one detector judge some episodes."""
        judgements = judge_together(detector, [episode for _, episode in shown], stops=True)
        for (case, episode), judgement in zip(shown, judgements, strict=True):
            picture = self._picture(case, episode)
            self.found.answers.append((case, number, judgement, picture))

    def _picture(self, case: Case, episode: Episode) -> str:
        """Keep the montage; returns its name, the same for all detectors that see the same."""
        if not self._montages:
            return ""
        name = _picture_name(self.job, case, self.geometry)
        if name not in self.found.files:
            picture = compose(episode, self.geometry)[..., ::-1]
            quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
            self.found.files[name] = cv2.imencode(".jpg", picture, quality)[1].tobytes()
        return name

    def problem(self, where: str, error: Exception) -> None:
        """List what could not be read."""
        self.found.problems.append(Problem(where, str(error).removeprefix(f"{where}: ")))


def _picture_name(job: Job, case: Case, geometry: MontageGeometry) -> str:
    words = (job.path, job.part, case.name, *map(str, vars(geometry).values()))
    code = hashlib.sha256("\0".join(words).encode(errors="surrogateescape")).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", case.name).strip("-")[-60:]
    return f"{MONTAGES}/{readable}-{code}.jpg"


def _result(job: Job, case: Case, model_id: str, judgement: Judgement, picture: str) -> Result:
    votes = judgement.votes
    return Result(
        detector=model_id,
        path=job.path,
        key=case.key,
        instruction=case.instruction,
        label=case.label,
        category=case.category,
        kind=case.kind,
        task=case.task,
        outcome=int(judgement.outcome),
        reason=int(judgement.reason),
        detail=judgement.detail,
        p_success=judgement.p_success,
        sources=tuple(v.source for v in votes),
        votes=tuple(int(v.value) for v in votes),
        p_votes=tuple(v.p_success for v in votes),
        weights=tuple(v.weight for v in votes),
        montage=picture,
        start_ns=case.start_ns,
        end_ns=case.end_ns,
        group=case.group,
    )


# --- bags


def _judge_bag(job: Job, asking: _Asking) -> None:
    """The episodes of a bag, as the live node would have judged them."""
    bag = Path(job.spec) / job.part
    answers = asking.found.answers
    before = len(answers)
    seen: list[tuple[uuid.UUID, EpisodeNote]] = []
    try:
        sidecar = read_sidecar(bag if bag.is_dir() else bag.parent)
        config = tracker_config_for(asking.first)
        episodes = BagEpisodes(bag, config, asking.geometry, topics=job.topics, sidecar=sidecar)
        try:
            asking.ask(_bag_cases(job, bag, episodes, sidecar, seen))
            notes_for(bag, [identifier for identifier, _ in seen], sidecar)
            if not seen:
                raise DataError(
                    "no episode was started in it; docs/evaluate.md says what starts one"
                )
        except BagError as error:  # what was judged before the damage stays
            asking.problem(str(bag), error)
    except DataError as error:  # where the sidecar does not fit, nobody knows whose labels it has
        del answers[before:]
        asking.problem(str(bag), error)
        return
    for place in range(before, len(answers)):
        case, *rest = answers[place]
        identifier, note = seen[case.number]
        labels = (note.success, episodes.labels.get(identifier), job.default_label)
        label = next((label for label in labels if label is not None), None)
        facts = facts_of(note, case.instruction, label)
        answers[place] = (replace(case, label=label, **facts), *rest)


def _bag_cases(
    job: Job,
    bag: Path,
    episodes: BagEpisodes,
    sidecar: Sidecar,
    seen: list[tuple[uuid.UUID, EpisodeNote]],
) -> Iterator[tuple[Case, Episode | Judgement]]:
    """The bag's episodes, without what is known of them when the bag has been read; `seen` gets
    each one's id and entry in the sidecar.
    """
    name = job.part or bag.resolve().name
    notes, offset_ns = sidecar.episodes, sidecar.stamp_offset_ns
    by_id = {} if sidecar.bounds_episodes else {note.episode_id: note for note in notes}
    for number, started in enumerate(episodes):
        verdict = started.verdict
        note = by_id.get(verdict.episode_id, EpisodeNote())
        if None in by_id or sidecar.bounds_episodes:  # the entries stand in the order of episodes
            note = notes[number] if number < len(notes) else note
        seen.append((verdict.episode_id, note))
        key = key_of(Path(job.spec), name, number, note)
        start_ns = episodes.starts.get(verdict.episode_id, 0)
        case = Case(
            number=number,
            name=f"{name}/{number}",
            key=key,
            instruction=job.instructions.get(key, verdict.instruction),
            group=note.group or name,
            start_ns=start_ns and start_ns - offset_ns,
            end_ns=verdict.end_ns and verdict.end_ns - offset_ns,
        )
        if started.episode is None:
            yield case, verdict.judgement
        else:
            yield case, replace(started.episode, instruction=case.instruction)


# --- data sets


def _judge_records(job: Job, asking: _Asking) -> None:
    """The records of a reader."""
    reader = open_reader(job.spec, keep_going=True)
    asking.ask(_record_cases(job, reader, asking))
    asking.found.problems += reader.problems


def _record_cases(
    job: Job, reader: EpisodeReader, asking: _Asking
) -> Iterator[tuple[Case, Episode | Judgement]]:
    wanted = asking.geometry
    for number, record in enumerate(reader):
        start_ns, end_ns = record.start_ns, record.end_ns
        case = Case(
            number=number,
            name=record.key,
            key=record.key,
            instruction=job.instructions.get(record.key, record.instruction),
            label=record.success,
            category=record.category,
            kind=record.kind,
            task=record.task,
            group=record.group,
            start_ns=record.stamps_ns[0] if start_ns is None else start_ns,
            end_ns=record.stamps_ns[-1] if end_ns is None else end_ns,
        )
        if record.num_pov < wanted.num_pov:
            raise ConfigError(
                f"{record.num_pov} PoV, and {asking.first.model_id} looks at {wanted.num_pov}: "
                "name the cameras, or take a detector of fewer PoV"
            )
        count = len(record.stamps_ns)
        if count < wanted.num_keyframes:
            detail = f"{count} time steps, {wanted.num_keyframes} keyframes are needed"
            yield case, Judgement.unknown(Reason.TOO_FEW_KEYFRAMES, detail)
            continue
        try:
            episode = record.episode(wanted.num_keyframes, wanted.num_pov, case.instruction)
        except DataError as error:
            asking.problem(f"{job.path}: {record.key}", error)
            continue
        yield case, fitted(episode, wanted)


def _judge_pairs(job: Job, asking: _Asking) -> None:
    """The pairs of one shard of a data set or a store."""
    shard = next((s for s in AskedSet(job.spec, job.split).shards() if s.name == job.part), None)
    if shard is None:
        raise DataError("is gone; give the same command again")
    for number, detector in asking.detectors:
        cases = _pair_cases(job, shard, detector, asking)
        while some := list(islice(cases, _BATCH)):
            asking.answer(number, detector, some)


def _pair_cases(
    job: Job, shard: Shard, detector: Detector, asking: _Asking
) -> Iterator[tuple[Case, Episode]]:
    ablation = shown_to(detector, None)
    questions = (q for found in shard.read() for q in questions_of(detector, found, ablation))
    for number, (row, episode) in enumerate(questions):
        key = f"{row.key}:{row.pair_id}"
        # A control is shown other pictures than the rest.
        name = f"{key}/{ablation.name}" if ablation != Ablation() else key
        case = Case(
            number=number,
            name=name,
            key=key,
            instruction=job.instructions.get(key, row.instruction),
            label=row.label,
            category=row.category,
            kind=row.kind,
            task=row.asked_task,
            group=row.group,
            start_ns=episode.start_ns,
            end_ns=episode.end_ns,
        )
        yield case, fitted(replace(episode, instruction=case.instruction), asking.geometry)


def fitted(episode: Episode, geometry: MontageGeometry) -> Episode:
    """The episode with its pictures at cell size, as the tracker would have kept them."""
    keyframes = tuple(
        Keyframe(k.stamp_ns, tuple(fit_cell(view, geometry) for view in k.views))
        for k in episode.keyframes
    )
    return replace(episode, keyframes=keyframes)
