"""What holds of the package itself: one version, frozen messages, complete manifests, set-up."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ifailsense_ros
from ifailsense_ros.core.verdict import Outcome, Reason, VoteValue

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()

FROZEN = {
    "ifailsense_ros/msg/DetectorVote": (
        "RIHS01_de683d709bb2fda893e525d68be78c3cbb454ddd531893f6bf76dc4dea53f921"
    ),
    "ifailsense_ros/msg/EpisodeEvent": (
        "RIHS01_925a9e811e3a9cdb6b4f3376f8c3883cea787ff82fe719f75f08dd1f4cdaf5bb"
    ),
    "ifailsense_ros/msg/FailureVerdict": (
        "RIHS01_2bffe873034a41a060479c11763007f26a7764282c2eaaeeca371cee2d95ada1"
    ),
    "ifailsense_ros/action/CheckEpisode": (
        "RIHS01_91467fe2b9369e7b2bdec08dd8f373816a966e3db5c35b9059ae74c4d078b092"
    ),
    "ifailsense_ros/action/ExecuteInstruction": (
        "RIHS01_72fc5ee666f1ef151f5326f6f9a328ec0308b9021be8c829c0b4e54383e071b8"
    ),
    "ifailsense_ros/srv/GetDetector": (
        "RIHS01_a258c54b0d72fd585fecc75b4af507c6af50ddbf4a6f26f5e8f241456438d7a0"
    ),
    "ifailsense_ros/srv/JudgeEpisode": (
        "RIHS01_3aea253df140b5f9a3cab83c9faae3165a555f03dcea43d4e64dc5726b18f7b8"
    ),
}
"""Type hashes. Committed bags and other machines' nodes know the types by these."""

NOT_IN_ROSDEP = {"huggingface_hub", "peft", "safetensors", "tokenizers", "psutil"}
"""Imported, but rosdistro has no key (or, psutil, only benchmarks and tests use it)."""

ROSDEP_KEY = {
    "PIL": "python3-pil",
    "cv2": "python3-opencv",
    "numpy": "python3-numpy",
    "rich": "python3-rich",
    "rosbags": "python3-rosbags-pip",
    "torch": "python3-pytorch-pip",
    "transformers": "python3-transformers-pip",
    "yaml": "python3-yaml",
}
PIP_NAME = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "huggingface_hub": "huggingface-hub",
    "yaml": "pyyaml",
}
EXTRAS_OF = {
    "cli": ("train",),
    "closed_loop": ("train",),
    "data": ("train", "readers"),
    "evaluate": ("train", "openai", "ray"),
    "experiments": ("train",),
    "model": ("quantise",),
    "sim": ("sim",),
    "train": ("train",),
}
"""Packages of ours that may import what only extras install."""


def _third_party(folder: Path) -> dict[str, set[str]]:
    """Top-level names imported under a folder that are neither ours nor the standard library's.

    Returns:
        For each name, the packages of ours ("core", "ros", ...) that import it.
    """
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        layer = path.relative_to(folder).parts[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top != "ifailsense_ros":
                    found.setdefault(top, set()).add(layer)
    return found


def _is_ros_package(name: str) -> bool:
    return name.endswith("_msgs") or name in {
        "ament_index_python",
        "builtin_interfaces",
        "cv_bridge",
        "launch",
        "launch_ros",
        "message_filters",
        "rcl_interfaces",
        "rclpy",
    }


def _setup_constants() -> tuple[list[str], dict[str, list[str]]]:
    """RUN_REQUIREMENTS and EXTRAS of setup.py, without running it."""
    values = {}
    for node in ast.parse((ROOT / "setup.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in {"RUN_REQUIREMENTS", "EXTRAS"}:
                values[name] = ast.literal_eval(node.value)
    return values["RUN_REQUIREMENTS"], values["EXTRAS"]


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=;\[ ]", r, maxsplit=1)[0] for r in requirements}


def test_pins_and_the_robots_requirements_keep_the_bounds_of_setup() -> None:
    bounds = [Requirement(text) for text in _setup_constants()[0]]
    lock = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(), re.M)
    pinned = {canonicalize_name(name): version for name, version in lock}
    for bound in bounds:
        if bound.marker is None or bound.marker.evaluate({"python_version": "3.11"}):
            assert pinned[canonicalize_name(bound.name)] in bound.specifier, bound
    lines = (ROOT / "requirements-ros.txt").read_text().splitlines()
    robot = {Requirement(line) for line in lines if not line.startswith("#")}
    other = {bound.name for bound in robot - set(bounds)}
    assert other == {"numpy", "opencv-python-headless"}  # those that cv_bridge was built against


def test_one_version_everywhere() -> None:
    version = MANIFEST.findtext("version")
    assert ifailsense_ros.__version__ == version
    assert re.search(rf"^{re.escape(version)} ", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)


def test_python_from_the_tree_and_messages_from_the_installation() -> None:
    code = (
        "import ifailsense_ros, ifailsense_ros.core.verdict as v, ifailsense_ros.msg as m;"
        "print(ifailsense_ros.__file__); print(v.__file__); print(m.__file__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    package, verdict, messages = (Path(line) for line in run.stdout.split())
    assert package == ROOT / "ifailsense_ros" / "__init__.py"
    assert verdict == ROOT / "ifailsense_ros" / "core" / "verdict.py"
    assert ROOT / "ifailsense_ros" not in messages.parents


def test_enums_carry_the_numbers_of_the_messages() -> None:
    msg = pytest.importorskip("ifailsense_ros.msg")
    definition = (ROOT / "msg/FailureVerdict.msg").read_text()
    constants = {
        name.removeprefix("REASON_"): getattr(msg.FailureVerdict, name)
        for name in re.findall(r"^uint16 (REASON_\w+)=", definition, re.MULTILINE)
    }
    assert constants == {reason.name: reason.value for reason in Reason}
    for enum, message in ((Outcome, msg.FailureVerdict), (VoteValue, msg.DetectorVote)):
        assert {e.name: e.value for e in enum} == {e.name: getattr(message, e.name) for e in enum}


@pytest.mark.parametrize("interface", sorted(FROZEN))
def test_interfaces_are_frozen(interface: str) -> None:
    description = Path(sys.prefix, "share", f"{interface.replace('/', os.sep)}.json")
    if not description.is_file():
        pytest.skip("no installed interfaces here")
    hashes = {
        h["type_name"]: h["hash_string"] for h in json.loads(description.read_text())["type_hashes"]
    }
    assert hashes[interface] == FROZEN[interface]


def test_reading_the_definitions_gives_the_same_types_as_ros() -> None:
    """Bags are written and read without ROS; the types must be the ones that ROS knows."""
    rosbags = pytest.importorskip("rosbags.typesys")
    store = rosbags.get_typestore(rosbags.Stores.ROS2_JAZZY)
    types = {}
    for path in sorted((ROOT / "msg").glob("*.msg")):
        types |= rosbags.get_types_from_msg(path.read_text(), f"ifailsense_ros/msg/{path.stem}")
    store.register(types)
    hashes = {name: store.hash_rihs01(name) for name in types}
    assert hashes == {name: value for name, value in FROZEN.items() if "/msg/" in name}


def test_every_interface_file_is_built() -> None:
    files = {
        f"{folder}/{p.name}"
        for folder in ("msg", "action", "srv")
        for p in (ROOT / folder).iterdir()
    }
    built = set(
        re.findall(r'"((?:msg|action|srv)/\w+\.\w+)"', (ROOT / "CMakeLists.txt").read_text())
    )
    assert built == files


def test_package_xml_names_what_is_imported() -> None:
    imported = _third_party(ROOT / "ifailsense_ros") | _third_party(ROOT / "launch")
    declared = {
        e.text for e in MANIFEST if e.tag in {"depend", "exec_depend"} and e.text is not None
    }
    optional = set().union(*(_names(extra) for extra in _setup_constants()[1].values()))
    missing = set()
    for name, layers in imported.items():
        if name in NOT_IN_ROSDEP or (name in optional and layers <= set(EXTRAS_OF)):
            continue
        key = name if _is_ros_package(name) else ROSDEP_KEY.get(name, f"{name} (no key known)")
        if key not in declared:
            missing.add(f"{key}, imported by {', '.join(sorted(layers))}")
    assert missing == set()


def test_setup_py_names_what_is_imported() -> None:
    run_requirements, extras = _setup_constants()
    required = _names(run_requirements)
    missing = set()
    for name, layers in _third_party(ROOT / "ifailsense_ros").items():
        if _is_ros_package(name):
            continue
        for layer in layers:
            extra = _names([r for e in EXTRAS_OF.get(layer, ()) for r in extras[e]])
            if PIP_NAME.get(name, name) not in required | extra:
                missing.add(f"{name}, imported by {layer}")
    assert missing == set()


def test_lock_pins_everything_that_setup_py_asks_for() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    run_requirements, extras = _setup_constants()
    wanted = _names(run_requirements) | _names(extras["test"])
    assert wanted <= set(pins)
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins.values())


def test_environment_has_the_locked_versions() -> None:
    if not Path(sys.prefix, ".ifailsense-made").exists():
        pytest.skip("this environment was not made by the Makefile")
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            name, version = line.split("==")
            assert importlib.metadata.version(name).split("+")[0] == version, name


def _run_setup(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PATH=path) if path else None
    return subprocess.run(
        [shutil.which("bash"), str(ROOT / "scripts/setup_env.sh"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )


def _one_line(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 2, run
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    return run.stderr


def test_setup_without_interpreter_says_so(tmp_path: Path) -> None:
    assert "no interpreter python9.9" in _one_line(_run_setup(str(tmp_path / "env"), "python9.9"))


@pytest.mark.parametrize(
    ("tool", "advice"), [("g++", "apt install g++"), ("make", "apt install make")]
)
def test_setup_without_tool_says_what_to_install(tmp_path: Path, tool: str, advice: str) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    needed = (
        "bash cat cut dirname find flock g++ grep ls make mkdir sha256sum sort touch uname xargs"
    )
    for name in needed.split():
        if name != tool:
            (tools / name).symlink_to(shutil.which(name))
    run = _run_setup(str(tmp_path / "env"), sys.executable, path=str(tools))
    assert advice in _one_line(run)


def test_setup_leaves_an_environment_alone_that_it_did_not_make(tmp_path: Path) -> None:
    env = tmp_path / "env"
    env.mkdir()
    (env / "mine").write_text("kept")
    run = _run_setup(str(env), sys.executable)
    assert "was not made by this Makefile" in _one_line(run)
    assert (env / "mine").read_text() == "kept"


@pytest.mark.slow
def test_wheel_holds_what_users_need_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("ifailsense_ros", "msg", "action", "srv", "cmake", "scripts", "test"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "package.xml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    # Without messages: the compiled ones are tried by every other test of this environment.
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run(
        [*pip_wheel, "-w", str(tmp_path), str(source)],
        check=True,
        env=dict(os.environ, IFAILSENSE_ROS_NO_MSGS="1"),
        timeout=110,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {
        str(p.relative_to(source))
        for p in (source / "ifailsense_ros").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    expected |= {f"ifailsense_ros/interfaces/{p.parent.name}/{p.name}" for p in ROOT.glob("msg/*")}
    expected |= {
        f"ifailsense_ros/interfaces/action/{name}.action"
        for name in ("CheckEpisode", "ExecuteInstruction")
    }
    expected |= {f"ifailsense_ros/interfaces/srv/{p.name}" for p in ROOT.glob("srv/*")}
    inside = {name for name in names if name.startswith("ifailsense_ros/")}
    assert inside == expected
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ifailsense_ros"}
