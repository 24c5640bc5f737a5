"""The cells: what is recorded, what is trained, what is judged with it. Data, not code.

A training cell is a recipe with some of its settings changed; a prediction cell is a checkpoint
and a data set. Tables and pictures are made from the prediction cells' files (`report`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.train.settings import Recipe

TRAINING_VERSION, PREDICTION_VERSION = 1, 1
"""Raised by whoever changes the code, or a setting's default, so that the same cell would give
another result."""

SEEDS = (0, 1, 2)
"""Of the headline cells; the others have the first."""

CONTROLS = (
    "image_blind",
    "instruction_blind",
    "first_frame_only",
    "last_frame_only",
    "shuffled_labels",
)
TINY_LAYERS = 4
"""Decoder layers of the small base, and with them the largest K: the paper's 26 have room for 5."""

HELD_OUT = 5
"""One in so many (performed, asked) pairs of tasks is kept out of a training."""

FULL, BASE = "full", "base"


@dataclass(frozen=True)
class DataCell:
    """A data set beyond `make data`.

    Attributes:
        name: ``data/`` and the folder it makes under the data folder.
        commands: of `ifailsense`; ``{data}`` is the data folder, ``{workers}`` a number.
        minutes: about how long on two cores.
    """

    name: str
    commands: tuple[str, ...]
    minutes: float

    @property
    def folder(self) -> str:
        """Of the data set, under the data folder."""
        return self.name.removeprefix("data/")


@dataclass(frozen=True)
class TrainingCell:
    """A checkpoint.

    Attributes:
        name: ``train/`` and what is special about it.
        recipe: name of the recipe.
        data: folder of the data set, under the data folder.
        changes: dotted field of the recipe -> value, e.g. ``geometry.num_pov`` -> 1.
        seed: 0 is the recipe's own.
        ablation: what the model is not shown, or ``shuffled_labels``.
        blocks_of: training cell whose VLM is taken over, stage 1 included: only the FS blocks are
            trained.
        held_out: n > 0: one in n (performed, asked) pairs of tasks is never trained on.
        minutes: about how long on two cores.
    """

    name: str
    recipe: str
    data: str = "training"
    changes: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    ablation: str = "none"
    blocks_of: str | None = None
    held_out: int = 0
    minutes: float = 90.0


@dataclass(frozen=True)
class PredictionCell:
    """What a checkpoint says of a data set.

    Attributes:
        name: the training cell's after ``train/``, the data's, and what is special.
        of: training cell.
        data: folder of the data set, under the data folder.
        split: which.
        part: `FULL`, or `BASE`: the VLM before stage 1, scored by the logits of the answer words.
        phrasings_of: data set whose training phrasings are asked; None: the data's own.
        every_pair: also pairs that do not count (what filtering changed).
        minutes: about how long on two cores.
    """

    name: str
    of: str
    data: str
    split: str = "test"
    part: str = FULL
    phrasings_of: str | None = None
    every_pair: bool = False
    minutes: float = 2.0


Cell = DataCell | TrainingCell | PredictionCell

DATA_CELLS = (
    DataCell(
        "data/unseen-train",
        (
            "sim record-unseen --split train --episodes 1000 --out {data}/stores/unseen_train "
            "--workers {workers}",
            "sim record-unseen --split validation --episodes 100 "
            "--out {data}/stores/unseen_validation --workers {workers}",
            "data build --out {data}/unseen-train --licence MIT "
            "--from store:{data}/stores/unseen_train --from store:{data}/stores/unseen_validation",
        ),
        minutes=25,
    ),
    DataCell(
        "data/both-worlds",
        (
            "data build --out {data}/both-worlds "
            "--from store:{data}/stores/train --from store:{data}/stores/validation "
            "--from store:{data}/stores/unseen_train --from store:{data}/stores/unseen_validation",
        ),
        minutes=3,
    ),
    DataCell(
        "data/training-t8",
        (
            *(
                f"sim render --data {{data}}/stores/{split} --out {{data}}/stores/t8_{split} "
                "--keyframes 8 --workers {workers}"
                for split in ("train", "validation")
            ),
            *(
                f"sim unfinished --data {{data}}/stores/{split} "
                f"--out {{data}}/stores/t8_unfinished_{split} --keyframes 8 --workers {{workers}}"
                for split in ("train", "validation")
            ),
            *(
                f"sim questions --data {{data}}/stores/t8_{kind}{split}"
                for kind in ("", "unfinished_")
                for split in ("train", "validation")
            ),
            "data build --out {data}/training-t8 --licence Apache-2.0 "
            "--from store:{data}/stores/t8_train --from store:{data}/stores/t8_validation "
            "--from store:{data}/stores/t8_unfinished_train "
            "--from store:{data}/stores/t8_unfinished_validation",
        ),
        minutes=120,
    ),
    DataCell(
        "data/smf-t8",
        (
            *(
                f"sim render --data {{data}}/stores/{split} --out {{data}}/stores/t8_{split} "
                "--keyframes 8 --workers {workers}"
                for split in ("dev", "test")
            ),
            "data build --out {data}/smf-t8 --licence Apache-2.0 "
            "--from store:{data}/stores/t8_dev --from store:{data}/stores/t8_test",
        ),
        minutes=10,
    ),
)


def all_cells(recipes: Mapping[str, Recipe], split: str = "test") -> list[Cell]:
    """Every cell, each after those that it needs.

    Args:
        recipes: those that there are; cells of a recipe that is missing are left out.
        split: that figures are about; dev to try things, test once.
    """
    made = {d.folder: d for d in DATA_CELLS}
    cells: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        for name in needs(cell):
            if name.startswith("data/"):
                add(made[name.removeprefix("data/")])
        cells.setdefault(cell.name, cell)

    for training in _trainings(recipes):
        if training.recipe in recipes:
            for cell in (training, *_predictions(training, split)):
                add(cell)
    return list(cells.values())


def _headline(recipes: Mapping[str, Recipe]) -> list[str]:
    """The default's recipe and the paper's protocol (trained on SMF only), where there is one."""
    return [name for name in ("sim-tiny", "sim-tiny-smf") if name in recipes]


def _trainings(recipes: Mapping[str, Recipe]) -> Iterable[TrainingCell]:
    for name in _headline(recipes):
        yield from _one_and_two_pov(name, SEEDS[0])
    for control in CONTROLS:
        yield TrainingCell(f"train/control-{control}", "sim-tiny", ablation=control)
    yield TrainingCell("train/held-out-pairs", "sim-tiny", held_out=HELD_OUT)
    # With a head on every decoder layer, any smaller K is a vote of some of them: the heads share
    # no weights.
    yield TrainingCell(
        "train/head-on-every-layer",
        "sim-tiny",
        changes={"stage2.layers": tuple(range(TINY_LAYERS))},
        blocks_of="train/sim-tiny",
        minutes=15,
    )
    yield TrainingCell("train/t2", "sim-tiny", changes={"geometry.num_keyframes": 2}, minutes=60)
    # 2 x 4 cells of 112 x 56 are one square of 224 x 224: the picture that the authors' release
    # squashes its montage to.
    yield TrainingCell(
        "train/square-224",
        "sim-tiny",
        changes={"geometry.cell_height": 112, "geometry.cell_width": 56},
    )
    # Of the unseen world there are experts alone, so its blocks learn from wrong instructions.
    yield TrainingCell(
        "train/blocks-on-unseen",
        "sim-tiny-smf",
        data="unseen-train",
        blocks_of="train/sim-tiny",
        minutes=10,
    )
    yield TrainingCell(
        "train/blocks-on-both-worlds",
        "sim-tiny-smf",
        data="both-worlds",
        # There are five episodes of the one for each of the other.
        changes={"stage2.sampling.even_sources": True},
        blocks_of="train/sim-tiny",
        minutes=15,
    )
    for seed in SEEDS[1:]:
        for name in _headline(recipes):
            yield from _one_and_two_pov(name, seed)
    yield TrainingCell(
        "train/t8",
        "sim-tiny",
        data="training-t8",
        changes={"geometry.num_keyframes": 8},
        minutes=180,
    )


def _one_and_two_pov(recipe: str, seed: int) -> Iterable[TrainingCell]:
    tail = f"-seed{seed}" if seed else ""
    yield TrainingCell(f"train/{recipe}{tail}", recipe, seed=seed)
    one = {"geometry.num_pov": 1}
    yield TrainingCell(f"train/{recipe}-1pov{tail}", recipe, changes=one, seed=seed, minutes=60)


def _predictions(t: TrainingCell, split: str) -> Iterable[PredictionCell]:
    stem = t.name.removeprefix("train/")
    own = "smf-t8" if t.data == "training-t8" else "smf"
    yield PredictionCell(f"{stem}/smf", t.name, own, split)
    if t.data in ("unseen-train", "both-worlds") or "headline" in _roles(t):
        yield PredictionCell(f"{stem}/unseen", t.name, "unseen", split)
    if "headline" in _roles(t):
        yield PredictionCell(f"{stem}/failures", t.name, "failures", split, minutes=5)
    if "main" in _roles(t):
        yield PredictionCell(f"{stem}/base", t.name, own, split, part=BASE)
        yield PredictionCell(f"{stem}/validation", t.name, own, "validation")
        yield PredictionCell(f"{stem}/train-words", t.name, own, split, phrasings_of="training")
        yield PredictionCell(f"{stem}/every-pair", t.name, own, split, every_pair=True)


def _roles(t: TrainingCell) -> set[str]:
    """ "headline": no control and no ablation, any seed; "main": the first seed of those."""
    if t.ablation != "none" or t.held_out or t.blocks_of or t.data != "training":
        return set()
    if set(t.changes) - {"geometry.num_pov"}:
        return set()
    return {"headline"} if t.seed else {"headline", "main"}


def varied(recipe: Recipe, cell: TrainingCell) -> Recipe:
    """The recipe as the cell wants it.

    Raises:
        ConfigError: it has no such field.
    """
    for path, value in cell.changes.items():
        recipe = _changed(recipe, path.split("."), value, cell.name)
    return recipe.with_seed(recipe.seed + cell.seed) if cell.seed else recipe


def _changed(part: Any, path: list[str], value: Any, where: str) -> Any:
    name = path[0]
    if name not in {f.name for f in dataclasses.fields(part)}:
        raise ConfigError(f"{where}: {type(part).__name__} has no field {name!r}; mend the cell")
    inner = value if len(path) == 1 else _changed(getattr(part, name), path[1:], value, where)
    return dataclasses.replace(part, **{name: inner})


def needs(cell: Cell) -> list[str]:
    """Names of the cells that come first; of data sets only those that have a cell."""
    made = {d.folder: d.name for d in DATA_CELLS}
    if isinstance(cell, DataCell):
        return ["data/unseen-train"] if cell.folder == "both-worlds" else []
    if isinstance(cell, TrainingCell):
        others = [] if cell.blocks_of is None else [cell.blocks_of]
        return [*others, *([made[cell.data]] if cell.data in made else [])]
    return [cell.of, *([made[cell.data]] if cell.data in made else [])]
