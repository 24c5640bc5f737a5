"""From results folders to `report.html`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue
from ifailsense_ros.data.records import Problem
from ifailsense_ros.evaluate.metrics import RESAMPLES
from ifailsense_ros.evaluate.report.cards import Card, card_of
from ifailsense_ros.evaluate.report.episodes import JudgedEpisode, merge, worth_showing
from ifailsense_ros.evaluate.report.figures import comparisons, figures_of
from ifailsense_ros.evaluate.report.page import Contents, pieces
from ifailsense_ros.evaluate.report.pictures import INLINE_LIMIT, MODES, Picture, find_picture
from ifailsense_ros.evaluate.results import REPORT, RESULTS, Result, read_problems, read_results

MOST_SHOWN = 2000
"""Episodes in the gallery; beyond that a phone's browser gives up."""

_OUTCOMES, _REASONS, _VOTES = ({int(v) for v in e} for e in (Outcome, Reason, VoteValue))


@dataclass(frozen=True)
class WrittenReport:
    """What was written.

    Attributes:
        path: of the page.
        detectors, episodes: how many.
        shown: episodes in the gallery.
        inline: whether pictures are in the page itself.
        size: of the page, bytes.
        problems: listed on the page.
    """

    path: Path
    detectors: int
    episodes: int
    shown: int
    inline: bool
    size: int
    problems: int


def write_report(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    pictures: str = "auto",
    most_shown: int = MOST_SHOWN,
    resamples: int = RESAMPLES,
) -> WrittenReport:
    """Write the page; it appears only when it is complete.

    Args:
        folders: results folders; rows about the same episode are brought together.
        out: the page; None: `report.html` in the only folder.
        pictures: "inline" (one file), "beside" (links into the results folders), or "auto": inline
            unless they are more than `INLINE_LIMIT` bytes.
        most_shown: episodes in the gallery; mistakes and differences come first.
        resamples: of the intervals' bootstrap.

    Raises:
        DataError: a folder holds no results, or they cannot be read.
        ConfigError: no folder, several without `out`, settings out of range, or the page cannot be
            written.
    """
    if pictures not in MODES:
        raise ConfigError(f"--pictures {pictures}: must be one of {', '.join(MODES)}")
    if most_shown < 0:
        raise ConfigError(f"--gallery {most_shown}: must be 0 or more")
    paths = list(dict.fromkeys(Path(folder) for folder in folders))
    if not paths or (out is None and len(paths) > 1):
        raise ConfigError(f"{len(paths)} results folders: name the page with --out FILE.html")
    target = paths[0] / REPORT if out is None else Path(out)
    rows, made, problems = {}, [], []
    for path in paths:
        rows[path], meta = _checked(path)
        made.append((str(path), meta))
        problems += read_problems(path)
    merged = merge([(str(path), found) for path, found in rows.items()])
    shown = worth_showing(merged.episodes, most_shown)
    found, lost = _pictures(rows, shown)
    total = sum(p.size for p in {p for of in found.values() for _, p in of})
    inline = pictures == "inline" or (pictures == "auto" and total <= INLINE_LIMIT)
    detectors = [figures_of(name, merged.of(name), resamples) for name in merged.detectors]
    contents = Contents(
        title=_title(paths),
        merged=merged,
        detectors=detectors,
        comparisons=comparisons(merged, resamples),
        problems=[*problems, *merged.problems, *lost],
        made=made,
        shown=frozenset(e.number for e in shown),
        without_picture=sum(not found.get(e.number) for e in shown),
        page_folder=None if inline else target.parent,
    )
    cards = (card_of(e, merged.detectors, found.get(e.number, ())) for e in shown)
    size = _write(target, contents, cards)
    return WrittenReport(
        target,
        len(detectors),
        len(merged.episodes),
        len(shown),
        inline,
        size,
        len(contents.problems),
    )


def _title(paths: Sequence[Path]) -> str:
    return f"Evaluation: {', '.join(path.resolve().name for path in paths)}"


def _checked(folder: Path) -> tuple[list[Result], dict]:
    """Rows whose numbers mean something to this release.

    Raises:
        DataError: as `read_results`, or a number that is none of ours.
    """
    rows, meta = read_results(folder)
    for row in rows:
        same_length = len({len(v) for v in (row.sources, row.votes, row.p_votes, row.weights)}) == 1
        if (
            row.outcome not in _OUTCOMES
            or row.reason not in _REASONS
            or not (same_length and _VOTES.issuperset(row.votes))
        ):
            raise DataError(
                f"{folder / RESULTS}: the row of {row.key!r} in {row.path!r} has a verdict, a "
                "reason or votes that this release does not know; make it again with `ifailsense "
                "evaluate`"
            )
    return rows, meta


def _pictures(
    rows: Mapping[Path, Sequence[Result]], shown: Sequence[JudgedEpisode]
) -> tuple[dict[int, list[tuple[str, Picture]]], list[Problem]]:
    """Detector and montage by number of the episode, and what became of those that are missing."""
    folder_of = {id(row): folder for folder, found in rows.items() for row in found}
    known: dict[tuple[Path, str], Picture | str] = {}
    found: dict[int, list[tuple[str, Picture]]] = {}
    lost: list[Problem] = []
    for episode in shown:
        for detector, row in episode.results.items():
            if not row.montage:
                continue
            place = (folder_of[id(row)], row.montage)
            if place not in known:
                known[place] = find_picture(*place)
                if isinstance(known[place], str):
                    lost.append(Problem(f"{place[0]}/{row.montage}", f"montage {known[place]}"))
            picture = known[place]
            if isinstance(picture, Picture):
                found.setdefault(episode.number, []).append((detector, picture))
    return found, lost


def _write(target: Path, contents: Contents, cards: Iterator[Card]) -> int:
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            file.writelines(pieces(contents, cards))
        os.replace(part, target)
        return target.stat().st_size
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written ({error.strerror}: {error.filename or target})"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
