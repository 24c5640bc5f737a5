"""What there is to judge in a list of paths, cut into jobs, and how one job is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ifailsense_ros.core.detection import Detector
from ifailsense_ros.data.records import Problem
from ifailsense_ros.data.rosbag import BagTopics
from ifailsense_ros.evaluate.labels import LabelBook
from ifailsense_ros.evaluate.results import Result

BAG, READER, PAIRS = "bag", "reader", "pairs"


@dataclass(frozen=True)
class Job:
    """A part of a path that is judged in one go; picklable.

    Attributes:
        name: fit for a file name; another one when the files of the part, or what is asked about
            them, have changed.
        path: as the user gave it.
        part: bag below the path, "first:stop" of a data set's episodes, or shard; "": all of it.
        form: `BAG`, `READER` or `PAIRS`.
        spec: what is opened: folder, or reader's spec.
        split: of a data set or store; "" otherwise.
        topics: names in bags.
        instructions: key -> what is asked instead of the recorded instruction.
    """

    name: str
    path: str
    part: str
    form: str
    spec: str
    split: str = ""
    topics: BagTopics = field(default_factory=BagTopics)
    instructions: Mapping[str, str] = field(default_factory=dict)


def jobs_of(
    paths: Sequence[str],
    *,
    split: str | None = None,
    topics: BagTopics | None = None,
    labels: LabelBook | None = None,
    salt: str = "",
) -> list[Job]:
    """All jobs of some paths, in the order of the paths.

    Args:
        paths: rosbag2 folders, folders of them, LeRobot data sets, data sets with a manifest,
            episode stores, or readers' specs (``name:path?option=value``).
        split: of data sets and stores; None: the only one there is.
        topics: names in bags; None: the node's defaults.
        labels: whose instructions are asked instead of the recorded ones.
        salt: goes into the names of the jobs: what else results depend on (the detectors).

    Raises:
        ConfigError: a spec that makes no sense, or a data set of several splits and none is named.
        DataError: a path that is not there, or with nothing in it that could be judged.
    """
    raise NotImplementedError


def judge_job(
    job: Job, detectors: Sequence[Detector], *, montages: Path | None = None
) -> tuple[list[Result], list[Problem]]:
    """Judge one job with every detector.

    Args:
        job: of `jobs_of`.
        detectors: judge in this thread; each episode is read once for those that want the same
            keyframes.
        montages: folder for the pictures that were judged; None: no pictures are written.

    Returns:
        The results, episode by episode, each by every detector; and what could not be read, one
        line each.
    """
    raise NotImplementedError
