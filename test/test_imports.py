"""The import rule: arrows between our packages run downward only, and only `ros` knows of ROS.

Read from the source by `ast`, so that a lazy import inside a function counts as well.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ifailsense_ros"

EVERYTHING = frozenset(
    {
        *("core", "model", "data", "train", "evaluate", "annotate", "experiments", "sim", "ros"),
        *("closed_loop", "cli", "demo"),
    }
)
MAY_USE = {
    "core": {"core"},
    "model": {"core", "model"},
    "data": {"core", "data"},
    "train": {"core", "model", "data", "train"},
    "evaluate": {"core", "model", "data", "evaluate"},
    "annotate": {"core", "model", "data", "evaluate", "annotate"},
    "experiments": {"core", "model", "data", "train", "evaluate", "experiments"},
    "sim": {"core", "data", "sim"},
    "closed_loop": {"core", "model", "data", "evaluate", "sim", "closed_loop"},
    "ros": EVERYTHING - {"cli", "demo", "experiments", "annotate"},
    "cli": EVERYTHING,
    "demo": EVERYTHING - {"cli", "experiments", "annotate"},
}
"""Which of our packages each may import."""

CORE_MAY_IMPORT = {"numpy", "cv2"}
TORCH_LIKE = {"torch", "transformers", "peft", "safetensors", "tokenizers"}
MAY_USE_TORCH = {"model", "train", "evaluate", "experiments", "ros", "cli", "demo"}
MAY_USE_MUJOCO = {"sim"}
ROS_MODULES = {
    "ament_index_python",
    "builtin_interfaces",
    "cv_bridge",
    "launch",
    "launch_ros",
    "message_filters",
    "rcl_interfaces",
    "rclpy",
    "rosbag2_py",
}
LAZY = {"cli"}
"""Packages that must start at once: at module level they import the standard library and core."""


@dataclass(frozen=True)
class Import:
    """One import in one module: absolute dotted name, line, and whether it runs on import."""

    name: str
    line: int
    at_module_level: bool


def _is_ros(name: str) -> bool:
    top = name.split(".")[0]
    return (
        top in ROS_MODULES
        or top.endswith(("_msgs", "_srvs"))
        or name.startswith(("ifailsense_ros.msg", "ifailsense_ros.action", "ifailsense_ros.srv"))
    )


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _imports(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """All imports of a module, relative ones resolved, `import_module("literal")` included."""

    def names(node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = module.split(".")[: -node.level + int(is_package) or None]
                base = ".".join([*up, base] if base else up)
            # `from package import x`: x may itself be a module.
            return [f"{base}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            literal = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
            if called.endswith(("import_module", "__import__", "importorskip")):
                return [v for v in literal if isinstance(v, str)]
        return []

    def walk(node: ast.AST, top: bool) -> Iterator[Import]:
        for name in names(node):
            yield Import(name, node.lineno, top)
        runs_later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, top and not runs_later and not _is_type_checking(node))

    yield from walk(ast.parse(source), True)


def find_violations(package: Path) -> list[str]:
    """Breaches of the rule in a package folder, one line each: file, line, what, which rule."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        layer = parts[0] if len(parts) > 1 else ""
        is_package = parts[-1] == "__init__"
        module = ".".join(["ifailsense_ros", *(parts[:-1] if is_package else parts)])
        for imported in _imports(path.read_text("utf-8"), module, is_package=is_package):
            for rule in _broken_rules(layer, imported):
                where = path.relative_to(package.parent)
                found.append(f"{where}:{imported.line}: imports {imported.name}: {rule}")
    return found


def _broken_rules(layer: str, imported: Import) -> Iterator[str]:
    name = imported.name
    pieces = name.split(".")
    top = pieces[0]
    ours = top == "ifailsense_ros"
    target = pieces[1] if ours and len(pieces) > 1 else ""
    if layer and layer not in MAY_USE:
        yield f"package {layer} has no entry in the import rule"
        return
    if not layer:  # ifailsense_ros/__init__.py: imported by everybody, so it imports nobody
        if top not in sys.stdlib_module_names:
            yield "the package's own modules import the standard library only"
        return
    if target in EVERYTHING and target not in MAY_USE[layer]:
        yield f"{layer} may use {', '.join(sorted(MAY_USE[layer]))} only"
    if _is_ros(name) and layer != "ros":
        yield "only ros imports ROS"
    if layer == "core" and not ours and top not in CORE_MAY_IMPORT | sys.stdlib_module_names:
        yield "core is numpy and cv2 only"
    elif top in TORCH_LIKE and layer not in MAY_USE_TORCH:
        yield f"{layer} works without torch"
    if top == "mujoco" and layer not in MAY_USE_MUJOCO:
        yield "mujoco is for sim"
    if layer in LAZY and imported.at_module_level:
        light = top in sys.stdlib_module_names or target in {"core", "cli", "__version__"}
        if not light:
            yield f"{layer} imports this inside the function that needs it"


def test_arrows_run_downward_only() -> None:
    assert find_violations(PACKAGE) == []


def test_every_package_is_under_the_rule() -> None:
    folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(MAY_USE), "a new package needs its line in MAY_USE"
    assert "core" in folders


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        ("core/a.py", "import torch", "numpy and cv2 only"),
        ("core/a.py", "def f():\n    from ifailsense_ros.model import vlm", "core may use"),
        ("core/a.py", "from ..model import vlm", "core may use"),
        ("core/__init__.py", "from ..data import rosbag", "core may use"),
        ("core/a.py", "from ifailsense_ros import model", "core may use"),
        ("model/a.py", "import rclpy", "only ros imports ROS"),
        ("model/a.py", "from ifailsense_ros.msg import FailureVerdict", "only ros imports ROS"),
        ("model/a.py", "from ifailsense_ros.data import rosbag", "model may use"),
        ("data/a.py", "import importlib\nimportlib.import_module('torch')", "without torch"),
        ("data/a.py", "from sensor_msgs.msg import Image", "only ros imports ROS"),
        ("train/a.py", "from ifailsense_ros.sim import scene", "train may use"),
        ("sim/a.py", "from ifailsense_ros.model import vlm", "sim may use"),
        ("model/a.py", "import mujoco", "mujoco is for sim"),
        ("ros/a.py", "from ifailsense_ros.cli import main", "ros may use"),
        ("cli/a.py", "import torch", "inside the function"),
        ("cli/a.py", "from ifailsense_ros.evaluate import offline", "inside the function"),
        ("cli/a.py", "def f():\n    import rclpy", "only ros imports ROS"),
        ("other/a.py", "import os", "no entry"),
        ("a.py", "import numpy", "standard library only"),
    ],
)
def test_planted_violation_is_found(tmp_path: Path, path: str, source: str, rule: str) -> None:
    file = tmp_path / "ifailsense_ros" / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    found = find_violations(tmp_path / "ifailsense_ros")
    assert len(found) == 1
    assert rule in found[0]
    assert found[0].startswith(f"ifailsense_ros/{path}:{len(source.splitlines())}: ")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("core/a.py", "import math\nimport cv2\nimport numpy as np\nfrom .episode import Episode"),
        ("ros/a.py", "import rclpy\nfrom ifailsense_ros.msg import FailureVerdict"),
        ("cli/a.py", "import argparse\ndef f():\n    import torch"),
        ("cli/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("evaluate/a.py", "from ..core import tracker\nfrom ..data import rosbag"),
    ],
)
def test_lawful_import_is_not_reported(tmp_path: Path, path: str, source: str) -> None:
    file = tmp_path / "ifailsense_ros" / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert find_violations(tmp_path / "ifailsense_ros") == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("ifailsense_ros.cli", {"torch", "transformers", "rclpy", "cv2"}),
        ("ifailsense_ros.core.tracker", {"torch", "rclpy", "rosbags"}),
        ("ifailsense_ros.model.worker", {"torch", "transformers", "rclpy"}),
        # The model lives in the worker process; the node's must not load torch as well.
        ("ifailsense_ros.ros.monitor", {"torch", "transformers"}),
    ],
)
def test_importing_does_not_load(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print([m for m in {sorted(absent)} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
