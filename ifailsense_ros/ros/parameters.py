"""Every parameter of the node in one table: type, default, bounds, and what it is for.

All are read at start-up and read-only then: a monitor that changes its rules between START and END
would be hard to trust.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
)
from rclpy.exceptions import InvalidParameterTypeException, ParameterException
from rclpy.node import Node

from ifailsense_ros.core.checkpoint import CheckpointConfig, resolve_checkpoint
from ifailsense_ros.core.effects import SECOND, InstructionChange, TrackerConfig
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.pairing import DEFAULT_QUEUE_SIZE, DEFAULT_SLOP_NS
from ifailsense_ros.model.handle import DetectorSpec, is_factory
from ifailsense_ros.ros.image_source import DECODERS, SYNCHRONIZERS

_DEFAULTS = TrackerConfig()


def _s(duration_ns: int) -> float:
    return duration_ns / SECOND


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        default: whose type is the parameter's type.
        description: for `ros2 param describe` and docs/interfaces.md.
        bounds: least and greatest number allowed.
        choices: texts allowed; empty: any that is not empty.
    """

    default: bool | int | float | str
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()


PARAMETERS: dict[str, Parameter] = {
    # --- detector ---
    "detector": Parameter(
        "sim-tiny",
        "Checkpoint: the name of a packaged one or a folder; or module:callable, which is called "
        "with device= and shuffle_seed= and returns a detector of your own.",
    ),
    "device": Parameter("auto", "Where the detector runs: auto, cpu, cuda, cuda:1, ..."),
    "detector_threads": Parameter(
        0, "Threads of the detector's arithmetic; 0: all cores but one.", (0, 1024)
    ),
    "shuffle_seed": Parameter(
        -1,
        "Control: permutes the trained weights with this seed, so that verdicts mean nothing; "
        "-1: off.",
        (-1, 2**31 - 1),
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
    ),
    "detector_start_timeout": Parameter(
        _s(_DEFAULTS.detector_start_timeout_ns),
        "Seconds the detector may take to load.",
        (0.1, 3600.0),
    ),
    "queue_size": Parameter(
        _DEFAULTS.queue_size, "Episodes that may wait for judgement.", (1, 1000)
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
    ),
    "camera_silent": Parameter(
        _s(_DEFAULTS.camera_silent_ns),
        "Seconds (steady clock): at END every camera must have sent within this time.",
        (0.0, 600.0),
    ),
    # --- episodes ---
    "pre_roll": Parameter(
        _s(_DEFAULTS.pre_roll_ns),
        "Seconds (stamps) before START from which pairs belong to the episode.",
        (0.0, 1.0),
    ),
    "end_grace": Parameter(
        _s(_DEFAULTS.end_grace_ns),
        "Seconds (steady clock) to wait after END for pairs that are still on their way.",
        (0.0, 60.0),
    ),
    "instruction_grace": Parameter(
        _s(_DEFAULTS.instruction_grace_ns),
        "Seconds (steady clock) after START within which an instruction still counts.",
        (0.0, 60.0),
    ),
    "instruction_change": Parameter(
        _DEFAULTS.instruction_change.value,
        "A different instruction during an episode makes it UNKNOWN, is its END, or is ignored.",
        choices=tuple(change.value for change in InstructionChange),
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
    ),
    # --- outputs ---
    "publish_montage": Parameter(True, "Publish the montage with the verdict drawn in."),
    "montage_scale": Parameter(2, "Screen pixels per pixel of the montage.", (1, 8)),
}


def declare(node: Node) -> dict[str, Any]:
    """Declare all parameters; returns their values.

    Raises:
        ConfigError: a value of the wrong type or outside its bounds, in one line that names it.
    """
    values = {name: _declare(node, name, row) for name, row in PARAMETERS.items()}
    for name in sorted(set(node._parameter_overrides) - set(values)):
        # Misspelt names would otherwise be passed over in silence.
        if name != "use_sim_time" and not name.startswith(("qos_overrides.", "start_type_desc")):
            node.get_logger().warning(f"parameter {name} is unknown and has no effect")
    return values


def tracker_settings(values: dict[str, Any]) -> dict[str, Any]:
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
    )
    settings: dict[str, Any] = {f"{name}_ns": round(values[name] * SECOND) for name in durations}
    settings["instruction_change"] = InstructionChange(values["instruction_change"])
    settings["queue_size"] = values["queue_size"]
    return settings


def detector_spec(values: dict[str, Any]) -> DetectorSpec:
    """The parameters that make the detector."""
    seed = values["shuffle_seed"]
    kwargs = {"device": values["device"], "shuffle_seed": None if seed < 0 else seed}
    threads = values["detector_threads"]
    if is_factory(values["detector"]):
        return DetectorSpec(values["detector"], kwargs, threads)
    spec = DetectorSpec(kwargs={"spec": values["detector"], **kwargs}, num_threads=threads)
    # The worker's environment says it too, but a detector in this process has no other way.
    return dataclasses.replace(spec, kwargs={**spec.kwargs, "num_threads": spec.threads()})


def check_detector(values: dict[str, Any]) -> None:
    """Find mistakes that need no torch to be seen: the rest comes from the detector's process.

    Raises:
        CheckpointError: there is no such checkpoint, or its settings are wrong.
    """
    if not is_factory(values["detector"]):
        CheckpointConfig.from_json(resolve_checkpoint(values["detector"]))


def _declare(node: Node, name: str, row: Parameter) -> Any:
    try:
        value = node.declare_parameter(name, row.default, _descriptor(row)).value
    except InvalidParameterTypeException as error:
        value = node._parameter_overrides[name].value
        raise ConfigError(f"parameter {name}: {value!r} is not {_type_name(row)}") from error
    except ParameterException as error:
        value = node._parameter_overrides[name].value
        raise ConfigError(f"parameter {name}: {value!r} is not allowed, {_allowed(row)}") from error
    if isinstance(value, str) and (value not in row.choices if row.choices else not value):
        raise ConfigError(f"parameter {name}: {value!r} is not allowed, {_allowed(row)}")
    return value


def _descriptor(row: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=row.description, read_only=True)
    if row.bounds is not None and isinstance(row.default, float):
        low, high = row.bounds
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif row.bounds is not None:
        low, high = (int(bound) for bound in row.bounds)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    if row.choices:
        descriptor.additional_constraints = _allowed(row)
    return descriptor


def _allowed(row: Parameter) -> str:
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
