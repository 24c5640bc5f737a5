import csv
import math

import pytest

from ifailsense_ros.core.errors import ConfigError, DataError
from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue
from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.evaluate.asked import AskedSet, phrasings_of
from ifailsense_ros.evaluate.predict import predict_to
from ifailsense_ros.evaluate.predictions import predict, read_predictions, write_predictions


def judged(detector, data, split, **options):
    return list(predict(detector, data, split, progress=False, **options))


def same(a, b):
    """Equal rows; a NaN equals a NaN."""
    return repr(a) == repr(b)


def test_every_pair_of_a_data_set_is_judged_once_with_its_row(smf_set, rule_detector):
    found = judged(rule_detector(), smf_set, "dev")
    rows = list(smf_set.rows("dev", counted=True))
    assert [p.pair_id for p in found] == [r.pair_id for r in rows]
    assert [p.label for p in found] == [True, False] * 10
    for p, r in zip(found, rows, strict=True):
        assert (p.instruction, p.asked_task, p.contrast) == (
            r.instruction,
            r.asked_task,
            r.contrast,
        )
        assert p.right and p.counted and math.isnan(p.montage_distance)
        assert p.sources == ("fs:1", "fs:2", "fs:3", "vlm") and p.weights == (1.0, 1.0, 1.0, 2.0)
        assert p.votes[0] == VoteValue.SUCCESS and p.votes[1] == int(p.label)
        assert p.outcome == (Outcome.SUCCESS if p.label else Outcome.FAILURE)
    assert len({p.cluster for p in found}) == 10


def test_a_store_gives_the_pairs_of_the_data_set_built_from_it(
    smf_store, smf_set, failure_store, failure_set, rule_detector
):
    for store, built, split in (
        (smf_store, smf_set, "dev"),
        (failure_store, failure_set, "test"),
    ):
        bare = judged(rule_detector(), store, split)
        assert same(
            sorted(bare, key=lambda p: p.pair_id),
            sorted(judged(rule_detector(), built, split), key=lambda p: p.pair_id),
        )
        assert len(bare) == AskedSet(store, split).pair_count()


def test_a_failure_and_its_twin_are_asked_the_same_and_are_one_cluster(
    failure_set, smf_set, rule_detector
):
    for words in (None, phrasings_of(smf_set.folder)):
        found = judged(rule_detector(), failure_set, "test", phrasings=words)
        assert sorted(p.kind for p in found).count("positive") == 6 == len(found) / 2
        by_cluster = {}
        for p in found:
            by_cluster.setdefault(p.cluster, []).append(p)
        assert [len(c) for c in by_cluster.values()] == [2] * 6
        for twin, failure in by_cluster.values():
            assert twin.label and not failure.label
            assert twin.instruction == failure.instruction
            assert failure.kind in ("incomplete_grasp", "wrong_target_object")


def test_other_words_are_those_of_training_and_a_pair_draws_alike(smf_set, rule_detector):
    words = phrasings_of(smf_set.folder)
    found = judged(rule_detector(), smf_set, "test", phrasings=words)
    assert {p.instruction for p in found} <= set(words.texts)
    assert all(p.instruction.endswith("train") and p.phrasing == -1 for p in found)
    for positive, negative in zip(found[::2], found[1::2], strict=True):
        assert positive.instruction.split("way")[1] == negative.instruction.split("way")[1]
    with pytest.raises(DataError, match="hold none of the task"):
        judged(rule_detector(), smf_set, "test", phrasings=type(words)({"open_drawer": ["open"]}))


def test_sentences_are_said_in_a_frame(smf_set, rule_detector):
    plain = judged(rule_detector(), smf_set, "test")
    found = judged(rule_detector(), smf_set, "test", say="Robot: {Instruction}!")
    assert [p.instruction for p in found] == [
        f"Robot: {p.instruction[0].upper()}{p.instruction[1:]}!" for p in plain
    ]
    asked = judged(rule_detector(), smf_set, "test", say="could you {instruction}?")
    assert asked[0].instruction == f"could you {plain[0].instruction}?"
    for frame in ("please", "{instruction} {Instruction}"):
        with pytest.raises(ConfigError, match=r"--say .*name the place of the sentence once"):
            judged(rule_detector(), smf_set, "test", say=frame)


def test_the_checkpoint_says_how_many_keyframes_and_pov(smf_set, rule_detector, rule_config):
    two = rule_detector(rule_config(num_keyframes=2, num_pov=1))
    judged(two, smf_set, "dev")
    assert two.asked[0].keyframe_stamps_ns == (0, 3 * 10**9) and two.asked[0].num_pov == 1
    with pytest.raises(ConfigError, match="stored with 4 keyframes, 8 asked for"):
        judged(rule_detector(rule_config(num_keyframes=8)), smf_set, "dev")
    one = rule_detector(rule_config(num_keyframes=1))
    with pytest.raises(ConfigError, match="single keyframe"):
        judged(one, smf_set, "dev")
    judged(one, smf_set, "dev", ablation=Ablation("first_frame_only"))
    assert one.asked[0].keyframe_stamps_ns == (0,)


def test_a_control_is_judged_as_it_was_trained(smf_set, rule_detector, rule_config):
    control = rule_detector(rule_config(num_keyframes=1, name="control-last_frame_only"))
    judged(control, smf_set, "dev")
    assert control.asked[0].keyframe_stamps_ns == (3 * 10**9,)
    with pytest.raises(ConfigError, match="last_frame_only"):
        judged(control, smf_set, "dev", ablation=Ablation("none"))


def test_written_and_read_back_they_are_the_same(tmp_path, failure_set, rule_detector):
    found = judged(rule_detector(), failure_set, "test")
    assert write_predictions(tmp_path / "p.parquet", iter(found), {"split": "test"}) == 12
    again, meta = read_predictions(tmp_path / "p.parquet")
    assert same(again, found) and meta["split"] == "test"
    assert not list(tmp_path.glob("*.part"))


def test_what_is_no_file_of_predictions_is_said_in_one_line(tmp_path, smf_set, rule_detector):
    with pytest.raises(DataError, match=r"cannot be read.*ifailsense predict"):
        read_predictions(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="holds no predictions"):
        read_predictions(smf_set.folder / "manifest.parquet")
    with pytest.raises(DataError, match="no pair of split 'elsewhere'"):
        judged(rule_detector(), smf_set, "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither a data set nor a store"):
        AskedSet(tmp_path / "empty", "test")


def test_stopped_and_given_again_it_goes_on_behind_the_last_shard(tmp_path, smf_set, rule_detector):
    asked, out, log = AskedSet(smf_set.folder, "test"), tmp_path / "p.parquet", tmp_path / "o.csv"
    options = {"progress": False, "opened": log, "command": ["it"]}
    with pytest.raises(KeyboardInterrupt):
        predict_to(out, rule_detector(stop_after=10), asked, **options)
    assert not out.exists()
    second = rule_detector()
    meta = predict_to(out, second, asked, **options)
    assert len(second.asked) == 18 - 8  # the first shard of four episodes was kept
    found, kept = read_predictions(out)
    assert same(found, judged(rule_detector(), smf_set, "test"))
    assert kept == {**meta, "format": 1} and meta["data_hash"] == asked.hash
    assert meta["generators"] == ["desk 7"]
    with log.open() as file:
        (opening,) = csv.DictReader(file)
    assert opening["checkpoint"] == second.model_id and opening["data_hash"] == asked.hash


def test_parts_of_another_detector_are_not_used(tmp_path, smf_set, rule_detector, rule_config):
    asked, out = AskedSet(smf_set.folder, "dev"), tmp_path / "p.parquet"
    with pytest.raises(KeyboardInterrupt):
        predict_to(out, rule_detector(stop_after=10), asked, progress=False)
    other = rule_detector(rule_config(num_pov=1))
    predict_to(out, other, asked, progress=False)
    assert len(other.asked) == 20


def test_no_verdict_is_kept_with_its_reason_and_is_wrong(tmp_path, smf_set, rule_detector):
    blind = Ablation("instruction_blind")
    found = judged(rule_detector(), smf_set, "dev", ablation=blind)
    assert {p.reason for p in found} == {Reason.NO_INSTRUCTION} and not any(p.right for p in found)
    assert all(p.votes == () and math.isnan(p.p_success) for p in found)
