"""The names of baselines: `baseline:NAME[:WHAT][,option=value...]`, read without torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ifailsense_ros.core.checkpoint import MontageSettings
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.evaluate.baselines.formats import FORMATS

PREFIX = "baseline:"
FACTORY = "ifailsense_ros.evaluate.baselines.load:load_baseline"
"""For `model.handle.DetectorSpec`: called with spec= and the keywords of `load_detector`."""

_SYNTAX = re.compile(r"([a-z-]+)(?::(.*?))?((?:,[a-z_]+=[^,]*)*)")


@dataclass(frozen=True)
class Option:
    """One option of a baseline.

    Attributes:
        default: None: decided by the baseline; its type is the option's where it is given.
        kind: int, float or str.
        bounds: least and greatest number allowed.
        choices: texts allowed; empty: any that is not empty.
    """

    default: int | float | str | None
    kind: type
    bounds: tuple[float, float] = (1, float("inf"))
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> int | float | str | None:
        """The value of a text; None where it is none."""
        if self.kind is str:
            return text if (text in self.choices if self.choices else text) else None
        try:
            value = self.kind(text)
        except ValueError:
            return None
        return value if self.bounds[0] <= value <= self.bounds[1] else None

    def __str__(self) -> str:
        if self.choices:
            return " or ".join(self.choices)
        least, most = self.bounds
        what = {int: "a whole number", float: "a number", str: "a text"}[self.kind]
        if self.kind is str:
            return what
        return f"{what} >= {least:g}" + ("" if most == float("inf") else f" and <= {most:g}")


_MONTAGE = {
    "pov": Option(2, int, (1, 2)),
    "keyframes": Option(4, int, (1, 64)),
    "cell": Option(224, int, (14, 4096)),
}
_READ = Option("strict", str, choices=("strict", "likelier"))
_DTYPE = Option("auto", str, choices=("auto", "float32", "bfloat16", "float16"))


@dataclass(frozen=True)
class Kind:
    """One baseline.

    Attributes:
        what: what stands behind its name, for people; empty: nothing does.
        options: by name.
    """

    what: str
    options: Mapping[str, Option]


KINDS = {
    "zero-shot": Kind(
        "folder of a model, or hub:<org>/<name>@<revision>",
        {
            **_MONTAGE,
            "format": Option(None, str, choices=tuple(FORMATS)),
            "read": _READ,
            "dtype": _DTYPE,
        },
    ),
    "aha": Kind(
        "folder of a model, or hub:<org>/<name>@<revision>",
        {**_MONTAGE, "read": _READ, "dtype": _DTYPE},
    ),
    "openai": Kind(
        "model's name at the endpoint",
        {
            **_MONTAGE,
            "format": Option("question", str, choices=("question", "aha")),
            "budget": Option(1_000_000, int),
            "ledger": Option(None, str),
            "timeout": Option(15.0, float, (0.01, 3600)),
            "retries": Option(2, int, (0, 100)),
            "detail": Option("high", str, choices=("low", "high", "auto")),
            "logprobs": Option("no", str, choices=("no", "yes")),
        },
    ),
    "lora-only": Kind("checkpoint", {"dtype": _DTYPE}),
    "vlm-only": Kind("checkpoint", {"dtype": _DTYPE}),
    "always-success": Kind("", _MONTAGE),
    "always-failure": Kind("", _MONTAGE),
}


@dataclass(frozen=True)
class BaselineName:
    """What a name says.

    Attributes:
        kind: key of `KINDS`.
        what: folder, model or checkpoint; "" where there is none.
        options: a value for each of the kind's options.
    """

    kind: str
    what: str
    options: Mapping[str, Any]

    @property
    def montage(self) -> MontageSettings:
        """Of a baseline with options for it: square cells."""
        o = self.options
        return MontageSettings(o["keyframes"], o["pov"], o["cell"], o["cell"])


def is_baseline(spec: str) -> bool:
    """Whether a detector's name is that of a baseline; to be asked before any other question,
    since `baseline:aha` also looks like a factory.
    """
    return str(spec).startswith(PREFIX)


def parse_name(spec: str) -> BaselineName:
    """Read a baseline's name.

    Raises:
        ConfigError: an unknown name, option or value; says which there are.
    """
    match = _SYNTAX.fullmatch(spec.removeprefix(PREFIX), 0)
    name = match[1] if match else ""
    if match is None or name not in KINDS:
        raise ConfigError(
            f"detector {spec!r}: no such baseline; give {PREFIX} and one of {', '.join(KINDS)}"
        )
    kind, what = KINDS[name], match[2] or ""
    if bool(what) != bool(kind.what):
        how = f"{PREFIX}{name}:{kind.what.upper() if ' ' not in kind.what else '...'}"
        said = f"give {how}, the {kind.what}" if kind.what else f"give {PREFIX}{name} alone"
        raise ConfigError(f"detector {spec!r}: {said}")
    options: dict[str, Any] = {key: option.default for key, option in kind.options.items()}
    for part in match[3].split(",")[1:]:
        key, _, text = part.partition("=")
        if key not in kind.options:
            known = ", ".join(kind.options)
            raise ConfigError(f"detector {spec!r}: {name} has no option {key!r}, it has {known}")
        value = kind.options[key].read(text)
        if value is None:
            raise ConfigError(f"detector {spec!r}: {key} is {text!r}, must be {kind.options[key]}")
        options[key] = value
    return BaselineName(name, what, options)


_NO_VERDICT_DEPENDS_ON = ("budget", "ledger", "timeout", "retries")


def name_for_verdicts(spec: str) -> str:
    """A detector's name without the options that no verdict depends on: with a larger budget what
    was begun goes on. Raises ConfigError as `parse_name`.
    """
    if not is_baseline(spec):
        return spec
    parse_name(spec)
    options = "|".join(_NO_VERDICT_DEPENDS_ON)
    return re.sub(rf"(,({options})=[^,]*)(?=(,[a-z_]+=[^,]*)*$)", "", spec)


def workers_within_budget(
    specs: Iterable[str], workers: int | None, ray: str | None = None
) -> int | None:
    """Number of worker processes, so that a budget is not one for each of them.

    Args:
        specs: names of detectors.
        workers: that were asked for; 0: none, None: as many as there are cores.
        ray: address of a cluster.

    Raises:
        ConfigError: several were asked for, of a detector with a budget and no ledger.
    """
    for spec in filter(is_baseline, specs):
        options = parse_name(spec).options
        if "budget" not in options or options["ledger"] is not None:
            continue
        if ray is None and workers is None:
            workers = 1
        if ray is not None or workers > 1:
            raise ConfigError(
                f"detector {spec!r}: each worker would have a budget of its own; let them share "
                "one with ,ledger=FILE or have one worker"
            )
    return workers
