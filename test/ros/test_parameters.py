"""One table of parameters: the node, the configuration file and the documentation agree with it."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

import rclpy
import yaml
from doubles import make_config
from rclpy.node import Node
from ros_peer import ROOT

from ifailsense_ros.core.effects import InstructionChange, TrackerConfig
from ifailsense_ros.core.errors import CheckpointError, ConfigError
from ifailsense_ros.evaluate.baselines.names import FACTORY as BASELINE_FACTORY
from ifailsense_ros.model.handle import DEFAULT_FACTORY, DetectorSpec
from ifailsense_ros.ros.declared_parameters import DeclaredParameters
from ifailsense_ros.ros.parameters import (
    PARAMETERS,
    Change,
    check_detector,
    check_shared,
    detector_spec,
    objection,
    tracker_settings,
)

FILES = '"files": {"fs.safetensors": "00"}'


@pytest.fixture
def declared(domain):
    """Declares the parameters in a node started with these arguments."""
    context = rclpy.Context()
    nodes = []

    def make(*arguments: str):
        words = [word for a in arguments for word in ("-p", a)]
        rclpy.init(args=["--ros-args", *words], context=context)
        nodes.append(Node("monitor", context=context))
        parameters = DeclaredParameters(nodes[0], is_configured=lambda: True)
        parameters.check()
        return parameters.values, nodes[0]

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def test_defaults_are_those_of_the_tracker(declared):
    values, _ = declared()
    assert TrackerConfig(**tracker_settings(values)) == TrackerConfig()
    threads = DetectorSpec().threads()
    kwargs = {"spec": "sim-tiny", "device": "auto", "shuffle_seed": None, "num_threads": threads}
    assert detector_spec(values) == DetectorSpec(DEFAULT_FACTORY, kwargs, 0)


def test_values_reach_the_tracker_and_the_detector(declared):
    values, _ = declared(
        "pre_roll:=0.5",
        "instruction_change:=end",
        "episode_timeout:=30.0",
        "detector:=my.module:load",
        "shuffle_seed:=7",
        "detector_threads:=2",
    )
    config = TrackerConfig(**tracker_settings(values))
    assert config.pre_roll_ns == 500_000_000
    assert config.episode_timeout_ns == 30_000_000_000
    assert config.instruction_change is InstructionChange.END
    expected = DetectorSpec("my.module:load", {"device": "auto", "shuffle_seed": 7}, 2)
    assert detector_spec(values) == expected


def test_promises_reach_the_detector_only_where_they_are_asked_for(declared):
    values, _ = declared(
        "detector:=my.module:load",
        "max_missed_failures:=0.02",
        "out_of_distribution_guard:=false",
    )
    kwargs = {"device": "auto", "shuffle_seed": None, "max_missed_failures": 0.02, "guard": False}
    assert detector_spec(values) == DetectorSpec("my.module:load", kwargs, 0)


def test_speed_settings_reach_the_detector_only_where_they_are_asked_for(declared):
    from ifailsense_ros.model.accelerate import ACCELERATIONS
    from ifailsense_ros.model.quantise import QUANTISATIONS

    values, _ = declared("detector:=my.module:load", "acceleration:=compile")
    kwargs = {"device": "auto", "shuffle_seed": None, "acceleration": "compile"}
    assert detector_spec(values) == DetectorSpec("my.module:load", kwargs, 0)
    assert PARAMETERS["acceleration"].choices == ACCELERATIONS
    assert PARAMETERS["quantisation"].choices == QUANTISATIONS


def test_a_baseline_is_not_quantised():
    values = {**DEFAULTS, "detector": "baseline:always-failure", "quantisation": "int8"}
    with pytest.raises(ConfigError, match="parameter quantisation: baseline:always-failure cannot"):
        check_detector(values)


DEFAULTS = {name: row.default for name, row in PARAMETERS.items()}


def test_a_baseline_is_made_by_its_own_factory():
    values = {**DEFAULTS, "detector": "baseline:aha:/models/m,pov=1", "detector_threads": 2}
    check_detector(values)
    spec = detector_spec(values)
    assert spec.factory == BASELINE_FACTORY
    assert spec.kwargs["spec"] == values["detector"]
    assert spec.kwargs["num_threads"] == 2
    with pytest.raises(ConfigError, match="no such baseline"):
        check_detector({**values, "detector": "baseline:nobody"})


@pytest.mark.parametrize("name", ["max_missed_failures", "max_false_alarms"])
def test_a_checkpoint_without_calibration_promises_nothing(tmp_path, name):
    (tmp_path / "checkpoint.json").write_text(make_config().to_json().replace('"files": {}', FILES))
    values = {**DEFAULTS, "detector": str(tmp_path)}
    check_detector(values)
    with pytest.raises(ConfigError, match=f"{name} 0.05 cannot be promised: double@.* calibrate"):
        check_detector({**values, name: 0.05})


def test_a_checkpoint_on_the_hub_is_left_to_the_detectors_process(monkeypatch):
    """The node's own process reads the name only: fetching may take minutes."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("fetched"))
    values = {**DEFAULTS, "detector": "hub:lab/tiny@v1"}
    check_detector(values)
    spec = detector_spec(values)
    assert spec.factory == DEFAULT_FACTORY
    assert spec.kwargs["spec"] == "hub:lab/tiny@v1"
    for wrong in ("hub:lab/tiny", "hub:lab"):
        with pytest.raises(CheckpointError, match="write hub:<org>/<name>@<revision>"):
            check_detector({**values, "detector": wrong})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_missed_failures", 0.05),
        ("max_false_alarms", 0.05),
        ("out_of_distribution_guard", False),
        ("acceleration", "compile"),
        ("quantisation", "int8"),
    ],
)
def test_a_shared_detector_is_not_told_by_one_of_its_monitors(name, value):
    values = {**DEFAULTS, "detector": "service:/detector"}
    check_shared(values)
    with pytest.raises(ConfigError, match=f"parameter {name}: service:/detector decides"):
        check_shared({**values, name: value})


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("max_missed_failures:=1.5", "max_missed_failures: 1.5 is not allowed, must be in 0.0"),
        ("max_false_alarms:=.nan", "parameter max_false_alarms: nan is not allowed"),
        ("out_of_distribution_guard:=0", "out_of_distribution_guard: 0 is not true or false"),
        ("slop:=2.0", "parameter slop: 2.0 is not allowed, must be in 0.0..1.0"),
        ("slop:=1", r"parameter slop: 1 is not a number with a decimal point \(1.0\)"),
        ("queue_size:=0", "parameter queue_size: 0 is not allowed, must be in 1..90"),
        ("queue_size:=2.5", "parameter queue_size: 2.5 is not an integer"),
        ("image_transport:=ffmpeg", "'ffmpeg' is not allowed, must be one of raw, compressed"),
        ("slop:=.nan", "parameter slop: nan is not allowed, must be in 0.0..1.0"),
        ("detector:=''", "parameter detector: '' is not allowed, must not be empty"),
        ("detector:=7", "parameter detector: 7 is not a text"),
        ("in_process:=1", "parameter in_process: 1 is not true or false"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(declared, argument, text):
    with pytest.raises(ConfigError, match=text) as caught:
        declared(argument)
    assert "\n" not in str(caught.value)


def test_parameters_are_described_and_bounded(declared):
    _, node = declared()
    for name, row in PARAMETERS.items():
        descriptor = node.describe_parameter(name)
        assert descriptor.description == row.description
        assert descriptor.read_only == (row.change is Change.NEVER)
        assert row.change.value in descriptor.additional_constraints
        assert all(choice in descriptor.additional_constraints for choice in row.choices)
        assert objection(name, row.default) == ""
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        assert [(r.from_value, r.to_value) for r in ranges] == ([row.bounds] if row.bounds else [])
        number = isinstance(row.default, int | float) and not isinstance(row.default, bool)
        assert (row.bounds is not None) == number, f"{name} has no bounds"


def test_the_configuration_file_has_every_parameter_with_its_default():
    text = (ROOT / "config" / "monitor.yaml").read_text()
    (section,) = yaml.safe_load(text).values()
    assert section["ros__parameters"] == {n: row.default for n, row in PARAMETERS.items()}


SHORT = {
    Change.AT_ONCE: "at once",
    Change.NEXT_EPISODE: "next START",
    Change.UNCONFIGURED: "unconfigured",
    Change.NEVER: "never",
}


def test_the_documentation_has_every_parameter():
    text = (ROOT / "docs" / "interfaces.md").read_text()
    for name, row in PARAMETERS.items():
        default = str(row.default).lower() if isinstance(row.default, bool) else row.default
        default = default if default != "" else '""'
        assert f"| `{name}` | `{default}` | {SHORT[row.change]} |" in text, name
