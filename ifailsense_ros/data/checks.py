"""The rules a data set must keep to mean something (DESIGN section 9), checked on what is on disk.

Several data sets are checked together: a test set in one folder must not meet the training set in
another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ifailsense_ros.core.checkpoint import sha256_of
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.data.manifest import DataSet
from ifailsense_ros.data.negatives import label_z
from ifailsense_ros.data.sinks import hash_pictures
from ifailsense_ros.data.tally import Tally

MOST_Z = 4.0
"""A fair coin's counts are farther apart than this once in 16,000 times."""

FEW = 30
"""Shares of fewer negatives than that are not judged."""

_TEST = "split LIKE 'test%'"
_TRAINING = "split LIKE 'train%'"


@dataclass(frozen=True)
class Finding:
    """What came of one rule.

    Attributes:
        rule: its name.
        kept: whether it is.
        detail: what was counted, or what breaks it.
    """

    rule: str
    kept: bool
    detail: str


def check(
    folders: Sequence[Path], *, pictures: bool = True, shared_phrasings: bool = False
) -> Iterator[Finding]:
    """Check data sets, rule by rule.

    Args:
        folders: of the data sets, seen as one.
        pictures: decode every picture (most of the time goes there).
        shared_phrasings: test instructions may occur in training, as in the paper.

    Raises:
        DataError: a folder holds no data set, or its manifest cannot be read.
    """
    sets = [DataSet(folder) for folder in folders]
    yield _hashes(sets)
    yield _shards(sets)
    tally = Tally(sets)
    if pictures:
        yield _pictures(sets)
    for rule in (_groups, _episodes):
        yield rule(tally)
    if not shared_phrasings:
        yield _instructions(tally)
    for rule in (_both_labels, _twins, _truth, _phrasings, _tasks, _hard):
        yield rule(tally)


def _finding(rule: str, breaches: Iterator[str] | Sequence[str], kept: str) -> Finding:
    """Kept if nothing breaks it; else the first breaches and how many there are."""
    first: list[str] = []
    count = 0
    for breach in breaches:
        count += 1
        if len(first) < 3:
            first.append(breach)
    if not count:
        return Finding(rule, True, kept)
    more = f" and {count - len(first)} more" if count > len(first) else ""
    return Finding(rule, False, "; ".join(first) + more)


def _hashes(sets: Sequence[DataSet]) -> Finding:
    def breaches() -> Iterator[str]:
        for data in sets:
            for name, sha in data.summary["sha256"].items():
                if _sha(data.folder / name) != sha:
                    yield f"{data.folder / name} is not the file that manifest.json describes"

    return _finding("manifest", breaches(), "manifests and lists of problems are as written")


def _shards(sets: Sequence[DataSet]) -> Finding:
    def breaches() -> Iterator[str]:
        for data in sets:
            for name, entry in data.summary["shards"].items():
                if _sha(data.shard(name)) != entry["sha256"]:
                    yield f"{data.shard(name)} is missing or was changed"

    count = sum(len(data.summary["shards"]) for data in sets)
    return _finding("shards", breaches(), f"{count} files, every sha256 as listed")


def _sha(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _pictures(sets: Sequence[DataSet]) -> Finding:
    seen = 0

    def breaches() -> Iterator[str]:
        nonlocal seen
        bar = {"unit": "episode", "mininterval": 1}
        for data in sets:
            episodes = data.episodes(counted=False)
            for row, pairs in tqdm(episodes, desc=f"pictures of {data.folder}", **bar):
                where = f"{data.shard(pairs[0].shard)} row {pairs[0].row}"
                try:
                    row.decode_images()
                except DataError as error:
                    yield str(error)
                    continue
                seen += len(row.images)
                if hash_pictures(row.images) != pairs[0].episode_sha256:
                    yield f"{where}: other pictures than the manifest describes"

    def safe() -> Iterator[str]:
        try:
            yield from breaches()
        except DataError as error:  # a shard that cannot be read at all
            yield str(error)

    found = _finding("pictures", safe(), "")
    return Finding("pictures", True, f"{seen} decode") if found.kept else found


def _groups(tally: Tally) -> Finding:
    breaches = (
        f"{group} is in {splits}"
        for group, splits in tally.ask(
            "SELECT grp, GROUP_CONCAT(DISTINCT split) FROM rows GROUP BY grp "
            "HAVING COUNT(DISTINCT split) > 1"
        )
    )
    (count,) = tally.one("SELECT COUNT(DISTINCT grp) FROM rows")
    return _finding("groups", breaches, f"{count} scenes or sessions, none in two splits")


def _episodes(tally: Tally) -> Finding:
    breaches = (
        f"{key} is in {splits} (same pictures)"
        for key, splits in tally.ask(
            "SELECT MIN(key), GROUP_CONCAT(DISTINCT split) FROM rows GROUP BY sha "
            "HAVING COUNT(DISTINCT split) > 1"
        )
    )
    (count,) = tally.one("SELECT COUNT(DISTINCT sha) FROM rows")
    return _finding("episodes", breaches, f"{count} episodes by their pictures, none in two splits")


def _instructions(tally: Tally) -> Finding:
    breaches = (
        f"{text!r} is said in training and in test"
        for (text,) in tally.ask(
            f"SELECT DISTINCT instruction FROM rows WHERE {_TEST} AND instruction IN "
            f"(SELECT instruction FROM rows WHERE {_TRAINING})"
        )
    )
    (count,) = tally.one(f"SELECT COUNT(DISTINCT instruction) FROM rows WHERE {_TEST}")
    return _finding("instructions", breaches, f"{count} of the test splits, none in training")


def _both_labels(tally: Tally) -> Finding:
    breaches = (
        f"{source} {key}: {good} with success, {bad} with failure"
        for source, key, good, bad in tally.ask(
            "SELECT source, key, SUM(label), SUM(NOT label) FROM rows WHERE counted "
            "AND pairing = 'smf' GROUP BY folder, source, key, sha "
            "HAVING SUM(label) != 1 OR SUM(NOT label) != 1"
        )
    )
    (count,) = tally.one("SELECT COUNT(*) FROM rows WHERE counted AND pairing = 'smf'")
    kept = f"{count} SMF pairs, every episode once with either label"
    return _finding("both labels", breaches, kept)


def _twins(tally: Tally) -> Finding:
    breaches = (
        f"{source} {key}: no counted success with the same instruction beside it"
        for source, key in tally.ask(
            "SELECT source, key FROM rows f WHERE counted AND pairing = 'twins' AND NOT label "
            "AND NOT EXISTS (SELECT 1 FROM rows t WHERE t.folder = f.folder "
            "AND t.source = f.source AND t.key = f.twin AND t.label AND t.counted "
            "AND t.instruction = f.instruction)"
        )
    )
    (count,) = tally.one(
        "SELECT COUNT(*) FROM rows WHERE counted AND pairing = 'twins' AND NOT label"
    )
    return _finding("twins", breaches, f"{count} failures, each with its success beside it")


def _truth(tally: Tally) -> Finding:
    breaches = (
        f"pair {pair} ({source} {key}, {text!r}) contradicts what is known of the episode"
        for pair, source, key, text in tally.ask(
            "SELECT pair_id, source, key, instruction FROM rows WHERE counted AND ("
            "(label AND oracle IS NOT NULL AND oracle != 1) OR "
            "(NOT label AND oracle IS NOT NULL AND oracle != -1) OR "
            "(kind = 'semantic' AND (feasible = 0 OR asked = performed)) OR "
            "(label AND asked != performed))"
        )
    )
    (known,) = tally.one("SELECT COUNT(*) FROM rows WHERE counted AND oracle IS NOT NULL")
    kept = f"no label contradicts oracle or feasibility ({known} pairs have an oracle's word)"
    return _finding("truth", breaches, kept)


def _phrasings(tally: Tally) -> Finding:
    return _balance(
        tally,
        "phrasings",
        (
            "SELECT split || ', phrasing ' || phrasing, SUM(label), SUM(NOT label) FROM rows "
            "WHERE counted AND pairing = 'smf' AND phrasing IS NOT NULL "
            "GROUP BY source, split, phrasing",
            "SELECT split || ', ' || instruction, SUM(label), SUM(NOT label) FROM rows "
            "WHERE counted AND pairing = 'smf' GROUP BY source, split, instruction",
        ),
    )


def _tasks(tally: Tally) -> Finding:
    return _balance(
        tally,
        "tasks",
        (
            "SELECT split || ', ' || asked, SUM(label), SUM(NOT label) FROM rows "
            "WHERE counted AND pairing = 'smf' GROUP BY source, split, asked",
        ),
    )


def _balance(tally: Tally, rule: str, queries: Sequence[str]) -> Finding:
    """Each thing asked for is asked for as often with either label, to a coin's precision."""
    worst = 0.0

    def breaches() -> Iterator[str]:
        nonlocal worst
        for query in queries:
            for name, good, bad in tally.ask(query):
                worst = max(worst, label_z(good, bad))
                if label_z(good, bad) > MOST_Z:
                    yield f"{name}: {good} with success, {bad} with failure; build with --balance"

    found = _finding(rule, breaches(), "")
    kept = f"labels balance: at most {worst:.1f} standard deviations of a coin apart"
    return Finding(rule, True, kept) if found.kept else found


def _hard(tally: Tally) -> Finding:
    shares = [
        (name, hard / known, known)
        for name, hard, known in tally.ask(
            "SELECT source || ' ' || split, SUM(attributes = 1), COUNT(*) FROM rows "
            "WHERE counted AND kind = 'semantic' AND attributes > 0 GROUP BY source, split"
        )
    ]
    breaches = [
        f"{name}: only {share:.2f} are hard"
        for name, share, known in shares
        if share < 0.5 and known >= FEW
    ]
    text = ", ".join(f"{name} {share:.2f}" for name, share, _ in shares) or "not known"
    return _finding("hard negatives", breaches, f"share that differs in one attribute: {text}")
