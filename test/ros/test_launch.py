"""The launch file and the configuration files."""

from __future__ import annotations

import ast
import importlib.util
import xml.etree.ElementTree as ElementTree

import pytest
from ros_peer import ROOT

LAUNCH_FILE = ROOT / "launch" / "monitor.launch.py"
DOCUMENTED = (ROOT / "docs" / "interfaces.md").read_text()


def test_structure_of_the_launch_file_without_executing_it():
    """launch is not on the package registry: here only the syntax tree is looked at."""
    tree = ast.parse(LAUNCH_FILE.read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "generate_launch_description" in functions
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [getattr(call.func, "id", "") for call in calls]
    assert names.count("DeclareLaunchArgument") == 1
    (node,) = [c for c in calls if getattr(c.func, "id", "") == "Node"]
    keywords = {k.arg: k.value for k in node.keywords}
    executable = ast.literal_eval(keywords["executable"])
    assert (ROOT / "scripts" / executable).is_file()
    assert ast.literal_eval(keywords["name"]) == "monitor"
    imported = {n.module for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert all(module.split(".")[0] in ("launch", "launch_ros") for module in imported)
    (table,) = [
        n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "ARGUMENTS"
    ]
    arguments = [ast.literal_eval(row.elts[0]) for row in table.elts]
    used = {c.value for c in ast.walk(tree) if isinstance(c, ast.Constant)}
    for row, name in zip(table.elts, arguments, strict=True):
        assert ast.literal_eval(row.elts[2]).endswith("."), f"{name} is not described"
        assert f"`{name}`" in DOCUMENTED
        assert name in used
    assert {"params_file", "namespace", "use_sim_time", "log_level"} <= set(arguments)


@pytest.fixture
def launch_file(monkeypatch, tmp_path):
    """The launch file as a module; needs launch_ros (a ROS install, or upstream's Python)."""
    pytest.importorskip("launch")
    pytest.importorskip("launch_ros")
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "ifailsense_ros").touch()
    (tmp_path / "share" / "ifailsense_ros").mkdir()
    (tmp_path / "share" / "ifailsense_ros" / "config").symlink_to(ROOT / "config")
    program = tmp_path / "lib" / "ifailsense_ros" / "ifailsense_monitor"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho called with: "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    spec = importlib.util.spec_from_file_location("monitor_launch", LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_launch(launch_file, capfd, **arguments) -> list[str]:
    """Launch for real, with a program that prints its arguments in the monitor's place."""
    from launch import LaunchService

    service = LaunchService()
    service.context.launch_configurations.update(arguments)
    service.include_launch_description(launch_file.generate_launch_description())
    assert service.run() == 0
    (line,) = [x for x in capfd.readouterr().out.splitlines() if "called with: " in x]
    return line.split("called with: ")[1].split()


def test_launching_it(launch_file, capfd):
    words = run_launch(
        launch_file, capfd, namespace="left", exo_image="/front", image_transport="compressed"
    )
    assert "__node:=monitor" in words
    assert "__ns:=/left" in words
    assert "exo/image:=/front" in words
    assert "exo/image/compressed:=/front/compressed" in words
    assert "gripper/image:=gripper/image" in words
    assert words[words.index("--log-level") + 1] == "info"
    files = [w for i, w in enumerate(words) if words[i - 1] == "--params-file"]
    assert len(files) == 2, "the configuration file, then the arguments given"


def test_arguments_left_out_leave_the_params_file_alone(launch_file):
    from launch import LaunchContext

    context = LaunchContext()
    for entity in launch_file.generate_launch_description().entities[:-1]:
        entity.visit(context)
    assert context.launch_configurations["params_file"].endswith("config/monitor.yaml")
    (node,) = launch_file.monitor(context)
    (_, overrides) = node._Node__parameters
    assert [key[0].text for key in overrides] == ["use_sim_time"]


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
