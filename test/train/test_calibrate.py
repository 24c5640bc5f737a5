"""Calibrating a checkpoint: the fits on synthetic numbers, the whole on a tiny one."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import row

from ifailsense_ros.core.calibration import reliability, sigmoid, vote_log_odds
from ifailsense_ros.core.checkpoint import SCHEMA_VERSION, CheckpointConfig
from ifailsense_ros.core.errors import CheckpointError, ConfigError
from ifailsense_ros.core.verdict import Outcome, Reason
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.episode_store import shard_path, write_shard
from ifailsense_ros.data.experts import ExpertSet
from ifailsense_ros.evaluate import predict
from ifailsense_ros.evaluate.predictions import read_predictions
from ifailsense_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ifailsense_ros.model.detector import load_detector
from ifailsense_ros.train.calibrate import calibrate, main, measure
from ifailsense_ros.train.calibration_fits import (
    fit_guard,
    fit_temperature,
    fit_temperatures,
    guard_settings,
)

# `tiny_runs` has put its folder on the path.
from tiny_models import base_config, build_model, make_episode, random_blocks  # isort: skip

# --- fits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_found(temperature):
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 2, 20_000)
    labels = rng.random(20_000) < sigmoid(honest)
    assert fit_temperature(honest * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_a_voter_without_mistakes_is_not_infinitely_sure():
    labels = np.arange(200) % 2 == 0
    logits = np.where(labels, 5.0, -5.0)
    p = sigmoid(5.0 / fit_temperature(logits, labels))
    assert p == pytest.approx(101 / 102, abs=1e-3)


def test_a_voter_that_never_votes_or_means_nothing_has_a_temperature_all_the_same():
    labels = np.arange(100) % 2 == 0
    assert fit_temperature(np.full(100, math.nan), labels) == 1.0
    noise = np.random.default_rng(0).normal(0, 5, 100)
    assert sigmoid(5.0 / fit_temperature(noise, labels)) < 0.75


def test_the_vote_is_as_sure_as_it_is_right():
    """Three voters with the same mistakes, and one that abstains often: far too sure before."""
    rng = np.random.default_rng(3)
    labels = rng.random(4000) < 0.5
    shared = rng.normal(np.where(labels, 1.0, -1.0), 1.0)
    logits = 8 * shared[:, None] + rng.normal(0, 0.5, (4000, 4))
    logits[rng.random(4000) < 0.3, 3] = math.nan
    weights = [1.0, 1.0, 1.0, 2.0]
    fitted = fit_temperatures(logits[::2], labels[::2], weights)
    degrees = np.array([*fitted.fs, fitted.vlm])
    held = logits[1::2]
    before = reliability(sigmoid(vote_log_odds(held, weights)), labels[1::2])
    after = reliability(sigmoid(vote_log_odds(held / degrees, weights) / fitted.vote), labels[1::2])
    assert before.ece > 0.08
    assert after.ece < 0.04
    assert after.log_loss < before.log_loss


def _cells(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wide = rng.normal(size=(count, 2, 4, 6)) @ np.random.default_rng(9).normal(size=(6, 32))
    return (wide + 0.1 * rng.normal(size=(count, 2, 4, 32)) + shift).astype(np.float32)


def test_the_guard_refuses_as_rarely_as_promised_and_what_is_strange():
    guard = fit_guard(_cells(300, 0))
    settings = guard_settings(guard, _cells(400, 1), 300)
    assert settings.rate == pytest.approx(2 / 401)
    refused = np.mean(guard.distances(_cells(4000, 2)) > settings.threshold)
    assert refused <= 0.02
    assert (guard.distances(_cells(50, 3, shift=0.5)) > settings.threshold).all()


def test_few_validation_montages_promise_less():
    guard = fit_guard(_cells(50, 0))
    assert guard_settings(guard, _cells(9, 1), 50).rate == pytest.approx(0.1)


def test_pictures_that_are_all_alike_have_no_guard():
    assert fit_guard(np.ones((20, 1, 1, 32), np.float32)) is None


# --- the whole ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """16 training and 10 validation episodes of noise."""
    folder = tmp_path_factory.mktemp("store")
    for split, count in (("train", 16), ("validation", 10)):
        rows = [row(split, index) for index in range(count)]
        write_shard(shard_path(folder, split, 0, count), rows, {})
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A tiny random checkpoint, not calibrated."""
    folder = tmp_path_factory.mktemp("raw")
    model, processor = build_model("dinov2")
    model.save_pretrained(folder / "source")
    processor.save_pretrained(folder / "source")
    config, place = base_config(), folder / "tiny-test"
    save_checkpoint(place, config, base=folder / "source", fs_blocks=random_blocks(config))
    return place


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, raw, data):
    """(folder, settings before, settings after)."""
    folder = tmp_path_factory.mktemp("calibrated") / "tiny"
    shutil.copytree(raw, folder)
    after = calibrate(folder, data, device="cpu", progress=False)
    return folder, CheckpointConfig.from_json(raw), after


@pytest.fixture(scope="module")
def asked():
    return [make_episode(text, seed=i) for i in range(4) for text in ("lift it", "open it")]


def test_a_checkpoint_is_calibrated_in_place(calibrated):
    folder, before, after = calibrated
    assert after == CheckpointConfig.from_json(folder)
    after.verify(folder)
    assert after.schema_version == SCHEMA_VERSION
    assert after.short_hash != before.short_hash
    assert after.calibration.failures == after.calibration.successes > 1
    assert (folder / after.calibration.file).stat().st_size < 300_000
    unchanged = {k: v for k, v in after.files.items() if k != after.calibration.file}
    assert unchanged == before.files
    assert replace(after, calibration=None, files=before.files, schema_version=1) == replace(
        before, schema_version=1
    )
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_votes_and_outcomes_stay_and_probabilities_change(calibrated, raw, asked):
    before = load_detector(raw, device="cpu").judge_batch(asked)
    ours = load_detector(calibrated[0], device="cpu", guard=False).judge_batch(asked)
    degrees = calibrated[2].calibration.temperatures
    for a, b in zip(before, ours, strict=True):
        assert (a.outcome, a.reason) == (b.outcome, b.reason)
        assert [v.value for v in a.votes] == [v.value for v in b.votes]
        for vote, same, degree in zip(a.votes[:-1], b.votes, degrees.fs, strict=False):
            z = math.log(vote.p_success / (1 - vote.p_success))
            assert same.p_success == pytest.approx(float(sigmoid(z / degree)), abs=1e-4)
        assert math.isnan(a.montage_distance) and b.montage_distance > 0


def _with_threshold(checkpoint, limit, folder):
    """A copy whose guard refuses what is farther than `limit`."""
    shutil.copytree(checkpoint, folder)
    data = json.loads((folder / "checkpoint.json").read_text())
    data["calibration"]["guard"]["threshold"] = limit
    (folder / "checkpoint.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(("limit", "strange"), [(1e-6, True), (1e6, False)])
def test_pictures_beyond_the_threshold_are_out_of_distribution(
    calibrated, tmp_path, asked, limit, strange
):
    folder = _with_threshold(calibrated[0], limit, tmp_path / "tiny")
    judgement = load_detector(folder, device="cpu").judge(asked[0])
    assert (judgement.reason is Reason.OUT_OF_DISTRIBUTION) == strange
    assert len(judgement.votes) == 4
    if strange:
        assert f"distance {judgement.montage_distance:.3g}" in judgement.detail
        assert "\n" not in judgement.detail
    off = load_detector(folder, device="cpu", guard=False).judge(asked[0])
    assert off.reason is not Reason.OUT_OF_DISTRIBUTION
    assert off.montage_distance == judgement.montage_distance


def test_at_the_least_rate_no_calibration_episode_is_judged_wrongly(calibrated, data):
    """The surest mistake is not surer than itself; in the same batches, to the last bit."""
    n = calibrated[2].calibration.failures
    rates = dict.fromkeys(("max_missed_failures", "max_false_alarms"), 1.001 / (n + 1))
    free = load_detector(calibrated[0], device="cpu", guard=False)
    careful = load_detector(calibrated[0], device="cpu", guard=False, **rates)
    pairs = ExpertSet(data, "validation")
    given_out = [measure(d, pairs, Ablation(), progress=False) for d in (free, careful)]
    truth = np.where(given_out[0].labels, Outcome.SUCCESS, Outcome.FAILURE)
    wrong = [(m.outcomes != truth) & (m.outcomes != Outcome.UNKNOWN) for m in given_out]
    assert wrong[0].any()
    assert not wrong[1].any()
    assert (given_out[1].outcomes[wrong[0]] == Outcome.UNKNOWN).all()
    with pytest.raises(ConfigError, match=f"1/{n + 1} is the least"):
        load_detector(calibrated[0], device="cpu", max_missed_failures=0.5 / (n + 1))


def test_a_tampered_calibration_is_refused(calibrated, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(calibrated[0], folder)
    path = folder / calibrated[2].calibration.file
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(CheckpointError, match=r"calibration.safetensors: sha256"):
        load_checkpoint(folder)


@pytest.mark.parametrize("field", ["failures", "guard"])
def test_settings_and_file_must_agree(calibrated, tmp_path, field):
    folder = tmp_path / "tiny"
    shutil.copytree(calibrated[0], folder)
    data = json.loads((folder / "checkpoint.json").read_text())
    data["calibration"][field] = 3000 if field == "failures" else None
    (folder / "checkpoint.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"does not hold the scores .* calibrate it again"):
        load_checkpoint(folder)


def test_a_second_calibration_replaces_the_first(calibrated, tmp_path, data):
    folder = tmp_path / "tiny"
    shutil.copytree(calibrated[0], folder)
    again = calibrate(folder, data, device="cpu", montages=0, progress=False)
    assert again.calibration.guard is None
    assert again.calibration.temperatures == calibrated[2].calibration.temperatures
    again.verify(folder)


def test_the_command(raw, data, tmp_path, capsys):
    folder = tmp_path / "tiny"
    shutil.copytree(raw, folder)
    arguments = ["--checkpoint", str(folder), "--data", str(data), "--threads", "1"]
    assert main([*arguments, "--montages", "0"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["checkpoint"] == CheckpointConfig.from_json(folder).model_id
    assert said["failures"] == 10
    assert main([*arguments, "--split", "nowhere"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("ifailsense calibrate: ") and "nowhere" in line
    assert main([*arguments, "--threads", "0"]) == 2
    assert capsys.readouterr().err == "ifailsense calibrate: num_threads is 0, must be >= 1\n"
    assert CheckpointConfig.from_json(folder).model_id == said["checkpoint"]


def test_predictions_are_guarded_as_verdicts_are_unless_that_is_switched_off(
    calibrated, data, tmp_path, capsys
):
    strict = _with_threshold(calibrated[0], 1e-6, tmp_path / "strict")
    asked = ["--detector", str(strict), "--data", str(data), "--split", "validation"]
    given_out = {}
    for switch in ([], ["--no-guard"]):
        out = tmp_path / f"out{len(switch)}.parquet"
        assert predict.main([*asked, "--threads", "1", *switch, "--out", str(out)]) == 0
        given_out[not switch] = read_predictions(out)
    capsys.readouterr()
    (guarded, its_meta), (free, other_meta) = given_out[True], given_out[False]
    assert {p.reason for p in guarded} == {Reason.OUT_OF_DISTRIBUTION}
    assert Reason.OUT_OF_DISTRIBUTION not in {p.reason for p in free}
    assert (its_meta["guard"], other_meta["guard"]) == (True, False)
    assert [(p.votes, p.montage_distance) for p in guarded] == [
        (p.votes, p.montage_distance) for p in free
    ]
