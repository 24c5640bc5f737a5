"""What a detector said of every pair of a data set: the one thing that results are made from.

Tables, plots, ablations of the votes and the gallery are computed from predictions; no model runs
twice to be looked at from another side.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError, DataError, text_of
from ifailsense_ros.core.verdict import Judgement, Outcome
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.experts import episode_of, with_keyframes
from ifailsense_ros.data.manifest import DataSet, ManifestRow
from ifailsense_ros.data.smf import Phrasings
from ifailsense_ros.evaluate.asked import POSITIVE, SEMANTIC, Asked, AskedSet, Shard

FORMAT = 1
"""Of the files; raised when a column changes its meaning."""

BATCH = 16
_META_KEY = b"ifailsense_predictions"


@dataclass(frozen=True)
class Prediction:
    """One pair and what a detector said of it.

    Attributes:
        pair_id, split, source, key, instruction, label, asked_task, performed_task, category,
            contrast, phrasing, kind, pairing, twin: as in `ManifestRow`; phrasing -1 where it has
            no number.
        outcome: number of the `Outcome`.
        reason: number of the `Reason`; 0 unless the outcome is UNKNOWN.
        p_success: NaN for UNKNOWN.
        sources, votes, p_votes, weights: of every voter: its name, the number of its `VoteValue`,
            its p_success (NaN where it abstained) and omega.
        montage_distance: of the montage to those of training; NaN without an out-of-distribution
            guard.
        counted: whether the pair belongs to the data set proper.
        unfiltered: whether it belongs to the unfiltered set.
        why_not_counted: "" if it counts, else one of `negatives.REASONS`.
    """

    pair_id: str
    split: str
    source: str
    key: str
    instruction: str
    label: bool
    asked_task: str
    performed_task: str
    category: str
    contrast: tuple[str, ...]
    phrasing: int
    kind: str
    pairing: str
    twin: str
    outcome: int
    reason: int
    p_success: float
    sources: tuple[str, ...]
    votes: tuple[int, ...]
    p_votes: tuple[float, ...]
    weights: tuple[float, ...]
    montage_distance: float = math.nan
    counted: bool = True
    unfiltered: bool = False
    why_not_counted: str = ""

    @property
    def right(self) -> bool:
        """UNKNOWN is wrong, whatever the truth (DESIGN 9.6)."""
        return self.outcome == (Outcome.SUCCESS if self.label else Outcome.FAILURE)

    @property
    def cluster(self) -> str:
        """The same for pairs that share a scene: both members of a pair, a failure and its twin."""
        success = self.key if self.kind == POSITIVE else self.twin or self.key
        return f"{self.source}/{success}"


class BatchDetector(Detector, Protocol):
    """A detector that judges several episodes in one pass."""

    def judge_batch(self, episodes: Sequence[Episode]) -> list[Judgement]:
        """As `judge`, of each."""
        ...


def predict(
    detector: BatchDetector,
    data: DataSet | str | Path,
    split: str,
    *,
    ablation: Ablation | None = None,
    phrasings: Phrasings | None = None,
    say: str | None = None,
    every_pair: bool = False,
    progress: bool = True,
) -> Iterator[Prediction]:
    """Judge every pair of a split, one shard in memory at a time.

    Args:
        detector: judges in this thread.
        data: data set, or the folder of one or of an episode store.
        split: which.
        ablation: what the detector is not shown; None: what its checkpoint was trained for.
        phrasings: ask in these words instead of the data's own; both members of a pair draw alike.
        say: put each sentence in this frame (`said_as`).
        every_pair: also the pairs that do not count; `Prediction.counted` tells them apart.
        progress: whether to draw a bar.

    Raises:
        DataError: the split is not there, or cannot be read.
        ConfigError: the episodes do not fit the checkpoint, or the frame has no place for them.
    """
    folder = data.folder if isinstance(data, DataSet) else data
    asked = AskedSet(folder, split, every_pair=every_pair)
    shown = shown_to(detector, ablation)
    total = asked.pair_count()
    with tqdm(total=total, desc=f"judge {asked.name} {split}", disable=not progress) as bar:
        for shard in asked.shards():
            yield from predict_shard(detector, shard, shown, phrasings, say, bar)


def predict_shard(
    detector: BatchDetector,
    shard: Shard,
    ablation: Ablation,
    phrasings: Phrasings | None = None,
    say: str | None = None,
    bar: tqdm | None = None,
) -> Iterator[Prediction]:
    """Judge the pairs of one shard, some at a time. Raises as `predict`."""
    questions = (
        question
        for found in shard.read()
        for question in questions_of(detector, found, ablation, phrasings, say)
    )
    # A detector of one's own need not know how to judge several at once.
    one_by_one = partial(map, detector.judge)
    judge = getattr(detector, "judge_batch", one_by_one)
    while some := list(islice(questions, BATCH)):
        judgements = judge([episode for _, episode in some])
        for (row, _), judgement in zip(some, judgements, strict=True):
            yield _prediction(row, judgement)
        if bar is not None:
            bar.update(len(some))


def shown_to(detector: Detector, ablation: Ablation | None) -> Ablation:
    """The ablation to judge under; controls carry theirs in their checkpoint's name.

    Raises:
        ConfigError: the one asked for is not the control's.
    """
    name = detector.config.name
    trained = Ablation(name.removeprefix("control-")) if name.startswith("control-") else None
    if ablation is None:
        return trained or Ablation()
    if trained is not None and ablation.name != trained.name:
        raise ConfigError(
            f"{detector.model_id}: a control trained with the ablation {trained.name}, to be "
            f"judged with the same, not with {ablation.name}; leave --ablation out"
        )
    return ablation


def questions_of(
    detector: Detector,
    found: Asked,
    ablation: Ablation,
    phrasings: Phrasings | None = None,
    say: str | None = None,
) -> Iterator[tuple[ManifestRow, Episode]]:
    """The pairs of one episode in the words they are asked in, as the detector shall see them.

    Raises:
        DataError: pictures that cannot be read, or a task without words.
        ConfigError: the episode does not fit the checkpoint.
    """
    row, pairs = found
    montage = detector.config.montage
    whole = episode_of(row, montage.num_pov)
    for pair in pairs:
        asked = pair if phrasings is None else _reworded(pair, phrasings)
        if say is not None:
            asked = replace(asked, instruction=said_as(asked.instruction, say))
        episode = ablation.apply(replace(whole, instruction=asked.instruction))
        yield asked, _fit(detector, pair.key, episode)


def said_as(instruction: str, frame: str) -> str:
    """The instruction as somebody else would say it: "Could you {instruction}?", "{Instruction}."

    Args:
        instruction: g.
        frame: text with `{instruction}`, or `{Instruction}` for a capital at its beginning, once.

    Raises:
        ConfigError: neither, or more than one.
    """
    if frame.count("{instruction}") + frame.count("{Instruction}") != 1:
        raise ConfigError(
            f"--say {frame!r}: name the place of the sentence once, e.g. "
            "'Could you {instruction}?'"
        )
    capital = instruction[:1].upper() + instruction[1:]
    return frame.replace("{instruction}", instruction).replace("{Instruction}", capital)


def _fit(detector: Detector, key: str, episode: Episode) -> Episode:
    """The episode with the checkpoint's T of its keyframes, as a monitor would pick them."""
    have, wanted = len(episode.keyframes), detector.config.montage.num_keyframes
    if wanted == 1 < have:
        raise ConfigError(
            f"{detector.model_id} looks at a single keyframe: say which with --ablation "
            "first_frame_only or last_frame_only"
        )
    try:
        return with_keyframes(episode, wanted)
    except DataError as error:
        raise ConfigError(f"{detector.model_id}: {key}: {error}") from None


def _reworded(pair: ManifestRow, phrasings: Phrasings) -> ManifestRow:
    """The same question in other words. A pair's two tasks, or a failure and its twin, draw alike.

    Raises:
        DataError: no words are known for the task.
    """
    if pair.asked_task not in phrasings.by_task:
        raise DataError(
            f"{pair.key}: the phrasings hold none of the task {pair.asked_task!r}; name the "
            "training data of the same world"
        )
    success = pair.key if pair.kind in (POSITIVE, SEMANTIC) else pair.twin
    rng = np.random.default_rng(zlib.crc32(f"{pair.source}/{success}".encode()))
    said = phrasings.draw(pair.asked_task, rng)
    return replace(pair, instruction=said, phrasing=None)


def _prediction(row: ManifestRow, judgement: Judgement) -> Prediction:
    votes = judgement.votes
    return Prediction(
        pair_id=row.pair_id,
        split=row.split,
        source=row.source,
        key=row.key,
        instruction=row.instruction,
        label=row.label,
        asked_task=row.asked_task,
        performed_task=row.performed_task,
        category=row.category,
        contrast=row.contrast,
        phrasing=-1 if row.phrasing is None else row.phrasing,
        kind=row.kind,
        pairing=row.pairing,
        twin=row.twin,
        outcome=int(judgement.outcome),
        reason=int(judgement.reason),
        p_success=judgement.p_success,
        sources=tuple(v.source for v in votes),
        votes=tuple(int(v.value) for v in votes),
        p_votes=tuple(v.p_success for v in votes),
        weights=tuple(v.weight for v in votes),
        montage_distance=judgement.montage_distance,
        counted=row.counted,
        unfiltered=row.unfiltered,
        why_not_counted=row.why_not_counted,
    )


_TYPES = {
    "label": pa.bool_(),
    "contrast": pa.list_(pa.string()),
    "phrasing": pa.int32(),
    "outcome": pa.int8(),
    "reason": pa.int8(),
    "p_success": pa.float64(),
    "sources": pa.list_(pa.string()),
    "votes": pa.list_(pa.int8()),
    "p_votes": pa.list_(pa.float64()),
    "weights": pa.list_(pa.float64()),
    "montage_distance": pa.float64(),
    "counted": pa.bool_(),
    "unfiltered": pa.bool_(),
}
_SCHEMA = pa.schema([(f.name, _TYPES.get(f.name, pa.string())) for f in fields(Prediction)])
_TUPLES = ("contrast", "sources", "votes", "p_votes", "weights")


def write_predictions(path: str | Path, rows: Iterable[Prediction], meta: Mapping[str, Any]) -> int:
    """Write predictions as a stream; the file appears only when it is complete.

    Args:
        path: parquet file to make.
        rows: the predictions.
        meta: how they were made: strings, numbers, lists and dicts of them.

    Returns:
        The number of rows.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    text = json.dumps({**meta, "format": FORMAT}, sort_keys=True)
    schema = _SCHEMA.with_metadata({_META_KEY: text.encode()})
    rows, count = iter(rows), 0
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        while some := list(islice(rows, 1000)):
            writer.write_table(pa.Table.from_pylist([vars(r) for r in some], schema=schema))
            count += len(some)
    os.replace(part, path)
    return count


def read_meta(path: str | Path) -> dict[str, Any]:
    """How predictions were made, without reading them.

    Raises:
        DataError: no such file, no predictions, or of another format.
    """
    try:
        schema = pq.read_schema(path)
        meta = json.loads((schema.metadata or {})[_META_KEY])
    except KeyError:
        raise DataError(
            f"{path}: holds no predictions; make them with `ifailsense predict`"
        ) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({text_of(error)}); make it with `ifailsense predict`"
        ) from None
    if meta.get("format") != FORMAT or schema.names != _SCHEMA.names:
        raise DataError(f"{path}: of another release; make it again with `ifailsense predict`")
    return meta


def read_predictions(path: str | Path) -> tuple[list[Prediction], dict[str, Any]]:
    """Predictions and how they were made.

    Raises:
        DataError: no such file, no predictions, or of another format.
    """
    meta = read_meta(path)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({text_of(error)}); make it with `ifailsense predict`"
        ) from None
    found = []
    for record in table.to_pylist():
        for name in _TUPLES:
            record[name] = tuple(record[name])
        found.append(Prediction(**record))
    return found, meta
