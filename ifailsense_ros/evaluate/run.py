"""From bags and data sets to results: judge every episode, write the folder, count.

ifailsense evaluate bags/monday --labels monday.csv --detector sim-tiny baseline:always-success

Stopped and given again, the command goes on with what is left. Exit status: 0; 1 if something could
not be judged (it is listed, the rest is done); 2 for a mistake; 130 after Ctrl-C.
"""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import lru_cache, partial
from pathlib import Path

from ifailsense_ros import __version__
from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.failure_classes import FAILURE_CLASSES
from ifailsense_ros.data.records import EXPERT, Problem
from ifailsense_ros.data.rosbag import BagTopics
from ifailsense_ros.evaluate.asked import AskedSet
from ifailsense_ros.evaluate.baselines.names import workers_within_budget
from ifailsense_ros.evaluate.cases import PAIRS, Job, jobs_of
from ifailsense_ros.evaluate.judge import judge_job
from ifailsense_ros.evaluate.labels import Key, LabelBook
from ifailsense_ros.evaluate.predict import OPENED, OPENED_COLUMNS, OWN, TEST, note_opening
from ifailsense_ros.evaluate.predictions import shown_to
from ifailsense_ros.evaluate.results import (
    METRICS,
    Result,
    results_of_table,
    results_table,
    write_json,
    write_problems,
    write_results,
)
from ifailsense_ros.evaluate.spread import Work, spread
from ifailsense_ros.evaluate.summaries import Tally

FEW_JOBS = 8
"""So many are done in this process: starting others would take longer."""


@dataclass(frozen=True)
class Detectors:
    """Which detectors, and how to load them.

    Attributes:
        specs: names, as for `open_detector`.
        device: see `model.detector.load_detector`.
        guard: whether pictures unlike any in training are UNKNOWN.
        num_pov: N that all must have; None: each its own.
    """

    specs: tuple[str, ...]
    device: str = "auto"
    guard: bool = True
    num_pov: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        figures: by detector, see `summaries.figures_of`.
        problems: what could not be judged, and labels of nothing.
        rows: number of results.
    """

    figures: Mapping[str, dict]
    problems: Sequence[Problem]
    rows: int


@lru_cache(maxsize=1)
def load_detectors(which: Detectors) -> tuple[Detector, ...]:
    """The detectors, loaded once a process.

    Raises:
        ConfigError: two of them are the same, or one has another N than asked for.
        IFailSenseError: one cannot be loaded.
    """
    from ifailsense_ros.evaluate.baselines.load import open_detector

    found: dict[str, Detector] = {}
    for spec in which.specs:
        detector = open_detector(_with_pov(spec, which.num_pov), which.device, guard=which.guard)
        pov = detector.config.montage.num_pov
        if which.num_pov not in (None, pov):
            raise ConfigError(
                f"{spec}: looks at {pov} PoV, not {which.num_pov}; take a checkpoint trained with "
                "that many, or leave --num-pov out"
            )
        if detector.model_id in found:
            raise ConfigError(f"{spec}: {detector.model_id} is there already; name it once")
        found[detector.model_id] = detector
    return tuple(found.values())


def _with_pov(spec: str, num_pov: int | None) -> str:
    """A baseline's name with N among its options, where it can have any."""
    from ifailsense_ros.evaluate.baselines.names import is_baseline, parse_name

    if num_pov is None or not is_baseline(spec):
        return spec
    has_it = "pov" in parse_name(spec).options and ",pov=" not in spec
    return f"{spec},pov={num_pov}" if has_it else spec


def evaluate(
    paths: Sequence[str],
    which: Detectors,
    folder: str | Path,
    *,
    split: str | None = None,
    topics: BagTopics | None = None,
    labels: LabelBook | None = None,
    montages: bool = True,
    workers: int | None = None,
    ray: str | None = None,
    threads: int = 1,
    gpus: float = 0.0,
    command: Sequence[str] = (),
    opened: Path | None = None,
    progress: bool = True,
) -> Evaluation:
    """Judge everything, and write results, metrics and problems.

    Args:
        paths, split, topics, labels: see `cases.jobs_of`.
        which: the detectors.
        folder: of the results; what an earlier run has done there is not done again.
        montages: whether to keep the pictures that were judged.
        workers, ray, threads, gpus, progress: see `spread.spread`; without `workers` a few jobs
            are done in this process.
        command: for the record.
        opened: list in which the opening of a test split is noted; None: nowhere.

    Raises:
        ConfigError, DataError: as `cases.jobs_of`, `load_detectors` and `spread`.
    """
    jobs = jobs_of(paths, split=split, topics=topics, labels=labels)
    detectors = load_detectors(which)
    names = [detector.model_id for detector in detectors]
    settings = {
        "detectors": [[d.model_id, asdict(d.config.montage)] for d in detectors],
        "guard": which.guard,
        "montages": montages,
    }
    if opened is not None:
        _note_openings(opened, jobs, detectors, command)
    if workers is None and ray is None:
        workers = 0 if len(jobs) <= FEW_JOBS else _one_on_a_gpu(which)
    workers = workers_within_budget(which.specs, workers, ray)
    del detectors
    if workers != 0:
        load_detectors.cache_clear()  # the workers have their own
    work: Work[Result] = Work(
        partial(load_detectors, which),
        partial(judge_job, montages=montages),
        results_table,
        results_of_table,
        settings,
    )
    done = spread(
        jobs,
        work,
        folder,
        workers=workers,
        ray=ray,
        threads=threads,
        gpus=gpus,
        title="evaluate",
        progress=progress,
    )
    tally, book = Tally(), _Labelling(labels)
    meta = {
        "detectors": names,
        "paths": list(paths),
        "split": split or "",
        "labels": "" if labels is None else str(labels.file),
        "guard": which.guard,
        "topics": asdict(topics or BagTopics()),
        "release": __version__,
    }
    write_results(folder, tally.through(book.labelled(_once(done.rows(), book.problems))), meta)
    problems = [*done.problems(), *book.problems, *book.left_over(list(paths))]
    figures = tally.figures()
    write_problems(folder, problems)
    made = {
        **meta,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(command),
    }
    content = {"made": made, "problems": len(problems), "detectors": figures}
    write_json(Path(folder) / METRICS, content)
    return Evaluation(figures, problems, tally.count)


def _one_on_a_gpu(which: Detectors) -> int | None:
    """One worker where the detectors share a GPU, else what `spread` takes by itself."""
    torch = sys.modules.get("torch")
    shared = torch is not None and torch.cuda.is_available() and which.device != "cpu"
    return 1 if shared else None


def _once(rows: Iterable[Result], problems: list[Problem]) -> Iterator[Result]:
    """Each row once, even where a folder holds two bags whose sidecars use the same key."""
    seen: set[int] = set()
    for row in rows:
        code = hash((row.detector, row.path, row.key))
        if code in seen:
            what = "another episode of that path has the same key; only the first one counts"
            problems.append(Problem(f"{row.path}: {row.key}", what))
            continue
        seen.add(code)
        yield row


class _Labelling:
    """Puts a file of labels to the rows, and remembers which it was good for."""

    def __init__(self, book: LabelBook | None) -> None:
        self._book = book
        self._used: set[Key] = set()
        self.problems: list[Problem] = []

    def labelled(self, rows: Iterable[Result]) -> Iterator[Result]:
        """The rows with what the file says of them."""
        for row in rows:
            note = None if self._book is None else self._book.of(row.path).get(row.key)
            if note is None:
                yield row
                continue
            self._used.add((row.path, row.key))
            kind = note.kind or _kind(row.kind, note.label)
            category = note.category or row.category
            yield replace(row, label=note.label, kind=kind, category=category)

    def left_over(self, paths: list[str]) -> Iterator[Problem]:
        """Labels of episodes that there are not."""
        if self._book is None:
            return
        for path in paths:
            for key in self._book.of(path):
                if (path, key) not in self._used:
                    what = f"has a label in {self._book.file}, but was not judged: is there such an"
                    yield Problem(f"{path}: {key}", f"{what} episode?")
        for path in self._book.unknown_paths(paths):
            what = f"has labels in {self._book.file}, but is none of the paths that were evaluated"
            yield Problem(path, what)


def _kind(known: str, label: bool | None) -> str:
    """The kind that the data name, unless the label contradicts it."""
    fails = known in FAILURE_CLASSES or known == "semantic"
    if label is None or not known or fails != label:
        return known
    return EXPERT if label else ""


def _note_openings(
    file: Path, jobs: Sequence[Job], detectors: Sequence[Detector], command: Sequence[str]
) -> None:
    """Note which test splits are opened; going on with a stopped run opens nothing anew."""
    places = dict.fromkeys(job.spec for job in jobs if job.form == PAIRS and job.split == TEST)
    known: set[tuple[str, ...]] = set()
    if places and file.exists():
        with file.open(newline="", encoding="utf-8") as stream:
            known = {tuple(row[1:]) for row in csv.reader(stream)}
    for place in places:
        asked = AskedSet(place, TEST)
        for detector in detectors:
            meta = {
                "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "checkpoint": detector.model_id,
                "data": asked.name,
                "data_hash": asked.hash,
                "ablation": shown_to(detector, None).name,
                "phrasings": OWN,
                "command": shlex.join(command),
            }
            if tuple(meta[name] for name in OPENED_COLUMNS[1:]) not in known:
                note_opening(file, meta)


def default_log(folder: Path) -> Path:
    """`OPENED` where the command runs in a checkout, else in the results folder."""
    return OPENED if OPENED.parent.is_dir() else folder / OPENED.name
