"""One job judged: a bag, some records of a data set, or the pairs of a shard.

Every episode is read once for all detectors that want the same of it (`asking`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import BagError, ConfigError, DataError
from ifailsense_ros.core.verdict import Judgement, Reason
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.bag_sidecar import EpisodeNote, Sidecar, read_sidecar
from ifailsense_ros.data.readers import open_reader
from ifailsense_ros.data.readers.bag_episodes import notes_for
from ifailsense_ros.data.readers.rosbag import facts_of, key_of
from ifailsense_ros.data.records import EpisodeReader
from ifailsense_ros.evaluate.asked import AskedSet, Shard
from ifailsense_ros.evaluate.asking import BATCH, Asking, Case, Found, fitted, result_of
from ifailsense_ros.evaluate.cases import BAG, READER, Job
from ifailsense_ros.evaluate.job_shards import Done
from ifailsense_ros.evaluate.offline import BagEpisodes, geometry_of, tracker_config_for
from ifailsense_ros.evaluate.predictions import questions_of, shown_to


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
    found = Found()
    for numbers in _alike(detectors):
        asking = Asking(job, [(n, detectors[n]) for n in numbers], found, montages)
        if job.form == BAG:
            _judge_bag(job, asking)
        elif job.form == READER:
            _judge_records(job, asking)
        else:
            _judge_pairs(job, asking)
    found.answers.sort(key=lambda answer: (answer[0].number, answer[1]))
    rows = [
        result_of(job, case, detectors[number].model_id, judgement, picture)
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


# --- bags


def _judge_bag(job: Job, asking: Asking) -> None:
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


def _judge_records(job: Job, asking: Asking) -> None:
    """The records of a reader."""
    reader = open_reader(job.spec, keep_going=True)
    asking.ask(_record_cases(job, reader, asking))
    asking.found.problems += reader.problems


def _record_cases(
    job: Job, reader: EpisodeReader, asking: Asking
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


def _judge_pairs(job: Job, asking: Asking) -> None:
    """The pairs of one shard of a data set or a store."""
    shard = next((s for s in AskedSet(job.spec, job.split).shards() if s.name == job.part), None)
    if shard is None:
        raise DataError("is gone; give the same command again")
    for number, detector in asking.detectors:
        cases = _pair_cases(job, shard, detector, asking)
        while some := list(islice(cases, BATCH)):
            asking.answer(number, detector, some)


def _pair_cases(
    job: Job, shard: Shard, detector: Detector, asking: Asking
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
