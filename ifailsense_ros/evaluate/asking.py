"""Episodes asked of several detectors at once, and what is kept of their answers.

Detectors that want the same keyframes at the same size are asked about the same `Episode`s, some at
a time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import cv2

from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.errors import IFailSenseError
from ifailsense_ros.core.montage import MontageGeometry, compose, fit_cell
from ifailsense_ros.core.verdict import Judgement
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate.cases import Job
from ifailsense_ros.evaluate.offline import geometry_of
from ifailsense_ros.evaluate.results import MONTAGES, Result
from ifailsense_ros.model.handle import judge_together

BATCH = 8
"""Episodes asked about at a time."""
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
class Found:
    """What has come of a job so far.

    Attributes:
        answers: case, number of the detector, its judgement, name of the picture.
        problems: what could not be read.
        files: the pictures, by name.
    """

    answers: list[tuple[Case, int, Judgement, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


class Asking:
    """Detectors that want the same pictures, and where their answers go."""

    def __init__(
        self,
        job: Job,
        detectors: Sequence[tuple[int, Detector]],
        found: Found,
        montages: bool,
    ) -> None:
        self.job, self.found = job, found
        self.detectors = detectors
        self.first = detectors[0][1]
        self.geometry: MontageGeometry = geometry_of(self.first)
        self._montages = montages

    def ask(self, cases: Iterable[tuple[Case, Episode | Judgement]]) -> None:
        """Have episodes judged; what has a judgement already keeps it. Those that came before an
        error are judged.
        """
        some: list[tuple[Case, Episode | Judgement]] = []
        try:
            for case in cases:
                some.append(case)
                if len(some) == BATCH:
                    self._ask(some)
                    some = []
        except IFailSenseError:
            self._ask(some)
            raise
        self._ask(some)

    def _ask(self, some: Sequence[tuple[Case, Episode | Judgement]]) -> None:
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


def result_of(job: Job, case: Case, model_id: str, judgement: Judgement, picture: str) -> Result:
    """The row of an answer."""
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


def fitted(episode: Episode, geometry: MontageGeometry) -> Episode:
    """The episode with its pictures at cell size, as the tracker would have kept them."""
    keyframes = tuple(
        Keyframe(k.stamp_ns, tuple(fit_cell(view, geometry) for view in k.views))
        for k in episode.keyframes
    )
    return replace(episode, keyframes=keyframes)
