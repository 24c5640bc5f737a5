"""Shared by all tests: what each marker needs, and no DDS traffic off this machine."""

from __future__ import annotations

import importlib.util
import os
import signal

import pytest
from hypothesis import settings

# Before any test makes a DDS participant: samples must stay on the loopback interface.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

# Started in the background of a script, we are born with SIGINT ignored, and so would be every
# process that a test starts to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Left to itself, mujoco tries a window, and without a display that aborts the whole test run. With
# MUJOCO_GL=egl or osmesa in the environment the rendering tests run as well.
os.environ.setdefault("MUJOCO_GL", "disable")

# Under CI the examples are the same on every run; machines are slow, so no deadline per example.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def _cuda_present() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this environment cannot run, with the reason in the summary."""
    lacking = {}
    if importlib.util.find_spec("mujoco") is None:
        lacking["sim"] = "needs mujoco: `make test-sim`, or pip install '.[sim]'"
    if any("gpu" in item.keywords for item in items) and not _cuda_present():
        lacking["gpu"] = "needs a CUDA device"
    for item in items:
        for marker, reason in lacking.items():
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))
