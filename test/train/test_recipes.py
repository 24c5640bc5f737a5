"""What the recipes promise: seeds, layers, the numbers of the release."""

import pytest

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.train.recipes import PAPER, RECIPES, RELEASE
from ifailsense_ros.train.settings import Geometry, Recipe, Stage2
from ifailsense_ros.train.stage2 import hooked_layers, rows_of_batch, vote_weights


def schedules(recipe: Recipe):
    return [
        *(s.schedule for s in recipe.stage0),
        *(p.schedule for p in recipe.stage1.phases),
        recipe.stage2.schedule,
    ]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_another_seed_changes_every_draw_and_the_usual_one_none(recipe):
    assert recipe.with_seed(42) == recipe
    for seed in (0, 43, 2**31):
        other = recipe.with_seed(seed)
        assert other.seed == seed
        pairs = zip(schedules(recipe), schedules(other), strict=True)
        assert all(a.seed != b.seed >= 0 for a, b in pairs)
    assert recipe.with_seed(7).with_seed(42) == recipe


def test_the_release_in_steps():
    # 406 episodes, each with both labels: 812 samples, 32 a step
    (stage1,) = RELEASE.stage1.phases
    stage1 = stage1.schedule.in_steps(812, 2 * RELEASE.stage1.sampling.pictures)
    assert (stage1.steps, stage1.eval_every, stage1.accumulate) == (77, 25, 8)
    assert stage1.lr_at(7) == pytest.approx(2e-5, rel=0.03)
    assert stage1.lr_at(0) == pytest.approx(2e-5 / 7.7)
    stage2 = RELEASE.stage2.schedule.in_steps(812, RELEASE.stage2.batch)
    assert stage2.steps == 2030
    assert stage2.lr_at(0) == pytest.approx(1e-4)
    assert stage2.lr_at(2030) == pytest.approx(1e-6)


def test_steps_are_fewer_where_processes_share_them_and_batches_never_fewer_than_processes():
    schedule = RELEASE.stage1.phases[0].schedule
    assert schedule.batches(1) == schedule.batches(4) == 8
    assert schedule.batches(3) == 9
    assert RELEASE.stage2.schedule.batches(8) == 8
    assert RELEASE.stage2.schedule.in_steps(800, 4, processes=8).steps == 250


def test_layers_of_the_paper_and_of_the_release_in_gemma_2b():
    assert hooked_layers(RELEASE.stage2, 26) == (13, 17, 25)  # as in the authors' files
    assert hooked_layers(PAPER.stage2, 26) == (8, 16, 25)
    assert hooked_layers(PAPER.stage2, 4) == (0, 2, 3)


def test_layers_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="--layers"):
        hooked_layers(RELEASE.stage2, 4)  # the rule would give one twice
    head = RELEASE.stage2.head
    for layers in ((), (1, 1), (2, 1), (-1, 2), (3, 26)):
        with pytest.raises(ConfigError, match="--layers"):
            hooked_layers(Stage2(RELEASE.stage2.schedule, layers, head), 26)


def test_as_many_weights_as_blocks():
    assert vote_weights(RELEASE.stage2, 3) == (1.0, 1.0, 1.0)
    settings = Stage2(RELEASE.stage2.schedule, (1, 2), RELEASE.stage2.head, vote_weights=(1.0,))
    with pytest.raises(ConfigError, match="vote_weights"):
        vote_weights(settings, 2)


def test_the_montage_fills_the_picture_of_the_base():
    montage = RELEASE.geometry.montage((224, 224))
    assert (montage.height, montage.width) == (224, 224)
    assert (montage.cell_height, montage.cell_width) == (112, 56)
    with pytest.raises(ConfigError, match="cell"):
        Geometry(cell_height=None).montage()


def test_an_epoch_takes_every_row_once_and_in_another_order_than_the_next():
    epochs = [
        [row for number in range(5 * e, 5 * e + 5) for row in rows_of_batch(1, number, 20, 4)]
        for e in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1]
    assert list(rows_of_batch(1, 3, 3, 8)) == [0, 1, 2]
