"""What every reader of recorded episodes yields: metadata first, pictures only when asked for.

One way in for each kind of data: CALVIN, DROID, LeRobot, AHA, bags and the simulator all become
`EpisodeRecord`s, and everything after that (pairing, training, evaluation) is shared.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.errors import DataError
from ifailsense_ros.core.keyframes import select_keyframes

EXPERT = "expert"
"""`EpisodeRecord.kind` of an episode that did what its instruction says."""

UNFINISHED = "unfinished"
"""Kind of an expert episode that ends before its task came true: nothing went wrong, it is only not
done. No class of failure, and in no data set unless it is asked for."""


@dataclass(frozen=True)
class Problem:
    """A part of a data set that could not be read.

    Attributes:
        where: file, and the episode in it if there are several.
        what: one line: the field, what is wrong with it, what to do.
    """

    where: str
    what: str


@dataclass(frozen=True)
class Negative:
    """A wrong instruction that comes with an episode: another task of the same category."""

    task: str
    instruction: str


@dataclass(frozen=True, eq=False)
class EpisodeRecord:
    """One recorded episode, as much of it as is known without decoding a picture.

    Attributes:
        source: name of the data set or world ("calvin", "desk", ...).
        key: names the episode within its source; enough for a person to find it again.
        group: what a split must not cut through: scene seed, recording session or scene.
        instruction: the language goal the episode was recorded under.
        task: what was carried out, "" where the data do not say.
        category: task category of `task`, "" where unknown.
        kind: `EXPERT`, or the class of failure ("drop", ...); "" where unknown.
        success: whether the instruction was carried out; None where the data do not say.
        stamps_ns: stamps of all time steps, ascending, nanoseconds.
        num_pov: N.
        read: gives the time steps of these indices, decoded; raises DataError.
        negative: designated wrong instruction, where the source has one.
        outcomes: task -> 1 (came true), 0 (disputed), -1 (did not); empty without an oracle.
        feasible: tasks that were possible at the start; None where that is not known.
        phrasing: index of the phrasing, where there is a table of them.
        twin: key of the success of the same scene and phrasing, for a control failure.
        start_ns: stamp of START; None: the first time step's.
        end_ns: stamp of END; None: the last time step's.
    """

    source: str
    key: str
    group: str
    instruction: str
    task: str
    category: str
    kind: str
    success: bool | None
    stamps_ns: tuple[int, ...]
    num_pov: int
    read: Callable[[Sequence[int]], tuple[Keyframe, ...]]
    negative: Negative | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    feasible: tuple[str, ...] | None = None
    phrasing: int | None = None
    twin: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None

    @property
    def episode_id(self) -> uuid.UUID:
        """The same for the same source and key."""
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.source}/{self.key}")

    def keyframes(self, num_keyframes: int) -> tuple[Keyframe, ...]:
        """T evenly spaced time steps with all their views, decoded.

        Raises:
            DataError: fewer time steps, or pictures that cannot be read.
        """
        try:
            picks = select_keyframes(self.stamps_ns, num_keyframes)
        except ValueError as error:
            raise DataError(f"{self.source} {self.key}: {error}") from error
        return self.read(picks)

    def episode(self, num_keyframes: int, num_pov: int, instruction: str | None = None) -> Episode:
        """The episode with T evenly spaced keyframes (paper, Sec. III-A), as every source gives it.

        Args:
            num_keyframes: T.
            num_pov: N, at most the record's.
            instruction: judged instead of the recorded one.

        Raises:
            DataError: fewer time steps or PoV than asked for, or pictures that cannot be read.
        """
        if num_pov > self.num_pov:
            raise DataError(
                f"{self.source} {self.key}: {self.num_pov} PoV, {num_pov} asked for; "
                "ask for fewer, or use a data set with a gripper camera"
            )
        seen = self.keyframes(num_keyframes)
        keyframes = tuple(Keyframe(k.stamp_ns, k.views[:num_pov]) for k in seen)
        first, last = self.stamps_ns[0], self.stamps_ns[-1]
        return Episode(
            episode_id=self.episode_id,
            instruction=self.instruction if instruction is None else instruction,
            keyframes=keyframes,
            start_ns=first if self.start_ns is None else self.start_ns,
            end_ns=last if self.end_ns is None else self.end_ns,
        )


class EpisodeReader(Protocol):
    """Iterates over a data set, one record at a time; never holds all of it.

    A part that cannot be read raises DataError naming file and field; a reader made with
    `keep_going` notes it in `problems` instead and goes on.

    Attributes:
        source: name of the data set or world.
        problems: what was left out so far, and why.
    """

    source: str
    problems: list[Problem]

    def __iter__(self) -> Iterator[EpisodeRecord]:
        """The records, in the order of the data set."""
        ...
