"""Predictions that lie in the repository stand for cells that were run on another machine."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from made_up import FakeWorker, data_set

from ifailsense_ros.evaluate.predictions import read_meta
from ifailsense_ros.experiments import kept as kept_module
from ifailsense_ros.experiments.cells import all_cells
from ifailsense_ros.experiments.kept import KEPT
from ifailsense_ros.experiments.opening import Chosen
from ifailsense_ros.experiments.report import write_report
from ifailsense_ros.experiments.results import Results
from ifailsense_ros.experiments.runner import Runner
from ifailsense_ros.experiments.state import DONE, NOT_RUN, WAITING, Workplace
from ifailsense_ros.experiments.trust import SEEN_TOGETHER, seen_pairs
from ifailsense_ros.train.recipes import RECIPES


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "docs" / "results" / "predictions"


@pytest.fixture
def place(place, kept):
    return Workplace.of(place.data, place.out, list(place.cells.values()), place.recipes, kept=kept)


@pytest.fixture
def elsewhere(tmp_path, kept):
    """A machine with the repository and nothing else."""

    def make(recipes=RECIPES):
        out = tmp_path / "elsewhere" / "out"
        cells = all_cells(recipes)
        return Workplace.of(tmp_path / "elsewhere" / "data", out, cells, recipes, kept=kept)

    return make


def go(runner, pattern):
    return runner.go(runner.selected(pattern))


def test_what_was_judged_here_is_done_elsewhere(runner, elsewhere, chosen, worker):
    go(runner, "sim-tiny/*")
    there = elsewhere()
    other = Runner(there, chosen, FakeWorker(there), lambda line: None)
    cells = other.selected("sim-tiny/*")
    assert [c.name for c in cells if c.name.startswith("train/")] == []
    assert {other.state(c).name for c in cells} == {DONE}
    assert other.go(cells) == 0 and other._worker.done == []
    # It has no checkpoint, so what goes on from one has to wait for it.
    assert other.state(there.cells["train/sim-tiny"]).name == WAITING
    names = [c.name for c in other.selected("blocks-on-unseen/unseen")]
    assert names[0] == "train/sim-tiny"


def test_a_report_from_kept_predictions_is_the_same(
    runner, place, elsewhere, chosen, tmp_path, worker
):
    pytest.importorskip("matplotlib")
    go(runner, "sim-tiny/*,control-image_blind/*")
    here = write_report(place, chosen, tmp_path / "docs", "test").read_text()
    shutil.rmtree(place.out)
    there = write_report(elsewhere(), chosen, tmp_path / "docs", "test").read_text()
    assert here == there
    assert "| sim-tiny | full | 2 | not run" not in there
    assert "| `train/sim-tiny` | sim-tiny | `sim-tiny@" in there


def test_the_page_in_docs_is_what_the_kept_predictions_say(tmp_path):
    """Whoever changes a recipe, a figure or a sentence writes the page anew."""
    pytest.importorskip("matplotlib")
    docs = Path(__file__).parents[2] / "docs"
    # CI's checkout may be one commit deep, so the list's own dates have to do.
    chosen = Chosen(docs / "results" / "chosen.csv", uncommitted=True)
    nowhere, cells = tmp_path / "nowhere", all_cells(RECIPES)
    kept = docs / "results" / KEPT
    place = Workplace.of(nowhere, nowhere, cells, RECIPES, kept=kept)
    page = write_report(place, chosen, tmp_path / "docs", "test").read_text()
    said = "write the page: `ifailsense experiments --report`"
    assert page == (docs / "results.md").read_text(), said


def test_what_training_could_show_is_remembered_for_its_data(runner, place, chosen, kept):
    go(runner, "sim-tiny/smf")
    loaded = Results(place, chosen, "test").get("sim-tiny/smf")
    trained_on = loaded.meta["training_data_hash"]
    results = Results(place, chosen, "test")
    assert seen_pairs(results, loaded) is None  # the data here is not what it was trained on
    for known, found in (("0" * 64, None), (trained_on, {("a", "b")})):
        (kept / SEEN_TOGETHER).write_text(
            json.dumps({"training_data_hash": known, "pairs": [["a", "b"]]})
        )
        assert seen_pairs(results, loaded) == found


def test_another_recipe_is_not_done(runner, elsewhere):
    go(runner, "sim-tiny/smf")
    recipe = RECIPES["sim-tiny"]
    stage2 = dataclasses.replace(recipe.stage2, batch=recipe.stage2.batch + 1)
    changed = {**RECIPES, "sim-tiny": dataclasses.replace(recipe, stage2=stage2)}
    assert elsewhere().state(elsewhere().cells["sim-tiny/smf"]).name == DONE
    assert elsewhere(changed).state(elsewhere().cells["sim-tiny/smf"]).name == WAITING


def test_a_version_that_is_raised_ends_all_results(runner, elsewhere, monkeypatch):
    go(runner, "sim-tiny/smf")
    for version in ("TRAINING_VERSION", "PREDICTION_VERSION"):
        with monkeypatch.context() as other:
            other.setattr(kept_module, version, 99)
            assert not elsewhere().is_kept(elsewhere().cells["sim-tiny/smf"])
    assert elsewhere().is_kept(elsewhere().cells["sim-tiny/smf"])


def test_other_blocks_of_another_vlm_are_not_done(runner, elsewhere):
    go(runner, "blocks-on-unseen/unseen")
    recipe = RECIPES["sim-tiny"]
    stage1 = dataclasses.replace(recipe.stage1, rank=recipe.stage1.rank + 1)
    changed = {**RECIPES, "sim-tiny": dataclasses.replace(recipe, stage1=stage1)}
    name = "blocks-on-unseen/unseen"
    assert elsewhere().state(elsewhere().cells[name]).name == DONE
    assert elsewhere(changed).state(elsewhere().cells[name]).name == WAITING


def test_predictions_on_other_data_do_not_count(runner, elsewhere):
    go(runner, "sim-tiny/smf")
    there = elsewhere()
    data_set(there.data / "smf")
    assert there.is_kept(there.cells["sim-tiny/smf"])
    data_set(there.data / "smf", "other")
    assert not there.is_kept(there.cells["sim-tiny/smf"])


def test_predictions_of_another_checkpoint_do_not_count(runner, place, elsewhere, chosen, worker):
    go(runner, "sim-tiny/smf")
    there = elsewhere()
    data_set(there.data / "training")
    data_set(there.data / "smf")
    again = FakeWorker(there)
    again(there.cells["train/sim-tiny"])
    record = there.folder(there.cells["train/sim-tiny"]) / "record.json"
    record.write_text('{"state": "done"}')
    assert there.is_kept(there.cells["sim-tiny/smf"])  # the same checkpoint, made again
    path = there.checkpoint(there.cells["train/sim-tiny"]) / "checkpoint.json"
    path.write_text(path.read_text().replace('"vlm": 2.0', '"vlm": 3.0'))
    assert not there.is_kept(there.cells["sim-tiny/smf"])
    assert there.state(there.cells["sim-tiny/smf"]).name == NOT_RUN


def test_one_file_is_kept_for_a_cell(runner, place, kept, worker):
    go(runner, "sim-tiny/*")
    before = sorted(p.name for p in kept.rglob("*.parquet"))
    assert len(before) == 7 and all(p.parent.name == "sim-tiny" for p in kept.rglob("*.parquet"))
    cell = place.cells["sim-tiny/smf"]
    old = place.kept.path(cell).with_name("smf-000000000000.parquet")
    shutil.copy(place.kept.path(cell), old)
    place.kept.path(cell).unlink()
    go(runner, "sim-tiny/*")  # done, and kept all the same
    assert sorted(p.name for p in kept.glob("sim-tiny/*")) == before
    assert read_meta(place.kept.path(cell))["data"] == "smf"


def test_trials_on_other_splits_are_not_kept(place, chosen, kept):
    trial = Workplace.of(
        place.data, place.out, all_cells(RECIPES, "dev"), RECIPES, "dev", kept=kept
    )
    runner = Runner(trial, chosen, FakeWorker(trial), lambda line: None)
    assert go(runner, "sim-tiny/smf") == 0 and not kept.exists()
