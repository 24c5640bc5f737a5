"""Predictions, checkpoints and data sets out of thin air, for the tests of the experiments."""

from __future__ import annotations

import json
import zlib
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from ifailsense_ros.core.arbitration import arbitrate
from ifailsense_ros.core.checkpoint import (
    AnswerWords,
    BaseModel,
    CheckpointConfig,
    FSHeadSettings,
    MontageSettings,
    VoteWeights,
)
from ifailsense_ros.core.detection import bare_config
from ifailsense_ros.core.verdict import Vote, VoteValue
from ifailsense_ros.data.failure_classes import FAILURE_CLASSES
from ifailsense_ros.data.manifest import FORMAT, MANIFEST, SUMMARY
from ifailsense_ros.evaluate.predictions import Prediction, write_predictions
from ifailsense_ros.experiments.cells import BASE, DataCell, PredictionCell, TrainingCell
from ifailsense_ros.experiments.state import CHECKPOINT, PREDICTIONS, RUN, Workplace

TASKS = {
    "lifting": [f"lift_{c}_block_{p}" for c in ("red", "blue") for p in ("table", "slider")],
    "rotating": [f"rotate_{c}_block_{d}" for c in ("red", "blue") for d in ("left", "right")],
    "lighting": ["turn_on_led", "turn_off_led", "turn_on_lightbulb", "turn_off_lightbulb"],
}


def data_set(folder: Path, content: str = "") -> None:
    """What the experiments look at in a data set: that it is there, and its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    sha = f"{zlib.crc32(f'{folder.name}{content}'.encode()):08x}" * 8
    summary = {"format": FORMAT, "sha256": {MANIFEST: sha}, "shards": {}, "sources": []}
    (folder / SUMMARY).write_text(json.dumps(summary))


def checkpoint_config(cell: TrainingCell) -> CheckpointConfig:
    """Settings of a checkpoint that could be the cell's; every cell has another hash."""
    name = cell.recipe if cell.ablation == "none" else f"control-{cell.ablation}"
    return bare_config(
        name,
        MontageSettings(4, 2, 14, 14),
        prompt="<image> evaluate en {instruction}",
        words=AnswerWords(("success",), ("fail",)),
        files={"fs_blocks.safetensors": "0" * 64},
        base=BaseModel("base"),
        fs_blocks="fs_blocks.safetensors",
        hooked_layers=(1, 2, 3),
        fs_head=FSHeadSettings((8, 4), 2, 0.5),
        vote_weights=VoteWeights((1.0, 1.0, 1.0), 2.0),
        training_data_hash=f"{zlib.crc32(cell.name.encode()):08x}" * 8,
    )


def predictions(
    cell: PredictionCell, scenes: int = 60, skill: float = 1.6, heads: int = 3
) -> list[Prediction]:
    """Pairs of the cell's data set, judged with some skill and calibrated by making."""
    rng = np.random.default_rng(zlib.crc32(cell.name.encode()))
    out = []
    for index in range(scenes):
        category = list(TASKS)[index % 3]
        done, other = rng.permutation(TASKS[category])[:2]
        failures = cell.data.startswith("failures")
        kind = FAILURE_CLASSES[index % 7] if failures else "semantic"
        key = f"{cell.split}/{index}/0"
        hard = rng.normal()
        for label in (True, False):
            z = (1 if label else -1) * skill * (1.2 + hard) + rng.normal(size=heads + 1)
            if cell.part == BASE:
                z = rng.normal(size=1)
            p = 1 / (1 + np.exp(-z))
            sources = [*(f"fs:{k}" for k in range(heads)), "vlm"][-len(p) :]
            votes = [
                Vote(s, VoteValue(int(q > 0.5)), float(q), 2.0 if s == "vlm" else 1.0)
                for s, q in zip(sources, p, strict=True)
            ]
            said = arbitrate(votes, "unknown_unless_unanimous")
            own = key if label or not failures else f"{key}/{kind}"
            twin = "" if not failures else f"{key}/{kind}" if label else key
            out.append(
                Prediction(
                    pair_id=f"{cell.data}-{index}-{label}",
                    split=cell.split,
                    source="unseen" if cell.data == "unseen" else "desk",
                    key=own,
                    instruction="do it",
                    label=label,
                    asked_task=str(done if label or failures else other),
                    performed_task=str(done if label or not failures else ""),
                    category=category,
                    contrast=() if failures else (("colour",), ("verb", "place"))[index % 2],
                    phrasing=8 + index % 3,
                    kind="positive" if label else kind,
                    pairing="twins" if failures else "smf",
                    twin=twin,
                    outcome=int(said.outcome),
                    reason=int(said.reason),
                    p_success=said.p_success,
                    sources=tuple(sources),
                    votes=tuple(int(v.value) for v in votes),
                    p_votes=tuple(v.p_success for v in votes),
                    weights=tuple(v.weight for v in votes),
                    unfiltered=index % 2 == 0,
                )
            )
            if cell.every_pair and not label and index % 3 == 0:
                from dataclasses import replace

                out.append(
                    replace(
                        out[-1],
                        pair_id=f"{out[-1].pair_id}-extra",
                        counted=False,
                        unfiltered=True,
                        why_not_counted="infeasible",
                    )
                )
    return out


class FakeWorker:
    """Does cells as `experiments.work` does, without a model.

    Attributes:
        done: names of the cells, in order.
        statuses: exit status of some cells instead of 0, for once.
    """

    def __init__(self, place: Workplace) -> None:
        self.place, self.done, self.statuses = place, [], {}
        self.scenes = 60

    def __call__(self, cell) -> int:
        self.done.append(cell.name)
        status = self.statuses.pop(cell.name, 0)
        if status:
            return status
        if isinstance(cell, DataCell):
            data_set(self.place.data / cell.folder)
        elif isinstance(cell, TrainingCell):
            folder = self.place.folder(cell) / RUN / CHECKPOINT
            folder.mkdir(parents=True)
            (folder / "checkpoint.json").write_text(checkpoint_config(cell).to_json())
        else:
            self._judge(cell)
        return 0

    def _judge(self, cell: PredictionCell) -> None:
        trained = self.place.cells[cell.of]
        model_id = checkpoint_config(trained).model_id
        skill = 0.0 if trained.ablation != "none" else 1.6
        heads = len(trained.changes.get("stage2.layers", (1, 2, 3)))
        meta = {
            "checkpoint": f"{model_id}+base" if cell.part == BASE else model_id,
            "data": cell.data,
            "data_hash": self.place.data_hash(cell.data, cell.split),
            "training_data_hash": checkpoint_config(trained).training_data_hash,
            "generators": ["desk 2"],
            "split": cell.split,
            "guard_threshold": None,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        rows = predictions(cell, self.scenes, skill, heads)
        write_predictions(self.place.folder(cell) / PREDICTIONS, rows, meta)
