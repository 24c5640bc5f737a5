"""The launch files, and the configuration files that are not parameters."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from ros_peer import ROOT

from ifailsense_ros.ros import rigs

LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
MONITOR = ROOT / "launch" / "monitor.launch.py"
LOOP = ROOT / "launch" / "closed_loop.launch.py"
RIGS = [path for path in LAUNCH_FILES if path not in (MONITOR, LOOP)]
DOCUMENTED = (ROOT / "docs" / "interfaces.md").read_text()


def rig_name(path: Path) -> str:
    return path.name.removesuffix(".launch.py")


# --- structure: launch is not on the package registry, here only the syntax tree is looked at -----


def constant(node: ast.expr, names: dict[str, ast.expr]):
    """The value of a literal, with the file's own constants filled in; None where it is code."""
    if isinstance(node, ast.Name):
        return constant(names[node.id], names)
    if isinstance(node, ast.List):
        value = []
        for item in node.elts:
            starred = isinstance(item, ast.Starred)
            inner = constant(item.value if starred else item, names)
            value += inner if starred else [inner]
        return value
    return node.value if isinstance(node, ast.Constant) else None


def rows_of(path: Path) -> list[tuple]:
    """The arguments of a launch file: name, default (None where it is code), description, choices.

    Those of a rig are in `rigs`, but for its params_file.
    """
    if path in RIGS:
        return [(name, *row) for name, row in rigs.arguments_of(rig_name(path)).items()]
    tree = ast.parse(path.read_text())
    names = {
        n.targets[0].id: n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
    }
    return [tuple(constant(item, names) for item in row.elts) for row in names["ARGUMENTS"].elts]


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=rig_name)
def test_structure_of_a_launch_file_without_executing_it(path):
    tree = ast.parse(path.read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "generate_launch_description" in functions
    imported = {n.module for n in tree.body if isinstance(n, ast.ImportFrom)}
    known = ("launch", "launch_ros", "ifailsense_ros")
    assert all(module.split(".")[0] in known for module in imported)
    assert f"ros2 launch ifailsense_ros {path.name}" in ast.get_docstring(tree)
    rows = rows_of(path)
    assert len({name for name, *_ in rows}) == len(rows)
    for name, default, description, choices in rows:
        assert description.endswith("."), f"{name} is not described"
        assert choices is None or default in choices, name


@pytest.mark.parametrize("path", [MONITOR, LOOP, Path(rigs.__file__)], ids=lambda path: path.name)
def test_arguments_are_declared_with_all_that_the_tables_say(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    (declare,) = [c for c in calls if getattr(c.func, "id", "") == "DeclareLaunchArgument"]
    assert {k.arg for k in declare.keywords} == {"default_value", "description", "choices"}


def test_structure_of_the_monitors_node():
    tree = ast.parse(MONITOR.read_text())
    (node,) = [
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "Node"
    ]
    keywords = {k.arg: k.value for k in node.keywords}
    executable = ast.literal_eval(keywords["executable"])
    assert (ROOT / "scripts" / executable).is_file()
    assert ast.literal_eval(keywords["name"]) == "monitor"
    used = [c.value for c in ast.walk(tree) if isinstance(c, ast.Constant)]
    for name, *_ in rows_of(MONITOR):
        assert f"`{name}`" in DOCUMENTED
        # Once in the table, and at least once where it is filled in (cameras: exo_image is spelt
        # from the camera's name).
        assert used.count(name) >= 2 or name in ("exo_image", "gripper_image"), name


def test_what_is_finite_has_choices():
    choices = {row[0]: row[3] for row in rows_of(MONITOR)}
    parameters = pytest.importorskip("ifailsense_ros.ros.parameters").PARAMETERS
    assert choices["image_transport"] == ["", *parameters["image_transport"].choices]
    assert choices["camera_reliability"] == ["", "best_effort", "reliable"]
    assert set(choices["use_sim_time"]) == {"true", "false", "True", "False"}
    assert choices["autostart"] == ["", *choices["use_sim_time"]]
    assert choices["log_level"] == ["debug", "info", "warn", "error", "fatal"]


@pytest.mark.parametrize("path", RIGS, ids=rig_name)
def test_a_rig_changes_defaults_of_the_monitors_launch_file_only(path):
    monitor = {row[0]: row for row in rows_of(MONITOR)}
    for name, default, _, choices in rows_of(path):
        assert choices == monitor[name][3], name
        assert default != monitor[name][1], f"{name} is the default anyway"


@pytest.mark.parametrize("path", RIGS, ids=rig_name)
def test_a_rigs_launch_file_names_its_own_rig(path):
    calls = [c for c in ast.walk(ast.parse(path.read_text())) if isinstance(c, ast.Call)]
    (call,) = [c for c in calls if getattr(c.func, "id", "") == "rig_description"]
    assert ast.literal_eval(call.args[0]) == rig_name(path)
    assert ROOT.joinpath(*rigs.parameters_file(rig_name(path))).is_file()


def test_every_rig_has_a_launch_file_and_parameters():
    parameters = {path.stem for path in (ROOT / "config" / "rigs").iterdir()}
    assert set(rigs.RIGS) == {rig_name(path) for path in RIGS} == parameters


def pairs_of(node: ast.Dict) -> list[tuple[ast.expr, ast.expr]]:
    return list(zip(node.keys, node.values, strict=True))


def test_structure_of_the_closed_loop() -> None:
    tree = ast.parse(LOOP.read_text())
    names = {
        n.targets[0].id: n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
    }
    nodes = {
        ast.literal_eval(keywords["name"]): keywords
        for keywords in (
            {k.arg: k.value for k in call.keywords}
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Node"
        )
    }
    cmake = (ROOT / "CMakeLists.txt").read_text()
    for keywords in nodes.values():
        executable = ast.literal_eval(keywords["executable"])
        (program,) = [p for f in ("scripts", "examples") for p in (ROOT / f).glob(executable)]
        assert program.stat().st_mode & 0o111, f"{program} is not executable"
        assert f"{program.parent.name}/{program.name}" in cmake, f"{program} is not installed"
    # Every argument is a parameter of one node, of the type that its default has.
    given = {
        ast.literal_eval(node): {ast.literal_eval(name): kind.id for name, kind in pairs_of(of)}
        for node, of in pairs_of(names["PARAMETERS"])
    }
    assert set(given) == set(nodes)
    rows = {name: default for name, default, *_ in rows_of(LOOP)}
    assert sorted(rows) == sorted(name for of in given.values() for name in of)
    for name, kind in (item for of in given.values() for item in of.items()):
        {"int": int, "float": float, "str": str}[kind](rows[name])
    # What the nodes declare, read from their code.
    sources = {
        "robot": ROOT / "ifailsense_ros" / "ros" / "sim_robot_node.py",
        "planner": ROOT / "examples" / "recovery_planner.py",
        "monitor": ROOT / "config" / "monitor.yaml",
    }
    for node, of in given.items():
        text = sources[node].read_text()
        quote = "" if node == "monitor" else '"'
        assert all(f"{quote}{name}{quote}" in text for name in of), node


# --- execution: needs launch_ros (a ROS install, or upstream's Python) ----------------------------


@pytest.fixture
def prefix(monkeypatch, tmp_path):
    """An ament prefix with our launch and config files, and in the monitor's place a program that
    prints its arguments and its parameter files.
    """
    pytest.importorskip("launch")
    pytest.importorskip("launch_ros")
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "ifailsense_ros").touch()
    share = tmp_path / "share" / "ifailsense_ros"
    share.mkdir()
    for folder in ("config", "launch"):
        (share / folder).symlink_to(ROOT / folder)
    program = tmp_path / "lib" / "ifailsense_ros" / "ifailsense_monitor"
    program.parent.mkdir(parents=True)
    program.write_text(
        '#!/bin/sh\necho called with: "$@"\n'
        'while [ $# -gt 0 ]; do [ "$1" = --params-file ] && sed "s/^/file: /" "$2"; shift; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    return tmp_path


class Launched:
    """What a launch file started.

    Attributes:
        words: arguments of the program.
        overrides: parameters that the launch file itself gives, "name: value" lines.
    """

    def __init__(self, output: str) -> None:
        (line,) = [x for x in output.splitlines() if "called with: " in x]
        self.words = line.split("called with: ")[1].split()
        files = output.split("called with: ")[1].split("ros__parameters:")
        self.overrides = re.findall(r"file:\s+(\S+: \S+)$", files[-1], re.MULTILINE)

    def after(self, flag: str) -> list[str]:
        """Every word that follows this one."""
        return [w for i, w in enumerate(self.words) if i and self.words[i - 1] == flag]


LAUNCH = """
import sys
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch import LaunchDescription, LaunchService
source = PythonLaunchDescriptionSource(sys.argv[1])
given = [word.split(":=", 1) for word in sys.argv[2:]]
service = LaunchService()
include = IncludeLaunchDescription(source, launch_arguments=given)
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""
"""What `ros2 launch` does; a process of its own, since launch's logging is one for each process."""


def try_launch(path: Path, **arguments: str) -> subprocess.CompletedProcess[str]:
    """Launch for real; whatever comes of it."""
    words = [f"{name}:={value}" for name, value in arguments.items()]
    return subprocess.run(
        [sys.executable, "-c", LAUNCH, str(path), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_launch(path: Path, **arguments: str) -> Launched:
    """Launch for real."""
    run = try_launch(path, **arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    return Launched(run.stdout)


def test_launching_it(prefix):
    launched = run_launch(
        MONITOR,
        namespace="left",
        exo_image="/front",
        image_transport="compressed",
        camera_reliability="reliable",
        autostart="False",
        enclave="/ifailsense/monitor",
    )
    assert "__node:=monitor" in launched.words
    assert "__ns:=/left" in launched.words
    assert "exo/image:=/front" in launched.words
    assert "exo/image/compressed:=/front/compressed" in launched.words
    assert "gripper/image:=gripper/image" in launched.words
    assert launched.after("--log-level") == ["info"]
    assert launched.after("--enclave") == ["/ifailsense/monitor"]
    assert len(launched.after("--params-file")) == 2, "the configuration file, then the arguments"
    assert set(launched.overrides) == {
        "image_transport: compressed",
        "autostart: false",
        "use_sim_time: false",
        *(
            f"qos_overrides.{topic}{suffix}.subscription.reliability: reliable"
            for topic in ("/front", "/left/gripper/image")
            for suffix in ("", "/compressed")
        ),
    }


def test_arguments_left_out_leave_the_params_file_alone(prefix):
    launched = run_launch(MONITOR)
    assert launched.after("--params-file")[0].endswith("config/monitor.yaml")
    assert launched.overrides == ["use_sim_time: false"]
    assert launched.after("--enclave") == []


@pytest.mark.parametrize("path", RIGS, ids=rig_name)
def test_launching_a_rig(prefix, path):
    launched = run_launch(path, log_level="debug", instruction="/task")
    assert launched.after("--params-file")[0].endswith(f"config/rigs/{rig_name(path)}.yaml")
    assert launched.after("--log-level") == ["debug"]
    assert "instruction:=/task" in launched.words
    topics = {row[0]: row[1] for row in rows_of(path)}
    for camera in ("exo", "gripper"):
        topic = topics.get(f"{camera}_image", f"{camera}/image")
        assert f"{camera}/image:={topic}" in launched.words
        name = f"qos_overrides./{topic}.subscription.reliability"
        assert f"{name}: reliable" in launched.overrides


def test_a_value_that_is_no_choice_is_refused(prefix):
    run = try_launch(MONITOR, image_transport="ffmpeg")
    assert run.returncode == 1
    assert '"image_transport" provided value "ffmpeg" is not valid' in run.stdout


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=rig_name)
def test_show_args_knows_every_argument(prefix, path):
    spec = importlib.util.spec_from_file_location("launch_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = {a.name: a for a in module.generate_launch_description().get_launch_arguments()}
    assert set(shown) == {row[0] for row in rows_of(LOOP if path == LOOP else MONITOR)}
    assert all(a.description and a.default_value is not None for a in shown.values())


# --- the Fast DDS profile -------------------------------------------------------------------------


def test_the_fast_dds_profile():
    text = (ROOT / "config" / "fastdds_shm.xml").read_text()
    root = ElementTree.fromstring(text.encode())
    ns = {"f": root.tag.strip("{").partition("}")[0]}
    defined = {e.text for e in root.iterfind(".//f:transport_descriptor/f:transport_id", ns)}
    used = {e.text for e in root.iterfind(".//f:userTransports/f:transport_id", ns)}
    assert used == defined == {"shared_memory", "udp"}
    sizes = [int(e.text) for e in root.iterfind(".//f:segment_size", ns)]
    assert sizes == [16 * 2**20]
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" in text
    assert "FASTDDS_DEFAULT_PROFILES_FILE" in text
