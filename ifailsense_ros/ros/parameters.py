"""Every parameter of the node in one table: type, default, bounds, what for, when it may change.

No rule of an episode changes between its START and its END: such a monitor would be hard to trust.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ifailsense_ros.core.calibration import check_rates
from ifailsense_ros.core.checkpoint import CheckpointConfig, resolve_checkpoint
from ifailsense_ros.core.effects import SECOND, InstructionChange, TrackerConfig
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.pairing import DEFAULT_QUEUE_SIZE, DEFAULT_SLOP_NS
from ifailsense_ros.evaluate.baselines.names import FACTORY as BASELINE_FACTORY
from ifailsense_ros.evaluate.baselines.names import is_baseline, parse_name
from ifailsense_ros.model.handle import DetectorSpec, is_factory
from ifailsense_ros.model.hub import is_on_hub, parse_spec
from ifailsense_ros.ros.image_source import DECODERS, SYNCHRONIZERS

_DEFAULTS = TrackerConfig()

RATES = ("max_missed_failures", "max_false_alarms")
GUARD = "out_of_distribution_guard"
SPEED = ("acceleration", "quantisation")


def _s(duration_ns: int) -> float:
    return duration_ns / SECOND


class Change(enum.Enum):
    """When a new value of a parameter is accepted, and from when on it holds."""

    AT_ONCE = "at any time; holds at once"
    NEXT_EPISODE = "at any time; holds for episodes that start from then on"
    UNCONFIGURED = "while the node is unconfigured"
    NEVER = "never: read when the node starts"


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        default: whose type is the parameter's type.
        description: for `ros2 param describe` and docs/interfaces.md.
        bounds: least and greatest number allowed.
        choices: texts allowed; empty: any.
        may_be_empty: whether the empty text is allowed.
        change: when it may be changed.
    """

    default: bool | int | float | str
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    may_be_empty: bool = False
    change: Change = Change.UNCONFIGURED


PARAMETERS: dict[str, Parameter] = {
    "autostart": Parameter(
        True,
        "Configure and activate the node when it starts. false: wait for a lifecycle manager.",
        change=Change.NEVER,
    ),
    # --- detector ---
    "detector": Parameter(
        "sim-tiny",
        "Checkpoint: the name of a packaged one, a folder, or hub:<org>/<name>@<revision>; or "
        "module:callable, which is called with device= and shuffle_seed= and returns a detector of "
        "your own; or service:/name, a detector that several monitors share; or baseline:..., see "
        "docs/baselines.md.",
    ),
    "device": Parameter("auto", "Where the detector runs: auto, cpu, cuda, cuda:1, ..."),
    "detector_threads": Parameter(
        0, "Threads of the detector's arithmetic; 0: all cores but one.", (0, 1024)
    ),
    "acceleration": Parameter(
        "none",
        "compile: the model's layers are compiled when the detector loads, which takes minutes "
        "(raise detector_start_timeout); graphs: and captured in CUDA graphs.",
        choices=("none", "compile", "graphs"),
    ),
    "quantisation": Parameter(
        "none",
        "int8: half the memory for the language model's weights, with the package torchao; not "
        "with a promised error rate.",
        choices=("none", "int8"),
    ),
    "shuffle_seed": Parameter(
        -1,
        "Control: permutes the trained weights with this seed, so that verdicts mean nothing; "
        "-1: off.",
        (-1, 2**31 - 1),
    ),
    "max_missed_failures": Parameter(
        0.0,
        "Share of failures that may be called SUCCESS; a verdict that is not sure enough for that "
        "is UNKNOWN, LOW_CONFIDENCE. Needs a calibrated checkpoint; 0: no such promise.",
        (0.0, 1.0),
    ),
    "max_false_alarms": Parameter(
        0.0,
        "Share of successes that may be called FAILURE; as max_missed_failures.",
        (0.0, 1.0),
    ),
    "out_of_distribution_guard": Parameter(
        True,
        "Pictures unlike any that the checkpoint was trained on are UNKNOWN, OUT_OF_DISTRIBUTION, "
        "where it can tell.",
    ),
    "in_process": Parameter(
        False,
        "Run the detector in a thread of the node instead of its own process: less memory, but a "
        "detector that hangs cannot be restarted.",
    ),
    "detector_timeout": Parameter(
        _s(_DEFAULTS.detector_timeout_ns),
        "Seconds a judgement may take; then UNKNOWN, and the detector is restarted.",
        (0.01, 3600.0),
        change=Change.AT_ONCE,
    ),
    "detector_start_timeout": Parameter(
        _s(_DEFAULTS.detector_start_timeout_ns),
        "Seconds the detector may take to load (not with in_process, where nothing can end it).",
        (0.1, 3600.0),
    ),
    "queue_size": Parameter(
        _DEFAULTS.queue_size,
        # Below the depth of ~/verdict: all of them may be settled at once.
        "Episodes that may wait for judgement.",
        (1, 90),
        change=Change.AT_ONCE,
    ),
    # --- cameras ---
    "image_transport": Parameter(
        "raw",
        "raw: sensor_msgs/Image on exo/image and gripper/image; compressed: "
        "sensor_msgs/CompressedImage on .../compressed.",
        choices=("raw", "compressed"),
    ),
    "image_decoder": Parameter(
        "auto", "What decodes pictures; auto: cv_bridge where it works.", choices=DECODERS
    ),
    "synchronizer": Parameter(
        "auto", "What pairs the cameras; auto: message_filters where it is.", choices=SYNCHRONIZERS
    ),
    "slop": Parameter(
        _s(DEFAULT_SLOP_NS), "Seconds by which stamps of one pair may differ.", (0.0, 1.0)
    ),
    "pairing_queue": Parameter(
        DEFAULT_QUEUE_SIZE, "Pictures per camera that may wait for a partner.", (1, 1000)
    ),
    "camera_stale": Parameter(
        _s(_DEFAULTS.camera_stale_ns),
        "Seconds (stamps): the first pair must come this soon after START, the last one be no "
        "older than this at END.",
        (0.0, 60.0),
        change=Change.NEXT_EPISODE,
    ),
    "camera_silent": Parameter(
        _s(_DEFAULTS.camera_silent_ns),
        "Seconds (steady clock): at END every camera must have sent within this time.",
        (0.0, 600.0),
        change=Change.NEXT_EPISODE,
    ),
    # --- episodes ---
    "pre_roll": Parameter(
        _s(_DEFAULTS.pre_roll_ns),
        "Seconds (stamps) before START from which pairs belong to the episode.",
        (0.0, 1.0),
        change=Change.NEXT_EPISODE,
    ),
    "end_grace": Parameter(
        _s(_DEFAULTS.end_grace_ns),
        "Seconds (steady clock) to wait after END for pairs that are still on their way.",
        (0.0, 60.0),
        change=Change.NEXT_EPISODE,
    ),
    "instruction_grace": Parameter(
        _s(_DEFAULTS.instruction_grace_ns),
        "Seconds (steady clock) after START within which an instruction still counts.",
        (0.0, 60.0),
        change=Change.NEXT_EPISODE,
    ),
    "instruction_change": Parameter(
        _DEFAULTS.instruction_change.value,
        "A different instruction during an episode makes it UNKNOWN, is its END, or is ignored.",
        choices=tuple(change.value for change in InstructionChange),
        change=Change.NEXT_EPISODE,
    ),
    "instruction_durability": Parameter(
        "transient_local",
        "Of the instruction subscription. With transient_local the last instruction reaches a "
        "monitor started later, but a volatile publisher is not heard at all.",
        choices=("transient_local", "volatile"),
    ),
    "episode_timeout": Parameter(
        _s(_DEFAULTS.episode_timeout_ns),
        "Seconds (steady clock) after which a running episode ends by itself; 0: never.",
        (0.0, 86400.0),
        change=Change.NEXT_EPISODE,
    ),
    "goal_status_action": Parameter(
        "",
        "Name of an action whose goals are episodes, each from its acceptance to its end; empty: "
        "none. What was to be done still comes on the instruction topic.",
        may_be_empty=True,
    ),
    # --- outputs ---
    "provisional_period": Parameter(
        _s(_DEFAULTS.provisional_period_ns),
        "Seconds (steady clock) between early warnings on ~/verdict/provisional while an episode "
        "runs; 0: none.",
        (0.0, 3600.0),
        change=Change.AT_ONCE,
    ),
    "publish_montage": Parameter(
        True, "Publish the montage with the verdict drawn in.", change=Change.AT_ONCE
    ),
    "montage_scale": Parameter(
        2, "Screen pixels per pixel of the montage.", (1, 8), change=Change.AT_ONCE
    ),
}


def tracker_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that go to `TrackerConfig`, by its field names."""
    durations = (
        "pre_roll",
        "end_grace",
        "instruction_grace",
        "camera_stale",
        "camera_silent",
        "detector_timeout",
        "detector_start_timeout",
        "episode_timeout",
        "provisional_period",
    )
    settings: dict[str, Any] = {f"{name}_ns": round(values[name] * SECOND) for name in durations}
    settings["instruction_change"] = InstructionChange(values["instruction_change"])
    settings["queue_size"] = values["queue_size"]
    return settings


def detector_spec(values: Mapping[str, Any]) -> DetectorSpec:
    """The parameters that make the detector."""
    seed = values["shuffle_seed"]
    kwargs = {"device": values["device"], "shuffle_seed": None if seed < 0 else seed}
    # A detector of one's own need not know them, unless they are asked for.
    kwargs |= {name: rate for name, rate in _rates(values).items() if rate is not None}
    if not values["out_of_distribution_guard"]:
        kwargs["guard"] = False
    kwargs |= {name: values[name] for name in SPEED if values[name] != PARAMETERS[name].default}
    threads = values["detector_threads"]
    baseline = is_baseline(values["detector"])
    if is_factory(values["detector"]) and not baseline:
        return DetectorSpec(values["detector"], kwargs, threads)
    spec = DetectorSpec(kwargs={"spec": values["detector"], **kwargs}, num_threads=threads)
    if baseline:
        spec = dataclasses.replace(spec, factory=BASELINE_FACTORY)
    # The worker's environment says it too, but a detector in this process has no other way.
    return dataclasses.replace(spec, kwargs={**spec.kwargs, "num_threads": spec.threads()})


def check_detector(values: Mapping[str, Any]) -> None:
    """Find mistakes that need no torch to be seen: the rest comes from the detector's process.

    Raises:
        CheckpointError: there is no such checkpoint, or its settings are wrong; of one on the hub,
            that its name is none.
        ConfigError: it cannot promise the error rates that are asked for; no such baseline.
    """
    if is_baseline(values["detector"]):
        parse_name(values["detector"])
        if values["quantisation"] != "none":
            raise ConfigError(
                f"parameter quantisation: {values['detector']} cannot be quantised; leave it out"
            )
    elif is_on_hub(values["detector"]):  # fetched by the detector's process: it may take minutes
        parse_spec(values["detector"])
    elif not is_factory(values["detector"]):
        config = CheckpointConfig.from_json(resolve_checkpoint(values["detector"]))
        check_rates(config.calibration, config.model_id, **_rates(values))


def check_shared(values: Mapping[str, Any]) -> None:
    """See that nothing is asked of a shared detector that only its own node can be told.

    Raises:
        ConfigError: a promise would not be kept, or the guard goes on.
    """
    for name in (*RATES, GUARD, *SPEED):
        if values[name] != PARAMETERS[name].default:
            raise ConfigError(
                f"parameter {name}: {values['detector']} decides that for all its monitors; set "
                "it on ifailsense_detector and leave it out here"
            )


def _rates(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: values[name] or None for name in RATES}


def objection(name: str, value: Any, row: Parameter | None = None) -> str:
    """Why a parameter cannot have this value, in one line that names it; empty if it can.

    `row`: of the parameter; the monitor's if omitted.
    """
    row = row or PARAMETERS[name]
    if type(value) is not type(row.default):
        return f"parameter {name}: {value!r} is not {_type_name(row)}"
    if isinstance(value, str):
        allowed = value in row.choices if row.choices else row.may_be_empty or value
    else:
        # NaN is outside of any bounds.
        allowed = row.bounds is None or row.bounds[0] <= value <= row.bounds[1]
    return "" if allowed else f"parameter {name}: {value!r} is not allowed, {allowed_text(row)}"


def allowed_text(row: Parameter) -> str:
    """What values a parameter may have; for people."""
    if row.choices:
        return f"must be one of {', '.join(row.choices)}"
    if row.bounds is not None:
        return f"must be in {row.bounds[0]}..{row.bounds[1]}"
    return "must not be empty"


def _type_name(row: Parameter) -> str:
    return {
        bool: "true or false",
        int: "an integer",
        float: "a number with a decimal point (1.0)",
        str: "a text",
    }[type(row.default)]
