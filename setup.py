"""pip install of ifailsense_ros, generated ROS 2 messages included.

colcon builds from CMakeLists.txt and ignores this file (package.xml says ament_cmake). pip runs the
same CMakeLists.txt here, into a staging folder, and adds the result to the wheel: generated Python
to the package, libraries and the ament index under the environment's prefix. Without ROS 2 message
generators it installs Python only, and says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_py import build_py

NAME = "ifailsense_ros"
ROOT = Path(__file__).resolve().parent
INTERFACES = ("msg", "action", "srv")
NO_MESSAGES = "IFAILSENSE_ROS_NO_MSGS"
"""Set this variable to install Python only, even where message generators are there."""

RUN_REQUIREMENTS = [
    "numpy>=1.23",
    "opencv-python-headless>=4.8",  # opencv-python wants libGL
    "pyyaml>=6",
    "rich>=13",
    "rosbags>=0.10.4",
    "safetensors>=0.8",
    "torch>=2.7",
    # 5.23 is the first that applies Gemma 2's soft cap in PaliGemma's forward. Python 3.10 has none
    # later than 5.20, where model/ applies the caps, and zero-shot baselines go without.
    "transformers>=5.23,<6; python_version >= '3.11'",
    "transformers>=5.18,<5.21; python_version < '3.11'",
    "huggingface-hub>=1.31",  # comes with transformers; detectors by name on the hub
    "peft>=0.20",
    "tokenizers>=0.23.1",
    "pillow>=10",
]
EXTRAS = {
    "sim": ["mujoco==3.3.0", "tqdm>=4.60", "pyarrow>=15"],
    "unseen": ["metaworld==3.1.1", "mujoco==3.3.0", "tqdm>=4.60", "pyarrow>=15"],
    # and data sets, evaluation
    "train": [
        "accelerate>=1.3",
        "filelock>=3.10",  # comes with torch; one run a folder
        "jinja2>=3.1",  # comes with torch; the report's page is a template
        "markupsafe>=2.1",  # comes with jinja2
        "matplotlib>=3.7",
        "tqdm>=4.60",
        "pyarrow>=15",
        "scipy>=1.10",
    ],
    "tensorboard": ["tensorboard>=2.12"],  # ifailsense train --log-with tensorboard
    "openai": ["openai>=1.40"],  # --detector baseline:openai:...
    "ray": ["ray>=2.9"],  # ifailsense evaluate --ray, ifailsense label --ray
    "readers": ["av>=15", "h5py>=3.8", "pyarrow>=15", "tqdm>=4.60"],  # data sets of others
    "quantise": ["torchao>=0.14"],  # quantisation: int8
    "test": [
        "pytest>=8",
        "pytest-timeout>=2.2",
        "hypothesis>=6.100",
        "psutil>=5.9",
        "py-trees>=2.2",
    ],
}
EXTRAS["dev"] = [*EXTRAS["test"], "ruff>=0.6", "pre-commit>=3.5"]


def ament_prefixes() -> list[str]:
    """Folders that hold ROS 2 packages: sourced set-up files first, then the environment itself."""
    candidates = []
    for variable in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
        candidates += [p for p in os.environ.get(variable, "").split(os.pathsep) if p]
    # In pip's isolated builds sys.prefix is still the environment's, and ROS wheels named as build
    # requirements would be in the overlay on sys.path.
    candidates += [str(Path(p).parents[2]) for p in sys.path if Path(p).name == "site-packages"]
    candidates.append(sys.prefix)
    unique = dict.fromkeys(candidates)
    return [p for p in unique if (Path(p) / "share" / "ament_index").is_dir()]


def ament_python_folders() -> list[str]:
    """Python folders of those prefixes; pip's build isolation takes them off sys.path."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    tails = (f"lib/{version}/site-packages", f"local/lib/{version}/dist-packages")
    folders = (Path(prefix) / tail for prefix in ament_prefixes() for tail in tails)
    return [str(folder) for folder in folders if folder.is_dir()]


def can_generate_messages() -> bool:
    """Whether message generators are installed, and not switched off."""
    return not os.environ.get(NO_MESSAGES) and any(
        (Path(prefix) / "share" / "rosidl_default_generators").is_dir()
        for prefix in ament_prefixes()
    )


class Build(build):
    """Keeps one build folder per environment: CMake's cache must not wander between distros."""

    def finalize_options(self) -> None:
        environment = f"{sys.prefix} {sys.version} {os.environ.get('AMENT_PREFIX_PATH', '')}"
        key = hashlib.sha256(environment.encode()).hexdigest()[:8]
        self.build_base = str(Path("build") / f"pip-{key}")
        shutil.rmtree(ROOT / self.build_base, ignore_errors=True)
        super().finalize_options()


class BuildPy(build_py):
    """Copies the Python package, then adds what CMake makes of the message definitions."""

    def run(self) -> None:
        super().run()
        package = Path(self.build_lib) / NAME
        for kind in INTERFACES:
            shutil.copytree(ROOT / kind, package / "interfaces" / kind, dirs_exist_ok=True)
        if can_generate_messages():
            self._add_messages(package)
        else:
            self.announce(
                "no ROS 2 message generators here: installing without ifailsense_ros.msg", level=3
            )

    def _add_messages(self, package: Path) -> None:
        stage = self._run_cmake()
        # lib/pythonX.Y/site-packages, or Debian's local/lib/pythonX.Y/dist-packages
        python = next(stage.glob(f"**/{NAME}/msg/__init__.py")).parents[2]
        for kind in INTERFACES:
            # The generated C sources are compiled by now and of no use.
            shutil.copytree(
                python / NAME / kind,
                package / kind,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("*.c", "__pycache__"),
            )
        for library in (python / NAME).glob("*.so"):
            shutil.copy2(library, package)
        # Libraries, ament index, launch and config files go under the prefix, as in the ros-*
        # wheels.
        files: dict[str, list[str]] = {}
        for file in sorted(stage.rglob("*")):
            relative = file.relative_to(stage)
            if file.is_file() and python not in file.parents and relative.parts[0] != "include":
                files.setdefault(str(relative.parent), []).append(os.path.relpath(file, ROOT))
        self.distribution.data_files = list(files.items())

    def _run_cmake(self) -> Path:
        """Build and install CMakeLists.txt; returns the folder it installed into."""
        cmake = shutil.which("cmake")
        if cmake is None:
            raise SystemExit(
                "error: ROS 2 message generators are installed, but cmake is not: `pip install "
                f"cmake`, or set {NO_MESSAGES}=1 to install without messages"
            )
        folder = Path(self.get_finalized_command("build").build_base).resolve() / "cmake"
        stage = folder / "stage"
        environment = dict(
            os.environ,
            AMENT_PREFIX_PATH=os.pathsep.join(ament_prefixes()),
            PYTHONPATH=os.pathsep.join(ament_python_folders()),
        )
        configure = [
            f"-DCMAKE_INSTALL_PREFIX={stage}",
            f"-DCMAKE_PREFIX_PATH={';'.join(ament_prefixes())}",
            f"-DPython3_EXECUTABLE={sys.executable}",
            f"-DCMAKE_PROJECT_INCLUDE={ROOT}/cmake/pip_wheels.cmake",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_TESTING=OFF",
        ]
        steps = (
            ["-S", str(ROOT), "-B", str(folder), *configure],
            ["--build", str(folder), "--parallel"],
            ["--install", str(folder)],
        )
        for arguments in steps:
            subprocess.run([cmake, *arguments], env=environment, check=True)
        return stage


class MaybeBinaryDistribution(Distribution):
    """A platform wheel when it holds compiled messages, a pure one otherwise."""

    def has_ext_modules(self) -> bool:
        return can_generate_messages()


manifest = ElementTree.parse(ROOT / "package.xml").getroot()

setup(
    name="ifailsense-ros",
    version=manifest.findtext("version"),
    description="Failure monitor for language-conditioned manipulation, as ROS 2 nodes",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={
        f"{NAME}.annotate": ["page/*"],
        f"{NAME}.closed_loop": ["settings.yaml"],
        f"{NAME}.evaluate": ["report/assets/*"],
        f"{NAME}.model": ["checkpoints/**/*"],
        f"{NAME}.sim": ["assets/**/*"],
    },
    install_requires=RUN_REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "ifailsense=ifailsense_ros.cli:main",
            "ifailsense_monitor=ifailsense_ros.ros.monitor:main",
            "ifailsense_detector=ifailsense_ros.ros.detector_server:main",
            "ifailsense_sim_robot=ifailsense_ros.ros.sim_robot:main",
        ]
    },
    # A placeholder, so that the wheel command looks at data files at all; BuildPy fills in more.
    data_files=[("share/ifailsense_ros", ["package.xml"])],
    cmdclass={"build": Build, "build_py": BuildPy},
    distclass=MaybeBinaryDistribution,
    zip_safe=False,
)
