"""The process that does a cell, on a tiny model: from data sets to predictions."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ifailsense_ros.core.prompt import AS_GIVEN
from ifailsense_ros.data.build import BuildSettings, build
from ifailsense_ros.data.episode_store import shard_path, write_shard
from ifailsense_ros.evaluate.predictions import read_predictions
from ifailsense_ros.experiments import work
from ifailsense_ros.experiments.cells import HELD_OUT, PredictionCell, all_cells
from ifailsense_ros.experiments.held_out import SetWithoutPairs, is_held_out
from ifailsense_ros.experiments.opening import Chosen
from ifailsense_ros.experiments.runner import Runner
from ifailsense_ros.experiments.state import Workplace
from ifailsense_ros.train import compute
from ifailsense_ros.train.recipes import RECIPES
from ifailsense_ros.train.run import Run

sys.path.append(str(Path(__file__).parents[1] / "train"))
from tiny_runs import make_store, row, short

# the fixture trains and judges everything, for whichever test comes first
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """All cells done that a tiny recipe has here, through the functions of the process."""
    folder = tmp_path_factory.mktemp("work")
    cut = folder / "data" / "stores" / "unfinished"
    store = make_store(folder / "data" / "stores" / "all", cut)
    for name, stores in (("training", (store, cut)), ("smf", (store,))):
        build(BuildSettings(tuple(f"store:{s}" for s in stores)), folder / "data" / name)
    recipes = {"sim-tiny": short(RECIPES["sim-tiny"])}
    place = Workplace.of(folder / "data", folder / "out", all_cells(recipes), recipes)
    compute.set_up()

    def worker(cell):
        if isinstance(cell, PredictionCell):
            work.judge(place, cell, folder / "opened.csv")
        else:
            work.train(place, cell)
        return 0

    runner = Runner(place, Chosen(folder / "chosen.csv", uncommitted=True), worker, lambda _: None)
    for pattern in ("sim-tiny/[sbt]*", "head-on-every-layer/smf", "held-out-pairs/smf", "t2/smf"):
        assert runner.go(runner.selected(pattern)) == 0
    return place


def judged(place, name):
    return read_predictions(place.predictions(place.cells[name]))


@pytest.mark.slow
def test_a_full_checkpoint_judges_every_pair_with_all_its_heads(place):
    rows, meta = judged(place, "sim-tiny/smf")
    assert [p.label for p in rows] == [True, False] * 3
    assert rows[0].sources == ("fs:1", "fs:2", "fs:3", "vlm")
    assert meta["command"] == "ifailsense experiments --only sim-tiny/smf"
    words, meta = judged(place, "sim-tiny/train-words")
    assert meta["phrasings"] == "shared from training" and len(words) == 6
    assert (place.out.parent / "opened.csv").read_text().count("sim-tiny@") >= 3


@pytest.mark.slow
def test_the_base_is_asked_for_the_likelier_answer_word(place):
    rows, meta = judged(place, "sim-tiny/base")
    assert meta["checkpoint"].endswith("+base")
    for p in rows:
        assert p.sources == ("vlm",) and p.outcome != 0 and 0 <= p.p_success <= 1


@pytest.mark.slow
def test_heads_on_every_layer_share_the_vlm(place):
    rows, _ = judged(place, "head-on-every-layer/smf")
    full, _ = judged(place, "sim-tiny/smf")
    assert rows[0].sources == ("fs:0", "fs:1", "fs:2", "fs:3", "vlm")
    for p, q in zip(rows, full, strict=True):
        assert p.votes[-1] == q.votes[-1]
        assert p.p_votes[-1] == pytest.approx(q.p_votes[-1], abs=1e-4, nan_ok=True)


@pytest.mark.slow
def test_fewer_keyframes_come_from_the_same_data(place):
    _, meta = judged(place, "t2/smf")
    assert meta["montage"]["num_keyframes"] == 2


@pytest.mark.slow
def test_held_out_pairs_are_drawn_nowhere(place):
    folder = place.data_folder("training", "train")
    kept = SetWithoutPairs(folder, "train", ("expert",), AS_GIVEN, HELD_OUT)
    tasks = {e.task for e in kept.experts}
    held = {(a, b) for a in tasks for b in tasks if is_held_out(a, b, HELD_OUT)}
    pairs = [(kept.experts[s.index].task, s.task) for s in kept.pairs() if not s.success]
    assert pairs and not set(pairs) & held
    assert judged(place, "held-out-pairs/smf")[0]


def test_without_some_pairs_a_training_reads_what_the_recipe_reads(tmp_path, monkeypatch):
    for split in ("train", "validation"):
        rows = [replace(row(split, i), instruction="Lift it, please!") for i in range(3)]
        write_shard(shard_path(tmp_path / "store", split, 0, 3), rows, {})
    build(BuildSettings((f"store:{tmp_path / 'store'}",)), tmp_path / "data" / "training")
    recipes = {"sim-tiny": RECIPES["sim-tiny-smf"]}
    place = Workplace.of(tmp_path / "data", tmp_path / "out", all_cells(recipes), recipes)
    begun = []
    monkeypatch.setattr(Run, "go", lambda run: begun.append(run))
    work.train(place, place.cells["train/held-out-pairs"])
    (run,) = begun
    assert isinstance(run.train_set, SetWithoutPairs)
    for data in (run.train_set, run.validation_set):
        assert {e.instruction for e in data.experts} == {"lift it please"}
