"""One detector for many: everybody gets exactly one judgement, whatever becomes of the detector."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason
from ifailsense_ros.model.dispatch import Dispatcher
from ifailsense_ros.model.handle import Answer, Died, judge_together

S = 1_000_000_000
GOOD = Judgement(Outcome.SUCCESS, p_success=0.9)


class Worker:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.batch: list[tuple[int, Episode]] = []
        self.restarts = 0

    def submit_batch(self, requests: Sequence[tuple[int, Episode]]) -> None:
        assert not self.batch, "one batch at a time"
        assert requests
        self.batch = list(requests)

    def restart(self) -> None:
        self.batch = []
        self.restarts += 1


class Bench:
    """A dispatcher, its worker, and what clients were told."""

    def __init__(self, per_client: int = 4, batch_size: int = 8) -> None:
        self.worker = Worker()
        self.dispatcher = Dispatcher(self.worker, per_client, batch_size, timeout_s=10.0)
        self.told: dict[str, Judgement] = {}

    def ask(self, client: str, word: str, patience_s: float = 0.0, now_ns: int = 0) -> None:
        episode = Episode(uuid.uuid4(), word, (), 0, 0)

        def reply(judgement: Judgement) -> None:
            assert word not in self.told, "told twice"
            self.told[word] = judgement

        self.dispatcher.ask(client, episode, patience_s, reply, now_ns)

    def ready(self, now_ns: int = 0) -> None:
        self.dispatcher.on_ready(now_ns)

    def answer(self, now_ns: int = 0) -> list[str]:
        """The worker answers its batch; which words were in it."""
        batch, self.worker.batch = self.worker.batch, []
        for request_id, _ in batch:
            self.dispatcher.on_answer(Answer(request_id, GOOD), now_ns)
        return [episode.instruction for _, episode in batch]

    def reasons(self) -> dict[str, Reason]:
        return {word: judgement.reason for word, judgement in self.told.items()}


def test_what_waits_is_judged_together_and_in_turns() -> None:
    bench = Bench(batch_size=3)
    for client, word in (("a", "a1"), ("a", "a2"), ("b", "b1"), ("c", "c1")):
        bench.ask(client, word)
    bench.ready()
    assert bench.answer(now_ns=2 * S) == ["a1", "b1", "c1"]
    assert bench.answer() == ["a2"]
    assert bench.told == dict.fromkeys(("a1", "b1", "c1", "a2"), GOOD)
    assert bench.dispatcher.batches == {3: 1, 1: 1}
    assert bench.dispatcher.clients["a"].counts == {"asked": 2, "judged": 2}
    assert bench.dispatcher.clients["b"].latency_ns == 2 * S


def test_too_many_of_one_client() -> None:
    bench = Bench(per_client=2)
    for word in ("1", "2", "3"):
        bench.ask("a", word)
    bench.ask("b", "4")
    assert bench.reasons() == {"3": Reason.QUEUE_FULL}
    bench.ready()
    assert bench.answer() == ["1", "4", "2"]


def test_an_episode_that_kills_the_detector_costs_nobody_else_a_verdict() -> None:
    bench = Bench()
    bench.ready()
    bench.ask("a", "first")
    for client, word in (("b", "good"), ("a", "evil"), ("c", "fine")):
        bench.ask(client, word)
    bench.answer()
    assert len(bench.worker.batch) == 3
    bench.dispatcher.on_died(Died("signal 9"))
    assert bench.told == {"first": GOOD}
    for word in ("good", "evil", "fine"):
        bench.ready()
        assert [episode.instruction for _, episode in bench.worker.batch] == [word]
        if word == "evil":
            bench.dispatcher.on_died(Died("signal 9"))
        else:
            bench.answer()
    assert bench.reasons()["evil"] is Reason.DETECTOR_ERROR
    assert bench.told["good"] == bench.told["fine"] == GOOD
    assert bench.worker.restarts == 2


def test_a_detector_that_hangs_is_restarted() -> None:
    bench = Bench()
    bench.ready()
    bench.ask("a", "endless")
    assert not bench.dispatcher.work(9 * S)
    assert bench.dispatcher.work(10 * S)
    assert bench.reasons() == {"endless": Reason.DETECTOR_TIMEOUT}
    assert not bench.dispatcher.work(20 * S)
    bench.ask("a", "next", now_ns=20 * S)
    bench.ready(20 * S)
    assert bench.answer() == ["next"]


def test_who_has_stopped_waiting_is_not_judged() -> None:
    bench = Bench()
    for word, patience in (("2 s", 2.0), ("for ever", 0.0), ("odd", float("nan"))):
        bench.ask("a", word, patience)
    bench.dispatcher.work(3 * S)
    bench.ready(3 * S)
    assert bench.reasons() == {"2 s": Reason.DETECTOR_TIMEOUT}
    assert bench.answer() == ["for ever", "odd"]


def test_names_from_the_network_do_not_fill_the_memory() -> None:
    bench = Bench()
    for number in range(300):
        bench.ask(f"client {number}", str(number))
    assert len(bench.dispatcher.clients) == 100
    bench.ready()
    while bench.answer():
        pass
    assert len(bench.told) == 300


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abc"), st.sampled_from((0.0, 1.0, 5.0))),
        st.sampled_from(("ready", "answer", "die", "wait")),
    ),
    max_size=50,
)


@given(STEPS)
def test_everybody_is_told_exactly_once(steps: list) -> None:
    bench = Bench(per_client=3, batch_size=4)
    asked, now, loaded = 0, 0, False
    for step in steps:
        if isinstance(step, tuple):
            bench.ask(step[0], str(asked), step[1], now)
            asked += 1
        elif step == "ready" and not loaded:
            loaded = True
            bench.ready(now)
        elif step == "answer":
            bench.answer(now)
        elif step == "die" and loaded:
            loaded = False
            bench.dispatcher.on_died(Died("gone"))
        elif step == "wait":
            now += 4 * S
            loaded = not bench.dispatcher.work(now) and loaded
    bench.dispatcher.settle_all(Judgement.unknown(Reason.DETECTOR_ERROR, "stopped"))
    assert set(bench.told) == set(map(str, range(asked)))
    for counts in (client.counts for client in bench.dispatcher.clients.values()):
        assert counts.total() == 2 * counts["asked"]


class Batcher:
    """Has `judge_batch`, which fails on a word."""

    def __init__(self, short: bool = False) -> None:
        self.passes: list[int] = []
        self._short = short

    def judge_batch(self, episodes: Sequence[Episode]) -> list[Judgement]:
        self.passes.append(len(episodes))
        if any(episode.instruction == "bad" for episode in episodes):
            raise RuntimeError("a bad one")
        return [GOOD] * (len(episodes) - self._short)

    def judge(self, episode: Episode) -> Judgement:
        return Batcher.judge_batch(self, [episode])[0] if not self._short else GOOD


def episodes_of(*words: str) -> list[Episode]:
    return [Episode(uuid.uuid4(), word, (), 0, 0) for word in words]


def test_judging_together_is_one_pass() -> None:
    detector = Batcher()
    assert judge_together(detector, episodes_of("x", "y", "z")) == [GOOD] * 3
    assert detector.passes == [3]


def test_one_bad_episode_spoils_no_other() -> None:
    judgements = judge_together(Batcher(), episodes_of("x", "bad", "z"))
    assert [j.reason for j in judgements] == [Reason.NONE, Reason.DETECTOR_ERROR, Reason.NONE]


@pytest.mark.parametrize("detector", [Batcher(short=True), object()])
def test_a_detector_that_cannot_judge_together(detector) -> None:
    judgements = judge_together(detector, episodes_of("x", "y"))
    expected = Outcome.SUCCESS if isinstance(detector, Batcher) else Outcome.UNKNOWN
    assert [j.outcome for j in judgements] == [expected] * 2
