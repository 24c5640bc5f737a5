"""Names, questions and the reading of answers; constants; a checkpoint's halves; where they go."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from baseline_episodes import make_episode
from hypothesis import given
from hypothesis import strategies as st

from ifailsense_ros.cli import main
from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.detection import Detector
from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue
from ifailsense_ros.evaluate.baselines.formats import FORMATS
from ifailsense_ros.evaluate.baselines.load import open_detector
from ifailsense_ros.evaluate.baselines.names import (
    FACTORY,
    KINDS,
    PREFIX,
    is_baseline,
    name_for_verdicts,
    parse_name,
    workers_within_budget,
)
from ifailsense_ros.evaluate.predictions import read_predictions
from ifailsense_ros.model.handle import DetectorSpec, InProcessDetector, Ready, make_detector

sys.path.append(str(Path(__file__).parents[1] / "model"))
from tiny_models import base_config, build_model, random_blocks
from tiny_models import make_episode as make_tiny_episode

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "baselines.md").read_text(encoding="utf-8")
BAG = ROOT / "bags" / "demo" / "test-00-success"


# --- names ----------------------------------------------------------------------------------------


def test_a_name_with_options():
    name = parse_name("baseline:openai:org/model:free,budget=5,timeout=2.5,pov=1")
    assert (name.kind, name.what) == ("openai", "org/model:free")
    assert name.options["budget"] == 5 and name.options["timeout"] == 2.5
    assert name.options["format"] == "question"
    assert name.montage == MontageSettings(4, 1, 224, 224)
    assert parse_name("baseline:zero-shot:/a,b/c=d/e,cell=14").what == "/a,b/c=d/e"
    assert parse_name("baseline:zero-shot:hub:Org/N@v1").what == "hub:Org/N@v1"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("baseline:", "no such baseline"),
        ("baseline:gpt-4o", "one of zero-shot, aha, openai"),
        ("baseline:openai", "the model's name at the endpoint"),
        ("baseline:zero-shot:,pov=1", "folder of a model"),
        ("baseline:always-success:now", "alone"),
        ("baseline:always-success,budget=3", "has no option 'budget', it has pov"),
        ("baseline:openai:m,budget=lots", "budget is 'lots', must be a whole number >= 1"),
        ("baseline:openai:m,budget=-1", "budget is '-1'"),
        ("baseline:openai:m,timeout=nan", "timeout is 'nan'"),
        ("baseline:openai:m,pov=3", "must be a whole number >= 1 and <= 2"),
        ("baseline:openai:m,format=evaluate", "must be question or aha"),
    ],
)
def test_names_that_are_none(spec, text):
    with pytest.raises(ConfigError, match=re.escape(text)) as raised:
        open_detector(spec)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_missed_failures": 0.1}, "cannot promise error rates"),
        ({"max_false_alarms": 0.1}, "cannot promise error rates"),
        ({"shuffle_seed": 3}, "no trained weights of ours to shuffle"),
        ({"acceleration": "compile"}, "acceleration is for checkpoints of ours"),
        ({"quantisation": "int8"}, "a baseline cannot be quantised"),
    ],
)
def test_settings_that_a_baseline_does_not_have(settings, text):
    with pytest.raises(ConfigError, match=text) as raised:
        open_detector("baseline:always-success", **settings)
    assert "\n" not in str(raised.value)


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_an_error_of_ours(text):
    try:
        name = parse_name(f"{PREFIX}{text}")
    except IFailSenseError:
        return
    assert name.kind in KINDS


def test_names_are_read_without_torch():
    code = (
        "import sys; from ifailsense_ros.evaluate.baselines.load import open_detector; "
        "d = open_detector('baseline:always-success'); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'openai')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_what_a_verdict_depends_on_is_in_its_name():
    spec = "baseline:openai:m,budget=5,pov=1,ledger=/a/b,retries=0,detail=low,timeout=3"
    assert name_for_verdicts(spec) == "baseline:openai:m,pov=1,detail=low"
    assert name_for_verdicts("baseline:openai:m") == "baseline:openai:m"
    assert name_for_verdicts("/a,budget=3") == "/a,budget=3"


def test_a_budget_is_not_one_for_each_worker():
    with_budget, with_ledger = "baseline:openai:m", "baseline:openai:m,ledger=/tmp/l"
    for workers in (None, 0, 1, 4):
        assert workers_within_budget(["sim-tiny", with_ledger], workers) == workers
    assert [workers_within_budget([with_budget], n) for n in (None, 0, 1)] == [1, 0, 1]
    assert workers_within_budget([with_ledger], 4, "auto") == 4
    for workers, ray in ((2, None), (None, "auto"), (1, "auto")):
        with pytest.raises(ConfigError, match="budget of its own"):
            workers_within_budget(["sim-tiny", with_budget], workers, ray)


# --- questions and answers ------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_the_docs_have_the_exact_texts(fmt):
    texts = [
        re.sub(r"^ {4}", "", block, flags=re.M) for block in re.findall(r"(?m)(?:^ {4}.*\n)+", DOCS)
    ]
    assert f"{fmt.one_view}\n" in texts
    assert f"{fmt.two_views}\n" in texts
    heading = next(line for line in DOCS.splitlines() if line.startswith(f"### `{fmt.name}`"))
    for word in (*fmt.words.success, *fmt.words.fail):
        assert word in heading


def test_the_docs_name_every_option_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", DOCS, flags=re.M))
    options = {name: option for kind in KINDS.values() for name, option in kind.options.items()}
    assert rows.keys() == options.keys()
    for name, option in options.items():
        if option.default is not None and name != "format":
            shown = f"{option.default:g}" if option.kind is float else str(option.default)
            assert rows[name].strip(" `") == shown
    for name in KINDS:
        assert f"`baseline:{name}" in DOCS


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("pov", [1, 2])
def test_templates_fit_a_checkpoints_prompt(fmt, pov):
    template = fmt.template(MontageSettings(4, pov, 8, 8))
    assert template.count("<image>") == template.count("{instruction}") == 1
    assert "{moments}" not in template
    assert ("row" in template) == (pov == 2 and fmt.name in ("question", "aha"))


@pytest.mark.parametrize(
    ("name", "answer", "value"),
    [
        ("question", "success", VoteValue.SUCCESS),
        ("question", ' "Fail." ', VoteValue.FAIL),
        ("question", "success, it did", VoteValue.ABSTAIN),
        ("question", "not success", VoteValue.ABSTAIN),
        ("question", "successful", VoteValue.ABSTAIN),
        ("question", "yes", VoteValue.ABSTAIN),
        ("evaluate", "1", VoteValue.SUCCESS),
        ("evaluate", "10", VoteValue.ABSTAIN),
        ("aha", "Yes, the robot succeed at the sub-task.", VoteValue.SUCCESS),
        ("aha", "No, The robot slip the object out of its gripper.", VoteValue.FAIL),
        ("aha", "no", VoteValue.FAIL),
        ("aha", "No.\nThe robot ...", VoteValue.FAIL),
        ("aha", "Yes the robot did, no doubt", VoteValue.ABSTAIN),
        ("aha", "The robot did not, no", VoteValue.ABSTAIN),
        ("aha", "", VoteValue.ABSTAIN),
    ],
)
def test_reading(name, answer, value):
    assert FORMATS[name].read(answer) is value


@given(st.sampled_from(sorted(FORMATS)), st.text(max_size=80))
def test_what_contains_no_answer_word_abstains(name, text):
    fmt = FORMATS[name]
    value = fmt.read(text)
    judgement = fmt.judgement(text, 0.25)
    if not any(w in text.lower() for w in (*fmt.words.success, *fmt.words.fail)):
        assert value is VoteValue.ABSTAIN
    if value is VoteValue.ABSTAIN:
        assert judgement.reason is Reason.VLM_ABSTAINED
        assert "\n" not in judgement.detail and len(judgement.detail) < 900
    else:
        assert judgement.outcome is not Outcome.UNKNOWN


# --- detectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.FAILURE])
def test_constants(outcome):
    detector = open_detector(f"baseline:always-{outcome.name.lower()},pov=1")
    assert isinstance(detector, Detector)
    assert detector.config.montage.num_pov == 1
    judgements = [detector.judge(make_episode(pov=1)), *detector.judge_batch([make_episode()] * 2)]
    assert {j.outcome for j in judgements} == {outcome}
    assert judgements[0].p_success == float(outcome is Outcome.SUCCESS)


OUTCOMES = {VoteValue.SUCCESS: Outcome.SUCCESS, VoteValue.FAIL: Outcome.FAILURE}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from ifailsense_ros.model.checkpoint import save_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint")
    model, processor = build_model("dinov2")
    model.save_pretrained(folder / "source")
    processor.save_pretrained(folder / "source")
    # every token is an answer word of one side or the other, so that the VLM always votes
    words = {
        processor.tokenizer.decode([i]).strip().lower() for i in range(len(processor.tokenizer))
    }
    words = sorted(word for word in words if word)
    config = base_config(
        answer_words=type(base_config().answer_words)(tuple(words[::2]), tuple(words[1::2]))
    )
    save_checkpoint(
        folder / "tiny", config, base=folder / "source", fs_blocks=random_blocks(config)
    )
    return folder / "tiny"


def test_a_checkpoint_with_the_vlms_vote_alone(checkpoint):
    full, lora, vlm = (
        open_detector(f"{how}{checkpoint}", "cpu")
        for how in ("", "baseline:lora-only:", "baseline:vlm-only:")
    )
    assert lora.model_id == f"{full.model_id}+lora-only"
    assert vlm.model_id == f"{full.model_id}+vlm-only"
    episodes = [make_tiny_episode(text, seed) for seed in range(4) for text in ("lift", "open it")]
    voted = 0
    for whole, one, other in zip(
        *(d.judge_batch(episodes) for d in (full, lora, vlm)), strict=True
    ):
        vote = next(v for v in whole.votes if v.source == "vlm")
        assert [v.source for v in one.votes] == ["vlm"]
        assert [v.source for v in other.votes] == [v.source for v in whole.votes]
        assert [v.weight for v in other.votes] == [0, 0, 0, 2]
        assert one.outcome is other.outcome
        if vote.value in OUTCOMES:
            voted += 1
            assert one.outcome is OUTCOMES[vote.value]
            assert one.p_success == pytest.approx(vote.p_success)
            assert other.p_success == pytest.approx(vote.p_success)
    assert voted


def test_shuffling_is_for_what_we_trained(checkpoint):
    kwargs = {"spec": f"baseline:lora-only:{checkpoint}", "device": "cpu", "shuffle_seed": 3}
    assert "+shuffled-3" in make_detector(FACTORY, kwargs).model_id


# --- where they go --------------------------------------------------------------------------------


def test_detect_takes_a_baseline(capsys):
    assert main(["detect", str(BAG), "--detector", "baseline:always-failure,pov=1", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["verdict"], found["model_id"]) == ("FAILURE", "always-failure")
    assert main(["detect", str(BAG), "--detector", "baseline:nobody"]) == 2
    assert "no such baseline" in capsys.readouterr().err


def test_predict_takes_a_baseline(smf_store, tmp_path, capsys):
    out = tmp_path / "p.parquet"
    spec = "baseline:always-success"
    arguments = ["--data", str(smf_store), "--split", "test", "--out", str(out)]
    log = ["--opened-log", str(tmp_path / "opened.csv")]
    assert main(["predict", *arguments, *log, "--detector", spec]) == 0
    capsys.readouterr()
    rows, meta = read_predictions(out)
    assert rows and {row.outcome for row in rows} == {int(Outcome.SUCCESS)}
    assert meta["checkpoint"] == "always-success"


def test_the_nodes_factory():
    assert is_baseline("baseline:aha:/x") and not is_baseline("sim-tiny")
    there = threading.Event()
    spec = DetectorSpec(FACTORY, {"spec": "baseline:always-success"})
    handle = InProcessDetector(spec, there.set)
    handle.start()
    assert there.wait(60)
    (ready,) = handle.poll()
    handle.close()
    assert isinstance(ready, Ready)
    assert ready.model_id == "always-success"
    assert ready.config.montage.num_pov == 2
