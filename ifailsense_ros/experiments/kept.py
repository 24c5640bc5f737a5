"""Predictions that lie in the repository: a report is written from them where nothing was run.

Checkpoints, features and recordings are gigabytes and stay where they were made; what a checkpoint
said of a split is some 50 kB. The runner puts it into ``docs/results/predictions``, people commit
it, and on any other machine the cell counts as done: half of the grid can be run here and half
there, and every figure can be worked out again from a checkout alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ifailsense_ros.experiments.cells import (
    PREDICTION_VERSION,
    TRAINING_VERSION,
    Cell,
    PredictionCell,
    TrainingCell,
    varied,
)
from ifailsense_ros.train.defaults import changed_fields
from ifailsense_ros.train.settings import Recipe

KEPT = "predictions"
"""Folder beside `chosen.csv`."""


class Kept:
    """The folder of kept predictions: ``CELL/WHAT-HASH.parquet``.

    The hash is one of the settings of the cell and of all trainings behind it. It leaves out what
    differs between two makings of the same thing (checkpoint ids, the hash of training data):
    those are in the file. Whoever changes a recipe has results no longer, until they are made anew.

    Args:
        folder: of the files.
        cells: all of them, by name.
        recipes: by name.
    """

    def __init__(
        self, folder: Path, cells: Mapping[str, Cell], recipes: Mapping[str, Recipe]
    ) -> None:
        self.folder, self._cells, self._recipes = folder, cells, recipes

    def path(self, cell: PredictionCell) -> Path:
        """Where the cell's predictions lie, if they are kept."""
        text = json.dumps(self._settings(cell), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.folder / f"{cell.name}-{digest}.parquet"

    def keep(self, cell: PredictionCell, made: Path) -> None:
        """Copy predictions here, whole or not at all, in the place of the cell's older ones."""
        path = self.path(cell)
        if path.exists() and path.read_bytes() == made.read_bytes():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        shutil.copyfile(made, part)
        part.replace(path)
        stem = path.name.rpartition("-")[0]
        for other in path.parent.glob(f"{stem}-*.parquet"):
            if other != path and other.name.rpartition("-")[0] == stem:
                other.unlink()

    def _settings(self, cell: Cell) -> dict[str, Any]:
        found = changed_fields(cell)
        for name in ("name", "minutes"):
            found.pop(name, None)
        if isinstance(cell, PredictionCell):
            found["version"] = PREDICTION_VERSION
            found["of"] = self._settings(self._cells[cell.of])
        elif isinstance(cell, TrainingCell):
            for name in ("recipe", "changes"):  # said by the settings
                found.pop(name, None)
            found["version"] = TRAINING_VERSION
            found["settings"] = changed_fields(varied(self._recipes[cell.recipe], cell))
            if cell.blocks_of is not None:
                found["blocks_of"] = self._settings(self._cells[cell.blocks_of])
        return found
