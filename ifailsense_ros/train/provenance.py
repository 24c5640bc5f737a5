"""What a run's weights were made from, so that none are taken for what they are not."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ifailsense_ros import __version__
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.train.compute import accelerator
from ifailsense_ros.train.defaults import with_defaults
from ifailsense_ros.train.log import write_text

SETTINGS_FILE = "settings.json"
FIGURES_FILE = "figures.json"

_WORDS = {"made_from": "base or earlier stage", "shown": "ablation", "data": "data set"}


class Trail:
    """The chain of stages: each is known by its settings and by the one before.

    Args:
        out: folder of the run.
        common: what all stages depend on: data, geometry, ...
    """

    def __init__(self, out: Path, common: dict[str, Any]) -> None:
        self._out, self._common = out, common
        self.made_from = ""
        """The base, or the stage before."""

    def folder(self, stage: str, phase: int, settings: Any) -> Path:
        """The folder of a stage's phase.

        Args:
            settings: a dataclass.

        Raises:
            ConfigError: it holds weights that were made from something else; names the first
                difference.
        """
        folder = self._out / (f"{stage}-{phase}" if phase else stage)
        made_with = {
            **self._common,
            "settings": asdict(settings),
            "made_from": self.made_from,
        }
        text = json.dumps(made_with, indent=1, sort_keys=True)
        path = folder / SETTINGS_FILE
        if path.exists():
            now = json.loads(text)
            # From here on as it was written: the next stage, too, may have been begun with it.
            text = path.read_text(encoding="utf-8")
            before = json.loads(text)
            before["settings"] = with_defaults(before.get("settings"), settings)
            if (changed := _difference(before, now)) is not None:
                changed = _WORDS.get(changed, changed)
                raise ConfigError(
                    f"{folder}: was trained with another {changed}; remove this folder to train it "
                    "again, or give another --out"
                )
        elif accelerator().is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        self.made_from = hashlib.sha256(text.encode()).hexdigest()
        return folder


def _difference(before: Any, now: Any, where: str = "") -> str | None:
    """Dotted name of the first value that differs, or None."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            name = f"{where}.{key}" if where else key
            if (found := _difference(before.get(key), now.get(key), name)) is not None:
                return found
        return None
    return None if before == now else where


def taken_over(run: Path, first_stage: int) -> dict[str, str]:
    """What comes from another run, for the figures of one that starts with `first_stage`."""
    part = "base" if first_stage == 1 else "base and adapter"
    try:
        figures = json.loads((run / FIGURES_FILE).read_text(encoding="utf-8"))
        return {"part": part, "data_hash": figures["data"]["hash"]}
    except (OSError, ValueError, KeyError):  # its later stages are not finished
        return {"part": part, "data_hash": "unknown"}


def command_of(argv: Sequence[str] | None) -> str:
    """The command line, without the folders of the machine that it ran on."""
    if argv is None:
        return "ifailsense_ros.train.run.Run(...).go()"
    pieces = [word.rpartition("=") for word in argv]  # --out=FOLDER is one word
    words = [
        f"{option}{equals}{Path(value).name if value.startswith(('/', '~', '..')) else value}"
        for option, equals, value in pieces
    ]
    return shlex.join(["ifailsense", "train", *words])


def program_version() -> str:
    """Version of this package, and the commit where it runs from a repository."""
    version = f"ifailsense_ros {__version__}"
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version}, commit {found.stdout.strip()}"
