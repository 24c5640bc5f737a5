"""The experiment's fixed numbers, from `settings.yaml`: fault rates, the planner's rules, tasks."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from ifailsense_ros.closed_loop.recovery import Rules
from ifailsense_ros.core.errors import CheckpointError, ConfigError
from ifailsense_ros.core.strict_json import build
from ifailsense_ros.sim.fault_rates import FaultRates

FILE = "settings.yaml"


@dataclass(frozen=True)
class Tasks:
    """Which tasks are asked for: `count` of each base seed."""

    split: str
    seeds: tuple[int, ...]
    count: int
    look: str


@dataclass(frozen=True)
class Settings:
    """Everything that is fixed before the first run."""

    policy: FaultRates
    planner: Rules
    tasks: Tasks


def load_settings(path: str | Path | None = None) -> Settings:
    """Read and check the settings.

    Args:
        path: a file of the same form; None: the one that comes with the package.

    Raises:
        ConfigError: cannot be read, a field is missing or unknown, shares that do not sum to one;
            names file and field.
    """
    where = resources.files(__package__) / FILE if path is None else Path(path)
    try:
        data = yaml.safe_load(where.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{where}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: holds no settings; copy {FILE} of the package")
    try:
        settings = build(Settings, data, str(where))
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    _check(settings, str(where))
    return settings


def _check(settings: Settings, where: str) -> None:
    try:
        settings.policy.check()
    except ValueError as error:
        raise ConfigError(f"{where}: policy: {error}") from None
    rules, tasks = settings.planner, settings.tasks
    if rules.max_tries < 1 or rules.give_up_after < 1 or not 0 <= rules.give_up_below <= 1:
        raise ConfigError(
            f"{where}: planner: max_tries and give_up_after must be at least 1, give_up_below "
            "within 0 to 1"
        )
    if tasks.count < 1 or not tasks.seeds or min(tasks.seeds) < 0:
        raise ConfigError(f"{where}: tasks: count must be at least 1, with one seed or more (>= 0)")
