import pytest

from ifailsense_ros.cli import _PASSED_ON
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.data.ablation import ABLATIONS
from ifailsense_ros.data.records import UNFINISHED
from ifailsense_ros.experiments.cells import (
    CONTROLS,
    SEEDS,
    DataCell,
    PredictionCell,
    TrainingCell,
    all_cells,
    needs,
    varied,
)
from ifailsense_ros.train.recipes import RECIPES

CELLS = all_cells(RECIPES)


def of(kind):
    return [c for c in CELLS if isinstance(c, kind)]


def test_every_cell_comes_behind_what_it_needs_and_has_its_own_name():
    seen = set()
    for cell in CELLS:
        assert cell.name not in seen and set(needs(cell)) <= seen, cell.name
        seen.add(cell.name)


def test_every_training_is_a_recipe_that_exists_with_fields_that_exist():
    made = []
    for cell in of(TrainingCell):
        recipe = varied(RECIPES[cell.recipe], cell)
        for path, value in cell.changes.items():
            part = recipe
            for name in path.split("."):
                part = getattr(part, name)
            assert part == value
        made.append((recipe, cell.ablation, cell.data, cell.held_out))
    assert len({repr(m) for m in made}) == len(made)  # no cell twice under two names


def test_data_without_unfinished_episodes_is_for_recipes_that_need_none():
    others = [c for c in of(TrainingCell) if c.data in ("unseen-train", "both-worlds")]
    assert len(others) == 2
    assert all(UNFINISHED not in RECIPES[c.recipe].kinds for c in others)


def test_headline_cells_have_three_seeds_and_all_controls_are_there():
    names = {c.name for c in of(TrainingCell)}
    for seed in SEEDS[1:]:
        assert {f"train/sim-tiny-seed{seed}", f"train/sim-tiny-1pov-seed{seed}"} <= names
    assert {c.ablation for c in of(TrainingCell)} == set(ABLATIONS) == {"none", *CONTROLS}


def test_a_seed_changes_every_draw_and_nothing_else():
    recipe = RECIPES["sim-tiny"]
    other = varied(recipe, TrainingCell("train/x", "sim-tiny", seed=1))
    assert other != recipe and other.with_seed(recipe.seed) == recipe


def test_a_field_that_no_recipe_has_is_named():
    cell = TrainingCell("train/x", "sim-tiny", changes={"geometry.num_eyes": 3})
    with pytest.raises(ConfigError, match=r"train/x: Geometry has no field 'num_eyes'"):
        varied(RECIPES["sim-tiny"], cell)


def test_cells_of_a_recipe_that_is_not_there_are_left_out():
    names = {c.name for c in all_cells({"sim-tiny": RECIPES["sim-tiny"]})}
    assert "train/sim-tiny" in names and not any("sim-tiny-smf" in n for n in names)


def test_only_the_split_that_was_asked_for_is_judged_and_validation_for_calibration():
    for cell in all_cells(RECIPES, "dev"):
        if isinstance(cell, PredictionCell):
            assert cell.split in ("dev", "validation")
    assert {c.split for c in of(PredictionCell)} == {"test", "validation"}


def test_what_data_cells_say_is_a_command():
    for cell in of(DataCell):
        for command in cell.commands:
            assert tuple(command.split()[:2]) in _PASSED_ON, command
