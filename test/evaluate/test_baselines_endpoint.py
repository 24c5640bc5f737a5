"""The endpoint baseline against a stub server on this machine: what is sent, read and paid."""

from __future__ import annotations

import base64
import json
import logging
import math
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from baseline_episodes import make_episode
from stub_endpoint import refused, said, stub_endpoint

from ifailsense_ros.cli import main
from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue
from ifailsense_ros.evaluate.baselines.budget import Budget, BudgetSpent
from ifailsense_ros.evaluate.baselines.endpoint import IN_A_ROW, EndpointError, expected_tokens
from ifailsense_ros.evaluate.baselines.formats import FORMATS
from ifailsense_ros.evaluate.baselines.load import open_detector
from ifailsense_ros.model.handle import judge_safely, judge_together, warm_up

pytest.importorskip("openai")

DEMO = Path(__file__).parents[2] / "bags" / "demo"
KEY = "sk-secret-of-the-test"


@pytest.fixture
def ask(monkeypatch):
    """Run episodes through `baseline:openai:stub` with options against a script."""

    def run(script, *episodes, options="", hang=None):
        with stub_endpoint(script, hang) as stub:
            monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            detector = open_detector(f"baseline:openai:stub,cell=32{options}")
            judgements = [detector.judge(episode) for episode in episodes]
        return judgements, stub, detector

    return run


def test_sends_the_montage_and_the_documented_question_and_nothing_else(ask):
    episode = make_episode("lift the  red\nblock")
    (judgement,), stub, detector = ask(lambda *_: said("Success."), episode)
    assert judgement.outcome is Outcome.SUCCESS
    assert judgement.p_success == 1.0
    (request,) = stub.requests
    assert request["model"] == "stub"
    assert request["temperature"] == 0
    (message,) = request["messages"]
    image, text = message["content"]
    template = FORMATS["question"].template(MontageSettings(4, 2, 32, 32))
    asked = template.replace("<image>\n", "").replace("{instruction}", "lift the red block")
    assert text == {"type": "text", "text": asked}
    assert image["image_url"]["detail"] == "high"
    kind, _, data = image["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(
        picture[..., ::-1], compose(episode, MontageGeometry(2, 4, 32, 32))
    )
    assert stub.keys == [f"Bearer {KEY}"]
    assert detector.budget.spent == 1000
    host = stub.url.removeprefix("http://").removesuffix("/v1")
    assert detector.model_id == f"stub@{host}+question"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("fail", Outcome.FAILURE),
        ("**Failure**", Outcome.FAILURE),
        (" success\n", Outcome.SUCCESS),
        ("The robot succeeded.", Outcome.UNKNOWN),
        ("success or fail", Outcome.UNKNOWN),
        ("no success", Outcome.UNKNOWN),
        ("", Outcome.UNKNOWN),
        (None, Outcome.UNKNOWN),
    ],
)
def test_answers_are_read_strictly(ask, answer, outcome):
    (judgement,), _, _ = ask(lambda *_: said(answer), make_episode())
    assert judgement.outcome is outcome
    if outcome is Outcome.UNKNOWN:
        assert judgement.reason is Reason.VLM_ABSTAINED
        assert [v.value for v in judgement.votes] == [VoteValue.ABSTAIN]
        assert "success, fail, failure" in judgement.detail


def test_ahas_format(ask):
    answers = ["No, The robot slip the object out of its gripper.", "Yes, well done", "Nothing"]
    judgements, stub, _ = ask(
        lambda _body, number: said(answers[number]), *[make_episode()] * 3, options=",format=aha"
    )
    assert [j.outcome for j in judgements] == [Outcome.FAILURE, Outcome.SUCCESS, Outcome.UNKNOWN]
    assert "performing lift the red block." in stub.requests[0]["messages"][0]["content"][1]["text"]


def test_a_refusal_is_an_abstention(ask):
    script = [said(None, refusal="I cannot help with that"), refused(400, "content_filter")]
    judgements, _, _ = ask(lambda _body, number: script[number], *[make_episode()] * 2)
    assert {j.reason for j in judgements} == {Reason.VLM_ABSTAINED}
    assert "I cannot help with that" in judgements[0].detail


def test_probability_from_the_endpoint(ask):
    def with_logprobs(*_):
        status, body = said("Fail")
        others = [("Fail", -0.5), ("Success", -1.5), ("suc", -1.0), ("The", -0.1), ("", -0.2)]
        top = [{"token": t, "logprob": p, "bytes": None} for t, p in others]
        first = {"token": "Fail", "logprob": -0.5, "bytes": None, "top_logprobs": top}
        quote = {"token": '"', "logprob": -0.1, "bytes": None, "top_logprobs": []}
        body["choices"][0]["logprobs"] = {"content": [quote, first], "refusal": None}
        return status, body

    (judgement,), stub, _ = ask(with_logprobs, make_episode(), options=",logprobs=yes")
    assert stub.requests[0]["top_logprobs"] == 20
    assert judgement.outcome is Outcome.FAILURE
    assert judgement.p_success == pytest.approx(1 / (1 + math.exp(0.5)))


def test_what_may_be_better_next_time_is_retried(ask):
    script = [refused(429), refused(503), said("fail")]
    (judgement,), stub, detector = ask(lambda _body, number: script[number], make_episode())
    assert judgement.outcome is Outcome.FAILURE
    assert len(stub.requests) == 3
    assert detector.budget.requests == 1


def test_retries_end_in_unknown_with_what_was_said(ask):
    (judgement,), stub, detector = ask(
        lambda *_: refused(500, text="on fire"), make_episode(), options=",retries=1"
    )
    assert len(stub.requests) == 2
    assert judgement.reason is Reason.DETECTOR_ERROR
    assert "status 500" in judgement.detail and "on fire" in judgement.detail
    assert detector.budget.spent == 0


def test_no_answer_is_a_timeout_and_counts_as_paid(ask):
    (judgement,), _, detector = ask(
        lambda *_: said("fail"),
        make_episode(),
        options=",retries=0,timeout=0.2",
        hang=threading.Event(),
    )
    assert judgement.reason is Reason.DETECTOR_TIMEOUT
    assert "0.2 s, 1 time" in judgement.detail
    assert detector.budget.spent > 85


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, ""), (404, "model_not_found"), (400, ""), (429, "insufficient_quota")],
)
def test_what_will_not_heal_stops_at_once(ask, status, code):
    with pytest.raises(EndpointError, match=f"status {status}.*\\(key\\)") as raised:
        ask(
            lambda *_: refused(status, code, f"bad key {KEY}"), make_episode(), options=",retries=0"
        )
    assert KEY not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_endpoint_that_is_down_stops_after_some(ask, monkeypatch):
    with pytest.raises(EndpointError, match=f"{IN_A_ROW}th failure in a row"):
        ask(lambda *_: refused(502), *[make_episode()] * IN_A_ROW, options=",retries=0")
    judgements, _, _ = ask(
        lambda _body, number: said("fail") if number % 4 == 3 else refused(502),
        *[make_episode()] * 12,
        options=",retries=0",
    )
    assert [j.outcome for j in judgements].count(Outcome.FAILURE) == 3
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    judgement = open_detector("baseline:openai:stub,retries=0,cell=32").judge(make_episode())
    assert judgement.reason is Reason.DETECTOR_ERROR
    assert "127.0.0.1:9 cannot be reached" in judgement.detail


@pytest.mark.parametrize(
    "answer", ["<html>a proxy's page</html>", {}, {"choices": []}, {"choices": [{"message": 7}]}]
)
def test_what_is_no_chat_completion(ask, answer):
    (judgement,), _, _ = ask(lambda *_: (200, answer), make_episode())
    assert judgement.reason is Reason.DETECTOR_ERROR
    assert "no chat completion" in judgement.detail


def test_the_budget_ends_it_before_it_is_overspent(ask):
    with pytest.raises(BudgetSpent, match="2000 of the budget of 2500 tokens") as raised:
        ask(lambda *_: said("fail"), *[make_episode()] * 3, options=",budget=2500")
    assert "\n" not in str(raised.value)


def test_without_a_count_the_estimate_counts(ask):
    def silent(*_):
        status, body = said("fail")
        del body["usage"]
        return status, body

    _, _, detector = ask(silent, make_episode())
    picture = np.zeros((64, 128, 3), np.uint8)
    least = expected_tokens("", picture, "high")
    assert least < detector.budget.spent < least + 400


def test_a_node_goes_on_with_unknown_when_the_budget_is_spent(monkeypatch, capsys):
    with stub_endpoint(lambda *_: said("fail")) as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        detector = open_detector("baseline:openai:stub,cell=32,budget=1500")
        first, second = (judge_safely(detector, make_episode()) for _ in range(2))
        both = judge_together(detector, [make_episode()] * 2)
        with pytest.raises(BudgetSpent):
            judge_together(detector, [make_episode()] * 2, stops=True)
        assert len(stub.requests) == 1
    assert {j.reason for j in both} == {Reason.DETECTOR_ERROR}
    assert first.outcome is Outcome.FAILURE
    assert second.reason is Reason.DETECTOR_ERROR
    assert "budget of 1500 tokens" in second.detail
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["detect", "evaluate"])
def test_a_command_ends_when_the_budget_is_spent(monkeypatch, capsys, tmp_path, command):
    bags = [str(DEMO / name) for name in ("test-00-success", "test-01-semantic")]
    options = [] if command == "detect" else ["--out", str(tmp_path / "results"), "--workers", "0"]
    with stub_endpoint(lambda *_: said("fail")) as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        spec = "baseline:openai:stub,cell=32,budget=2200"
        assert main([command, *bags, "--detector", spec, *options]) == 2
        assert len(stub.requests) == 1
    assert "budget of 2200 tokens are spent" in capsys.readouterr().err.splitlines()[-1]


def test_a_ledger_outlives_the_process_and_is_shared(tmp_path):
    path = tmp_path / "ledger.jsonl"
    one, other = Budget(1000, "a", path), Budget(1000, "b", path)
    one.set_aside(300)
    one.settle(300, 400)
    other.set_aside(500)  # and is killed
    del other
    again = Budget(1000, "a", path)
    assert again.spent == 900
    with pytest.raises(BudgetSpent, match=r"ledger\.jsonl"):
        again.set_aside(101)
    with pytest.raises(BudgetSpent):
        one.set_aside(101)
    one.set_aside(100)
    assert sum(json.loads(line)["tokens"] for line in path.read_text().splitlines()) == 1000


@pytest.mark.parametrize("content", ["no json\n", '{"tokens": "many"}\n', "[]\n"])
def test_a_ledger_that_is_none(tmp_path, content):
    path = tmp_path / "ledger"
    path.write_text(content)
    with pytest.raises(ConfigError, match="ledger"):
        Budget(1000, "a", path)
    with pytest.raises(ConfigError, match="cannot be written"):
        Budget(1000, "a", tmp_path / "nowhere" / "ledger")


def test_nothing_is_sent_before_an_episode_is_judged_or_by_another_detector(monkeypatch, caplog):
    with stub_endpoint(lambda *_: said("fail")) as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with caplog.at_level(logging.DEBUG, "ifailsense_ros"):
            detector = open_detector("baseline:openai:stub,cell=32")
        warm_up(detector)
        detector.judge(make_episode("  "))
        open_detector("baseline:always-success").judge(make_episode())
        assert stub.requests == []
    assert "are sent to 127.0.0.1" in caplog.text
    assert KEY not in caplog.text


def test_a_password_in_the_url_is_not_told(monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:hush@127.0.0.1:9/v1")
    detector = open_detector("baseline:openai:stub,retries=0,cell=32")
    judgement = detector.judge(make_episode())
    assert detector.model_id == "stub@127.0.0.1:9+question"
    assert "hush" not in f"{judgement.detail} {caplog.text} {detector.config}"


@pytest.mark.parametrize(
    ("environment", "text"),
    [({}, "OPENAI_API_KEY"), ({"OPENAI_BASE_URL": "localhost:8000"}, "must be a URL")],
)
def test_an_environment_that_does_not_say_enough(monkeypatch, environment, text):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=text):
        open_detector("baseline:openai:gpt-4o")
