"""Zero-shot models on tiny random folders of the real architectures, with real processors."""

from __future__ import annotations

import json
import math
import shutil
import socket

import huggingface_hub
import numpy as np
import pytest
import torch
from baseline_episodes import make_episode
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from tiny_vlms import paligemma_folder, qwen_folder, teach

from ifailsense_ros.core.checkpoint import AnswerWords
from ifailsense_ros.core.errors import CheckpointError, ConfigError
from ifailsense_ros.core.montage import MontageGeometry, compose
from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue
from ifailsense_ros.evaluate.baselines.load import open_detector
from ifailsense_ros.evaluate.baselines.zero_shot import ZeroShotDetector, _first_tokens
from ifailsense_ros.model.vlm import encode_pictures, encode_prompts, one_pass

FOLDERS = {"qwen": qwen_folder, "paligemma": paligemma_folder}
EPISODES = [make_episode("lift the red block", 1), make_episode("open it", 2)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = tmp_path_factory.mktemp("models")
    return {name: make(made / name) for name, make in FOLDERS.items()}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_args):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def load(folder, options="") -> ZeroShotDetector:
    return open_detector(f"baseline:zero-shot:{folder},cell=32,dtype=float32{options}", "cpu")


def taught(folder, answers, options="", episodes=EPISODES):
    detector = load(folder, options)
    prompts = [detector._prompt(e.instruction) for e in episodes]
    pictures = [compose(e, MontageGeometry(2, 4, 32, 32)) for e in episodes]
    teach(detector, prompts, pictures, answers)
    return detector, prompts, pictures


@pytest.mark.parametrize("name", FOLDERS)
def test_answers_become_verdicts(folders, name):
    detector, prompts, pictures = taught(folders[name], ["fail", "Success."])
    fail, success = together = detector.judge_batch(EPISODES)
    assert (fail.outcome, success.outcome) == (Outcome.FAILURE, Outcome.SUCCESS)
    assert [v.source for v in fail.votes] == ["vlm"]
    assert 0 < fail.p_success < 0.5 < success.p_success < 1
    alone = [detector.judge(episode) for episode in EPISODES]
    assert [j.outcome for j in alone] == [j.outcome for j in together]
    np.testing.assert_allclose(
        [j.p_success for j in alone], [j.p_success for j in together], atol=1e-5
    )
    # p_success: the answers' first tokens after one pass over the whole prompt
    tokenizer = detector._processor.tokenizer
    ids = {
        side: [
            tokenizer(f"{blank}{word}", add_special_tokens=False)["input_ids"][0]
            for word in (side, side.capitalize(), side.upper())
            for blank in ("", " ")
        ]
        for side in ("success", "fail")
    }
    with torch.inference_mode():
        logits = detector._model(**detector._encode(prompts[:1], pictures[:1])).logits[0, -1]
    said = tokenizer("fail", add_special_tokens=False)["input_ids"][0]
    assert logits.argmax() == said
    assert fail.p_success <= torch.sigmoid(logits[ids["success"]].max() - logits[said]) + 1e-5


@pytest.mark.parametrize("name", FOLDERS)
def test_other_answers_abstain(folders, name):
    detector, _, _ = taught(folders[name], ["success or fail", "no"])
    for judgement, said in zip(
        detector.judge_batch(EPISODES), ["success or fail", "no"], strict=True
    ):
        assert judgement.outcome is Outcome.UNKNOWN
        assert judgement.reason is Reason.VLM_ABSTAINED
        assert [v.value for v in judgement.votes] == [VoteValue.ABSTAIN]
        assert math.isnan(judgement.p_success)
        assert repr(said) in judgement.detail


@pytest.mark.parametrize("name", FOLDERS)
def test_the_likelier_answer_needs_no_answer(folders, name):
    strict, _, _ = taught(folders[name], ["fail", "success"])
    likelier = load(folders[name], ",read=likelier")
    assert likelier.model_id == f"{strict.model_id}+likelier"
    likelier._model = strict._model
    for one, other in zip(
        strict.judge_batch(EPISODES), likelier.judge_batch(EPISODES), strict=True
    ):
        assert one.outcome is other.outcome is not Outcome.UNKNOWN
        assert one.p_success == pytest.approx(other.p_success, abs=1e-5)
    untaught = load(folders[name], ",read=likelier")
    for judgement in untaught.judge_batch(EPISODES):
        assert judgement.outcome is not Outcome.UNKNOWN
        assert (judgement.p_success > 0.5) == (judgement.outcome is Outcome.SUCCESS)


@pytest.mark.parametrize("name", FOLDERS)
def test_random_weights_abstain(folders, name):
    judgements = load(folders[name]).judge_batch(EPISODES)
    assert {j.reason for j in judgements} == {Reason.VLM_ABSTAINED}


@pytest.mark.parametrize("name", FOLDERS)
def test_yes_and_no_of_ahas_format(folders, name):
    detector, _, _ = taught(folders[name], ["yes", "no, red"], ",format=aha")
    assert [j.outcome for j in detector.judge_batch(EPISODES)] == [Outcome.SUCCESS, Outcome.FAILURE]
    same = open_detector(f"baseline:aha:{folders[name]},cell=32,dtype=float32", "cpu")
    assert same.model_id == detector.model_id
    assert same.model_id.endswith("+aha")


def test_the_question_goes_through_the_chat_template(folders):
    detector = load(folders["qwen"])
    picture = np.zeros((64, 128, 3), np.uint8)
    inputs = detector._encode([detector._prompt("lift it")], [picture])
    text = detector._processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.startswith("<|im_start|>user\n<|vision_start|><|image_pad|><|image_pad|>")
    assert 'The robot was told: "lift it".' in text
    assert text.endswith("success or fail.<|im_end|>\n<|im_start|>assistant\n")
    assert "<image>" not in text


def test_without_a_chat_template_the_question_is_the_papers(folders):
    detector = load(folders["paligemma"])
    picture = np.zeros((64, 128, 3), np.uint8)
    inputs = detector._encode([detector._prompt("lift it")], [picture])
    assert "token_type_ids" in inputs and "labels" not in inputs
    text = detector._processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.replace("<image>", "") == "<bos> evaluate en lift it\n"


def test_generation_is_greedy_whatever_the_folder_says(folders):
    settings = load(folders["qwen"])._model.generation_config
    assert not settings.do_sample
    assert settings.repetition_penalty in (None, 1.0)


def test_instructions_that_cannot_be_asked(folders):
    detector = load(folders["qwen"])
    said = [
        detector.judge(make_episode(text))
        for text in (" ", "lift <|im_end|> it", "lift <image> it", "lift it " * 400)
    ]
    assert [j.reason for j in said] == [Reason.NO_INSTRUCTION, *[Reason.DETECTOR_ERROR] * 3]
    assert "<|im_end|>" in said[1].detail
    assert "too long" in said[3].detail
    good, bad = detector.judge_batch([EPISODES[0], make_episode("lift it " * 400)])
    assert good.reason is Reason.VLM_ABSTAINED
    assert "too long" in bad.detail


def test_out_of_memory_is_tried_in_halves(folders, monkeypatch):
    detector = load(folders["qwen"])
    generate, sizes = detector._model.generate, []

    def short_of_memory(most):
        def run(**inputs):
            sizes.append(len(inputs["input_ids"]))
            if sizes[-1] > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return generate(**inputs)

        return run

    monkeypatch.setattr(detector._model, "generate", short_of_memory(1))
    judgements = detector.judge_batch(EPISODES)
    assert sizes == [2, 1, 1]
    assert {j.reason for j in judgements} == {Reason.VLM_ABSTAINED}
    monkeypatch.setattr(detector._model, "generate", short_of_memory(0))
    assert detector.judge(EPISODES[0]).reason is Reason.DETECTOR_OUT_OF_MEMORY
    monkeypatch.setattr(detector._model, "generate", generate)
    assert detector.judge(EPISODES[0]).reason is Reason.VLM_ABSTAINED


def test_another_number_of_keyframes_is_a_programming_error(folders):
    with pytest.raises(ValueError, match="keyframes"):
        load(folders["qwen"]).judge(make_episode(keyframes=3))


def test_the_id_names_weights_question_and_montage(folders, tmp_path):
    one = load(folders["qwen"])
    assert one.model_id.startswith("zero-shot-qwen@")
    assert one.model_id.endswith("+question")
    assert load(folders["qwen"]).model_id == one.model_id
    assert load(folders["qwen"], ",pov=1").model_id != one.model_id
    folder = changed(folders["qwen"], tmp_path, lambda w: w["lm_head.weight"].mul_(2))
    assert load(folder).model_id.split("@")[1] != one.model_id.split("@")[1]


def changed(source, tmp_path, change):
    folder = shutil.copytree(source, tmp_path / source.name)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda w: w.pop("lm_head.weight"), "1 missing tensor"),
        (lambda w: w.update(extra=torch.zeros(1)), "1 unexpected tensor"),
        (lambda w: w.update({"lm_head.weight": torch.zeros(3, 3)}), "1 mismatched tensor"),
        (lambda w: w["lm_head.weight"].fill_(math.nan), "not finite"),
    ],
)
def test_weights_that_do_not_fit(folders, tmp_path, change, text):
    folder = changed(folders["qwen"], tmp_path, change)
    with pytest.raises(CheckpointError, match=text) as raised:
        load(folder)
    assert "\n" not in str(raised.value)


def test_code_in_the_folder_is_never_run(folders, tmp_path):
    folder = shutil.copytree(folders["qwen"], tmp_path / "evil")
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "evil.Config",
        "AutoModelForImageTextToText": "evil.Model",
    }
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil"}))
    with pytest.raises(CheckpointError, match="can be loaded"):
        load(folder)
    (folder / "config.json").write_text(json.dumps(config))  # a type that transformers knows
    assert load(folder).judge(EPISODES[0]).reason is Reason.VLM_ABSTAINED
    assert not ran.exists()


def test_only_safetensors_are_read(folders, tmp_path):
    folder = shutil.copytree(folders["qwen"], tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        load(folder)


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="can be loaded") as raised:
        load(tmp_path)
    assert "\n" not in str(raised.value)


def test_the_hub_is_asked_only_by_name_and_after_the_cache(folders, monkeypatch, tmp_path):
    cut_short = shutil.copytree(folders["qwen"], tmp_path / "cut")
    (cut_short / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (cut_short / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(folders["qwen"] / "model.safetensors", cut_short / "model-1.safetensors")
    cached: dict[str, str] = {"half": str(cut_short), "whole": str(folders["qwen"])}
    asked = []

    def snapshot(repository, revision, allow_patterns, local_files_only=False):
        asked.append((repository, revision, local_files_only))
        if not local_files_only:
            cached[revision] = str(folders["qwen"])
        elif revision not in cached:
            raise LocalEntryNotFoundError("not here")
        return cached[revision]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    load(folders["qwen"])
    assert asked == []
    detector = load("hub:Qwen/Tiny@whole")
    assert detector.model_id.startswith("zero-shot-Tiny@")
    assert asked == [("Qwen/Tiny", "whole", True)]
    for revision in ("none", "half"):
        asked.clear()
        load(f"hub:Qwen/Tiny@{revision}")
        assert asked == [("Qwen/Tiny", revision, True), ("Qwen/Tiny", revision, False)]
    with pytest.raises(CheckpointError, match="revision"):
        load("hub:Qwen/Tiny")


def test_a_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="nothing@v1: cannot be fetched") as raised:
        load("hub:nobody/nothing@v1")
    assert "\n" not in str(raised.value)


def test_a_machine_that_cannot_run_it_so(folders):
    spec = f"baseline:zero-shot:{folders['qwen']}"
    with pytest.raises(ConfigError, match="device"):
        open_detector(spec, "nowhere")
    with pytest.raises(ConfigError, match="num_threads is 0, must be >= 1"):
        open_detector(spec, num_threads=0)


def test_paligemma_sees_what_our_own_pass_sees(folders):
    """`generate` attends the prompt in both directions, as `vlm.one_pass` does."""
    detector, prompts, pictures = taught(folders["paligemma"], ["fail", "success"])
    said = detector.judge_batch(EPISODES)
    model, processor = detector._model, detector._processor
    # as in docs/baselines.md: the picture, then bos, the words, a line break
    inputs = encode_prompts(processor, prompts)
    with torch.inference_mode():
        out = one_pass(model, inputs, [], pixel_values=encode_pictures(processor, pictures))
    for row, judgement in zip(out.logits, said, strict=True):
        margin = [max(row[i] for i in detector._first[side]) for side in detector._first]
        assert judgement.p_success == pytest.approx(torch.sigmoid(margin[0] - margin[1]).item())


def test_answers_that_begin_alike_cannot_be_told_apart(folders):
    tokenizer = load(folders["qwen"])._processor.tokenizer
    first = _first_tokens(tokenizer, AnswerWords(("success",), ("zzz",)))
    assert {tokenizer.decode([i]).strip().lower() for i in first[VoteValue.SUCCESS]} == {"success"}
    with pytest.raises(CheckpointError, match="cannot be told apart"):
        _first_tokens(tokenizer, AnswerWords(("zy",), ("zzz",)))
