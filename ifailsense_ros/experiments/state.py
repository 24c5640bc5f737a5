"""Where a cell stands: not run, done, failed; kept by a hash of all that decides its result.

A cell's folder is ``OUT/NAME/HASH``. What it made lies there beside ``record.json``. Another
recipe, other data or another checkpoint give another hash, and what was made before stays.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ifailsense_ros.core.checkpoint import CheckpointConfig, resolve_checkpoint
from ifailsense_ros.core.errors import ConfigError, DataError, IFailSenseError
from ifailsense_ros.data.manifest import MANIFEST, SUMMARY, DataSet
from ifailsense_ros.evaluate.predictions import read_meta
from ifailsense_ros.experiments.cells import (
    PREDICTION_VERSION,
    TRAINING_VERSION,
    Cell,
    DataCell,
    PredictionCell,
    TrainingCell,
    needs,
    varied,
)
from ifailsense_ros.experiments.kept import Kept
from ifailsense_ros.train.defaults import changed_fields
from ifailsense_ros.train.settings import Recipe

RECORD = "record.json"
ADOPTED = "adopted.json"
CHECKPOINT = "checkpoint"
RUN = "run"
PREDICTIONS = "predictions.parquet"

NOT_RUN, DONE, FAILED, STARTED, WAITING, CLOSED = (
    "not run",
    "done",
    "failed",
    "started",
    "waits",
    "closed",
)


@dataclass(frozen=True)
class State:
    """Of one cell.

    Attributes:
        name: `NOT_RUN`, `DONE`, `FAILED`, `STARTED` (and stopped), `WAITING` (for another cell or
            data), `CLOSED` (the test split must not be opened yet).
        why: one line on it; "" where there is nothing to say.
        seconds: how long it took; 0 where it is not done.
    """

    name: str
    why: str = ""
    seconds: float = 0.0


@dataclass
class Workplace:
    """The cells, the data they need and the folder of their results.

    Attributes:
        data: folder of `make data`.
        out: folder of the results.
        cells: all of them, by name.
        recipes: by name.
        split: that figures are about.
        kept: predictions that lie in the repository; None: none do.
    """

    data: Path
    out: Path
    cells: Mapping[str, Cell]
    recipes: Mapping[str, Recipe]
    split: str = "test"
    kept: Kept | None = None
    _hashes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        data: Path,
        out: Path,
        cells: Sequence[Cell],
        recipes: Mapping[str, Recipe],
        split: str = "test",
        kept: Path | None = None,
    ) -> Workplace:
        """From a list of cells, and the folder of kept predictions."""
        named = {c.name: c for c in cells}
        store = None if kept is None else Kept(kept, named, recipes)
        return cls(data, out, named, recipes, split, store)

    # --- data

    def data_folder(self, name: str, split: str) -> Path:
        """Of a data set that holds a split: ``NAME``, or ``NAME_SPLIT`` where each has its own.

        Raises:
            DataError: neither is there.
        """
        for folder in (self.data / f"{name}_{split}", self.data / name):
            if (folder / SUMMARY).exists():
                return folder
        raise DataError(f"{self.data / name}: not there; `make data` makes the standard sets")

    def data_hash(self, name: str, split: str) -> str:
        """Sha256 of the manifest. Raises DataError where it is not there."""
        return str(DataSet(self.data_folder(name, split)).summary["sha256"][MANIFEST])

    # --- checkpoints

    def run_folder(self, cell: TrainingCell) -> Path:
        """Folder of a training's run, its own or an adopted one.

        Raises:
            IFailSenseError: something that decides it is not there.
        """
        adopted = self.adopted().get(cell.name)
        return Path(adopted) if adopted is not None else self.folder(cell) / RUN

    def checkpoint(self, cell: TrainingCell) -> Path:
        """Folder of its checkpoint.

        Raises:
            IFailSenseError: it is not there yet.
        """
        folder = self.run_folder(cell)
        inner = folder / CHECKPOINT
        return inner if inner.is_dir() else resolve_checkpoint(folder)

    def adopted(self) -> dict[str, str]:
        """Training cells whose result is taken from elsewhere -> where."""
        path = self.out / ADOPTED
        return json.loads(path.read_text("utf-8")) if path.exists() else {}

    def adopt(self, name: str, place: str) -> None:
        """Take a finished run, or a checkpoint by name or folder, as the result of a training.

        Raises:
            ConfigError: no such training cell.
            CheckpointError: no checkpoint there.
        """
        if not isinstance(self.cells.get(name), TrainingCell):
            raise ConfigError(f"--use {name}: no training cell; see --list")
        folder = Path(place).expanduser()
        there = folder.resolve() if folder.is_dir() else resolve_checkpoint(place)
        CheckpointConfig.from_json(there / CHECKPOINT if (there / CHECKPOINT).is_dir() else there)
        write_json(self.out / ADOPTED, {**self.adopted(), name: str(there)})
        self._hashes.clear()

    # --- records

    def hash_of(self, cell: Cell) -> str:
        """Hex digits that stand for all that decides the cell's result.

        Raises:
            IFailSenseError: something that decides it is not there yet.
        """
        if cell.name not in self._hashes:
            text = json.dumps(self._identity(cell), sort_keys=True)
            self._hashes[cell.name] = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self._hashes[cell.name]

    def _identity(self, cell: Cell) -> dict[str, Any]:
        settings = changed_fields(cell)
        for name in ("minutes", "name", "recipe", "changes"):  # the last two: said by `settings`
            settings.pop(name, None)
        if isinstance(cell, DataCell):
            return settings
        if isinstance(cell, TrainingCell):
            settings |= {
                "version": TRAINING_VERSION,
                "settings": changed_fields(varied(self.recipes[cell.recipe], cell)),
                "data": self.data_hash(cell.data, "train"),
            }
            if cell.blocks_of is not None:
                other = self.cells[cell.blocks_of]
                assert isinstance(other, TrainingCell)
                settings["blocks_of"] = self._checkpoint_id(other)
            return settings
        trained = self.cells[cell.of]
        assert isinstance(trained, TrainingCell)
        settings |= {
            "version": PREDICTION_VERSION,
            "of": self._checkpoint_id(trained),
            "data": self.data_hash(cell.data, cell.split),
        }
        if cell.phrasings_of is not None:
            settings["phrasings_of"] = self.data_hash(cell.phrasings_of, "train")
        return settings

    def _checkpoint_id(self, cell: TrainingCell) -> str:
        if cell.name not in self.adopted() and self.record(cell).get("state") != DONE:
            raise DataError(f"{cell.name} is not done")
        return CheckpointConfig.from_json(self.checkpoint(cell)).model_id

    def folder(self, cell: Cell) -> Path:
        """Of what the cell makes. Raises as `hash_of`."""
        return self.out / cell.name / self.hash_of(cell)

    def record(self, cell: Cell) -> dict[str, Any]:
        """What is written about the cell; empty where nothing is. Raises as `hash_of`."""
        try:
            return json.loads((self.folder(cell) / RECORD).read_text("utf-8"))
        except FileNotFoundError:
            return {}

    def state(self, cell: Cell) -> State:
        """Where the cell stands, whether it may be opened aside."""
        state = self._state_here(cell)
        if state.name != DONE and self.is_kept(cell):
            return State(DONE, "kept in the repository")
        return state

    def _state_here(self, cell: Cell) -> State:
        if isinstance(cell, DataCell) and (self.data / cell.folder / SUMMARY).exists():
            return State(DONE)
        if cell.name in self.adopted():
            return State(DONE, f"taken from {self.adopted()[cell.name]}")
        waits = [n for n in needs(cell) if self.state(self.cells[n]).name != DONE]
        if waits:
            return State(WAITING, f"for {', '.join(waits)}")
        try:
            record = self.record(cell)
        except IFailSenseError as error:
            return State(WAITING, str(error))
        name = record.get("state", NOT_RUN)
        return State(name, record.get("error", ""), record.get("seconds", 0.0))

    def is_kept(self, cell: Cell) -> bool:
        """Whether its predictions lie in the repository, and are about what there is here.

        Where the data set or the checkpoint is here, they must be about those.
        """
        if self.kept is None or not isinstance(cell, PredictionCell):
            return False
        path = self.kept.path(cell)
        if not path.exists():
            return False
        meta = read_meta(path)
        try:
            if meta["data_hash"] != self.data_hash(cell.data, cell.split):
                return False
        except DataError:
            pass  # the data set is not here
        trained = self.cells[cell.of]
        assert isinstance(trained, TrainingCell)
        if self._state_here(trained).name != DONE:
            return True
        return meta["checkpoint"].partition("+")[0] == self._checkpoint_id(trained)

    def predictions(self, cell: PredictionCell) -> Path | None:
        """The file of a prediction cell that is done, else None."""
        if self._state_here(cell).name == DONE:
            return self.folder(cell) / PREDICTIONS
        return self.kept.path(cell) if self.kept is not None and self.is_kept(cell) else None

    def keep(self, cell: PredictionCell) -> None:
        """Put the predictions of a cell that was done here into the repository."""
        if self.kept is not None and self._state_here(cell).name == DONE:
            self.kept.keep(cell, self.folder(cell) / PREDICTIONS)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
    os.replace(part, path)
