"""What there is to judge in a list of paths, cut into jobs that can be done anywhere.

A job is a bag, some episodes of a data set, or a shard of a store; `spread` hands them out,
`judge.judge_job` does one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlencode

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.data.episode_store import list_shards
from ifailsense_ros.data.manifest import SUMMARY, DataSet
from ifailsense_ros.data.readers import READERS, open_reader, parse_spec
from ifailsense_ros.data.readers.rosbag import RosbagReader
from ifailsense_ros.data.rosbag import BagTopics
from ifailsense_ros.evaluate.asked import AskedSet
from ifailsense_ros.evaluate.job_shards import fingerprint_of
from ifailsense_ros.evaluate.labels import LabelBook

BAG, READER, PAIRS = "bag", "reader", "pairs"


@dataclass(frozen=True)
class Job:
    """A part of a path that is judged in one go; picklable. See `spread.Job`.

    Attributes:
        path: as the user gave it.
        part: bag below the path, episodes of a data set ("0:32"), or shard; "": all of it.
        form: `BAG`, `READER` or `PAIRS`.
        spec: what is opened: bag or folder of bags, reader's spec, or folder of shards.
        fingerprint: changes with the files.
        split: of a data set or store; "" otherwise.
        topics: names in bags.
        default_label: of a bag's episodes that have none.
        instructions: key -> what is asked instead of the recorded instruction.
    """

    path: str
    part: str
    form: str
    spec: str
    fingerprint: str
    split: str = ""
    topics: BagTopics = field(default_factory=BagTopics)
    default_label: bool | None = None
    instructions: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        """Another one for every job, and when what it reads or asks has changed."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]

    @property
    def where(self) -> str:
        """What people call it."""
        return f"{self.path}: {self.part}" if self.part else self.path


def jobs_of(
    paths: Sequence[str],
    *,
    split: str | None = None,
    topics: BagTopics | None = None,
    labels: LabelBook | None = None,
) -> list[Job]:
    """All jobs of some paths, in the order of the paths.

    Args:
        paths: rosbag2 folders, folders of them, LeRobot data sets, data sets with a manifest,
            episode stores, or readers' specs (``name:path?option=value``).
        split: of data sets and stores; None: the only one there is.
        topics: names in bags; None: the node's defaults.
        labels: whose instructions are asked instead of the recorded ones.

    Raises:
        ConfigError: a spec that makes no sense, a path given twice, or a data set of several splits
            and none is named.
        DataError: a path that is not there, or with nothing in it that could be judged.
    """
    found: list[Job] = []
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise ConfigError(f"{path}: is given twice; give it once")
        notes = {} if labels is None else labels.of(path)
        asked = {key: note.instruction for key, note in notes.items() if note.instruction}
        found += _jobs_of(path, split, topics or BagTopics(), asked)
    return found


def _jobs_of(
    path: str, split: str | None, topics: BagTopics, asked: Mapping[str, str]
) -> Iterator[Job]:
    name, place, options = _named(path)
    if name == "rosbag":
        if options:
            open_reader(path)  # says what is wrong with an option
        yield from _bags(path, RosbagReader(place, **{**asdict(topics), **options}), asked)
    elif name in ("smf", "store"):
        if unknown := sorted(set(options) - {"split"}):
            raise ConfigError(f"{path}: no option {unknown[0]!r}: there is split")
        yield from _shards(path, Path(place), options.get("split", split), asked)
    elif name == "lerobot":
        yield from _spans(path, place, options, asked)
    else:
        open_reader(path)  # says what is wrong with it
        yield Job(path, "", READER, path, fingerprint_of([Path(place)]), instructions=asked)


def _named(path: str) -> tuple[str, str, dict[str, str]]:
    """Name of the format, place and options of what the user gave."""
    if not Path(path).exists():
        head = path.partition(":")[0]
        if head == "smf":
            _, place, options = parse_spec(f"store:{path[len(head) + 1 :]}")
            return head, place, options
        if head in READERS and ":" in path:
            return parse_spec(path)
        raise DataError(
            f"{path}: no such file or folder; give bags, data sets, or name:path with one of the "
            f"names {', '.join(sorted(READERS))}"
        )
    folder = Path(path)
    if (folder / SUMMARY).is_file():
        return "smf", path, {}
    if (folder / "meta" / "info.json").is_file():
        return "lerobot", path, {}
    if folder.is_dir() and list_shards(folder):
        return "store", path, {}
    return "rosbag", path, {}


def _bags(path: str, reader: RosbagReader, asked: Mapping[str, str]) -> Iterator[Job]:
    for bag in reader.bags():
        # As in `readers.rosbag.key_of`.
        folders = (f"{reader.name_of(bag)}/", f"{reader.path.resolve().name}/")
        yield Job(
            path,
            "" if bag == reader.path else reader.name_of(bag),
            BAG,
            str(reader.path),
            fingerprint_of([bag]),
            topics=reader.topics,
            default_label=reader.default_label,
            instructions={k: text for k, text in asked.items() if k.startswith(folders)},
        )


def _spans(
    path: str, place: str, options: Mapping[str, str], asked: Mapping[str, str]
) -> Iterator[Job]:
    from ifailsense_ros.evaluate.label import LerobotSource, label_jobs

    open_reader(f"lerobot:{place}?{urlencode(options)}")  # says what is wrong with an option
    rest = {k: v for k, v in options.items() if k != "episodes"}
    wanted = options.get("episodes", "")
    for span in label_jobs(LerobotSource(Path(place), rest)):
        first, end = _within(wanted, span.first, span.end)
        if first < end:
            part = f"{first}:{end}"
            spec = f"lerobot:{place}?{urlencode({**rest, 'episodes': part})}"
            yield Job(path, part, READER, spec, span.fingerprint, instructions=asked)


def _within(wanted: str, first: int, end: int) -> tuple[int, int]:
    """The part of a span of episodes that lies within "FIRST:END"."""
    low, _, high = wanted.partition(":")
    return max(first, int(low or 0)), min(end, int(high)) if high else end


def _shards(path: str, folder: Path, split: str | None, asked: Mapping[str, str]) -> Iterator[Job]:
    split = split or _only_split(path, folder)
    for shard in AskedSet(folder, split).shards():
        is_set = (folder / SUMMARY).is_file()
        files = [folder / SUMMARY, DataSet(folder).shard(shard.name)] if is_set else []
        yield Job(
            path,
            shard.name,
            PAIRS,
            str(folder),
            fingerprint_of(files or [folder / shard.name]),
            split=split,
            instructions=asked,
        )


def _only_split(path: str, folder: Path) -> str:
    """The split of a data set or store that has just one."""
    if (folder / SUMMARY).is_file():
        splits = {row.split for row in DataSet(folder).rows(counted=True)}
    else:
        splits = {file.name.rsplit("-", 2)[0] for file in list_shards(folder)}
    if len(splits) != 1:
        there = ", ".join(sorted(splits)) or "none"
        raise ConfigError(f"{path}: has the splits {there}: name one with --split")
    return splits.pop()
