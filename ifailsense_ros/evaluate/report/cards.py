"""The gallery's cards: an episode's montage, truth, verdicts and votes, ready for the template."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue
from ifailsense_ros.evaluate.mistakes import confidence
from ifailsense_ros.evaluate.report.episodes import JudgedEpisode
from ifailsense_ros.evaluate.report.pictures import Picture
from ifailsense_ros.evaluate.results import Result

RIGHT, MISSED, ALARM, NO_VERDICT, NO_LABEL, NOT_JUDGED = "rmaun-"
SAID = {
    RIGHT: "right",
    MISSED: "missed failure",
    ALARM: "false alarm",
    NO_VERDICT: "no verdict",
    NO_LABEL: "truth not known",
    NOT_JUDGED: "not judged",
}
"""One letter for what a verdict was worth, as cards are filtered by, and its words."""

_MARKS = {RIGHT: "✓", MISSED: "✗", ALARM: "✗", NO_VERDICT: "?", NO_LABEL: "·", NOT_JUDGED: "–"}


@dataclass(frozen=True)
class Ballot:
    """One voter: its name, what it said, p(success) and weight."""

    source: str
    vote: str
    p_success: float
    weight: float


@dataclass(frozen=True)
class Line:
    """What one detector said.

    Attributes:
        number: place of the detector.
        detector: its name.
        worth: key of `SAID`.
        outcome: name; "" where the detector did not judge the episode.
        confidence: of the verdict, 0..1; NaN for UNKNOWN.
        p_success: NaN for UNKNOWN.
        reason, detail: of UNKNOWN.
        ballots: its votes.
    """

    number: int
    detector: str
    worth: str
    outcome: str = ""
    confidence: float = math.nan
    p_success: float = math.nan
    reason: str = ""
    detail: str = ""
    ballots: tuple[Ballot, ...] = ()

    @property
    def mark(self) -> str:
        """A sign that needs no colour."""
        return _MARKS[self.worth]

    @property
    def said(self) -> str:
        """What the verdict was worth, in words."""
        return SAID[self.worth]


@dataclass(frozen=True)
class Shot:
    """A montage, and whose it is where detectors see different ones."""

    picture: Picture
    caption: str


@dataclass(frozen=True)
class Card:
    """An episode in the gallery."""

    episode: JudgedEpisode
    lines: tuple[Line, ...]
    shots: tuple[Shot, ...]

    @property
    def truth(self) -> str:
        """The label as a word."""
        return truth_of(self.episode)

    @property
    def outcomes(self) -> str:
        """One letter a detector: S, F, U or -."""
        return "".join(line.outcome[:1] or NOT_JUDGED for line in self.lines)

    @property
    def worths(self) -> str:
        """One letter a detector: keys of `SAID`."""
        return "".join(line.worth for line in self.lines)

    @property
    def sureness(self) -> str:
        """Confidences for sorting, comma between detectors; 0 where nothing was said."""
        values = (0.0 if math.isnan(line.confidence) else line.confidence for line in self.lines)
        return ",".join(f"{value:.4f}" for value in values)

    @property
    def alt(self) -> str:
        """What the picture is, for those who do not see it; the instruction stands beside it."""
        return f"montage of episode {self.episode.number}"


def truth_of(episode: JudgedEpisode) -> str:
    """The label as a word."""
    return "not known" if episode.label is None else "success" if episode.label else "failure"


def card_of(
    episode: JudgedEpisode, detectors: Sequence[str], pictures: Sequence[tuple[str, Picture]]
) -> Card:
    """The card of an episode.

    Args:
        episode: what was judged.
        detectors: all of the report, in their order.
        pictures: detector and montage, where there is one.
    """
    lines = tuple(_line(n, name, episode) for n, name in enumerate(detectors))
    return Card(episode, lines, tuple(_shots(pictures)))


def _line(number: int, detector: str, episode: JudgedEpisode) -> Line:
    result = episode.results.get(detector)
    if result is None:
        return Line(number, detector, NOT_JUDGED)
    outcome = Outcome(result.outcome)
    unknown = outcome is Outcome.UNKNOWN
    return Line(
        number,
        detector,
        _worth(result, episode),
        outcome.name,
        math.nan if unknown else confidence(result),
        result.p_success,
        Reason(result.reason).name if unknown else "",
        result.detail,
        tuple(_ballots(result)),
    )


def _worth(result: Result, episode: JudgedEpisode) -> str:
    if result.outcome == Outcome.UNKNOWN:
        return NO_VERDICT
    if episode.label is None:
        return NO_LABEL
    if episode.right(result.detector):
        return RIGHT
    return ALARM if episode.label else MISSED


def _ballots(result: Result) -> Iterator[Ballot]:
    for source, vote, p, weight in zip(
        result.sources, result.votes, result.p_votes, result.weights, strict=True
    ):
        said = VoteValue(vote).name.lower().replace("_", " ")
        yield Ballot(source, said, math.nan if p is None else p, weight)


def _shots(pictures: Sequence[tuple[str, Picture]]) -> Iterator[Shot]:
    """Every picture once, with the detectors that saw it where there are several pictures."""
    names: dict[Picture, list[str]] = {}
    for detector, picture in pictures:
        names.setdefault(picture, []).append(detector)
    for picture, of in names.items():
        yield Shot(picture, f"as seen by {', '.join(of)}" if len(names) > 1 else "")
