"""The detector as the node's process sees it: how to make one, what it tells, how to ask it.

No torch here: `DetectorWorker` (model/worker.py) runs the detector in a process of its own,
`InProcessDetector` in a thread, for tests and tiny machines.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import re
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Protocol, TypeAlias

import numpy as np

from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.errors import ConfigError, DetectorStopped, IFailSenseError
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason, Vote, VoteValue
from ifailsense_ros.model.hub import is_on_hub

DEFAULT_FACTORY = "ifailsense_ros.model.detector:load_detector"
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class DetectorSpec:
    """How to make the detector.

    Attributes:
        factory: "module:callable"; the callable returns a `core.detection.Detector`.
        kwargs: its arguments.
        num_threads: for the detector's arithmetic; 0: all cores but one.
    """

    factory: str = DEFAULT_FACTORY
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    num_threads: int = 0

    def threads(self) -> int:
        """Number of threads meant by `num_threads`."""
        return self.num_threads or max(1, len(os.sched_getaffinity(0)) - 1)


class Wants(Protocol):
    """What the node must know of a checkpoint: the part of `CheckpointConfig` that it uses."""

    @property
    def montage(self) -> MontageSettings: ...

    @property
    def min_keyframes(self) -> int: ...


@dataclass(frozen=True)
class Ready:
    """The detector is loaded; it takes requests from now on."""

    model_id: str
    config: Wants


@dataclass(frozen=True)
class LoadFailed:
    """The detector cannot be loaded; `detail` is one line. Trying again would not help."""

    detail: str


@dataclass(frozen=True)
class Died:
    """The detector ended by itself; what it was judging is lost. `restart` makes a new one."""

    detail: str


@dataclass(frozen=True)
class Answer:
    """The judgement on a request."""

    request_id: int
    judgement: Judgement


WorkerEvent: TypeAlias = Ready | LoadFailed | Died | Answer


class DetectorHandle(Protocol):
    """What the node needs of a detector, wherever it runs."""

    def start(self) -> None:
        """Begin to load; `Ready` or `LoadFailed` will follow."""

    def submit(self, request_id: int, episode: Episode) -> None:
        """Have an episode judged; only after `Ready`, and one at a time."""

    def poll(self) -> list[WorkerEvent]:
        """What has happened since the last call, in order."""

    def restart(self) -> None:
        """Drop what is being judged and load anew; `Ready` or `LoadFailed` will follow."""

    def close(self) -> None:
        """End it; at once, whatever it does."""


def is_factory(text: str) -> bool:
    """Whether a text names an importable callable ("module:callable")."""
    return _FACTORY.fullmatch(text) is not None and not is_on_hub(text)


def make_detector(factory: str, kwargs: Mapping[str, Any]) -> Any:
    """Import the factory and call it.

    Raises:
        ConfigError: no such module or callable.
    """
    module, _, name = factory.partition(":")
    try:
        create = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"detector factory {factory!r} cannot be imported: {one_line(error)}"
        ) from error
    return create(**kwargs)


def warm_up(detector: Any) -> None:
    """Judge black pictures once: the first pass allocates, and on a GPU compiles, for seconds.
    What comes of it is ignored; a fault will show again with a real episode. A detector with
    `wants_warm_up = False` is left alone: what it is asked may cost money.
    """
    if not getattr(detector, "wants_warm_up", True):
        return
    m = detector.config.montage
    black = np.zeros((m.cell_height, m.cell_width, 3), np.uint8)
    keyframes = tuple(Keyframe(i, (black,) * m.num_pov) for i in range(m.num_keyframes))
    with contextlib.suppress(Exception):
        detector.judge(Episode(uuid.UUID(int=0), "warm up", keyframes, 0, m.num_keyframes))


def one_line(error: BaseException) -> str:
    """An exception's text as one line; its type too unless the text was written for people."""
    text = " ".join(str(error).split())
    if isinstance(error, IFailSenseError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def checked(judgement: Any) -> Judgement:
    """The same. A detector of one's own may return anything, and what fits no message would end
    the node when it is published.

    Raises:
        TypeError: it is no Judgement, or one of its fields, or a vote's, is of another kind.
    """
    if not isinstance(judgement, Judgement):
        raise TypeError(f"judge returned a {type(judgement).__name__}, not a Judgement")
    kinds = {"outcome": Outcome, "reason": Reason, "detail": str, "p_success": Real, "votes": tuple}
    _check_fields(judgement, kinds)
    for vote in judgement.votes:
        if not isinstance(vote, Vote):
            raise TypeError(f"one of the votes is a {type(vote).__name__}, not a Vote")
        _check_fields(vote, {"source": str, "value": VoteValue, "p_success": Real, "weight": Real})
    return judgement


def _check_fields(thing: Any, kinds: Mapping[str, type]) -> None:
    for name, kind in kinds.items():
        value = getattr(thing, name)
        if not isinstance(value, kind):
            where = f"{type(thing).__name__}.{name}"
            raise TypeError(f"{where} is a {type(value).__name__}, not a {kind.__name__}")


def judge_safely(detector: Any, episode: Episode, *, stops: bool = False) -> Judgement:
    """`detector.judge`, with exceptions as UNKNOWN / DETECTOR_ERROR and a traceback on stderr.

    Raises:
        DetectorStopped: with `stops`, which is for those who can end: a node must go on.
    """
    try:
        judgement = checked(detector.judge(episode))
    except MemoryError as error:
        return Judgement.unknown(Reason.DETECTOR_OUT_OF_MEMORY, f"out of memory: {error}")
    except IFailSenseError as error:  # says all in its one line
        if stops and isinstance(error, DetectorStopped):
            raise
        return Judgement.unknown(Reason.DETECTOR_ERROR, str(error))
    except Exception as error:
        traceback.print_exc()
        return Judgement.unknown(Reason.DETECTOR_ERROR, f"the detector failed: {one_line(error)}")
    return judgement


def judge_together(
    detector: Any, episodes: Sequence[Episode], *, stops: bool = False
) -> list[Judgement]:
    """`judge_safely` of several episodes, in one pass where the detector can do that.

    A detector that can has `judge_batch(episodes) -> list[Judgement]`. When that fails, they are
    judged one by one: what is wrong with one episode says nothing about the others. Raises as
    `judge_safely`.
    """
    if len(episodes) > 1 and hasattr(detector, "judge_batch"):
        try:
            judgements = list(detector.judge_batch(episodes))
            if len(judgements) == len(episodes):
                return [checked(judgement) for judgement in judgements]
            print("judge_batch did not return one Judgement an episode", file=sys.stderr)
        except DetectorStopped:
            if stops:
                raise
        except Exception:
            traceback.print_exc()
    return [judge_safely(detector, episode, stops=stops) for episode in episodes]


class InProcessDetector:
    """The detector in a thread of this process. A judgement that hangs cannot be killed here: after
    `restart`, `Ready` comes when it has ended.

    Args:
        spec: how to make the detector.
        on_event: as for `DetectorWorker`.
    """

    def __init__(self, spec: DetectorSpec, on_event: Callable[[], None] = lambda: None) -> None:
        self._spec = spec
        self._on_event = on_event
        self._events: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._generation = 0
        self._ready: Ready | None = None

    def start(self) -> None:
        """See `DetectorHandle`."""
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, request_id: int, episode: Episode) -> None:
        """See `DetectorHandle`."""
        self._requests.put((self._generation, request_id, episode))

    def poll(self) -> list[WorkerEvent]:
        """See `DetectorHandle`."""
        events: list[WorkerEvent] = []
        with contextlib.suppress(queue.Empty):
            while True:
                generation, event = self._events.get_nowait()
                if generation == self._generation:
                    events.append(event)
        return events

    def restart(self) -> None:
        """See `DetectorHandle`."""
        self._generation += 1
        self._requests.put((self._generation, None, None))

    def close(self) -> None:
        """See `DetectorHandle`."""
        self._generation += 1
        self._requests.put(None)

    def _run(self) -> None:
        try:
            detector = make_detector(self._spec.factory, self._spec.kwargs)
            warm_up(detector)
            ready = Ready(detector.model_id, detector.config)
        except Exception as error:
            self._tell(0, LoadFailed(one_line(error)))
            return
        self._tell(0, ready)
        while (request := self._requests.get()) is not None:
            generation, request_id, episode = request
            if episode is None:
                self._tell(generation, ready)
            else:
                self._tell(generation, Answer(request_id, judge_safely(detector, episode)))

    def _tell(self, generation: int, event: WorkerEvent) -> None:
        self._events.put((generation, event))
        self._on_event()
